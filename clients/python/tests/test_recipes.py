"""The Fashion-MNIST recipe on a made-up data set of a few hundred images, from IDX files to checkpoints."""

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import torch
from torch import nn

from moed.layers import Gate, MoE
from moed.load import load
from moed.recipes import fashion_mnist, idx, training

ROWS = {"train": 240, "t10k": 60}


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
        results = training.evaluate(moe, rows, torch.tensor([0, 0, 1, 2]))
        self.assertEqual(results["error"], 0.25)
        self.assertEqual(results["first_choice"], [0.5, 0.5, 0])
        self.assertEqual(results["share"], [4 / 8, 3 / 8, 1 / 8])
        self.assertAlmostEqual(results["gate_entropy_bits"], 0, places=6)
        self.assertAlmostEqual(results["usage_entropy_bits"], 1, places=6)
        self.assertAlmostEqual(results["mutual_information_bits"], 1, places=6)


class RecipeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(torch.use_deterministic_algorithms, False)
        self.folder = folder.name
        write_data(self.folder)

    def run_recipe(self, name, *arguments):
        """(checkpoint directory, results row) of a run."""
        out = os.path.join(self.folder, name)
        options = fashion_mnist.parse(["--data", self.folder, "--epochs", "2", "--out", out, *arguments])
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
            fashion_mnist.run(options, "the command")
        return out, json.loads(printed.getvalue())

    def test_attentive_then_distilled(self):
        teacher, row = self.run_recipe("teacher", "--model", "attentive")
        self.assertEqual(row["top_k"], 5)
        with open(os.path.join(teacher, "README.md"), encoding="utf-8") as file:
            card = file.read()
        self.assertIn("| Made by | `the command` |", card)
        self.assertIn(f"| Training accuracy | {100 * (1 - row['train_error']):.2f} % |", card)

        student, row = self.run_recipe("student", "--model", "distilled", "--teacher", teacher, "--top-k", "2")
        self.assertEqual(row["top_k"], 2)
        taught, kept = load(teacher).layers.moe.experts.state_dict(), load(student).layers.moe.experts.state_dict()
        for name, tensor in taught.items():
            self.assertTrue(torch.equal(tensor, kept[name]), name)

    def test_the_same_seed_gives_the_same_weights(self):
        contents = []
        for name in ("one", "two"):
            out, _ = self.run_recipe(name, "--model", "plain", "--gate", "light", "--seed", "7")
            with open(os.path.join(out, "model.safetensors"), "rb") as file:
                contents.append(file.read())
        self.assertEqual(contents[0], contents[1])

    def test_the_routing_reference_is_that_of_the_stored_weights(self):
        out, row = self.run_recipe("model", "--model", "plain", "--gate", "light", "--dtype", "bf16")
        images, labels = fashion_mnist.read_data(self.folder)["test"]
        model = load(out)
        moe = model.layers.moe
        results = training.evaluate(moe, fashion_mnist.preprocess(images, fashion_mnist.PREPROCESS), labels)
        reference = model.config["routing_reference"]["moe"]
        self.assertEqual(reference, {"share": results["share"], "rows": 60})
        self.assertEqual(row["test_error"], results["error"])

    def test_training_learns(self):
        _, row = self.run_recipe("learned", "--model", "plain", "--gate", "light", "--epochs", "40")
        self.assertLess(row["test_error"], 0.5)

    def test_missing_data_says_how_to_get_it(self):
        process = subprocess.run([sys.executable, "-m", "moed.recipes.fashion_mnist", "--model", "plain", "--data",
                                  "/nowhere"], capture_output=True, text=True)
        self.assertEqual(process.returncode, 1)
        self.assertIn("/nowhere/train-images-idx3-ubyte.gz is missing. Install it with `apt-get install "
                      "dataset-fashion-mnist`", process.stderr)


if __name__ == "__main__":
    unittest.main()
