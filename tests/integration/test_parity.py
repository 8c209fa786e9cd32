"""The whole Fashion-MNIST test set over HTTP against PyTorch: same accuracy, same routing, probabilities to 1e-5."""

import os
import sys
import unittest

import numpy as np

from support.fashion import test_set
from support.server import ROOT, SHIPPED_MODELS, ServerCase

sys.path.insert(0, os.path.join(ROOT, "clients", "python"))
try:
    import torch

    import moed.layers
    import moed.load
except ImportError as missing:
    if missing.name != "torch":
        raise
    torch = None

TOLERANCE = 1e-5
ROWS_PER_REQUEST = 500
# Two scores that are nearer than float32 can tell may change places between two correct implementations.
TIE = 1e-5


@unittest.skipUnless(torch, "PyTorch is missing: apt-get install python3-torch")
class ParityTest(ServerCase):
    def served(self, model, images):
        """(probabilities, experts, weights) from the server, with binary tensors both ways."""
        names = ("probabilities", "routing.moe.experts", "routing.moe.weights")
        parts = []
        for at in range(0, len(images), ROWS_PER_REQUEST):
            rows = images[at:at + ROWS_PER_REQUEST]
            request = {"inputs": [{"name": "image", "shape": list(rows.shape), "datatype": "UINT8",
                                   "parameters": {"binary_data_size": rows.nbytes}}],
                       "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in names]}
            answer = self.client.infer(model, request, rows.tobytes())
            self.assertEqual(answer.status, 200, answer.body)
            parts.append(self.split(answer, len(rows)))
        return [np.concatenate(columns) for columns in zip(*parts)]

    def split(self, answer, rows):
        tensors = answer.body[int(answer.headers["inference-header-content-length"]):]
        probabilities = np.frombuffer(tensors, "<f4", rows * 10).reshape(rows, 10)
        k = (len(tensors) - probabilities.nbytes) // (8 * rows)
        experts = np.frombuffer(tensors, "<i4", rows * k, probabilities.nbytes).reshape(rows, k)
        weights = np.frombuffer(tensors, "<f4", rows * k, probabilities.nbytes + experts.nbytes).reshape(rows, k)
        return probabilities, experts, weights

    def expected(self, model, images):
        """(probabilities, routing) from PyTorch; the routing is what the layer did in its forward pass."""
        module = moed.load.load(os.path.join(SHIPPED_MODELS, model))
        with torch.no_grad():
            probabilities = module(torch.from_numpy(images.copy())).numpy()
        (layer,) = (part for part in module.modules() if isinstance(part, moed.layers.MoE))
        return probabilities, layer.routing

    def check(self, model):
        images, labels = test_set()
        probabilities, experts, weights = self.served(model, images)
        expected, routing = self.expected(model, images)
        accuracy, expected_accuracy = ((p.argmax(axis=1) == labels).mean() for p in (probabilities, expected))
        difference = np.abs(probabilities - expected).max()
        alike = experts == routing.experts.numpy()
        print(f"\nparity: {model}: {len(images)} images, accuracy {accuracy:.4f} served, {expected_accuracy:.4f} PyTorch; "
              f"largest difference of a probability {difference:.1e}; {alike.all(axis=1).sum()} rows routed alike")
        self.assertLessEqual(difference, TOLERANCE)
        self.assertEqual(accuracy, expected_accuracy)
        np.testing.assert_allclose(weights, routing.weights.numpy(), atol=TOLERANCE)
        self.assert_ties(routing.probabilities.numpy(), experts, routing.experts.numpy(), ~alike)

    def assert_ties(self, gate, experts, expected, differs):
        """Where the choice differs, the gate could not tell the two experts apart."""
        rows, places = differs.nonzero()
        np.testing.assert_allclose(gate[rows, experts[rows, places]], gate[rows, expected[rows, places]], atol=TIE)

    def test_fashion_mnist(self):
        self.check("fashion-mnist")

    def test_fashion_mnist_attentive(self):
        self.check("fashion-mnist-attentive")


if __name__ == "__main__":
    unittest.main()
