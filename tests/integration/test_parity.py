"""Every recipe's model over HTTP against PyTorch: same answers to 1e-5, same routing, same statistics to 1e-4.

Those that are shipped answer their test sets: Fashion-MNIST comes from Debian's package and the clusters from their
generator; MNIST and Adult are samples of 1,000 rows, or the whole test sets in the directories that MOED_TEST_MNIST and
MOED_TEST_ADULT name. Those of CIFAR, which nobody has time to train in a test, are untrained and answer random images.
"""

import json
import os
import sys
import unittest

import numpy as np

from support import fashion
from support.server import ROOT, SHIPPED_MODELS, ServerCase

sys.path.insert(0, os.path.join(ROOT, "clients", "python"))
try:
    import torch

    import moed.loader
    from moed import layers, metrics
    from moed.exporter import export
    from moed.multitask import preprocess
    from recipes import adult, cifar, cifar100, clusters, idx, image_clusters
except ImportError as missing:
    if missing.name != "torch":
        raise
    torch = None

SAMPLES = os.path.join(ROOT, "tests", "data", "samples")
TOLERANCE = 1e-5
STATISTICS_TOLERANCE = 1e-4
ROWS_PER_REQUEST = 500
RANDOM_ROWS = 200
# Two scores closer than float32 resolves may swap between two correct implementations.
TIE = 1e-5
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}


def digits():
    images, labels = idx.read_set(os.environ.get("MOED_TEST_MNIST", SAMPLES), "t10k", "see tests/data/samples")
    return {"image": np.asarray(images, np.uint8).reshape(-1, 1, 28, 28)}, labels


def clothes():
    images, labels = fashion.test_set()
    return {"image": images}, labels


def census():
    inputs, labels = adult.read_set(os.environ.get("MOED_TEST_ADULT", SAMPLES), "adult.test")
    return {name: values.numpy() for name, values in inputs.items()}, labels["income"].numpy()


def patches():
    rows = clusters.data_of("s1")["test"]
    return {"patches": np.ascontiguousarray(rows.x, dtype=np.float32)}, np.asarray(rows.labels)


def random_images():
    random = np.random.default_rng(1)
    return {"image": random.integers(0, 256, (RANDOM_ROWS, 3, 32, 32), dtype=np.uint8)}, \
        random.integers(0, 10, RANDOM_ROWS)


def write_untrained(directory):
    """The CIFAR recipes' networks with random weights; their norms have seen some images."""
    torch.manual_seed(1)
    recipe = cifar100.Cifar100()
    plans = image_clusters.PLANS
    models = {"cifar10-single": image_clusters.build(plans["single-cnn-sgd"], 10),
              "cifar10-moe": image_clusters.build(plans["moe-cnn-ngd-rows"], 10),
              **{f"cifar100-{kind}": recipe.build(kind) for kind in ("single", "moe", "attentive")}}
    images = preprocess(torch.from_numpy(random_images()[0]["image"]).float(), cifar.PREPROCESS_10)
    with torch.no_grad():
        for name, model in models.items():
            for part, weight in model.named_parameters():
                if not weight.any():  # those of the router start at zero: all experts tie
                    weight.normal_(0, 0.02)
                if part.endswith("out.weight"):  # otherwise all answers are nearly equal
                    weight.mul_(len(weight))
            model.train()(images)
            export(model, torch.zeros(1, 3, 32, 32), os.path.join(directory, name), input_name="image",
                   preprocess=cifar.PREPROCESS_10, output_name="probabilities")


class Parity(ServerCase):
    directory = SHIPPED_MODELS

    # --- both sides -----------------------------------------------------------------------------------------------

    def ask(self, model, inputs, names):
        """{output: array} for some rows, with binary tensors both ways."""
        entries = [{"name": name, "shape": list(values.shape), "datatype": DATATYPES[values.dtype.name],
                    "parameters": {"binary_data_size": values.nbytes}} for name, values in inputs.items()]
        request = {"inputs": entries, "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in names]}
        answer = self.client.infer(model, request, b"".join(values.tobytes() for values in inputs.values()))
        self.assertEqual(answer.status, 200, answer.body)
        length, arrays = int(answer.headers["inference-header-content-length"]), {}
        tensors = answer.body[length:]
        for output in json.loads(answer.body[:length])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            kind = {"FP32": "<f4", "INT32": "<i4"}[output["datatype"]]
            arrays[output["name"]] = np.frombuffer(tensors[:size], kind).reshape(output["shape"])
            tensors = tensors[size:]
        return arrays

    def served(self, model, inputs):
        names = [output["name"] for output in self.client.get(f"/v2/models/{model}").json["outputs"]]
        rows = len(next(iter(inputs.values())))
        parts = [self.ask(model, {name: values[at:at + ROWS_PER_REQUEST] for name, values in inputs.items()}, names)
                 for at in range(0, rows, ROWS_PER_REQUEST)]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def expected(self, model, inputs):
        """({output: array}, {layer or layer.gate: Routing}) from PyTorch: what it did in its forward pass."""
        module = moed.loader.load(os.path.join(self.directory, model))
        tensors = {name: torch.from_numpy(values.copy()) for name, values in inputs.items()}
        with torch.no_grad():
            answers = module(tensors if len(tensors) > 1 else next(iter(tensors.values())))
        routing = {}
        for name, part in module.named_modules():
            name = name.rsplit(".", 1)[-1]
            if isinstance(part, layers.MoE):
                routing[name] = part.routing
            elif isinstance(part, layers.MultiGateMoE):
                routing.update({f"{name}.{gate}": one for gate, one in part.routing.items()})
        return answers, routing

    # --- comparing them -------------------------------------------------------------------------------------------

    def both(self, model, inputs):
        """(served, expected, its routing, the largest difference of an output)"""
        served = self.served(model, inputs)
        answers, routing = self.expected(model, inputs)
        if not isinstance(answers, dict):
            answers = {next(iter(served)): answers}
        difference = max(np.abs(served[name] - values.numpy()).max() for name, values in answers.items())
        return served, answers, routing, difference

    def check(self, model, data):
        inputs, labels = data()
        served, answers, routing, difference = self.both(model, inputs)
        self.assertLessEqual(difference, TOLERANCE)
        first = next(iter(answers))
        predicted, expected = served[first].argmax(axis=1), answers[first].numpy().argmax(axis=1)
        accuracy = (predicted == labels).mean()
        self.assertEqual(accuracy, (expected == labels).mean())
        print(f"\nparity: {model}: {len(labels)} rows, accuracy {accuracy:.4f} both, "
              f"largest difference of a probability {difference:.1e}")
        statistics = {layer["name"]: layer for layer in self.client.get(f"/v2/models/{model}/routing").json["layers"]}
        self.assertEqual(set(statistics), set(routing))
        for name, one in routing.items():
            self.check_routing(served, name, one)
            self.check_statistics(statistics[name], one, len(labels))
            self.check_information(served[f"routing.{name}.experts"][:, 0], predicted,
                                   one.experts.numpy()[:, 0], expected)
        return served

    def check_routing(self, served, name, routing):
        experts, expected = served[f"routing.{name}.experts"], routing.experts.numpy()
        np.testing.assert_allclose(served[f"routing.{name}.weights"], routing.weights.numpy(), atol=TOLERANCE)
        # If the choice differs, the gate could not distinguish the two experts.
        rows, places = (experts != expected).nonzero()
        p = routing.probabilities.numpy()
        np.testing.assert_allclose(p[rows, experts[rows, places]], p[rows, expected[rows, places]], atol=TIE)
        print(f"parity: {name}: {(experts == expected).all(axis=1).sum()} of {len(experts)} rows routed alike")

    def check_statistics(self, layer, routing, rows):
        p = routing.probabilities.numpy()
        self.assertEqual(layer["rows"], rows)
        self.assertLessEqual(abs(layer["usage_entropy_bits"] - metrics.usage_entropy_bits(p)), STATISTICS_TOLERANCE)
        self.assertLessEqual(abs(layer["gate_entropy_bits"] - metrics.gate_entropy_bits(p)), STATISTICS_TOLERANCE)

    def check_information(self, experts, classes, expected_experts, expected_classes):
        """I(E;Y) of the first choice and the predicted class."""
        sizes = int(max(experts.max(), expected_experts.max())) + 1, int(max(classes.max(), expected_classes.max())) + 1
        served = metrics.mutual_information_bits(experts, classes, *sizes)
        expected = metrics.mutual_information_bits(expected_experts, expected_classes, *sizes)
        print(f"parity: I(E;Y) {served:.4f} bits served, {expected:.4f} PyTorch")
        self.assertLessEqual(abs(served - expected), STATISTICS_TOLERANCE)


@unittest.skipUnless(torch, "PyTorch is missing: apt-get install python3-torch")
class ShippedTest(Parity):
    def test_fashion_mnist(self):
        self.check("fashion-mnist", clothes)

    def test_fashion_mnist_attentive(self):
        self.check("fashion-mnist-attentive", clothes)

    def test_mnist(self):
        self.check("mnist", digits)

    def test_mnist_attentive(self):
        self.check("mnist-attentive", digits)

    def test_adult_mmoe(self):
        self.check("adult-mmoe", census)

    def test_clusters(self):
        """Paper 2's dispatch entropy as well, from the routing in each row's answer."""
        served = self.check("clusters", patches)
        rows = clusters.data_of("s1")["test"]
        table = np.zeros((4, 8))
        np.add.at(table, (np.asarray(rows.clusters), served["routing.moe.experts"][:, 0]), 1)
        module = moed.loader.load(os.path.join(SHIPPED_MODELS, "clusters"))
        with torch.no_grad():
            module(torch.from_numpy(np.ascontiguousarray(rows.x, dtype=np.float32)))
        (layer,) = (part for part in module.modules() if isinstance(part, layers.MoE))
        expected = np.zeros((4, 8))
        np.add.at(expected, (np.asarray(rows.clusters), layer.routing.experts.numpy()[:, 0]), 1)
        entropy = metrics.dispatch_entropy_nats(table)
        print(f"parity: clusters: dispatch entropy {entropy:.4f} nats")
        self.assertLessEqual(abs(entropy - metrics.dispatch_entropy_nats(expected)), STATISTICS_TOLERANCE)


@unittest.skipUnless(torch, "PyTorch is missing: apt-get install python3-torch")
class EightBitTest(Parity):
    """What --weights int8 costs: the shipped models' accuracy. Gates route as before, where they see the input itself."""

    options = {"weights": "int8"}
    ACCURACY_TOLERANCE, SUSPICIOUS = 0.005, 1e-7

    def check(self, model, data):
        inputs, labels = data()
        served, answers, routing, difference = self.both(model, inputs)
        self.assertGreater(difference, self.SUSPICIOUS)  # otherwise nothing was rounded
        first = next(iter(answers))
        accuracy = (served[first].argmax(axis=1) == labels).mean()
        expected = (answers[first].numpy().argmax(axis=1) == labels).mean()
        print(f"\nparity: {model}, int8: {len(labels)} rows, accuracy {accuracy:.4f} served, {expected:.4f} PyTorch in "
              f"full, largest difference of a probability {difference:.1e}")
        self.assertLessEqual(abs(accuracy - expected), self.ACCURACY_TOLERANCE)
        return served, routing

    def test_plain_gates_route_as_before(self):
        for model, data in (("fashion-mnist", clothes), ("mnist", digits)):
            with self.subTest(model):
                served, routing = self.check(model, data)
                self.check_routing(served, "moe", routing["moe"])

    def test_other_models(self):
        for model, data in (("fashion-mnist-attentive", clothes), ("mnist-attentive", digits), ("adult-mmoe", census)):
            with self.subTest(model):
                self.check(model, data)


@unittest.skipUnless(torch, "PyTorch is missing: apt-get install python3-torch")
class UntrainedTest(Parity):
    models = staticmethod(write_untrained)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = cls._directory.name

    def test_every_model(self):
        for model in sorted(os.listdir(self.directory)):
            with self.subTest(model):
                self.check(model, random_images)


if __name__ == "__main__":
    unittest.main()
