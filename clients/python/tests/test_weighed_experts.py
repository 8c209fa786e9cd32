"""Experts that are all run and weighed by numbers of all sorts: counted, or told of; what only looks so is neither."""

import os
import unittest
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import moed
from moed import engine
from tests import ENGINE
from tests.export_case import ExportCase

SIZE, COUNT, OUT, ROWS = 6, 6, 3, 40


def mlp(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Mixture(nn.Module):
    """`weights` makes a number for each expert of a row, `mix` the sum of what experts give."""

    def __init__(self, weights, mix=None, count=COUNT, out=OUT):
        super().__init__()
        self.gate, self.second, self.top = nn.Linear(SIZE, count), nn.Linear(SIZE, count), nn.Linear(SIZE, 2)
        self.experts = nn.ModuleList([mlp(SIZE, 8, out) for _ in range(count)])
        self.first = nn.Parameter(torch.randn(count, SIZE, 8))
        self.last = nn.Parameter(torch.randn(count, 8, out))
        self.wide = nn.Linear(SIZE, count * out)
        self.head = nn.Linear(out, 2)
        self.weights, self.mix = weights, mix or stacked

    def forward(self, x):
        return self.head(self.mix(self, x, self.weights(self, x)))


def stacked(model, x, weights):
    return (weights.unsqueeze(-1) * torch.stack([expert(x) for expert in model.experts], 1)).sum(1)


def multiplied(model, x, weights):
    return torch.bmm(weights.unsqueeze(1), torch.stack([expert(x) for expert in model.experts], 1)).squeeze(1)


def in_a_loop(model, x, weights):
    return sum(weights[:, i:i + 1] * expert(x) for i, expert in enumerate(model.experts))


def of_one_tensor(model, x, weights):
    hidden = torch.relu(torch.einsum("bd,edh->beh", x, model.first))
    return torch.einsum("be,beo->bo", weights, torch.einsum("beh,eho->beo", hidden, model.last))


def of_one_layer(model, x, weights):
    return (model.wide(x).view(-1, COUNT, OUT) * weights.unsqueeze(-1)).sum(1)


def share(weights):
    return weights / weights.sum(-1, keepdim=True)


def softmax(model, x):
    return model.gate(x).softmax(-1)


def sigmoid(model, x):
    return torch.sigmoid(model.gate(x))


def in_two_levels(model, x):
    return (model.top(x).softmax(-1).unsqueeze(-1) * model.gate(x).view(-1, 2, 3).softmax(-1)).flatten(1)


def of_each_group(model, x):
    groups = functional.softmax(model.top(x), -1)
    logits = model.gate(x).chunk(2, -1)
    return torch.cat([groups[:, i:i + 1] * functional.softmax(logits[i], -1) for i in range(2)], 1)


def exponentials(model, x):
    logits = model.gate(x)
    return share(torch.exp(logits - logits.amax(-1, keepdim=True)))


def annealed(model, x):
    if model.training:
        return functional.gumbel_softmax(model.gate(x), tau=0.5, dim=-1)
    return (model.gate(x) / 0.5).softmax(-1)


def either(model, x):
    first = torch.sigmoid(model.top(x)[:, :1])
    return torch.cat([first, 1 - first], 1)


def two_in_words(model, x, weights):
    first = torch.sigmoid(model.top(x)[:, :1])
    return first * model.experts[0](x) + (1 - first) * model.experts[1](x)


class TwoLevels(Mixture):
    """Products of two softmaxes, one after the other."""

    def __init__(self):
        super().__init__(of_each_group)

    def forward(self, x):
        groups, y = functional.softmax(self.top(x), -1), 0
        for i in range(2):
            own = functional.softmax(self.gate(x)[:, 3 * i:3 * i + 3], -1)
            for j in range(3):
                y = y + groups[:, i:i + 1] * own[:, j:j + 1] * self.experts[3 * i + j](x)
        return self.head(y)


class Several(Mixture):
    """It has a gate and experts, and much else, and gives two things."""

    def forward(self, x):
        return super().forward(x), torch.tanh(self.top(x))


COUNTED = {
    "two levels": lambda: Mixture(in_two_levels), "two levels, each group": lambda: Mixture(of_each_group, multiplied),
    "two levels in a loop": TwoLevels,
    "sigmoid": lambda: Mixture(sigmoid), "sigmoid in a loop": lambda: Mixture(sigmoid, in_a_loop),
    "sigmoid, bmm": lambda: Mixture(sigmoid, multiplied),
    "shares of sigmoids": lambda: Mixture(lambda model, x: share(sigmoid(model, x))),
    "shares of softplus": lambda: Mixture(lambda model, x: share(functional.softplus(model.gate(x)))),
    "exponentials": lambda: Mixture(exponentials),
    "two gates": lambda: Mixture(lambda model, x: share(softmax(model, x) * model.second(x).softmax(-1))),
    "a gate and a sigmoid": lambda: Mixture(lambda model, x: softmax(model, x) * torch.sigmoid(model.second(x))),
    "a floor": lambda: Mixture(lambda model, x: 0.9 * softmax(model, x) + 0.1 / COUNT),
    "gumbel": lambda: Mixture(annealed),
    "of length 1": lambda: Mixture(lambda model, x: functional.normalize(torch.relu(model.gate(x)), dim=-1)),
    "one tensor": lambda: Mixture(softmax, of_one_tensor),
    "one tensor, sigmoid": lambda: Mixture(sigmoid, of_one_tensor),
    "one number each": lambda: Mixture(in_two_levels, in_a_loop, out=1),
    "one layer": lambda: Mixture(softmax, of_one_layer), "either of two": lambda: Mixture(either, two_in_words, 2)}
WARNED = {
    "relu": lambda: Mixture(lambda model, x: torch.relu(model.gate(x))),
    "no bounds": lambda: Mixture(lambda model, x: model.gate(x), in_a_loop),
    "more than 1": lambda: Mixture(lambda model, x: 2 * sigmoid(model, x)),
    "one tensor, no bounds": lambda: Mixture(lambda model, x: model.gate(x), of_one_tensor)}


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.one, self.head = nn.Linear(SIZE, 8), nn.Linear(SIZE, 8), nn.Linear(8, 1), nn.Linear(8, 2)
        self.fields, self.squeezed = nn.ModuleList([nn.Linear(2, 8) for _ in range(3)]), mlp(3, 2, 3)
        self.same, self.pass_one = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 1)
        self.conv, self.excite = nn.Conv2d(3, 8, 3), mlp(8, 4, 8)
        self.share = nn.Parameter(torch.randn(3))
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def attention_pool(model, x):
    hidden = torch.tanh(model.a(x))
    return model.head((model.one(hidden).softmax(1) * hidden).sum(1))


def gated_pool(model, x):
    hidden = torch.tanh(model.a(x))
    return model.head((torch.sigmoid(model.one(hidden)) * hidden).sum(1))


def of_values(model, x):
    """Weights and values come from the positions by layers of their own."""
    return model.head((model.one(model.a(x)).softmax(1) * model.b(x)).sum(1))


def attention_in_a_loop(model, x):
    hidden = torch.tanh(model.a(x))
    shares = model.one(hidden).squeeze(-1).softmax(-1)
    return model.head(sum(shares[:, i:i + 1] * hidden[:, i] for i in range(5)))


def squeeze_and_excite(model, x):
    image = torch.relu(model.conv(x))
    return (image * torch.sigmoid(model.excite(image.mean((2, 3))))[:, :, None, None]).sum(1).flatten(1)


def fields(model, x):
    return torch.stack([field(x[:, 2 * i:2 * i + 2]) for i, field in enumerate(model.fields)], 1)


def of_fields(model, x):
    embedded = fields(model, x)
    return model.head((torch.sigmoid(model.squeezed(embedded.mean(-1))).unsqueeze(-1) * embedded).sum(1))


def learned(model, x):
    return model.head((model.share.softmax(0)[None, :, None] * fields(model, x)).sum(1))


def highway(model, x):
    passed = torch.sigmoid(model.pass_one(x))
    return model.head(model.a(passed * torch.relu(model.same(x)) + (1 - passed) * x))


SILENT = {
    "attention pool": (attention_pool, (5, SIZE)), "gated pool": (gated_pool, (5, SIZE)),
    "values": (of_values, (5, SIZE)), "attention in a loop": (attention_in_a_loop, (5, SIZE)),
    "squeeze and excite": (squeeze_and_excite, (3, 5, 5)), "fields": (of_fields, (SIZE,)),
    "highway": (highway, (SIZE,)), "learned": (learned, (SIZE,)),
    "glu": (lambda model, x: model.head(functional.silu(model.a(x)) * model.b(x)), (SIZE,)),
    "bilinear": (lambda model, x: (model.a(x) * model.b(x)).sum(-1, keepdim=True), (SIZE,)),
    "mean": (lambda model, x: model.head(fields(model, x).mean(1)), (SIZE,))}


class WeighedExpertsTest(ExportCase):
    def told(self, model, shape, **settings):
        """What the export warns of."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            moed.export(model.eval(), torch.zeros(1, *shape), self.path, **settings)
        return [str(warning.message) for warning in caught if issubclass(warning.category, moed.ExportWarning)]

    def mixtures(self):
        return [layer for layer in self.config()["layers"] if layer["op"] == "moe"]

    def test_counted(self):
        for name, make in COUNTED.items():
            with self.subTest(name):
                torch.manual_seed(1)
                model = make()
                self.assertEqual(self.told(model, (SIZE,)), [])
                self.assertEqual(len(self.mixtures()), 1)
                if ENGINE:
                    self.assert_counted(model)

    def assert_counted(self, model):
        rows = torch.randn(ROWS, SIZE)
        with torch.no_grad():
            expected, weights = model(rows).numpy(), model.weights(model, rows).double().numpy()
        with engine.Engine(ENGINE, os.path.dirname(self.path)) as server:
            answers = server.client.infer("model", rows.numpy())
            layer, = server.client.routing("model")["layers"]
        np.testing.assert_allclose(next(iter(answers.values())), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose([expert["weight"] for expert in layer["experts"]], weights.sum(axis=0), rtol=1e-4)
        first = np.bincount(weights.argmax(axis=1), minlength=len(weights[0]))
        self.assertEqual([expert["top1"] for expert in layer["experts"]], first.tolist())

    def test_told(self):
        for name, make in WARNED.items():
            with self.subTest(name):
                told = self.told(make(), (SIZE,))
                self.assertEqual(len(told), 1)
                self.assertIn("need not lie between 0 and 1", told[0])
                self.assertEqual(self.mixtures(), [])

    def test_one_of_several_outputs(self):
        self.assertEqual(self.told(Several(softmax), (SIZE,), output_name=["mixed", None]), [])
        self.assertEqual(len(self.mixtures()), 1)
        told, = self.told(Several(softmax), (SIZE,), output_name=["mixed", "other"])
        self.assertIn("for outputs that part before", told)
        self.assertEqual([output["name"] for output in self.config()["outputs"]], ["mixed", "other"])

    def test_nothing_of_the_sort(self):
        for name, (function, shape) in SILENT.items():
            with self.subTest(name):
                self.assertEqual(self.told(Function(function), shape), [])
                self.assertEqual(self.mixtures(), [])


if __name__ == "__main__":
    unittest.main()
