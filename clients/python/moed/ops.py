"""The ops of the checkpoint format that are one PyTorch module each, in one table read from both sides.

describe.py asks a row to describe a module, loader.py asks it to build one. Adding an op is one row. The two ops that
hold layers of their own, residual and moe, are in describe.py and loader.py.
"""

import math
from typing import Callable, NamedTuple, Tuple

import torch
from torch import nn

from moed import attention, functions, graph, modules

REQUIRED = object()

# Modules that do nothing at inference: they leave no trace in a checkpoint.
INFERENCE_NO_OPS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


class ExportError(ValueError):
    """The module cannot be expressed as a checkpoint: the path of the submodule, why, and "file.py:12" where known."""

    def __init__(self, path, reason, line=""):
        super().__init__(path, reason, line)
        self.path, self.reason, self.line = str(path), reason, line

    def __str__(self):
        return f"{self.path}: {self.reason}{f' ({self.line})' if self.line else ''}"


class ExportWarning(UserWarning):
    """What is exported exactly, and could be served better."""


def require(condition, path, reason):
    if not condition:
        raise ExportError(path, reason)


class Op(NamedTuple):
    """One op: its JSON keys with their defaults, the exact module types it stands for, and both directions.

    describe(module, row, path) -> (keys, tensors); `row` is an example of its input, batch axis included.
    build(keys, tensors) -> module, its tensors not yet filled in.
    since: the format that brought it; dotted: those of its tensors whose names have a dot; since_of(keys, tensors): the
    format that brought what these say.
    """

    keys: dict
    modules: tuple
    describe: Callable
    build: Callable
    since: int = 1
    dotted: tuple = ()
    since_of: Callable = lambda keys, tensors: 1


def one_int(value, path, what):
    """The single int in PyTorch's int-or-tuple settings."""
    values = set(value) if isinstance(value, tuple) else {value}
    require(len(values) == 1, path, f"{what} {value} differs between axes; a checkpoint holds one number")
    return values.pop()


def own_tensors(module, names=("weight", "bias")):
    return {name: getattr(module, name) for name in names if getattr(module, name) is not None}


# --- linear and convolutions ------------------------------------------------------------------------------------

def describe_linear(module, row, path):
    return {}, own_tensors(module)


def build_linear(keys, tensors):
    out_size, in_size = tensors["weight"].shape
    return nn.Linear(in_size, out_size, bias="bias" in tensors)


def conv_padding(module, path):
    """The number of zeros; "same" where that is not one number on both sides of every axis."""
    if module.padding != "same":
        return 0 if module.padding == "valid" else one_int(module.padding, path, "padding")
    sizes = set(module.kernel_size)
    size = sizes.pop()
    return "same" if sizes or size % 2 == 0 else size // 2


def describe_conv(module, row, path):
    require(module.padding_mode == "zeros", path, f"padding_mode {module.padding_mode!r} is not zeros")
    require(one_int(module.dilation, path, "dilation") == 1, path, f"dilation {module.dilation} is not 1")
    keys = {"stride": one_int(module.stride, path, "stride"), "padding": conv_padding(module, path),
            "groups": module.groups}
    return keys, own_tensors(module)


def build_conv(module_type):
    def build(keys, tensors):
        out_channels, in_channels_of_group, *kernel = tensors["weight"].shape
        return module_type(in_channels_of_group * keys["groups"], out_channels, tuple(kernel), stride=keys["stride"],
                           padding=keys["padding"], groups=keys["groups"], bias="bias" in tensors)
    return build


def conv_since(keys, tensors):
    return 3 if keys.get("padding") == "same" else 1


# --- normalisations ---------------------------------------------------------------------------------------------

def with_affine(module, shape):
    """Weight and bias of a norm; where the module has none, the ones and zeros that do the same."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    return {"weight": torch.ones(shape) if weight is None else weight,
            "bias": torch.zeros(shape) if bias is None else bias}


def describe_batch_norm(module, row, path):
    require(module.running_mean is not None, path,
            "track_running_stats is off: the result would depend on the rows of the batch")
    statistics = own_tensors(module, ("running_mean", "running_var"))
    return {"eps": module.eps}, {**with_affine(module, module.num_features), **statistics}


def build_batch_norm(keys, tensors):
    return modules.BatchNorm(tensors["running_mean"].shape[0], eps=keys["eps"])


def describe_layer_norm(module, row, path):
    return {"eps": module.eps}, with_affine(module, module.normalized_shape)


def build_layer_norm(keys, tensors):
    return nn.LayerNorm(tensors["weight"].shape, eps=keys["eps"])


def describe_rms_norm(module, row, path):
    # PyTorch's default eps=None means the machine epsilon of the input's type, here float32.
    eps = torch.finfo(torch.float32).eps if module.eps is None else module.eps
    return {"eps": eps}, {"weight": with_affine(module, module.normalized_shape)["weight"]}


def build_rms_norm(keys, tensors):
    return modules.RMSNorm(tensors["weight"].shape, eps=keys["eps"])


# --- pooling ----------------------------------------------------------------------------------------------------

def pool_keys(module, path):
    require(not module.ceil_mode, path, "ceil_mode is on; a checkpoint's pooling drops the incomplete window")
    kernel = one_int(module.kernel_size, path, "kernel_size")
    return {"kernel": kernel, "stride": one_int(module.stride, path, "stride"),
            "padding": one_int(module.padding, path, "padding")}


def describe_max_pool(module, row, path):
    require(one_int(module.dilation, path, "dilation") == 1, path, f"dilation {module.dilation} is not 1")
    require(not module.return_indices, path, "return_indices is on")
    return pool_keys(module, path), {}


def describe_avg_pool(module, row, path):
    if isinstance(module, nn.AdaptiveAvgPool2d):  # to one number of a square; others are adaptive_avg_pool2d
        return {"kernel": row.shape[-1], "stride": row.shape[-1], "padding": 0}, {}
    require(module.divisor_override is None, path, "divisor_override is set")
    keys = pool_keys(module, path)
    require(module.count_include_pad or keys["padding"] == 0, path, "count_include_pad is off with padding")
    return keys, {}


def build_pool(module_type):
    return lambda keys, tensors: module_type(keys["kernel"], stride=keys["stride"], padding=keys["padding"])


# --- shapes and functions ---------------------------------------------------------------------------------------

def describe_flatten(module, row, path):
    whole_row = module.start_dim == 1 and module.end_dim in (-1, row.dim() - 1)
    require(whole_row, path, f"start_dim {module.start_dim}, end_dim {module.end_dim} do not flatten the whole row")
    return {}, {}


def describe_softmax(module, row, path):
    require(module.dim in (-1, row.dim() - 1), path, f"dim {module.dim} is not the last axis")
    return {}, {}


def describe_gelu(module, row, path):
    return {"approximate": module.approximate}, {}


def describe_reduction(module, row, path):
    return {"axis": row_axis(module.axis, row)}, {}


def row_axis(axis, row):
    """An axis of the row counted from its front."""
    return modules.batch_axis(axis, row) - 1


def describe_select(module, row, path):
    require(module.index >= -1, path, f"index {module.index} counts from the end; a checkpoint's counts from the front")
    return {"index": "last" if module.index == -1 else module.index, "axis": row_axis(module.axis, row)}, {}


def build_select(keys, tensors):
    return modules.Select(-1 if keys["index"] == "last" else keys["index"], keys["axis"])


def select_since(keys, tensors):
    return 3 if keys.get("index") == "last" else 1


def plain(module_type, since=1):
    """An op with neither keys nor tensors."""
    return Op({}, (module_type,), lambda module, row, path: ({}, {}), lambda keys, tensors: module_type(), since)


# --- embeddings and transformers --------------------------------------------------------------------------------

def describe_embedding(module, row, path):
    require(module.max_norm is None, path, "max_norm is set; a checkpoint's embedding gives its rows as they are")
    return {}, own_tensors(module, ("weight",))


def describe_position_embedding(module, row, path):
    require(module.weight.shape == row.shape[1:], path,
            f"the weight has shape {list(module.weight.shape)}, but rows have {list(row.shape[1:])}")
    return {}, own_tensors(module, ("weight",))


def describe_glu(module, row, path):
    return {"activation": module.activation, "limit": module.limit, "alpha": module.alpha,
            "shift": module.shift}, dict(module.named_parameters())


def build_glu(keys, tensors):
    outputs, inputs = tensors["gate.weight"].shape
    module = modules.GLU(inputs, outputs, keys["activation"], limit=keys["limit"], alpha=keys["alpha"],
                         shift=keys["shift"])
    return without_biases(module, {"gate.bias": module.gate, "up.bias": module.up}, tensors)


def glu_since(keys, tensors):
    return 3 if set(keys) - {"activation"} else 1


def without_biases(module, owners, tensors):
    """The module without the biases that a checkpoint leaves out; it may leave out one and not the other."""
    for name, owner in owners.items():
        if name not in tensors:
            setattr(owner, name.split(".")[-1], None)
    return module


ATTENTION_KEYS = ("kv_heads", "head_dim", "causal", "window", "scale", "rotary", "qk_norm", "eps", "qk_norm_late",
                  "clip")


def describe_attention(module, row, path):
    require(row.dim() == 3, path, f"rows have shape {list(row.shape[1:])}; attention needs [positions, size]")
    if isinstance(module, modules.SelfAttention):
        return {"heads": module.heads}, dict(module.named_parameters())
    keys = {"heads": module.heads, **{key: getattr(module, key) for key in ATTENTION_KEYS}}
    if keys["head_dim"] * keys["heads"] == row.shape[-1]:
        keys["head_dim"] = None
    if keys["kv_heads"] == keys["heads"]:
        keys["kv_heads"] = None
    if keys["qk_norm"] == "none":
        keys["eps"] = 1e-6
    return keys, dict(module.named_parameters())


def build_attention(keys, tensors):
    size = tensors["out_proj.weight"].shape[0]
    own = {key: keys[key] for key in ATTENTION_KEYS}
    plain_keys = {"head_dim", "kv_heads", "window", "scale", "rotary"}
    if all(own[key] is None for key in plain_keys) and not own["causal"] and own["qk_norm"] == "none" \
            and not own["clip"] and not {"sinks", "bias"} & set(tensors):
        module = modules.SelfAttention(size, keys["heads"])
    else:
        module = attention.Attention(size, keys["heads"], sinks="sinks" in tensors, bias=tensors.get("bias"), **own)
    return without_biases(module, {"in_proj_bias": module, "out_proj.bias": module.out_proj}, tensors)


def attention_since(keys, tensors):
    return 3 if set(keys) - {"heads"} or {"sinks", "bias"} & set(tensors) else 1


# --- functions ---------------------------------------------------------------------------------------------------

def settings(module_type, *names, **torch_names) -> Tuple[Callable, Callable]:
    """An op whose keys are attributes of the module, or those that `torch_names` says."""
    def describe(module, row, path):
        return {key: getattr(module, torch_names.get(key, key)) for key in names}, {}

    def build(keys, tensors):
        return module_type(**{torch_names.get(key, key): keys[key] for key in names})
    return describe, build


def describe_prelu(module, row, path):
    require(module.num_parameters in (1, row.shape[1]), path,
            f"{module.num_parameters} slopes for rows of {list(row.shape[1:])}")
    return {}, own_tensors(module, ("weight",))


def describe_clamp(module, row, path):
    low, high = (module.min_val, module.max_val) if isinstance(module, nn.Hardtanh) else (module.min, module.max)
    low, high = None if low == -math.inf else low, None if high == math.inf else high
    require(low is not None or high is not None, path, "clamps to nothing: leave it out")
    require(low is None or high is None or low <= high, path, f"min {low} is above max {high}")
    return {"min": low, "max": high}, {}


def describe_softplus(module, row, path):
    require(module.beta > 0, path, f"beta {module.beta} is not above 0")
    return {"beta": module.beta, "threshold": module.threshold}, {}


def describe_group_norm(module, row, path):
    return {"groups": module.num_groups, "eps": module.eps}, own_tensors(module)


def build_group_norm(keys, tensors):
    channels = len(tensors.get("weight", tensors.get("bias", ())))
    module = functions.GroupNorm(keys["groups"], channels, eps=keys["eps"])
    return without_biases(module, {"weight": module, "bias": module}, tensors)


def describe_slice(module, row, path):
    size = row.shape[modules.batch_axis(module.axis, row)]
    end = size if module.end is None else module.end
    require(0 <= module.start < end <= size, path, f"[{module.start}, {end}) is not within an axis of {size}")
    return {"axis": row_axis(module.axis, row), "start": module.start, "end": None if end == size else end}, {}


def describe_l2_normalize(module, row, path):
    return {"axis": row_axis(module.axis, row), "eps": module.eps}, {}


def describe_adaptive(module, row, path):
    size = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,) * 2
    return {"size": [own or given for own, given in zip(size, row.shape[-2:])]}, {}


# --- joining values ---------------------------------------------------------------------------------------------

def describe_join(module, row, path):
    return {"value": module.value}, own_tensors(module, ("weight",))


def build_join(module_type):
    return lambda keys, tensors: module_type(keys["value"], tensors.get("weight"))


RMS_NORMS = (modules.RMSNorm, nn.RMSNorm) if hasattr(nn, "RMSNorm") else (modules.RMSNorm,)
NORM_EPS = 1e-5
CONV_KEYS = {"stride": 1, "padding": 0, "groups": 1}
POOL_KEYS = {"kernel": REQUIRED, "stride": lambda keys: keys["kernel"], "padding": 0}  # stride defaults to the kernel

OPS = {
    "linear": Op({}, (nn.Linear,), describe_linear, build_linear),
    "conv1d": Op(CONV_KEYS, (nn.Conv1d,), describe_conv, build_conv(nn.Conv1d), since_of=conv_since),
    "conv2d": Op(CONV_KEYS, (nn.Conv2d,), describe_conv, build_conv(nn.Conv2d), since_of=conv_since),
    "batch_norm": Op({"eps": NORM_EPS}, (nn.BatchNorm1d, nn.BatchNorm2d, modules.BatchNorm),
                     describe_batch_norm, build_batch_norm),
    "layer_norm": Op({"eps": NORM_EPS}, (nn.LayerNorm,), describe_layer_norm, build_layer_norm),
    "rms_norm": Op({"eps": NORM_EPS}, RMS_NORMS, describe_rms_norm, build_rms_norm),
    "max_pool2d": Op(POOL_KEYS, (nn.MaxPool2d,), describe_max_pool, build_pool(nn.MaxPool2d)),
    "avg_pool2d": Op(POOL_KEYS, (nn.AvgPool2d, nn.AdaptiveAvgPool2d), describe_avg_pool, build_pool(nn.AvgPool2d)),
    "flatten": Op({}, (nn.Flatten,), describe_flatten, lambda keys, tensors: nn.Flatten()),
    "reshape": Op({"shape": REQUIRED}, (modules.Reshape,),
                  lambda module, row, path: ({"shape": list(module.shape)}, {}),
                  lambda keys, tensors: modules.Reshape(*keys["shape"])),
    "sum": Op({"axis": REQUIRED}, (modules.Sum,), describe_reduction, lambda keys, tensors: modules.Sum(keys["axis"])),
    "mean": Op({"axis": REQUIRED}, (modules.Mean,), describe_reduction,
               lambda keys, tensors: modules.Mean(keys["axis"])),
    "relu": plain(nn.ReLU),
    "gelu": Op({"approximate": "none"}, (nn.GELU,), describe_gelu, lambda keys, tensors: nn.GELU(keys["approximate"])),
    "silu": plain(nn.SiLU),
    "tanh": plain(nn.Tanh),
    "sigmoid": plain(nn.Sigmoid),
    "softmax": Op({}, (nn.Softmax,), describe_softmax, lambda keys, tensors: nn.Softmax(dim=-1)),
    "cube": plain(modules.Cube),
    "scale": Op({"value": REQUIRED}, (modules.Scale,), lambda module, row, path: ({"value": module.value}, {}),
                lambda keys, tensors: modules.Scale(keys["value"])),
    "embedding": Op({}, (nn.Embedding,), describe_embedding,
                    lambda keys, tensors: nn.Embedding(*tensors["weight"].shape), 2),
    "position_embedding": Op({}, (modules.PositionEmbedding,), describe_position_embedding,
                             lambda keys, tensors: modules.PositionEmbedding(*tensors["weight"].shape), 2),
    "class_token": Op({}, (modules.ClassToken,), lambda module, row, path: ({}, own_tensors(module, ("weight",))),
                      lambda keys, tensors: modules.ClassToken(tensors["weight"].shape[0]), 2),
    "glu": Op({"activation": "silu", "limit": None, "alpha": 1.0, "shift": 0.0}, (modules.GLU,), describe_glu,
              build_glu, 2, ("gate.weight", "gate.bias", "up.weight", "up.bias"), glu_since),
    "attention": Op({"heads": REQUIRED, "kv_heads": None, "head_dim": None, "causal": False, "window": None,
                     "scale": None, "rotary": None, "qk_norm": "none", "eps": 1e-6, "qk_norm_late": False,
                     "clip": 0.0},
                    (modules.SelfAttention, attention.Attention), describe_attention, build_attention, 2,
                    ("out_proj.weight", "out_proj.bias", "q_norm.weight", "k_norm.weight"), attention_since),
    "select": Op({"index": REQUIRED, "axis": 0}, (modules.Select,), describe_select,
                 build_select, 2, (), select_since),
    "transpose": plain(modules.Transpose, 2),
    "add": Op({"value": None}, (graph.Add,), describe_join, build_join(graph.Add), 3),
    "multiply": Op({"value": None}, (graph.Multiply,), describe_join, build_join(graph.Multiply), 3),
    "divide": Op({"value": None}, (graph.Divide,), describe_join, build_join(graph.Divide), 3),
    "leaky_relu": Op({"slope": 0.01}, (nn.LeakyReLU,), *settings(nn.LeakyReLU, "slope", slope="negative_slope"), 3),
    "elu": Op({"alpha": 1.0}, (nn.ELU,), *settings(nn.ELU, "alpha"), 3),
    "prelu": Op({}, (nn.PReLU,), describe_prelu, lambda keys, tensors: nn.PReLU(tensors["weight"].numel()), 3),
    "softplus": Op({"beta": 1, "threshold": 20}, (nn.Softplus,), describe_softplus,
                   lambda keys, tensors: nn.Softplus(keys["beta"], keys["threshold"]), 3),
    "mish": plain(nn.Mish, 3),
    "hardswish": plain(nn.Hardswish, 3),
    "hardsigmoid": plain(nn.Hardsigmoid, 3),
    "relu2": plain(functions.ReLU2, 3),
    "relu6": plain(nn.ReLU6, 3),
    "clamp": Op({"min": None, "max": None}, (functions.Clamp, nn.Hardtanh), describe_clamp,
                lambda keys, tensors: functions.Clamp(keys["min"], keys["max"]), 3),
    "exp": plain(functions.Exp, 3),
    "log": plain(functions.Log, 3),
    "sqrt": plain(functions.Sqrt, 3),
    "log_softmax": Op({}, (nn.LogSoftmax,), describe_softmax, lambda keys, tensors: nn.LogSoftmax(dim=-1), 3),
    "group_norm": Op({"groups": REQUIRED, "eps": NORM_EPS}, (nn.GroupNorm, functions.GroupNorm), describe_group_norm,
                     build_group_norm, 3),
    "l2_normalize": Op({"axis": -1, "eps": 1e-12}, (functions.L2Normalize,), describe_l2_normalize,
                       lambda keys, tensors: functions.L2Normalize(**keys), 3),
    "max": Op({"axis": REQUIRED}, (functions.Max,), describe_reduction,
              lambda keys, tensors: functions.Max(keys["axis"]), 3),
    "slice": Op({"axis": 0, "start": 0, "end": None}, (functions.Slice,), describe_slice,
                lambda keys, tensors: functions.Slice(**keys), 3),
    "adaptive_avg_pool2d": Op({"size": REQUIRED}, (functions.AdaptiveAvgPool2d,), describe_adaptive,
                              lambda keys, tensors: functions.AdaptiveAvgPool2d(tuple(keys["size"])), 3),
    "concat": Op({"axis": 0}, (graph.Concat,), describe_reduction, lambda keys, tensors: graph.Concat(keys["axis"]), 3),
}
OP_OF_MODULE = {module: name for name, op in OPS.items() for module in op.modules}


def default_of(op, key, keys):
    """The value a key takes when config.json leaves it out; REQUIRED if it may not."""
    default = op.keys[key]
    return default(keys) if callable(default) else default
