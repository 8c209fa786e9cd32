"""What cases are written with: layers as in config.json, with recipes for their tensors beside
their options, and `case`, which adds one model to CASES.

A recipe is a function that draws one tensor from a random state; generate.py calls it, once per
expert, and leaves the options to config.json.
"""

from dataclasses import dataclass, field

import numpy as np

# --- recipes --------------------------------------------------------------------------------------


def uniform(*shape, low=-1.0, high=1.0):
    return lambda random: random.uniform(low, high, shape)


def weights(*shape):
    """Keeps the size of activations: values of variance 1/fan_in."""
    spread = (3.0 / max(1, np.prod(shape[1:]))) ** 0.5
    return uniform(*shape, low=-spread, high=spread)


def fixed(values):
    return lambda random: np.array(values, np.float64)


def times(factor, recipe):
    return lambda random: factor * recipe(random)


# --- layers ---------------------------------------------------------------------------------------


def op(name, **options):
    return {"op": name, **options}


def with_tensors(kind, name, options, tensors):
    present = {suffix: recipe for suffix, recipe in tensors.items() if recipe}
    return {"op": kind, "name": name, **options, "tensors": present}


def linear(name, inputs, outputs, bias=True, weight=None):
    tensors = {"weight": weight or weights(outputs, inputs), "bias": bias and uniform(outputs)}
    return with_tensors("linear", name, {}, tensors)


def conv(kind, name, inputs, outputs, *kernel, bias=True, **options):
    weight = weights(outputs, inputs // options.get("groups", 1), *kernel)
    return with_tensors(kind, name, options, {"weight": weight, "bias": bias and uniform(outputs)})


def conv1d(name, inputs, outputs, kernel, **options):
    return conv("conv1d", name, inputs, outputs, kernel, **options)


def conv2d(name, inputs, outputs, height, width, **options):
    return conv("conv2d", name, inputs, outputs, height, width, **options)


def batch_norm(name, channels, weight=True, bias=True, **options):
    tensors = {
        "weight": weight and uniform(channels),
        "bias": bias and uniform(channels),
        "running_mean": uniform(channels),
        "running_var": uniform(channels, low=0.1, high=3.0),
    }
    return with_tensors("batch_norm", name, options, tensors)


def layer_norm(name, *axes, bias=True, **options):
    tensors = {"weight": uniform(*axes), "bias": bias and uniform(*axes)}
    return with_tensors("layer_norm", name, options, tensors)


def rms_norm(name, *axes, **options):
    return with_tensors("rms_norm", name, options, {"weight": uniform(*axes)})


def residual(*layers):
    return {"op": "residual", "layers": list(layers)}


def gate(*layers, select_bias=None, **options):
    tensors = {"select_bias": select_bias} if select_bias else {}
    return {"layers": list(layers), **options, "tensors": tensors}


def attentive(hidden, key_layer, *layers, **options):
    inner = gate(*layers, kind="attentive", key_layer=key_layer, **options)
    for name in ("query.weight", "key.weight"):
        inner["tensors"][name] = times(2.0, weights(hidden, hidden))
    return inner


def moe(name, chooser, count, *layers):
    experts = {"count": count, "layers": list(layers)}
    return {"op": "moe", "name": name, "gate": chooser, "experts": experts}


def plain_expert(width, out=None):
    return linear("fc1", width, 9), op("relu"), linear("fc2", 9, out or width)


def wide(inputs, experts):
    """A gate's linear layer whose logits lie well apart."""
    return linear("out", inputs, experts, weight=times(3.0, weights(experts, inputs)))


# --- cases ----------------------------------------------------------------------------------------


@dataclass
class Case:
    name: str
    shape: list
    layers: list
    rows: int = 7
    inputs: object = lambda random, shape: random.uniform(-2.0, 2.0, shape)  # one row
    preprocess: dict = None
    config: dict = field(default_factory=dict)  # further keys of config.json
    ties: bool = False  # equal scores are the point
    dtype: object = lambda name: "F32"  # of the tensor called so
    metadata: dict = None
    shards: int = 1
    reversed_data: bool = False
    misaligned_by: int = 0  # bytes from where the tensors' data would be aligned


CASES = []


def case(name, shape, *layers, **options):
    CASES.append(Case(name, shape, list(layers), **options))
