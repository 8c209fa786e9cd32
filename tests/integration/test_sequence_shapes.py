"""Checkpoints of sequences that are no language models, or odd ones: no request may end the server."""

import os
import tempfile
import unittest

from support.http import Client
from support.models import random_tensor, write_checkpoint
from support.server import Server

CATEGORIES = 64


def write(directory, shape, widths):
    """A row is `shape` tokens; an output of each of `widths` numbers."""
    inside = 2
    for size in shape:
        inside *= size
    tensors = {"e.weight": random_tensor(1, CATEGORIES, 2), "a.in_proj_weight": random_tensor(2, 3 * inside, inside),
               "a.out_proj.weight": random_tensor(3, inside, inside)}
    outputs = []
    for i, width in enumerate(widths):
        tensors[f"o{i}.weight"] = random_tensor(4 + i, width, inside)
        outputs.append({"name": f"out{i}", "layers": [{"op": "linear", "name": f"o{i}"}]})
    write_checkpoint(directory, {
        "format_version": 3, "context": 64,
        "inputs": [{"name": "tokens", "shape": shape, "categories": CATEGORIES,
                    "layers": [{"op": "embedding", "name": "e"}] + ([{"op": "flatten"}] if shape else [])}],
        "layers": [{"op": "attention", "name": "a", "over": "sequence", "heads": 1},
                   {"op": "moe", "name": "m", "gate": {"layers": [{"op": "relu"}], "top_k": 1},
                    "experts": {"count": inside, "layers": [{"op": "relu"}]}}],
        "outputs": outputs}, tensors)


class ShapesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        models = tempfile.TemporaryDirectory()
        cls.addClassCleanup(models.cleanup)
        for name, shape, widths in (("two", [], [CATEGORIES] * 2), ("wide", [8], [CATEGORIES]), ("narrow", [], [4])):
            write(os.path.join(models.name, name), shape, widths)
        cls.server = cls.enterClassContext(Server(models.name))
        cls.client = cls.enterClassContext(Client(cls.server.port))

    def complete(self, **body):
        return self.client.post("/v1/completions", {"max_tokens": 4, **body})

    def test_rows_that_are_no_single_tokens_with_one_output(self):
        for model in ("two", "wide"):
            for path in ("/v1/completions", "/v1/embeddings"):
                response = self.client.post(path, {"model": model, "prompt": [1, 2, 3], "input": [1, 2, 3]})
                self.assertEqual(response.status, 400, response.body)

    def test_likelihoods_of_tokens_of_which_there_are_none(self):
        response = self.complete(model="narrow", prompt=[1, 2, 50, 3], echo=True, logprobs=1)
        self.assertEqual(response.status, 400, response.body)
        self.assertIn("token 50 of the prompt", response.json["error"]["message"])
        for body in ({"prompt": [1, 2, 50, 3]}, {"prompt": [50, 2, 3], "echo": True, "logprobs": 1}):
            self.assertEqual(self.complete(model="narrow", **body).status, 200)


if __name__ == "__main__":
    unittest.main()
