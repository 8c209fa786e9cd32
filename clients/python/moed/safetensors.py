"""Reader and writer of .safetensors files in numpy, for the float types a checkpoint may hold.

A file is: 8 bytes little-endian header length, the JSON header, the tensors back to back. The same tensors give the
same bytes: the order is the caller's, the header has no spaces but the padding that aligns the data to 8 bytes.
"""

import json
import math
import os
from collections import namedtuple

import numpy as np

from moed import strict_json

ALIGNMENT = 8
# A header describes a few hundred bytes per tensor; more than this is a damaged or hostile file, not a model.
MAX_HEADER_BYTES = 100 * 1000 * 1000
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ENTRY = ("dtype", "shape", "data_offsets")
COUNTER = (8, "I64", ".num_batches_tracked")
# A tensor as it stands in the file: the name of its dtype, its sizes, its bytes.
Stored = namedtuple("Stored", "dtype shape data")


class FormatError(ValueError):
    """The file is not a safetensors file this reader accepts."""


def _to_bf16(values):
    """The upper half of each float32, rounded to nearest even, as uint16: numpy has no bfloat16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")


def _from_bf16(halves):
    return (halves.astype(np.uint32) << 16).view(np.float32)


# dtype name -> (bytes per element, float32 array -> stored array, stored type, stored array -> array)
DTYPES = {
    "F32": (4, lambda a: a.astype("<f4"), "<f4", lambda a: a),
    "F16": (2, lambda a: a.astype("<f2"), "<f2", lambda a: a),
    "BF16": (2, _to_bf16, "<u2", _from_bf16),
}


def encode(values, dtype):
    """`values` as the little-endian array that a file of this dtype holds. Overflow to infinity is an error."""
    values = np.asarray(values, dtype=np.float32)
    with np.errstate(over="ignore"):
        stored = DTYPES[dtype][1](values)
    restored = DTYPES[dtype][3](stored)
    if not np.array_equal(np.isfinite(restored), np.isfinite(values)):
        raise FormatError(f"a value of magnitude {np.abs(values).max():.4g} does not fit into {dtype}")
    return stored


def write(path, tensors, dtype="F32"):
    """Writes the arrays of the dict `tensors` in its order, each rounded to `dtype`."""
    stored = {}
    for name, values in tensors.items():
        try:
            stored[name] = Stored(dtype, np.shape(values), encode(values, dtype).tobytes())
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from None
    write_stored(path, stored)


def write_stored(path, tensors):
    """Writes the Stored of the dict `tensors` in its order."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        file.writelines(tensor.data for tensor in tensors.values())


def read(path):
    """Dict of name -> array, in file order. F32 and F16 keep their type; BF16 is widened to float32."""
    return {name: _decoded(tensor) for name, tensor in read_stored(path).items()}


def read_stored(path):
    """Dict of name -> Stored, in file order, without the counters of batch norms."""
    with open(path, "rb") as file:
        content = file.read()
    header, data = _split(path, content)
    tensors = {name: _tensor(path, name, entry, data) for name, entry in header.items()}
    _check_extents(path, header, len(data))
    return {name: tensor for name, tensor in tensors.items() if not _is_counter(name, tensor.dtype)}


def files(directory):
    """The paths of a checkpoint's files of tensors: one, or those that an index names."""
    index = os.path.join(directory, INDEX)
    names = sorted(set(_listed(index).values())) if os.path.exists(index) else [SINGLE]
    return [os.path.join(directory, name) for name in names]


def read_all(directory):
    """Dict of name -> array of a checkpoint: of its one file, or of those that its index names, which have to agree."""
    index, tensors = os.path.join(directory, INDEX), {}
    if not os.path.exists(index):
        return read(os.path.join(directory, SINGLE))
    listed = _listed(index)
    for name in dict.fromkeys(listed.values()):
        for tensor, values in read(os.path.join(directory, name)).items():
            if listed.get(tensor) != name:
                raise FormatError(f"{index}: tensor {tensor!r} is in {name}, listed in {listed.get(tensor, 'no file')}")
            tensors[tensor] = values
    if len(tensors) != len(listed):
        raise FormatError(f"{index}: no file holds {sorted(set(listed) - set(tensors))}")
    if SINGLE not in listed.values() and os.path.exists(os.path.join(directory, SINGLE)):
        raise FormatError(f"{index}: {SINGLE} is there, too, and not listed: keep one of them")
    return tensors


def _listed(index):
    """{tensor: file beside the index}"""
    with open(index, "rb") as file:
        found = strict_json.parse(file.read(), index)
    listed = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(listed, dict):
        raise FormatError(f"{index}: weight_map must be an object")
    for name in listed.values():
        if not isinstance(name, str) or not name or "/" in name or name == "..":
            raise FormatError(f"{index}: {name!r} is no file beside it")
    return listed


def _split(path, content):
    """(header without its metadata, data)"""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > MAX_HEADER_BYTES or size > len(content) - 8:
        raise FormatError(f"{path}: the header length {size} does not fit a file of {len(content)} bytes")
    try:
        header = strict_json.parse(content[8:8 + size], f"{path}: the header is not JSON")
    except ValueError as error:
        raise FormatError(str(error)) from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{path}: __metadata__ must be an object of strings")
    return header, content[8 + size:]


def _tensor(path, name, entry, data):
    try:
        dtype, shape, (begin, end) = (entry[key] for key in ENTRY)
        whole = isinstance(shape, list) and len(entry) == len(ENTRY) and all(
            type(size) is int and size >= 1 for size in shape) and type(begin) is type(end) is int
        width = COUNTER[0] if _is_counter(name, dtype) else DTYPES[dtype][0]
        expected = width * math.prod(shape) if whole else -1  # no product that wraps around
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"{path}: {name}: malformed or unsupported entry {entry}") from None
    if not (0 <= begin <= end <= len(data) and end - begin == expected):
        raise FormatError(f"{path}: {name}: bytes {begin}..{end} do not hold a {dtype} tensor of shape {shape}")
    return Stored(dtype, tuple(shape), data[begin:end])


def _is_counter(name, dtype):
    """PyTorch's number of batches that a batch norm has seen, which nothing needs."""
    return dtype == COUNTER[1] and name.endswith(COUNTER[2]) and name != COUNTER[2]


def _check_extents(path, header, bytes_of_data):
    """No tensor overlaps another, and no byte belongs to none."""
    end = 0
    for begin, after in sorted(tuple(entry["data_offsets"]) for entry in header.values()):
        if begin != end:
            raise FormatError(f"{path}: {'overlapping' if begin < end else 'unused'} bytes at {min(begin, end)}")
        end = after
    if end != bytes_of_data:
        raise FormatError(f"{path}: {bytes_of_data - end} unused bytes after the last tensor")


def _decoded(tensor):
    _, _, stored_type, decode = DTYPES[tensor.dtype]
    return decode(np.frombuffer(tensor.data, dtype=stored_type)).reshape(tensor.shape)
