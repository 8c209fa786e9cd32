"""Checks reference.py against torch.nn.functional, by hand, when either changes: format 1 promises
PyTorch's semantics, and the reference is written without it.

Every case is run through the reference with each of its functions doubled: the same input goes to
PyTorch, in float64, and the two results must agree.

    check_against_torch.py       prints calls and largest difference per function
"""

import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

import reference

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
TOLERANCE = 1e-11  # relative; float64 in another order of summation

differences = {}  # function -> [largest difference of each call]


def compare(function, ours, theirs):
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape, f"{function}: {ours.shape} and {theirs.shape}"
    scale = np.maximum(1.0, np.abs(theirs))
    differences.setdefault(function, []).append(float((np.abs(ours - theirs) / scale).max()))


# --- ops ------------------------------------------------------------------------------------------


def strides(layer):
    return {key: layer[key] for key in ("stride", "padding", "groups") if key in layer}


def pooled(pool):
    return lambda layer, t, x: pool(
        x, layer["kernel"], layer.get("stride"), padding=layer.get("padding", 0)
    )


def batch_norm(layer, t, x):
    eps = layer.get("eps", 1e-5)
    parts = [t(name) for name in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *parts, training=False, eps=eps)


def layer_norm(layer, t, x):
    eps = layer.get("eps", 1e-5)
    return F.layer_norm(x, t("weight").shape, t("weight"), t("bias"), eps)


def rms_norm(layer, t, x):
    """torch.nn.functional has none before 2.4; this is its definition there."""
    axes = list(range(-t("weight").dim(), 0))
    return x * torch.rsqrt(x.pow(2).mean(axes, keepdim=True) + layer.get("eps", 1e-5)) * t("weight")


def gelu(layer, t, x):
    return F.gelu(x, approximate=layer.get("approximate", "none"))


def axis(layer):
    return layer["axis"] + (layer["axis"] >= 0)


OPS = {
    "linear": lambda layer, t, x: F.linear(x, t("weight"), t("bias")),
    "conv1d": lambda layer, t, x: F.conv1d(x, t("weight"), t("bias"), **strides(layer)),
    "conv2d": lambda layer, t, x: F.conv2d(x, t("weight"), t("bias"), **strides(layer)),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "max_pool2d": pooled(F.max_pool2d),
    "avg_pool2d": pooled(F.avg_pool2d),
    "flatten": lambda layer, t, x: torch.flatten(x, 1),
    "reshape": lambda layer, t, x: torch.reshape(x, [len(x)] + layer["shape"]),
    "sum": lambda layer, t, x: torch.sum(x, axis(layer)),
    "mean": lambda layer, t, x: torch.mean(x, axis(layer)),
    "relu": lambda layer, t, x: F.relu(x),
    "gelu": gelu,
    "silu": lambda layer, t, x: F.silu(x),
    "tanh": lambda layer, t, x: torch.tanh(x),
    "sigmoid": lambda layer, t, x: torch.sigmoid(x),
    "softmax": lambda layer, t, x: F.softmax(x, -1),
    "cube": lambda layer, t, x: torch.pow(x, 3),
    "scale": lambda layer, t, x: torch.mul(x, layer["value"]),
}


def to_torch(values):
    return None if values is None else torch.from_numpy(np.ascontiguousarray(values))


def doubled(name, ours):
    def op(layer, tensor, x):
        y = ours(layer, tensor, x)
        compare(name, y, OPS[name](layer, lambda suffix: to_torch(tensor(suffix)), to_torch(x)))
        return y

    return op


# --- the MoE layer --------------------------------------------------------------------------------


def gate_scores(gate, logits):
    kind = gate.get("score", "softmax")
    if kind == "sigmoid":
        return torch.sigmoid(logits)
    return logits if kind == "none" else F.softmax(logits, -1)


def check_select(gate, logits, bias, routing):
    logits = to_torch(logits).clamp(-reference.FLT_MAX, reference.FLT_MAX)
    scores = gate_scores(gate, logits)
    ranking = scores if bias is None else scores + to_torch(bias)
    top_k = gate.get("top_k", logits.shape[1])
    experts = to_torch(routing.experts)
    # By value: which of several equal scores topk finds is not specified.
    chosen = np.take_along_axis(routing.ranking, routing.experts, 1)
    compare("select", chosen, torch.topk(ranking, top_k).values)
    normalize = gate.get("normalize", "none")
    weights = torch.gather(scores, 1, experts)
    if normalize == "sum":
        total = weights.sum(-1, keepdim=True)
        weights = torch.where(total == 0, 1.0 / top_k, weights / total)
    if normalize == "softmax":
        weights = F.softmax(torch.gather(logits, 1, experts), -1)
    compare("weights", routing.weights, weights * gate.get("scale", 1.0))
    check_entropy(gate, logits, routing)


def check_entropy(gate, logits, routing):
    p = torch.sigmoid(logits) if gate.get("score") == "sigmoid" else F.softmax(logits, -1)
    if not bool((p.sum(-1) > 0).all()):
        return  # no scores at all are no distribution to PyTorch
    p = torch.distributions.Categorical(probs=p)
    compare("probability", routing.probability, p.probs)
    compare("entropy", routing.entropy_sum, p.entropy().sum() / math.log(2.0))


def double_moe():
    select, combine, attention = reference.select, reference.combine, reference.Model.attention

    def doubled_select(gate, logits, bias):
        routing = select(gate, logits, bias)
        check_select(gate, logits, bias, routing)
        return routing

    def doubled_combine(routing, results):
        y = combine(routing, results)
        dense = torch.zeros(results.shape[:2], dtype=torch.float64)
        dense.scatter_(1, to_torch(routing.experts), to_torch(routing.weights))
        compare("combine", y, torch.einsum("re,re...->r...", dense, to_torch(results)))
        return y

    def doubled_attention(model, prefix, g, hidden):
        logits = attention(model, prefix, g, hidden)
        query = F.linear(to_torch(g), to_torch(model.tensors[prefix + "query.weight"]))
        keys = torch.stack([torch.flatten(to_torch(e), 1) for e in hidden], 1)
        keys = F.linear(keys, to_torch(model.tensors[prefix + "key.weight"]))
        scaled = torch.einsum("rh,reh->re", query, keys) / math.sqrt(g.shape[1])
        compare("attention", logits, scaled)
        return logits

    reference.select = doubled_select
    reference.combine = doubled_combine
    reference.Model.attention = doubled_attention


def main():
    for name, ours in list(reference.OPS.items()):
        reference.OPS[name] = doubled(name, ours)
    double_moe()
    for case in sorted(os.listdir(CASES)):
        config, tensors = reference.read_checkpoint(os.path.join(CASES, case))
        inputs = np.fromfile(os.path.join(CASES, case, "input.f32"), "<f4")
        reference.run(config, tensors, inputs)
    for function, each in sorted(differences.items()):
        print(f"{function:12} {len(each):6} calls, largest difference {max(each):.1e}")
    unseen = sorted(set(OPS) - set(differences))
    wrong = [function for function, each in differences.items() if not max(each) <= TOLERANCE]
    print(f"torch {torch.__version__}; not in any case: {unseen}; wrong: {wrong}")
    return 1 if unseen or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
