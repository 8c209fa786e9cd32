"""Building blocks of cases: layers as in config.json, with recipes for their tensors beside
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


def group_norm(name, channels, groups, weight=True, bias=True, **options):
    tensors = {"weight": weight and uniform(channels), "bias": bias and uniform(channels)}
    return with_tensors("group_norm", name, {"groups": groups, **options}, tensors)


def prelu(name, slopes):
    return with_tensors("prelu", name, {}, {"weight": uniform(slopes)})


def glu(name, inputs, outputs, bias=True, **options):
    tensors = {
        "gate.weight": weights(outputs, inputs),
        "gate.bias": bias in (True, "gate") and uniform(outputs),
        "up.weight": weights(outputs, inputs),
        "up.bias": bias in (True, "up") and uniform(outputs),
    }
    return with_tensors("glu", name, options, tensors)


def attention(name, size, heads, bias=True):
    tensors = {
        "in_proj_weight": times(2.0, weights(3 * size, size)),
        "in_proj_bias": bias in (True, "in_proj") and uniform(3 * size),
        "out_proj.weight": weights(size, size),
        "out_proj.bias": bias in (True, "out_proj") and uniform(size),
    }
    return with_tensors("attention", name, {"heads": heads}, tensors)


def attention_3(name, size, heads, bias=False, sinks=False, added=None, **options):
    """Of format 3; `added`: positions of an additive bias."""
    kv_heads, head_dim = options.get("kv_heads", heads), options.get("head_dim", size // heads)
    inner, norm = heads * head_dim, options.get("qk_norm", "none")
    groups = (heads, kv_heads) if norm == "all" else (1, 1)
    tensors = {
        "in_proj_weight": times(2.0, weights(inner + 2 * kv_heads * head_dim, size)),
        "in_proj_bias": bias and uniform(inner + 2 * kv_heads * head_dim),
        "out_proj.weight": weights(size, inner),
        "out_proj.bias": bias and uniform(size),
        "q_norm.weight": norm != "none" and uniform(groups[0] * head_dim),
        "k_norm.weight": norm != "none" and uniform(groups[1] * head_dim),
        "sinks": sinks and uniform(heads),
        "bias": added and uniform(heads, added, added),
    }
    return with_tensors("attention", name, {"heads": heads, **options}, tensors)


def embedding(name, count, size):
    return with_tensors("embedding", name, {}, {"weight": uniform(count, size)})


def class_token(name, size):
    return with_tensors("class_token", name, {}, {"weight": uniform(size)})


def position_embedding(name, *shape):
    return with_tensors("position_embedding", name, {}, {"weight": uniform(*shape)})


def constant(kind, name, *shape, **options):
    """add or multiply with a tensor."""
    return with_tensors(kind, name, options, {"weight": uniform(*shape)})


def result(name, layer, **options):
    """The layer's value has a name."""
    return {**layer, "result": name, **options}


def reads(name, layer, **options):
    """The layer reads the value of that name."""
    return {**layer, "input": name, **options}


def residual(*layers):
    return {"op": "residual", "layers": list(layers)}


def gate(*layers, select_bias=None, expert_scale=None, **options):
    tensors = {"select_bias": select_bias, "expert_scale": expert_scale}
    tensors = {name: recipe for name, recipe in tensors.items() if recipe}
    return {"layers": list(layers), **options, "tensors": tensors}


def attentive(hidden, key_layer, *layers, **options):
    inner = gate(*layers, kind="attentive", key_layer=key_layer, **options)
    for name in ("query.weight", "key.weight"):
        inner["tensors"][name] = times(2.0, weights(hidden, hidden))
    return inner


def named(name, chooser, **options):
    """One gate of several: `experts` and `input` are options of such gates."""
    return {"name": name, **chooser, **options}


def shared(*layers, gate_width=None):
    """An expert for every item; with a sigmoid gate over `gate_width` elements."""
    inner = {"layers": list(layers), "tensors": {}}
    if gate_width:
        inner.update(gate="sigmoid", tensors={"shared_gate.weight": weights(1, gate_width)})
    return inner


def moe(name, chooser, count, *layers, inputs=None, identity=None, **options):
    """`chooser`: the gate, or a list of several; `inputs`: which entry each expert sees."""
    experts = {"count": count, "layers": list(layers)}
    if inputs:
        experts["inputs"] = inputs
    if identity:
        experts["identity"] = identity
    gates = {"gates" if isinstance(chooser, list) else "gate": chooser}
    return {"op": "moe", "name": name, **options, **gates, "experts": experts}


def plain_expert(width, out=None):
    return linear("fc1", width, 9), op("relu"), linear("fc2", 9, out or width)


def wide(inputs, experts):
    """A gate's linear layer whose logits differ clearly."""
    return linear("out", inputs, experts, weight=times(3.0, weights(experts, inputs)))


# --- cases ----------------------------------------------------------------------------------------


def quantities(random, shape):
    return random.uniform(-2.0, 2.0, shape)


@dataclass
class Source:
    """One of several inputs."""

    name: str
    shape: list
    layers: list
    categories: int = None
    preprocess: dict = None
    length: str = None  # the source that holds how many entries of a row are no padding

    def draw(self, random):
        if self.categories:
            return random.randint(0, self.categories, self.shape)
        return quantities(random, self.shape)


def source(name, shape, *layers, **options):
    return Source(name, shape, list(layers), **options)


def output(name, *layers, **options):
    """One of several outputs."""
    return {"name": name, **options, **({"layers": list(layers)} if layers else {})}


@dataclass
class Case:
    name: str
    shape: list
    layers: list
    version: int = 1
    rows: int = 7
    inputs: object = quantities  # one row
    preprocess: dict = None
    sources: list = None  # instead of shape, inputs and preprocess: a list of Source
    outputs: list = None
    requests: list = None  # rows per request; absent: it does not matter
    config: dict = field(default_factory=dict)  # further keys of config.json
    ties: bool = False  # equal scores are intended
    shows: object = None  # a check of the drawn case's routing, by name
    dtype: object = lambda name: "F32"  # of the tensor called so
    metadata: dict = None
    shards: int = 1
    reversed_data: bool = False
    misaligned_by: int = 0  # bytes from where the tensors' data would be aligned


CASES = []


def case(name, shape, *layers, **options):
    CASES.append(Case(name, shape, list(layers), **options))


def case_2(name, shape, *layers, requests=None, **options):
    """Of format 2."""
    if requests:
        options["rows"] = sum(requests)
    case(name, shape, *layers, version=2, requests=requests, **options)


def case_3(name, shape, *layers, requests=None, **options):
    """Of format 3."""
    if requests:
        options["rows"] = sum(requests)
    case(name, shape, *layers, version=3, requests=requests, **options)


def case_of_inputs(name, sources, *layers, **options):
    case_2(name, None, *layers, sources=sources, **options)
