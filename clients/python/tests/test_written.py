"""Models as people write them: each is exported as its author would, answers as PyTorch does and routes alike."""

import re
import unittest
from unittest import mock

import torch

import moed
from moed import engine
from moed.layers import MoE, MultiGateMoE
from tests import ENGINE
from tests.export_case import ExportCase
from tests.test_adapters import randomised
from tests.written_models import MODELS


class WrittenTest(ExportCase):
    def test_models(self):
        """export() compares answers and, with the engine, the experts of every row."""
        for written in MODELS:
            with self.subTest(written.name), mock.patch.object(engine, "find", lambda: ENGINE):
                torch.manual_seed(0)
                model = randomised(written.make())
                if written.refused:
                    line = "" if isinstance(written.example, tuple) else r".*\(written_[a-z]+\.py:\d+\)$"
                    with self.assertRaisesRegex(moed.ExportError, re.escape(written.refused) + line):
                        moed.export(model, written.example, self.path, **written.settings)
                    continue
                moed.export(model, written.example, self.path, **written.settings)
                mixtures = [part for part in moed.load(self.path).modules() if isinstance(part, (MoE, MultiGateMoE))]
                self.assertEqual(len(mixtures), written.mixtures)


if __name__ == "__main__":
    unittest.main()
