"""Never silently wrong: what changes a result from outside forward() is folded or refused by its path, what a server
would refuse is refused, and every export ends with a comparison."""

import os
import unittest
from collections import namedtuple
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

import moed
from moed import engine, verify
from moed.nn import AttentiveGate, Gate, MoE
from tests import ENGINE
from tests.export_case import ExportCase, expert, export, named
from tests.test_fx_trace import calling


class Kept:
    def __init__(self, loss):
        self.loss = loss


class Twice(nn.Module):
    """A tuple, a dict or a named tuple, and a loss."""

    def __init__(self, make):
        super().__init__()
        self.trunk, self.head, self.other, self.make = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2), make

    def forward(self, x):
        x = torch.relu(self.trunk(x))
        return self.make(torch.softmax(self.head(x), dim=-1), self.other(x), x.sum())


class OutsideForwardTest(ExportCase):
    def assert_same(self, module, shape=(4,)):
        x = torch.randn(5, *shape)
        with torch.no_grad():
            expected = module.eval()(x)
        export(module, self.path, shape)
        torch.testing.assert_close(moed.load(self.path)(x), expected, rtol=1e-5, atol=1e-6)

    def test_hooks(self):
        for register in (nn.Module.register_forward_hook, nn.Module.register_forward_pre_hook):
            module = named(fc=nn.Linear(4, 4))
            register(module.fc, lambda *given: None)
            self.assert_refused(module, (4,), r"model.fc: a forward hook \(.*lambda>\) may change")

    def test_a_replaced_forward(self):
        module = named(fc=nn.Linear(4, 4))
        module.fc.forward = lambda x: x * 2
        self.assert_refused(module, (4,), "model.fc: its forward was replaced on the instance")

    def test_norms_of_weights_are_folded(self):
        """Right after load_state_dict, when the weight itself is not yet that of the new norms."""
        for wrap in (weight_norm, spectral_norm, parametrizations.spectral_norm, parametrizations.orthogonal):
            with self.subTest(wrap):
                module = nn.Sequential(wrap(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
                module.load_state_dict({name: torch.randn_like(value) for name, value in module.state_dict().items()})
                self.assert_same(module)
                module(torch.randn(1, 4))  # the caller's module still works

    def test_pruning_is_folded(self):
        module = nn.Sequential(nn.Linear(4, 4))
        prune.random_unstructured(module[0], "weight", amount=0.5)
        self.assert_same(module)
        self.assertTrue(prune.is_pruned(module))

    def test_dropout_that_is_always_on(self):
        class Always(nn.Dropout):
            def forward(self, x):
                return functional.dropout(x, 0.5, True)

        class Stubborn(nn.Dropout):
            def train(self, mode=True):
                return super().train(True)
        self.assert_refused(nn.Sequential(nn.Linear(4, 4), Always()), (4,), r"model.1: dropout\(.*drops out in evaluat")
        self.assert_refused(nn.Sequential(nn.Linear(4, 4), Stubborn()), (4,), "model.1: Stubborn stays in training")

    def test_answers_that_are_random(self):
        with mock.patch.object(Gate, "logits", lambda gate, x: torch.rand(len(x), 2)):
            self.assert_refused(MoE([nn.Linear(4, 4), nn.Linear(4, 4)], Gate(nn.Linear(4, 2), top_k=1)), (4,),
                                "model: gives two answers to the same rows")

    def test_noise_between_layers(self):
        noisy = calling(lambda self, x: self.a(x) + torch.randn(4) * self.b(x), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
        self.assert_refused(noisy, (4,), r"model: \w+ gives two answers to the same rows.*behind `if self.training`")

    def test_the_last_of_an_axis_in_brackets(self):
        module = calling(lambda self, x: self.a(x[:, [-1], :]) + self.a(x)[:, [0]], a=nn.Linear(4, 4))
        export(module, self.path, (3, 4))
        slices = [layer for layer in self.config()["layers"] if layer["op"] == "slice"]
        self.assertEqual([(layer.get("start", 0), layer.get("end", 3)) for layer in slices], [(2, 3), (0, 1)])

    def test_the_comparison_itself(self):
        """A translation gone wrong, whatever the reason, is found."""
        from moed import ops
        wrong = ops.OPS["linear"]._replace(
            describe=lambda module, row, path: ({}, {"weight": module.weight * 1.01, "bias": module.bias}))
        with mock.patch.dict(ops.OPS, linear=wrong):
            self.assert_refused(nn.Linear(4, 4), (4,), "model: the checkpoint computes something else than the model: "
                                                       "output 'output' differs by up to .* in 2. of 24 rows")

    def test_inputs_of_any_size_are_compared(self):
        """Numbers around 190,000 beside numbers around 40."""
        settings = {"mean": [1.9e5, 40.0, 2.0], "std": [1e5, 14.0, 2.6]}
        export(nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=-1)), self.path, (3,), preprocess=settings)
        rows = verify.sample_rows({"input": moed.nn.Input((3,), preprocess=settings)})["input"]
        loaded = moed.load(self.path)
        self.assertTrue(verify._steady(loaded, {"input": rows}, {"output": loaded(rows)})[0].all())

    def test_rows_at_an_edge_of_a_choice_are_not_compared(self):
        """All logits are equal for a row of zeros: which experts PyTorch takes then is nobody's promise."""
        model = MoE([nn.Linear(4, 4) for _ in range(4)], Gate(nn.Linear(4, 4, bias=False), top_k=1))
        rows = verify.sample_rows({"input": moed.nn.Input((4,))})["input"]
        export(model, self.path, (4,))
        loaded = moed.load(self.path)
        steady = verify._steady(loaded, {"input": rows}, {"output": loaded(rows)})[0]
        self.assertFalse(steady[0])
        self.assertGreater(steady.sum(), 18)


class WrapperTest(ExportCase):
    def test_parallel_wrappers_and_results_kept_on_the_module(self):
        module = nn.Sequential(nn.DataParallel(nn.Linear(4, 4)), nn.ReLU())
        module.loss = module[0].module(torch.ones(4)).sum()
        module.history = [{"loss": module.loss}]
        export(nn.DataParallel(module), self.path, (4,))
        self.assertEqual([layer["op"] for layer in self.config()["layers"]], ["linear", "relu"])
        self.assertIsNotNone(module.loss.grad_fn)
        export(AveragedModel(nn.Sequential(nn.Linear(4, 4))), self.path, (4,))
        self.assertEqual([layer["op"] for layer in self.config()["layers"]], ["linear"])

    def test_what_cannot_be_copied(self):
        module = nn.Linear(4, 4)
        module.log = open(os.devnull)
        self.addCleanup(module.log.close)
        self.assert_refused(module, (4,), r"model.log: cannot be copied \(TypeError: .*take what is no part of the")
        inner = nn.Sequential(nn.Linear(4, 4))
        inner[0].kept = Kept(inner[0](torch.ones(4)))
        self.assert_refused(nn.Sequential(inner), (4,), r"model.0.0.kept: cannot be copied \(RuntimeError: ")

    def test_a_train_of_its_own_and_arguments_with_defaults(self):
        class Trained(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.drop = nn.Linear(4, 2), nn.Dropout(0.5)

            def train(self, loader, epochs=3):
                raise AssertionError("export does not train")

            def forward(self, t, T=1.0, y=None):
                return torch.softmax(self.drop(self.fc(t)) * T, dim=-1)
        export(Trained(), self.path, (4,))

    def test_several_results(self):
        three = ("a", "b", "loss")
        for make in (lambda a, b, loss: {"a": a, "b": b, "loss": loss}, namedtuple("Result", three)):
            moed.export(Twice(make), torch.zeros(1, 4), self.path, labels={"a": [0, 1, 2]})
            outputs = self.config()["outputs"]
            self.assertEqual([(output["name"], output.get("labels")) for output in outputs],
                             [("a", ["0", "1", "2"]), ("b", None)])
            self.assertEqual([layer["op"] for layer in self.config()["layers"]], ["linear", "relu"])
        moed.export(Twice(lambda *given: given), torch.zeros(1, 4), self.path, output_name=[None, "b", None])
        self.assertEqual(self.config()["output"], {"name": "b"})
        moed.export(Twice(lambda a, b, loss: (a, loss)), torch.zeros(1, 4), self.path)
        self.assertEqual(self.config()["output"], {"name": "output"})
        with self.assertRaisesRegex(moed.ExportError, "model: gives a tuple of 3; name its entries"):
            moed.export(Twice(lambda *given: given), torch.zeros(1, 4), self.path)

    def test_integers_first(self):
        module = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2))
        moed.export(module, torch.zeros(1, 3, dtype=torch.long), self.path)
        self.assertEqual(self.config()["inputs"], [{"name": "input", "shape": [3], "categories": 7,
                                                    "layers": [{"op": "embedding", "name": "0"}]}])
        positions = calling(lambda self, ids: self.words(ids) + self.places(torch.arange(ids.shape[1])),
                            words=nn.Embedding(7, 4), places=nn.Embedding(3, 4))
        moed.export(positions, torch.zeros(1, 3, dtype=torch.long), self.path)
        self.assertEqual(self.config()["inputs"][0]["categories"], 7)
        self.assertEqual(self.config()["layers"], [{"op": "position_embedding", "name": "add"}])
        twice = calling(lambda self, ids: self.a(ids) + self.b(ids), a=nn.Embedding(7, 4), b=nn.Embedding(9, 4))
        with self.assertRaisesRegex(moed.ExportError, "are integers; say with categories=n"):
            moed.export(twice, torch.zeros(1, 3, dtype=torch.long), self.path)

    def test_an_embedding_that_several_layers_read(self):
        def forward(self, ids):
            x = self.words(ids)
            return torch.cat([self.a(x), x, torch.tanh(self.b(x)) * x], -1)
        model = calling(forward, words=nn.Embedding(7, 4), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
        moed.export(model, torch.zeros(1, 3, dtype=torch.long), self.path)
        ids = torch.randint(0, 7, (5, 3))
        torch.testing.assert_close(moed.load(self.path)(ids), model(ids))

    def test_what_to_do_about_integers(self):
        table = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2))
        self.assert_refused(table, (3,), r"model.0: an embedding looks up integers: give integers as example_inputs")
        columns = calling(lambda self, x: torch.cat([self.a(x[:, 0]), self.b(x[:, 1])], 1), a=nn.Embedding(7, 4),
                          b=nn.Embedding(5, 4))
        with self.assertRaisesRegex(moed.ExportError, "columns of categories are inputs of their own"):
            moed.export(columns, torch.zeros(1, 2, dtype=torch.long), self.path, categories=5)
        for wrong in (0, -1, "3", 2.0, 1 << 31):
            with self.subTest(wrong), self.assertRaisesRegex(moed.ExportError, "categories: is .*how many there are"):
                moed.export(table, torch.zeros(1, 3, dtype=torch.long), self.path, categories=wrong)
        with self.assertRaisesRegex(moed.ExportError, "preprocess: of categories, which are no quantities"):
            moed.export(table, torch.zeros(1, 3, dtype=torch.long), self.path, preprocess={"mean": [1.0]})

    def test_a_course_that_depends_on_values_is_blamed_on_its_module(self):
        block = calling(lambda self, x: self.fc(x) if x.sum() > 0 else x, fc=nn.Linear(4, 4))
        outer = calling(lambda self, x: self.block(x), block=block)
        self.assert_refused(outer, (4,), r"model.block: Custom.forward cannot be followed: .*test_honest_export.py:\d+")


class ServerRulesTest(ExportCase):
    """What a server would refuse."""

    def test_rows_without_an_axis(self):
        for function in (lambda self, x: self.fc(x).squeeze(-1), lambda self, x: self.fc(x).view(-1)):
            self.assert_refused(calling(function, fc=nn.Linear(4, 1)), (4,), "gives rows of shape .*have 1 to 6 axes")

    def test_names(self):
        for setting in ({"output_name": "my output"}, {"input_name": ""}, {"output_name": "routing.moe.experts"}):
            self.assert_refused(nn.Linear(4, 4), (4,), "is no name: at most 128", **setting)
        for directory in ("bad+name", "with blank", ".hidden", "stats", "x" * 129):
            with self.assertRaisesRegex(moed.ExportError, "is the model's name on a server"):
                moed.export(nn.Linear(4, 4), torch.zeros(1, 4), os.path.join(self.folder, directory))

    def test_labels_become_texts(self):
        for labels in ([0, 1], np.array(["0", "1"]), np.array([0, 1]), [b"0", "1"], range(2)):
            export(nn.Linear(4, 2), self.path, (4,), labels=labels)
            self.assertEqual(self.config()["output"]["labels"], ["0", "1"])

    def test_arguments_without_an_engine(self):
        """Refused by the package alone: where there is no engine a server would find out."""
        def reference(**entry):
            return {"routing_reference": {"moe": entry}}
        moe = MoE([nn.Linear(4, 2) for _ in range(2)], Gate(nn.Linear(4, 2), top_k=1))
        for settings, message in (
                ({"description": 3}, "description: 3 is no text"),
                ({"description": "a\0"}, "description: .* holds a NUL"),
                ({"labels": ["a", "\ud800"]}, r"labels\[1\]: .* half a character"),
                ({"labels": [b"\xff", "b"]}, r"labels\[0\]: .* half a character"),
                ({"labels": ["a", None]}, "labels: the one of element 1 is None"),
                ({"output_name": "a\ud800"}, "name: .* half a character"),
                ({"preprocess": {"mean": ["a"]}}, r"preprocess: mean is \['a'\]; it must be"),
                ({"preprocess": {"std": [float("nan")]}}, "preprocess: std is .*not finite in float32"),
                ({"preprocess": {"mean": [1e39]}}, "preprocess: mean is .*not finite in float32"),
                ({"preprocess": {"scale": 0}}, "preprocess: scale has a zero"),
                ({"preprocess": [1]}, r"preprocess: \[1\] is no dict"),
                (reference(share=[1, -1], rows=1), "routing_reference: moe: share has a number that is negative"),
                (reference(share=[0, 0], rows=1), "routing_reference: moe: share .* all are 0"),
                (reference(share=[1, 1], rows=0), "routing_reference: moe: 0 rows"),
                (reference(share=[1, 1]), "routing_reference: moe has no rows"),
                ({"routing_reference": [1]}, "is no dict by MoE layer")):
            with self.subTest(settings):
                self.assert_refused(moe, (4,), message, **settings)
        nested = nn.Linear(4, 4)
        for _ in range(17):
            nested = moed.nn.Residual(nested)
        for module, shape, message in (
                (nn.Flatten(), (1,) * 7, "input: rows have the shape .*1 to 6 axes"),
                (nn.Flatten(), (2, 0), "input: rows have the shape .*of no numbers"),
                (nested, (4,), "nested more than 16 deep"), (nn.Softplus(-1), (4,), "beta -1 is not above 0"),
                (nn.Linear(4, 2, device="meta"), (4,), "model.weight: has no values"),
                (calling(lambda self, x: x.clamp(2, 1)), (4,), "min 2 is above max 1")):
            with self.subTest(message):
                self.assert_refused(module, shape, message)

    def test_numbers_may_be_numpys_and_pytorchs(self):
        settings = {"mean": torch.tensor([1.0]), "std": np.float32(2), "scale": np.float64(3)}
        export(moed.nn.Scale(np.float32(0.5)), self.path, (4,), preprocess=settings)
        self.assertEqual(self.config()["input"]["preprocess"], {"mean": [1.0], "std": [2.0], "scale": 3.0})
        export(calling(lambda self, x: x.clamp(0, float("inf"))), self.path, (4,))
        self.assertEqual(self.config()["layers"], [{"op": "clamp", "min": 0}])

    def test_a_link_is_refused_before_anything_is_written(self):
        target = os.path.join(self.folder, "target")
        os.mkdir(target)
        os.symlink(target, self.path)
        with self.assertRaisesRegex(moed.ExportError, "is a symbolic link"):
            export(nn.Linear(4, 4), self.path, (4,))
        self.assertEqual((sorted(os.listdir(self.folder)), os.listdir(target)), (["model", "target"], []))

    def test_what_is_beside_a_checkpoint_stays(self):
        export(nn.Linear(4, 4), self.path, (4,), max_shard_bytes=70)
        os.mkdir(os.path.join(self.path, "evaluation"))
        for name in ("README.md", "evaluation/scores.csv"):
            with open(os.path.join(self.path, name), "w") as file:
                file.write("kept")
        export(nn.Linear(4, 3), self.path, (4,))
        self.assertEqual(sorted(os.listdir(self.path)), ["README.md", "config.json", "evaluation", "model.safetensors"])
        self.assertEqual(os.listdir(os.path.join(self.path, "evaluation")), ["scores.csv"])
        self.assertEqual(os.listdir(self.folder), ["model"])


@unittest.skipIf(ENGINE is None, "no moed: $MOED_BINARY, the PATH and build/release have none")
class EngineTest(ExportCase):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.dict(os.environ, MOED_BINARY=ENGINE))

    def test_the_engine_answers_the_same(self):
        gate = Gate(nn.Linear(12, 4), top_k=2, normalize="sum")
        model = named(stem=nn.Linear(5, 12), moe=MoE([expert() for _ in range(4)], gate))
        with mock.patch("moed.exporter.check_engine", wraps=verify.check_engine) as check:
            for dtype in ("f32", "bf16"):
                export(model, self.path, (5,), dtype=dtype, preprocess={"mean": [9.0], "std": [4.0]})
        self.assertEqual(check.call_count, 2)
        attentive = MoE([expert() for _ in range(3)], AttentiveGate(nn.Linear(12, 8), 8, key_layer="relu"))
        export(attentive, self.path, (12,))

    def test_several_inputs(self):
        inputs = {"numbers": moed.nn.Input((3,)), "job": moed.nn.Input((1,), categories=5, layers=nn.Embedding(5, 2))}
        outputs = {"a": moed.nn.Output(nn.Linear(5, 2)), "b": moed.nn.Output(nn.Linear(5, 1))}
        moed.export(moed.nn.MultiTask(inputs, nn.Sequential(), outputs), None, self.path)

    def test_words_and_missing_values(self):
        job = moed.nn.Input((1,), words=["clerk", "cook", "?"], unknown=2, missing=2, layers=nn.Embedding(3, 2))
        inputs = {"job": job, "age": moed.nn.Input((1,), missing=40.0)}
        moed.export(moed.nn.MultiTask(inputs, nn.Linear(3, 2), {"y": moed.nn.Output()}), None, self.path)
        with engine.Engine(ENGINE, self.folder) as server:
            ask = server.client.infer
            words = ask("model", {"job": [["cook"], ["x"], [None]], "age": [[1], [2], [None]]})["y"]
            plain = ask("model", {"job": [[1], [2], [2]], "age": [[1], [2], [40]]})["y"]
            rows = [{"job": "cook", "age": 1}, {"job": "x", "age": 2}, {}]
            found = server.client.predict("model", rows)["predictions"]
            np.testing.assert_array_equal(np.float32(found), words)
        np.testing.assert_array_equal(words, plain)

    def test_nothing_between_input_and_output(self):
        """The server takes no empty list of layers, wherever there may be one."""
        for module in (nn.Identity(), nn.Sequential(nn.Dropout()), MoE([nn.Identity()] * 2, Gate(nn.Linear(4, 2))),
                       moed.nn.Residual(nn.Identity())):
            export(module, self.path, (4,))

    def test_what_the_engine_refuses_is_not_written(self):
        anything = mock.Mock(fullmatch=lambda name: True)
        with mock.patch("moed.describe.VALID_NAME", anything), mock.patch("moed.config_node.NAME", anything):
            self.assert_refused(named(**{"f c": nn.Linear(4, 4)}), (4,), "model: the server refuses the checkpoint: ")

    def test_an_engine_that_answers_otherwise(self):
        answers = engine.Engine.answers
        with mock.patch.object(engine.Engine, "answers",
                               lambda self, *given: {name: -value for name, value in answers(self, *given).items()}):
            self.assert_refused(nn.Linear(4, 4), (4,), "model: the server computes something else")


if __name__ == "__main__":
    unittest.main()
