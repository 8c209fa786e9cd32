"""Format 2's routing against formulas written out in plain Python, item by item; and noise."""

import math
import unittest

import torch
from torch import nn

from moed.gates import Gate
from moed.layers import MoE
from moed.noise import GaussianNoise, InputJitter, UniformNoise


def fixed_gate(**policy):
    """A gate whose input is its logits."""
    return Gate(nn.Identity(), **policy)


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def best(values, allowed):
    return min(allowed, key=lambda index: (-values[index], index))


def sparsemixer(logits, jitter):
    """(experts, weights) of one item, as core/CHECKPOINT.md words it."""
    left, experts, weights = list(range(len(logits))), [], []
    for _ in range(2):
        first = best(logits, left)
        rivals = [i for i in left if (logits[first] - logits[i]) / max(abs(logits[i]), logits[first]) <= 2 * jitter]
        experts.append(first)
        weights.append(softmax([logits[i] for i in rivals])[rivals.index(first)])
        left.remove(first)
    return experts, weights


class GroupsTest(unittest.TestCase):
    LOGITS = torch.tensor([[0.9, 0.1, 0.6, 0.5, 0.7, 0.2]])  # groups of two: 1.0, 1.1, 0.9; bests 0.9, 0.6, 0.7

    def chosen(self, **groups):
        return fixed_gate(score="none", top_k=2, groups=groups).route(self.LOGITS).experts.tolist()

    def test_the_two_best_of_a_group_count(self):
        self.assertEqual(self.chosen(count=3, keep=1), [[2, 3]])
        self.assertEqual(self.chosen(count=3, keep=2), [[0, 2]])

    def test_the_best_of_a_group_counts(self):
        self.assertEqual(self.chosen(count=3, keep=1, by="max"), [[0, 1]])
        self.assertEqual(self.chosen(count=3, keep=2, by="max"), [[0, 4]])

    def test_values_outside_are_out_whatever_they_are(self):
        gate = fixed_gate(score="none", top_k=2, groups={"count": 3, "keep": 1}, select_bias=[-9.0] * 6)
        self.assertEqual(gate.route(self.LOGITS).experts.tolist(), [[2, 3]])

    def test_groups_of_one_and_ties(self):
        gate = fixed_gate(score="none", top_k=1, groups={"count": 4, "keep": 1})
        self.assertEqual(gate.route(torch.zeros(1, 4)).experts.tolist(), [[0]])

    def test_what_does_not_fit_is_refused(self):
        with self.assertRaisesRegex(ValueError, "6 experts in 4 groups"):
            self.chosen(count=4, keep=1)
        with self.assertRaisesRegex(ValueError, "6 experts in 6 groups, 1 kept: top_k 2 does not fit"):
            self.chosen(count=6, keep=1)
        with self.assertRaisesRegex(ValueError, "groups keep 4 of 3"):
            self.chosen(count=3, keep=4)
        with self.assertRaisesRegex(ValueError, "groups by is 'sum'"):
            self.chosen(count=3, keep=1, by="sum")


class WeightTest(unittest.TestCase):
    def test_the_p_norm_of_the_selected_scores(self):
        logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
        routing = fixed_gate(top_k=3, normalize="lp", p=3).route(logits)
        for item in range(7):
            scores = softmax(logits[item].tolist())
            selected = [scores[expert] for expert in routing.experts[item]]
            norm = sum(score ** 3 for score in selected) ** (1 / 3)
            for weight, score in zip(routing.weights[item].tolist(), selected):
                self.assertAlmostEqual(weight, score / norm, places=6)

    def test_what_sums_to_nothing_is_shared_equally(self):
        logits = torch.full((1, 4), -300.0)  # whose sigmoids vanish
        routing = fixed_gate(score="sigmoid", top_k=2, normalize="sum").route(logits)
        self.assertEqual(routing.weights.tolist(), [[0.5] * 2])
        routing = fixed_gate(score="sigmoid", top_k=4, normalize="lp").route(logits)
        self.assertEqual(routing.weights.tolist(), [[0.25] * 4])
        self.assertEqual(routing.probabilities.tolist(), [[0.25] * 4])

    def test_logits_that_are_not_finite_are_in_evaluation(self):
        gate, logits = fixed_gate(top_k=1).eval(), torch.tensor([[math.nan, math.inf, 0.0]])
        self.assertEqual(gate.route(logits).experts.tolist(), [[1]])
        self.assertEqual(gate.route(logits).weights.tolist(), [[1.0]])
        self.assertTrue(gate.train().route(logits).weights.isnan().any())


class SparsemixerTest(unittest.TestCase):
    def test_twice_the_best_among_those_not_far_below(self):
        logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        for jitter in (0.01, 0.2, 0.6):
            routing = fixed_gate(score="sparsemixer", top_k=2, jitter=jitter).route(logits)
            for item, values in enumerate(logits.tolist()):
                experts, weights = sparsemixer(values, jitter)
                self.assertEqual(routing.experts[item].tolist(), experts)
                torch.testing.assert_close(routing.weights[item].tolist(), weights)

    def test_gradients_reach_the_logits(self):
        logits = torch.tensor([[1.0, 0.9, 0.8]], requires_grad=True)
        fixed_gate(score="sparsemixer", top_k=2, jitter=0.5).route(logits).weights.sum().backward()
        self.assertGreater(logits.grad.abs().sum(), 0)
        self.assertTrue(logits.grad.isfinite().all())

    def test_settings(self):
        for policy in ({}, {"top_k": 2, "normalize": "sum"}, {"top_k": 2, "select_bias": [0.0]}):
            with self.assertRaisesRegex(ValueError, "sparsemixer goes with top_k 2"):
                fixed_gate(score="sparsemixer", **policy)


class CapacityTest(unittest.TestCase):
    LOGITS = torch.tensor([[3.0, 2.0, 0.0], [3.0, 0.0, 2.0], [2.0, 3.0, 0.0], [3.0, 0.0, 2.0]])

    def test_first_choices_come_first_then_earlier_items(self):
        routing = fixed_gate(score="none", top_k=2, capacity={"factor": 1.5}).route(self.LOGITS)  # two places each
        self.assertEqual(routing.experts.tolist(), [[0, 1], [0, 2], [1, -1], [-1, 2]])
        self.assertEqual(routing.weights.tolist(), [[3.0, 2.0], [3.0, 2.0], [3.0, 0.0], [0.0, 2.0]])

    def test_places(self):
        for factor, minimum, items, experts, places in (
                (1.25, 1, 16, 8, 2), (1.0, 1, 3, 8, 1), (1.0, 4, 3, 8, 4), (100.0, 1, 5, 2, 5), (0.5, 1, 8, 2, 2)):
            capacity = fixed_gate(capacity={"factor": factor, "minimum": minimum}).capacity
            self.assertEqual(capacity.places_of(items, experts), places)

    def test_what_is_dropped_adds_nothing(self):
        experts = [nn.Linear(3, 2) for _ in range(3)]
        moe = MoE(experts, fixed_gate(score="none", top_k=1, capacity={"factor": 0.75}))  # one place each
        y = moe(self.LOGITS)
        torch.testing.assert_close(y[0], 3 * experts[0](self.LOGITS[0]))
        torch.testing.assert_close(y[2], 3 * experts[1](self.LOGITS[2]))
        self.assertTrue(torch.equal(y[[1, 3]], torch.zeros(2, 2)))

    def test_settings(self):
        with self.assertRaisesRegex(ValueError, "capacity factor is 0"):
            fixed_gate(capacity={"factor": 0})


class NoiseTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x = torch.randn(1000, 4)

    def test_nothing_in_evaluation(self):
        for noise in (UniformNoise(), GaussianNoise(nn.Linear(4, 4)), InputJitter(0.5)):
            gate = fixed_gate(noise=noise)
            self.assertFalse(torch.equal(gate.logits(self.x), self.x))
            self.assertTrue(torch.equal(gate.eval().logits(self.x), self.x))

    def test_uniform(self):
        added = fixed_gate(noise=UniformNoise()).logits(self.x) - self.x
        self.assertGreaterEqual(added.min(), -1e-6)
        self.assertLess(added.max(), 1 + 1e-6)
        self.assertAlmostEqual(added.mean().item(), 0.5, places=1)

    def test_gaussian_of_a_learned_scale(self):
        noise = GaussianNoise(nn.Linear(4, 4, bias=False))
        nn.init.zeros_(noise.layers.weight)
        logits = fixed_gate(noise=noise).logits(self.x)
        self.assertAlmostEqual((logits - self.x).std().item(), math.log(2) + 0.01, places=1)
        self.assertTrue(torch.equal(noise.clean, self.x))
        logits.square().sum().backward()
        self.assertGreater(noise.layers.weight.grad.abs().sum(), 0)

    def test_jitter_is_a_factor_per_number(self):
        ratio = fixed_gate(noise=InputJitter(0.1)).logits(self.x) / self.x
        self.assertGreaterEqual(ratio.min(), 0.9 - 1e-6)
        self.assertLessEqual(ratio.max(), 1.1 + 1e-6)
        self.assertGreater(ratio.std(), 0.05)


if __name__ == "__main__":
    unittest.main()
