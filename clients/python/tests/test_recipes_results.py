"""RESULTS.md from stored rows."""

import json
import os
import tempfile
import unittest

from recipes import published, results


def mixture_row(variant, seed, train_error, test_error):
    return {"recipe": "mnist", "variant": variant, "seed": seed, "train_error": train_error, "test_error": test_error,
            "mutual_information_bits": 2.0, "gate_entropy_bits": 0.1, "usage_entropy_bits": 2.25, "cpu_seconds": 60,
            "test_error_top1": 0.05, "test_error_top2": 0.04}


class ResultsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def put(self, recipe, *rows):
        os.makedirs(os.path.join(self.folder, recipe), exist_ok=True)
        for row in rows:
            name = f"{row['variant']}-seed{row['seed']}.json"
            with open(os.path.join(self.folder, recipe, name), "w", encoding="utf-8") as file:
                json.dump(row, file)

    def written(self):
        path = os.path.join(self.folder, "RESULTS.md")
        results.write(self.folder, path, None)
        with open(path, encoding="utf-8") as file:
            return file.read()

    def test_published_figures_stand_beside_ours(self):
        self.put("mnist", mixture_row("moe", 0, 0.02, 0.04), mixture_row("moe", 1, 0.03, 0.03))
        text = self.written()
        self.assertIn("| mixture | 0.021 / 0.038 | 0.020 / 0.040 | 0.034 ± 0.013 / 0.044 ± 0.009 | "
                      "0.025 ± 0.007 / 0.035 ± 0.007 | 2 | 60 |  |", text)
        self.assertIn("| mixture | 2.02 / 1.61 ± 0.40 / 2.00 ± 0.00 | 0.09 / 0.14 ± 0.10 / 0.10 ± 0.00 |", text)
        self.assertIn("| mixture | 0.035 ± 0.007 | 0.040 ± 0.000 | 0.050 ± 0.000 |", text)
        self.assertNotIn("Fashion-MNIST", text)

    def test_what_differs_beyond_the_spread_is_bold(self):
        self.put("mnist", mixture_row("moe", 0, 0.08, 0.090), mixture_row("moe", 1, 0.08, 0.094))
        self.assertIn("| **0.080 ± 0.000** / **0.092 ± 0.003** |", self.written())

    def test_one_run_is_no_evidence(self):
        self.put("mnist", mixture_row("moe", 0, 0.08, 0.09))
        self.assertIn("| 0.080 / 0.090 | 1 |", self.written())

    def test_the_reading_stands_beside_attention(self):
        self.put("mnist", mixture_row("attentive", 0, 0.08, 0.09))
        self.assertIn("| 0.080 / 0.090 | 1 | 60 | keys before, query before |", self.written())

    def test_cifar(self):
        row = {"seed": 0, "epochs": 4, "train_error": 0.1, "test_error": 0.25, "best_test_error": 0.2}
        routing = {"expert_test_errors": [0.5, 0.24], "dispatch_entropy_nats": 2.2, "share": [0.25, 0.75]}
        self.put("cifar10", {**row, **routing, "variant": "moe-cnn-sgd", "of_epochs": 9})
        self.put("cifar10_rotate", {**row, "variant": "single-resnet18-sgd", "test_error_treated": 0.05},
                 {**row, **routing, "variant": "moe-resnet18-ngd-rows", "test_error_treated": 0.05})
        text = self.written()
        self.assertIn("| CIFAR-10, cnn, moe, sgd |  | 80.00 | 75.00 |  | 90.00 | 76.00 | 2.200 | 25 75 | 4 of 9 | 1 |",
                      text)
        self.assertIn("| Rotate, resnet18, single, sgd | 88.23 ± 0.96 | 80.00 | 75.00 | 95.00 | 90.00 |", text)
        self.assertIn("| Rotate, resnet18, moe, ngd, rows |  | 80.00 |", text)

    def test_clusters(self):
        row = {"variant": "s1-moe-nonlinear", "seed": 0, "train_error": 0.0, "test_error": 0.01, "cpu_seconds": 20,
               "noisy_test_error": 0.02, "noisy_dispatch_entropy_nats": 0.05}
        self.put("clusters", row)
        self.assertIn("| 1, moe, nonlinear | 99.46 ± 0.55 | 99.46 ± 0.55 | 98.00 | 99.00 | 100.00 | 0.098 ± 0.088 | "
                      "0.050 | 1 | 20 |", self.written())

    def test_notes_are_taken_over(self):
        self.put("mnist", mixture_row("moe", 0, 0.02, 0.04))
        with open(os.path.join(self.folder, "mnist", "notes.md"), "w", encoding="utf-8") as file:
            file.write("A measured reason.\n")
        self.assertIn("\nA measured reason.\n", self.written())

    def test_every_published_variant_is_one_of_the_recipe(self):
        self.assertLessEqual(set(published.MNIST), set(results.Mnist.table))
        self.assertLessEqual(set(published.FASHION_MNIST), set(results.FashionMnist.table))


if __name__ == "__main__":
    unittest.main()
