"""MoE layers: the engine (build/bench/bench_moe) beside PyTorch's usual loop over the experts, on the same weights.

Each row goes through a linear gate to the k best of E experts linear-relu-linear. Both sides are timed on one thread, in
CPU time, over inputs that change from call to call, and must agree.
"""

import json
import os
import subprocess
import tempfile
import time

import numpy as np
import torch

from bench import BUILD, figure, ratio, spread, summary, table
from moed import safetensors

INPUT_ROWS = 1024
MAX_WEIGHT_BYTES = 3 << 30
TOLERANCE = 1e-4
MIN_SECONDS = 0.02

SHAPES, EXPERTS, TOP_K, ROWS = ((784, 256), (1024, 4096), (2048, 1024)), (8, 64, 128, 256), (1, 2, 8), (1, 8, 64, 512)
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


class Engine:
    """bench_moe, which times what it is asked for, a line at a time."""

    def __init__(self, checkpoint, inputs):
        outputs = os.path.join(checkpoint, "outputs")
        self.process = subprocess.Popen([os.path.join(BUILD, "bench_moe"), checkpoint, inputs, outputs], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.kernel = self.process.stdout.readline().strip()
        self.outputs = np.fromfile(outputs, dtype=np.float32)

    def seconds(self, rows):
        self.process.stdin.write(f"{rows}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) * 1e-9

    def close(self):
        self.process.communicate()


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

    def seconds(self, rows):
        calls, first = 0, 0
        self.forward(self.inputs[:rows])
        begin = now = time.thread_time()
        while now - begin < MIN_SECONDS:
            first = first + rows if first + 2 * rows <= len(self.inputs) else 0
            self.forward(self.inputs[first:first + rows])
            calls += 1
            now = time.thread_time()
        return (now - begin) / calls


def compare(checkpoint, tensors, inputs, top_k, row_counts, rounds):
    """({rows: {contender: summary of microseconds}}, kernel)"""
    loop = Loop(tensors, inputs, top_k)
    engine = Engine(checkpoint, os.path.join(checkpoint, "inputs"))
    expected = loop.forward(loop.inputs).numpy()
    # A tie that falls the other way sends a row elsewhere; more than one such row in a thousand is a mistake.
    wrong = np.abs(engine.outputs.reshape(expected.shape) - expected).max(axis=1) > TOLERANCE
    if wrong.sum() > len(inputs) // 1000:
        raise SystemExit(f"bench_moe: {wrong.sum()} of {len(inputs)} rows differ from PyTorch's")
    values = {rows: {"moed": [], "PyTorch": []} for rows in row_counts}
    for _ in range(rounds):
        for rows in row_counts:
            values[rows]["moed"].append(1e6 * engine.seconds(rows))
            values[rows]["PyTorch"].append(1e6 * loop.seconds(rows))
    engine.close()
    return {rows: {name: summary(times) for name, times in pair.items()} for rows, pair in values.items()}, engine.kernel


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
            with tempfile.TemporaryDirectory() as checkpoint:
                tensors = make_weights(d, ff, experts)
                safetensors.write(os.path.join(checkpoint, "model.safetensors"), tensors)
                inputs = np.random.default_rng(1).standard_normal((INPUT_ROWS, d), dtype=np.float32)
                inputs.tofile(os.path.join(checkpoint, "inputs"))
                for top_k in top_ks:
                    write_config(checkpoint, d, experts, top_k)
                    measured, kernel = compare(checkpoint, tensors, inputs, top_k, row_counts, rounds)
                    points += [{"d": d, "ff": ff, "experts": experts, "top_k": top_k, "rows": rows, "us": pair}
                               for rows, pair in measured.items()]
    return {"kernel": kernel, "points": points, "skipped": skipped}


def growth(result):
    """What more experts cost at 64 rows, k fixed: beside the work, which stays, each active expert's weights are read."""
    first, rows = {}, []
    for point in result["points"]:
        if point["rows"] == 64:
            layer = point["d"], point["ff"], point["top_k"]
            base = first.setdefault(layer, point)
            if base is not point:
                rows.append([f"{point['d']}, {point['ff']}", point["top_k"], f"{base['experts']} -> {point['experts']}",
                             *(spread(ratio(point["us"][name], base["us"][name])) for name in ("moed", "PyTorch"))])
    return table(["d, ff", "k", "E", "moed", "PyTorch"], sorted(rows, key=lambda row: (row[0], row[1])))


def report(result):
    text = f"""## MoE layers

Microseconds per forward pass of one layer, on one thread, of its CPU time: median (lowest-highest). Experts are
linear(d, ff)-relu-linear(ff, d) in F32, kernel `{result['kernel']}`; "PyTorch" {torch.__version__} loops over the experts.

"""
    rows = []
    for point in result["points"]:
        ours, theirs = point["us"]["moed"], point["us"]["PyTorch"]
        gflops = 4e-3 * point["d"] * point["ff"] * point["rows"] * point["top_k"] / ours["median"]
        rows.append([f"{point['d']}, {point['ff']}", point["experts"], point["top_k"], point["rows"], spread(ours),
                     spread(theirs), spread(ratio(theirs, ours)), figure(gflops)])
    text += table(["d, ff", "E", "k", "rows", "moed us", "PyTorch us", "PyTorch / moed", "moed GFLOP/s"], rows)
    text += "".join(f"\nSkipped: {line}.\n" for line in result["skipped"])
    return f"{text}\n### Cost against the number of experts, 64 rows (times the cost at the fewest)\n\n{growth(result)}"
