"""Model repositories made at test time, with answers computed here in numpy: a few lines of checkpoint format 1."""

import functools
import json
import os
import tempfile
import time

import numpy as np

from support.http import Client
from support.server import Server


def write_checkpoint(directory, config, tensors):
    os.makedirs(directory)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump({"model_type": "moed", "format_version": 1, **config}, file)
    header, offset = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(directory, "model.safetensors"), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values, dtype="<f4").tobytes())


def random_tensor(seed, *shape):
    """Values that keep a layer's output about as large as its input."""
    return np.random.default_rng(seed).normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class LinearMoe:
    """A MoE layer of linear gate and linear experts: the layer object, the tensors, and what it computes."""

    def __init__(self, name, inputs, outputs, experts, top_k, seed):
        self.name, self.experts, self.top_k = name, experts, top_k
        self.gate = random_tensor(seed, experts, inputs) * 3
        self.weights = [random_tensor(seed + 1 + i, outputs, inputs) for i in range(experts)]

    def layer(self):
        return {"op": "moe", "name": self.name,
                "gate": {"layers": [{"op": "linear", "name": "out"}], "score": "softmax", "top_k": self.top_k,
                         "normalize": "sum"},
                "experts": {"count": self.experts, "layers": [{"op": "linear", "name": "out"}]}}

    def tensors(self):
        return {f"{self.name}.gate.out.weight": self.gate,
                **{f"{self.name}.experts.{i}.out.weight": weight for i, weight in enumerate(self.weights)}}

    def forward(self, rows):
        """(output [n, outputs], experts [n, k], weights [n, k], gate distribution [n, experts])."""
        distribution = softmax(rows.astype(np.float64) @ self.gate.T)
        chosen = np.argsort(-distribution, axis=1, kind="stable")[:, :self.top_k]
        weights = np.take_along_axis(distribution, chosen, axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        output = sum(weights[:, [j]] * np.stack([self.weights[e] @ row for e, row in zip(chosen[:, j], rows)])
                     for j in range(self.top_k))
        return output, chosen, weights, distribution


class Tiny:
    """Input x [4], one MoE layer, output y [2]: computed on the loop, without batching or threads."""

    name, inputs, outputs = "tiny", 4, 2

    def __init__(self, seed=1):
        self.moe = LinearMoe("moe", self.inputs, self.outputs, experts=3, top_k=2, seed=seed)

    def write(self, directory):
        write_checkpoint(directory, {"description": "test model", "input": {"name": "x", "shape": [self.inputs]},
                                     "layers": [self.moe.layer()], "output": {"name": "y"}}, self.moe.tensors())


class TwoLayers:
    """Two MoE layers of different sizes, with labels on the output."""

    name, inputs, labels = "two-layers", 6, ["red", "green", "blue"]

    def __init__(self, seed=20):
        self.first = LinearMoe("first", self.inputs, 8, experts=4, top_k=1, seed=seed)
        self.second = LinearMoe("second", 8, 3, experts=5, top_k=3, seed=seed + 10)

    def write(self, directory):
        write_checkpoint(directory, {"input": {"name": "x", "shape": [self.inputs]},
                                     "layers": [self.first.layer(), {"op": "relu"}, self.second.layer()],
                                     "output": {"name": "score", "labels": self.labels}},
                         {**self.first.tensors(), **self.second.tensors()})

    def forward(self, rows):
        """(output, decisions of the first layer, decisions of the second)."""
        first = self.first.forward(rows)
        second = self.second.forward(np.maximum(first[0], 0))
        return second[0], first, second


@functools.cache
def layer_seconds():
    """What a layer of write_slow() takes here, at most 10 ms: 151 M multiply-adds, which take a core of the last ten
    years 3 to 15 ms, and one with sanitizers more. Tests need rows that are slow enough, however fast the machine is."""
    with tempfile.TemporaryDirectory() as directory:
        _write_slow(os.path.join(directory, "slow"), layers=3)
        with Server(directory, threads=1) as server, Client(server.port) as client:
            while client.get("/v2/health/ready").status != 200:
                time.sleep(0.02)
            least = 0.01
            for _ in range(5):
                began = time.monotonic()
                client.predict("slow", [[1, 2, 3, 4]])
                least = min(least, (time.monotonic() - began) / 3)
            return least


def write_slow(directory, seconds):
    """Input x [4]: about so many seconds of convolution for every row, in a file of kilobytes, at any batch size."""
    _write_slow(directory, max(1, round(seconds / layer_seconds())))


def _write_slow(directory, layers):
    channels, side = 64, 64
    ops = [{"op": "linear", "name": "widen"}, {"op": "reshape", "shape": [1, side, side]},
           {"op": "conv2d", "name": "stem", "padding": 1}]
    tensors = {"widen.weight": random_tensor(3, side * side, 4), "stem.weight": random_tensor(4, channels, 1, 3, 3)}
    for i in range(layers):
        ops += [{"op": "conv2d", "name": f"conv{i}", "padding": 1}, {"op": "tanh"}]
        tensors[f"conv{i}.weight"] = random_tensor(5 + i, channels, channels, 3, 3)
    moe = LinearMoe("moe", channels, 2, experts=2, top_k=1, seed=99)
    ops += [{"op": "mean", "axis": 2}, {"op": "mean", "axis": 1}, moe.layer()]
    write_checkpoint(directory, {"input": {"name": "x", "shape": [4]}, "layers": ops, "output": {"name": "y"}},
                     {**tensors, **moe.tensors()})


def write_elementwise(directory, width=20000, layers=4000):
    """No weights and no multiply-adds, but some seconds of tanh for each row."""
    write_checkpoint(directory, {"model_type": "moed", "format_version": 1, "input": {"name": "x", "shape": [width]},
                                 "layers": [{"op": "tanh"}] * layers + [{"op": "sum", "axis": 0}]}, {})


def write_wide(directory, width=2048, experts=4):
    """Input x [width]: experts of 16 MB each, large enough for the compute thread and its team."""
    moe = LinearMoe("moe", width, width, experts=experts, top_k=2, seed=7)
    write_checkpoint(directory, {"input": {"name": "x", "shape": [width]}, "layers": [moe.layer()],
                                 "output": {"name": "y"}}, moe.tensors())


def write_table(directory, seed=1, categories=65536):
    """Input x, a category: an answer straight from a table of 2 MB, the only weights here that are read where they
    are mapped."""
    table = random_tensor(seed, categories, 4)
    moe = LinearMoe("moe", 4, 2, experts=3, top_k=2, seed=seed)
    write_checkpoint(directory, {"format_version": 2, "inputs": [{"name": "x", "shape": [1], "categories": categories,
                                                                  "layers": [{"op": "embedding", "name": "table"}, {"op": "flatten"}]}],
                                 "layers": [moe.layer()], "outputs": [{"name": "y"}]},
                     {"table.weight": table, **moe.tensors()})
