"""The checkpoint directory on disk: written beside its place and renamed, so it appears whole or not at all."""

import json
import os
import shutil
import tempfile

import torch

from moed import safetensors
from moed.ops import ExportError, require

CONFIG_COLUMNS = 100
INDEX = "model.safetensors.index.json"


def write(directory, config, tensors, dtype, max_shard_bytes=None):
    """Puts config.json and the weights into `directory`. A checkpoint that is there is replaced whole."""
    directory = os.path.abspath(directory)
    _refuse_foreign(directory)
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    staging = tempfile.mkdtemp(prefix=f".{os.path.basename(directory)}.", dir=os.path.dirname(directory))
    try:
        os.chmod(staging, 0o755)  # mkdtemp makes it private; the server may run as another user
        try:
            _write_weights(staging, tensors, dtype, max_shard_bytes)
        except safetensors.FormatError as error:
            raise ExportError(str(error)) from None
        with open(os.path.join(staging, "config.json"), "w", encoding="utf-8") as file:
            file.write(_readable(config) + "\n")
        _replace(staging, directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


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
    with open(os.path.join(directory, INDEX), "w", encoding="utf-8") as file:
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
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    index, tensors = os.path.join(directory, INDEX), {}
    files = ["model.safetensors"]
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            files = sorted(set(json.load(file)["weight_map"].values()))
    for name in files:
        tensors.update(safetensors.read(os.path.join(directory, name)))
    return config, {name: torch.from_numpy(values.astype("float32")) for name, values in tensors.items()}


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


def _replace(staging, directory):
    """Renames `staging` to `directory`. A directory cannot be renamed over a full one, so the old one steps aside."""
    if not os.path.exists(directory):
        os.rename(staging, directory)
        return
    aside = staging + ".old"
    os.rename(directory, aside)
    try:
        os.rename(staging, directory)
    except OSError:
        os.rename(aside, directory)
        raise
    shutil.rmtree(aside)


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
