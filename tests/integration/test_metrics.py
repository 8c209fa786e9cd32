"""/metrics: a page every scraper accepts, whose figures add up."""

import json
import os
import unittest

import numpy as np

from support.models import Tiny, TwoLayers
from support.prometheus import Metrics
from support.server import ServerCase

# The contract: name -> (type, labels).
FAMILIES = {
    "moed_requests_total": ("counter", {"model", "version", "protocol", "code"}),
    "moed_request_seconds": ("histogram", {"model", "version"}),
    "moed_queue_seconds": ("histogram", {"model", "version"}),
    "moed_compute_seconds": ("histogram", {"model", "version"}),
    "moed_batch_rows": ("histogram", {"model", "version"}),
    "moed_rows_total": ("counter", {"model", "version"}),
    "moed_queue_rows": ("gauge", {"model", "version"}),
    "moed_rejected_total": ("counter", {"model", "reason"}),
    "moed_expert_selected_total": ("counter", {"model", "version", "layer", "expert"}),
    "moed_expert_weight_total": ("counter", {"model", "version", "layer", "expert"}),
    "moed_layer_usage_entropy_bits": ("gauge", {"model", "version", "layer"}),
    "moed_layer_gate_entropy_bits": ("gauge", {"model", "version", "layer"}),
    "moed_layer_imbalance_ratio": ("gauge", {"model", "version", "layer"}),
    "moed_layer_unused_experts": ("gauge", {"model", "version", "layer"}),
    "moed_model_loaded": ("gauge", {"model", "version"}),
    "moed_model_bytes": ("gauge", {"model", "version"}),
    "moed_log_dropped_total": ("counter", set()),
    "moed_build_info": ("gauge", {"version"}),
}
TINY = {"model": "tiny", "version": "1"}
TWO = {"model": "two-layers", "version": "1"}


class MetricsCase(ServerCase):
    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        TwoLayers().write(os.path.join(directory, "two-layers"))

    def setUp(self):
        self.server = self.start()
        self.addCleanup(self.server.stop)
        self.client = self.new_client()

    def metrics(self):
        answer = self.client.get("/metrics")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        return Metrics(answer.body.decode())


class PageTest(MetricsCase):
    def test_families_types_and_labels(self):
        self.client.predict("tiny", [[1, 2, 3, 4]])
        page = self.metrics()
        for name, (kind, labels) in FAMILIES.items():
            with self.subTest(name):
                self.assertIn(name, page.families)
                self.assertEqual(page.families[name][0], kind)
                sample = name + "_count" if kind == "histogram" else name
                self.assertEqual({frozenset(series) for series in page.series(sample)}, {frozenset(labels)})

    def test_labels_never_come_from_a_path(self):
        for path in ('/v2/models/evil"}/ready', "/x{y=\"1\"}", "/%22%0a"):
            self.client.get(path)
        self.client.predict("nosuch%22", [[1]])
        self.metrics()
        self.assertNotIn("evil", self.client.get("/metrics").body.decode())


class SumsTest(MetricsCase):
    def serve_some(self):
        generator = np.random.default_rng(7)
        for count in (1, 3, 10, 40):
            rows = generator.normal(size=(count, 6)).tolist()
            self.assertEqual(self.client.predict("two-layers", rows).status, 200)
        for _ in range(5):
            request = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
            self.assertEqual(self.client.infer("tiny", request).status, 200)

    def test_rows_and_selections(self):
        self.serve_some()
        page = self.metrics()
        self.assertEqual(page.value("moed_rows_total", **TWO), 54)
        self.assertEqual(page.value("moed_rows_total", **TINY), 5)
        for labels, layer, rows, top_k in ((TWO, "first", 54, 1), (TWO, "second", 54, 3), (TINY, "moe", 5, 2)):
            self.assertEqual(page.sum("moed_expert_selected_total", layer=layer, **labels), rows * top_k)
            self.assertAlmostEqual(page.sum("moed_expert_weight_total", layer=layer, **labels), rows, places=3)
        self.assertEqual(len(page.series("moed_expert_selected_total")), 3 + 4 + 5)

    def test_same_figures_as_the_routing_document(self):
        self.serve_some()
        page = self.metrics()
        for layer in json.loads(self.client.get("/v2/models/two-layers/routing").body)["layers"]:
            labels = {"layer": layer["name"], **TWO}
            for expert in layer["experts"]:
                self.assertEqual(page.value("moed_expert_selected_total", expert=str(expert["index"]), **labels),
                                 expert["selected"])
                self.assertAlmostEqual(page.value("moed_expert_weight_total", expert=str(expert["index"]), **labels),
                                       expert["weight"], places=6)
            for name, key in (("usage_entropy_bits", "usage_entropy_bits"), ("gate_entropy_bits", "gate_entropy_bits"),
                              ("imbalance_ratio", "imbalance"), ("unused_experts", "unused")):
                self.assertAlmostEqual(page.value(f"moed_layer_{name}", **labels), layer[key], places=9)

    def test_batches(self):
        self.serve_some()
        page = self.metrics()
        self.assertEqual(page.value("moed_batch_rows_sum", **TWO), 54)
        self.assertEqual(page.value("moed_batch_rows_count", **TWO), page.value("moed_compute_seconds_count", **TWO))
        self.assertEqual(page.value("moed_batch_rows_bucket", le="16", **TWO), 3)
        self.assertEqual(page.value("moed_queue_rows", **TWO), 0)

    def test_requests_by_protocol_and_code(self):
        self.serve_some()
        self.client.predict("tiny", [[1]])
        self.client.predict("nosuch", [[1]])
        self.client.get("/nosuch")
        self.client.get("/v2/health/live")
        page = self.metrics()
        self.assertEqual(page.value("moed_requests_total", protocol="v1", code="200", **TWO), 4)
        self.assertEqual(page.value("moed_requests_total", protocol="oip", code="200", **TINY), 5)
        self.assertEqual(page.value("moed_requests_total", protocol="v1", code="400", **TINY), 1)
        self.assertEqual(page.sum("moed_requests_total", model="", code="404"), 2)
        self.assertEqual(page.sum("moed_requests_total"), 12)
        self.assertEqual(page.value("moed_request_seconds_count", **TINY), 6)
        self.assertEqual(page.value("moed_queue_seconds_count", **TINY), 5)
        self.assertEqual(page.value("moed_rejected_total", model="tiny", reason="invalid"), 1)

    def test_models(self):
        page = self.metrics()
        self.assertEqual(page.value("moed_model_loaded", **TINY), 1)
        # 3 x 4 for the gate, 3 experts of 2 x 4, four bytes each: nothing else is resident.
        self.assertGreaterEqual(page.value("moed_model_bytes", **TINY), 4 * (12 + 24))
        self.assertEqual(page.sum("moed_build_info"), 1)


class FewSeriesTest(MetricsCase):
    options = {"max_expert_series": 23}

    def test_above_the_limit_only_aggregates(self):
        """12 experts, two series each: one more than allowed. The JSON document still has them all."""
        self.client.predict("tiny", [[1, 2, 3, 4]])
        page = self.metrics()
        self.assertNotIn("moed_expert_selected_total", page.families)
        self.assertEqual(len(page.series("moed_layer_imbalance_ratio")), 3)
        self.assertEqual(len(self.client.get("/v2/models/tiny/routing").json["layers"][0]["experts"]), 3)


if __name__ == "__main__":
    unittest.main()
