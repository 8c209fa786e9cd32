"""Writes a PyTorch module as a checkpoint directory that `moed serve` loads.

config.json is put together here; describe.py translates the layers. What the format cannot say is refused, never
approximated.
"""

import math
import os
import re
from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np
import torch
from torch import nn

from moed import checkpoint, engine, reference
from moed.config_node import LoadError
from moed.describe import MOST_AXES, Describer, nothing
from moed.loader import build, load
from moed.multitask import MultiTask, Output, join
from moed.ops import ExportError, require
from moed.places import placed
from moed.prepare import evaluated, folded
from moed.subject import Subject, subject_of, whole_model
from moed.verify import check_engine, check_package, outcome, sample_rows

PathLike = Union[str, "os.PathLike[str]"]
VALID_TENSOR = re.compile(r"(?!routing\.)[^\s\x00-\x1F\x7F]{1,128}")
MOST_WORD_BYTES = 256
DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}


def export(model: nn.Module, example_inputs: Any, directory: PathLike, *, input_name: str = "input",
           output_name: Union[str, Sequence[Optional[str]]] = "output",
           preprocess: Optional[Mapping[str, Any]] = None, categories: Optional[int] = None,
           labels: Any = None, description: str = "", dtype: str = "f32",
           routing_reference: Optional[Mapping[str, Any]] = None, max_shard_bytes: Optional[int] = None,
           reference_rows: Any = None) -> None:
    """Writes `model` as a checkpoint directory that `moed serve` loads.

    The model stays as it is: its mode, device and precision are those of a copy. What the format cannot say is refused
    with the path of the submodule. A checkpoint that is in `directory` is replaced.

    Args:
        model: any module that computes rows independently of each other. A moed.nn.MultiTask says itself what its
            inputs and outputs are, any other module has one of each.
        example_inputs: a tensor as the model takes it, batch axis included; its values do not matter. None for a
            MultiTask; for Torch-RecHub's models with sequence features {feature: tensor}.
        directory: where the checkpoint goes; its last part is the model's name on a server.
        input_name: what clients call the input.
        output_name: what clients call the output. Of a model that gives several things, a name for each in order, None
            for what is left out; without names those of a dict or a named tuple. What has no row axis (a loss) is left
            out by itself.
        preprocess: {"scale": s, "mean": [m, ...], "std": [d, ...]}, one number or one per channel. The server computes
            (x * scale - mean) / std on the raw values that clients send; None if the model takes raw values.
        categories: the input holds integers from 0 to categories - 1. Needed of integers only where it is not the size
            of the model's one nn.Embedding.
        labels: names of the output's elements, of several outputs {output: names}. Numbers are turned into strings.
        description: shown by metadata and `moed inspect`.
        dtype: "f32", "f16" or "bf16", how the weights are stored.
        routing_reference: {MoE layer: {"share": [one per expert], "rows": n}}, the routing on known-good data against
            which drift is judged; also "weight" and "probability". Of a MultiGateMoE one per gate, as "layer.gate".
        max_shard_bytes: weights beyond that are spread over several files.
        reference_rows: known-good data, from which the routing reference is measured: raw values as clients will send
            them, a tensor or {input: tensor}. In place of routing_reference.

    Shape:
        example_inputs: [rows, ...] with at least one row and one axis more.

    Raises:
        ExportError: the model or an argument cannot be expressed; nothing has been written.

    Example:
        >>> moed.export(model, torch.zeros(1, 16), "my-model", labels=["red", "green", "blue"])
    """
    require(routing_reference is None or reference_rows is None, "reference_rows",
            "measure what routing_reference says")
    require(dtype in DTYPES, "dtype", f"{dtype!r} is not one of {', '.join(DTYPES)}")
    require(description is None or isinstance(description, str), "description", f"{description!r} is no text")
    directory = checkpoint.check_place(directory)
    try:
        subject = _subject(model, example_inputs, input_name, output_name, preprocess, categories, labels)
    except ExportError as error:
        raise placed(error, model) from None
    try:
        _write(subject, directory, description, dtype, routing_reference, max_shard_bytes, reference_rows)
    except ExportError as error:
        raise placed(error, subject, lambda: _sample(subject)) from None


def export_shape(module: nn.Module, directory: PathLike, input_shape: Optional[Sequence[int]] = None,
                 **settings: Any) -> None:
    """moed.export.export of the last release: the shape of a row in place of example inputs."""
    require(input_shape is not None or isinstance(module, MultiTask), "input_shape",
            "is missing: the shape of one row, without the batch axis")
    export(module, None if input_shape is None else torch.zeros(1, *input_shape), directory, **settings)


def _subject(given, example_inputs, input_name, output_name, preprocess, categories, labels):
    """A copy of the model as a MultiTask, with what the arguments of export() say about it."""
    model = whole_model(given, example_inputs)
    if not isinstance(model, MultiTask):
        return subject_of(model, example_inputs, input_name, output_name, preprocess, categories, labels)
    require((example_inputs is None or model is not given) and preprocess is None and labels is None, "model",
            "a MultiTask's inputs and outputs have shapes, preprocessing and labels of their own")
    return evaluated(model)


def _sample(model):
    return sample_rows(dict(zip(model.input_names, model.inputs)))


def _built(config, tensors, directory):
    try:
        return build(config, tensors, directory)
    except LoadError as error:  # more of something than a checkpoint may have
        raise ExportError("model", f"makes a checkpoint that would be refused: {error}") from None


def _write(model, directory, description, dtype, routing_reference, max_shard_bytes, reference_rows):
    describer = Describer()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # new layers draw initial weights
        parts = _model(describer, folded(model))
        config = {"model_type": "moed", "format_version": describer.format, "description": description or "", **parts}
        if routing_reference is not None:
            config["routing_reference"] = reference.checked(routing_reference, describer.expert_counts)
        config = checkpoint.plain(config)
        tensors = {name: torch.from_numpy(values) for name, values in describer.tensors.items()}
        rows = _sample(model)
        expected = outcome(getattr(model, "original", model), rows, "model")
        loaded = _built(config, tensors, directory)
        check_package(expected, loaded, rows, "model")
        if reference_rows is not None:
            config["routing_reference"] = reference.measured(loaded, reference_rows, describer.expert_counts)
        binary = engine.find()

        def check(staged: str) -> None:
            if binary is not None:
                check_engine(binary, staged, load(staged), rows, "model")
        checkpoint.write(directory, config, describer.tensors, DTYPES[dtype], max_shard_bytes, check)


# --- the parts of config.json -----------------------------------------------------------------------------------

def _model(describer, model):
    """inputs, layers and outputs; in the words of format 1 where they suffice."""
    entries = [_input(describer, *named) for named in zip(model.input_names, model.inputs)]
    inputs = [config for config, _ in entries]
    data = [index for index, name in enumerate(model.input_names) if name not in model.length_names]
    row = join([entries[index][1] for index in data])
    layers = model.layers
    if isinstance(model, Subject) and model.keys is not None:
        layers, own = describer.model(layers, row, "model", model.keys)
        model.outputs = nn.ModuleList(Output(branch if len(branch) else None, output.labels)
                                      for branch, output in zip(own, model.outputs))
    first = data[0]
    if len(data) == 1 and model.inputs[first].layers is None:
        describer.categories = model.inputs[first].categories
    layers, row = describer.layers(layers, row, "model", "")
    if layers and layers[0]["op"] == "embedding":
        inputs[first]["layers"] = [layers.pop(0)]
        if "result" in inputs[first]["layers"][0]:
            _read_as_input(layers, inputs[first]["layers"][0].pop("result"))
    layers = layers or [nothing(row)]
    outputs = [_output(describer, *named, row) for named in zip(model.output_names, model.outputs)]
    plain_input = len(inputs) == 1 and not {"categories", "layers", "missing"} & set(inputs[0])
    plain_output = len(outputs) == 1 and "layers" not in outputs[0]
    if not (plain_input and plain_output):
        describer.need(2)
    return {**({"input": inputs[0]} if plain_input else {"inputs": inputs}), "layers": layers,
            **({"output": outputs[0]} if plain_output else {"outputs": outputs})}


def _read_as_input(layers, name):
    """What these layers read by this name is now what enters them."""
    for layer in layers:
        if layer.get("input") == name:
            layer["input"] = "input"
        if "of" in layer:
            layer["of"] = ["input" if other == name else other for other in layer["of"]]


def _input(describer, name, entry):
    """(config, what enters the model's layers)"""
    shape = [int(size) for size in entry.shape]
    require(0 < len(shape) <= MOST_AXES or not shape and entry.categories is not None and entry.length is None, name,
            f"rows have the shape {shape}; a server's have 1 to {MOST_AXES} axes")
    require(0 not in shape, name, f"rows have the shape {shape}, of no numbers")
    config = {"name": _checked_name(name, "inputs"), "shape": shape}
    if entry.preprocess is not None:
        config["preprocess"] = _checked_preprocess(entry.preprocess, entry.shape)
    if entry.categories is not None:
        config["categories"] = int(entry.categories)
    if entry.values or entry.length is not None:
        describer.need(3)
        for word in entry.values.get("words", []):
            require(len(word.encode(errors="replace")) <= MOST_WORD_BYTES, name,
                    f"the word {word[:40]!r}... has more than {MOST_WORD_BYTES} bytes")
        config.update(entry.values, **({} if entry.length is None else {"length": entry.length}))
    row = entry.preprocessed(_example_row(entry.shape, entry.categories))
    if entry.layers is not None:
        config["layers"], row = describer.branch(entry.layers, row, "inputs", name, entry.categories)
    if not config.get("layers"):
        config.pop("layers", None)
    return config, row


def _output(describer, name, entry, row):
    config = {"name": _checked_name(name, "outputs")}
    if entry.layers is not None:
        config["layers"], row = describer.branch(entry.layers, row.clone(), "outputs", name)
    if not config.get("layers"):
        config.pop("layers", None)
    if entry.labels is not None:
        size = row.shape[-1] if row.dim() > 1 else 1
        labels = _checked_labels(entry.labels)
        require(len(labels) == size, "labels", f"{len(labels)} labels for an output of {size} elements")
        config["labels"] = labels
    return config


def _checked_name(name, where):
    require(isinstance(name, str) and VALID_TENSOR.fullmatch(name), where,
            f"{name!r} is no name: at most 128 characters without blanks, not beginning with 'routing.'")
    return name


def _checked_labels(labels):
    """As strings: numpy's, integers, bytes."""
    require(not isinstance(labels, (str, bytes)), "labels", f"{labels!r} is one text; give a list of them")
    labels = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    require(None not in labels, "labels", f"the one of element {labels.index(None) if None in labels else 0} is None")
    return [label.decode(errors="surrogateescape") if isinstance(label, bytes) else str(label) for label in labels]


def _checked_preprocess(preprocess, shape):
    require(isinstance(preprocess, Mapping), "preprocess", f"{preprocess!r} is no dict of scale, mean and std")
    unknown = set(preprocess) - {"scale", "mean", "std"}
    require(not unknown, "preprocess", f"unknown keys {sorted(unknown)}; there are scale, mean and std")
    given = {key: _numbers(values, key) for key, values in preprocess.items() if values is not None}
    for key in ("mean", "std"):
        require(len(given.get(key, [0])) in (1, shape[0]), "preprocess",
                f"{key} has {len(given.get(key, []))} values, but the input has {shape[0]} channels")
    for key in ("scale", "std"):
        require(0 not in given.get(key, []), "preprocess", f"{key} has a zero")
    require(len(given.get("scale", [1])) == 1, "preprocess", "scale is one number")
    return {key: values[0] if key == "scale" else values for key, values in given.items()}


def _numbers(values, key):
    """A list of them: of a number, a list, an array or a tensor."""
    try:
        numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise ExportError("preprocess", f"{key} is {values!r}; it must be a number or a list of numbers") from None
    require(bool((np.abs(numbers) <= np.finfo(np.float32).max).all()), "preprocess",
            f"{key} is {values!r}; a number of it is not finite in float32")
    return numbers.tolist()


def _example_row(shape, categories):
    """One row with values of both signs, so that layers which change their input in place show; or all categories."""
    size = math.prod(shape)
    values = torch.linspace(-1, 1, size) if categories is None else torch.arange(size) % categories
    return values.reshape(1, *shape)
