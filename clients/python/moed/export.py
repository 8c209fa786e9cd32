"""Writes a PyTorch module as a checkpoint directory that `moed serve` loads.

config.json is put together here; walk.py translates the layers. What the format cannot say is refused, never
approximated.
"""

import copy
import math

import torch

from moed import checkpoint
from moed.multitask import Input, MultiTask, Output, join
from moed.ops import ExportError, require
from moed.walk import Walk

DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}


def export(module, directory, input_shape=None, input_name="input", preprocess=None, output_name="output", labels=None,
           description="", dtype="f32", routing_reference=None, max_shard_bytes=None):
    """Writes `module` to `directory`, replacing a checkpoint that is there.

    A moed.multitask.MultiTask says itself what its inputs and outputs are; any other module has one of each:

    input_shape  shape of one row, without the batch axis, such as (1, 28, 28).
    preprocess   {"scale": s, "mean": [m, ...], "std": [d, ...]}, one number or one per channel; the server
                 computes (x * scale - mean) / std on the raw values clients send. None: the module takes raw values.
    labels       names of the output's elements.

    dtype        f32 | f16 | bf16: how the weights are stored.
    max_shard_bytes  weights beyond that are spread over several files.
    routing_reference  {moe layer name: {"share": [one per expert], "rows": n}}: the routing on known-good data,
                 against which drift is judged. Of a MultiGateMoE one per gate, as "layer.gate".
    """
    if dtype not in DTYPES:
        raise ExportError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if isinstance(module, MultiTask):
        require(input_shape is None and preprocess is None and labels is None, "model",
                "a MultiTask's inputs and outputs have shapes, preprocessing and labels of their own")
    else:
        require(input_shape is not None, "input_shape", "is missing: the shape of one row, without the batch axis")
        module = MultiTask({input_name: Input(input_shape, preprocess=preprocess)}, module,
                           {output_name: Output(labels=labels)})
    # A copy: training mode, device and precision of the caller's module stay as they are.
    module = copy.deepcopy(module).cpu().float().eval()
    walk = Walk()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # new layers draw initial weights
        parts = _model(walk, module)
    config = {"model_type": "moed", "format_version": walk.format, "description": description, **parts}
    if routing_reference is not None:
        config["routing_reference"] = _checked_reference(routing_reference, walk.expert_counts)
    checkpoint.write(directory, config, walk.tensors, DTYPES[dtype], max_shard_bytes)


# --- the parts of config.json -----------------------------------------------------------------------------------

def _model(walk, model):
    """inputs, layers and outputs; in the words of format 1 where they suffice."""
    entries = [_input(walk, *named) for named in zip(model.input_names, model.inputs)]
    inputs = [config for config, _ in entries]
    layers, row = walk.layers(model.layers, join([row for _, row in entries]), "model", "")
    outputs = [_output(walk, *named, row) for named in zip(model.output_names, model.outputs)]
    plain_input = len(inputs) == 1 and not {"categories", "layers"} & set(inputs[0])
    plain_output = len(outputs) == 1 and "layers" not in outputs[0]
    if not (plain_input and plain_output):
        walk.format = 2
    return {**({"input": inputs[0]} if plain_input else {"inputs": inputs}), "layers": layers,
            **({"output": outputs[0]} if plain_output else {"outputs": outputs})}


def _input(walk, name, entry):
    """(config, what enters the model's layers)"""
    config = {"name": name, "shape": [int(size) for size in entry.shape]}
    if entry.preprocess is not None:
        config["preprocess"] = _checked_preprocess(entry.preprocess, entry.shape)
    if entry.categories is not None:
        config["categories"] = int(entry.categories)
    row = entry.enter(_example_row(entry.shape, entry.categories))
    if entry.layers is not None:
        config["layers"], row = walk.branch(entry.layers, row, "inputs", name, entry.categories)
    return config, row


def _output(walk, name, entry, row):
    config = {"name": name}
    if entry.layers is not None:
        config["layers"], row = walk.branch(entry.layers, row.clone(), "outputs", name)
    if entry.labels is not None:
        size = row.shape[-1] if row.dim() > 1 else 1
        require(len(entry.labels) == size, "labels", f"{len(entry.labels)} labels for an output of {size} elements")
        config["labels"] = list(entry.labels)
    return config


def _checked_preprocess(preprocess, shape):
    unknown = set(preprocess) - {"scale", "mean", "std"}
    require(not unknown, "preprocess", f"unknown keys {sorted(unknown)}; there are scale, mean and std")
    for key in ("mean", "std"):
        values = preprocess.get(key)
        require(values is None or len(values) in (1, shape[0]), "preprocess",
                f"{key} has {len(values or [])} values, but the input has {shape[0]} channels")
    require(all(value != 0 for value in preprocess.get("std", [])), "preprocess", "std has a zero")
    return dict(preprocess)


def _checked_reference(reference, experts):
    for name, entry in reference.items():
        require(name in experts, "routing_reference", f"{name!r} is not a MoE layer; there are {sorted(experts)}")
        require(len(entry["share"]) == experts[name], "routing_reference",
                f"{name} has {experts[name]} experts, but {len(entry['share'])} shares are given")
    return {name: {"share": [float(share) for share in entry["share"]], "rows": int(entry["rows"])}
            for name, entry in reference.items()}


def _example_row(shape, categories):
    """One row with values of both signs, so that layers which change their input in place show; or all categories."""
    size = math.prod(shape)
    values = torch.linspace(-1, 1, size) if categories is None else torch.arange(size) % categories
    return values.reshape(1, *shape)
