"""Regularisers against their definitions, sum by sum."""

import math
import unittest

import numpy as np
import torch
from torch import nn

from moed import losses
from moed.layers import Gate, MoE
from moed.noise import GaussianNoise


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
        np.testing.assert_allclose(losses.pairwise_distance(self.x, scaled=False).numpy(), expected, atol=1e-6)
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


class SwitchTest(unittest.TestCase):
    def test_even_use_costs_one(self):
        p, experts = torch.full((8, 4), 0.25), (torch.arange(8) % 4).unsqueeze(1)
        self.assertAlmostEqual(losses.switch_loss(p, experts).item(), 1)

    def test_even_use_of_two_choices_costs_two(self):
        p = torch.full((8, 4), 0.25)
        first = torch.arange(8) % 4
        self.assertAlmostEqual(losses.switch_loss(p, torch.stack([first, (first + 1) % 4], dim=1)).item(), 2)

    def test_by_hand(self):
        p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
        # f = (2/3, 1/3, 0), P = (1.3, 1.1, 0.6) / 3
        first = p.argmax(dim=1, keepdim=True)
        self.assertAlmostEqual(losses.switch_loss(p, first).item(), 3 * (2.6 + 1.1) / 9, places=6)

    def test_the_gradient_is_the_share_of_choices(self):
        p = torch.full((2, 2), 0.5, requires_grad=True)
        losses.switch_loss(p, torch.tensor([[0], [0]])).backward()
        self.assertEqual(p.grad.tolist(), [[1, 0], [1, 0]])


class ZLossTest(unittest.TestCase):
    def test_by_hand(self):
        logits = torch.tensor([[0.0, 0.0], [math.log(3), math.log(5)]])
        self.assertAlmostEqual(losses.z_loss(logits).item(), (math.log(2) ** 2 + math.log(8) ** 2) / 2, places=6)


def phi(z):
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


class NoisyTopKTest(unittest.TestCase):
    def test_cv_squared_is_of_the_population(self):
        self.assertAlmostEqual(losses.cv_squared(torch.tensor([1.0, 3.0])).item(), 0.25)

    def test_load_by_hand(self):
        clean, noisy = torch.tensor([[1.0, 0.0, 0.2]]), torch.tensor([[0.9, 0.4, 0.1]])
        deviation = torch.tensor([[0.5, 1.0, 2.0]])
        # Top 2: those selected must exceed the third, 0.1; the third must exceed the second, 0.4.
        expected = [phi((1.0 - 0.1) / 0.5), phi((0.0 - 0.1) / 1.0), phi((0.2 - 0.4) / 2.0)]
        for got, want in zip(losses.expected_load(clean, noisy, deviation, 2).tolist(), expected):
            self.assertAlmostEqual(got, want, places=6)

    def test_load_is_the_expected_number_of_rows(self):
        """Against counting, with one expert's noise drawn anew 20,000 times."""
        generator = torch.Generator().manual_seed(5)
        clean = torch.randn(1, 4, generator=generator)
        deviation, draws = torch.full((1, 4), 0.7), 20000
        noisy = clean + 0.7 * torch.randn(1, 4, generator=generator)
        for expert in range(4):
            again = noisy.repeat(draws, 1)
            again[:, expert] = clean[0, expert] + 0.7 * torch.randn(draws, generator=generator)
            share = (again.topk(2, dim=1).indices == expert).any(dim=1).float().mean().item()
            self.assertAlmostEqual(losses.expected_load(clean, noisy, deviation, 2)[expert].item(), share, delta=0.015)

    def layer(self, spread):
        """Two experts, top-1; the gate prefers expert 0 by `spread`."""
        gate = Gate(nn.Linear(2, 2, bias=False), top_k=1, normalize="softmax", noise=GaussianNoise(nn.Linear(2, 2)))
        gate.layers.weight.data = torch.tensor([[spread, 0.0], [0.0, 0.0]])
        return MoE([nn.Linear(2, 1) for _ in range(2)], gate).train()

    def test_a_layer_in_training(self):
        torch.manual_seed(0)
        moe = self.layer(50.0)
        moe(torch.ones(6, 2))
        # Expert 0 gets all six rows with weight 1: importance and load are (6, 0), CV^2 1 each.
        self.assertAlmostEqual(losses.noisy_top_k_loss(moe).item(), 2, places=4)

    def test_it_trains_the_gate_towards_even_use(self):
        torch.manual_seed(0)
        moe = self.layer(0.5)
        moe(torch.ones(64, 2))
        losses.noisy_top_k_loss(moe).backward()
        gradient = moe.gate.layers.weight.grad
        self.assertGreater(gradient[0, 0].item(), 0)
        self.assertLess(gradient[1, 0].item(), 0)


if __name__ == "__main__":
    unittest.main()
