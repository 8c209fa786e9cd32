"""Answers that are no numbers: each model's are counted, whatever they are null or refused for."""

import json
import os
import shutil
import unittest

import numpy as np

from support.language import Words
from support.models import Tiny
from support.prometheus import Metrics
from support.server import ROOT, ServerCase


ENCODER = os.path.join(ROOT, "tests", "data", "families", "nomic_bert")


class BrokenWords(Words):
    """Its weights are numbers; what comes of them is none."""

    def tensors(self):
        return super().tensors() | {"norm.weight": np.full(self.size, 3e38, np.float32)}


def break_encoder(directory):
    """A published one whose last norm has a weight that no embedding stands."""
    shutil.copytree(ENCODER, directory)
    with open(os.path.join(directory, "model.safetensors"), "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))["encoder.layers.1.norm2.weight"]["data_offsets"]
        file.seek(8 + length + begin)
        file.write(np.full((end - begin) // 4, 3e38, "<f4").tobytes())


class NonfiniteTest(ServerCase):
    options = {"non_finite": "accept"}

    @staticmethod
    def models(directory):
        for name in ("tiny", "other"):
            Tiny().write(os.path.join(directory, name))
        Words().write(os.path.join(directory, "words"))
        BrokenWords().write(os.path.join(directory, "broken"))
        shutil.copytree(ENCODER, os.path.join(directory, "encoder"))
        break_encoder(os.path.join(directory, "broken-encoder"))

    def setUp(self):
        self.server = self.start()
        self.addCleanup(self.server.stop)
        self.client = self.new_client()

    def counted(self, model):
        page = Metrics(self.client.get("/metrics").body.decode())
        counted = page.value("moed_nonfinite_rows_total", model=model, version="1")
        (statistics,) = self.client.get(f"/v2/models/{model}/stats").json["model_stats"]
        self.assertEqual(statistics["nonfinite_count"], counted)
        return counted

    def test_rows(self):
        self.assertEqual(self.counted("tiny"), 0)
        broken = 0
        for rows in ([[1, 2, 3, 4]], [[3e38] * 4, [1, 2, 3, 4], [-3e38, 3e38, 3e38, -3e38]], [[0.5] * 4] * 3):
            answer = self.client.predict("tiny", rows)
            self.assertEqual(answer.status, 200, answer.body)
            broken += sum(None in row for row in answer.json["predictions"])
            self.assertEqual(self.counted("tiny"), broken)
        self.assertGreater(broken, 0)
        self.assertEqual(self.counted("other"), 0)

    def test_binary_rows(self):
        rows = np.array([[1, np.nan, 3, 4], [1, 2, 3, 4], [1, 2, np.inf, 4]], np.float32)
        entry = {"name": "x", "shape": [3, 4], "datatype": "FP32", "parameters": {"binary_data_size": rows.nbytes}}
        answer = self.client.infer("tiny", {"inputs": [entry]}, rows.tobytes())
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(self.counted("tiny"), 2)

    def test_tokens(self):
        ask = lambda model: self.client.post("/v1/completions", {"model": model, "max_tokens": 3, "prompt": "abc"})
        self.assertEqual(ask("words").status, 200)
        self.assertEqual(self.counted("words"), 0)
        answer = ask("broken")
        self.assertEqual(answer.status, 500, answer.body)
        self.assertIn("not finite", answer.json["error"]["message"])
        self.assertEqual(self.counted("broken"), 1)

    def test_texts(self):
        for model, broken in (("encoder", 0), ("broken-encoder", 2)):
            answer = self.client.post("/v1/embeddings", {"model": model, "input": [[3, 4, 5], [6, 7]]})
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(self.counted(model), broken)


if __name__ == "__main__":
    unittest.main()
