"""The census recipe on made-up rows: reading, training, the checkpoint of two tasks."""

import contextlib
import gzip
import io
import os
import random
import tempfile
import unittest

import torch

from moed.loader import load
from recipes import adult, runner

HEADER = ", ".join(adult.COLUMNS[:-1]) + ", Y\n"
PERSON = "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, " \
         "United-States, <=50K"
WOMAN = "52, ?, 1, 9th, 5, Divorced, ?, Unmarried, Black, Female, 0, 3, 20, ?, >50K."


def made_up(rows, seed):
    """Old people earn more; young ones never married."""
    chance, lines = random.Random(seed), []
    for _ in range(rows):
        cells = PERSON.split(", ")
        age = chance.randrange(18, 80)
        cells[0], cells[5] = str(age), "Never-married" if age < 35 else "Divorced"
        cells[4], cells[12] = str(chance.randrange(1, 17)), str(chance.randrange(10, 60))
        cells[10], cells[11] = str(chance.randrange(9)), str(chance.randrange(9))
        cells[14] = ">50K" if age > 50 else "<=50K"
        lines.append(", ".join(cells))
    return lines


class AdultTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(torch.use_deterministic_algorithms, False)
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        self.folder = folder.name

    def write(self, train, test):
        with gzip.open(os.path.join(self.folder, "adult.data.gz"), "wt") as file:
            file.write(HEADER + "\n".join(train) + "\n\n")
        with open(os.path.join(self.folder, "adult.test"), "w", encoding="ascii") as file:
            file.write("|1x3 Cross validator\n" + "\n".join(test) + "\n")

    def test_reading(self):
        self.write([PERSON], [PERSON, WOMAN])
        inputs, labels = adult.Adult().read(self.folder, "mmoe")["test"]
        self.assertEqual(inputs["numeric"].tolist(), [[39, 13, 2174, 0, 40], [52, 5, 0, 3, 20]])
        self.assertEqual(inputs["workclass"].tolist(), [[5], [8]])
        self.assertEqual(inputs["sex"].tolist(), [[1], [0]])
        self.assertEqual(inputs["native-country"].tolist(), [[0], [41]])
        self.assertEqual(labels["income"].tolist(), [0, 1])
        self.assertEqual(labels["never_married"].tolist(), [1, 0])

    def test_every_variant_learns_and_is_served_as_trained(self):
        self.write(made_up(2000, 1), made_up(300, 2))
        for variant in adult.KINDS:
            with self.subTest(variant):
                out = os.path.join(self.folder, variant)
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    runner.main(adult.Adult(), [
                        "--data", self.folder, "--results", self.folder, "--out", out, "--dtype", "f32", "--variant",
                        variant, "--seeds", "0", "--epochs", "50"])
                row = runner.read_json(os.path.join(self.folder, "adult", f"{variant}-seed0.json"))
                inputs, labels = adult.Adult().read(self.folder, variant)["test"]
                stored = adult.figures(load(out), inputs, labels, "test")
                for task in adult.TASKS:
                    self.assertGreater(stored[f"test_auc_{task}"], 0.9)
                    self.assertAlmostEqual(stored[f"test_auc_{task}"], row[f"test_auc_{task}"], places=6)


if __name__ == "__main__":
    unittest.main()
