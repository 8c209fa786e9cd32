"""The checkpoint directory on disk: written beside its place and renamed, so it appears whole or not at all."""

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping

import numpy as np
import torch

from moed import safetensors, strict_json
from moed.ops import ExportError, require

CONFIG_COLUMNS = 100
MOST_NESTED = 16  # lists of layers
CHECKPOINT_FILE = re.compile(r"config\.json|model\.safetensors(\.index\.json)?|model-\d+-of-\d+\.safetensors")
VALID_MODEL = re.compile(r"(?!\.|stats$)[A-Za-z0-9_.-]{1,128}")


def check_place(directory):
    """The absolute path, or ExportError if nothing may be written there or no server would take it."""
    directory = os.path.abspath(directory)
    require(not os.path.islink(directory), directory, "is a symbolic link; export to a new directory and change the "
                                                      "link, or name what it points to")
    require(VALID_MODEL.fullmatch(os.path.basename(directory)), directory,
            "is the model's name on a server: at most 128 letters, digits, '_', '-' or '.', not beginning with a dot, "
            "and not 'stats'")
    _refuse_foreign(directory)
    return directory


def plain(value, path="", depth=0):
    """What json can write and a server reads, or ExportError: numbers of numpy and PyTorch as Python's own, no NaN or
    infinity, no text with a NUL or half a character, lists of layers not nested deeper than a server's."""
    require(depth <= MOST_NESTED, path, f"lists of layers are nested more than {MOST_NESTED} deep")
    if isinstance(value, Mapping):
        return {key: plain(item, f"{path}.{key}" if path else str(key), depth + (key == "layers"))
                for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{path}[{index}]", depth) for index, item in enumerate(value)]
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, float):
        require(math.isfinite(value), path, f"{value} is no number that a checkpoint can hold")
    if isinstance(value, str):
        whole = "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
        require(whole, path, f"{value!r} holds a NUL or half a character")
    return value


def write(directory, config, tensors, dtype, max_shard_bytes=None, check=None):
    """Puts config.json and the weights into `directory`. A checkpoint that is there is replaced whole.

    What else is in the directory stays. check(staged) is called with the finished checkpoint, which has its name but is
    not in its place yet; what it raises leaves everything as it was.
    """
    directory = check_place(directory)
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    staging = tempfile.mkdtemp(prefix=f".{os.path.basename(directory)}.", dir=os.path.dirname(directory))
    staged = os.path.join(staging, os.path.basename(directory))
    try:
        os.mkdir(staged, 0o755)
        try:
            _write_weights(staged, tensors, dtype, max_shard_bytes)
        except safetensors.FormatError as error:
            raise ExportError(directory, str(error)) from None
        with open(os.path.join(staged, "config.json"), "w", encoding="utf-8") as file:
            file.write(_readable(config) + "\n")
        if check is not None:
            check(staged)
        _replace(staged, directory, os.path.join(staging, "replaced"))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_weights(directory, tensors, dtype, max_shard_bytes):
    """One file, or where that would be larger than max_shard_bytes several of at most so much and an index."""
    shards = _shards(tensors, safetensors.DTYPES[dtype][0], max_shard_bytes)
    if len(shards) == 1:
        safetensors.write(os.path.join(directory, "model.safetensors"), tensors, dtype)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.write(os.path.join(directory, name), shard, dtype)
        weight_map.update({tensor: name for tensor in shard})
    with open(os.path.join(directory, safetensors.INDEX), "w", encoding="utf-8") as file:
        json.dump({"metadata": {}, "weight_map": weight_map}, file, indent=1)


def _shards(tensors, width, max_bytes):
    """The tensors in order, in dicts of at most max_bytes of data; a tensor that is larger has one to itself."""
    shards, filled = [{}], 0
    for name, values in tensors.items():
        if max_bytes is not None and shards[-1] and filled + values.size * width > max_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = values
        filled += values.size * width
    return shards


def read(directory):
    """(config.json, tensors by name as float32)"""
    path = os.path.join(directory, "config.json")
    with open(path, "rb") as file:
        config = strict_json.parse(file.read(), path)
    tensors = {name: values.astype("float32") for name, values in safetensors.read_all(directory).items()}
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise safetensors.FormatError(f"{directory}: {name} holds values that are not finite")
    return config, {name: torch.from_numpy(values) for name, values in tensors.items()}


def _refuse_foreign(directory):
    """Only a checkpoint or an empty directory is ever replaced: a mistyped path must not cost anyone a home."""
    if not os.path.exists(directory) or (os.path.isdir(directory) and not os.listdir(directory)):
        return
    try:
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            ours = json.load(file).get("model_type") == "moed"
    except (OSError, ValueError, AttributeError):
        ours = False
    require(ours, directory, "exists and is not a moed checkpoint; it is left alone")


def _replace(staged, directory, aside):
    """Renames `staged` to `directory`. A directory cannot be renamed over a full one, so the old one steps aside.

    Files that are no part of the old checkpoint (a README, an evaluation) are copied into the new one before.
    """
    if not os.path.exists(directory):
        os.rename(staged, directory)
        return
    for name in os.listdir(directory):
        if not CHECKPOINT_FILE.fullmatch(name):
            _copy(os.path.join(directory, name), os.path.join(staged, name))
    os.rename(directory, aside)
    try:
        os.rename(staged, directory)
    except OSError:
        os.rename(aside, directory)
        raise


def _copy(source, target):
    if os.path.isdir(source) and not os.path.islink(source):
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _readable(value, indent=""):
    """JSON with every object and array on one line that fits there: one line per layer."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(indent) + len(line) <= CONFIG_COLUMNS or not isinstance(value, (dict, list)) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_readable(item, inner)}" for key, item in value.items()]
    else:
        items = [_readable(item, inner) for item in value]
    brackets = "{}" if isinstance(value, dict) else "[]"
    return f"{brackets[0]}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{brackets[1]}"
