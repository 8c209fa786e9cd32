"""The image recipes on a made-up data set of a few hundred images, from IDX files to checkpoints, and their runner."""

import contextlib
import copy
import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import torch
from torch import nn

from moed.layers import Gate, MoE
from moed.loader import load
from recipes import batched_experts, idx, runner, training
from recipes.fashion_mnist import FashionMnist
from recipes.mnist import Mnist
from recipes.normalized import NormalizedGD

ROWS = {"train": 240, "t10k": 60}


class Calls:
    """Its pickle calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def write_idx(path, array):
    with gzip.open(path, "wb") as file:
        file.write(bytes((0, 0, idx.UINT8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes())


def write_data(directory):
    """Ten classes of images: a bright band, at a height that is the class, over noise."""
    rng = np.random.default_rng(0)
    for prefix, rows in ROWS.items():
        labels = np.arange(rows, dtype=np.uint8) % 10
        images = rng.integers(0, 60, size=(rows, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels):
            image[2 * label:2 * label + 5] += 180
        write_idx(os.path.join(directory, f"{prefix}-images-idx3-ubyte.gz"), images)
        write_idx(os.path.join(directory, f"{prefix}-labels-idx1-ubyte.gz"), labels)


def constant_expert(chosen):
    """Predicts one class, whatever the row."""
    layer = nn.Linear(3, 3)
    nn.init.zeros_(layer.weight)
    layer.bias.data = torch.eye(3)[chosen]
    return layer


class EvaluationTest(unittest.TestCase):
    def test_what_is_counted(self):
        # The rows are the gate's logits; at training time the gate would drop nearly all of them.
        moe = MoE([constant_expert(i) for i in (0, 1, 2)], Gate(nn.Dropout(0.99), top_k=2, normalize="sum")).train()
        rows = 50 * torch.eye(3)[[0, 0, 1, 1]] + 20 * torch.eye(3)[[1, 2, 0, 0]]
        labels = torch.tensor([0, 0, 1, 2])
        results = training.evaluate(moe, rows, labels)
        self.assertEqual(results["error"], 0.25)
        self.assertEqual(training.error_of(moe, moe.train(), rows, labels), 0.25)
        self.assertEqual(results["first_choice"], [0.5, 0.5, 0])
        self.assertEqual(results["first_choice_by_class"], [[2, 0, 0], [0, 1, 1], [0, 0, 0]])
        self.assertEqual(results["share"], [4 / 8, 3 / 8, 1 / 8])
        self.assertAlmostEqual(results["gate_entropy_bits"], 0, places=6)
        self.assertAlmostEqual(results["usage_entropy_bits"], 1, places=6)
        self.assertAlmostEqual(results["mutual_information_bits"], 1, places=6)


class StackedTest(unittest.TestCase):
    def results(self, forward, model, images):
        """Output, gate's probabilities and all gradients."""
        model.zero_grad()
        output = forward(images)
        probabilities = model.routing.probabilities if isinstance(model, MoE) else torch.zeros(1)
        (output[:, 3].log().sum() + probabilities.square().sum()).backward()
        return [output, probabilities] + [weight.grad.clone() for weight in model.parameters()]

    def test_is_the_function_of_the_plain_modules(self):
        images = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        images[:, :, :10] = -0.4  # a plain background, where all values of a pooling window are equal
        for recipe in (Mnist(), FashionMnist()):
            for kind in ("single", "moe", "attentive"):
                with self.subTest(recipe=recipe.name, kind=kind):
                    torch.manual_seed(0)
                    model = recipe.build(kind).double()
                    plain = self.results(model, model, images)
                    for fast, expected in zip(self.results(batched_experts.batched(model), model, images), plain):
                        torch.testing.assert_close(fast, expected, rtol=1e-9, atol=1e-12)

    def test_running_statistics_are_those_of_the_plain_modules(self):
        images = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        plain = FashionMnist().build("moe")
        fast = copy.deepcopy(plain)
        plain(images)
        batched_experts.batched(fast)(images)
        torch.testing.assert_close(fast.gate.layers.norm.running_var, plain.gate.layers.norm.running_var)

    def test_other_networks_are_refused(self):
        with self.assertRaisesRegex(ValueError, "3x3 convolution of one channel"):
            batched_experts.batched(nn.Sequential(nn.Conv2d(1, 1, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()))


class NormalizedGDTest(unittest.TestCase):
    def test_an_expert_moves_by_its_gradient_over_the_sum_of_norms(self):
        weight, bias = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
        idle = nn.Parameter(torch.ones(1))
        weight.grad, bias.grad = torch.tensor([3.0, 4.0]), torch.tensor([15.0])
        NormalizedGD([{"params": [weight, bias]}, {"params": [idle]}], lr=0.1).step()
        torch.testing.assert_close(weight.detach(), torch.tensor([-0.1 * 3 / 20, -0.1 * 4 / 20]))
        self.assertAlmostEqual(bias.item(), -0.1 * 15 / 20)
        self.assertEqual(idle.item(), 1)

    def test_momentum_and_decay(self):
        weight = nn.Parameter(torch.tensor([1.0]))
        optimizer = NormalizedGD([{"params": [weight]}], lr=0.1, momentum=0.5, weight_decay=0.2)
        for expected in (1 - 0.1 * 1.2, 0.88 - 0.1 * (0.5 * 1.2 + 1 + 0.2 * 0.88)):
            weight.grad = torch.tensor([7.0])
            optimizer.step()
            self.assertAlmostEqual(weight.item(), expected, places=6)


class FolderCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(torch.use_deterministic_algorithms, False)
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        self.folder = folder.name
        write_data(self.folder)

    def run_recipe(self, *arguments, results="results", recipe=Mnist):
        """The rows that the command prints."""
        options = ["--data", self.folder, "--results", os.path.join(self.folder, results), *arguments]
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
            runner.main(recipe(), options)
        return [json.loads(line) for line in printed.getvalue().splitlines()]


class Interrupted(Exception):
    pass


class RunnerTest(FolderCase):
    SHORT = ("--epochs", "4", "--seeds", "7", "--variant", "moe-similarity")

    def state(self, results):
        return runner.read_state(os.path.join(self.folder, results, "work", "mnist", "moe-similarity-seed7.pt"))

    def interrupt_after(self, epochs):
        """Runs the recipe, saving after every epoch, until it is killed in the one after."""
        seconds, progress = runner.SAVE_SECONDS, runner.Progress.epoch

        def killed(self, job):
            if len(job.history) > epochs:
                raise Interrupted

        runner.SAVE_SECONDS, runner.Progress.epoch = 0, killed
        try:
            with self.assertRaises(Interrupted):
                self.run_recipe(*self.SHORT, results="interrupted")
        finally:
            runner.SAVE_SECONDS, runner.Progress.epoch = seconds, progress

    def test_an_interrupted_run_goes_on_to_the_same_bits(self):
        self.interrupt_after(2)
        self.assertEqual(len(self.state("interrupted")["history"]), 2)
        resumed, = self.run_recipe(*self.SHORT, results="interrupted")
        whole, = self.run_recipe(*self.SHORT, results="whole")
        for name, weight in self.state("whole")["parts"]["model"].items():
            self.assertTrue(torch.equal(weight, self.state("interrupted")["parts"]["model"][name]), name)
        for row in (resumed, whole):
            del row["cpu_seconds"]
        self.assertEqual(resumed, whole)

    def test_a_state_cannot_call_anything(self):
        """Results are passed on, and a pickle may name any function to be called."""
        self.interrupt_after(2)
        path = os.path.join(self.folder, "interrupted", "work", "mnist", "moe-similarity-seed7.pt")
        made = os.path.join(self.folder, "made")
        torch.save({**self.state("interrupted"), "history": Calls(os.mkdir, made)}, path)
        with self.assertRaises(pickle.UnpicklingError):
            self.run_recipe(*self.SHORT, results="interrupted")
        self.assertFalse(os.path.exists(made))

    def test_what_is_there_is_not_run_again(self):
        row, = self.run_recipe(*self.SHORT)
        path = os.path.join(self.folder, "results", "mnist", "moe-similarity-seed7.json")
        self.assertEqual(row, runner.read_json(path))
        self.assertEqual(self.run_recipe(*self.SHORT), [])
        os.remove(path)
        again, = self.run_recipe(*self.SHORT)  # from the kept state: measured, not trained
        self.assertEqual(again, row)

    def test_several_variants_and_seeds(self):
        rows = self.run_recipe("--epochs", "1", "--seeds", "0", "1", "--variant", "single", "moe")
        self.assertEqual([(row["variant"], row["seed"]) for row in rows],
                         [("single", 0), ("moe", 0), ("single", 1), ("moe", 1)])

    def test_missing_data_says_how_to_get_it(self):
        process = subprocess.run([sys.executable, "-m", "recipes.fashion_mnist", "--variant", "moe", "--data",
                                  "/nowhere", "--results", self.folder], capture_output=True, text=True)
        self.assertEqual(process.returncode, 1)
        self.assertIn("/nowhere/train-images-idx3-ubyte.gz is missing. Install it with `apt-get install "
                      "dataset-fashion-mnist`", process.stderr)


class CheckpointTest(FolderCase):
    def export(self, variant, *arguments, recipe=Mnist):
        """(checkpoint directory, row)"""
        out = os.path.join(self.folder, variant)
        rows = self.run_recipe("--variant", variant, "--epochs", "2", "--seeds", "0", "--out", out, *arguments,
                               recipe=recipe)
        return out, rows[-1]

    def test_a_distilled_model_keeps_its_teachers_experts(self):
        student, row = self.export("distilled-similarity", "--dtype", "f32")
        teacher, _ = self.export("teacher-similarity", "--dtype", "f32")
        taught, kept = load(teacher).layers.moe.experts.state_dict(), load(student).layers.moe.experts.state_dict()
        for name, tensor in taught.items():
            self.assertTrue(torch.equal(tensor, kept[name]), name)
        self.assertEqual(load(student).layers.moe.gate.top_k, 2)
        self.assertIsNone(load(teacher).layers.moe.gate.top_k)
        self.assertEqual(set(row) & {"test_error_top1", "test_error_top2"}, {"test_error_top1", "test_error_top2"})

    def test_the_card_is_of_the_stored_weights(self):
        out, row = self.export("moe", "--dtype", "bf16", "--top-k", "1", recipe=FashionMnist)
        model = load(out)
        images, labels = FashionMnist().read(self.folder, "moe")["test"]
        results = training.evaluate(model.layers.moe, images, labels)
        reference = model.config["routing_reference"]["moe"]
        self.assertEqual((reference["share"], reference["rows"]), (results["share"], 60))
        self.assertEqual(list(reference), ["share", "weight", "probability", "rows"])
        with open(os.path.join(out, "README.md"), encoding="utf-8") as file:
            card = file.read()
        self.assertIn(f"| Test accuracy | {100 * (1 - results['error']):.2f} %", card)
        self.assertIn("| Experts | 5, 1 per row |", card)
        self.assertIn(f"| Made by | `python3 -m recipes.fashion_mnist --data {self.folder}", card)
        self.assertIn(f"| Training accuracy | {100 * (1 - row['train_error']):.2f} % |", card)

    def test_every_variant_of_every_recipe_trains_and_exports(self):
        for recipe in (Mnist, FashionMnist):
            out = os.path.join(self.folder, recipe.name)
            rows = self.run_recipe("--epochs", "1", "--seeds", "0", "--out", out, recipe=recipe)
            self.assertEqual(len(rows), len(recipe.table))
            for variant in recipe.table:
                load(os.path.join(out, f"{variant}-seed0"))

    def test_training_learns(self):
        row, = self.run_recipe("--variant", "attentive-importance", "--epochs", "60", "--seeds", "0",
                               recipe=FashionMnist)
        self.assertLess(row["test_error"], 0.5)


if __name__ == "__main__":
    unittest.main()
