"""The Fashion-MNIST test set, from Debian's package."""

import gzip
import os
import unittest

import numpy as np

DIRECTORY = "/usr/share/datasets/fashion-mnist"
LABELS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def test_set():
    """(images uint8 [10000, 1, 28, 28], labels uint8 [10000])."""
    if not os.path.isdir(DIRECTORY):
        raise unittest.SkipTest(f"{DIRECTORY} is missing: apt-get install dataset-fashion-mnist")
    return (read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28), read("t10k-labels-idx1-ubyte.gz", 8))


def read(name, header_bytes):
    with gzip.open(os.path.join(DIRECTORY, name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header_bytes)
