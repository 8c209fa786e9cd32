"""Loads a checkpoint directory back as a PyTorch module: the reference the server is compared with.

Weights come as they are stored, so a model kept in F16 is measured with the rounding its users get. Anything the
format does not define is refused, as in the server.
"""

import json
import os

import torch
from torch import nn

from moed import safetensors
from moed.blocks import Residual
from moed.layers import AttentiveGate, Gate, MoE
from moed.ops import OPS, REQUIRED, default_of


class LoadError(ValueError):
    """The directory is not a checkpoint of format 1."""


class LoadedModel(nn.Module):
    """preprocessing and layers of a checkpoint; `config` is its config.json. Takes the raw rows clients send."""

    def __init__(self, config, layers):
        super().__init__()
        self.config = config
        self.layers = layers

    def forward(self, raw):
        return self.layers(preprocess(raw, self.config["input"].get("preprocess", {})))


def preprocess(raw, settings):
    """(raw * scale - mean) / std in float32, mean and std per channel (axis 0 of a row) or one for all."""
    def per_channel(values):
        return torch.tensor(values, dtype=torch.float32).reshape((-1,) + (1,) * (raw.dim() - 2))

    x = raw.float() * settings.get("scale", 1.0)
    if "mean" in settings:
        x = x - per_channel(settings["mean"])
    return x / per_channel(settings["std"]) if "std" in settings else x


def load(directory):
    """The checkpoint as a module in evaluation mode, float32."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if config.get("model_type") != "moed" or config.get("format_version") != 1:
        raise LoadError(f"{directory}: config.json is of model_type {config.get('model_type')!r}, format_version "
                        f"{config.get('format_version')!r}; this reads moed, 1")
    stored = safetensors.read(os.path.join(directory, "model.safetensors"))
    tensors = {name: torch.from_numpy(values.astype("float32")) for name, values in stored.items()}
    layers = _Reader(tensors).layers(config["layers"], "")
    if tensors:
        raise LoadError(f"{directory}: no layer uses the tensors {sorted(tensors)}")
    return LoadedModel(config, layers).eval()


class _Reader:
    """Builds layers, taking each tensor it uses out of `tensors`, so that what is left over is unused."""

    def __init__(self, tensors):
        self.tensors = tensors

    def layers(self, objects, scope):
        sequence = nn.Sequential()
        for index, layer in enumerate(objects):
            sequence.add_module(layer.get("name", f"{layer.get('op')}_{index}"), self.layer(dict(layer), scope))
        return sequence

    def layer(self, keys, scope):
        op, name = keys.pop("op", None), keys.pop("name", None)
        if op == "moe":
            return self.moe(keys, f"{scope}{name}.")
        if op == "residual":
            return Residual(self.layers(keys["layers"], scope))
        if op not in OPS:
            raise LoadError(f"{scope}{name or op}: unknown op {op!r}")
        return self.leaf(OPS[op], keys, f"{scope}{name or op}")

    def leaf(self, op, keys, path):
        unknown = set(keys) - set(op.keys)
        if unknown:
            raise LoadError(f"{path}: unknown keys {sorted(unknown)}")
        for key in op.keys:
            keys.setdefault(key, default_of(op, key, keys))
            if keys[key] is REQUIRED:
                raise LoadError(f"{path}: {key} is missing")
        tensors = self.take(path + ".")
        try:
            module = op.build(keys, tensors)
            left_out = module.load_state_dict(tensors, strict=False)
        except (KeyError, ValueError, RuntimeError) as error:
            raise LoadError(f"{path}: {error}") from None
        # A norm may do without weight and bias (build raises where an op may not), and PyTorch's batch counter is of no
        # use after training.
        missing = set(left_out.missing_keys) - {"weight", "bias", "num_batches_tracked"}
        if missing or left_out.unexpected_keys:
            raise LoadError(f"{path}: missing tensors {sorted(missing)}, unused {left_out.unexpected_keys}")
        return module

    def take(self, prefix):
        """Tensors whose name is the prefix and one word more, by that word."""
        names = [name for name in self.tensors if name.startswith(prefix) and "." not in name[len(prefix):]]
        return {name[len(prefix):]: self.tensors.pop(name) for name in names}

    def moe(self, keys, scope):
        experts = keys["experts"]
        gate = self.gate(dict(keys["gate"]), scope + "gate.")
        return MoE([self.layers(experts["layers"], f"{scope}experts.{index}.") for index in range(experts["count"])],
                   gate)

    def gate(self, keys, scope):
        kind, key_layer = keys.pop("kind", None), keys.pop("key_layer", None)
        layers = self.layers(keys.pop("layers"), scope)
        unknown = set(keys) - {"score", "top_k", "normalize", "scale"}
        if unknown or kind not in (None, "attentive"):
            raise LoadError(f"{scope[:-1]}: unknown kind {kind!r} or keys {sorted(unknown)}")
        keys["select_bias"] = self.tensors.pop(scope + "select_bias", None)
        if kind is None:
            return Gate(layers, **keys)
        query, key = self.tensors.pop(scope + "query.weight"), self.tensors.pop(scope + "key.weight")
        gate = AttentiveGate(layers, query.shape[0], key_layer, **keys)
        gate.load_state_dict({"query.weight": query, "key.weight": key}, strict=False)
        return gate
