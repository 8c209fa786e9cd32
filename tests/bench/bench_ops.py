"""The other ops: the engine beside PyTorch, which runs the model that was exported.

One small model for each op, on one thread in CPU time. Element-wise functions get numbers above zero where they are of
such. What PyTorch spends on a call is in its figures, as it is in a server that is written around it.
"""

import os
import tempfile

import torch
from torch import nn
from torch.nn import functional

import moed
from bench import figure, ratio, spread, summary, table
from bench_model import Engine, check, torch_microseconds

ROW = (1024,)
IMAGE, POSITIONS = (32, 14, 14), (32, 128)
ROWS, QUICK_ROWS = (1, 8, 64), (8,)
INPUT_ROWS = 128
CONTENDERS = ("moed", "PyTorch")


class Function(nn.Module):
    """A forward() that is one expression."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Weighted(nn.Module):
    """A joint with a learned tensor."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.rand(ROW) + 0.5)

    def forward(self, x):
        return self.function(x, self.weight)


class Heads(nn.Module):
    """Self-attention around PyTorch's own function for it."""

    def __init__(self, causal, size=POSITIONS[1], heads=8):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(size, size) for _ in range(4))
        self.causal, self.heads = causal, heads

    def forward(self, x):
        rows, positions, size = x.shape
        q, k, v = (part(x).view(rows, positions, self.heads, -1).transpose(1, 2)
                   for part in (self.q_proj, self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, positions, size))


class Recurrent(nn.Module):
    """What a recurrent layer gives for its last position."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


def attention(**settings):
    return moed.nn.Attention(POSITIONS[1], 8, **settings)


def recurrent(kind, positions, size, **settings):
    return lambda: Recurrent(kind(32, size, batch_first=True, **settings)), (positions, 32)


# Name, what makes the model, shape of a row; whether numbers are above zero.
ELEMENTWISE = (
    ("relu6", nn.ReLU6), ("leaky_relu", nn.LeakyReLU), ("prelu", nn.PReLU), ("elu", nn.ELU), ("softplus", nn.Softplus),
    ("mish", nn.Mish), ("hardswish", nn.Hardswish), ("hardsigmoid", nn.Hardsigmoid),
    ("relu2", lambda: Function(lambda x: torch.relu(x) ** 2)), ("clamp", lambda: Function(lambda x: x.clamp(-1, 1))),
    ("exp", lambda: Function(torch.exp)), ("log", lambda: Function(torch.log)), ("sqrt", lambda: Function(torch.sqrt)),
    ("add, of a number", lambda: Function(lambda x: x + 0.5)),
    ("multiply, by a tensor", lambda: Weighted(lambda x, weight: x * weight)),
    ("divide, by a tensor", lambda: Weighted(lambda x, weight: x / weight)),
    ("divide, two values: x / (x + 1)", lambda: Function(lambda x: x / (x + 1))),
    ("multiply, two values: x (x + 1)", lambda: Function(lambda x: x * (x + 1))))
ABOVE_ZERO = ("log", "sqrt", "divide, two values: x / (x + 1)")
OTHERS = (
    ("log_softmax", lambda: nn.LogSoftmax(-1), ROW), ("group_norm, 8 groups", lambda: nn.GroupNorm(8, 32), IMAGE),
    ("l2_normalize", lambda: Function(lambda x: functional.normalize(x, dim=-1)), POSITIONS),
    ("max over positions", lambda: Function(lambda x: x.amax(1)), POSITIONS),
    ("cumsum over positions", lambda: Function(lambda x: x.cumsum(1)), POSITIONS),
    ("slice", lambda: Function(lambda x: x[:, 256:768]), ROW),
    ("concat, halves changed", lambda: Function(lambda x: torch.cat([x[:, 512:], x[:, :512]], 1)), ROW),
    ("adaptive_avg_pool2d, 4x4", lambda: nn.AdaptiveAvgPool2d(4), IMAGE),
    ("glu, 128 to 344, limit, alpha, shift", lambda: moed.nn.GLU(128, 344, limit=7.0, alpha=1.702, shift=1.0), POSITIONS),
    *((("attention", lambda: Heads(False), POSITIONS), ("attention, causal", lambda: Heads(True), POSITIONS))
      if hasattr(functional, "scaled_dot_product_attention") else ()),  # PyTorch 2.0
    ("attention, 2 kv_heads, rotary, causal",
     lambda: attention(kv_heads=2, rotary={"theta": 10000.0}, causal=True), POSITIONS),
    ("attention, qk_norm, window 8, sinks",
     lambda: attention(qk_norm="head", causal=True, window=8, sinks=True), POSITIONS),
    ("attention, bias", lambda: attention(bias=torch.randn(8, 32, 32)), POSITIONS),
    ("LSTM, 16 positions, 32 to 64", *recurrent(nn.LSTM, 16, 64)),
    ("LSTM, two layers, 16 positions", *recurrent(nn.LSTM, 16, 64, num_layers=2)),
    ("LSTM, both ways, 16 positions", *recurrent(nn.LSTM, 16, 64, bidirectional=True)),
    ("LSTM, 64 positions, 32 to 128", *recurrent(nn.LSTM, 64, 128)),
    ("GRU, 16 positions, 32 to 64", *recurrent(nn.GRU, 16, 64)),
    ("GRU, 64 positions, 32 to 128", *recurrent(nn.GRU, 64, 128)))
OPS = (*((name, make, ROW) for name, make in ELEMENTWISE), *OTHERS)


def compare(name, make, shape, row_counts, rounds):
    """{rows: {contender: summary of microseconds}}"""
    model, inputs = make().eval(), torch.randn(INPUT_ROWS, *shape)
    if name in ABOVE_ZERO:
        inputs = inputs.abs() + 0.1
    values = {rows: {contender: [] for contender in CONTENDERS} for rows in row_counts}
    with tempfile.TemporaryDirectory() as directory:
        checkpoint, inputs_file = os.path.join(directory, "model"), os.path.join(directory, "inputs")
        moed.export(model, torch.zeros(1, *shape), checkpoint)
        inputs.numpy().tofile(inputs_file)
        with Engine(checkpoint, inputs_file) as ours:
            check(f"bench_ops, {name}", ours.outputs, model(inputs).numpy(), 1e-3)
            for _ in range(rounds):
                for rows in row_counts:
                    values[rows]["moed"].append(ours.microseconds("moed", rows))
                    values[rows]["PyTorch"].append(torch_microseconds(model, inputs, rows))
    return {rows: {contender: summary(times) for contender, times in of.items()} for rows, of in values.items()}


@torch.no_grad()
def run(rounds, quick, machine):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ["MOED_BINARY"] = ""  # answers are compared here
    points = []
    for name, make, shape in OPS[::6] if quick else OPS:
        measured = compare(name, make, shape, QUICK_ROWS if quick else ROWS, rounds)
        points += [{"name": name, "shape": shape, "rows": rows, "us": us} for rows, us in measured.items()]
    return {"pytorch": torch.__version__, "points": points}


def report(result):
    lines = {}
    for point in result["points"]:
        ours, theirs = (point["us"][name] for name in CONTENDERS)
        cells = lines.setdefault(point["name"], [point["name"], "x".join(map(str, point["shape"]))])
        cells += [figure(ours["median"]), figure(theirs["median"]), spread(ratio(theirs, ours))]
    rows = sorted({point["rows"] for point in result["points"]})
    header = [cell for count in rows for cell in (f"{count}: moed us", "PyTorch us", "PyTorch / moed")]
    return f"""## Other ops

Microseconds per forward pass, on one thread, of its CPU time, for each number of rows: medians, and of the ratio
median (lowest-highest). PyTorch {result["pytorch"]}.

{table(["op", "row", *header], list(lines.values()))}"""
