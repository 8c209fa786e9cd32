"""load() against tests/golden: checkpoints with what a float64 interpreter of the format makes of them; and that
interpreter on what export() writes."""

import os
import sys
import unittest

import numpy as np
import torch
from torch import nn

from moed import modules
from moed.layers import Gate, MoE
from moed.loader import load
from moed.multitask import Input, MultiTask, Output, ple
from moed.transformer_layers import encoder_block
from tests.export_case import ExportCase, export, named, routings, trained_like

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../tests/golden")
CASES = os.path.join(GOLDEN, "cases")
TOLERANCE = 3e-4  # of the largest number: float32 against float64


def numbers(case, *names, dtype="<f4"):
    """The first of these files that is there."""
    for name in names:
        path = os.path.join(CASES, case, name)
        if os.path.exists(path):
            return np.fromfile(path, dtype)
    return None


def gate_names(layers):
    """Of every gate, in the order of routings(model)."""
    for layer in layers:
        if layer["op"] == "residual":
            yield from gate_names(layer["layers"])
        if layer["op"] == "moe":
            yield from [f"{layer['name']}.{gate['name']}" for gate in layer.get("gates", [])] or [layer["name"]]


@unittest.skipUnless(os.path.isdir(CASES), "not in the repository")
class CasesTest(unittest.TestCase):
    def test_every_case(self):
        cases = sorted(os.listdir(CASES))
        self.assertTrue(cases)
        for case in cases:
            with self.subTest(case):
                self.check(case, load(os.path.join(CASES, case)))

    def check(self, case, model):
        rows = {name: numbers(case, "input.f32", f"input.{name}.f32").reshape(-1, *entry.shape)
                for name, entry in zip(model.input_names, model.inputs)}
        count = len(next(iter(rows.values())))
        requests = numbers(case, "requests.i32", dtype="<i4")
        answers, routing = self.run_requests(model, rows, [count] if requests is None else requests)
        for name, answer in answers.items():
            expected = numbers(case, "output.f32", f"output.{name}.f32").reshape(count, -1)
            self.assert_near(answer.reshape(count, -1), expected)
        for name, (experts, weights) in zip(gate_names(model.config["layers"]), routing, strict=True):
            expected = numbers(case, f"routing.{name}.experts.i32", dtype="<i4")
            self.assertEqual(experts.ravel().tolist(), expected.tolist())
            self.assert_near(weights.ravel(), numbers(case, f"routing.{name}.weights.f32"))

    def run_requests(self, model, rows, requests):
        """({output: array}, [(experts, weights) per gate]) of all requests together."""
        answers, routing = [], []
        ends = np.cumsum(requests)
        for begin, end in zip(ends - requests, ends):
            with torch.no_grad():
                given = {name: torch.from_numpy(values[begin:end]) for name, values in rows.items()}
                answer = model(given)
            answers.append(answer if isinstance(answer, dict) else {model.output_names[0]: answer})
            routing.append([(one.experts.numpy(), one.weights.numpy()) for one in routings(model)])
        return ({name: np.concatenate([answer[name].numpy() for answer in answers]) for name in answers[0]},
                [tuple(np.concatenate(parts) for parts in zip(*gate)) for gate in zip(*routing)])

    def assert_near(self, got, expected):
        self.assertEqual(got.shape, expected.shape)
        with np.errstate(over="ignore"):
            scale = 1 + np.abs(expected).max()
            np.testing.assert_array_less(np.abs(got.astype(np.float64) - expected) / scale, TOLERANCE)


def mixture(size, count, **policy):
    return MoE([nn.Sequential(nn.Linear(size, 6), nn.ReLU(), nn.Linear(6, size)) for _ in range(count)],
               Gate(nn.Linear(size, count), **policy))


@unittest.skipUnless(os.path.isdir(CASES), "not in the repository")
class ReferenceTest(ExportCase):
    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, GOLDEN)
        cls.addClassCleanup(sys.path.remove, GOLDEN)
        import reference
        cls.reference = reference

    def assert_agrees(self, model, rows):
        """model: a MultiTask; rows: {input: array}"""
        export(trained_like(model), self.path)
        config, tensors = self.reference.read_checkpoint(self.path)
        expected, routing = self.reference.run(config, tensors, list(rows.values()))
        with torch.no_grad():
            answers = model({name: torch.from_numpy(values) for name, values in rows.items()})
        for answer, values in zip(answers.values(), expected, strict=True):
            np.testing.assert_allclose(answer.numpy(), values, rtol=1e-4, atol=1e-4)
        for ours, theirs in zip(routings(model), routing.values(), strict=True):
            np.testing.assert_array_equal(ours.experts.numpy(), theirs.experts)
            np.testing.assert_allclose(ours.weights.numpy(), theirs.weights, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(ours.probabilities.detach().numpy(), theirs.probability, rtol=1e-4, atol=1e-5)

    def assert_layers_agree(self, layers, shape):
        x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
        self.assert_agrees(MultiTask({"x": Input(shape)}, layers, {"y": Output()}), {"x": x})

    def test_gates(self):
        groups = {"count": 3, "keep": 2, "by": "top2"}
        for policy in ({"normalize": "lp", "p": 3, "top_k": 2}, {"score": "sparsemixer", "top_k": 2, "jitter": 0.2},
                       {"score": "sigmoid", "top_k": 3, "normalize": "sum", "groups": groups, "select_bias": [0.1] * 6},
                       {"top_k": 2, "groups": {**groups, "by": "max"}, "scale": 3.0},
                       {"top_k": 2, "capacity": {"factor": 1.25, "minimum": 1}}):
            with self.subTest(policy):
                self.assert_layers_agree(named(moe=mixture(5, 6, **policy)), (5,))

    def test_a_transformer_with_experts(self):
        experts = MoE([modules.GLU(8, 8, "gelu") for _ in range(4)], Gate(nn.Linear(8, 4), top_k=2), route="positions",
                      shared=nn.Linear(8, 8), shared_gate=nn.Linear(8, 1, bias=False))
        layers = nn.Sequential(modules.ClassToken(8), modules.PositionEmbedding(4, 8), encoder_block(8, 2, experts),
                               nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), modules.Transpose(),
                               modules.Select(3, axis=-1))
        self.assert_layers_agree(layers, (3, 8))

    def test_several_tasks(self):
        layers = ple(lambda level: nn.Sequential(nn.Linear((7, 5)[level], 5), nn.ReLU()),
                     lambda level, count: Gate(nn.Linear((7, 5)[level], count)), ["a", "b"],
                     specific=1, shared=2, levels=2)
        model = MultiTask({"x": Input((3,), preprocess={"scale": 0.5, "mean": [1.0], "std": [2.0]}),
                           "word": Input((2,), categories=6, layers=nn.Embedding(6, 2))}, layers,
                          {task: Output(nn.Sequential(modules.Select(index), nn.Linear(5, 2), nn.Softmax(dim=-1)))
                           for index, task in enumerate(["a", "b"])})
        generator = np.random.default_rng(1)
        self.assert_agrees(model, {"x": generator.normal(size=(9, 3)).astype(np.float32),
                                   "word": generator.integers(0, 6, (9, 2)).astype(np.float32)})


if __name__ == "__main__":
    unittest.main()
