"""Pictures of who gets what: clusters by expert, classes by expert. Needs matplotlib."""

import os

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend comes first: there is no display)

from recipes import cifar as cifar_data  # noqa: E402

COLOURS = "Blues"
CIFAR_CLASSES = cifar_data.NAMES
DARK = 0.6  # a cell this full gets white digits


def _heat_map(axes, shares, text, title):
    axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    axes.set_title(title, fontsize=9)
    axes.tick_params(length=0, labelsize=7)
    for side in axes.spines.values():
        side.set_visible(False)
    for (row, column), label in np.ndenumerate(text):
        axes.text(column, row, label, ha="center", va="center", fontsize=6,
                  color="white" if shares[row, column] > DARK else "black")


def _save(figure, folder, name, alt):
    """Writes the picture and returns the Markdown that shows it."""
    figure.savefig(os.path.join(folder, name), dpi=110)
    pyplot.close(figure)
    return f"\n![{alt}](results/{name})\n"


def _by_first_row(table):
    """The order of columns that makes a good router's table look like a staircase."""
    return np.lexsort((-table.max(axis=0), table.argmax(axis=0), table.sum(axis=0) == 0))


def dispatch(rows, folder):
    """Training rows per cluster and expert of one mixture per setting, nonlinear above linear."""
    settings = [name for name in ("s1", "s2", "s3", "s4") if f"{name}-moe-nonlinear" in rows]
    kinds = ("nonlinear", "linear")
    if not settings:
        return None
    figure, axes = pyplot.subplots(len(kinds), len(settings), figsize=(2.9 * len(settings), 4.2), squeeze=False,
                                   constrained_layout=True)
    for column, setting in enumerate(settings):
        for line, kind in enumerate(kinds):
            found = rows.get(f"{setting}-moe-{kind}")
            if found:
                _dispatch_map(axes[line, column], found[0], f"setting {setting[1]}, {kind}")
    return _save(figure, folder, "dispatch.png", "Training rows by cluster (down) and expert (across), seed 0: the "
                 "router of nonlinear experts finds the clusters, that of linear experts does not")


def _dispatch_map(axes, row, title):
    table = np.array(row["noisy_dispatch"])
    order = _by_first_row(table)
    table = table[:, order]
    _heat_map(axes, table / table.sum(axis=1, keepdims=True), np.where(table > 0, table, "").astype(str),
              f"{title}: {row['noisy_dispatch_entropy_nats']:.3f} nats")
    axes.set_xticks(range(table.shape[1]), [f"e{expert}" for expert in order])
    axes.set_yticks(range(table.shape[0]), [f"cluster {cluster}" for cluster in range(table.shape[0])])


def expert_by_class(recipe, papers, rows, folder):
    """Test images per true class and first-choice expert, of the run with the least training error."""
    variants = [variant for variant in papers if variant in rows and "first_choice_by_class" in rows[variant][0]]
    if not variants:
        return None
    columns = min(4, len(variants))
    lines = -(-len(variants) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(2.9 * columns, 2.6 * lines), squeeze=False,
                                   constrained_layout=True)
    for place in axes.flat[len(variants):]:
        place.set_visible(False)
    for index, (place, variant) in enumerate(zip(axes.flat, variants)):
        labels = recipe.labels if index % columns == 0 else [""] * len(recipe.labels)
        _class_map(place, min(rows[variant], key=lambda row: row["train_error"]), papers[variant].title, labels)
    return _save(figure, folder, f"{recipe.name}.png", f"{recipe.title}: test images by class (down) and expert of "
                 "first choice (across), in per cent of the class; the seed with the least training error")


def _class_map(axes, row, title, labels):
    table = np.array(row["first_choice_by_class"]).T
    order = _by_first_row(table)
    shares = (table / table.sum(axis=1, keepdims=True))[:, order]
    percents = np.rint(100 * shares).astype(int)
    _heat_map(axes, shares, np.where(percents > 0, percents, "").astype(str),
              f"{title}\nI = {row['mutual_information_bits']:.2f} bits")
    axes.set_xticks(range(len(order)), [f"e{expert}" for expert in order])
    axes.set_yticks(range(table.shape[0]), labels)


def cifar(found, folder):
    """Two pictures: classes by expert, and how the error on sharp images moves with that on blurred ones."""
    return (_class_maps(found, folder) or "") + (_shift(found.get("cifar10_rotate", {}), folder) or "")


def _class_maps(found, folder):
    maps = [(title, variant, found[recipe][variant][0]) for recipe, title in
            (("cifar10", "CIFAR-10"), ("cifar10_rotate", "Rotate")) for variant in found.get(recipe, ())
            if variant.startswith("moe") and not variant.endswith("noise")]
    if not maps:
        return None
    figure, axes = pyplot.subplots(1, len(maps), figsize=(2.1 * len(maps), 3), squeeze=False, constrained_layout=True)
    for index, (place, (title, variant, row)) in enumerate(zip(axes.flat, sorted(maps, key=lambda each: each[:2]))):
        table = np.array(row["dispatch"])
        shares = table / table.sum(axis=1, keepdims=True)
        percents = np.rint(100 * shares).astype(int)
        _heat_map(place, shares, np.where(percents > 0, percents, "").astype(str),
                  f"{title}\n{variant[4:]}\n{row['dispatch_entropy_nats']:.3f} nats")
        place.set_xticks(range(table.shape[1]), [f"e{expert}" for expert in range(table.shape[1])])
        place.set_yticks(range(len(CIFAR_CLASSES)), CIFAR_CLASSES if index == 0 else [""] * len(CIFAR_CLASSES))
    return _save(figure, folder, "cifar_dispatch.png", "CIFAR-10: test images by class (down) and expert (across), in "
                 "per cent of the class, seed 0: no router finds the classes")


def _shift(rows, folder):
    """Every epoch of every run is a point."""
    networks = [network for network in ("cnn", "resnet18") if any(f"-{network}-" in variant for variant in rows)]
    if not networks:
        return None
    figure, axes = pyplot.subplots(1, len(networks), figsize=(4.2 * len(networks), 3.4), squeeze=False,
                                   constrained_layout=True)
    for place, network in zip(axes.flat, networks):
        for variant in sorted(name for name in rows if f"-{network}-" in name and not name.endswith("noise")):
            blurred, sharp = (np.concatenate([row[key] for row in rows[variant]]) * 100 for key in
                              ("test_errors_treated", "test_errors"))
            place.plot(blurred, sharp, "o" if variant.startswith("moe") else "x", markersize=4, alpha=0.7,
                       label=variant.replace(f"-{network}", ""))
        place.set_title(network, fontsize=9)
        place.set_xscale("log")
        place.set_xlabel("error on blurred test images, %", fontsize=8)
        place.set_ylabel("error on the test images, %", fontsize=8)
        place.legend(fontsize=7)
    return _save(figure, folder, "cifar_shift.png", "CIFAR-10-Rotate: the error on sharp test images against that on "
                 "blurred ones, a point per epoch and seed; training moves from right to left")


def domains(row, folder):
    """The share of every expert of the choices in each text, a map per layer."""
    shares = np.array(list(row["shares"].values()))  # (domains, layers, experts)
    figure, axes = pyplot.subplots(shares.shape[1], 1, figsize=(7.6, 1.2 * shares.shape[1]), squeeze=False,
                                   constrained_layout=True)
    for layer, place in enumerate(axes.flat):
        of_layer = shares[:, layer]
        order = _by_first_row(of_layer)
        _heat_map(place, of_layer[:, order] / of_layer.max(), np.rint(100 * of_layer[:, order]).astype(int).astype(str),
                  f"layer {layer}: I = {row['information_bits'][layer]:.2f} bits")
        place.set_xticks(range(len(order)), [f"e{expert}" for expert in order])
        place.set_yticks(range(len(shares)), list(row["shares"]))
    return _save(figure, folder, "tiny_lm.png", "The toy language model: of the choices in each text (down), the share "
                 "of each expert (across) in per cent, by layer, on held-out text")
