"""The CIFAR recipes on random images: reading, one epoch, the checkpoint."""

import contextlib
import io
import os
import pickle
import tarfile
import tempfile
import unittest

import numpy as np
import torch
from torch import nn

from moed.layers import Gate, MoE
from moed.loader import load
from recipes import cifar, runner
from recipes.backbones import BACKBONES, set_mixed
from recipes.cifar10 import Cifar10
from recipes.cifar10_rotate import Cifar10Rotate, blurred, turned
from recipes.cifar100 import Cifar100
from recipes.dispatch import ZeroedMoE


def write_batch(path, rows, key, classes, seed):
    rng = np.random.default_rng(seed)
    content = {b"data": rng.integers(0, 256, (rows, 3072), dtype=np.uint8),
               key: [int(number) for number in np.arange(rows) % classes]}
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=2)
    return content


class CifarTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(torch.use_deterministic_algorithms, False)
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        self.folder = folder.name

    def write_10(self):
        for number, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
            content = write_batch(os.path.join(self.folder, name), 20, b"labels", 10, number)
        return content

    def train(self, recipe, *arguments):
        """(row, checkpoint directory)"""
        out = os.path.join(self.folder, "out")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runner.main(recipe, ["--data", self.folder, "--results", self.folder, "--out", out, "--seeds", "0",
                                 "--epochs", "1", "--variant", *arguments])
        return runner.read_json(os.path.join(self.folder, recipe.name, f"{arguments[0]}-seed0.json")), out

    def test_python_batches(self):
        content = self.write_10()
        sets = cifar.read_cifar10(self.folder)
        self.assertEqual(sets["train"][0].shape, (100, 3, 32, 32))
        images, labels = sets["test"]
        self.assertEqual(images[3, 1, 2, 5].item(), content[b"data"][3, 1024 + 2 * 32 + 5])
        self.assertEqual(labels.tolist(), content[b"labels"])

    def test_a_batch_that_calls_a_function_is_refused(self):
        self.write_10()
        with open(os.path.join(self.folder, "test_batch"), "wb") as file:
            pickle.dump(os.system, file)
        with self.assertRaisesRegex(pickle.UnpicklingError, "system has no place"):
            cifar.read_cifar10(self.folder)

    def test_archive_of_jpeg_files(self):
        try:
            from PIL import Image
        except ImportError:
            self.skipTest("Pillow is not installed")
        path = os.path.join(self.folder, "images.tar")
        with tarfile.open(path, "w") as archive:
            for part in ("train", "test"):
                for number, name in enumerate(("airplane", "frog")):
                    content = io.BytesIO()
                    Image.new("RGB", (32, 32), (200, 100, 20 + 50 * number)).save(content, "JPEG")
                    entry = tarfile.TarInfo(f"{part}/{name}/0000.jpg")
                    entry.size = content.tell()
                    content.seek(0)
                    archive.addfile(entry, content)
        images, labels = cifar.read_cifar10(path)["test"]
        self.assertEqual(labels.tolist(), [0, 6])
        self.assertEqual(images.shape, (2, 3, 32, 32))
        for channel, value in enumerate((200, 100, 70)):
            self.assertAlmostEqual(images[1, channel].float().mean().item(), value, delta=3)

    def test_missing_data_says_how_to_get_it(self):
        with self.assertRaisesRegex(cifar.DataMissing, "cifar-10-python.tar.gz"):
            cifar.read_cifar10(self.folder)

    def test_cifar10(self):
        self.write_10()
        for variant in ("single-cnn-sgd", "single-cnn-ngd", "moe-cnn-sgd", "moe-cnn-ngd-rows"):
            row, out = self.train(Cifar10(), variant)
            self.assertGreater(row["test_error"], 0)
            self.assertEqual(row["best_test_error"], min(row["test_errors"]))
            self.assertEqual(load(out)(torch.zeros(2, 3, 32, 32)).shape, (2, 10))

    def test_rotate_doubles_the_images(self):
        self.write_10()
        recipe = Cifar10Rotate()
        pixels, labels, classes = recipe.read(self.folder, "moe-cnn-ngd")["train"]
        self.assertEqual(pixels.shape, (200, 3, 32, 32))
        self.assertEqual(labels.sum().item(), 100)
        self.assertTrue(torch.equal(classes[:100], classes[100:]))
        row, out = self.train(recipe, "moe-cnn-ngd")
        self.assertAlmostEqual(sum(row["share"]), 1, places=5)
        self.assertEqual(sum(map(sum, row["dispatch"])), 40)
        self.assertEqual([sum(row["dispatch_by_label"][label]) for label in (0, 1)], [20, 20])
        self.assertEqual(load(out)(torch.zeros(2, 3, 32, 32)).shape, (2, 2))

    def test_an_interrupted_training_goes_on_with_the_same_bits(self):
        self.write_10()
        recipe = Cifar10Rotate()
        sets = recipe.read(self.folder, "moe-cnn-ngd")

        def job():
            torch.manual_seed(0)
            return recipe.job("moe-cnn-ngd", sets, None, 2)

        def trained(job, epochs):
            for _ in range(epochs):
                job.history.append(job.epoch())
            return job

        whole, state = trained(job(), 2), trained(job(), 1).state()
        resumed = job()
        resumed.restore(state)
        trained(resumed, 1)
        self.assertEqual((resumed.history, resumed.tests), (whole.history, whole.tests))
        for weight, other in zip(resumed.model.parameters(), whole.model.parameters()):
            self.assertTrue(torch.equal(weight, other))

    def test_a_zeroed_batch_is_routed_as_the_rows_are(self):
        gate = Gate(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), top_k=1)
        experts = [nn.Sequential(nn.Flatten(), nn.Linear(12, 3)) for _ in range(4)]
        zeroed, plain, images = ZeroedMoE(experts, gate), MoE(experts, gate), torch.randn(20, 3, 2, 2)
        for training in (True, False):
            self.assertTrue(torch.allclose(zeroed.train(training)(images), plain.train(training)(images), atol=1e-6))
        self.assertTrue(torch.equal(zeroed.routing.experts, plain.routing.experts))

    def test_backbones(self):
        sizes = {"cnn": 33_946, "mobilenetv2": 2_296_922, "resnet18": 11_173_962}
        images = torch.randn(2, 3, 32, 32)
        for name, network in BACKBONES.items():
            model = network(10).eval()
            self.assertEqual(model(images).shape, (2, 10))
            self.assertEqual(sum(weight.numel() for weight in model.parameters()), sizes[name], name)
            exact = model(images)
            set_mixed(model, True)
            self.assertEqual(model(images).dtype, torch.float32)
            self.assertTrue(torch.allclose(model(images), exact, atol=0.05), name)

    def test_turning(self):
        image = torch.zeros(1, 3, 33, 33)
        image[:, :, 16, 16:] = 1  # a line from the middle to the right
        result = turned(image)[0, 0]
        rows, columns = (result > 0).nonzero(as_tuple=True)
        slope = torch.dot((rows - 16.0), (columns - 16.0)) / torch.dot(columns - 16.0, columns - 16.0)
        self.assertAlmostEqual(abs(slope.item()), np.tan(np.radians(30)), delta=0.05)

    def test_blurring_keeps_the_mean(self):
        self.assertTrue(torch.allclose(blurred(torch.full((2, 3, 8, 8), 7.0), torch.tensor([1.5, 2.0])),
                                       torch.tensor(7.0)))

    def test_cifar100(self):
        for name, rows in (("train", 64), ("test", 20)):
            write_batch(os.path.join(self.folder, name), rows, b"fine_labels", 100, rows)
        for variant in ("single", "attentive-similarity", "moe-importance"):
            row, out = self.train(Cifar100(), variant)
            self.assertEqual(load(out)(torch.zeros(2, 3, 32, 32)).shape, (2, 100))

    def test_augmentation_moves_every_image_by_itself(self):
        images = torch.arange(32.0).expand(500, 3, 32, 32)  # every pixel is its column
        first = Cifar100().augmented(images)[:, 0, 0, 8:24]
        steps = first[:, 1] - first[:, 0]
        self.assertEqual(set(steps.tolist()), {1.0, -1.0})
        self.assertEqual(set(first[steps > 0, 0].tolist()), {float(column) for column in range(4, 13)})


if __name__ == "__main__":
    unittest.main()
