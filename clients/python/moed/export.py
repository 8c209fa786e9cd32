"""Writes a PyTorch module as a checkpoint directory that `moed serve` loads.

The module is walked, not traced: an nn.Sequential of the modules in ops.py, Residual and MoE is translated layer by
layer while an example row passes through it, so a layer that does not fit its input is found here and named. What the
format cannot say is refused, never approximated.
"""

import copy
import math
import re

import torch
from torch import nn

from moed import checkpoint
from moed.blocks import Residual
from moed.layers import AttentiveGate, Gate, MoE
from moed.ops import INFERENCE_NO_OPS, OP_OF_MODULE, OPS, REQUIRED, ExportError, default_of, require

FORMAT_VERSION = 1
VALID_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}


def export(module, directory, input_shape, input_name="input", preprocess=None, output_name="output", labels=None,
           description="", dtype="f32", routing_reference=None):
    """Writes `module` to `directory`, replacing a checkpoint that is there.

    input_shape  shape of one row, without the batch axis, such as (1, 28, 28).
    preprocess   {"scale": s, "mean": [m, ...], "std": [d, ...]}, one number or one per channel; the server
                 computes (x * scale - mean) / std on the raw values clients send. None: the module takes raw values.
    labels       names of the output's elements.
    dtype        f32 | f16 | bf16: how the weights are stored.
    routing_reference  {moe layer name: {"share": [one per expert], "rows": n}}: the routing on known-good data,
                 against which drift is judged.
    """
    if dtype not in DTYPES:
        raise ExportError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    # A copy: training mode, device and precision of the caller's module stay as they are.
    module = copy.deepcopy(module).cpu().float().eval()
    walk = _Walk()
    with torch.no_grad():
        layers, row = walk.layers(module, _example_row(input_shape), "model", "")
    config = {"model_type": "moed", "format_version": FORMAT_VERSION, "description": description,
              "input": _input_config(input_name, input_shape, preprocess), "layers": layers,
              "output": _output_config(output_name, labels, row)}
    if routing_reference is not None:
        config["routing_reference"] = _checked_reference(routing_reference, walk.expert_counts)
    checkpoint.write(directory, config, walk.tensors, DTYPES[dtype])


class _Walk:
    """Translates layers, collecting the tensors under their checkpoint names.

    `path` is where a submodule is in the caller's model, for messages; `scope` is the prefix of its tensor names.
    """

    def __init__(self):
        self.tensors = {}  # by checkpoint name, in order of execution
        self.expert_counts = {}  # by MoE layer

    def layers(self, module, row, path, scope, prefix=""):
        """(list of layer objects, output row) of a Sequential; of a single layer, as if it were in one."""
        if not _is_plain_sequential(module):
            module = nn.Sequential(module)
        objects = []
        for name, layer, layer_path in _flattened(module, path, prefix):
            if isinstance(layer, INFERENCE_NO_OPS):
                continue
            objects.append(self.layer(layer, row, layer_path, scope, name))
            row = _run(layer, row, layer_path)
        return objects, row

    def layer(self, layer, row, path, scope, name):
        require(VALID_NAME.fullmatch(name), path, f"{name!r} is no name: at most 64 letters, digits, '_' or '-'")
        if type(layer) is MoE:
            return self.moe(layer, row, path, scope, name)
        if type(layer) is Residual:
            return self.residual(layer, row, path, scope, name)
        return self.leaf(layer, row, path, scope, name)

    def residual(self, layer, row, path, scope, name):
        """The branch's layers are named in the scope around it: a residual has no tensors, so it has no name."""
        objects, out = self.layers(layer.layers, row.clone(), path + ".layers", scope, name + "_")
        require(out.shape == row.shape, path, f"the branch turns {list(row.shape[1:])} into {list(out.shape[1:])}; "
                                              "they cannot be added")
        return {"op": "residual", "layers": objects}

    def leaf(self, layer, row, path, scope, name):
        op_name = OP_OF_MODULE.get(type(layer))
        require(op_name is not None, path, f"{type(layer).__name__} has no op in the checkpoint format; the ops are "
                                           f"{', '.join(OPS)}, residual and moe")
        op = OPS[op_name]
        keys, tensors = op.describe(layer, row, path)
        given = {key: value for key, value in keys.items()
                 if default_of(op, key, keys) is REQUIRED or value != default_of(op, key, keys)}
        self.add(tensors, path, scope + name)
        return {"op": op_name, **({"name": name} if tensors else {}), **given}

    def add(self, tensors, path, prefix):
        for name, tensor in tensors.items():
            full_name = f"{prefix}.{name}"
            require(full_name not in self.tensors, path, f"two tensors would be named {full_name}")
            require(torch.isfinite(tensor).all(), path, f"{name} holds values that are not finite")
            self.tensors[full_name] = tensor.detach().numpy()

    # --- the mixture ------------------------------------------------------------------------------------------

    def moe(self, layer, row, path, scope, name):
        require(scope == "", path, "a MoE layer inside a gate or an expert has no place in the format")
        gate, logits = self.gate(layer.gate, row, path + ".gate", name + ".gate.")
        experts = self.experts(layer, row, path + ".experts", name + ".experts.")
        if "key_layer" in gate:
            names = [expert_layer.get("name") for expert_layer in experts["layers"]]
            require(gate["key_layer"] in names, path + ".gate",
                    f"key_layer {gate['key_layer']!r} is not an expert layer with weights ({names})")
        else:
            require(logits == experts["count"], path, f"the gate gives {logits} logits for {experts['count']} experts")
        top_k = gate.get("top_k", 1)
        require(top_k <= experts["count"], path, f"top_k is {top_k}, but there are {experts['count']} experts")
        self.expert_counts[name] = experts["count"]
        return {"op": "moe", "name": name, "gate": gate, "experts": experts}

    def gate(self, gate, row, path, scope):
        """(gate object, size of what its layers give)"""
        require(type(gate) in (Gate, AttentiveGate), path, f"{type(gate).__name__} is not a moed Gate or AttentiveGate")
        config = {}
        if type(gate) is AttentiveGate:
            config = {"kind": "attentive", "key_layer": gate.key_layer}
        config["layers"], out = self.layers(gate.layers, row.clone(), path + ".layers", scope)
        require(out.dim() == 2, path, f"the layers give {list(out.shape[1:])} for a row; a gate needs one axis")
        config["score"] = gate.score
        if gate.top_k is not None:
            config["top_k"] = gate.top_k
        config["normalize"] = gate.normalize
        if gate.scale is not None:
            config["scale"] = gate.scale
        if type(gate) is AttentiveGate:
            self.add({"query.weight": gate.query.weight, "key.weight": gate.key.weight}, path, scope[:-1])
        if gate.select_bias is not None:
            self.add({"select_bias": gate.select_bias}, path, scope[:-1])
        return config, out.shape[1]

    def experts(self, layer, row, path, scope):
        require(len(layer.experts) > 0, path, "there are no experts")
        first = None
        for index, expert in enumerate(layer.experts):
            described = self.expert(expert, row, f"{path}.{index}", f"{scope}{index}.")
            first = first or described
            require(described == first, f"{path}.{index}", "differs from expert 0 in layers or shapes")
        return {"count": len(layer.experts), "layers": first[0]}

    def expert(self, expert, row, path, scope):
        """(layers, shapes of the tensors by name): what all experts of a layer have in common."""
        layers, _ = self.layers(expert, row.clone(), path, scope)
        return layers, {name[len(scope):]: tensor.shape for name, tensor in self.tensors.items()
                        if name.startswith(scope)}


def _is_plain_sequential(module):
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _flattened(module, path, prefix):
    """(checkpoint name, layer, path) of a Sequential's layers, those of nested ones in place.

    The format has no nesting without a meaning, so the names of nested layers are joined.
    """
    for name, layer in module.named_children():
        if _is_plain_sequential(layer):
            yield from _flattened(layer, f"{path}.{name}", f"{prefix}{name}_")
        else:
            yield prefix + name, layer, f"{path}.{name}"


def _run(layer, row, path):
    before = row.clone()
    try:
        out = layer(row)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ExportError(f"{path}: does not accept rows of shape {list(row.shape[1:])}: {error}") from None
    # An in-place activation is harmless in a plain chain. In a branch it also changes what the other branches read,
    # which is not what the same layers mean in a checkpoint.
    require(type(layer) not in (Residual, MoE) or torch.equal(row, before), path,
            "a layer inside changes the shared input in place; give it inplace=False")
    return out


def _example_row(shape):
    """One row with values of both signs, so that layers which change their input in place show."""
    return torch.linspace(-1, 1, math.prod(shape)).reshape(1, *shape)


# --- config.json ------------------------------------------------------------------------------------------------

def _input_config(name, shape, preprocess):
    config = {"name": name, "shape": [int(size) for size in shape]}
    if preprocess is None:
        return config
    unknown = set(preprocess) - {"scale", "mean", "std"}
    require(not unknown, "preprocess", f"unknown keys {sorted(unknown)}; there are scale, mean and std")
    for key in ("mean", "std"):
        values = preprocess.get(key)
        require(values is None or len(values) in (1, shape[0]), "preprocess",
                f"{key} has {len(values or [])} values, but the input has {shape[0]} channels")
    require(all(value != 0 for value in preprocess.get("std", [])), "preprocess", "std has a zero")
    return {**config, "preprocess": dict(preprocess)}


def _output_config(name, labels, row):
    if labels is None:
        return {"name": name}
    size = row.shape[-1] if row.dim() > 1 else 1
    require(len(labels) == size, "labels", f"{len(labels)} labels for an output of {size} elements")
    return {"name": name, "labels": list(labels)}


def _checked_reference(reference, experts):
    for name, entry in reference.items():
        require(name in experts, "routing_reference", f"{name!r} is not a MoE layer; there are {sorted(experts)}")
        require(len(entry["share"]) == experts[name], "routing_reference",
                f"{name} has {experts[name]} experts, but {len(entry['share'])} shares are given")
    return {name: {"share": [float(share) for share in entry["share"]], "rows": int(entry["rows"])}
            for name, entry in reference.items()}
