"""Clusters: the distribution, and the story of arXiv 2208.02813 on data of its own size."""

import contextlib
import io
import os
import tempfile
import unittest

import numpy as np
import torch

from moed.loader import load
from recipes import clusters, runner


class DataTest(unittest.TestCase):
    def setUp(self):
        self.setting = clusters.SETTINGS["s3"]
        rng = np.random.default_rng(1)
        self.vectors = clusters.orthonormal(rng)
        self.rows = clusters.draw(rng, self.vectors, self.setting, 2000)
        # (rows, patches, vectors): how much of every signal and centre is in every patch.
        self.parts = self.rows.x.reshape(-1, 4, 50).numpy() @ self.vectors.T / 10

    def test_signals_and_centres_are_orthonormal(self):
        np.testing.assert_allclose(self.vectors @ self.vectors.T, np.eye(8), atol=1e-12)

    def test_a_row_has_its_clusters_centre_and_signal(self):
        rows = np.arange(2000)
        cluster, sign = self.rows.clusters.numpy(), 2 * self.rows.labels.numpy() - 1
        centre = self.parts[rows, :, 4 + cluster].max(axis=1)
        self.assertTrue(((centre > 0.99) & (centre < 2.01)).all())
        signal = sign[:, None] * self.parts[rows, :, cluster]
        own = signal[rows, np.abs(signal).argmax(axis=1)]
        self.assertTrue(((own > 0.49) & (own < 2.01)).all())

    def test_another_clusters_signal_has_a_sign_of_its_own(self):
        others = self.parts[:, :, :4].copy()
        others[np.arange(2000), :, self.rows.clusters.numpy()] = 0
        flat = others.reshape(2000, -1)
        strongest = flat[np.arange(2000), np.abs(flat).argmax(axis=1)]
        agreement = np.mean(np.sign(strongest) == 2 * self.rows.labels.numpy() - 1)
        self.assertAlmostEqual(agreement, 0.5, delta=0.05)
        self.assertTrue(((np.abs(strongest) > 0.49) & (np.abs(strongest) < 2.01)).all())

    def test_patches_are_shuffled(self):
        place = self.parts[:, :, 4:].max(axis=2).argmax(axis=1)
        for share in np.bincount(place, minlength=4) / 2000:
            self.assertAlmostEqual(share, 0.25, delta=0.05)

    def test_the_same_every_time(self):
        self.assertTrue(torch.equal(clusters.data_of("s1", 10)["test"].x, clusters.data_of("s1", 10)["test"].x))


class TheoremTest(unittest.TestCase):
    """Setting 1 of the paper, whole: 16,000 rows."""

    @classmethod
    def setUpClass(cls):
        threads = torch.get_num_threads()
        cls.addClassCleanup(torch.set_num_threads, threads)
        cls.addClassCleanup(torch.use_deterministic_algorithms, False)
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)

    def train(self, variant, epochs):
        """(row, checkpoint directory)"""
        results, out = os.path.join(self.folder.name, "results"), os.path.join(self.folder.name, variant)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runner.main(clusters.Clusters(), ["--variant", variant, "--seeds", "0", "--epochs", str(epochs),
                                              "--results", results, "--out", out, "--dtype", "f32"])
        return runner.read_json(os.path.join(results, "clusters", f"{variant}-seed0.json")), out

    def test_one_expert_fails(self):
        row, _ = self.train("s1-single-nonlinear", 300)
        self.assertLess(row["train_error"], 0.25)
        self.assertGreater(row["test_error"], 0.125)

    def test_a_mixture_finds_the_clusters(self):
        row, directory = self.train("s1-moe-nonlinear", 200)
        self.assertLess(row["test_error"], 0.03)
        self.assertLess(row["noisy_test_error"], 0.03)
        self.assertLess(row["dispatch_entropy_nats"], 0.3)
        model, test = load(directory), clusters.data_of("s1")["test"]
        self.assertAlmostEqual(clusters.error_on(model, test), row["test_error"], delta=1e-3)


if __name__ == "__main__":
    unittest.main()
