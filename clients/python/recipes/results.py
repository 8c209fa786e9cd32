"""Writes RESULTS.md and its pictures from the stored rows of the recipes: python3 -m recipes.results

Nothing is trained. Rows are read from --results, the text goes to --out; a recipe's notes.md there is taken over.
"""

import argparse
import glob
import os
import statistics

from recipes import lm_card, published, runner
from recipes.adult import TASKS, Adult
from recipes.fashion_mnist import FashionMnist
from recipes.image_clusters import PLANS
from recipes.mnist import Mnist

INTRODUCTION = """# Results

The papers' tables, trained again by the recipes of this package: on one CPU core, most of CIFAR-10's on a GPU. This
page is written by `python3 -m recipes.results` from the rows in `results/`, one file per run; each names the command
that made it.

Ours are means ± standard deviations over that many seeds; "best run" is the seed that the papers' rule selects, the
least training error. **Bold** marks a mean of ours that differs by more than twice the two deviations together; what is
known about the reason is below the table. H_s (how undecided the gate is per image), H_u (how even the experts are
used) and I(E;Y) (how much the choice of expert says about the class that expert predicts) are in bits; the dispatch
entropy is in nats.
"""

MIXTURES_TEXT = """
## {title} (arXiv 2302.14703)

`python3 -m recipes.{recipe}`: five experts, batches of 512, Adam 1e-3, 20 epochs.

A published row is one run: that with the least training error of all runs and coefficients of its kind, of up to 140.
The authors also stored or printed all their runs, from which "authors' runs" has those with the row's coefficients, as
ours have them: that is what to compare with ours. "Reading" says where attention takes its keys (the experts' last
hidden layer) and its query (the gate's): before or after the ReLU. {reading_about}

"""
BITS_TEXT = """
Routing on the test images: published best run / authors' runs where known / ours.

"""
SPARSE_TEXT = """
A plain gate served sparsely, the selected weights divided by their sum:

"""
CLUSTERS_TEXT = """
## Clusters (arXiv 2208.02813)

`python3 -m recipes.clusters`: settings 1 to 4, 16,000 rows, eight experts of 16 filters or one of 80. The authors
test with the routing noise of training on, and so does the column "with noise"; "as served" is without. Accuracies in
per cent. The dispatch entropy, on the training rows with noise, is 0 when every expert sees one cluster and ln 4 =
1.386 when the router knows nothing.

"""
CIFAR_TEXT = """
## CIFAR-10 and CIFAR-10-Rotate (arXiv 2208.02813)

`python3 -m recipes.cifar10`, `... cifar10_rotate`: one network, or four of the same kind of which a router picks one
per image. "sgd" is how the authors train their single network (momentum SGD, cross entropy of the logits), "ngd" how
they train their mixture (normalised gradient descent, cross entropy of the softmax's output taken for logits): the
paper's figures compare "single, sgd" with "moe, ngd", and rows with the same last word are trained alike. The small
network is ours, for theirs is not published. Accuracies in per cent, on one GPU, or on one core of a CPU (CIFAR-10,
those of 40 epochs). The paper takes the epoch that is best on the test images. "Blurred" are test images blurred as
those of training are; the task's own test images are sharp. "Best expert alone" answers all test images, without
the router, at the last epoch. The dispatch entropy is over the ten classes, on the test images as served: 0 when
every expert sees one class, ln 10 = 2.303 when the choice says nothing about the class.

"""
ADULT_TEXT = """
## Adult, two tasks

`python3 -m recipes.adult`: no paper of ours has these figures; they say what the multi-gate recipes reach.

"""


def rows_of(folder):
    """{variant: [rows by seed]} of a recipe."""
    rows = {}
    for path in glob.glob(os.path.join(folder, "*-seed*.json")):
        row = runner.read_json(path)
        rows.setdefault(row["variant"], []).append(row)
    return {variant: sorted(found, key=lambda row: row["seed"]) for variant, found in rows.items()}


def mean_and_spread(rows, key, factor=1.0):
    """(mean, standard deviation or None) of a figure that all rows have."""
    values = [factor * row[key] for row in rows]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def shown(mean, spread, digits):
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def marked(text, mean, spread, reference, reference_spread):
    """Bold if the means differ by more than twice the spreads together. One run alone says too little."""
    if spread is None or abs(mean - reference) <= 2 * (spread ** 2 + reference_spread ** 2) ** 0.5:
        return text
    return f"**{text}**"


def table(header, lines):
    ruled = [header, ["---"] * len(header)] + lines
    return "".join("| " + " | ".join(cells) + " |\n" for cells in ruled)


def cost(rows):
    """CPU seconds of one training; the oldest rows were written without."""
    timed = [row for row in rows if "cpu_seconds" in row]
    return f"{mean_and_spread(timed, 'cpu_seconds')[0]:.0f}" if timed else ""


# --- paper 1 ----------------------------------------------------------------------------------------------------

def pair(shown_figures):
    return " / ".join(shown_figures)


def error_cell(paper, rows):
    """Ours, training / test; against the authors' runs where they are known, else against the published one."""
    cells = []
    for key in ("train_error", "test_error"):
        reference = getattr(paper.runs, key) if paper.runs else (getattr(paper, key), paper.spread)
        mean, spread = mean_and_spread(rows, key)
        cells.append(marked(shown(mean, spread, 3), mean, spread, *reference))
    return pair(cells)


def error_line(paper, rows, reading):
    best = min(rows, key=lambda row: row["train_error"])
    theirs = pair(shown(*figure, 3) for figure in (paper.runs.train_error, paper.runs.test_error)) if paper.runs else ""
    return [paper.title, f"{paper.train_error:.3f} / {paper.test_error:.3f}",
            f"{best['train_error']:.3f} / {best['test_error']:.3f}", theirs, error_cell(paper, rows), str(len(rows)),
            cost(rows), reading]


def error_table(recipe, papers, rows):
    header = ["training / test error", "published, best run", "ours, best run", "authors' runs", "ours", "seeds",
              "CPU seconds", "reading"]
    return table(header, [error_line(paper, rows[variant], recipe.reading if attends(variant) else "")
                          for variant, paper in papers.items() if variant in rows])


def attends(variant):
    """Whether attention has to do with it: a distilled gate begins as an attentive one."""
    return variant.startswith(("attentive", "distilled"))


BITS = {"I(E;Y)": "mutual_information_bits", "H_s": "gate_entropy_bits", "H_u": "usage_entropy_bits"}


def bits_cell(paper, rows, key):
    """published | the authors' runs | ours"""
    theirs = shown(*getattr(paper.runs, key), 2) if paper.runs and getattr(paper.runs, key) else ""
    return pair(text for text in (f"{getattr(paper, key):.2f}", theirs, shown(*mean_and_spread(rows, key), 2)) if text)


def bits_table(papers, rows):
    lines = [[paper.title] + [bits_cell(paper, rows[variant], key) for key in BITS.values()]
             for variant, paper in papers.items() if variant in rows and paper.gate_entropy_bits is not None]
    return table(["bits"] + list(BITS), lines) if lines else ""


def sparse_table(papers, rows):
    """What it costs to let a plain gate select: the reason to distil."""
    lines = [[papers[variant].title] + [shown(*mean_and_spread(found, key), 3) for key in
                                        ("test_error", "test_error_top2", "test_error_top1")]
             for variant, found in rows.items() if variant in papers and "test_error_top1" in found[0]]
    order = {paper.title: place for place, paper in enumerate(papers.values())}
    lines.sort(key=lambda line: order[line[0]])
    return table(["test error of", "all five experts", "top 2", "top 1"], lines)


def mixtures_section(recipe, papers, folder, pictures):
    rows = rows_of(os.path.join(folder, recipe.name))
    if not rows:
        return ""
    text = MIXTURES_TEXT.format(title=recipe.title, recipe=recipe.name, reading_about=recipe.reading_about)
    text += error_table(recipe, papers, rows)
    text += BITS_TEXT + bits_table(papers, rows) + SPARSE_TEXT + sparse_table(papers, rows)
    picture = pictures and pictures.expert_by_class(recipe, papers, rows, folder)
    return text + notes(folder, recipe.name) + (picture or "")


# --- paper 2 ----------------------------------------------------------------------------------------------------

def accuracy_cell(rows, key, paper):
    mean, spread = mean_and_spread([{key: 1 - row[key]} for row in rows], key, 100)
    return marked(shown(mean, spread, 2), mean, spread, paper.accuracy, paper.spread)


def cluster_line(variant, paper, rows):
    is_mixture = "noisy_test_error" in rows[0]
    train = mean_and_spread([{"accuracy": 1 - row["train_error"]} for row in rows], "accuracy", 100)
    noisy = accuracy_cell(rows, "noisy_test_error", paper) if is_mixture else ""
    entropy = shown(*mean_and_spread(rows, "noisy_dispatch_entropy_nats"), 3) if is_mixture else ""
    return [f"{variant[1]}, {variant[3:].replace('-', ', ')}", paper.table or "", paper.notebook, noisy,
            accuracy_cell(rows, "test_error", paper), shown(*train, 2), paper.entropy or "", entropy, str(len(rows)),
            cost(rows)]


def clusters_section(folder, pictures):
    rows = rows_of(os.path.join(folder, "clusters"))
    if not rows:
        return ""
    header = ["setting, model", "paper", "authors' notebook", "ours, with noise", "ours, as served",
              "training, as served", "entropy, notebook", "entropy, ours", "seeds", "CPU seconds"]
    lines = [cluster_line(variant, paper, rows[variant]) for variant, paper in published.CLUSTERS.items()
             if variant in rows]
    picture = pictures and pictures.dispatch(rows, folder)
    return CLUSTERS_TEXT + table(header, lines) + notes(folder, "clusters") + (picture or "")


# --- images -----------------------------------------------------------------------------------------------------

def accuracy_of(rows, errors_of):
    return shown(*mean_and_spread([{"accuracy": 1 - errors_of(row)} for row in rows], "accuracy", 100), 2)


def by_expert(shares):
    return " ".join(f"{100 * share:.0f}" for share in shares)


def epochs_of(rows):
    """As many as a run had; of a run that was cut off, out of how many."""
    counts = sorted({row["epochs"] for row in rows})
    text = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return f"{text} of {rows[0]['of_epochs']}" if "of_epochs" in rows[0] else text


def whole_and_cut(rows):
    """Runs that came to their end apart from those that were cut off."""
    parts = [row for row in rows if "of_epochs" not in row], [row for row in rows if "of_epochs" in row]
    return [part for part in parts if part]


def cifar_line(title, variant, papers, rows):
    model, network, method, *change = variant.split("-")
    theirs = {("single", "sgd"): papers[network][0], ("moe", "ngd"): papers[network][1]}
    treated = accuracy_of(rows, lambda row: row["test_error_treated"]) if "test_error_treated" in rows[0] else ""
    routing = [accuracy_of(rows, lambda row: min(row["expert_test_errors"])),
               shown(*mean_and_spread(rows, "dispatch_entropy_nats"), 3), by_expert(rows[0]["share"])] \
        if model == "moe" else [""] * 3
    return [", ".join([title, network, model, method] + change), "" if change else theirs.get((model, method), ""),
            accuracy_of(rows, lambda row: row["best_test_error"]), accuracy_of(rows, lambda row: row["test_error"]),
            treated, accuracy_of(rows, lambda row: row["train_error"])] + routing + [epochs_of(rows), str(len(rows))]


def cifar_section(folder, pictures):
    header = ["data, network, model, trained by", "paper", "best epoch", "last epoch", "last, blurred", "training",
              "best expert alone", "dispatch entropy", "rows served by each expert, % (first seed)", "epochs", "seeds"]
    lines, found = [], {}
    for recipe, title in (("cifar10", "CIFAR-10"), ("cifar10_rotate", "Rotate")):
        found[recipe] = rows_of(os.path.join(folder, recipe))
        lines += [cifar_line(title, variant, published.CIFAR[recipe], rows)
                  for variant in PLANS for rows in whole_and_cut(found[recipe].get(variant, []))]
    if not lines:
        return ""
    picture = pictures and pictures.cifar(found, folder)
    return CIFAR_TEXT + table(header, lines) + notes(folder, "cifar10") + (picture or "")


# --- the census -------------------------------------------------------------------------------------------------

def adult_line(variant, rows):
    keys = [f"test_{figure}_{task}" for task in TASKS for figure in ("error", "auc")]
    return [variant] + [shown(*mean_and_spread(rows, key), 4) for key in keys] + \
        [str(len(rows)), cost(rows)]


def adult_section(folder):
    rows = rows_of(os.path.join(folder, "adult"))
    if not rows:
        return ""
    header = ["model"] + [f"{task}: {figure}" for task in TASKS for figure in ("test error", "area under the curve")]
    lines = [adult_line(variant, rows[variant]) for variant in Adult.variants if variant in rows]
    return ADULT_TEXT + table(header + ["seeds", "CPU seconds"], lines) + notes(folder, "adult")


def tiny_lm_section(folder, pictures):
    rows = rows_of(os.path.join(folder, "tiny_lm"))
    if not rows:
        return ""
    (row,) = rows["qwen3-moe"]
    return lm_card.results_section(row, table) + (pictures.domains(row, folder) if pictures else "")


def notes(folder, recipe):
    """What a person wrote about these figures."""
    path = os.path.join(folder, recipe, "notes.md")
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return "\n" + file.read()


def write(folder, out, pictures):
    text = INTRODUCTION + clusters_section(folder, pictures)
    text += mixtures_section(Mnist(), published.MNIST, folder, pictures)
    text += mixtures_section(FashionMnist(), published.FASHION_MNIST, folder, pictures)
    text += cifar_section(folder, pictures)
    text += adult_section(folder) + tiny_lm_section(folder, pictures)
    runner.write_file(out, text)


def main():
    parser = argparse.ArgumentParser(prog="python3 -m recipes.results", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="DIR", default="results", help="the rows (default ./results)")
    parser.add_argument("--out", metavar="FILE", default="RESULTS.md", help="(default ./RESULTS.md)")
    parser.add_argument("--no-plots", action="store_true", help="text only: pictures need matplotlib")
    options = parser.parse_args()
    pictures = None
    if not options.no_plots:
        from recipes import plots as pictures
    write(options.results, os.path.abspath(options.out), pictures)


if __name__ == "__main__":
    main()
