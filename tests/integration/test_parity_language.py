"""The shipped language model over HTTP against PyTorch: log probabilities, experts of every token, the greedy answer."""

import json
import math
import os
import sys
import unittest
import urllib.request

from support.server import ROOT, SHIPPED_MODELS, ServerCase

sys.path.insert(0, os.path.join(ROOT, "clients", "python"))
try:
    import torch

    from recipes import causal_moe
except ImportError as missing:
    if missing.name != "torch":
        raise
    torch = None

MODEL = "tiny-lm"
TEXTS = ("Genesis 1\n1 In the beginning God created the heaven and the earth.\n2 And the earth was without form, and void;",
         "Emma Woodhouse, handsome, clever, and rich, with a comfortable home and happy disposition,",
         ":hacker: n.\n[originally, someone who makes furniture with an axe]\n1. A person who enjoys exploring the details "
         "of programmable systems", "“C’est la vie”, ½ naïve\t中")
NEW_TOKENS = 12
TOLERANCE = 1e-4
# Two scores closer than float32 resolves may swap between two correct implementations.
TIE = 1e-5


@unittest.skipUnless(torch, "PyTorch is missing: apt-get install python3-torch")
class LanguageParityTest(ServerCase):
    options = {"kv_cache": "f32"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = causal_moe.load(os.path.join(SHIPPED_MODELS, MODEL))

    def post(self, path, body):
        answer = self.client.post(path, {"model": MODEL, **body})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def expected(self, ids):
        """(log probabilities (tokens, vocabulary), a Routing per layer) of all but the last token."""
        with torch.no_grad():
            logits = self.model(torch.tensor([ids[:-1]]))[0]
        return logits.log_softmax(dim=-1), self.model.routings()

    def check_routing(self, served, routings):
        self.assertEqual(len(served["layers"]), len(routings))
        for layer, routing in zip(served["layers"], routings):
            experts, weights = torch.tensor(layer["experts"]), torch.tensor(layer["weights"])
            best = routing.probabilities.topk(experts.shape[1] + 1, dim=-1).values
            tied = (best[:, :-1] - best[:, 1:]).amin(dim=1) < TIE
            self.assertTrue(((experts == routing.experts).all(dim=1) | tied).all(), layer["name"])
            torch.testing.assert_close(weights[~tied], routing.weights[~tied], rtol=TOLERANCE, atol=TOLERANCE)

    def test_every_token_and_its_experts(self):
        largest, routed = 0.0, 0
        for text in TEXTS:
            with self.subTest(text):
                prompt = self.post("/tokenize", {"content": text})["tokens"]
                choice = self.post("/v1/completions", {
                    "prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True, "echo": True,
                    "logprobs": 0, "routing": True})["choices"][0]
                ids = self.post("/tokenize", {"content": choice["text"]})["tokens"]
                if len(ids) != len(prompt) + NEW_TOKENS:  # what was written has a shorter spelling in tokens
                    ids = prompt
                expected, routings = self.expected(ids)
                served = choice["logprobs"]["token_logprobs"]
                self.assertEqual(len(served), len(prompt) + NEW_TOKENS)
                for place, (number, value) in enumerate(zip(ids[1:], served[1:])):
                    largest = max(largest, abs(value - float(expected[place, number])))
                    self.assertTrue(math.isclose(value, float(expected[place, number]), rel_tol=TOLERANCE, abs_tol=TOLERANCE))
                if len(ids) > len(prompt):
                    self.assertEqual(expected[len(prompt) - 1:].argmax(dim=-1).tolist(), ids[len(prompt):])
                    self.check_routing(choice["routing"], routings)
                    routed += len(ids) - 1
        self.assertGreater(routed, 0)
        print(f"\nparity: {MODEL}: {len(TEXTS)} texts, largest difference of a log probability {largest:.1e}, "
              f"experts of {routed} tokens")

    def test_a_stream_says_the_same(self):
        body = {"prompt": TEXTS[0], "max_tokens": NEW_TOKENS, "temperature": 0, "routing": True}
        whole = self.post("/v1/completions", body)["choices"][0]
        request = json.dumps({"model": MODEL, **body, "stream": True}).encode()
        with urllib.request.urlopen(f"{self.server.url}/v1/completions", request) as reply:
            lines = [line[len("data: "):] for line in reply.read().decode().split("\n\n") if line]
        self.assertEqual(lines.pop(), "[DONE]")
        pieces = [json.loads(line)["choices"][0] for line in lines]
        self.assertEqual("".join(piece["text"] for piece in pieces), whole["text"])
        for i, layer in enumerate(whole["routing"]["layers"]):
            parts = [piece["routing"]["layers"][i]["experts"] for piece in pieces if "routing" in piece]
            self.assertEqual(sum(parts, []), layer["experts"])


if __name__ == "__main__":
    unittest.main()
