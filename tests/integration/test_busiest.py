"""Pairs of a gate that has too many experts for a table of all: among the busiest, recomputed from the rows' own routing."""

import json
import os
import tempfile
import time
import unittest

import numpy as np

from support.http import Client
from support.models import LinearMoe, write_checkpoint
from support.moectl import moectl, needs_moectl
from support.server import Server

INPUTS, EXPERTS, TOP_K, SIDE = 8, 300, 3, 256
PATH = "/v2/models/many/routing"


def rows_of(seed, count):
    return np.random.default_rng(seed).normal(size=(count, INPUTS)).astype(np.float32)


def busiest_of(chosen):
    """Of several with as many selections the lower ones."""
    selected = np.bincount(chosen.ravel(), minlength=EXPERTS)
    return np.sort(np.lexsort((np.arange(EXPERTS), -selected))[:SIDE])


def counts_of(chosen, busiest):
    """(rows of each pair of the busiest, rows of each of them, pairs outside)."""
    used = np.zeros((len(chosen), EXPERTS), np.int64)
    np.put_along_axis(used, chosen, 1, axis=1)
    both = used.T @ used
    within = both[np.ix_(busiest, busiest)]
    pairs = {(int(busiest[i]), int(busiest[j])): int(within[i, j]) for i, j in zip(*np.nonzero(np.triu(within, 1)))}
    return pairs, np.diag(within), len(chosen) * TOP_K * (TOP_K - 1) // 2 - sum(pairs.values())


class BusiestTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="moed-busiest-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        moe = LinearMoe("moe", INPUTS, 2, experts=EXPERTS, top_k=TOP_K, seed=5)
        moe.gate /= np.linalg.norm(moe.gate, axis=1, keepdims=True) / 3  # nearly every expert is the nearest of some rows
        write_checkpoint(os.path.join(self.directory, "models", "many"),
                         {"input": {"name": "x", "shape": [INPUTS]}, "layers": [moe.layer()], "output": {"name": "y"}}, moe.tensors())

    def start(self, state):
        server = Server(os.path.join(self.directory, "models"), state=os.path.join(self.directory, state), admin="true", loops=2)
        self.addCleanup(server.kill)
        # one connection for each loop, or so
        self.clients = [Client(server.port) for _ in range(4)]
        for client in self.clients:
            self.addCleanup(client.close)
        return server

    def send(self, rows):
        """Returns what was chosen for each row, in parts that the loops share."""
        chosen = []
        for i, part in enumerate(np.array_split(rows, 8)):
            answer = self.clients[i % 4].predict("many", part.tolist(), routing=True)
            self.assertEqual(answer.status, 200, answer.body)
            chosen.append(np.array(answer.json["routing"]["moe"]["experts"]))
        return np.concatenate(chosen)

    def layer(self):
        answer = self.clients[0].get(f"{PATH}?include=pairs,lifts,ranks")
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json["layers"][0]

    def await_choice(self):
        deadline = time.monotonic() + 30
        while not self.layer()["pairs_of"]:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.2)

    def check(self, layer, chosen, busiest):
        pairs, alone, outside = counts_of(chosen, busiest)
        self.assertEqual([index for index, _ in layer["pairs_of"]["experts"]], busiest.tolist())
        self.assertEqual([rows for _, rows in layer["pairs_of"]["experts"]], alone.tolist())
        self.assertEqual((layer["pairs_of"]["rows"], layer["pairs_of"]["outside"]), (len(chosen), outside))
        self.assertEqual({(i, j): rows for i, j, rows in layer["pairs"]}, pairs)
        rows = dict(layer["pairs_of"]["experts"])
        np.testing.assert_allclose(layer["lifts"], [both * len(chosen) / (rows[i] * rows[j]) for i, j, both in layer["pairs"]],
                                   rtol=1e-9)

    def test_by_numpy(self):
        server = self.start("state")
        first = self.send(rows_of(1, 1000))  # 3,000 selections: too few
        self.assertEqual([self.layer()[key] for key in ("pairs", "lifts", "pairs_of")], [None] * 3)
        first = np.concatenate([first, self.send(rows_of(2, 1000))])
        self.await_choice()
        busiest = busiest_of(first)
        then = self.send(rows_of(3, 700))
        layer = self.layer()
        self.check(layer, then, busiest)
        self.assertGreater(layer["pairs_of"]["outside"], 0)
        self.assertGreater(layer["pairs_of"]["seconds"], 0)
        self.assertLess(layer["pairs_of"]["seconds"], 60)
        server.stop()
        server = self.start("state")
        self.check(self.layer(), then, busiest)
        then = np.concatenate([then, self.send(rows_of(4, 300))])
        self.check(self.layer(), then, busiest)
        self.assertEqual(self.clients[0].post(f"{PATH}/reset", b"").status, 200)
        self.assertEqual([self.layer()[key] for key in ("pairs", "pairs_of")], [None] * 2)
        again = self.send(rows_of(5, 2000) + 1)
        self.await_choice()
        then = self.send(rows_of(6, 100))
        self.check(self.layer(), then, busiest_of(again))
        self.assertNotEqual(busiest_of(again).tolist(), busiest.tolist())
        server.stop()

    @needs_moectl
    def test_replicas(self):
        """The sum is about the experts that both have, and what it leaves out it counts."""
        paths, sets, then = [], [], []
        for replica, rows in enumerate((rows_of(1, 2000), rows_of(2, 2000) + 1)):
            server = self.start(f"state-{replica}")
            sets.append(busiest_of(self.send(rows)))
            self.await_choice()
            then.append(self.send(rows[:900]))
            answer = self.clients[0].post(f"{PATH}/snapshot", b"")
            self.check(answer.json["layers"][0], then[-1], sets[-1])
            paths.append(os.path.join(self.directory, f"{replica}.json"))
            with open(paths[-1], "wb") as file:
                file.write(answer.body)
            server.stop()
        done = moectl("merge", *paths)
        self.assertEqual(done.returncode, 0, done.stderr)
        common = np.intersect1d(*sets)
        self.assertLess(len(common), SIDE)
        self.check(json.loads(done.stdout)["layers"][0], np.concatenate(then), common)
        report = moectl("report", paths[0])
        self.assertEqual(report.returncode, 0, report.stderr)


if __name__ == "__main__":
    unittest.main()
