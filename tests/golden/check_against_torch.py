"""Checks reference.py against PyTorch, by hand, when either changes: the format promises PyTorch's
semantics, and the reference is written without it.

Every case is run through the reference with each of its functions doubled: the same input goes to
PyTorch, in float64, and the two results must agree. Gates are computed a second time as the models
they are known from do it: DeepSeek's groups, Phi's sparsemixer, Mesh TensorFlow's capacity.

    check_against_torch.py       prints calls and largest difference per function
"""

import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

import reference
import reference_ops
from reference_gates import FLT_MAX

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
    """torch.nn.functional has none before 2.4; this is the definition of 2.4."""
    axes = list(range(-t("weight").dim(), 0))
    return x * torch.rsqrt(x.pow(2).mean(axes, keepdim=True) + layer.get("eps", 1e-5)) * t("weight")


def gelu(layer, t, x):
    return F.gelu(x, approximate=layer.get("approximate", "none"))


def axis(layer):
    return layer.get("axis", 0) + (layer.get("axis", 0) >= 0)


ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
}


def glu(layer, t, x):
    activation = ACTIVATIONS[layer.get("activation", "silu")]
    gate = activation(F.linear(x, t("gate.weight"), t("gate.bias")))
    return gate * F.linear(x, t("up.weight"), t("up.bias"))


def load(module, t):
    """A module without dropout, with the tensors of its names; zero is what is not there. Not in
    eval mode, whose fast path 1.13 cannot take without biases."""
    for name, parameter in module.named_parameters():
        parameter.data = torch.zeros_like(parameter) if t(name) is None else t(name)
    return module


def attention(layer, t, x):
    bias = t("in_proj_bias") is not None or t("out_proj.bias") is not None
    module = torch.nn.MultiheadAttention(
        x.shape[-1], layer["heads"], bias=bias, batch_first=True, dtype=torch.float64
    )
    return load(module, t)(x, x, x, need_weights=False)[0]


def class_token(layer, t, x):
    return torch.cat([t("weight").expand(len(x), 1, -1), x], 1)


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
    "embedding": lambda layer, t, x: F.embedding(x.long(), t("weight")),
    "position_embedding": lambda layer, t, x: torch.add(x, t("weight")),
    "class_token": class_token,
    "glu": glu,
    "attention": attention,
    "select": lambda layer, t, x: torch.select(x, axis(layer), layer["index"]),
    "transpose": lambda layer, t, x: torch.transpose(x, -2, -1),
}


def to_torch(values):
    return None if values is None else torch.from_numpy(np.ascontiguousarray(values))


def doubled(name, ours):
    def op(layer, tensor, x):
        y = ours(layer, tensor, x)
        with torch.no_grad():
            theirs = OPS[name](layer, lambda suffix: to_torch(tensor(suffix)), to_torch(x))
        compare(name, y, theirs)
        return y

    return op


# --- the MoE layer --------------------------------------------------------------------------------


def gate_scores(gate, logits):
    kind = gate.get("score", "softmax")
    if kind == "sigmoid":
        return torch.sigmoid(logits)
    return F.softmax(logits, -1) if kind == "softmax" else logits


def within_groups(groups, ranking):
    """DeepSeek: experts outside the best groups are masked."""
    grouped = ranking.view(len(ranking), groups["count"], -1)
    looked_at = 1 if groups.get("by") == "max" else min(2, grouped.shape[2])
    strength = grouped.topk(looked_at, -1).values.sum(-1)
    kept = torch.sort(strength, dim=-1, descending=True, stable=True).indices[:, : groups["keep"]]
    mask = torch.ones_like(strength, dtype=torch.bool).scatter_(1, kept, False)
    return grouped.masked_fill(mask.unsqueeze(-1), -math.inf).flatten(1)


def check_top_k(gate, logits, bias, routing):
    scores = gate_scores(gate, logits)
    ranking = scores if bias is None else scores + to_torch(bias)
    if "groups" in gate:
        ranking = within_groups(gate["groups"], ranking)
    chosen = to_torch(routing.chosen)
    # Compared by value: topk may find any of several equal scores.
    best = torch.topk(ranking, chosen.shape[1]).values
    compare("selection", torch.gather(ranking, 1, chosen).numpy(), best)
    normalize = gate.get("normalize", "none")
    weights = torch.gather(scores, 1, chosen)
    if normalize == "sum":
        total = weights.sum(-1, keepdim=True)
        weights = torch.where(total == 0, 1.0 / chosen.shape[1], weights / total)
    if normalize == "lp":  # DBRX
        largest = weights.abs().max(-1, keepdim=True).values.clamp(min=1e-300)
        total = torch.norm(weights / largest, p=gate.get("p", 2), dim=-1, keepdim=True) * largest
        weights = torch.where(total == 0, 1.0 / chosen.shape[1], weights / total)
    if normalize == "softmax":
        weights = F.softmax(torch.gather(logits, 1, chosen), -1)
    return weights


def check_sparsemixer(gate, logits, routing):
    """Phi-3.5-MoE."""
    chosen, left, weights = to_torch(routing.chosen), logits, []
    if "groups" in gate:
        left = within_groups(gate["groups"], logits)
    for slot in (0, 1):
        largest = left.max(-1, keepdim=True).values
        distance = (largest - logits) / logits.abs().clamp(min=largest)
        rivals = left.masked_fill(distance > 2 * gate.get("jitter", 0.01), -math.inf)
        expert = chosen[:, slot : slot + 1]
        compare("selection", left.gather(1, expert).numpy(), largest)
        weights.append(F.softmax(rivals, -1).gather(1, expert))
        left = left.scatter(1, expert, -math.inf)
    return torch.cat(weights, 1)


def check_capacity(capacity, routing, requests):
    """Mesh TensorFlow: an item's place is the number of those before it in its slot's mask."""
    experts = len(routing.members)
    for chosen, placed in zip(
        to_torch(routing.chosen).split(requests), to_torch(routing.placed).split(requests)
    ):
        share = min(len(chosen), int(len(chosen) * capacity["factor"] / experts))
        limit = max(share, capacity.get("minimum", 1))
        before = torch.zeros(experts, dtype=torch.int64)
        for slot in range(chosen.shape[1]):
            mask = F.one_hot(chosen[:, slot], experts)
            position = ((mask.cumsum(0) - mask + before) * mask).sum(1)
            kept = position < limit
            compare("capacity", placed[:, slot].numpy() * 1.0, kept * 1.0)
            before = before + (mask * kept.unsqueeze(1)).sum(0)


def check_route(gate, logits, bias, routing, requests):
    logits = to_torch(logits).clamp(-FLT_MAX, FLT_MAX)
    if gate.get("score") == "sparsemixer":
        weights = check_sparsemixer(gate, logits, routing)
    else:
        weights = check_top_k(gate, logits, bias, routing)
    if "capacity" in gate:
        check_capacity(gate["capacity"], routing, requests)
    compare("weights", routing.weights, weights * gate.get("scale", 1.0) * to_torch(routing.placed))
    check_entropy(gate, logits, routing)


def check_entropy(gate, logits, routing):
    p = torch.sigmoid(logits) if gate.get("score") == "sigmoid" else F.softmax(logits, -1)
    if not bool((p.sum(-1) > 0).all()):
        return  # no scores at all are no distribution to PyTorch
    p = torch.distributions.Categorical(probs=p)
    compare("probability", routing.probability, p.probs)
    compare("entropy", routing.entropy_sum, p.entropy().sum() / math.log(2.0))


def double_moe():
    route, combine, attentive = reference.route, reference.combine, reference.Model.attentive

    def doubled_route(gate, logits, bias, members, requests):
        routing = route(gate, logits, bias, members, requests)
        check_route(gate, logits, bias, routing, requests)
        return routing

    def doubled_combine(routing, results):
        y = combine(routing, results)
        dense = torch.zeros(results.shape[:2], dtype=torch.float64)
        experts = to_torch(routing.members[routing.chosen])
        dense.scatter_(1, experts, to_torch(routing.weights))
        compare("combine", y, torch.einsum("re,re...->r...", dense, to_torch(results)))
        return y

    def doubled_attentive(model, prefix, g, hidden):
        logits = attentive(model, prefix, g, hidden)
        query = F.linear(to_torch(g), to_torch(model.tensors[prefix + "query.weight"]))
        keys = torch.stack([torch.flatten(to_torch(e), 1) for e in hidden], 1)
        keys = F.linear(keys, to_torch(model.tensors[prefix + "key.weight"]))
        scaled = torch.einsum("rh,reh->re", query, keys) / math.sqrt(g.shape[1])
        compare("attentive", logits, scaled)
        return logits

    reference.route = doubled_route
    reference.combine = doubled_combine
    reference.Model.attentive = doubled_attentive


# --- whole models ---------------------------------------------------------------------------------


def check_encoder(case, tensors, x, y):
    """An encoder layer under the names PyTorch gives its tensors."""
    activation = case.rsplit("_", 1)[1]
    layer = torch.nn.TransformerEncoderLayer(
        x.shape[2],
        2,
        len(tensors["linear1.bias"]),
        dropout=0.0,
        activation=activation,
        batch_first=True,
        norm_first="pre_norm" in case,
        dtype=torch.float64,
    )
    with torch.no_grad():
        theirs = load(layer, lambda name: to_torch(tensors[name]))(to_torch(x))
    compare("encoder_layer", y, theirs)


def read_input(case, entry, several):
    name = f"input.{entry['name']}.f32" if several else "input.f32"
    return np.fromfile(os.path.join(CASES, case, name), "<f4")


def check_case(case):
    config, tensors = reference.read_checkpoint(os.path.join(CASES, case))
    entries = config["inputs"] if "inputs" in config else [config["input"]]
    inputs = [read_input(case, entry, len(entries) > 1) for entry in entries]
    path = os.path.join(CASES, case, "requests.i32")
    requests = np.fromfile(path, "<i4").tolist() if os.path.exists(path) else None
    outputs, _ = reference.run(config, tensors, inputs, requests)
    if case.startswith("encoder_"):
        x = inputs[0].astype(np.float64).reshape([-1] + entries[0]["shape"])
        check_encoder(case, tensors, x, outputs[0])


def main():
    for name, ours in list(reference_ops.OPS.items()):
        reference_ops.OPS[name] = doubled(name, ours)
    double_moe()
    for case in sorted(os.listdir(CASES)):
        check_case(case)
    for function, each in sorted(differences.items()):
        print(f"{function:18} {len(each):6} calls, largest difference {max(each):.1e}")
    unseen = sorted(set(OPS) - set(differences))
    wrong = [function for function, each in differences.items() if not max(each) <= TOLERANCE]
    print(f"torch {torch.__version__}; not in any case: {unseen}; wrong: {wrong}")
    return 1 if unseen or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
