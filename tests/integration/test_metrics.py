"""/metrics: every scraper accepts the page, and its figures add up."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np

from support.fashion import DIRECTORY
from support.http import Client
from support.language import NAME, Words
from support.models import LinearMoe, Tiny, TwoLayers, write_checkpoint
from support.prometheus import Metrics
from support.routing import Referred
from support.server import ROOT, Server, ServerCase

sys.path.append(os.path.join(ROOT, "tests", "soak"))

import alerts  # noqa: E402

PAGE = os.path.join(os.path.dirname(__file__), "../../proto/METRICS.md")
# Families that these models, or a server with these options, have no series of.
ABSENT = {"moed_dropped_total", "moed_expert_weight_sum", "moed_layer_drift_js_bits", "moed_layer_drift_psi",
          "moed_layer_drift_p_value",
          "moed_expert_accuracy_ratio",
          # Of language models: test_openai_life.py has one.
          "moed_tokens_total", "moed_prompt_cached_tokens_total", "moed_sequences_running", "moed_sequences_waiting",
          "moed_kv_pages_used", "moed_kv_pages", "moed_first_token_seconds", "moed_next_token_seconds",
          "moed_expert_prompt_selected_total", "moed_state_written_total", "moed_state_failures_total",
          "moed_state_damaged_total", "moed_state_written_timestamp_seconds",
          # With a collector of traces: test_trace.py has one.
          "moed_trace_spans_sent_total", "moed_trace_spans_lost_total"}

# What promtool says, of these names and no others. They are a contract with those who chart and alert by them: a bit is the unit of
# an entropy, not of data; a sum of weights that may be negative falls, which no counter (`_total`) may.
BITS, SUM = 'use base unit "bytes" instead of "bits"', 'non-histogram and non-summary metrics should not have "_sum" suffix'
REMARKS = {"moed_layer_usage_entropy_bits": BITS, "moed_layer_gate_entropy_bits": BITS, "moed_layer_gate_entropy_bits_total": BITS,
           "moed_layer_drift_js_bits": BITS, "moed_expert_weight_sum": SUM}
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


def documented():
    """The contract: name -> (type, labels), as the page about them has it."""
    with open(PAGE, encoding="utf-8") as file:
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([\w, ]*)\| \S", file.read(), re.MULTILINE)
    return {name: (kind, {label for label in re.split(", ?", labels.strip()) if label}) for name, kind, labels in rows}


class PageTest(MetricsCase):
    def test_the_documented_families_and_no_others(self):
        self.client.predict("tiny", [[1, 2, 3, 4]])
        page, families = self.metrics(), documented()
        self.assertGreater(len(families), 30)
        self.assertEqual(set(families) - ABSENT, set(page.families) - ABSENT)
        for name, (kind, labels) in families.items():
            with self.subTest(name):
                if name not in page.families:
                    continue
                self.assertEqual(page.families[name][0], kind)
                sample = name + "_count" if kind == "histogram" else name
                if name not in ABSENT:
                    self.assertEqual({frozenset(series) for series in page.series(sample)}, {frozenset(labels)})

    def test_counters_are_there_before_the_first_request(self):
        page = self.metrics()
        for name, (kind, _) in page.families.items():
            if kind == "counter" and name != "moed_dropped_total":
                self.assertTrue(page.series(name), name)
        self.assertEqual(page.sum("moed_requests_total", code="504", **TINY), 0)
        self.assertEqual(page.series("moed_layer_imbalance_ratio"), [])

    def test_openmetrics(self):
        answer = self.client.get("/metrics", {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
        self.assertEqual(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8")
        lines = answer.body.decode().splitlines()
        self.assertEqual(lines[-1], "# EOF")
        types = dict(line.split(" ")[2:] for line in lines if line.startswith("# TYPE "))
        self.assertEqual((types["moed_requests"], types["moed_queue_rows"]), ("counter", "gauge"))
        # There, a counter's family is its name without _total, which is another's here.
        self.assertEqual(types["moed_layer_gate_entropy_bits_total"], "unknown")
        for line in lines:
            if not line.startswith("#"):
                name = re.match(r"\w+", line)[0]
                family = re.sub(r"_(total|bucket|sum|count)$", "", name)
                self.assertEqual(name.endswith("_total") and name not in types, types.get(family) == "counter", line)
                self.assertNotRegex(line, r'le="\d+"')

    def test_the_process(self):
        page = self.metrics()
        started = page.value("process_start_time_seconds")
        self.assertLess(abs(time.time() - started), 3600)
        self.assertEqual(self.metrics().value("process_start_time_seconds"), started)
        self.assertGreater(page.value("process_cpu_seconds_total"), 0)
        resident, virtual = (page.value(f"process_{kind}_memory_bytes") for kind in ("resident", "virtual"))
        self.assertTrue(1 << 20 < resident < virtual)
        self.assertTrue(3 < page.value("process_open_fds") < page.value("process_max_fds"))

    def test_labels_never_come_from_a_path(self):
        for path in ('/v2/models/evil"}/ready', "/x{y=\"1\"}", "/%22%0a"):
            self.client.get(path)
        self.client.predict("nosuch%22", [[1]])
        self.metrics()
        self.assertNotIn("evil", self.client.get("/metrics").body.decode())


class SignedMoe(LinearMoe):
    """Whose combine weights may be negative."""

    def layer(self):
        return {**super().layer(), "gate": {"layers": [{"op": "linear", "name": "out"}], "score": "none", "top_k": self.top_k}}


class PromtoolTest(MetricsCase):
    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        Referred().write(os.path.join(directory, "referred"))
        signed = SignedMoe("moe", 4, 2, experts=3, top_k=2, seed=1)
        write_checkpoint(os.path.join(directory, "signed"), {"input": {"name": "x", "shape": [4]}, "layers": [signed.layer()],
                                                             "output": {"name": "y"}}, signed.tensors())

    @unittest.skipUnless(shutil.which("promtool"), "promtool is missing: apt-get install prometheus")
    def test_its_remarks_are_these(self):
        for model in ("tiny", "referred", "signed"):
            self.assertEqual(self.client.predict(model, [[1, 2, 3, 4]] * 8).status, 200)
        page = self.client.get("/metrics").body
        lint = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
        self.assertEqual(dict(line.split(" ", 1) for line in lint.stderr.decode().splitlines()), REMARKS)


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
                for name in ("top1", "probability"):
                    self.assertEqual(page.value(f"moed_expert_{name}_total", expert=str(expert["index"]), **labels),
                                     expert[name])
            for name, key in (("usage_entropy_bits", "usage_entropy_bits"), ("gate_entropy_bits", "gate_entropy_bits"),
                              ("imbalance_ratio", "imbalance"), ("unused_experts", "unused"),
                              ("weight_imbalance_ratio", "weight_imbalance")):
                for window in ("1m", "5m", "1h"):
                    self.assertAlmostEqual(page.value(f"moed_layer_{name}", window=window, **labels), layer[key], places=9)

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
        self.assertEqual(page.value("moed_rejected_total", reason="invalid", **TINY), 1)

    def test_models(self):
        page = self.metrics()
        self.assertEqual(page.value("moed_model_loaded", **TINY), 1)
        # 3 x 4 for the gate, 3 experts of 2 x 4, four bytes each: nothing else is resident.
        self.assertGreaterEqual(page.value("moed_model_bytes", **TINY), 4 * (12 + 24))
        self.assertEqual(page.sum("moed_build_info"), 1)


@unittest.skipUnless(shutil.which("prometheus") and os.path.isdir(DIRECTORY), "prometheus or dataset-fashion-mnist is missing")
class ScrapedTest(unittest.TestCase):
    """A real Prometheus with the rules of deploy/prometheus, whose windows tests/soak/alerts.py makes short: a gate that gives one
    expert everything is told of, healthy and idle models are not."""

    def test_rules_fire_on_a_collapse_and_on_nothing_else(self):
        directory = self.enterContext(tempfile.TemporaryDirectory())
        models = os.path.join(directory, "models")
        for name in ("collapsed", "well", "idle"):
            shutil.copytree(os.path.join(ROOT, "deploy", "models", "fashion-mnist"), os.path.join(models, name))
        alerts.edit_model(os.path.join(models, "collapsed"), alerts.collapse)
        server = self.enterContext(Server(models))
        prometheus = alerts.Prometheus(directory, server.url[7:])
        self.addCleanup(prometheus.close)
        images = alerts.read("images-idx3", 16).reshape(-1, 784)
        firing, deadline = set(), time.monotonic() + 300
        with Client(server.port) as client:
            for rows in itertools.cycle(np.array_split(images, 50)):
                for model in ("collapsed", "well"):
                    self.assertEqual(client.predict(model, rows.tolist()).status, 200)
                firing = prometheus.firing() or set()
                if ("collapsed", "MoedExpertCollapse") in firing or time.monotonic() > deadline:
                    break
                time.sleep(0.5)
        self.assertIn(("collapsed", "MoedExpertCollapse"), firing)
        self.assertEqual({model for model, _ in firing}, {"collapsed"})
        self.assertEqual(prometheus.value('up{job="moed"}'), 1)
        self.assertGreater(prometheus.value('sum(moed_layer_rows_total{model="well"})'), 0)
        server.stop()


class FewSeriesTest(MetricsCase):
    options = {"max_expert_series": 143}

    def test_above_the_limit_only_aggregates(self):
        """12 experts, twelve series each at most: one more than allowed. The JSON document still has them all."""
        self.client.predict("tiny", [[1, 2, 3, 4]])
        page = self.metrics()
        self.assertNotIn("moed_expert_selected_total", page.families)
        self.assertEqual(len(page.series("moed_layer_imbalance_ratio")), 3)
        self.assertEqual(len(self.client.get("/v2/models/tiny/routing").json["layers"][0]["experts"]), 3)


class LanguageSeriesTest(unittest.TestCase):
    def expert_series(self, most):
        with tempfile.TemporaryDirectory() as models:
            Words().write(os.path.join(models, NAME))
            with Server(models, max_expert_series=most) as server, Client(server.port) as client:
                page = Metrics(client.get("/metrics").body.decode())
                server.stop()
        return sum(len(page.series(name)) for name in page.families if name.startswith("moed_expert_"))

    def test_the_limit_is_what_the_page_has(self):
        """8 experts of a language model, eight series each."""
        self.assertEqual(self.expert_series(64), 64)
        self.assertEqual(self.expert_series(63), 0)


if __name__ == "__main__":
    unittest.main()
