"""Regularisers against their definitions, sum by sum."""

import unittest

import numpy as np
import torch

from moed import losses


def some_probabilities(rows=12, count=5):
    generator = torch.Generator().manual_seed(3)
    return torch.softmax(torch.randn(rows, count, generator=generator, dtype=torch.float64) * 2, dim=-1)


class ImportanceTest(unittest.TestCase):
    def test_is_the_unbiased_squared_coefficient_of_variation(self):
        p = some_probabilities()
        importance = p.sum(dim=0).numpy()
        self.assertAlmostEqual(losses.importance_loss(p).item(), (importance.std(ddof=1) / importance.mean()) ** 2)

    def test_even_use_costs_nothing(self):
        self.assertAlmostEqual(losses.importance_loss(torch.full((8, 4), 0.25)).item(), 0)

    def test_balance_loss_is_the_biased_one_over_the_experts(self):
        p = some_probabilities()
        importance, count = p.sum(dim=0).numpy(), p.shape[1]
        biased = importance.var() / importance.mean() ** 2
        self.assertAlmostEqual(losses.balance_loss(p).item(), biased / count)
        self.assertAlmostEqual(losses.balance_loss(p).item(),
                               losses.importance_loss(p).item() * (count - 1) / count ** 2)


class SampleSimilarityTest(unittest.TestCase):
    def setUp(self):
        self.p = some_probabilities()
        x = torch.randn(12, 1, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        self.x, self.distance = x, losses.pairwise_distance(x)

    def test_distances_are_euclidean_over_their_maximum(self):
        flat = self.x.flatten(1).numpy()
        expected = np.sqrt(((flat[:, None] - flat[None]) ** 2).sum(-1))
        np.testing.assert_allclose(self.distance.numpy(), expected / expected.max(), atol=1e-7)
        self.assertEqual(self.distance.diagonal().abs().max().item(), 0)

    def test_equal_rows_do_not_divide_by_zero(self):
        self.assertEqual(losses.pairwise_distance(torch.ones(3, 4)).sum().item(), 0)

    def sums(self):
        """S and R of the definition, with plain loops."""
        p, d = self.p.numpy(), self.distance.numpy()
        rows, count = p.shape
        same = different = 0.0
        for a in range(rows):
            for b in range(rows):
                for i in range(count):
                    for j in range(count):
                        term = p[a, i] * p[b, j] * d[a, b]
                        if i == j:
                            same += term / count
                        else:
                            different += term / (count ** 2 - count)
        return same, different

    def test_the_published_code_divides_only_the_second_term(self):
        same, different = self.sums()
        loss = losses.sample_similarity_loss(self.p, self.distance, 0.3, 0.7)
        self.assertAlmostEqual(loss.item(), 0.3 * same - 0.7 * different / 144)

    def test_both_terms_divided(self):
        same, different = self.sums()
        loss = losses.sample_similarity_loss(self.p, self.distance, 0.3, 0.7, divide="both")
        self.assertAlmostEqual(loss.item(), (0.3 * same - 0.7 * different) / 144)

    def test_grouping_alike_rows_costs_less_than_mixing_them(self):
        x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        distance = losses.pairwise_distance(x)
        alike = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
        mixed = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
        self.assertLess(losses.sample_similarity_loss(alike, distance, 1, 1),
                        losses.sample_similarity_loss(mixed, distance, 1, 1))


if __name__ == "__main__":
    unittest.main()
