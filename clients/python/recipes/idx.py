"""Reads the IDX files of MNIST and its relatives."""

import gzip
import os

import numpy as np

UINT8 = 0x08


class DataMissing(Exception):
    """The data set is not on this machine; the message says how to get it."""


def read_idx(path):
    """The uint8 array in a gzip-compressed IDX file."""
    with gzip.open(path, "rb") as file:
        content = file.read()
    if content[:3] != bytes((0, 0, UINT8)):
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    axes = content[3]
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_set(directory, prefix, advice):
    """(images, labels) of the set `train` or `t10k`."""
    names = (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    paths = [os.path.join(directory, name) for name in names]
    for path in paths:
        if not os.path.exists(path):
            raise DataMissing(f"{path} is missing. {advice}")
    return tuple(read_idx(path) for path in paths)
