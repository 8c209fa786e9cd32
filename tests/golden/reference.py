"""Checkpoints of format 1 (core/CHECKPOINT.md), interpreted in float64 with numpy alone.

What the engine's numbers are compared with, so it shares nothing with the engine, with the Python
package or with PyTorch: it is written from the format's description, one small function per op, for
reading rather than for speed. Every expert is evaluated for every row, and the gate decides after.

    config, tensors = read_checkpoint(directory)
    outputs, routing = run(config, tensors, inputs)      # routing[layer name] is a Routing

    reference.py CHECKPOINT INPUT.f32                    # prints the output and the routing
"""

import json
import math
import os
import sys
from dataclasses import dataclass

import numpy as np

FLT_MAX = float(np.finfo(np.float32).max)


# --- safetensors ----------------------------------------------------------------------------------


def decode(raw, dtype):
    """Little-endian bytes of one tensor as float64."""
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = decode(data[begin:end], entry["dtype"]).reshape(entry["shape"])
    return tensors


def read_checkpoint(directory):
    """config.json and every tensor by name."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    index = os.path.join(directory, "model.safetensors.index.json")
    shards = ["model.safetensors"]
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            shards = sorted(set(json.load(file)["weight_map"].values()))
    tensors = {}
    for shard in shards:
        tensors.update(read_safetensors(os.path.join(directory, shard)))
    return config, tensors


# --- ops ------------------------------------------------------------------------------------------

# op(layer, tensor, x): `layer` is its entry in config.json, tensor("weight") one of its tensors or
# None, x is [rows, ...].


def linear(layer, tensor, x):
    # Not x @ W.T: equal rows of W must give equal bits, or ties would not be ties.
    y = (x[..., None, :] * tensor("weight")).sum(-1)
    return y if tensor("bias") is None else y + tensor("bias")


def conv2d(layer, tensor, x):
    weight, bias = tensor("weight"), tensor("bias")
    stride, padding = layer.get("stride", 1), layer.get("padding", 0)
    groups = layer.get("groups", 1)
    channels, per_group, height, width = weight.shape
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    out_h = (x.shape[2] - height) // stride + 1
    out_w = (x.shape[3] - width) // stride + 1
    y = np.zeros((len(x), channels, out_h, out_w))
    for out in range(channels):
        first = out // (channels // groups) * per_group
        for kh in range(height):
            for kw in range(width):
                window = x[:, first : first + per_group, kh:, kw:][..., ::stride, ::stride]
                taps = weight[out, :, kh, kw][:, None, None]
                y[:, out] += (window[..., :out_h, :out_w] * taps).sum(1)
    return y if bias is None else y + bias[:, None, None]


def conv1d(layer, tensor, x):
    """A conv2d over the columns of an image one line high, padded at its two ends only."""
    padding = layer.get("padding", 0)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    flat = {"weight": tensor("weight")[:, :, None], "bias": tensor("bias")}
    return conv2d({**layer, "padding": 0}, flat.get, x[:, :, None])[:, :, 0]


def batch_norm(layer, tensor, x):
    def per_channel(name, otherwise):
        values = otherwise if tensor(name) is None else tensor(name)
        return np.reshape(values, (-1,) + (1,) * (x.ndim - 2))

    deviation = np.sqrt(per_channel("running_var", None) + layer.get("eps", 1e-5))
    normal = (x - per_channel("running_mean", None)) / deviation
    return normal * per_channel("weight", 1.0) + per_channel("bias", 0.0)


def layer_norm(layer, tensor, x):
    weight, bias = tensor("weight"), tensor("bias")
    axes = tuple(range(-weight.ndim, 0))
    x = x - x.mean(axes, keepdims=True)
    x = x / np.sqrt((x**2).mean(axes, keepdims=True) + layer.get("eps", 1e-5))
    return x * weight + (0.0 if bias is None else bias)


def rms_norm(layer, tensor, x):
    axes = tuple(range(-tensor("weight").ndim, 0))
    square = (x**2).mean(axes, keepdims=True)
    return x / np.sqrt(square + layer.get("eps", 1e-5)) * tensor("weight")


def windows(layer, x, fill):
    """Every pooling window's elements along a new last axis."""
    kernel, padding = layer["kernel"], layer.get("padding", 0)
    stride = layer.get("stride", kernel)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    out_h, out_w = ((size - kernel) // stride + 1 for size in x.shape[2:])
    taps = [
        x[:, :, kh:, kw:][..., ::stride, ::stride][..., :out_h, :out_w]
        for kh in range(kernel)
        for kw in range(kernel)
    ]
    return np.stack(taps, -1)


def max_pool2d(layer, tensor, x):
    return windows(layer, x, -np.inf).max(-1)


def avg_pool2d(layer, tensor, x):
    return windows(layer, x, 0.0).mean(-1)


def flatten(layer, tensor, x):
    return x.reshape(len(x), -1)


def reshape(layer, tensor, x):
    return x.reshape([len(x)] + layer["shape"])


def batch_axis(axis):
    """An axis of one row as an axis of the batch."""
    return axis if axis < 0 else axis + 1


def sum_axis(layer, tensor, x):
    return x.sum(batch_axis(layer["axis"]))


def mean_axis(layer, tensor, x):
    return x.mean(batch_axis(layer["axis"]))


def relu(layer, tensor, x):
    return np.maximum(x, 0.0)


def sigmoid(x):
    with np.errstate(over="ignore"):  # exp(10000) is infinite, and 1/infinity the right answer
        return 1.0 / (1.0 + np.exp(-x))


def gelu(layer, tensor, x):
    if layer.get("approximate", "none") == "tanh":
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


OPS = {
    "linear": linear,
    "conv1d": conv1d,
    "conv2d": conv2d,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "flatten": flatten,
    "reshape": reshape,
    "sum": sum_axis,
    "mean": mean_axis,
    "relu": relu,
    "gelu": gelu,
    "silu": lambda layer, tensor, x: x * sigmoid(x),
    "tanh": lambda layer, tensor, x: np.tanh(x),
    "sigmoid": lambda layer, tensor, x: sigmoid(x),
    "softmax": lambda layer, tensor, x: softmax(x),
    "cube": lambda layer, tensor, x: x**3,
    "scale": lambda layer, tensor, x: x * layer["value"],
}


# --- the gate -------------------------------------------------------------------------------------


@dataclass
class Routing:
    """What one MoE layer did with a batch; the engine's `struct moed_routing` in numpy."""

    experts: np.ndarray  # [rows, k] best first
    weights: np.ndarray  # [rows, k] combine weights
    probability: np.ndarray  # [rows, E] the gate's distribution before selection
    ranking: np.ndarray  # [rows, E] what was ranked: score + select_bias

    @property
    def selected(self):
        return np.bincount(self.experts.ravel(), minlength=self.probability.shape[1])

    @property
    def top1(self):
        return np.bincount(self.experts[:, 0], minlength=self.probability.shape[1])

    @property
    def weight_sum(self):
        total = np.zeros(self.probability.shape[1])
        np.add.at(total, self.experts, self.weights)
        return total

    @property
    def probability_sum(self):
        return self.probability.sum(0)

    @property
    def entropy_sum(self):
        p = self.probability
        return -(p * np.log2(np.where(p > 0, p, 1.0))).sum()


def share_out(scores):
    """Divided by their sum; equal shares where every score has vanished."""
    total = scores.sum(-1, keepdims=True)
    return np.where(total == 0, 1.0 / scores.shape[-1], scores / np.where(total == 0, 1.0, total))


def score(gate, logits):
    """What experts are ranked by, and p, the gate's distribution over all of them."""
    kind = gate.get("score", "softmax")
    if kind == "sigmoid":
        return sigmoid(logits), share_out(sigmoid(logits))
    return (logits if kind == "none" else softmax(logits)), softmax(logits)


def select(gate, logits, bias):
    logits = np.clip(logits, -FLT_MAX, FLT_MAX)
    scores, probability = score(gate, logits)
    ranking = scores + (0.0 if bias is None else bias)
    top_k = gate.get("top_k", logits.shape[1])
    experts = np.argsort(-ranking, axis=1, kind="stable")[:, :top_k]  # stable: ties by index
    normalize = gate.get("normalize", "none")
    weights = np.take_along_axis(logits if normalize == "softmax" else scores, experts, 1)
    if normalize == "sum":
        weights = share_out(weights)
    if normalize == "softmax":
        weights = softmax(weights)
    return Routing(experts, weights * gate.get("scale", 1.0), probability, ranking)


# --- models ---------------------------------------------------------------------------------------


class Model:
    """Runs lists of layers; collects the routing of every MoE layer it passes."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.routing = {}

    def chain(self, layers, prefix, x):
        for layer in layers:
            x = self.layer(layer, prefix, x)
        return x

    def layer(self, layer, prefix, x):
        if layer["op"] == "residual":
            return x + self.chain(layer["layers"], prefix, x)
        if layer["op"] == "moe":
            return self.moe(layer, prefix + layer["name"], x)
        name = prefix + layer.get("name", "") + "."
        return OPS[layer["op"]](layer, lambda suffix: self.tensors.get(name + suffix), x)

    def moe(self, layer, name, x):
        gate, layers = layer["gate"], layer["experts"]["layers"]
        prefixes = [f"{name}.experts.{e}." for e in range(layer["experts"]["count"])]
        split = 0  # where the gate looks into the experts: after so many of their layers
        if gate.get("kind") == "attentive":
            split = 1 + [inner.get("name") for inner in layers].index(gate["key_layer"])
        hidden = [self.chain(layers[:split], prefix, x) for prefix in prefixes]
        logits = self.chain(gate["layers"], name + ".gate.", x)
        if split:
            logits = self.attention(name + ".gate.", logits, hidden)
        routing = select(gate, logits, self.tensors.get(name + ".gate.select_bias"))
        results = [self.chain(layers[split:], p, h) for p, h in zip(prefixes, hidden)]
        self.routing[layer["name"]] = routing
        return combine(routing, np.stack(results, 1))

    def attention(self, prefix, g, hidden):
        """logits_i = (Wq g) . (Wk e_i) / sqrt(h)"""
        query = g @ self.tensors[prefix + "query.weight"].T
        keys = [e.reshape(len(g), -1) @ self.tensors[prefix + "key.weight"].T for e in hidden]
        return np.stack([(query * key).sum(1) for key in keys], 1) / math.sqrt(g.shape[1])


def combine(routing, results):
    """results: [rows, E, ...]"""
    rows = np.arange(len(results))
    return sum(
        routing.weights[:, slot].reshape((-1,) + (1,) * (results.ndim - 2))
        * results[rows, routing.experts[:, slot]]
        for slot in range(routing.experts.shape[1])
    )


def preprocess(options, x):
    def per_channel(values):
        return np.reshape(values, (-1,) + (1,) * (x.ndim - 2))

    mean, std = per_channel(options.get("mean", [0.0])), per_channel(options.get("std", [1.0]))
    return (x * options.get("scale", 1.0) - mean) / std


def run(config, tensors, inputs):
    """inputs [rows, ...input.shape] of raw values -> outputs, and a Routing per MoE layer."""
    x = inputs.astype(np.float64).reshape([-1] + config["input"]["shape"])
    x = preprocess(config["input"].get("preprocess", {}), x)
    model = Model(tensors)
    return model.chain(config["layers"], "", x), model.routing


def main():
    config, tensors = read_checkpoint(sys.argv[1])
    outputs, routing = run(config, tensors, np.fromfile(sys.argv[2], "<f4"))
    print(outputs)
    for name, layer in routing.items():
        print(f"{name}: experts\n{layer.experts}\nweights\n{layer.weights}")


if __name__ == "__main__":
    main()
