"""MoE layers: the engine beside the usual loop over the experts, in PyTorch and in C with oneDNN, on the same weights.

Each row goes through a linear gate to the k best of E experts linear-relu-linear. All are timed on one thread, in CPU
time, over inputs that change from call to call, and must agree.
"""

import json
import os
import statistics
import tempfile

import numpy as np
import torch

from bench import figure, geometric_mean, ratio, spread, summary, table
from bench_model import Engine, check, torch_microseconds
from moed import safetensors

INPUT_ROWS = 1024
MAX_WEIGHT_BYTES = 3 << 30
CONTENDERS = ("moed", "PyTorch", "oneDNN")

SHAPES, EXPERTS, TOP_K, ROWS = ((784, 256), (1024, 4096), (2048, 1024)), (8, 64, 128, 256), (1, 2, 8), (1, 8, 64, 512)
# The cost of statistics is far below the noise of one round.
STATISTICS_SHAPE, STATISTICS_EXPERTS, STATISTICS_TOP_K, STATISTICS_ROWS = (784, 256), (8, 64, 256), 2, (1, 64)
STATISTICS_ROUNDS = 25
QUICK_SHAPES, QUICK_EXPERTS, QUICK_TOP_K, QUICK_ROWS = ((784, 256),), (8, 64, 256), (2,), (1, 64)


def make_weights(d, ff, experts):
    """A layer's tensors, of magnitudes that keep the activations near one."""
    random = np.random.default_rng(d * ff + experts)

    def matrix(n, k):
        return random.standard_normal((n, k), dtype=np.float32) * np.float32(k ** -0.5)

    tensors = {"moe.gate.out.weight": matrix(experts, d)}
    for i in range(experts):
        tensors[f"moe.experts.{i}.fc1.weight"] = matrix(ff, d)
        tensors[f"moe.experts.{i}.fc2.weight"] = matrix(d, ff)
    return tensors


def write_config(directory, d, experts, top_k):
    layer = {"op": "moe", "name": "moe",
             "gate": {"layers": [{"op": "linear", "name": "out"}], "score": "softmax", "top_k": top_k, "normalize": "sum"},
             "experts": {"count": experts, "layers": [{"op": "linear", "name": "fc1"}, {"op": "relu"},
                                                      {"op": "linear", "name": "fc2"}]}}
    with open(os.path.join(directory, "config.json"), "w", encoding="ascii") as file:
        json.dump({"model_type": "moed", "format_version": 1, "input": {"name": "x", "shape": [d]},
                   "layers": [layer], "output": {"name": "y"}}, file)


class Loop:
    """The MoE layer as it is usually written in PyTorch: a loop over the experts, each over the rows that chose it."""

    def __init__(self, tensors, inputs, top_k):
        self.gate = torch.from_numpy(tensors["moe.gate.out.weight"])
        self.experts = [tuple(torch.from_numpy(tensors[f"moe.experts.{i}.{fc}.weight"]) for fc in ("fc1", "fc2"))
                        for i in range(len(self.gate))]
        self.inputs, self.top_k = torch.from_numpy(inputs), top_k

    def forward(self, x):
        scores = torch.softmax(x @ self.gate.T, dim=-1)
        weights, chosen = torch.topk(scores, self.top_k, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        y = torch.zeros_like(x)
        for expert in chosen.unique().tolist():
            fc1, fc2 = self.experts[expert]
            row, slot = torch.where(chosen == expert)
            out = torch.relu(x[row] @ fc1.T) @ fc2.T
            y.index_add_(0, row, out * weights[row, slot, None])
        return y


class Checkpoint:
    """One layer's weights and inputs on disk, for every k in turn."""

    def __init__(self, directory, d, ff, experts):
        self.directory, self.d, self.experts = directory, d, experts
        self.tensors = make_weights(d, ff, experts)
        safetensors.write(os.path.join(directory, "model.safetensors"), self.tensors)
        self.inputs = np.random.default_rng(1).standard_normal((INPUT_ROWS, d), dtype=np.float32)
        self.inputs_file = os.path.join(directory, "inputs")
        self.inputs.tofile(self.inputs_file)

    def engine(self, top_k):
        write_config(self.directory, self.d, self.experts, top_k)
        return Engine(self.directory, self.inputs_file)


def compare(checkpoint, top_k, row_counts, rounds):
    """({rows: {contender: summary of microseconds}}, kernel)"""
    loop = Loop(checkpoint.tensors, checkpoint.inputs, top_k)
    values = {rows: {} for rows in row_counts}
    with checkpoint.engine(top_k) as engine:
        check("bench_moe", engine.outputs, loop.forward(loop.inputs).numpy())
        for _ in range(rounds):
            for rows in row_counts:
                for name in CONTENDERS:
                    measured = torch_microseconds(loop.forward, loop.inputs, rows) if name == "PyTorch" else \
                        engine.microseconds(name, rows)
                    if measured:
                        values[rows].setdefault(name, []).append(measured)
    return {rows: {name: summary(times) for name, times in of.items()} for rows, of in values.items()}, engine.kernel


def statistics_cost(rounds):
    """What the routing statistics add to a forward pass: with and without them in turn."""
    points = []
    for experts in STATISTICS_EXPERTS:
        with tempfile.TemporaryDirectory() as directory:
            with Checkpoint(directory, *STATISTICS_SHAPE, experts).engine(STATISTICS_TOP_K) as engine:
                for rows in STATISTICS_ROWS:
                    pairs = [(engine.microseconds("moed", rows), engine.microseconds("uncounted", rows))
                             for _ in range(STATISTICS_ROUNDS * rounds)]
                    extra = statistics.quantiles([100 * (counted / plain - 1) for counted, plain in pairs], n=4)
                    points.append({"experts": experts, "rows": rows, "us": [statistics.median(of) for of in zip(*pairs)],
                                   "percent": extra})
    return points


@torch.no_grad()
def run(rounds, quick, _machine):
    torch.set_num_threads(1)
    points, skipped, kernel = [], [], None
    shapes, expert_counts, top_ks, row_counts = ((QUICK_SHAPES, QUICK_EXPERTS, QUICK_TOP_K, QUICK_ROWS) if quick else
                                                 (SHAPES, EXPERTS, TOP_K, ROWS))
    for d, ff in shapes:
        for experts in expert_counts:
            size = 8 * d * ff * experts
            if size > MAX_WEIGHT_BYTES:
                skipped.append(f"E={experts}, d={d}, ff={ff}: {size / 2 ** 30:.1f} GB of weights")
                continue
            with tempfile.TemporaryDirectory() as directory:
                checkpoint = Checkpoint(directory, d, ff, experts)
                for top_k in top_ks:
                    measured, kernel = compare(checkpoint, top_k, row_counts, rounds)
                    points += [{"d": d, "ff": ff, "experts": experts, "top_k": top_k, "rows": rows, "us": us}
                               for rows, us in measured.items()]
    return {"kernel": kernel, "points": points, "skipped": skipped, "statistics": statistics_cost(1 if quick else rounds)}


def present(result):
    return [name for name in CONTENDERS if all(name in point["us"] for point in result["points"])]


def over_moed(point, name):
    return ratio(point["us"][name], point["us"]["moed"])


def summaries(result):
    """One line per contender: its time relative to ours, over all points."""
    rows = []
    for name in present(result)[1:]:
        ratios = sorted(over_moed(point, name)["median"] for point in result["points"])
        rows.append([f"{name} / moed", figure(geometric_mean(ratios)), figure(ratios[0]), figure(ratios[-1]),
                     f"{sum(value >= 3 for value in ratios)} of {len(ratios)}"])
    return table(["time", "geometric mean", "least", "most", "at least 3"], rows)


def growth(result, key, what, **fixed):
    """The cost at every value of `key`, relative to the smallest; all else is `fixed` or equal."""
    rest = [name for name in ("d", "ff", "experts", "top_k") if name not in (key, *fixed)]
    first, rows = {}, []
    for point in result["points"]:
        if any(point[name] != value for name, value in fixed.items()):
            continue
        base = first.setdefault(tuple(point[name] for name in rest), point)
        if base is not point:
            rows.append([*(point[name] for name in rest), f"{base[key]} -> {point[key]}",
                         *(spread(ratio(point["us"][name], base["us"][name])) for name in present(result))])
    titles = {"experts": "E", "top_k": "k"}
    return table([*(titles.get(name, name) for name in rest), what, *present(result)],
                 sorted(rows, key=lambda row: row[:len(rest)]))


def statistics_table(result):
    rows = [[point["experts"], point["rows"], *map(figure, point["us"]),
             "{1:+.1f} % ({0:+.1f} to {2:+.1f})".format(*point["percent"])] for point in result["statistics"]]
    return table(["E", "rows", "us with statistics", "us without", "they add"], rows)


def report(result):
    names = present(result)
    rows = []
    for point in result["points"]:
        ours = point["us"]["moed"]
        gflops = 4e-3 * point["d"] * point["ff"] * point["rows"] * point["top_k"] / ours["median"]
        rows.append([f"{point['d']}, {point['ff']}", point["experts"], point["top_k"], point["rows"],
                     *(spread(point["us"][name]) for name in names),
                     *(spread(over_moed(point, name)) for name in names[1:]), figure(gflops)])
    layers = table(["d, ff", "E", "k", "rows", *(f"{name} us" for name in names),
                    *(f"{name} / moed" for name in names[1:]), "moed GFLOP/s"], rows)
    skipped = "".join(f"\nSkipped: {line}.\n" for line in result["skipped"])
    return f"""## MoE layers

Microseconds per forward pass of one layer, on one thread, of its CPU time: median (lowest-highest). Experts are
linear(d, ff)-relu-linear(ff, d) in F32, kernel `{result['kernel']}`. PyTorch {torch.__version__} loops over the experts
in Python; "oneDNN" is the same loop in C around oneDNN's inner products, weights packed once, relu fused.

{summaries(result)}
{layers}{skipped}
### Cost against the number of experts, 64 rows

Times the cost at the fewest. The arithmetic stays the same; each expert that some row chose has its weights read.

{growth(result, "experts", "E", rows=64)}
### Cost against k, 64 rows

{growth(result, "top_k", "k", rows=64)}
### Cost against rows, k = 2

{growth(result, "rows", "rows", top_k=2)}
### Statistics

What the routing statistics add to a forward pass of d = {STATISTICS_SHAPE[0]}, ff = {STATISTICS_SHAPE[1]},
k = {STATISTICS_TOP_K}: the engine with them, as it serves, and without, in turns in one process; median (quartiles) of
the ratios. The entropy's part of the softmax loop is in both.

{statistics_table(result)}"""
