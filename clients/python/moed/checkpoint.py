"""The checkpoint directory on disk: written beside its place and renamed, so it appears whole or not at all."""

import json
import os
import shutil
import tempfile

import torch

from moed import safetensors
from moed.ops import ExportError, require

CONFIG_COLUMNS = 100


def write(directory, config, tensors, dtype):
    """Puts config.json and model.safetensors into `directory`. A checkpoint that is there is replaced whole."""
    directory = os.path.abspath(directory)
    _refuse_foreign(directory)
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    staging = tempfile.mkdtemp(prefix=f".{os.path.basename(directory)}.", dir=os.path.dirname(directory))
    try:
        os.chmod(staging, 0o755)  # mkdtemp makes it private; the server may run as another user
        try:
            safetensors.write(os.path.join(staging, "model.safetensors"), tensors, dtype)
        except safetensors.FormatError as error:
            raise ExportError(str(error)) from None
        with open(os.path.join(staging, "config.json"), "w", encoding="utf-8") as file:
            file.write(_readable(config) + "\n")
        _replace(staging, directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def read(directory):
    """(config.json, tensors by name as float32)"""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    stored = safetensors.read(os.path.join(directory, "model.safetensors"))
    return config, {name: torch.from_numpy(values.astype("float32")) for name, values in stored.items()}


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
