"""Reads CIFAR-10 and CIFAR-100: the python batches of cs.toronto.edu, or CIFAR-10 as JPEG files in a tar archive."""

import io
import os
import pickle
import tarfile

import numpy as np
import torch
from torch.nn import functional

from recipes.idx import DataMissing

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PREPROCESS_10 = {"scale": 1 / 255, "mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}
PREPROCESS_100 = {"scale": 1 / 255, "mean": [0.5074, 0.4867, 0.4411], "std": [0.2011, 0.1987, 0.2025]}
ADVICE_10 = ("Get cifar-10-python.tar.gz from cs.toronto.edu/~kriz/cifar.html and name the unpacked directory with "
             "--data; an archive of train/CLASS/*.jpg and test/CLASS/*.jpg will do as well.")
ADVICE_100 = ("Get cifar-100-python.tar.gz from cs.toronto.edu/~kriz/cifar.html and name the unpacked directory with "
              "--data.")
ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
           ("numpy._core.multiarray", "_reconstruct"), ("_codecs", "encode")}


class _Arrays(pickle.Unpickler):
    """A pickle may name any function to be called; those of CIFAR need only what makes arrays."""

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a batch of images")
        return super().find_class(module, name)


def _batch(directory, name, labels, advice):
    """(images (rows, 3, 32, 32) uint8, labels) of one file of python batches."""
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        raise DataMissing(f"{path} is missing. {advice}")
    with open(path, "rb") as file:
        content = _Arrays(file, encoding="bytes").load()
    return np.asarray(content[b"data"]).reshape(-1, 3, 32, 32), np.asarray(content[labels])


def _set(directory, names, labels, advice):
    batches = [_batch(directory, name, labels, advice) for name in names]
    return (torch.from_numpy(np.concatenate([images for images, _ in batches])),
            torch.from_numpy(np.concatenate([numbers for _, numbers in batches]).astype(np.int64)))


def read_cifar100(directory):
    """{"train": (images uint8, labels), "test": ...}"""
    return {name: _set(directory, [name], b"fine_labels", ADVICE_100) for name in ("train", "test")}


def read_cifar10(path):
    """{"train": (images uint8, labels), "test": ...}. `path`: a directory of batches, or an archive of JPEG files."""
    if os.path.isfile(path):
        return _read_archive(path)
    return {"train": _set(path, [f"data_batch_{number}" for number in range(1, 6)], b"labels", ADVICE_10),
            "test": _set(path, ["test_batch"], b"labels", ADVICE_10)}


def _read_archive(path):
    from PIL import Image  # only this form of the data needs Pillow

    found = {"train": ([], []), "test": ([], [])}
    with tarfile.open(path) as archive:
        for member in archive:
            part, _, rest = member.name.partition("/")
            if member.isfile() and part in found:
                pixels = np.asarray(Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB"))
                found[part][0].append(pixels.transpose(2, 0, 1))
                found[part][1].append(NAMES.index(rest.partition("/")[0]))
    return {part: (torch.from_numpy(np.stack(images)), torch.tensor(labels))
            for part, (images, labels) in found.items()}


def moved(images, mode):
    """Every image moved by up to four pixels and mirrored at random. `mode` is what comes from outside, see pad."""
    rows, along = len(images), torch.arange(32, device=images.device)
    down = torch.randint(9, (rows, 1, 1), device=images.device) + along[:, None]
    right = torch.randint(9, (rows, 1, 1), device=images.device) + along
    right = torch.where(torch.rand(rows, 1, 1, device=images.device) < 0.5, right, right.flip(2))
    padded = functional.pad(images, (4, 4, 4, 4), mode=mode)
    every = torch.arange(rows, device=images.device)[:, None, None]
    return padded[every, :, down, right].permute(0, 3, 1, 2)
