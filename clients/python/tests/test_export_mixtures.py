"""Format 2's gates and mixtures, and models of several inputs and outputs: to a checkpoint and back."""

import unittest

import numpy as np
import torch
from torch import nn

from moed import modules
from moed.layers import Gate, MoE, MultiGateMoE
from moed.loader import load
from moed.multitask import Input, MultiTask, Output, ple
from moed.noise import GaussianNoise, UniformNoise
from tests.export_case import ExportCase, expert, export, named, trained_like


def experts(count, inputs=12):
    return [expert(inputs) for _ in range(count)]


class GateTest(ExportCase):
    def assert_gate_returns(self, config, **policy):
        self.assert_returns(named(moe=MoE(experts(8), Gate(nn.Linear(12, 8), **policy))), (12,), rows=9)
        self.assertEqual(self.config()["format_version"], 2)
        written = self.config()["layers"][0]["gate"]
        self.assertEqual({key: written[key] for key in config}, config)

    def test_lp_norm(self):
        self.assert_gate_returns({"normalize": "lp", "p": 3}, top_k=4, normalize="lp", p=3)

    def test_groups(self):
        for by in ("top2", "max"):
            groups = {"count": 4, "keep": 2, "by": by}
            self.assert_gate_returns({"groups": groups}, score="sigmoid", top_k=3, normalize="sum", groups=groups,
                                     select_bias=torch.linspace(-1, 1, 8), scale=2.5)

    def test_sparsemixer(self):
        self.assert_gate_returns({"score": "sparsemixer", "jitter": 0.3, "top_k": 2, "normalize": "none"},
                                 score="sparsemixer", top_k=2, jitter=0.3)

    def test_capacity(self):
        self.assert_gate_returns({"capacity": {"factor": 1.25, "minimum": 1}}, top_k=2, capacity={"factor": 1.25})
        dropped = load(self.path)
        dropped(torch.randn(9, 12))
        self.assertTrue((dropped.layers.moe.routing.experts == -1).any())

    def test_noise_leaves_no_trace(self):
        noisy = Gate(nn.Linear(12, 8), top_k=2, noise=GaussianNoise(nn.Linear(12, 8, bias=False)))
        self.assert_returns(named(moe=MoE(experts(8), noisy)), (12,))
        self.assertEqual(self.config()["format_version"], 1)
        self.assertFalse([name for name in self.tensors() if "noise" in name])
        export(named(moe=MoE(experts(8), Gate(nn.Linear(12, 8), noise=UniformNoise()))), self.path, (12,))


class MixtureTest(ExportCase):
    def test_positions(self):
        moe = MoE([nn.Linear(6, 6) for _ in range(4)], Gate(nn.Linear(6, 4), top_k=2), route="positions")
        self.assert_returns(named(block=modules.Residual(named(norm=nn.LayerNorm(6), moe=moe))), (5, 6))
        self.assertEqual(self.config()["layers"][0]["layers"][1]["route"], "positions")
        self.assertEqual(moe.routing.experts.shape, (20, 2))

    def test_a_shared_expert(self):
        for gate, written in ((None, None), (nn.Linear(12, 1, bias=False), "sigmoid")):
            moe = MoE(experts(4), Gate(nn.Linear(12, 4), top_k=1), shared=nn.Linear(12, 3), shared_gate=gate)
            self.assert_returns(named(moe=moe), (12,))
            self.assertEqual(self.config()["format_version"], 2)
            self.assertEqual(self.config()["layers"][0]["shared"].get("gate"), written)

    def test_several_gates(self):
        gates = {name: Gate(nn.Linear(12, 3), top_k=2, normalize="sum") for name in ("left", "right")}
        gates["all"] = Gate(nn.Linear(12, 5))
        moe = MultiGateMoE(experts(5), gates, gate_experts={"left": [0, 1, 2], "right": [1, 3, 4]})
        self.assert_returns(named(moe=moe, pick=modules.Select(1)), (12,))
        self.assertEqual([(gate["name"], gate.get("experts")) for gate in self.config()["layers"][0]["gates"]],
                         [("left", [0, 1, 2]), ("right", [1, 3, 4]), ("all", None)])
        self.assertIn("moe.gates.left.0.weight", self.tensors())
        self.assertLessEqual(set(moe.routing["right"].experts.flatten().tolist()), {1, 3, 4})
        self.assertEqual(moe.routing["right"].probabilities.shape, (4, 3))

    def test_progressive_layered_extraction(self):
        model = ple(lambda level: nn.Sequential(nn.Linear((10, 7)[level], 7), nn.ReLU()),
                    lambda level, count: Gate(nn.Linear((10, 7)[level], count)), ["a", "b"],
                    specific=2, shared=1, levels=2)
        self.assert_returns(model, (10,))
        second = self.config()["layers"][1]
        self.assertEqual(second["experts"]["inputs"], [0, 0, 1, 1, 2])
        self.assertEqual([gate["input"] for gate in second["gates"]], [0, 1])
        self.assertEqual([gate["name"] for gate in self.config()["layers"][0]["gates"]], ["a", "b", "shared"])

    def test_a_reference_is_given_per_gate(self):
        moe = MultiGateMoE(experts(3), {"a": Gate(nn.Linear(12, 2)), "b": Gate(nn.Linear(12, 3))},
                           gate_experts={"a": [0, 2]})
        reference = {"moe.a": {"share": [0.5] * 2, "rows": 3}, "moe.b": {"share": [0.25, 0.25, 0.5], "rows": 3}}
        export(named(moe=moe), self.path, (12,), routing_reference=reference)
        self.assertEqual(self.config()["routing_reference"], reference)
        self.assert_refused_again(moe, {"moe": reference["moe.b"]})

    def test_a_reference_is_measured(self):
        model = trained_like(named(moe=MoE(experts(4), Gate(nn.Linear(12, 4), top_k=2, normalize="none", scale=-1.0))))
        rows = torch.randn(600, 12) * 10
        export(model, self.path, (12,), preprocess={"scale": 0.1}, reference_rows=rows)
        with torch.no_grad():
            model(rows * 0.1)
        experts_of, weights, p = (part.numpy() for part in model.moe.routing)
        entry = self.config()["routing_reference"]["moe"]
        self.assertEqual(entry["rows"], 600)
        np.testing.assert_allclose(entry["share"], np.bincount(experts_of.ravel(), minlength=4) / 1200, atol=1e-12)
        parts = np.abs(weights) / np.abs(weights).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(entry["weight"], np.bincount(experts_of.ravel(), parts.ravel(), 4) / 600, atol=1e-6)
        np.testing.assert_allclose(entry["probability"], p.mean(axis=0), atol=1e-6)

    def test_a_reference_is_measured_of_every_gate(self):
        moe = MultiGateMoE(experts(3), {"a": Gate(nn.Linear(12, 2)), "b": Gate(nn.Linear(12, 3), top_k=1)},
                           gate_experts={"a": [0, 2]})
        export(trained_like(named(moe=moe)), self.path, (12,), reference_rows=torch.randn(50, 12).numpy())
        reference = self.config()["routing_reference"]
        self.assertEqual({name: len(entry["probability"]) for name, entry in reference.items()},
                         {"moe.a": 2, "moe.b": 3})
        self.assertEqual(reference["moe.a"]["share"], [0.5, 0.5])
        self.assertAlmostEqual(sum(reference["moe.b"]["weight"]), 1)

    def test_a_reference_of_other_rows(self):
        moe = named(moe=MoE(experts(2), Gate(nn.Linear(12, 2))))
        for settings, message in (
                ({"reference_rows": torch.zeros(3, 11)}, r"of 'input' are of shape \[11\], a row is \[12\]"),
                ({"reference_rows": torch.zeros(0, 12)}, "are \\[0\\] rows"),
                ({"reference_rows": {"x": torch.zeros(3, 12)}}, r"has \['x'\]; the inputs are \['input'\]"),
                ({"reference_rows": torch.zeros(3, 12), "routing_reference": {}},
                 "measure what routing_reference says"),
                ({"routing_reference": {"moe": {"share": [1, 1], "weight": [1], "rows": 1}}},
                 "moe has 2 experts, but 1 number of weight"),
                ({"routing_reference": {"moe": {"share": [1, 1], "row": 1, "rows": 1}}}, "unknown keys")):
            with self.assertRaisesRegex(ValueError, message):
                export(moe, self.path, (12,), **settings)

    def test_a_given_reference_is_kept_whole(self):
        reference = {"moe": {"share": [0.25, 0.75], "weight": [0.5, 0.5], "probability": [0.1, 0.9], "rows": 3}}
        export(named(moe=MoE(experts(2), Gate(nn.Linear(12, 2)))), self.path, (12,), routing_reference=reference)
        self.assertEqual(self.config()["routing_reference"], reference)

    def assert_refused_again(self, moe, reference):
        with self.assertRaisesRegex(ValueError, r"'moe' is not a MoE layer; there are \['moe.a', 'moe.b'\]"):
            export(named(moe=moe), self.path, (12,), routing_reference=reference)

    def test_refusals(self):
        gate = Gate(nn.Linear(12, 2))
        for moe, message in (
                (MoE(experts(2), gate, shared=nn.Linear(12, 5)),
                 r"model.moe.shared: gives \[5\], but the experts \[3\]"),
                (MoE(experts(2), gate, shared=nn.Linear(12, 3), shared_gate=nn.Linear(12, 1)),
                 r"model.moe.shared_gate: is not nn.Linear\(12, 1, bias=False\)"),
                (MultiGateMoE(experts(2), {"a b": gate}), "model.moe.gates.a b: 'a b' is no name"),
                (MultiGateMoE(experts(2), {"a": Gate(nn.Linear(12, 3))}), "model.moe.gates.a: 3 logits for 2 experts"),
                (MultiGateMoE(experts(2), {"a": Gate(nn.RReLU())}), "model.moe.gates.a.layers: RReLU has no")):
            with self.subTest(message):
                self.assert_refused(named(moe=moe), (12,), message)


class MultiTaskTest(ExportCase):
    def model(self):
        gates = {task: Gate(nn.Linear(10, 4)) for task in ("income", "marital")}
        tower = {"income": 0, "marital": 1}
        return trained_like(MultiTask(
            {"numeric": Input((6,), preprocess={"mean": [0.5] * 6, "std": [2.0] * 6}),
             "work.class": Input((1,), categories=9, layers=nn.Embedding(9, 4))},
            named(experts=MultiGateMoE(experts(4, inputs=10), gates)),
            {task: Output(named(pick=modules.Select(index), fc=nn.Linear(3, 2), p=nn.Softmax(dim=-1)), ["no", "yes"])
             for task, index in tower.items()}))

    def rows(self):
        return {"numeric": torch.randn(5, 6), "work.class": torch.tensor([[0.0], [8.0], [3.0], [3.0], [1.0]])}

    def test_inputs_and_outputs_return(self):
        model, rows = self.model(), self.rows()
        export(model, self.path, description="two tasks")
        first = self.files()
        loaded = load(self.path)
        with torch.no_grad():
            expected, got = model(rows), loaded(rows)
        self.assertEqual(list(got), ["income", "marital"])
        for name in expected:
            torch.testing.assert_close(got[name], expected[name])
        self.assert_same_routing(loaded, model)
        export(loaded, self.path, description="two tasks")
        self.assertEqual(self.files(), first)

    def test_they_are_described_as_the_format_says(self):
        export(self.model(), self.path)
        config = self.config()
        self.assertEqual(config["format_version"], 2)
        self.assertEqual(config["inputs"][1], {"name": "work.class", "shape": [1], "categories": 9,
                                               "layers": [{"op": "embedding", "name": "work_class"}]})
        self.assertEqual(config["outputs"][1], {
            "name": "marital", "labels": ["no", "yes"],
            "layers": [{"op": "select", "index": 1}, {"op": "linear", "name": "marital_fc"}, {"op": "softmax"}]})
        self.assertNotIn("input", config)
        self.assertLess({"work_class.weight", "income_fc.weight", "experts.gates.income.0.bias"}, set(self.tensors()))

    def test_one_plain_input_and_output_are_format_1(self):
        model = MultiTask({"x": Input((12,))}, named(moe=MoE(experts(2), Gate(nn.Linear(12, 2)))), {"y": Output()})
        export(model, self.path)
        self.assertEqual(self.config()["format_version"], 1)
        self.assertEqual(self.config()["input"], {"name": "x", "shape": [12]})

    def test_a_sequence_of_tokens(self):
        model = MultiTask({"tokens": Input((7,), categories=20, layers=nn.Embedding(25, 6))},
                          named(position=modules.PositionEmbedding(7, 6), attention=modules.SelfAttention(6, 2)),
                          {"y": Output()})
        export(trained_like(model), self.path)
        tokens = torch.randint(20, (3, 7))
        torch.testing.assert_close(load(self.path)(tokens), model(tokens)["y"])
        self.assertIn("output", self.config())

    def test_refusals(self):
        moe = MoE(experts(2), Gate(nn.Linear(12, 2)))
        for inputs, outputs, message in (
                ({"x": Input((12,), layers=moe)}, {"y": Output()}, "inputs.x: a MoE layer in an input or an output"),
                ({"x": Input((12,))}, {"y": Output(named(moe=moe))}, "outputs.y.moe: a MoE layer in an input"),
                ({"x": Input((12,), layers=nn.RReLU())}, {"y": Output()}, "inputs.x: RReLU has no op"),
                ({"x": Input((1,), categories=9, layers=nn.Embedding(8, 2))}, {"y": Output()},
                 "inputs.x: the table has 8 rows for 9 categories"),
                ({"x": Input((1,), layers=nn.Embedding(8, 2))}, {"y": Output()}, "inputs.x: an embedding looks up"),
                ({"x": Input((1,), categories=9, layers=nn.Embedding(9, 2, max_norm=1))}, {"y": Output()},
                 "inputs.x: max_norm is set")):
            with self.subTest(message):
                self.assert_refused(MultiTask(inputs, nn.Identity(), outputs), None, message)
        self.assert_refused(moe, None, "example_inputs: is NoneType")
        model = MultiTask({"x": Input((12,))}, moe, {"y": Output()})
        self.assert_refused(model, (12,), "model: a MultiTask's inputs and outputs have shapes")
        self.assert_refused(model, None, "model: a MultiTask's inputs and outputs have", labels=["a", "b", "c"])


if __name__ == "__main__":
    unittest.main()
