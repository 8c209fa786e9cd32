"""Several event loops on one port: every connection is served, and statistics cover all loops."""

import threading
import time
import unittest

import numpy as np

from support.http import PATIENCE_SECONDS, Client
from support.models import Tiny
from support.server import ServerCase, run

LOOPS, CLIENTS, REQUESTS = 4, 24, 20


class LoopsTest(ServerCase):
    options = {"loops": LOOPS, "threads": 2}

    @staticmethod
    def models(directory):
        Tiny().write(f"{directory}/tiny")

    def client_thread(self, seed, failures):
        rows = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
        expected = Tiny().moe.forward(rows)[0]
        try:
            with Client(self.server.port) as client:
                for _ in range(REQUESTS):
                    answer = client.predict("tiny", rows.tolist())
                    np.testing.assert_allclose(answer.json["predictions"], expected, atol=1e-5)
        except Exception as failure:  # pylint: disable=broad-except
            failures.append(failure)

    def metric(self, name):
        page = self.client.get("/metrics").body.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name + "{"))

    def await_metric(self, name, value):
        """A request is counted once its answer is sent: another loop may be asked before that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.metric(name) != value and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(self.metric(name), value)

    def test_all_loops_serve_and_are_added_up(self):
        before = self.metric("moed_requests_total")
        failures = []
        threads = [threading.Thread(target=self.client_thread, args=(seed, failures)) for seed in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for _ in range(10):  # read while loops count
            self.client.get("/metrics")
            self.client.get("/v2/models/tiny/routing")
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.await_metric("moed_rows_total", CLIENTS * REQUESTS * 3)
        self.await_metric("moed_requests_total", before + CLIENTS * REQUESTS)
        layer = self.client.get("/v2/models/tiny/routing").json["layers"][0]
        self.assertEqual(layer["rows"], CLIENTS * REQUESTS * 3)
        self.assertEqual(sum(expert["selected"] for expert in layer["experts"]), CLIENTS * REQUESTS * 3 * layer["top_k"])

    def test_unknown_models_are_counted_once(self):
        before = self.metric("moed_requests_total")
        for _ in range(12):
            with Client(self.server.port) as client:
                self.assertEqual(client.predict("none", [[0]]).status, 404)
        self.await_metric("moed_requests_total", before + 12)

    def test_a_port_that_is_taken_is_not_shared(self):
        for loops in ("1", "2"):
            ended = run("serve", "--models", self._directory.name, "--port", str(self.server.port), "--loops", loops)
            self.assertEqual(ended.returncode, 1)
            self.assertIn("Address already in use", ended.stderr)


if __name__ == "__main__":
    unittest.main()
