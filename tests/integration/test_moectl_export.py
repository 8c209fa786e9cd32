"""moectl export and merge: every format read back the way its consumer reads it, and two servers' documents added."""

import csv
import io
import json
import os
import struct
import tempfile
import unittest

import numpy as np

from support.http import Client
from support.models import LinearMoe, TwoLayers, write_checkpoint
from support.moectl import moectl, needs_moectl
from test_moectl import MoectlCase


class Even:
    """Two MoE layers of four experts each, as the tables of other tools want it."""

    def __init__(self):
        self.first = LinearMoe("first", 6, 8, experts=4, top_k=2, seed=3)
        self.second = LinearMoe("second", 8, 3, experts=4, top_k=2, seed=13)

    def write(self, directory):
        write_checkpoint(directory, {"input": {"name": "x", "shape": [6]},
                                     "layers": [self.first.layer(), {"op": "relu"}, self.second.layer()],
                                     "output": {"name": "y"}}, {**self.first.tensors(), **self.second.tensors()})

    def counts(self, rows):
        """[layers, experts]"""
        first = self.first.forward(rows)
        second = self.second.forward(np.maximum(first[0], 0))
        return np.array([np.bincount(chosen.ravel(), minlength=4) for _, chosen, _, _ in (first, second)])


def read_safetensors(path):
    """By the format's description, as safetensors.torch.load_file does."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<Q", content)
    assert length % 8 == 0
    tensors = {}
    for name, entry in json.loads(content[8:8 + length]).items():
        begin, end = entry["data_offsets"]
        assert entry["dtype"] == "I64"
        tensors[name] = np.frombuffer(content[8 + length + begin:8 + length + end], "<i8").reshape(entry["shape"])
    return tensors


@needs_moectl
class ExportTest(MoectlCase):
    @staticmethod
    def models(directory):
        Even().write(os.path.join(directory, "even"))
        TwoLayers().write(os.path.join(directory, "two-layers"))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32)
        assert cls.client.predict("even", rows.tolist()).status == 200
        cls.counts = Even().counts(rows)

    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())

    def export(self, format, *arguments, model="even", **keywords):
        return self.moectl("export", model, "--format", format, *arguments, **keywords)

    def test_csv(self):
        lines = list(csv.DictReader(io.StringIO(self.export("csv"))))
        counts = np.array([int(line["selected"]) for line in lines]).reshape(2, 4)
        np.testing.assert_array_equal(counts, self.counts)
        self.assertAlmostEqual(sum(float(line["weight_share"]) for line in lines), 2)

    def test_npy(self):
        path = os.path.join(self.directory, "counts.npy")
        self.export("npy", "-o", path)
        counts = np.load(path)
        self.assertEqual(counts.dtype, np.int64)
        np.testing.assert_array_equal(counts, self.counts)

    def test_npy_of_weights(self):
        path = os.path.join(self.directory, "weights.npy")
        self.export("npy", "--value", "weight", "--output", path)
        layers = self.client.get("/v2/models/even/routing").json["layers"]
        np.testing.assert_array_equal(np.load(path), [[e["weight"] for e in layer["experts"]] for layer in layers])

    def test_sglang(self):
        """expert_location.py: json.loads, torch.tensor(data["logical_count"]), two axes are unsqueezed."""
        np.testing.assert_array_equal(json.loads(self.export("sglang"))["logical_count"], self.counts)

    def test_lmdeploy(self):
        """eplb.py: torch.tensor(json.load(f), dtype=torch.float32)."""
        np.testing.assert_array_equal(np.array(json.loads(self.export("lmdeploy")), dtype=np.float32), self.counts)

    def test_eplb(self):
        """rebalance_experts(torch.tensor(numpy.loadtxt(f)), ...) of [layers, experts]."""
        np.testing.assert_array_equal(np.loadtxt(io.StringIO(self.export("eplb")), ndmin=2), self.counts)

    def test_tensorrt_llm(self):
        """generate_eplb_config.py: meta_info.json, and of every rank file the tensors "{iteration}_{layer}"."""
        path = os.path.join(self.directory, "statistic")
        self.export("tensorrt-llm", "-o", path)
        with open(os.path.join(path, "meta_info.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file), {"num_experts": 4, "num_experts_per_token": 2})
        tensors = read_safetensors(os.path.join(path, "rank0.safetensors"))
        self.assertEqual(set(tensors), {"0_0", "0_1"})
        np.testing.assert_array_equal([tensors["0_0"], tensors["0_1"]], self.counts)

    def test_ranked_jsonl(self):
        lines = [json.loads(line) for line in self.export("ranked-jsonl").splitlines()]
        for i, line in enumerate(lines):
            self.assertEqual(line, {str(i): np.argsort(-self.counts[i], kind="stable").tolist()})

    def test_layers_that_make_no_table(self):
        self.assertIn("layer 'first' has 4 experts and 'second' has 5: export one --layer",
                      self.export("lmdeploy", model="two-layers", status=1))
        self.assertEqual(self.export("lmdeploy", "--layer", "second", model="two-layers"), "[[0,0,0,0,0]]\n")

    def test_a_model_without_rows(self):
        for model, words in (("even", ""), ("two-layers", "moectl: model 'two-layers' has no rows in this document: ")):
            done = moectl("export", model, "--format", "csv", url=self.server.url)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stderr[:len(words) or None], words)

    def test_wrong_usage(self):
        self.assertIn("--output DIRECTORY", self.export("tensorrt-llm", status=2))
        self.assertIn("takes counts", self.export("sglang", "--value", "weight", status=2))
        self.assertIn("--format", self.moectl("export", "even", status=2))

    def test_what_cannot_be_written(self):
        self.assertIn("/nowhere/a", self.export("lmdeploy", "-o", "/nowhere/a", status=1))
        self.assertIn("No space left", self.export("lmdeploy", "-o", "/dev/full", status=1))


@needs_moectl
class MergeTest(MoectlCase):
    """Two servers, each with half of the rows, and a third with all of them."""

    @staticmethod
    def models(directory):
        TwoLayers().write(os.path.join(directory, "two-layers"))

    def document(self, rows):
        server = self.start()
        self.addCleanup(server.stop)
        self.server = server
        with Client(server.port) as client:
            self.assertEqual(client.predict("two-layers", rows.tolist()).status, 200)
        path = os.path.join(self.directory, f"{server.port}.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.moectl("routing", "two-layers", "--json"))
        return path

    def test_halves_make_the_whole(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32)
        halves, whole = [self.document(rows[:30]), self.document(rows[30:])], self.document(rows)
        merged = json.loads(self.moectl("merge", *halves))
        with open(whole, encoding="utf-8") as file:
            expected = json.load(file)
        self.assertEqual(merged["merged"], 2)
        for layer, wanted in zip(merged["layers"], expected["layers"], strict=True):
            for key in set(wanted) - {"experts", *merged["not_merged"]}:
                self.assert_close(layer[key], wanted[key], key)
            for expert, other in zip(layer["experts"], wanted["experts"], strict=True):
                for key in set(other) - {"idle_seconds", "compute_seconds", "ece"}:
                    self.assert_close(expert[key], other[key], key)
        self.assertIn("first", self.moectl("report", "-", input=json.dumps(merged)))
        self.assertIn("probability by chance", self.moectl("report", *halves))
        findings = json.loads(self.moectl("report", whole, "--json"))["findings"]
        self.assertIn("cache", {finding["kind"] for finding in findings})

    def assert_close(self, value, expected, key):
        if isinstance(expected, int):
            self.assertEqual(value, expected, key)
        elif isinstance(expected, float):
            self.assertAlmostEqual(value, expected, delta=1e-9 * max(1, abs(expected)), msg=key)

    def test_documents_of_two_models(self):
        first = self.moectl("routing", "two-layers", "--json")
        other = json.dumps({**json.loads(first), "model": "another"})
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(other)
            file.flush()
            self.assertIn(f"{file.name}: 'model' differs",
                          self.moectl("merge", "-", file.name, input=first, status=1))


if __name__ == "__main__":
    unittest.main()
