"""Models of several inputs and outputs, and the wiring of CGC and PLE."""

import os
import runpy
import tempfile
import unittest

import numpy as np
import torch
from torch import nn

from moed.layers import Gate
from moed.loader import load
from moed.multitask import Input, MultiTask, Output, cgc, ple
from tests.export_case import ExportCase, export, trained_like

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../examples")


class MultiTaskTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model = MultiTask({"image": Input((1, 2, 2), preprocess={"scale": 0.5, "mean": [1.0], "std": [4.0]}),
                                "word": Input((3,), categories=5, layers=nn.Embedding(5, 2))},
                               nn.Linear(10, 4), {"y": Output(), "z": Output(nn.Tanh())})
        self.rows = {"image": torch.rand(6, 1, 2, 2) * 9, "word": torch.randint(5, (6, 3))}

    def test_inputs_are_prepared_and_stand_side_by_side(self):
        answers = self.model(self.rows)
        image = ((self.rows["image"] * 0.5 - 1.0) / 4.0).flatten(1)
        words = self.model.inputs[1].layers(self.rows["word"]).flatten(1)
        expected = self.model.layers(torch.cat([image, words], dim=1))
        torch.testing.assert_close(answers["y"], expected)
        torch.testing.assert_close(answers["z"], torch.tanh(expected))

    def test_categories_of_any_type(self):
        for dtype in (torch.float32, torch.int32, torch.uint8):
            answers = self.model({**self.rows, "word": self.rows["word"].to(dtype)})
            torch.testing.assert_close(answers["y"], self.model(self.rows)["y"])

    def test_one_input_needs_no_name_and_keeps_its_shape(self):
        model = MultiTask({"x": Input((2, 3))}, nn.Linear(3, 1), {"y": Output()})
        self.assertEqual(model(torch.rand(4, 2, 3))["y"].shape, (4, 2, 1))

    def test_inputs_must_be_those_of_the_model(self):
        with self.assertRaisesRegex(ValueError, r"the inputs are \['image', 'word'\], not \['image'\]"):
            self.model({"image": self.rows["image"]})

    def test_categories_are_no_quantities(self):
        with self.assertRaisesRegex(ValueError, "they take no preprocess"):
            Input((1,), categories=3, preprocess={"scale": 2})


class OwnPartsTest(ExportCase):
    def test_inputs_layers_and_outputs_may_be_the_callers_own(self):
        class Words(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(7, 4)

            def forward(self, x):
                return self.table(x.long()).mean(1)

        class Trunk(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(6, 6)

            def forward(self, x):
                return x + torch.relu(self.fc(x))

        model = trained_like(MultiTask({"x": Input((2,)), "words": Input((3,), categories=7, layers=Words())}, Trunk(),
                                       {"y": Output(Trunk()), "z": Output()}))
        export(model, self.path)
        self.assertLess({"words_table.weight", "fc.weight", "y_fc.weight"}, set(self.tensors()))
        rows = {"x": torch.randn(3, 2), "words": torch.randint(7, (3, 3))}
        with torch.no_grad():
            for name, answer in load(self.path)(rows).items():
                torch.testing.assert_close(answer, model(rows)[name])


class ExtractionTest(unittest.TestCase):
    def gate(self, count):
        return Gate(nn.Linear(4, count))

    def test_a_level_of_gates_and_experts(self):
        level = cgc(lambda: nn.Linear(4, 4), self.gate, ["a", "b"], specific=2, shared=1, stacked=True, last=False)
        self.assertEqual(level.gate_experts, {"a": [0, 1, 4], "b": [2, 3, 4], "shared": [0, 1, 2, 3, 4]})
        self.assertEqual(level.gate_inputs, {"a": 0, "b": 1, "shared": 2})
        self.assertEqual(level.expert_inputs, [0, 0, 1, 1, 2])
        self.assertEqual(level(torch.randn(5, 3, 4)).shape, (5, 3, 4))

    def test_levels_on_each_other(self):
        model = ple(lambda level: nn.Linear(4, 4), lambda level, count: self.gate(count), ["a", "b", "c"],
                    specific=1, shared=2, levels=3)
        y = model(torch.randn(5, 4))
        self.assertEqual(y.shape, (5, 3, 4))
        y.square().sum().backward()
        self.assertTrue(all(weight.grad is not None for weight in model.parameters()))

    def test_one_level_reads_the_row_itself(self):
        level = ple(lambda level: nn.Linear(4, 2), lambda level, count: self.gate(count), ["a", "b"], 1, 1, levels=1)[0]
        x = torch.randn(3, 4)
        y = level(x)
        for task, own in ((0, 0), (1, 1)):
            name = ["a", "b"][task]
            p = torch.softmax(level.gates[name].layers(x), dim=-1)
            expected = p[:, :1] * level.experts[own](x) + p[:, 1:] * level.experts[2](x)
            torch.testing.assert_close(y[:, task], expected)


class ExamplesTest(unittest.TestCase):
    def test_they_export_what_they_say(self):
        with tempfile.TemporaryDirectory() as folder:
            before = os.getcwd()
            os.chdir(folder)
            self.addCleanup(os.chdir, before)
            for example, directory in (("export_my_model", "my-model"), ("vision_moe", "vision-moe"),
                                       ("multi_task", "multi-task")):
                with self.subTest(example):
                    runpy.run_path(os.path.join(EXAMPLES, example + ".py"))
                    model = load(directory)
                    rows = {name: np.zeros((2, *entry.shape), np.float32) for name, entry in
                            zip(model.input_names, model.inputs)}
                    model({name: torch.from_numpy(values) for name, values in rows.items()})
            os.chdir(before)


if __name__ == "__main__":
    unittest.main()
