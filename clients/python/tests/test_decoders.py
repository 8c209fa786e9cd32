"""Decoder layers of language models: rotary tables and masks are handed to them by the model around them."""

import os
import unittest
from unittest import mock

import torch

import moed
from moed import engine, export_trace
from tests import ENGINE, field_whole
from tests.export_case import ExportCase
from tests.test_adapters import randomised

ROW = torch.zeros(1, 6, field_whole.SIZE)


class DecodersTest(ExportCase):
    def exported(self, module, example=ROW):
        """The attention layers of what export() has compared with the module, by PyTorch and by the engine if any."""
        with mock.patch.object(engine, "find", lambda: ENGINE):
            moed.export(randomised(module), example, self.path)
        pending, found = list(self.config()["layers"]), []
        while pending:
            layer = pending.pop(0)
            found += [layer] if layer["op"] == "attention" else []
            pending += layer.get("layers", [])
        return [{key: value for key, value in layer.items() if key not in ("op", "name", "result")} for layer in found]

    def test_layers_in_a_model(self):
        rotary = {"dims": 4, "theta": 10000.0, "interleaved": False}
        plain = {"heads": 4, "kv_heads": 2, "causal": True, "rotary": rotary}
        self.assertEqual(self.exported(field_whole.Decoder()), [plain, plain])
        self.assertEqual(len([layer for layer in self.tensors() if layer.endswith("gate.0.weight")]), 2)
        self.assertEqual(self.exported(field_whole.Decoder(words=9), torch.zeros(1, 6, dtype=torch.long)),
                         [plain, plain])
        self.assertEqual(self.exported(field_whole.Decoder(window=3))[1], {**plain, "window": 3})
        self.assertEqual(self.exported(field_whole.Decoder(centred=True))[0], plain)

    def test_norms_of_queries_and_keys_and_sinks(self):
        layer = self.exported(field_whole.Decoder(qk_norm=True, sinks=True, width=8))[1]
        self.assertEqual((layer["qk_norm"], layer["eps"], layer["head_dim"]), ("head", 1e-5, 8))
        self.assertEqual({name.split("self_attn.")[1] for name in self.tensors() if "self_attn." in name},
                         {"in_proj_weight", "out_proj.weight", "q_norm.weight", "k_norm.weight", "sinks"})

    @unittest.skipUnless(export_trace.available(), "PyTorch has no torch.export")
    def test_behind_a_check_of_types(self):
        self.assertEqual(len(self.exported(field_whole.Decoder(checks=True, qk_norm=True))), 2)

    def test_a_layer_without_its_tables(self):
        self.assert_refused(field_whole.Layer(), (6, field_whole.SIZE),
                            "model.self_attn: does not accept rows of shape .6, 16., without cache, "
                            r"position_embeddings, attention_mask: .*field_whole.py:\d+")

    def test_windows(self):
        self.assert_refused(field_whole.SwinBlock(), (64, field_whole.SIZE),
                            r"model: reshape\(.*only within a row, not across rows \(field_whole.py:\d+\)$")

    def test_transformers(self):
        try:
            import transformers  # noqa: F401
        except ImportError:
            self.skipTest("transformers is not installed")
        ids = torch.zeros(1, 6, dtype=torch.long)
        for name, settings in field_whole.DECODERS[:5]:
            with self.subTest(name):
                model = field_whole.causal_lm(name, **settings)
                self.assertEqual(len(self.exported(model, ids)), 2)
                self.assertTrue(model.config.use_cache)  # of the caller's own
        for name, settings in field_whole.DECODERS[17:]:  # clipped, normalised late, of a latent, of a state
            with self.subTest(name):
                layers = self.exported(field_whole.causal_lm(name, **settings), ids)
                self.assertEqual(len(layers), 1 if name == "Jamba" else 2)
        for name, settings, _ in field_whole.REFUSED:
            with self.subTest(name), self.assertRaisesRegex(moed.ExportError, r"self_attention: .*\.py:\d+\)$"):
                self.exported(field_whole.causal_lm(name, **settings), ids)
        self.assertEqual(os.listdir(self.folder), ["model"])
