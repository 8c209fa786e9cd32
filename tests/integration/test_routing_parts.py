"""The parts of the routing document that are asked for by name (include=), recomputed from the rows' own routing."""

import math
import unittest

import numpy as np

from support.models import TwoLayers
from support.prometheus import Metrics
from support.routing import WINDOWS, RoutingCase, entropy


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


if __name__ == "__main__":
    unittest.main()
