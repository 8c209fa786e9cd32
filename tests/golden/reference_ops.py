"""The ops of core/CHECKPOINT.md without the MoE layer, one small function each.

    op(layer, tensor, x): `layer` is its entry in config.json, tensor("weight") one of its tensors
    or None, x is [rows, ...] in float64.
"""

import math

import numpy as np

def linear(layer, tensor, x):
    # Not x @ W.T: equal rows of W must give equal bits, or ties would not be ties.
    y = (x[..., None, :] * tensor("weight")).sum(-1)
    return y if tensor("bias") is None else y + tensor("bias")


def part(prefix, tensor):
    """The tensors of a layer inside a layer: its weight is called "<prefix>weight"."""
    return lambda suffix: tensor(prefix + suffix)


def padding_of(layer, kernel):
    """Before and after an axis; "same": the odd one out comes after."""
    padding = layer.get("padding", 0)
    return ((kernel - 1) // 2, kernel // 2) if padding == "same" else (padding, padding)


def conv2d(layer, tensor, x):
    weight, bias = tensor("weight"), tensor("bias")
    stride, groups = layer.get("stride", 1), layer.get("groups", 1)
    channels, per_group, height, width = weight.shape
    x = np.pad(x, ((0, 0), (0, 0), padding_of(layer, height), padding_of(layer, width)))
    out_h = (x.shape[2] - height) // stride + 1
    out_w = (x.shape[3] - width) // stride + 1
    y = np.zeros((len(x), channels, out_h, out_w))
    for out in range(channels):
        first = out // (channels // groups) * per_group
        for kh in range(height):
            for kw in range(width):
                window = x[:, first : first + per_group, kh:, kw:][..., ::stride, ::stride]
                taps = weight[out, :, kh, kw][:, None, None]
                y[:, out] += (window[..., :out_h, :out_w] * taps).sum(1)
    return y if bias is None else y + bias[:, None, None]


def conv1d(layer, tensor, x):
    """A conv2d over an image one line high, padded only at its two ends."""
    x = np.pad(x, ((0, 0), (0, 0), padding_of(layer, tensor("weight").shape[2])))
    flat = {"weight": tensor("weight")[:, :, None], "bias": tensor("bias")}
    return conv2d({**layer, "padding": 0}, flat.get, x[:, :, None])[:, :, 0]


def batch_norm(layer, tensor, x):
    def per_channel(name, otherwise):
        values = otherwise if tensor(name) is None else tensor(name)
        return np.reshape(values, (-1,) + (1,) * (x.ndim - 2))

    deviation = np.sqrt(per_channel("running_var", None) + layer.get("eps", 1e-5))
    normal = (x - per_channel("running_mean", None)) / deviation
    return normal * per_channel("weight", 1.0) + per_channel("bias", 0.0)


def layer_norm(layer, tensor, x):
    weight, bias = tensor("weight"), tensor("bias")
    axes = tuple(range(-weight.ndim, 0))
    x = x - x.mean(axes, keepdims=True)
    x = x / np.sqrt((x**2).mean(axes, keepdims=True) + layer.get("eps", 1e-5))
    return x * weight + (0.0 if bias is None else bias)


def rms_norm(layer, tensor, x):
    axes = tuple(range(-tensor("weight").ndim, 0))
    square = (x**2).mean(axes, keepdims=True)
    return x / np.sqrt(square + layer.get("eps", 1e-5)) * tensor("weight")


def windows(layer, x, fill):
    """Every pooling window's elements along a new last axis."""
    kernel, padding = layer["kernel"], layer.get("padding", 0)
    stride = layer.get("stride", kernel)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    out_h, out_w = ((size - kernel) // stride + 1 for size in x.shape[2:])
    taps = [
        x[:, :, kh:, kw:][..., ::stride, ::stride][..., :out_h, :out_w]
        for kh in range(kernel)
        for kw in range(kernel)
    ]
    return np.stack(taps, -1)


def max_pool2d(layer, tensor, x):
    return windows(layer, x, -np.inf).max(-1)


def avg_pool2d(layer, tensor, x):
    return windows(layer, x, 0.0).mean(-1)


def flatten(layer, tensor, x):
    return x.reshape(len(x), -1)


def reshape(layer, tensor, x):
    return x.reshape([len(x)] + layer["shape"])


def batch_axis(axis):
    """An axis of one row as an axis of the batch."""
    return axis if axis < 0 else axis + 1


def sum_axis(layer, tensor, x):
    return x.sum(batch_axis(layer["axis"]))


def mean_axis(layer, tensor, x):
    return x.mean(batch_axis(layer["axis"]))


def relu(layer, tensor, x):
    return np.maximum(x, 0.0)


def sigmoid(x):
    with np.errstate(over="ignore"):  # exp(10000) is infinite, and 1/infinity the right answer
        return 1.0 / (1.0 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def gelu_none(x):
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def gelu_tanh(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def gelu(layer, tensor, x):
    return (gelu_tanh if layer.get("approximate", "none") == "tanh" else gelu_none)(x)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


GLU_ACTIVATIONS = {
    "silu": silu,
    "gelu": gelu_none,
    "gelu_tanh": gelu_tanh,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0.0),
}


def glu(layer, tensor, x):
    gate, up = linear(layer, part("gate.", tensor), x), linear(layer, part("up.", tensor), x)
    if "limit" in layer:
        gate = np.minimum(gate, layer["limit"])
        up = np.clip(up, -layer["limit"], layer["limit"])
    if "alpha" in layer:
        gated = gate * sigmoid(layer["alpha"] * gate)
    else:
        gated = GLU_ACTIVATIONS[layer.get("activation", "silu")](gate)
    return gated * (up + layer.get("shift", 0.0))


# --- rows of different length ---------------------------------------------------------------------


def real(lengths, positions):
    """[rows, positions]: what is no padding."""
    return np.arange(positions) < np.asarray(lengths)[:, None]


def over_entries(function, x, lengths):
    """function of each row's own entries, an array [entries, ...]; of none: 0."""
    each = [function(row[:length]) if length else np.zeros(row.shape[1:]) for row, length in zip(x, lengths)]
    return np.stack(each)


REDUCTIONS = {
    "sum": lambda layer, x: x.sum(0),
    "mean": lambda layer, x: x.mean(0),
    "max": lambda layer, x: x.max(0),
    "select": lambda layer, x: x[-1 if layer["index"] == "last" else layer["index"]],
}


# --- attention ------------------------------------------------------------------------------------


def frequencies(rotary, pairs):
    """The angle per position of every pair."""
    if "frequencies" in rotary:
        return np.array(rotary["frequencies"])
    theta = rotary.get("theta", 10000.0)
    plain = theta ** (-np.arange(pairs) / pairs)
    scaling = rotary.get("scaling")
    return plain if scaling is None else SCALINGS[scaling["type"]](scaling, plain, theta)


def linear_scaling(scaling, plain, theta):
    return plain / scaling["factor"]


def llama3_scaling(scaling, plain, theta):
    turns = scaling["original"] * plain / (2 * math.pi)  # over the original length
    share = np.clip((turns - scaling["low"]) / (scaling["high"] - scaling["low"]), 0, 1)
    return (1 - share) * plain / scaling["factor"] + share * plain


def yarn_scaling(scaling, plain, theta):
    dims = 2 * len(plain)

    def pair_of(turns):
        return dims * math.log(scaling["original"] / (2 * math.pi * turns)) / (2 * math.log(theta))

    low, high = pair_of(scaling.get("fast", 32)), pair_of(scaling.get("slow", 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    ramp = np.clip((np.arange(len(plain)) - low) / (high - low + 0.001 * (high == low)), 0, 1)
    return plain / scaling["factor"] * ramp + plain * (1 - ramp)


SCALINGS = {"linear": linear_scaling, "llama3": llama3_scaling, "yarn": yarn_scaling}


def turned(rotary, x):
    """x [rows, positions, heads, head_dim]: every pair is turned by its angle."""
    pairs = rotary.get("dims", x.shape[-1]) // 2
    first, second = np.arange(pairs), np.arange(pairs) + pairs
    if rotary.get("interleaved", False):
        first, second = 2 * first, 2 * first + 1
    angles = np.arange(x.shape[1])[:, None, None] * frequencies(rotary, pairs)
    cos, sin = (function(angles) * rotary.get("factor", 1.0) for function in (np.cos, np.sin))
    y = x.copy()
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., second] * cos + x[..., first] * sin
    return y


def divided_by_rms(weight, eps, x):
    """x [rows, positions, heads, head_dim]; a weight of several heads' size normalises those together."""
    groups = x.reshape(x.shape[:2] + (-1, len(weight)))
    normal = groups / np.sqrt((groups**2).mean(-1, keepdims=True) + eps) * weight
    return normal.reshape(x.shape)


def seen(layer, positions):
    """[query, key]"""
    distance = np.arange(positions)[:, None] - np.arange(positions)
    causal = distance >= 0 if layer.get("causal", False) else distance > -positions
    return causal & (np.abs(distance) < layer.get("window", positions))


def attention(layer, tensor, x, lengths=None):
    """Every position of a row looks at others of it; nn.MultiheadAttention's tensors."""
    rows, positions, size = x.shape
    heads = layer["heads"]
    kv_heads, head_dim = layer.get("kv_heads", heads), layer.get("head_dim", size // heads)
    inner = {"weight": tensor("in_proj_weight"), "bias": tensor("in_proj_bias")}
    projected = linear(layer, inner.get, x).reshape(rows, positions, -1, head_dim)
    query, key, value = np.split(projected, [heads, heads + kv_heads], 2)
    if layer.get("qk_norm", "none") != "none":
        eps = layer.get("eps", 1e-6)
        query = divided_by_rms(tensor("q_norm.weight"), eps, query)
        key = divided_by_rms(tensor("k_norm.weight"), eps, key)
    if "rotary" in layer:
        query, key = turned(layer["rotary"], query), turned(layer["rotary"], key)
    key, value = np.repeat(key, heads // kv_heads, 2), np.repeat(value, heads // kv_heads, 2)
    scores = np.einsum("rqhd,rkhd->rhqk", query, key) * layer.get("scale", head_dim**-0.5)
    scores = scores + (0.0 if tensor("bias") is None else tensor("bias"))
    visible = np.broadcast_to(seen(layer, positions), (rows, 1, positions, positions))
    if lengths is not None:  # padding looks at nothing that counts
        visible = visible & real(lengths, positions)[:, None, None, :]
        visible = visible | ~visible.any(-1, keepdims=True)
    scores = np.where(visible, scores, -np.inf)
    if tensor("sinks") is not None:  # one more key, whose value is 0
        sinks = np.broadcast_to(tensor("sinks")[:, None, None], scores.shape[:3] + (1,))
        shares = softmax(np.concatenate([scores, sinks], -1))[..., :-1]
    else:
        shares = softmax(scores)
    mixed = np.einsum("rhqk,rkhd->rqhd", shares, value)
    if lengths is not None:
        mixed = mixed * real(lengths, positions)[:, :, None, None]
    return linear(layer, part("out_proj.", tensor), mixed.reshape(rows, positions, -1))


def embedding(layer, tensor, x):
    return tensor("weight")[x.astype(np.int64)]


def class_token(layer, tensor, x):
    token = np.broadcast_to(tensor("weight"), (len(x), 1, x.shape[2]))
    return np.concatenate([token, x], 1)


def select(layer, tensor, x):
    index = -1 if layer["index"] == "last" else layer["index"]
    return np.take(x, index, batch_axis(layer.get("axis", 0)))


def softplus(x, beta=1.0, threshold=20.0):
    scaled = np.minimum(beta * x, threshold)
    return np.where(beta * x > threshold, x, np.log1p(np.exp(scaled)) / beta)


def hardsigmoid(x):
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0


def prelu(layer, tensor, x):
    slopes = tensor("weight").reshape((-1,) + (1,) * (x.ndim - 2))
    return np.where(x < 0, slopes * x, x)


def log_softmax(layer, tensor, x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def group_norm(layer, tensor, x):
    def per_channel(name, otherwise):
        values = otherwise if tensor(name) is None else tensor(name)
        return np.reshape(values, (-1,) + (1,) * (x.ndim - 2))

    groups = x.reshape(len(x), layer["groups"], -1)
    groups = groups - groups.mean(-1, keepdims=True)
    deviation = np.sqrt((groups**2).mean(-1, keepdims=True) + layer.get("eps", 1e-5))
    normal = (groups / deviation).reshape(x.shape)
    return normal * per_channel("weight", 1.0) + per_channel("bias", 0.0)


def l2_normalize(layer, tensor, x):
    axis = batch_axis(layer.get("axis", -1))
    return x / np.maximum(np.sqrt((x**2).sum(axis, keepdims=True)), layer.get("eps", 1e-12))


def slice_axis(layer, tensor, x):
    axis = batch_axis(layer.get("axis", 0))
    entries = range(layer.get("start", 0), layer.get("end", x.shape[axis]))
    return np.take(x, entries, axis)


def adaptive_avg_pool2d(layer, tensor, x):
    def windows_of(count, size):
        return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]

    rows, columns = (windows_of(n, size) for n, size in zip(layer["size"], x.shape[2:]))
    means = [x[:, :, a:b, c:d].mean((2, 3)) for a, b in rows for c, d in columns]
    return np.stack(means, -1).reshape(x.shape[:2] + tuple(layer["size"]))


def constants(layer, tensor):
    weight = [] if tensor("weight") is None else [tensor("weight")]
    return weight + ([layer["value"]] if "value" in layer else [])


def add(layer, tensor, values):
    return sum(values[1:] + constants(layer, tensor), values[0])


def multiply(layer, tensor, values):
    return math.prod(values[1:] + constants(layer, tensor), start=values[0])


def divide(layer, tensor, values):
    return values[0] / math.prod(values[1:] + constants(layer, tensor))


def concat(layer, tensor, values):
    return np.concatenate(values, batch_axis(layer.get("axis", 0)))


JOINS = {"add": add, "multiply": multiply, "divide": divide, "concat": concat}

OPS = {
    "linear": linear,
    "conv1d": conv1d,
    "conv2d": conv2d,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "flatten": flatten,
    "reshape": reshape,
    "sum": sum_axis,
    "mean": mean_axis,
    "relu": relu,
    "gelu": gelu,
    "silu": lambda layer, tensor, x: silu(x),
    "tanh": lambda layer, tensor, x: np.tanh(x),
    "sigmoid": lambda layer, tensor, x: sigmoid(x),
    "softmax": lambda layer, tensor, x: softmax(x),
    "cube": lambda layer, tensor, x: x**3,
    "scale": lambda layer, tensor, x: x * layer["value"],
    "leaky_relu": lambda layer, tensor, x: np.where(x < 0, layer.get("slope", 0.01) * x, x),
    "elu": lambda layer, tensor, x: np.where(
        x > 0, x, layer.get("alpha", 1.0) * np.expm1(np.minimum(x, 0.0))
    ),
    "prelu": prelu,
    "softplus": lambda layer, tensor, x: softplus(
        x, layer.get("beta", 1.0), layer.get("threshold", 20.0)
    ),
    "mish": lambda layer, tensor, x: x * np.tanh(softplus(x)),
    "hardswish": lambda layer, tensor, x: x * hardsigmoid(x),
    "hardsigmoid": lambda layer, tensor, x: hardsigmoid(x),
    "relu2": lambda layer, tensor, x: np.maximum(x, 0.0) ** 2,
    "relu6": lambda layer, tensor, x: np.clip(x, 0.0, 6.0),
    "clamp": lambda layer, tensor, x: np.clip(
        x, layer.get("min", -np.inf), layer.get("max", np.inf)
    ),
    "exp": lambda layer, tensor, x: np.exp(x),
    "log": lambda layer, tensor, x: np.log(x),
    "sqrt": lambda layer, tensor, x: np.sqrt(x),
    "log_softmax": log_softmax,
    "group_norm": group_norm,
    "l2_normalize": l2_normalize,
    "max": lambda layer, tensor, x: x.max(batch_axis(layer["axis"])),
    "slice": slice_axis,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "embedding": embedding,
    "position_embedding": lambda layer, tensor, x: x + tensor("weight"),
    "class_token": class_token,
    "glu": glu,
    "attention": attention,
    "select": select,
    "transpose": lambda layer, tensor, x: np.swapaxes(x, -1, -2),
}
