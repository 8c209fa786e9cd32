"""Checkpoints of sequences of which a step can make nothing are not loaded, and odd ones harm nobody."""

import os
import tempfile
import unittest

from support.http import Client
from support.models import random_tensor, write_checkpoint
from support.server import Server

CATEGORIES = 64

# Name: shape, widths, categories, why it is not loaded.
REFUSED = {
    "two": ([], [CATEGORIES] * 2, True, 'outputs: 2, with a "context" expected one'),
    "wide": ([8], [CATEGORIES], True, 'inputs: with a "context" expected one, of a single token'),
    "numbers": ([2], [CATEGORIES], False, 'inputs: with a "context" expected one, of a single token'),
    "broad": ([], [CATEGORIES + 1], True, "outputs[0]: 65 numbers for 64 tokens"),
}


def write(directory, shape, widths, categories=True):
    """A row is `shape` tokens, or numbers; an output of each of `widths` numbers."""
    inside = 2 if categories else 1
    for size in shape:
        inside *= size
    tensors = {"a.in_proj_weight": random_tensor(2, 3 * inside, inside),
               "a.out_proj.weight": random_tensor(3, inside, inside)}
    tokens = {"name": "tokens", "shape": shape}
    if categories:
        tensors["e.weight"] = random_tensor(1, CATEGORIES, 2)
        tokens |= {"categories": CATEGORIES, "layers": [{"op": "embedding", "name": "e"}] + ([{"op": "flatten"}] if shape else [])}
    outputs = []
    for i, width in enumerate(widths):
        tensors[f"o{i}.weight"] = random_tensor(4 + i, width, inside)
        outputs.append({"name": f"out{i}", "layers": [{"op": "linear", "name": f"o{i}"}]})
    write_checkpoint(directory, {
        "format_version": 3, "context": 64,
        "inputs": [tokens],
        "layers": [{"op": "attention", "name": "a", "over": "sequence", "heads": 1},
                   {"op": "moe", "name": "m", "gate": {"layers": [{"op": "relu"}], "top_k": 1},
                    "experts": {"count": inside, "layers": [{"op": "relu"}]}}],
        "outputs": outputs}, tensors)


class ShapesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        models = tempfile.TemporaryDirectory()
        cls.addClassCleanup(models.cleanup)
        write(os.path.join(models.name, "narrow"), [], [4])
        for name, (shape, widths, categories, _) in REFUSED.items():
            write(os.path.join(models.name, name), shape, widths, categories)
        cls.server = cls.enterClassContext(Server(models.name))
        cls.client = cls.enterClassContext(Client(cls.server.port))

    def complete(self, **body):
        return self.client.post("/v1/completions", {"max_tokens": 4, **body})

    def test_those_of_which_no_step_can_make_anything_are_not_loaded(self):
        index = {model["name"]: model for model in self.client.post("/v2/repository/index", {}).json}
        for name, (_, _, _, reason) in REFUSED.items():
            self.assertEqual(index[name]["state"], "UNAVAILABLE", index[name])
            self.assertIn(reason, index[name]["reason"])
            for path in ("/v1/completions", "/v1/embeddings"):
                response = self.client.post(path, {"model": name, "prompt": [1, 2, 3], "input": [1, 2, 3]})
                self.assertEqual(response.status, 503, response.body)
                self.assertIn("cannot be served", response.json["error"]["message"])
        self.assertEqual(index["narrow"]["state"], "READY")

    def test_likelihoods_of_tokens_of_which_there_are_none(self):
        response = self.complete(model="narrow", prompt=[1, 2, 50, 3], echo=True, logprobs=1)
        self.assertEqual(response.status, 400, response.body)
        self.assertIn("token 50 of the prompt", response.json["error"]["message"])
        for body in ({"prompt": [1, 2, 50, 3]}, {"prompt": [50, 2, 3], "echo": True, "logprobs": 1}):
            self.assertEqual(self.complete(model="narrow", **body).status, 200)


if __name__ == "__main__":
    unittest.main()
