"""Routing statistics: every figure of the document equals a recomputation from the rows' own routing."""

import json
import math
import os
import unittest

import numpy as np

from support.http import Client, Connection, request_bytes
from support.models import LinearMoe, Tiny, TwoLayers, write_checkpoint
from support.prometheus import Metrics
from support.server import ServerCase

WINDOWS = ("1m", "5m", "1h", "all")


class Referred(Tiny):
    """A model that knows how good data was routed, and one gate that uses every expert."""

    share, weight, rows = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], 400

    def write(self, directory):
        dense = LinearMoe("dense", self.inputs, self.inputs, experts=3, top_k=3, seed=40)
        reference = {"dense": {"share": [1, 1, 1], "weight": self.weight, "rows": self.rows},
                     "moe": {"share": self.share, "rows": self.rows}}
        write_checkpoint(directory, {"input": {"name": "x", "shape": [self.inputs]},
                                     "layers": [dense.layer(), self.moe.layer()], "output": {"name": "y"},
                                     "routing_reference": reference}, {**dense.tensors(), **self.moe.tensors()})


class RoutingCase(ServerCase):
    options = {"admin": "true"}

    @staticmethod
    def models(directory):
        Tiny(seed=1).write(os.path.join(directory, "tiny", "2"))
        Tiny(seed=2).write(os.path.join(directory, "tiny", "10"))
        TwoLayers().write(os.path.join(directory, "two-layers"))
        Referred().write(os.path.join(directory, "referred"))

    def setUp(self):
        self.server = self.start()
        self.addCleanup(self.server.stop)
        self.client = self.new_client()

    def get(self, path):
        answer = self.client.get(path)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def routed(self, rows):
        """Sends the rows and returns what each gate did with them: (experts [n, k], weights [n, k]) by name."""
        experts, weights = {}, {}
        for part in np.split(rows, [1, 30]):
            request = {"inputs": [{"name": "x", "shape": list(part.shape), "datatype": "FP32",
                                   "data": part.ravel().tolist()}],
                       "outputs": [{"name": f"routing.{layer}.{what}"} for layer in ("first", "second")
                                   for what in ("experts", "weights")]}
            answer = self.client.infer("two-layers", request)
            self.assertEqual(answer.status, 200, answer.body)
            for output in answer.json["outputs"]:
                _, layer, what = output["name"].split(".")
                into, kind = (experts, np.int64) if what == "experts" else (weights, np.float32)
                into.setdefault(layer, []).append(np.array(output["data"], kind).reshape(output["shape"]))
        return {layer: (np.concatenate(experts[layer]), np.concatenate(weights[layer])) for layer in experts}


def entropy(shares):
    return -sum(share * math.log2(share) for share in shares if share > 0)


def in_units(values):
    """The sum of each column as the server keeps it: every number rounded to 2^-32."""
    return np.rint(values.astype(np.float64) * 2 ** 32).sum(axis=0) / 2 ** 32


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
        total = np.abs(weights.astype(np.float64)).sum()
        for i, expert in enumerate(layer["experts"]):
            mine = weights[chosen == i].astype(np.float64)
            self.assertEqual(expert["selected"], len(mine))
            self.assertEqual(expert["top1"], int((chosen[:, 0] == i).sum()))
            self.assertAlmostEqual(expert["share"], len(mine) / (rows * top_k), delta=1e-9)
            self.assertAlmostEqual(expert["weight"], mine.sum(), delta=1e-9 * rows)
            self.assertAlmostEqual(expert["weight_share"], np.abs(mine).sum() / total, delta=1e-9)
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


def dispatch_entropy_bits(counts):
    """H(class | expert) of counts [experts][classes]."""
    counts = np.array(counts)
    return sum(row.sum() / counts.sum() * entropy(row / row.sum()) for row in counts if row.sum())


def mi_bits(counts):
    p = np.array(counts) / np.sum(counts)
    return entropy(p.sum(axis=0)) + entropy(p.sum(axis=1)) - entropy(p.ravel())


def table_of(first, classes, n):
    return [[int(((first == i) & (classes == c)).sum()) for c in range(3)] for i in range(n)]


class IncludeTest(RoutingCase):
    everything = "ranks,pairs,lifts,classes,margins,entropies,coverage,batches,cache,phases,exact,drift"

    def test_by_numpy(self):
        rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32)
        truth = np.random.default_rng(7).integers(0, 3, 90)
        answer = self.client.predict("two-layers", rows.tolist(), routing=True, labels=truth.tolist()).json
        predicted = np.argmax(np.array(answer["predictions"], np.float32), axis=1)
        _, *references = TwoLayers().forward(rows)
        document = self.get(f"/v2/models/two-layers/routing?include={self.everything}")
        for layer, reference, n in zip(document["layers"], references, (4, 5)):
            chosen = np.array(answer["routing"][layer["name"]]["experts"])
            with self.subTest(layer["name"]):
                self.check_choices(layer, chosen, n)
                self.check_classes(layer["classes"], chosen[:, 0], predicted, n)
                self.check_classes(layer["classes"]["truth"], chosen[:, 0], truth, n)
                right = predicted == truth
                self.assertEqual(layer["classes"]["truth"]["correct"], table_of(chosen[right, 0], truth[right], n))
                self.assertEqual(layer["classes"]["labels"], TwoLayers.labels)
                self.check_histograms(layer, reference[3], n)

    def check_choices(self, layer, chosen, n):
        k = chosen.shape[1]
        self.assertEqual(layer["ranks"], [[int((chosen[:, rank] == i).sum()) for rank in range(k)] for i in range(n)])
        used = [(chosen == i).any(axis=1) for i in range(n)]
        pairs = [[i, j, int((used[i] & used[j]).sum())] for i in range(n) for j in range(i + 1, n)]
        self.assertEqual(layer["pairs"], [pair for pair in pairs if pair[2]] if k > 1 else None)
        if k == 1:
            self.assertIsNone(layer["lifts"])
        else:
            np.testing.assert_allclose(layer["lifts"], [both / 90 / (used[i].mean() * used[j].mean()) for i, j, both in layer["pairs"]],
                                       atol=1e-9)
        shares = np.sort([expert["share"] for expert in layer["experts"]])[::-1].cumsum()
        self.assertEqual([point["experts"] for point in layer["coverage"]], list(range(1, n + 1)))
        np.testing.assert_allclose([point["share"] for point in layer["coverage"]], shares, atol=1e-9)
        batches = layer["batches"]
        self.assertAlmostEqual(batches["count"] * batches["mean_rows"], 90, delta=1e-9)
        self.assertLessEqual(batches["mean_experts"], n)
        self.assertEqual(sum(batches["experts"]), batches["count"])
        self.assertAlmostEqual(np.average(range(1, n + 1), weights=batches["experts"]), batches["mean_experts"], delta=1e-9)
        self.assertIsNone(layer["phases"])

    def check_classes(self, table, first, classes, n):
        counts = table_of(first, classes, n)
        self.assertEqual(table["counts"], counts)
        self.assertAlmostEqual(table["mi_bits"], mi_bits(counts), delta=1e-9)
        self.assertAlmostEqual(table["dispatch_entropy_bits"], dispatch_entropy_bits(counts), delta=1e-9)

    def check_histograms(self, layer, p, n):
        first, second = np.sort(p, axis=1)[:, [-1, -2]].T
        bits = -(p * np.log2(p)).sum(axis=1)
        for name, values, most in (("margins", first - second, 1), ("entropies", bits, math.log2(n))):
            np.testing.assert_allclose(layer[name]["bounds"], np.linspace(0, most, 21), atol=1e-9)
            self.assertEqual(layer[name]["counts"], np.histogram(values, 20, (0, most))[0].tolist(), name)

    def test_only_what_is_asked_for(self):
        (layer,) = self.get("/v2/models/tiny/routing?include=ranks")["layers"]
        self.assertIn("ranks", layer)
        self.assertNotIn("pairs", layer)
        self.assertNotIn("ranks", self.get("/v2/models/tiny/routing")["layers"][0])

    def test_reset(self):
        self.client.predict("tiny", [[1, 2, 3, 4]])
        answer = self.client.post("/v2/models/tiny/routing/reset", b"")
        self.assertEqual((answer.status, answer.json), (200, {"reset": True}))
        for window in WINDOWS:
            document = self.get(f"/v2/models/tiny/routing?window={window}&include={self.everything}")
            self.assertEqual((document["rows"], document["layers"][0]["batches"]["count"]), (0, 0))
        self.client.predict("tiny", [[1, 2, 3, 4]] * 2)
        self.assertEqual(self.get("/v2/models/tiny/routing")["rows"], 2)
        page = Metrics(self.client.get("/metrics").body.decode())
        self.assertEqual(page.value("moed_layer_rows_total", model="tiny", version="10", layer="moe"), 3)
        self.assertEqual(self.client.get("/v2/models/tiny/routing/reset").status, 405)


def simulated(sequence, size, policy):
    """The hits of one cache, looked up one by one."""
    held, hits, uses = set(), 0, {}
    for now, expert in enumerate(sequence):
        hits += expert in held
        if expert not in held and len(held) == size:
            def worth(e):
                last = max(i for i in range(now) if sequence[i] == e)
                if policy == "belady":
                    return -next((i for i in range(now, len(sequence)) if sequence[i] == e), len(sequence))
                return last if policy == "lru" else (uses[e], last)
            held.remove(min(held, key=worth))
        held.add(expert)
        uses[expert] = uses.get(expert, 0) + 1
    return hits


class CacheTest(RoutingCase):
    def test_by_simulation(self):
        rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32)
        routed = self.routed(rows)
        document = self.get("/v2/models/two-layers/routing?include=cache")
        for layer, sizes in zip(document["layers"], ([1, 2], [1, 2, 4])):
            sequence = routed[layer["name"]][0].ravel().tolist()
            self.assertEqual([entry["size"] for entry in layer["cache"]], sizes)
            for entry in layer["cache"]:
                for policy in ("lru", "lfu", "belady"):
                    self.assertAlmostEqual(entry[policy] * len(sequence), simulated(sequence, entry["size"], policy),
                                           delta=1e-9, msg=f"{layer['name']} {entry} {policy}")

    def test_nothing_to_say(self):
        """Before the first row, and of a gate that uses every expert."""
        self.assertIsNone(self.get("/v2/models/tiny/routing?include=cache")["layers"][0]["cache"])
        self.client.predict("referred", [[1, 2, 3, 4]] * 3)
        dense, sparse = self.get("/v2/models/referred/routing?include=cache")["layers"]
        self.assertIsNone(dense["cache"])
        self.assertEqual([entry["size"] for entry in sparse["cache"]], [1, 2])
        self.client.post("/v2/models/referred/routing/reset", b"")
        self.assertIsNone(self.get("/v2/models/referred/routing?include=cache")["layers"][1]["cache"])

    def test_only_the_latest_uses(self):
        for _ in range(20):
            self.client.predict("tiny", [[1, 2, 3, 4]] * 1000)
        (entry, _) = self.get("/v2/models/tiny/routing?include=cache")["layers"][0]["cache"]
        self.assertIn(round(entry["lru"] * 16384) , (0, 16383))  # one expert always, or two in turn


class RecorderTest(RoutingCase):
    """SGLang's three routes: what they answer is read as SGLang does, torch.tensor(record["logical_count"])."""

    def ask(self, what, query="", method="POST"):
        path = f"/{what}_expert_distribution_record{query}"
        return self.client.get(path) if method == "GET" else self.client.post(path, b"")

    def counts(self):
        answer = self.ask("dump", "?model=tiny")
        self.assertEqual((answer.status, list(answer.json)), (200, ["logical_count"]), answer.body)
        counts = np.array(answer.json["logical_count"])
        self.assertEqual((counts.shape, counts.dtype), ((1, 3), np.int64))
        return counts[0].tolist()

    def send(self, rows, **members):
        answer = self.client.predict("tiny", rows.tolist(), routing=True, **members).json
        return np.bincount(np.array(answer["routing"]["moe"]["experts"]).ravel(), minlength=3).tolist()

    def test_a_recording(self):
        rows = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)
        self.send(rows)
        for method in ("GET", "POST"):
            self.assertEqual(self.ask("start", method=method).body, b"Start recording the expert distribution.\n")
        first, second = self.send(rows[:10]), self.send(rows[10:15], tag="a")
        self.assertEqual(self.counts(), np.add(first, second).tolist())
        third = self.send(rows[15:])  # a dump begins anew
        self.assertEqual(self.ask("stop").body, b"Stop recording the expert distribution.\n")
        self.send(rows)
        self.assertEqual(self.counts(), third)
        answer = self.ask("dump", "?model=tiny")
        self.assertEqual(answer.status, 400)
        self.assertIn("nothing of 'tiny' is recorded: begin with /start_expert", answer.json["error"])

    def test_what_is_no_matrix(self):
        self.ask("start")
        for query, status, message in (("", 400, "models are served: name one, as in ?model="),
                                       ("?model=two-layers", 400, "layer 'first' has 4 experts and 'second' 5"),
                                       ("?model=none", 404, "none"),
                                       ("?window=1m", 400, "unknown query parameter 'window', expected model")):
            answer = self.ask("dump", query, "GET")
            self.assertEqual(answer.status, status, answer.body)
            self.assertIn(message, answer.json["error"])


class TagTest(RoutingCase):
    options = {"max_tags": 2}
    row = [[1, 2, 3, 4]]

    def rows_of(self, tag):
        return self.get(f"/v2/models/tiny/routing?tag={tag}")["rows"]

    def test_header_and_body(self):
        request = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        for status, answer in (
                (200, self.client.predict("tiny", self.row)),
                (200, self.client.predict("tiny", self.row * 2, tag="a")),
                (200, self.client.infer("tiny", {**request, "parameters": {"tag": "a"}})),
                (200, self.client.post("/v1/models/tiny:predict", {"instances": self.row}, {"Moed-Tag": "b-1"})),
                (200, self.client.post("/v1/models/tiny:predict", {"instances": self.row, "tag": "a"},
                                       {"Moed-Tag": "b-1"})),
                (400, self.client.predict("tiny", self.row, tag="")),
                (400, self.client.predict("tiny", self.row, tag=7)),
                (400, self.client.infer("tiny", {**request, "parameters": {"tag": "a b"}})),
                (400, self.client.post("/v1/models/tiny:predict", {"instances": self.row}, {"Moed-Tag": "x" * 65}))):
            self.assertEqual(answer.status, status, answer.body)
        self.assertEqual((self.rows_of("a"), self.rows_of("b-1")), (4, 1))
        document = self.get("/v2/models/tiny/routing")
        self.assertEqual((document["rows"], document["tags"]), (6, ["a", "b-1"]))
        self.assertEqual(document["layers"][0]["rows"], 6)
        page = Metrics(self.client.get("/metrics").body.decode())
        for tag, rows in (("", 1), ("a", 4), ("b-1", 1), ("other", 0)):
            self.assertEqual(page.value("moed_tag_rows_total", model="tiny", version="10", tag=tag), rows)
        self.assertEqual(page.value("moed_layer_rows_total", model="tiny", version="10", layer="moe"), 6)

    def test_many_tags_are_one(self):
        for i in range(300):
            self.client.post("/v1/models/tiny:predict", {"instances": self.row}, {"Moed-Tag": f"tag{i}"})
        document = self.get("/v2/models/tiny/routing")
        self.assertEqual((document["rows"], document["tags"]), (300, ["tag0", "tag1", "other"]))
        self.assertEqual((self.rows_of("tag0"), self.rows_of("other")), (1, 298))
        answer = self.client.get("/v2/models/tiny/routing?tag=tag2")
        self.assertEqual((answer.status, answer.json["error"]), (400, "tag is 'tag2', and no request with it was counted"))

    def test_what_is_refused_takes_no_place(self):
        for i in range(5):
            tagged = {"Moed-Tag": f"bad{i}"}
            self.assertEqual(self.client.post("/v1/models/tiny:predict", {"instances": [[1, 2, 3]]}, tagged).status, 400)
            self.assertEqual(self.client.post("/v1/models/tiny:predict", b'{"instances": [[1,2,3,x]]}', tagged).status, 400)
        self.client.predict("tiny", self.row, tag="good")
        self.assertEqual(self.get("/v2/models/tiny/routing")["tags"], ["good"])

    def test_rows_of_one_batch_count_apart(self):
        """Requests of three kinds, sent together."""
        kinds = [{"Moed-Tag": "a"}, {"Moed-Statistics": "off"}, {}]
        with Connection(self.server.port) as connection:
            body = json.dumps({"instances": self.row * 3}).encode()
            connection.send(b"".join(request_bytes("POST", "/v1/models/tiny:predict", body, kinds[i % 3])
                                     for i in range(60)))
            for _ in range(60):
                self.assertEqual(connection.answer().status, 200)
        self.assertEqual((self.get("/v2/models/tiny/routing")["rows"], self.rows_of("a")), (120, 60))

    def test_off(self):
        def ask(word):
            return self.client.post("/v1/models/tiny:predict", {"instances": self.row, "tag": "a"},
                                    {"Moed-Statistics": word})
        self.assertEqual([ask(word).status for word in ("off", "OFF", "on", "no")], [200, 200, 200, 400])
        document = self.get("/v2/models/tiny/routing")
        self.assertEqual((document["rows"], document["tags"], document["layers"][0]["rows"]), (1, ["a"], 1))
        page = Metrics(self.client.get("/metrics").body.decode())
        self.assertEqual(page.value("moed_rows_total", model="tiny", version="10"), 3)

    def test_looking_changes_nothing(self):
        """Counted or not, under a tag or not, looked at or not: the same bytes."""
        rows = np.random.default_rng(3).normal(size=(20, 6)).tolist()
        body = json.dumps({"instances": rows, "routing": True}).encode()
        answers = set()
        for headers in ({}, {"Moed-Statistics": "off"}, {"Moed-Tag": "a"}, {}):
            answers.add(self.client.post("/v1/models/two-layers:predict", body, headers).body)
            self.get("/v2/models/two-layers/routing?window=1m")
        self.assertEqual(len(answers), 1)


class QueryTest(RoutingCase):
    def test_one_layer(self):
        (layer,) = self.get("/v2/models/two-layers/routing?layer=second")["layers"]
        self.assertEqual((layer["name"], len(layer["experts"])), ("second", 5))

    def test_what_does_not_exist(self):
        for query, message in (("window=2m", "window is '2m', expected 1m, 5m, 1h or all"),
                               ("window=", "window is '', expected 1m, 5m, 1h or all"),
                               ("window=" + "1" * 100, "window"),
                               ("window=%zz", "window"),
                               ("include=ranks,rank", "include has 'rank', expected ranks, pairs, lifts, "),
                               ("include=,", "include has ','"),
                               ("tag=nobody", "tag is 'nobody', and no request with it was counted"),
                               ("layer=third", "layer is 'third', and no gate of the model is called so"),
                               ("window=1m&windows=5m", "unknown query parameter 'windows', expected window, layer, "
                                                        "tag or include"),
                               ("=1", "unknown query parameter ''")):
            answer = self.client.get(f"/v2/models/two-layers/routing?{query}")
            self.assertEqual(answer.status, 400, answer.body)
            self.assertIn(message, answer.json["error"])
        answer = self.client.get("/v2/models/two-layers/routing/live?tag=a")
        self.assertEqual((answer.status, answer.json["error"]), (400, "unknown query parameter 'tag', expected window"))
        answer = self.client.post("/v2/models/two-layers/routing/reset?tag=a", b"")
        self.assertEqual((answer.status, answer.json["error"]), (400, "unknown query parameter 'tag', expected none"))
        self.get("/v2/models/two-layers/routing?&window=1m&")


if __name__ == "__main__":
    unittest.main()
