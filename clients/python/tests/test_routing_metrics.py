"""Router metrics at points whose value is known."""

import math
import unittest

import numpy as np

from moed import routing_metrics as metrics


class MetricsTest(unittest.TestCase):
    def test_a_decisive_even_router(self):
        p = np.eye(5)[np.arange(20) % 5]
        self.assertEqual(metrics.gate_entropy_bits(p), 0)
        self.assertAlmostEqual(metrics.usage_entropy_bits(p), math.log2(5))

    def test_an_undecided_router(self):
        p = np.full((3, 8), 1 / 8)
        self.assertAlmostEqual(metrics.gate_entropy_bits(p), 3)
        self.assertAlmostEqual(metrics.usage_entropy_bits(p), 3)

    def test_a_collapsed_router(self):
        p = np.eye(4)[np.zeros(10, dtype=int)]
        self.assertEqual(metrics.usage_entropy_bits(p), 0)

    def test_usage_is_the_entropy_of_the_mean(self):
        p = np.array([[0.9, 0.1], [0.3, 0.7]])
        expected = -(0.6 * math.log2(0.6) + 0.4 * math.log2(0.4))
        self.assertAlmostEqual(metrics.usage_entropy_bits(p), expected)

    def test_experts_that_split_the_classes_share_all_information(self):
        classes = np.arange(100) % 10
        self.assertAlmostEqual(metrics.mutual_information_bits(classes // 2, classes, 5, 10), math.log2(5))

    def test_independent_experts_share_none(self):
        experts, classes = np.divmod(np.arange(50), 10)
        self.assertAlmostEqual(metrics.mutual_information_bits(experts, classes, 5, 10), 0)

    def test_a_table_by_hand(self):
        # Joint (3/8, 1/8; 1/8, 3/8): I = 1 - H(1/4) bits.
        experts = [0, 0, 0, 0, 1, 1, 1, 1]
        classes = [0, 0, 0, 1, 0, 1, 1, 1]
        binary_entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
        self.assertAlmostEqual(metrics.mutual_information_bits(experts, classes, 2, 2), 1 - binary_entropy)

    def test_dispatch_entropy_of_pure_experts(self):
        self.assertEqual(metrics.dispatch_entropy_nats([[10, 0, 0, 2], [0, 5, 0, 0]]), 0)

    def test_dispatch_entropy_of_a_useless_router(self):
        self.assertAlmostEqual(metrics.dispatch_entropy_nats(np.full((4, 8), 7)), math.log(4))

    def test_dispatch_entropy_by_hand(self):
        # Expert 0 has 3 + 1 rows, expert 1 none, expert 2 has 0 + 4: 4/8 H(1/4).
        expected = -0.5 * (0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        self.assertAlmostEqual(metrics.dispatch_entropy_nats([[3, 0, 0], [1, 0, 4]]), expected)

    def test_area_under_curve(self):
        self.assertEqual(metrics.area_under_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 0.75)
        self.assertEqual(metrics.area_under_curve([1, 1, 1], [0, 1, 0]), 0.5)


if __name__ == "__main__":
    unittest.main()
