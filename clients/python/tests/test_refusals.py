"""Every kind of refusal names the submodule by its path, and the line of the caller's code that says or calls it.

The lines are marked here: "# called: NAME" is the line where a refusal is expected to be.
"""

import ast
import os
import re
import unittest

import torch
from torch import nn
from torch.nn import functional

import moed
from moed import places
from tests import field_whole, foreign
from tests.export_case import ExportCase
from tests.test_fx_trace import calling
from tests.written_blocks import ExpertChoice, Gumbel

PACKAGE = os.path.dirname(os.path.abspath(moed.__file__))
HERE = os.path.basename(__file__)
SIZE = 4


class Around(nn.Module):
    """Something between two layers, in a Sequential of the caller's forward."""

    def __init__(self, *inner):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(SIZE, SIZE), *inner)

    def forward(self, x):
        return self.body(x)  # called: Around


class Unknown(nn.Module):
    def forward(self, x):
        return torch.sin(x)  # called: Unknown


class Strict(nn.Module):
    def forward(self, x):
        assert x.shape[-1] == 3  # called: Strict
        return x


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x  # called: Undecided


class Noisy(nn.Module):
    def forward(self, x):  # called: Noisy
        return x + torch.rand(SIZE)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):  # called: Counting
        self.calls += 1
        return x * 2 if self.calls % 2 else x * 3


class Squared(foreign.Squared):
    def forward(self, x):  # called: Squared
        return super().forward(x)


class Queries(nn.Module):
    """Attention that is none."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(SIZE, SIZE) for _ in range(4))

    def forward(self, x):  # called: Queries
        scores = torch.tanh(self.q_proj(x) @ self.k_proj(x).transpose(1, 2))
        return self.o_proj(scores @ self.v_proj(x))


class Latent(nn.Module):
    """Values of a latent, by a way of its own."""

    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.q_proj, self.kv_a_proj = nn.Linear(SIZE, 8), nn.Linear(SIZE, 5)
        self.kv_b_proj, self.o_proj = nn.Linear(3, 8), nn.Linear(4, SIZE)

    def forward(self, x):  # called: Latent
        return self.o_proj(self.kv_b_proj(self.kv_a_proj(x)[..., :3]).tanh()[..., :4])


class Crossing(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(SIZE, 2, batch_first=True)
        self.other = nn.Linear(SIZE, SIZE)

    def forward(self, x):
        return self.attention(x, self.other(x), x)[0]  # called: Crossing


def expected_line(name):
    """Of the mark."""
    with open(__file__, encoding="utf-8") as file:
        return next(index for index, line in enumerate(file, 1) if line.rstrip().endswith(f"# called: {name}"))


def router():
    return foreign.TopKRouter("mixtral", 4, SIZE, 2)


def mixture(**settings):
    gate = moed.nn.Gate(nn.Linear(SIZE, 3), **settings)
    return moed.nn.MoE([nn.Linear(SIZE, SIZE) for _ in range(3)], gate)


def hooked():
    layer = nn.Linear(SIZE, SIZE)
    layer.register_forward_hook(lambda *given: None)
    return layer


def replaced():
    layer = nn.Linear(SIZE, SIZE)
    layer.forward = lambda x: x
    return layer


ROW, ROWS, IMAGE = (SIZE,), (5, SIZE), (3, 8, 8)
# what is refused, the shape of a row, path and reason, whose mark
TABLE = (
    # describe.py, ops.py: layers that a checkpoint has no words for, or not with these settings
    (lambda: Around(nn.RReLU()), ROW, "model.body.1: RReLU has no op", "Around"),
    (lambda: Around(nn.GRUCell(SIZE, SIZE)), ROW, "model.body.1: GRUCell has no op .*nn.GRU with batch", "Around"),
    (lambda: Around(nn.Softplus(beta=-1)), ROW, "model.body.1: beta -1", "Around"),
    (lambda: Around(nn.Linear(9, 2)), ROW, "model.body.1: does not accept rows of shape", "Around"),
    (lambda: Around(nn.Embedding(9, 2)), ROW, "model.body.1: (an embedding looks up|does not accept)", "Around"),
    (lambda: Around(nn.BatchNorm1d(SIZE, track_running_stats=False)), ROW, "model.body.1: track_", "Around"),
    (lambda: Around(nn.Conv1d(5, 2, 2, dilation=2)), ROWS, "model.body.1: dilation", "Around"),
    (lambda: Around(nn.Linear(SIZE, 1), nn.Flatten(0)), ROW, "model.body.2: start_dim 0", "Around"),
    (lambda: Around(nn.TransformerEncoderLayer(SIZE, 2)), ROWS, "model.body.1: batch_first is off", "Around"),
    # recurrent.py
    (lambda: Around(nn.LSTM(SIZE, SIZE)), ROWS, "model.body.1: LSTM without batch_first", "Around"),
    (lambda: Around(nn.GRU(SIZE, SIZE, batch_first=True)), (200, SIZE), "model.body.1: GRU over 200", "Around"),
    # mixtures
    (lambda: Around(mixture(top_k=2, select_bias=[0.0])), ROW, "model.body.1.gate: select_bias has 1 number", "Around"),
    (lambda: Around(moed.nn.MoE([nn.Linear(SIZE, 2), nn.Linear(SIZE, 2, bias=False)], moed.nn.Gate(
        nn.Linear(SIZE, 2)))), ROW, "model.body.1.experts.1: differs from expert 0", "Around"),
    (lambda: Around(moed.nn.MoE([mixture(), mixture()], moed.nn.Gate(nn.Linear(SIZE, 2)))), ROW,
     "model.body.1.experts.0: a MoE layer inside", "Around"),
    # prepare.py
    (lambda: Around(hooked()), ROW, "model.body.1: a forward hook", "Around"),
    (lambda: Around(replaced()), ROW, "model.body.1: its forward was replaced", "Around"),
    # fx_trace.py, fx_functions.py, fx_joins.py: code
    (lambda: Around(Unknown()), ROW, r"model.body.1: sin\(.*no layer of a checkpoint does that", "Unknown"),
    (lambda: Around(Strict()), ROW, "model.body.1: Strict.forward cannot be followed: AssertionError", "Strict"),
    (lambda: Around(Undecided()), ROW, "model.body.1: Undecided.forward cannot be followed", "Undecided"),
    (lambda: Around(Noisy()), ROW, "model.body.1: Noisy gives two answers", "Noisy"),
    (Crossing, ROWS, "model.attention: attention of one thing to another", "Crossing"),
    # blocks found by trying
    (lambda: Around(Squared(router(), foreign.PackedExperts(4, SIZE, 6))), ROWS,
     "model.body.1: Squared has experts and a router, but", "Squared"),
    (lambda: Around(Queries()), ROWS, "model.body.1: Queries has projections", "Queries"),
    (lambda: Around(Latent()), ROWS, "model.body.1: Latent makes keys and values of a latent", "Latent"),
    # verify.py
    (Counting, ROW, "model: .*gives two answers", "Counting"),
)


class RefusalsTest(ExportCase):
    def test_table(self):
        for make, shape, message, mark in TABLE:
            with self.subTest(message):
                with self.assertRaises(moed.ExportError) as raised:
                    moed.export(make().eval(), torch.zeros(1, *shape), self.path)
                text = str(raised.exception)
                self.assertRegex(text, "^" + message)
                self.assertTrue(text.endswith(f" ({HERE}:{expected_line(mark)})"), text)
                self.assertEqual(os.listdir(self.folder), [])

    def test_blocks_of_others(self):
        for block, message in ((ExpertChoice(), "has experts and a router"), (Gumbel(), "two answers")):
            model = calling(lambda self, x: self.moe(x), moe=block)
            shape = (6, 8) if isinstance(block, ExpertChoice) else (8,)
            self.assert_refused(model, shape, rf"^model.moe: .*{message}.* \(written_blocks.py:\d+\)$")
        self.assert_refused(field_whole.SwinBlock(), (64, field_whole.SIZE), r"^model.*\(field_whole.py:\d+\)$")

    def test_without_code_of_the_callers(self):
        """A Sequential of PyTorch's layers is nowhere but in its path."""
        self.assert_refused(nn.Sequential(nn.Linear(SIZE, SIZE), nn.RReLU()), ROW, r"^model.1: RReLU has no op.*\)$")

    def test_of_several_inputs(self):
        model = moed.nn.MultiTask({"a": moed.nn.Input(ROW, layers=Around(nn.RReLU())), "b": moed.nn.Input(ROW)},
                                  nn.Linear(2 * SIZE, 2), {"y": moed.nn.Output(Around(Unknown()))})
        with self.assertRaisesRegex(moed.ExportError, rf"^inputs.a.*: RReLU.* \({HERE}:{expected_line('Around')}\)$"):
            moed.export(model.eval(), None, self.path)

    def test_every_refusal_has_a_path_of_its_own(self):
        """ExportError takes path and reason apart: no text that a line could not be added to."""
        for name in sorted(os.listdir(PACKAGE)):
            if not name.endswith(".py"):
                continue
            with open(os.path.join(PACKAGE, name), encoding="utf-8") as file:
                tree = ast.parse(file.read())
            for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
                if getattr(call.func, "id", "") == "ExportError":
                    self.assertGreater(len(call.args), 1, f"{name}:{call.lineno}")

    def test_a_line_is_the_callers(self):
        self.assertFalse(places.is_callers(functional.__file__) or places.is_callers(places.__file__))
        self.assertTrue(places.is_callers(os.path.join(os.path.dirname(torch.__file__) + "_rechub", "models.py")))
        self.assertTrue(re.fullmatch(rf"{HERE}:\d+", places.line_of(self.raised())))

    def raised(self):
        try:
            functional.linear(torch.zeros(1, 2), torch.zeros(3, 3))
        except RuntimeError as error:
            return error


if __name__ == "__main__":
    unittest.main()
