"""The toy language model: its texts read from made-up packages, its function, its checkpoint."""

import contextlib
import gzip
import importlib.util
import io
import os
import struct
import tempfile
import unittest
import zlib
from unittest import mock

import numpy as np
import torch

from moed import safetensors
from recipes import bpe, causal_moe, lm_card, public_texts, results, runner, tiny_lm

SMALL = causal_moe.Shape(vocabulary=40, hidden=16, layers=2, heads=4, kv_heads=2, head_size=8, experts=4, top_k=2,
                         expert_size=8, theta=10000.0, eps=1e-6, context=32)
SHIPPED = os.path.join(os.path.dirname(__file__), "..", "..", "..", "deploy", "models", "tiny-lm")
JARGON = """Table of Contents

   Welcome to the Jargon File

   foo

Welcome to the Jargon File

   This is the
   file.

   ══════

   :foo: /foo/

   A sample {name} for
   anything.

   Compare {bar}.

   :bar: n.

   The second.

Appendix A. Stories

   Once.
"""


def compressed(text):
    """As compress(1) writes less than 256 bytes, without its header: every byte is a code of nine bits."""
    number = sum(byte << 9 * place for place, byte in enumerate(text))
    return number.to_bytes((9 * len(text) + 7) // 8, "little")


def bible_file(windows):
    packed = [compressed(window) for window in windows]
    begin = public_texts.BIBLE_OFFSETS_AT + 4 * len(packed)
    offsets = [begin + sum(map(len, packed[:index])) for index in range(len(packed))]
    return bytes(88) + struct.pack(f">{1 + len(packed)}I", len(packed), *offsets) + b"".join(packed)


def r_vector(strings):
    """A serialised character vector of R."""
    parts = [b"X\n" + struct.pack(">IIII", 3, 0x040201, 0x030500, 5) + b"UTF-8" + struct.pack(">II", 16, len(strings))]
    parts += [struct.pack(">II", 0x40009, len(text.encode())) + text.encode() for text in strings]
    return b"".join(parts)


def r_file(vectors):
    return b"".join(struct.pack(">I", len(vector)) + zlib.compress(vector) for vector in map(r_vector, vectors))


def words(count, seed):
    chance = np.random.default_rng(seed)
    return " ".join(chance.choice(["light", "king", "code", "house", "said", "loop"], count))


class TextsTest(unittest.TestCase):
    def test_bible(self):
        found = public_texts.bible(bible_file([b"Title\nGe1:1 In the\nGe1:2 And", b" it\nGe2:1 Thus\n1Jo1:1 That\n"]))
        self.assertEqual(found, [("Genesis", "Genesis 1\n1 In the\n2 And it"), ("Genesis", "Genesis 2\n1 Thus"),
                                 ("Exodus", "Exodus 1\n1 That")])  # the second book of a file is Exodus

    def test_novels(self):
        found = public_texts.austen(r_file([["PRIDE AND JOY", "", "Chapter 1", "", "It is", "a “truth”.", "", "Well",
                                             "CHAPTER II", "End"], ["EMMA", "CHAPTER I", "Emma"]]))
        self.assertEqual(found, [("Pride and Joy", "Chapter 1\nIt is a “truth”.\nWell"),
                                 ("Pride and Joy", "CHAPTER II End"), ("Emma", "CHAPTER I Emma")])

    def test_jargon(self):
        found = public_texts.jargon(gzip.compress(JARGON.encode()))
        self.assertEqual(found, [("", "Welcome to the Jargon File\nThis is the file."),
                                 ("foo", ":foo: /foo/\nA sample name for anything.\nCompare bar."),
                                 ("bar", ":bar: n.\nThe second."), ("", "Appendix A. Stories\nOnce.")])

    def test_what_is_missing_is_named(self):
        missing = self.assertRaisesRegex(public_texts.DataMissing, "apt-get download")
        with tempfile.TemporaryDirectory() as folder, missing:
            public_texts.read(folder)


class CausalMoETest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model = causal_moe.CausalMoE(SMALL)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.normal_(std=0.3)
        self.tokens = torch.randint(SMALL.vocabulary, (2, 20))

    def test_the_attention_of_older_pytorch_is_the_same(self):
        ours = self.model(self.tokens)
        with mock.patch.object(causal_moe, "attend", causal_moe.plain_attention):
            torch.testing.assert_close(self.model(self.tokens), ours, rtol=1e-4, atol=1e-5)

    def test_no_token_sees_a_later_one(self):
        whole, part = self.model(self.tokens), self.model(self.tokens[:, :7])
        torch.testing.assert_close(whole[:, :7], part, rtol=1e-4, atol=1e-5)

    def test_experts_are_those_of_a_sum_over_all(self):
        layer, x = self.model.layers[0].mlp, torch.randn(9, SMALL.hidden)
        mixed = layer(x)
        everything = torch.stack([layer._expert(index, x) for index in range(SMALL.experts)], dim=1)
        weights = torch.zeros(9, SMALL.experts).scatter(1, layer.routing.experts, layer.routing.weights)
        torch.testing.assert_close(mixed, (weights[:, :, None] * everything).sum(dim=1))
        self.assertEqual(float(weights.detach().sum(dim=1).round(decimals=5).mean()), 1.0)

    def test_even_routing_costs_least(self):
        even = torch.full((8, 4), 0.25)
        routing = causal_moe.Routing(torch.arange(16).view(8, 2) % 4, None, even, even)
        self.assertAlmostEqual(float(causal_moe.balance_loss(routing, 4)), 1.0, places=6)
        uneven = routing._replace(experts=torch.zeros(8, 2, dtype=torch.long), probabilities=torch.eye(4)[[0] * 8])
        self.assertAlmostEqual(float(causal_moe.balance_loss(uneven, 4)), 4.0, places=6)

    def checkpoint(self, folder):
        safetensors.write(os.path.join(folder, "model.safetensors"), causal_moe.published(self.model))
        bpe.write_json(folder, "config.json", causal_moe.config(SMALL, [1], "float32"))

    def test_a_checkpoint_is_the_same_model(self):
        with tempfile.TemporaryDirectory() as folder:
            self.checkpoint(folder)
            self.assertTrue(torch.equal(causal_moe.load(folder)(self.tokens), self.model(self.tokens)))

    def check_with_transformers(self, folder, model, tokens):
        from transformers import AutoModelForCausalLM
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.assertEqual(type(theirs).__name__, "Qwen3MoeForCausalLM")
        with torch.no_grad():
            found = theirs(tokens, output_router_logits=True)
            torch.testing.assert_close(found.logits, model(tokens), rtol=1e-4, atol=1e-4)
        for logits, routing in zip(found.router_logits, model.routings()):
            self.assertTrue(torch.equal(logits.topk(model.shape.top_k).indices, routing.experts))

    @unittest.skipUnless(importlib.util.find_spec("transformers"), "transformers is not installed")
    def test_transformers_reads_the_checkpoint(self):
        with tempfile.TemporaryDirectory() as folder:
            self.checkpoint(folder)
            self.check_with_transformers(folder, self.model, self.tokens)

    @unittest.skipUnless(importlib.util.find_spec("transformers"), "transformers is not installed")
    def test_transformers_reads_the_shipped_model(self):
        model = causal_moe.load(SHIPPED)
        self.check_with_transformers(SHIPPED, model, torch.randint(model.shape.vocabulary, (2, 100)))


@unittest.skipUnless(importlib.util.find_spec("tokenizers"), "tokenizers is not installed")
class RecipeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(torch.use_deterministic_algorithms, False)
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        self.folder = folder.name

    def documents(self, directory):
        return {domain: [public_texts.Document(f"{domain} {number}", f"{domain} {number}\n" + words(120, number))
                         for number in range(60)] for domain in public_texts.DOMAINS}

    def test_from_text_to_checkpoint(self):
        shape = SMALL._replace(vocabulary=300)
        out = os.path.join(self.folder, "out")
        with mock.patch.multiple(tiny_lm, SHAPE=shape, STEPS=2, STEP_TOKENS=64, SHORT=16), \
                mock.patch.object(lm_card, "SAMPLE_TOKENS", 2), \
                mock.patch.object(public_texts, "read", self.documents), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            runner.main(tiny_lm.TinyLm(), ["--data", self.folder, "--results", self.folder, "--epochs", "2",
                                           "--out", out, "--dtype", "bf16"])
        row = runner.read_json(os.path.join(self.folder, "tiny_lm", "qwen3-moe-seed0.json"))
        self.assertEqual(np.shape([row["shares"][domain] for domain in public_texts.DOMAINS]), (3, 2, 4))
        results.write(self.folder, os.path.join(self.folder, "RESULTS.md"), None)
        with open(os.path.join(self.folder, "RESULTS.md"), encoding="utf-8") as file:
            self.assertIn("| jargon |", file.read())
        with open(os.path.join(out, "README.md"), encoding="utf-8") as file:
            self.assertIn("A toy", file.read())
        self.assertEqual(sorted(os.listdir(out)), ["README.md", "config.json", "generation_config.json",
                                                   "model.safetensors", "tokenizer.json", "tokenizer_config.json"])


if __name__ == "__main__":
    unittest.main()
