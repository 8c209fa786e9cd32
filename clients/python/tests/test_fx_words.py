"""Functions that a checkpoint has no layer for, in simpler ones; recurrent layers; rows that are not first."""

import math
import unittest
from unittest import mock

import torch
from torch import nn
from torch.nn import functional

import moed
from moed import engine, recurrent
from tests import ENGINE
from tests.export_case import ExportCase
from tests.test_adapters import randomised
from tests.test_fx_trace import calling


def linear(outputs=4, inputs=4):
    return nn.Linear(inputs, outputs)


def experts_first(self, x):
    return torch.stack([self.a(x), self.b(x)], 0)


def qkv(self, x):
    return self.a(x).reshape(len(x), 5, 3, 2, 2).permute(2, 0, 3, 1, 4)


def attended(q, k, v):
    return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2)


def moving_average(self, x):
    padded = torch.cat([x[:, :1].repeat(1, 2, 1), x, x[:, -1:].repeat(1, 2, 1)], 1)
    return self.pool(padded.permute(0, 2, 1)).permute(0, 2, 1)


def causal(self, x):
    scores = (x @ x.transpose(1, 2)).masked_fill(torch.ones(5, 5).tril() == 0, float("-inf"))
    return functional.softmax(scores, -1) @ x


SHARES = {"a": linear(3), "b": linear(3), "gate": linear(2)}
ROW, ROWS, IMAGE = (4,), (5, 4), (2, 3, 4)
# name, forward, shape of a row, modules and tensors
FUNCTIONS = (
    ("permute", lambda self, x: x.permute(0, 2, 3, 1), IMAGE, {}),
    ("an entry that keeps its axis", lambda self, x: x[:, 1, None] * x + x[:, -1, None], ROW, {}),
    ("max, by its name", lambda self, x: x.max(1).values, ROWS, {}),
    ("permute twice", lambda self, x: x.permute(0, 3, 1, 2).transpose(1, 2), IMAGE, {}),
    ("movedim, mT", lambda self, x: x.movedim(1, -1).mT, IMAGE, {}),
    ("softmax along any axis", lambda self, x: functional.softmax(x, dim=1) + self.soft(x), IMAGE,
     {"soft": nn.Softmax(dim=2)}),
    ("bmm", lambda self, x: torch.bmm(functional.softmax(x @ x.transpose(1, 2), -1), x), ROWS, {}),
    ("a parameter on the left", lambda self, x: self.w @ x, ROWS, {"w": torch.randn(3, 5)}),
    ("einsum of both", lambda self, x: torch.einsum("be,beo->bo", self.gate(x).softmax(-1), torch.stack(
        [self.a(x), self.b(x)], 1)), ROW, SHARES),
    ("einsum of tensors of experts", lambda self, x: torch.einsum("bteh,ehd->bted", torch.einsum(
        "btd,edh->bteh", x, self.w).relu(), self.v), ROWS, {"w": torch.randn(3, 4, 2), "v": torch.randn(3, 2, 4)}),
    ("einsum with ...", lambda self, x: torch.einsum("...d,hd->...h", x, self.w), ROWS, {"w": torch.randn(3, 4)}),
    ("quotients", lambda self, x: x.std(dim=1) / (1 + x.abs().mean(1)) + 1 / (2 + x[:, 0] ** 2), ROWS, {}),
    ("variance", lambda self, x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, keepdim=True) + 1e-5), ROWS, {}),
    ("roll and flip", lambda self, x: torch.roll(x, (-1, 1), (1, 2)) + x.flip(1), ROWS, {}),
    ("glu", lambda self, x: functional.glu(x, -1) + self.glu(x), ROWS, {"glu": nn.GLU()}),
    ("steps, new axes, lists", lambda self, x: (x[:, None] * x[:, :, None])[:, ::2, [2, 0]], ROW, {}),
    ("pools of lines", lambda self, x: self.mean(x) + self.max(x) + self.whole(x), (5, 4),
     {"mean": nn.AvgPool1d(2), "max": nn.MaxPool1d(2), "whole": nn.AdaptiveAvgPool1d(1)}),
    ("a moving average", moving_average, (8, 3), {"pool": nn.AvgPool1d(5, 1)}),
    ("distances", lambda self, x: torch.softmax(-torch.cdist(x, self.points), -1), ROWS, {"points": torch.randn(3, 4)}),
    ("cosines", lambda self, x: functional.cosine_similarity(self.a(x), x, dim=-1), ROWS, {"a": linear()}),
    ("paddings", lambda self, x: functional.pad(x, (1, 2)) + functional.pad(x, (0, 3), mode="replicate"), ROWS, {}),
    ("nearest", lambda self, x: functional.interpolate(x, scale_factor=2), (2, 3, 3), {}),
    ("sums of exponentials", lambda self, x: torch.logsumexp(x, -1, keepdim=True) + x.cumsum(1), ROWS, {}),
    ("causal by hand", causal, ROWS, {}),
    ("activations", lambda self, x: functional.selu(x) + functional.celu(x, 0.7) + functional.softsign(x)
     + functional.logsigmoid(x) + functional.tanhshrink(x), ROW, {}),
    ("larger and smaller", lambda self, x: torch.maximum(x, self.a(x)) - torch.minimum(x, self.a(x)) + x ** 4, ROW,
     {"a": linear()}),
    ("each column a token", lambda self, x: x.unsqueeze(-1) * self.w + self.b, ROW,
     {"w": torch.randn(4, 3), "b": torch.randn(4, 3)}),
    ("norms as functions", lambda self, x: functional.group_norm(x, 2, self.w, self.b) + functional.conv1d(
        x, self.kernel, padding=1), (4, 6), {"w": torch.randn(4), "b": torch.randn(4), "kernel": torch.randn(4, 4, 3)}),
    # rows that are not first for a while
    ("experts first", lambda self, x: (experts_first(self, x) * self.gate(x).softmax(-1).t().unsqueeze(-1)).sum(0), ROW,
     SHARES),
    ("einsum of experts first", lambda self, x: torch.einsum("ebo,be->bo", experts_first(self, x), self.gate(x)), ROW,
     SHARES),
    ("their mean", lambda self, x: experts_first(self, x).mean(0), ROW, SHARES),
    ("positions first", lambda self, x: self.a(x.permute(1, 0, 2)).relu().transpose(0, 1), ROWS, {"a": linear()}),
    ("queries, keys and values first", lambda self, x: attended(*qkv(self, x)), ROWS, {"a": linear(12)}),
    ("by their index", lambda self, x: attended(qkv(self, x)[0], qkv(self, x)[1], qkv(self, x)[2]), ROWS,
     {"a": linear(12)}),
)


def last_states(self, x):
    _, (state, cell) = self.layer(x)
    return self.head(torch.cat([state[-1], cell[-1]], -1))


RECURRENT = (
    (lambda self, x: self.head(self.layer(x)[0][:, -1]), nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), 6),
    (last_states, nn.LSTM(4, 3, 2, batch_first=True), 6),
    (lambda self, x: self.head(self.layer(x)[1].squeeze(0)), nn.GRU(4, 3, batch_first=True, bias=False), 3),
    (lambda self, x: self.head(self.layer(x, torch.zeros(1, len(x), 3))[0]), nn.GRU(4, 3, batch_first=True), 3),
    (lambda self, x: self.head(self.layer(x)[0]).mean(1), nn.RNN(4, 3, batch_first=True, nonlinearity="relu"), 3),
)


class WordsTest(ExportCase):
    def ops(self, module, shape):
        with mock.patch.object(engine, "find", lambda: ENGINE):
            moed.export(randomised(module), torch.zeros(1, *shape), self.path)
        return [layer["op"] for layer in self.config()["layers"]]

    def test_functions(self):
        for name, function, shape, parts in FUNCTIONS:
            with self.subTest(name):
                module = calling(function, **{key: part for key, part in parts.items() if isinstance(part, nn.Module)})
                for key, part in parts.items():
                    if isinstance(part, torch.Tensor):
                        module.register_buffer(key, part)
                self.ops(module, shape)

    def test_recurrent_layers(self):
        for function, layer, size in RECURRENT:
            with self.subTest(layer):
                ops = self.ops(calling(function, layer=layer, head=nn.Linear(size, 2)), (5, 4))
                self.assertNotIn("moe", ops)
        self.assertEqual(sum("head" in name for name in self.tensors()), 2)  # weight and bias, not one for each step

    def test_as_many_steps_as_are_said(self):
        for kind in (nn.LSTM, nn.GRU, nn.RNN):
            with self.subTest(kind.__name__):
                steps = recurrent.MOST_STEPS[kind.__name__]
                model = calling(lambda self, x: self.head(self.layer(x)[0].mean(1)), head=nn.Linear(3, 2),
                                layer=kind(4, 3, batch_first=True))
                moed.export(randomised(model), torch.zeros(1, steps, 4), self.path)

    def test_more_values_than_a_list_has(self):
        def loop(self, x):
            y = x
            for _ in range(1100):
                y = y + torch.tanh(x * y)
            return y
        with self.assertRaisesRegex(moed.ExportError, "a checkpoint that would be refused: .*more than 1024"):
            moed.export(calling(loop), torch.zeros(1, 3), self.path)

    def test_a_bag_of_embeddings(self):
        for mode, padding in (("mean", 0), ("sum", 0), ("max", None), ("mean", None)):
            model = nn.Sequential(nn.EmbeddingBag(9, 4, mode=mode, padding_idx=padding), nn.Linear(4, 2)).eval()
            moed.export(model, torch.zeros(1, 5, dtype=torch.long), self.path)
            ids = torch.tensor([[1, 0, 3, 3, 8], [2, 2, 0, 0, 0], [5, 6, 7, 8, 1]])
            torch.testing.assert_close(moed.load(self.path)(ids), model(ids), rtol=1e-5, atol=1e-5)
        bag = nn.Sequential(nn.EmbeddingBag(9, 4, mode="max", padding_idx=0)).eval()
        with self.assertRaisesRegex(moed.ExportError, "model.0: the largest of no entries"):
            moed.export(bag, torch.zeros(1, 5, dtype=torch.long), self.path)

    def test_what_there_is_a_layer_for_stays_one(self):
        norm = calling(lambda self, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.w, w=None)
        norm.w = nn.Parameter(torch.ones(4))
        self.assertEqual(self.ops(norm, ROWS), ["rms_norm"])
        self.assertEqual(self.ops(calling(lambda self, x: self.a(x).transpose(1, 2), a=linear()), ROWS),
                         ["linear", "transpose"])
        self.assertEqual(self.ops(calling(lambda self, x: functional.softmax(self.a(x), dim=1), a=linear()), ROW),
                         ["linear", "softmax"])

    @unittest.skipUnless(hasattr(functional, "rms_norm"), "an older PyTorch")
    def test_attention_as_a_function(self):
        def forward(self, x):
            q, k, v = (layer(x).view(len(x), 5, 2, 2).transpose(1, 2) for layer in (self.a, self.b, self.c))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return mixed.transpose(1, 2).reshape(len(x), 5, 4) + functional.rms_norm(x, (4,)) * math.pi
        self.ops(calling(forward, a=linear(), b=linear(), c=linear()), ROWS)

    def test_long_names(self):
        """Of deep models: a name has 64 letters at most, and no two are cut to the same."""
        class Deep(nn.Module):
            def __init__(self, depth):
                super().__init__()
                self.a_rather_long_name_for_a_module = Deep(depth - 1) if depth else nn.Linear(4, 4)
                self.b_rather_long_name_for_a_module = Deep(depth - 1) if depth else nn.Linear(4, 4)

            def forward(self, x):
                a, b = self.a_rather_long_name_for_a_module(x), self.b_rather_long_name_for_a_module(x)
                return functional.silu(a) * b + a
        self.ops(Deep(3), ROW)
        self.assertEqual(len(self.tensors()), 32)

    def test_one_value_alone(self):
        """Beside which nothing is put, in a list of one or an axis of one entry."""
        one = calling(lambda self, x: torch.stack([torch.cat([self.a(x)], 1)], 1).flip(1).sum(1), a=linear())
        self.assertEqual(self.ops(one, ROW)[0], "linear")

    def test_a_layer_that_is_called_within_and_without(self):
        module = calling(lambda self, x: x + torch.tanh(self.a(self.a(x))) + self.a(torch.tanh(x)), a=linear())
        self.ops(module, ROW)
        self.assertEqual(len(self.tensors()), 6)


if __name__ == "__main__":
    unittest.main()
