"""What a server says of itself and of its models: health, metadata, configuration, lists, routing statistics."""

import math
import os
import unittest

import numpy as np

from support.models import Tiny, TwoLayers
from support.server import ServerCase


class DocumentsCase(ServerCase):
    options = {"max_request_rows": 100, "max_queue_delay_us": 0}

    @staticmethod
    def models(directory):
        Tiny(seed=1).write(os.path.join(directory, "tiny", "2"))
        Tiny(seed=2).write(os.path.join(directory, "tiny", "10"))
        TwoLayers().write(os.path.join(directory, "two-layers"))
        os.makedirs(os.path.join(directory, ".hidden"))

    def get(self, path):
        answer = self.client.get(path)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["content-type"], "application/json")
        return answer.json


class HealthTest(DocumentsCase):
    def test_server(self):
        self.assertEqual(self.get("/v2/health/live"), {"live": True})
        self.assertEqual(self.get("/v2/health/ready"), {"ready": True})

    def test_model(self):
        for path in ("/v2/models/tiny/ready", "/v2/models/tiny/versions/2/ready", "/v1/models/tiny"):
            with self.subTest(path):
                self.assertEqual(self.get(path), {"name": "tiny", "ready": True})

    def test_head_is_get_without_a_body(self):
        full, head = self.client.get("/v2/health/ready"), self.client.request("HEAD", "/v2/health/ready")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["content-length"], full.headers["content-length"])


class MetadataTest(DocumentsCase):
    def test_server(self):
        document = self.get("/v2")
        self.assertEqual(document["name"], "moed")
        self.assertRegex(document["version"], r"^\d+\.\d+\.\d+$")
        self.assertIn("binary_tensor_data", document["extensions"])

    def test_model(self):
        self.assertEqual(self.get("/v2/models/tiny"), {
            "name": "tiny", "versions": ["2", "10"], "platform": "moed",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]},
                        {"name": "routing.moe.experts", "datatype": "INT32", "shape": [-1, 2]},
                        {"name": "routing.moe.weights", "datatype": "FP32", "shape": [-1, 2]}]})

    def test_one_version(self):
        self.assertEqual(self.get("/v2/models/tiny/versions/2")["versions"], ["2"])

    def test_config(self):
        """What load generators read before they start."""
        config = self.get("/v2/models/tiny/config")
        self.assertEqual(config["name"], "tiny")
        self.assertEqual(config["max_batch_size"], 100)
        self.assertEqual(config["input"], [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}])
        self.assertEqual(config["output"][0], {"name": "y", "data_type": "TYPE_FP32", "dims": [2]})
        self.assertEqual(config["dynamic_batching"], {"max_queue_delay_microseconds": 0})

    def test_list(self):
        self.assertEqual(self.get("/v1/models"), {"models": ["tiny", "two-layers"]})


class RoutingStatisticsTest(DocumentsCase):
    def setUp(self):
        self.server = self.start()
        self.addCleanup(self.server.stop)
        self.client = self.new_client()

    def test_before_any_row(self):
        (layer,) = self.get("/v2/models/tiny/routing")["layers"]
        self.assertEqual((layer["rows"], layer["unused"], layer["imbalance"]), (0, 3, 0))

    def test_every_figure_by_hand(self):
        rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32)
        for part in (rows[:1], rows[1:30], rows[30:]):
            self.assertEqual(self.client.predict("two-layers", part.tolist()).status, 200)
        document = self.get("/v2/models/two-layers/routing")
        self.assertEqual((document["model"], document["version"]), ("two-layers", "1"))
        _, first, second = TwoLayers().forward(rows)
        self.assertEqual([layer["name"] for layer in document["layers"]], ["first", "second"])
        self.check_layer(document["layers"][0], first, experts=4, top_k=1)
        self.check_layer(document["layers"][1], second, experts=5, top_k=3)

    def check_layer(self, layer, reference, experts, top_k):
        _, chosen, weights, distribution = reference
        rows = len(chosen)
        self.assertEqual((layer["rows"], layer["top_k"]), (rows, top_k))
        self.assertEqual([expert["index"] for expert in layer["experts"]], list(range(experts)))
        selected = [int((chosen == i).sum()) for i in range(experts)]
        self.assertEqual([expert["selected"] for expert in layer["experts"]], selected)
        self.assertEqual(sum(selected), rows * top_k)
        self.assertEqual([expert["top1"] for expert in layer["experts"]],
                         [int((chosen[:, 0] == i).sum()) for i in range(experts)])
        for i, expert in enumerate(layer["experts"]):
            self.assertAlmostEqual(expert["share"], selected[i] / (rows * top_k), places=9)
            self.assertAlmostEqual(expert["weight"], float(weights[chosen == i].sum()), places=3)
        mean = distribution.mean(axis=0)
        self.assertAlmostEqual(layer["usage_entropy_bits"], -sum(p * math.log2(p) for p in mean), places=4)
        self.assertAlmostEqual(layer["gate_entropy_bits"],
                               float(-(distribution * np.log2(distribution)).sum(axis=1).mean()), places=4)
        self.assertAlmostEqual(layer["imbalance"], max(selected) / (sum(selected) / experts), places=9)
        self.assertEqual(layer["unused"], selected.count(0))

    def test_versions_count_apart(self):
        self.client.predict("tiny", [[1, 2, 3, 4]], version=2)
        self.assertEqual(self.get("/v2/models/tiny/versions/2/routing")["layers"][0]["rows"], 1)
        self.assertEqual(self.get("/v2/models/tiny/versions/10/routing")["layers"][0]["rows"], 0)


if __name__ == "__main__":
    unittest.main()
