"""Some hundred random graphs; thousands by `python3 -m tests.random_graphs`."""

import unittest
from unittest import mock

import torch

from moed import engine, ops
from tests import ENGINE, random_graphs

GRAPHS = 200


class RandomGraphsTest(unittest.TestCase):
    def test_pytorch_package_and_engine_agree(self):
        seeds, seen = [*random_graphs.kept_seeds(), *range(GRAPHS)], set()
        for begin in range(0, len(seeds), random_graphs.REPOSITORY):
            failures, empty, found = random_graphs.try_seeds(seeds[begin:begin + random_graphs.REPOSITORY], ENGINE)
            self.assertEqual((failures, empty), ({}, []))
            seen |= found
        self.assertEqual(set(random_graphs.LAYERS) - seen, set())  # every op was there

    def test_functions_among_the_layers(self):
        begin = random_graphs.FROM_WORDS
        failures, empty, found = random_graphs.try_seeds(range(begin, begin + 40), ENGINE)
        self.assertEqual((failures, empty), ({}, []))
        self.assertIn("divide", found)

    def test_every_op_of_the_table_takes_part(self):
        self.assertEqual(set(ops.OPS), {*random_graphs.LAYERS, *random_graphs.ELSEWHERE})

    def test_a_seed_makes_the_same_model_every_time(self):
        (first, shape), (second, _) = random_graphs.model_of(17), random_graphs.model_of(17)
        self.assertTrue(torch.equal(first(torch.ones(2, *shape)), second(torch.ones(2, *shape))))

    @unittest.skipIf(ENGINE is None, "no moed")
    def test_a_wrong_answer_is_found(self):
        answers = engine.Engine.answers
        with mock.patch.object(engine.Engine, "answers", lambda server, model, rows: {
                name: value * 1.001 if value.dtype == "f4" else value
                for name, value in answers(server, model, rows).items()}):
            failures, _, _ = random_graphs.try_seeds(range(5), ENGINE)
        self.assertEqual(set(failures), set(range(5)))


if __name__ == "__main__":
    unittest.main()
