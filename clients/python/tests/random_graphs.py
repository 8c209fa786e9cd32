"""Random models out of the op table, exported, and answered by PyTorch, by the package and by the C engine.

    python3 -m tests.random_graphs --count 5000 [--seed 0] [--keep]      in clients/python; MOED_BINARY names the engine

A model is a row of steps; each takes any earlier value and makes a new one, with a layer of the op table, a sum, a
product or a concatenation of several, a residual, or a mixture of experts; from seed 1000000 on also with functions
that a forward() may contain. What a seed makes depends on nothing else.
Seeds that once failed are in graph_seeds.txt, which the tests try first; --keep adds to it.
"""

import argparse
import os
import random
import sys
import tempfile

import torch
from torch import nn
from torch.nn import functional

import moed
from moed import checkpoint, engine, functions, graph, loader, modules, verify
from moed.nn import GLU, Attention, Capacity, Gate, MoE, RMSNorm, SelfAttention
from tests import ENGINE

SEEDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "graph_seeds.txt")
SHAPES = ((5,), (12,), (3, 8), (4, 6), (2, 6, 6), (3, 5, 7))
MOST_ELEMENTS = 300
REPOSITORY = 50  # models that one server gets


def positive(layer):
    """For functions of what is above zero."""
    return nn.Sequential(nn.Softplus(), layer)


def _linear(pick, shape):
    return nn.Linear(shape[-1], pick.randint(2, 9), bias=pick.random() < 0.8)


def _conv(module, axes):
    def make(pick, shape):
        if len(shape) != axes + 1 or min(shape[1:]) < 3:
            return None
        groups = pick.choice([1, shape[0]])
        kernel = pick.choice([1, 3, 3, 5])
        if kernel == 5:
            padding, stride = pick.randint(1, 2), pick.randint(1, 3)
        else:
            padding, stride = pick.randint(0, 1), pick.randint(1, 2)
        return module(shape[0], groups * pick.randint(1, 3), kernel, stride=stride, padding=padding, groups=groups,
                      bias=pick.random() < 0.8)
    return make


def _pool(module):
    def make(pick, shape):
        return module(2, stride=pick.randint(1, 2), padding=pick.randint(0, 1)) if len(shape) == 3 and min(
            shape[1:]) > 2 else None
    return make


def _axis(module):
    """Of an axis of the row that is removed; rows keep one."""
    return lambda pick, shape: module(pick.randrange(len(shape))) if len(shape) > 1 else None


def _attention(pick, shape):
    if len(shape) != 2:
        return None
    if pick.random() < 0.4:
        return SelfAttention(shape[1], pick.choice([heads for heads in (1, 2, 3) if shape[1] % heads == 0]))
    heads, head_dim = pick.choice([1, 2, 4]), pick.choice([2, 4, 6])
    rotary = pick.choice([None, {"theta": 100.0}, {"theta": 1e4, "interleaved": True}, {"dims": 2, "factor": 1.3},
                          {"frequencies": [1.0], "dims": 2}])
    layer = Attention(
        shape[1], heads, kv_heads=pick.choice([count for count in (1, 2, 4) if heads % count == 0]), head_dim=head_dim,
        causal=pick.random() < 0.5, window=pick.choice([None, None, 1, 2]), scale=pick.choice([None, None, 0.7]),
        rotary=rotary, qk_norm=pick.choice(["none", "none", "head", "all"]), sinks=pick.random() < 0.3,
        bias=torch.randn(heads, shape[0], shape[0]) if pick.random() < 0.3 else None, linear_bias=pick.random() < 0.7)
    for weight in layer.parameters():
        weight.data = torch.randn(weight.shape) / weight.shape[-1] ** 0.5
    return layer


def _glu(pick, shape):
    limits = {"limit": 0.5, "alpha": 1.7, "shift": 1.0} if pick.random() < 0.3 else {}
    activation = "silu" if limits else pick.choice(list(GLU.ACTIVATIONS))
    return GLU(shape[-1], pick.randint(2, 6), activation, **limits)


def _slice(pick, shape):
    axis = pick.randrange(len(shape))
    start = pick.randrange(shape[axis])
    return functions.Slice(axis, start, pick.randint(start + 1, shape[axis]))


def _group_norm(pick, shape):
    return nn.GroupNorm(pick.choice([n for n in (1, 2, 3) if shape[0] % n == 0]), shape[0]) if len(shape) > 1 else None


def _constant(module):
    def make(pick, shape):
        return module(value=pick.uniform(-2, 2)) if pick.random() < 0.5 else module(weight=torch.randn(shape[-1:]))
    return make


def _anything(make):
    return lambda pick, shape: make()


# Of every op, a layer that takes rows of this shape, or None.
LAYERS = {
    "linear": _linear, "conv1d": _conv(nn.Conv1d, 1), "conv2d": _conv(nn.Conv2d, 2),
    "batch_norm": lambda pick, shape: modules.BatchNorm(shape[0]),
    "layer_norm": lambda pick, shape: nn.LayerNorm(shape[-1]), "rms_norm": lambda pick, shape: RMSNorm(shape[-1]),
    "group_norm": _group_norm, "max_pool2d": _pool(nn.MaxPool2d), "avg_pool2d": _pool(nn.AvgPool2d),
    "adaptive_avg_pool2d": lambda pick, shape: functions.AdaptiveAvgPool2d((2, 3)) if len(shape) == 3 else None,
    "flatten": _anything(nn.Flatten),
    "reshape": lambda pick, shape: modules.Reshape(1, *shape) if len(shape) < 3 else None,
    "sum": _axis(modules.Sum), "mean": _axis(modules.Mean), "max": _axis(functions.Max),
    "select": lambda pick, shape: modules.Select(pick.randrange(shape[0])) if len(shape) > 1 else None,
    "slice": _slice, "transpose": lambda pick, shape: modules.Transpose() if len(shape) > 1 else None,
    "relu": _anything(nn.ReLU), "gelu": lambda pick, shape: nn.GELU(pick.choice(["none", "tanh"])),
    "silu": _anything(nn.SiLU), "tanh": _anything(nn.Tanh), "sigmoid": _anything(nn.Sigmoid),
    "softmax": _anything(lambda: nn.Softmax(dim=-1)), "log_softmax": _anything(lambda: nn.LogSoftmax(dim=-1)),
    "cube": _anything(modules.Cube), "scale": lambda pick, shape: modules.Scale(pick.uniform(-2, 2)),
    "leaky_relu": lambda pick, shape: nn.LeakyReLU(pick.uniform(0, 0.5)),
    "elu": lambda pick, shape: nn.ELU(pick.uniform(0.5, 2)), "prelu": lambda pick, shape: nn.PReLU(shape[0]),
    "softplus": lambda pick, shape: nn.Softplus(pick.choice([1, 2])), "mish": _anything(nn.Mish),
    "hardswish": _anything(nn.Hardswish), "hardsigmoid": _anything(nn.Hardsigmoid), "relu6": _anything(nn.ReLU6),
    "relu2": _anything(functions.ReLU2), "clamp": lambda pick, shape: functions.Clamp(-1.0, pick.choice([None, 0.5])),
    "exp": _anything(lambda: nn.Sequential(nn.Tanh(), functions.Exp())),
    "log": _anything(lambda: positive(functions.Log())),
    "sqrt": _anything(lambda: positive(functions.Sqrt())),
    "l2_normalize": lambda pick, shape: functions.L2Normalize(pick.randrange(len(shape))),
    "position_embedding": lambda pick, shape: modules.PositionEmbedding(*shape),
    "class_token": lambda pick, shape: modules.ClassToken(shape[1]) if len(shape) == 2 else None,
    "glu": _glu, "attention": _attention, "add": _constant(graph.Add), "multiply": _constant(graph.Multiply),
}
ELSEWHERE = ("embedding", "concat", "divide")  # of integers; among the joins; in graphs of functions


class Model(nn.Module):
    """Steps as (layer or join, the values that it reads)."""

    def __init__(self, steps):
        super().__init__()
        self.layers = nn.ModuleList(layer for layer, _ in steps if isinstance(layer, nn.Module))
        self.steps = steps

    def forward(self, x):
        values = [x]
        for layer, read in self.steps:
            values.append(layer(*(values[index] for index in read)))
        return values[-1]


def _experts(pick, size):
    hidden, outputs, gated = pick.randint(2, 8), pick.choice([size, 4]), pick.random() < 0.4
    count = pick.choice([2, 3, 4, 6])
    first = (lambda: GLU(size, hidden, "silu", bias=False)) if gated else (lambda: nn.Linear(size, hidden))
    experts = [nn.Sequential(first(), nn.Identity() if gated else nn.ReLU(), nn.Linear(hidden, outputs))
               for _ in range(count)]
    if outputs == size and count > 2 and pick.random() < 0.2:
        experts[-1] = nn.Identity()
    return experts, outputs


def _capacity(pick):
    """Of a row's items: how many rows there are is the client's choice."""
    size = {"places": pick.randint(1, 3)} if pick.random() < 0.5 else {
        "factor": pick.uniform(0.5, 2), "minimum": pick.randint(1, 2), "round": pick.choice(["down", "up"])}
    return Capacity(**size, rows=1, order=pick.choice(["choice", "item", "score", "pair"]))


def _mixture(pick, shape):
    """Routes rows of one axis, or the positions of others."""
    experts, outputs = _experts(pick, shape[-1])
    count = len(experts)
    score, normalize = pick.choice([("softmax", "none"), ("softmax", "sum"), ("none", "softmax"), ("sigmoid", "sum"),
                                    ("sigmoid", "none"), ("softmax", "lp"), ("sqrt_softplus", "sum"),
                                    ("sparsemixer", "none")])
    policy = {"top_k": pick.choice([None, *range(1, count + 1)]), "score": score, "normalize": normalize,
              "scale": pick.choice([None, 1.5]), "select_bias": pick.choice([None, [0.1 * i for i in range(count)]]),
              "expert_scale": pick.choice([None, None, [1 + 0.5 * i for i in range(count)]])}
    if score == "sparsemixer":
        policy.update(top_k=2, select_bias=None)
    if count % 2 == 0 and (policy["top_k"] or count) <= count // 2 and pick.random() < 0.4:
        policy["groups"] = {"count": 2, "keep": 1, "by": pick.choice(["top2", "max"])}
    if policy["top_k"] is not None and len(shape) > 1 and pick.random() < 0.3:
        policy["capacity"] = _capacity(pick)
    shared = nn.Linear(shape[-1], outputs) if pick.random() < 0.3 else None
    gate = nn.Linear(shape[-1], 1, bias=False) if shared is not None and pick.random() < 0.5 else None
    router = Gate(nn.Linear(shape[-1], count), **policy)
    return MoE(experts, router, "positions" if len(shape) > 1 else "rows", shared, gate,
               weigh=pick.choice(["outputs", "outputs", "outputs", "inputs"]))


def _join(pick, shapes, index):
    """(function of PyTorch, values that it joins), all of one shape."""
    shape = shapes[index]
    same = [other for other, found in enumerate(shapes) if found == shape]
    kind = pick.choice(["add", "multiply", "subtract", "concat"])
    others = [index, *(pick.choice(same) for _ in range(pick.choice([1, 1, 2]) if kind == "concat" else 1))]
    pick.shuffle(others)
    if kind == "concat":
        axis = pick.randrange(len(shape)) + 1
        return lambda *values: torch.cat(values, dim=axis), others
    return {"add": torch.add, "multiply": torch.mul, "subtract": torch.sub}[kind], others


# Functions of x that have simpler terms (fx_simpler.py, fx_numbers.py, fx_moved.py); `axis` is one of a row.
WORDS = (
    lambda x, axis, order: x.permute(0, *order), lambda x, axis, order: x.permute(*order, 0).movedim(-1, 0),
    lambda x, axis, order: torch.softmax(x, dim=axis), lambda x, axis, order: x / (1 + x.abs()),
    lambda x, axis, order: (x - x.mean(axis, keepdim=True)) / torch.sqrt(x.var(axis, unbiased=False, keepdim=True) + 1),
    lambda x, axis, order: torch.roll(x, 1, axis) - x.flip(axis), lambda x, axis, order: x.cumsum(axis),
    lambda x, axis, order: torch.cat([x, x.repeat_interleave(2, axis)], axis),
    lambda x, axis, order: torch.maximum(x, -x) - torch.logsumexp(x, axis, keepdim=True),
    lambda x, axis, order: torch.stack([x, x * 2, torch.tanh(x)]).sum(0),
    lambda x, axis, order: torch.stack([x, torch.sigmoid(x)]).softmax(0)[1],
    lambda x, axis, order: x.unsqueeze(-1) * torch.arange(1.0, 4.0),
    lambda x, axis, order: x[..., None].expand(*x.shape, 2).mean(-1),
    lambda x, axis, order: torch.einsum("bi,bj->bij", x.flatten(1)[:, :6], torch.tanh(x.flatten(1)[:, :5])),
    lambda x, axis, order: functional.softmax(x @ x.transpose(-1, -2) / 4, -1) @ x,  # of rows of two axes and more
)
FROM_WORDS = 1_000_000  # seeds from here on have functions among the layers


def _word(pick, shape):
    word, axis = pick.choice(WORDS[:-1] if len(shape) < 2 else WORDS), pick.randrange(len(shape)) + 1
    order = pick.sample(range(1, len(shape) + 1), len(shape))
    return lambda x: word(x, axis, order)


def _step(pick, shapes, words):
    if words and pick.random() < 0.4:
        index = pick.randrange(len(shapes))
        return _word(pick, shapes[index]), [index]
    index = pick.choice([len(shapes) - 1, len(shapes) - 1, pick.randrange(len(shapes))])
    shape, kind = shapes[index], pick.random()
    if kind < 0.25:
        return _join(pick, shapes, index)
    if kind < 0.33:
        return _mixture(pick, shape), [index]
    layer = LAYERS[pick.choice(list(LAYERS))](pick, shape)
    if layer is not None:
        layer.eval()
    if layer is not None and kind < 0.4 and layer(torch.zeros(1, *shape)).shape[1:] == shape:
        layer = modules.Residual(nn.Sequential(layer))
    return layer, [index]


def model_of(seed):
    """(module in evaluation mode, shape of a row)"""
    pick = random.Random(seed)
    torch.manual_seed(seed)
    shapes, steps, wanted = [pick.choice(SHAPES)], [], pick.randint(1, 9)
    while len(steps) < wanted:
        layer, read = _step(pick, shapes, seed >= FROM_WORDS)
        if layer is None:
            continue
        if isinstance(layer, nn.Module):
            layer.eval()
        with torch.no_grad():
            made = layer(*(torch.zeros(2, *shapes[index]) for index in read)).shape[1:]
        if 0 < made.numel() <= MOST_ELEMENTS and len(made) <= 4:
            shapes.append(tuple(made))
            steps.append((layer, read))
    model = Model(steps).eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() < 2:
            tensor.copy_(torch.rand(tensor.shape) + 0.5 if name.endswith("running_var") else torch.randn(tensor.shape))
    return model, shapes[0]


def ops_of(config):
    """Names of all ops in a list of layers."""
    for layer in config:
        yield layer["op"]
        for inner in (layer, layer.get("gate", {}), layer.get("experts", {}), layer.get("shared", {})):
            yield from ops_of(inner.get("layers", []))


def try_seeds(seeds, binary):
    """(failures as {seed: message}, seeds without a row to compare, the ops that there were)"""
    failures, empty, ops = {}, [], set()
    with tempfile.TemporaryDirectory() as repository:
        exported = []
        for seed in seeds:
            model, shape = model_of(seed)
            try:
                moed.export(model, torch.zeros(1, *shape), os.path.join(repository, f"graph-{seed}"))
                exported.append((seed, shape))
            except moed.ExportError as error:
                if "there is nothing to compare" in str(error):
                    empty.append(seed)
                else:
                    failures[seed] = str(error)
        for seed, _ in exported:
            ops.update(ops_of(checkpoint.read(os.path.join(repository, f"graph-{seed}"))[0]["layers"]))
        if binary is not None and exported:
            failures.update(_ask_engine(binary, repository, exported))
    return failures, empty, ops


def _ask_engine(binary, repository, exported):
    failures = {}
    with engine.Engine(binary, repository) as server:
        for seed, shape in exported:
            rows = verify.sample_rows({"input": moed.nn.Input(shape)})
            loaded = loader.load(os.path.join(repository, f"graph-{seed}"))
            try:
                with torch.no_grad():
                    answers = server.answers(f"graph-{seed}", {name: values.numpy() for name, values in rows.items()})
                    verify.check_answers(answers, loaded, rows, "model")
            except (moed.ExportError, moed.MoedError) as error:
                failures[seed] = str(error)
    return failures


def kept_seeds():
    with open(SEEDS, encoding="utf-8") as file:
        return [int(line.split("#")[0]) for line in file if line.split("#")[0].strip()]


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.random_graphs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--keep", action="store_true", help="write seeds that fail to graph_seeds.txt")
    options = parser.parse_args()
    failed, empty = {}, 0
    for begin in range(options.seed, options.seed + options.count, REPOSITORY):
        end = min(begin + REPOSITORY, options.seed + options.count)
        failures, without, _ = try_seeds(range(begin, end), ENGINE)
        failed.update(failures)
        empty += len(without)
        for seed, message in failures.items():
            print(f"seed {seed}: {message}", flush=True)
    print(f"{options.count} graphs, {len(failed)} failed, {empty} without a row to compare; "
          f"engine: {ENGINE or 'none'}")
    if options.keep and failed:
        with open(SEEDS, "a", encoding="utf-8") as file:
            file.writelines(f"{seed}\n" for seed in failed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
