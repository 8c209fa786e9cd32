"""Routing statistics: every figure of the document equals a recomputation from the rows' own routing."""

import gzip
import json
import math
import os
import unittest

import numpy as np

from support.http import Client
from support.models import LinearMoe, TwoLayers, write_checkpoint
from support.prometheus import Metrics
from support.routing import WINDOWS, Referred, RoutingCase, entropy, in_units
from support.server import ROOT, SHIPPED_MODELS, ServerCase


class Unbounded(LinearMoe):
    """Weights as large as the row makes them."""

    def layer(self):
        return super().layer() | {"gate": {"layers": [{"op": "linear", "name": "out"}], "score": "none", "top_k": self.top_k,
                                           "normalize": "none"}}


class OverflowTest(RoutingCase):
    @staticmethod
    def models(directory):
        for name, top_k in (("some", 2), ("dense", 3)):
            moe = Unbounded("moe", 4, 4, experts=3, top_k=top_k, seed=50)
            write_checkpoint(os.path.join(directory, name), {"input": {"name": "x", "shape": [4]}, "layers": [moe.layer()],
                                                             "output": {"name": "y"}}, moe.tensors())

    def test_one_row_of_huge_numbers_moves_no_weight(self):
        rows = np.random.default_rng(8).normal(size=(50, 4)).tolist()
        for model in ("some", "dense"):
            with self.subTest(model=model):
                path = f"/v2/models/{model}/routing?include=exact"
                self.assertEqual(self.client.predict(model, rows, tag="us").status, 200)
                (before,) = self.get(path)["layers"]
                answer = self.client.predict(model, [[3e38] * 4], routing=True, tag="us")
                self.assertEqual(answer.status, 200, answer.body)
                chosen, weights = (answer.json["routing"]["moe"][what][0] for what in ("experts", "weights"))
                self.assertGreater(max(np.abs(weights)), 1e38)
                for asked in (path, path + "&tag=us", path + "&window=1m"):
                    (layer,) = self.get(asked)["layers"]
                    self.assertEqual((layer["rows"], layer["overflowed"]), (51, 1))
                    for member in ("weight_imbalance", "effective_experts"):
                        self.assertEqual(layer[member], before[member])
                    for expert, earlier in zip(layer["experts"], before["experts"], strict=True):
                        self.assertEqual(expert["selected"], earlier["selected"] + (expert["index"] in chosen))
                        for member in ("weight", "weight_share"):
                            self.assertEqual(expert[member], earlier[member])
                page = Metrics(self.client.get("/metrics").body.decode())
                labels = {"model": model, "version": "1", "layer": "moe"}
                self.assertEqual(page.value("moed_layer_overflowed_rows_total", **labels), 1)
                self.assertEqual(page.value("moed_layer_rows_total", **labels), 51)

    def test_one_row_of_large_weights_counts_as_any_other(self):
        """Weights that are within what is summed: their row has one part of the shares to give, as every row."""
        rows = np.random.default_rng(8).normal(size=(199, 4)).tolist() + [[3e4] * 4]
        for model in ("some", "dense"):
            with self.subTest(model=model):
                answer = self.client.predict(model, rows, routing=True)
                chosen, weights = (np.array(answer.json["routing"]["moe"][what]) for what in ("experts", "weights"))
                self.assertGreater(np.abs(weights).max(), 1e4)
                self.assertLess(np.abs(weights).max(), 2 ** 19)
                parts = np.abs(weights) / np.abs(weights).sum(axis=1, keepdims=True)
                page = Metrics(self.client.get("/metrics").body.decode())
                for window in WINDOWS:
                    (layer,) = self.get(f"/v2/models/{model}/routing?window={window}")["layers"]
                    self.assertEqual((layer["rows"], layer["overflowed"]), (200, 0))
                    for i, expert in enumerate(layer["experts"]):
                        usual = parts[:199][chosen[:199] == i].sum() / 199
                        self.assertAlmostEqual(expert["weight_share"], usual, delta=1 / 199)
                        self.assertAlmostEqual(expert["weight_share"], parts[chosen == i].sum() / 200, delta=1e-6)
                        labels = {"model": model, "version": "1", "layer": "moe", "expert": str(i)}
                        counted = page.value("moed_expert_weight_part_total", **labels)
                        self.assertAlmostEqual(counted / 200, expert["weight_share"], delta=1e-9)


class FiguresTest(RoutingCase):
    def test_over_several_loops(self):
        """Rows over twelve connections to three loops: each figure is that of all of them."""
        server = self.start(loops=3)
        self.addCleanup(server.stop)
        rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32)
        clients = [Client(server.port) for _ in range(12)]
        for client in clients:
            self.addCleanup(client.close)
        answers = [client.predict("two-layers", part.tolist(), routing=True) for client, part in zip(clients, np.array_split(rows, 12))]
        _, *references = TwoLayers().forward(rows)
        document = clients[0].get("/v2/models/two-layers/routing?window=1m").json
        for layer, reference, experts in zip(document["layers"], references, (4, 5)):
            chosen, weights = (np.concatenate([np.array(answer.json["routing"][layer["name"]][what]) for answer in answers])
                               for what in ("experts", "weights"))
            self.check_counts(layer, chosen, weights.astype(np.float32), experts)
            self.check_figures(layer)
            self.check_distribution(layer, reference[3])

    def test_before_any_row(self):
        for window in WINDOWS:
            document = self.get(f"/v2/models/tiny/routing?window={window}")
            (layer,) = document["layers"]
            self.assertEqual((document["window"], document["rows"]), (window, 0))
            self.assertEqual((layer["rows"], layer["unused"], layer["imbalance"], layer["dying"]), (0, 3, 0, []))
            self.assertIsNone(layer["experts"][0]["idle_seconds"])

    def test_every_figure_by_numpy(self):
        rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32)
        routed = self.routed(rows)
        _, *references = TwoLayers().forward(rows)
        for window in WINDOWS:
            document = self.get(f"/v2/models/two-layers/routing?window={window}")
            self.assertEqual((document["model"], document["version"], document["rows"]), ("two-layers", "1", 90))
            self.assertLess(0, document["seconds"])
            self.assertEqual([layer["name"] for layer in document["layers"]], ["first", "second"])
            for layer, reference, experts in zip(document["layers"], references, (4, 5)):
                with self.subTest(window=window, layer=layer["name"]):
                    self.check_counts(layer, *routed[layer["name"]], experts)
                    self.check_figures(layer)
                    self.check_distribution(layer, reference[3])

    def test_sums_are_those_of_what_requests_are_given(self):
        """The probabilities of all experts, in both protocols, are the very numbers that statistics count."""
        rows = np.random.default_rng(7).normal(size=(70, 6)).astype(np.float32)
        answer = self.client.post("/v1/models/two-layers:predict", {"instances": rows[:40].tolist(), "routing": {"probabilities": True}})
        self.assertEqual(answer.status, 200, answer.body)
        names = [f"routing.{name}.probabilities" for name in ("first", "second")]
        other = self.client.infer("two-layers", {"inputs": [{"name": "x", "shape": [30, 6], "datatype": "FP32", "data": rows[40:].ravel().tolist()}],
                                                 "outputs": [{"name": name} for name in names]})
        self.assertEqual(other.status, 200, other.body)
        for layer, output in zip(self.get("/v2/models/two-layers/routing")["layers"], other.json["outputs"], strict=True):
            n = len(layer["experts"])
            self.assertEqual((output["datatype"], output["shape"]), ("FP32", [30, n]))
            p = np.concatenate([np.array(answer.json["routing"][layer["name"]]["probabilities"], np.float32),
                                np.array(output["data"], np.float32).reshape(30, n)])
            self.assertEqual(p.shape, (70, n))
            self.assertEqual([expert["probability"] for expert in layer["experts"]], in_units(p).tolist())
            first, second = np.sort(p, axis=1)[:, [-1, -2]].T
            self.assertEqual(layer["margin"], in_units(first - second) / 70)
            bits = -(p.astype(np.float64) * np.log2(p.astype(np.float64))).sum(axis=1).mean()
            self.assertAlmostEqual(layer["gate_entropy_bits"], bits, delta=1e-6)  # computed in float32
            self.assertAlmostEqual(layer["usage_entropy_bits"], entropy(in_units(p) / 70), delta=1e-9)

    def test_probabilities_are_asked_for_by_their_name(self):
        for routing in ({"probability": True}, {"probabilities": 1}):
            answer = self.client.post("/v1/models/tiny:predict", {"instances": [[1, 2, 3, 4]], "routing": routing})
            self.assertEqual(answer.status, 400, answer.body)
        answer = self.client.post("/v1/models/tiny:predict", {"instances": [[1, 2, 3, 4]], "routing": {}})
        self.assertEqual(set(answer.json["routing"]["moe"]), {"experts", "weights"})

    def check_counts(self, layer, chosen, weights, experts):
        rows, top_k = chosen.shape
        self.assertEqual((layer["rows"], layer["top_k"]), (rows, top_k))
        self.assertEqual([expert["index"] for expert in layer["experts"]], list(range(experts)))
        parts = np.abs(weights.astype(np.float64))
        parts /= parts.sum(axis=1, keepdims=True)
        for i, expert in enumerate(layer["experts"]):
            mine = weights[chosen == i].astype(np.float64)
            self.assertEqual(expert["selected"], len(mine))
            self.assertEqual(expert["top1"], int((chosen[:, 0] == i).sum()))
            self.assertAlmostEqual(expert["share"], len(mine) / (rows * top_k), delta=1e-9)
            self.assertAlmostEqual(expert["weight"], mine.sum(), delta=1e-9 * rows)
            self.assertAlmostEqual(expert["weight_share"], parts[chosen == i].sum() / rows, delta=1e-9)
            self.assertEqual(expert["compute_seconds"] > 0, len(mine) > 0)
            if len(mine):
                self.assertLess(expert["idle_seconds"], 600)
            else:
                self.assertIsNone(expert["idle_seconds"])

    def check_figures(self, layer):
        """Those of the shares and sums that the document itself holds."""
        share = np.array([expert["share"] for expert in layer["experts"]])
        weight = np.array([expert["weight_share"] for expert in layer["experts"]])
        probability = np.array([expert["probability"] for expert in layer["experts"]])
        for key, value in {"imbalance": share.max() / share.mean(), "weight_imbalance": weight.max() / weight.mean(),
                           "balancedness": share.mean() / share.max(), "cv": share.std() / share.mean(),
                           "jain": share.sum() ** 2 / (len(share) * (share ** 2).sum()),
                           "effective_experts": 2 ** entropy(weight),
                           "usage_entropy_bits": entropy(probability / layer["rows"])}.items():
            self.assertAlmostEqual(layer[key], value, delta=1e-9, msg=key)
        self.assertEqual(layer["unused"], int((share == 0).sum()))

    def check_distribution(self, layer, p):
        """p is computed here in float64, in the server in float32."""
        first, second = np.sort(p, axis=1)[:, [-1, -2]].T
        self.assertAlmostEqual(layer["margin"], (first - second).mean(), places=5)
        self.assertAlmostEqual(layer["gate_entropy_bits"], -(p * np.log2(p)).sum(axis=1).mean(), places=5)
        for i, expert in enumerate(layer["experts"]):
            self.assertAlmostEqual(expert["probability"] / layer["rows"], p[:, i].mean(), places=5)

    def test_versions_count_apart(self):
        self.client.predict("tiny", [[1, 2, 3, 4]], version=2)
        self.assertEqual(self.get("/v2/models/tiny/versions/2/routing")["layers"][0]["rows"], 1)
        self.assertEqual(self.get("/v2/models/tiny/versions/10/routing")["layers"][0]["rows"], 0)


def js_bits(p, q):
    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def psi(p, n, q, m):
    p, q = (p * n + 0.5) / (n + len(p) / 2), (q * m + 0.5) / (m + len(q) / 2)
    return ((p - q) * np.log(p / q)).sum()


def p_value(p, n, q, m):
    """Of two degrees of freedom, whose chi-square has a closed form."""
    pooled = (p * n + q * m) / (n + m)
    assert (pooled * min(n, m)).min() >= 5
    return math.exp(-sum((count * share * np.log(share / pooled)).sum() for share, count in ((p, n), (q, m))))


class DriftTest(RoutingCase):
    def test_against_the_reference(self):
        rows = np.random.default_rng(9).normal(size=(90, 4))
        self.assertEqual(self.client.predict("referred", rows.tolist()).status, 200)
        page = Metrics(self.client.get("/metrics").body.decode())
        for layer, key, reference in zip(self.get("/v2/models/referred/routing?window=5m")["layers"],
                                         ("weight_share", "share"), (Referred.weight, Referred.share)):
            shares = np.array([expert[key] for expert in layer["experts"]])
            drift = layer["drift"]["reference"]
            self.assertAlmostEqual(drift["js_bits"], js_bits(shares, np.array(reference)), delta=1e-9)
            self.assertAlmostEqual(drift["psi"], psi(shares, 90, np.array(reference), 400), delta=1e-9)
            self.assertAlmostEqual(drift["p_value"], p_value(shares, 90, np.array(reference), 400), delta=1e-9)
            self.assertIsNone(layer["drift"]["previous"])
            for name, value in drift.items():
                self.assertAlmostEqual(page.value(f"moed_layer_drift_{name}", model="referred", version="1",
                                                  layer=layer["name"], window="5m"), value, delta=1e-12)

    def test_without_a_reference(self):
        self.client.predict("tiny", [[1, 2, 3, 4]])
        (layer,) = self.get("/v2/models/tiny/routing")["layers"]
        self.assertEqual(layer["drift"], {"reference": None, "previous": None})
        page = Metrics(self.client.get("/metrics").body.decode())
        self.assertEqual(page.series("moed_layer_drift_psi"), [])


class ShippedTest(ServerCase):
    """What is shipped knows how it routes good data, also where a gate uses every expert: by weights."""

    models = None

    def test_good_rows_are_no_drift(self):
        with gzip.open(os.path.join(ROOT, "tests", "data", "samples", "t10k-images-idx3-ubyte.gz")) as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16)[:300 * 784].reshape(-1, 1, 28, 28)
        client = self.new_client()
        for model in ("mnist", "mnist-attentive"):
            for part in np.split(images, 3):
                self.assertEqual(client.predict(model, part.tolist()).status, 200)
            answer = client.get(f"/v2/models/{model}/routing")
            (layer,) = answer.json["layers"]
            drift = layer["drift"]["reference"]
            self.assertIsNotNone(drift, model)
            self.assertLess(drift["psi"], 0.1, model)
            self.assertGreater(drift["p_value"], 0.001, model)
            # the same digit again and again is none of that
            for _ in range(3):
                self.assertEqual(client.predict(model, np.repeat(images[:1], 100, axis=0).tolist()).status, 200)
            (layer,) = client.get(f"/v2/models/{model}/routing").json["layers"]
            self.assertLess(layer["drift"]["reference"]["p_value"], 0.001, model)

    def test_every_mixture_has_one(self):
        for model in ("adult-mmoe", "clusters", "fashion-mnist", "fashion-mnist-attentive", "mnist", "mnist-attentive"):
            with open(os.path.join(SHIPPED_MODELS, model, "config.json"), encoding="utf-8") as file:
                for gate, reference in json.load(file)["routing_reference"].items():
                    self.assertEqual(list(reference), ["share", "weight", "probability", "rows"], (model, gate))


if __name__ == "__main__":
    unittest.main()
