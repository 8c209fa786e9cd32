"""The pictures of a run, one function each."""

import os

import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  after the choice of a backend without a screen
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402

from bench_gemm import by_shape  # noqa: E402

COLOURS = {"moed f32": "#0b5fa5", "moed bf16": "#3f9be0", "moed f16": "#9accf2", "moed int8": "#123a5e",
           "moed int4": "#6a51a3", "OpenBLAS": "#c0392b", "OpenBLAS best": "#e59866", "oneDNN f32": "#4d4d4d", "oneDNN bf16": "#a6a6a6", "LIBXSMM f32": "#2e8b57",
           "moed": "#0b5fa5", "PyTorch": "#c0392b", "oneDNN": "#4d4d4d", "FastAPI": "#c0392b", "ceiling": "#a6a6a6"}


def _save(figure, path, title):
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _line(axes, xs, results, name, **style):
    """A median with its spread."""
    middle = [result["median"] for result in results]
    axes.plot(xs, middle, marker="o", markersize=3.5, linewidth=1.4, color=COLOURS.get(name), label=name, **style)
    axes.fill_between(xs, [result["low"] for result in results], [result["high"] for result in results],
                      color=COLOURS.get(name), alpha=0.15, linewidth=0)


def _log_axis(axes, values):
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(values))
    axes.set_xticklabels(sorted(values))
    axes.grid(alpha=0.3)


def _legend(axes):
    """Puts the legend beside the last picture, where it covers no line."""
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def gemm(result, directory):
    shapes = by_shape(result)
    figure, grid = plt.subplots(1, len(shapes), figsize=(4.2 * len(shapes), 4.2), sharey=True)
    for axes, ((n, k), points) in zip(grid, shapes.items()):
        for name in COLOURS:
            rows = [count for count in points if name in points[count]]
            if rows:
                _line(axes, rows, [points[count][name] for count in rows], name)
        axes.axhline(result["peak_gflops"], color="black", linestyle=":", linewidth=1, label="peak")
        axes.set_title(f"{n} x {k}")
        axes.set_xlabel("rows")
        _log_axis(axes, points)
    grid[0].set_ylabel("GFLOP/s, one thread")
    grid[0].set_ylim(bottom=0)
    _legend(grid[-1])
    _save(figure, os.path.join(directory, "gemm.png"), f"Dense algebra (kernel {result['kernel']})")


BAR = 0.17  # width, of the places between ticks
CONV_COLOURS = {**COLOURS, "PyTorch": "#2e8b57"}


def conv(result, directory, file="conv.png", title="Convolutions"):
    names = list(dict.fromkeys(point["name"] for point in result["points"]))
    contenders = list(result["points"][0]["us"])
    row_counts = sorted({point["rows"] for point in result["points"]})
    width = max(5, len(names) / 2)
    figure, grid = plt.subplots(1, len(row_counts), figsize=(width * len(row_counts), 4.6), sharey=True, squeeze=False)
    for axes, rows in zip(grid[0], row_counts):
        points = [point for point in result["points"] if point["rows"] == rows]
        for index, name in enumerate(contenders):
            speed = [2e-3 * point["macs"] * rows / point["us"][name]["median"] for point in points]
            at = [place + BAR * (index - (len(contenders) - 1) / 2) for place in range(len(names))]
            axes.bar(at, speed, width=BAR, color=CONV_COLOURS[name], label=name)
        axes.set_xticks(range(len(names)))
        axes.set_xticklabels(names, rotation=40, ha="right", fontsize=8)
        axes.set_title(f"{rows} row{'s' if rows > 1 else ''}")
        axes.grid(alpha=0.3, axis="y")
    grid[0][0].set_ylabel("GFLOP/s, one thread")
    _legend(grid[0][-1])
    _save(figure, os.path.join(directory, file), title)


def depthwise(result, directory):
    conv(result, directory, "depthwise.png", "Depthwise convolutions")


def ops(result, directory):
    """How often PyTorch's time of an op is ours; 1 is a line."""
    names = list(dict.fromkeys(point["name"] for point in result["points"]))
    row_counts = sorted({point["rows"] for point in result["points"]})
    figure, axes = plt.subplots(figsize=(max(6, len(names) / 3), 4.6))
    for index, rows in enumerate(row_counts):
        ratios = [point["us"]["PyTorch"]["median"] / point["us"]["moed"]["median"]
                  for point in result["points"] if point["rows"] == rows]
        at = [place + 1.5 * BAR * (index - (len(row_counts) - 1) / 2) for place in range(len(names))]
        axes.bar(at, ratios, width=1.5 * BAR, label=f"{rows} row{'s' if rows > 1 else ''}")
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)))
    axes.set_xticklabels(names, rotation=40, ha="right", fontsize=8)
    axes.set_ylabel("PyTorch / moed, times")
    _legend(axes)
    _save(figure, os.path.join(directory, "ops.png"), "Other ops")


# The axes of the MoE layer's cost, and the values held fixed.
MOE_PICTURES = (("experts", "experts", {"rows": 64}), ("top_k", "k", {"rows": 64, "experts": 64}),
                ("rows", "rows", {"top_k": 2, "experts": 64}))


def moe(result, directory):
    """Against the number of experts the sparse promise is a line that stays flat once every row has its own."""
    shapes = sorted({(point["d"], point["ff"]) for point in result["points"]})
    contenders = [name for name in COLOURS if name in result["points"][0]["us"]]
    figure, grid = plt.subplots(len(MOE_PICTURES), len(shapes), figsize=(4.8 * len(shapes), 11), squeeze=False)
    for line, (key, title, fixed) in zip(grid, MOE_PICTURES):
        for axes, (d, ff) in zip(line, shapes):
            points = [point for point in result["points"] if (point["d"], point["ff"]) == (d, ff)
                      and all(point[name] == value for name, value in fixed.items())]
            top_ks = sorted({point["top_k"] for point in points}) if key != "top_k" else [None]
            for top_k, dashes in zip(top_ks, ("-", "--", ":")):
                of = [point for point in points if top_k in (None, point["top_k"])]
                for name in contenders:
                    _line(axes, [point[key] for point in of], [point["us"][name] for point in of], name, linestyle=dashes)
                    axes.lines[-1].set_label(name if len(top_ks) == 1 else f"{name}, k = {top_k}")
            at = ", ".join(f"{'k' if name == 'top_k' else name} = {value}" for name, value in fixed.items())
            axes.set_title(f"d = {d}, ff = {ff}; {at}", fontsize=9)
            axes.set_xlabel(title)
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.yaxis.set_minor_locator(NullLocator())
            if points:
                _log_axis(axes, {point[key] for point in points})
        line[0].set_ylabel("us per forward pass")
        _legend(line[-1])
    _save(figure, os.path.join(directory, "moe.png"), "MoE layer, one thread")


def memory(result, directory):
    points = result["points"]
    figure, (held, time) = plt.subplots(1, 2, figsize=(9, 3.8))
    pairs = ((held, (("bytes", "weights", "#a6a6a6"), ("rss", "resident", "#0b5fa5")), 2 ** 20, "MiB"),
             (time, (("read_s", "read the file", "#a6a6a6"), ("memory_s", "write as much memory", "#9accf2"),
                     ("start_s", "start the server", "#0b5fa5")), 1, "s"))
    for axes, bars, unit, label in pairs:
        for index, (key, name, colour) in enumerate(bars):
            values = [point[key] if key == "bytes" else point[key]["median"] for point in points]
            at = [place + BAR * (index - (len(bars) - 1) / 2) for place in range(len(points))]
            axes.bar(at, [value / unit for value in values], width=BAR, color=colour, label=name)
        axes.set_xticks(range(len(points)))
        axes.set_xticklabels([point["dtype"] for point in points])
        axes.set_ylabel(label)
        axes.grid(alpha=0.3, axis="y")
        axes.legend(fontsize=8)
    _save(figure, os.path.join(directory, "memory.png"), "A large checkpoint: memory held, time to start")


def http(result, directory):
    for model in sorted({run["model"] for run in result["runs"]}):
        runs = [run for run in result["runs"] if run["model"] == model]
        names = list(dict.fromkeys(run["format"] for run in runs))
        figure, grid = plt.subplots(2, len(names), figsize=(4 * len(names), 7), sharex=True, sharey="row")
        for column, name in enumerate(names):
            for contender in ("moed", "ceiling", "FastAPI"):
                of = [run for run in runs if run["format"] == name and run["contender"] == contender]
                if not of:
                    continue
                for row, key in enumerate(("per_second", "p99_us")):
                    _line(grid[row][column], [run["connections"] for run in of], [run[key] for run in of], contender)
            grid[0][column].set_title(name)
            grid[1][column].set_xlabel("connections")
            for row in (0, 1):
                grid[row][column].set_yscale("log")
                _log_axis(grid[row][column], {run["connections"] for run in runs})
        grid[0][0].set_ylabel("requests/s")
        grid[1][0].set_ylabel("p99, us")
        grid[0][0].legend(fontsize=8)
        _save(figure, os.path.join(directory, f"http-{model}.png"), f"{model} over HTTP")
