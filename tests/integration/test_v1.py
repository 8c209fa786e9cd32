"""KServe V1 predict, with and without routing."""

import os
import unittest

import numpy as np

from support.fashion import LABELS, test_set
from support.models import Tiny, TwoLayers
from support.server import ServerCase

ROWS = np.random.default_rng(4).normal(size=(6, 4)).astype(np.float32)


class PredictTest(ServerCase):
    options = {"threads": 1}

    @staticmethod
    def models(directory):
        Tiny(seed=1).write(os.path.join(directory, "tiny", "1"))
        Tiny(seed=50).write(os.path.join(directory, "tiny", "12"))
        TwoLayers().write(os.path.join(directory, "two-layers"))

    def test_predictions(self):
        answer = self.client.predict("tiny", ROWS.tolist())
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(list(answer.json), ["predictions"])
        np.testing.assert_allclose(answer.json["predictions"], Tiny(seed=50).moe.forward(ROWS)[0], atol=1e-5)

    def test_version_in_the_path_and_the_latest_by_number(self):
        for version, seed in ((1, 1), (12, 50), (None, 50)):
            with self.subTest(version):
                answer = self.client.predict("tiny", ROWS.tolist(), version=version)
                np.testing.assert_allclose(answer.json["predictions"], Tiny(seed=seed).moe.forward(ROWS)[0], atol=1e-5)

    def test_routing(self):
        answer = self.client.predict("tiny", ROWS.tolist(), version=1, routing=True)
        self.assertEqual(list(answer.json), ["predictions", "routing"])
        _, experts, weights, _ = Tiny(seed=1).moe.forward(ROWS)
        self.assertEqual(answer.json["routing"]["moe"]["experts"], experts.tolist())
        np.testing.assert_allclose(answer.json["routing"]["moe"]["weights"], weights, atol=1e-5)

    def test_routing_of_every_layer(self):
        rows = np.random.default_rng(5).normal(size=(3, 6)).astype(np.float32)
        routing = self.client.predict("two-layers", rows.tolist(), routing=True).json["routing"]
        _, first, second = TwoLayers().forward(rows)
        self.assertEqual(routing["first"]["experts"], first[1].tolist())
        self.assertEqual(routing["second"]["experts"], second[1].tolist())

    def test_routing_false_is_no_routing(self):
        self.assertEqual(list(self.client.predict("tiny", ROWS.tolist(), routing=False).json), ["predictions"])


class ShippedModelsTest(ServerCase):
    """The examples of the README, also against a running server."""

    def test_an_image_and_who_saw_it(self):
        images, labels = test_set()
        for model in ("fashion-mnist", "fashion-mnist-attentive"):
            with self.subTest(model):
                answer = self.client.predict(model, images[:20].tolist(), routing=True)
                self.assertEqual(answer.status, 200, answer.body)
                predictions = np.array(answer.json["predictions"])
                self.assertEqual(predictions.shape, (20, len(LABELS)))
                np.testing.assert_allclose(predictions.sum(axis=1), 1, atol=1e-5)
                self.assertGreaterEqual((predictions.argmax(axis=1) == labels[:20]).sum(), 16)
                weights = np.array(answer.json["routing"]["moe"]["weights"])
                np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


if __name__ == "__main__":
    unittest.main()
