"""Batching: rows of many clients are computed together, and answers do not depend on it: same row, same bits."""

import os
import threading
import unittest

import numpy as np

from support.fashion import test_set
from support.http import Client
from support.models import Tiny, TwoLayers, write_wide
from support.prometheus import Metrics
from support.server import ServerCase
from support.threads import run_threads


class BatchingCase(ServerCase):
    def metrics(self):
        return Metrics(self.client.get("/metrics").body.decode())


class ConcurrentTest(BatchingCase):
    """A model slow enough for the compute thread and its team, while requests gather."""

    options = {"threads": 2, "max_batch_rows": 16}
    width, clients, requests = 512, 8, 12

    @classmethod
    def models(cls, directory):
        write_wide(os.path.join(directory, "wide"), width=cls.width)
        Tiny().write(os.path.join(directory, "tiny"))

    def infer(self, client, rows):
        request = {"inputs": [{"name": "x", "shape": list(rows.shape), "datatype": "FP32",
                               "parameters": {"binary_data_size": rows.nbytes}}],
                   "outputs": [{"name": name, "parameters": {"binary_data": True}}
                               for name in ("y", "routing.moe.experts", "routing.moe.weights")]}
        answer = client.infer("wide", request, rows.tobytes())
        self.assertEqual(answer.status, 200, answer.body)
        tensors = answer.body[int(answer.headers["inference-header-content-length"]):]
        outputs, routing = len(rows) * self.width * 4, len(rows) * 2 * 4
        return (np.frombuffer(tensors[:outputs], "<f4").reshape(rows.shape),
                np.frombuffer(tensors[outputs:outputs + routing], "<i4").reshape(-1, 2),
                np.frombuffer(tensors[outputs + routing:], "<f4").reshape(-1, 2))

    def assert_same(self, got, expected):
        for mine, theirs in zip(got, expected):
            np.testing.assert_array_equal(mine, theirs)

    def test_concurrent_clients_get_what_they_get_alone(self):
        generator = np.random.default_rng(8)
        questions = [[generator.normal(size=(1 + (i + j) % 5, self.width)).astype(np.float32)
                      for j in range(self.requests)] for i in range(self.clients)]
        alone = [[self.infer(self.client, rows) for rows in mine] for mine in questions]
        before = self.metrics()

        def client(number):
            with Client(self.server.port) as mine:
                for rows, expected in zip(questions[number], alone[number]):
                    self.assert_same(self.infer(mine, rows), expected)

        run_threads(self.clients, client)
        after = self.metrics()
        labels = {"model": "wide", "version": "1"}
        rows = sum(len(rows) for mine in questions for rows in mine)
        batches = (after.value("moed_batch_rows_count", **labels) - before.value("moed_batch_rows_count", **labels))
        self.assertEqual(after.value("moed_rows_total", **labels) - before.value("moed_rows_total", **labels), rows)
        self.assertLess(batches, self.clients * self.requests, "no two requests were ever computed together")

    def test_small_models_do_not_wait_for_large_ones(self):
        stop = threading.Event()

        def load():
            rows = np.ones((16, self.width), np.float32)
            with Client(self.server.port) as mine:
                while not stop.is_set():
                    self.infer(mine, rows)

        loader = threading.Thread(target=load)
        loader.start()
        try:
            for _ in range(100):
                self.assertEqual(self.client.predict("tiny", [[1, 2, 3, 4]]).status, 200)
        finally:
            stop.set()
            loader.join()


class SameBitsTest(BatchingCase):
    """Whatever the batch size and the number of threads."""

    options = {"threads": 1, "max_batch_rows": 64}

    def served(self, client, model, images):
        names = ("probabilities", "routing.moe.experts", "routing.moe.weights")
        request = {"inputs": [{"name": "image", "shape": list(images.shape), "datatype": "UINT8",
                               "parameters": {"binary_data_size": images.nbytes}}],
                   "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in names]}
        answer = client.infer(model, request, images.tobytes())
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body[int(answer.headers["inference-header-content-length"]):]

    def test_shipped_models(self):
        images = test_set()[0][:200]
        models = ("fashion-mnist", "fashion-mnist-attentive")
        expected = {model: self.served(self.client, model, images) for model in models}
        for settings in ({"max_batch_rows": 1}, {"max_batch_rows": 7}, {"threads": 2}, {"threads": 3, "max_batch_rows": 200}):
            server = self.start(**settings)
            self.addCleanup(server.kill)
            with Client(server.port) as client:
                for model in models:
                    with self.subTest(model=model, **settings):
                        self.assertEqual(self.served(client, model, images), expected[model])
            server.stop()


class SplitTest(BatchingCase):
    options = {"max_batch_rows": 4, "max_request_rows": 1000}

    @staticmethod
    def models(directory):
        TwoLayers().write(os.path.join(directory, "two-layers"))

    def test_a_request_larger_than_a_batch(self):
        rows = np.random.default_rng(9).normal(size=(101, 6)).astype(np.float32)
        labels = {"model": "two-layers", "version": "1"}
        before = self.metrics().value("moed_batch_rows_count", **labels)
        answer = self.client.predict("two-layers", rows.tolist(), routing=True).json
        expected, first, second = TwoLayers().forward(rows)
        np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)
        self.assertEqual(answer["routing"]["first"]["experts"], first[1].tolist())
        self.assertEqual(answer["routing"]["second"]["experts"], second[1].tolist())
        page = self.metrics()
        self.assertEqual(page.value("moed_batch_rows_count", **labels) - before, 26)
        self.assertEqual(page.value("moed_batch_rows_bucket", le="4", **labels),
                         page.value("moed_batch_rows_count", **labels))

    def test_requests_share_batches(self):
        def client(number):
            generator = np.random.default_rng(100 + number)
            with Client(self.server.port) as mine:
                for _ in range(20):
                    rows = generator.normal(size=(generator.integers(1, 10), 6)).astype(np.float32)
                    predictions = mine.predict("two-layers", rows.tolist()).json["predictions"]
                    np.testing.assert_allclose(predictions, TwoLayers().forward(rows)[0], atol=1e-5)

        run_threads(8, client)


class DelayTest(BatchingCase):
    options = {"max_queue_delay_us": 300000, "max_batch_rows": 3, "loops": 1}

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))

    def test_a_batch_is_held_open_until_it_is_full(self):
        def client(number):
            with Client(self.server.port) as mine:
                self.assertEqual(mine.predict("tiny", [[number, 1, 1, 1]]).status, 200)

        run_threads(3, client)
        page = self.metrics()
        self.assertEqual(page.value("moed_batch_rows_count", model="tiny", version="1"), 1)
        self.assertEqual(page.value("moed_batch_rows_sum", model="tiny", version="1"), 3)

    def test_but_not_for_ever(self):
        self.assertEqual(self.client.predict("tiny", [[1, 2, 3, 4]]).status, 200)


if __name__ == "__main__":
    unittest.main()
