"""What a call in a forward() is as layers: functions of PyTorch and methods of tensors that take one value.

A handler is given the Translation and the call; it gives the value that the call starts from and the layers that
follow: none for what does nothing, Named ones with weights. What it cannot express it refuses. Calls that join values
are in fx_joins.py.
"""

import operator

import torch
from torch import fx, nn
from torch.nn import functional

from moed import functions, modules
from moed.fx_translation import CHOOSING, HANDLERS, UNKNOWN, Named
from moed.ops import ExportError, require


def _plain(layer_type, *names, **defaults):
    """A function of a tensor alone; what else it may be given (inplace) changes nothing here."""
    def handle(translation, node):
        return translation.bind(node, "input", *names, **defaults)[0], layer_type()
    return handle


def _same(translation, node):
    return (node.args[0],)


def _softmax(translation, node):
    source, axis, dtype = translation.bind(node, "input", dim=None, dtype=None)
    return _softmax_layer(translation, node, source, axis, dtype)


def _functional_softmax(translation, node):
    source, axis, _, dtype = translation.bind(node, "input", dim=None, _stacklevel=3, dtype=None)
    return _softmax_layer(translation, node, source, axis, dtype)


def _softmax_layer(translation, node, source, axis, dtype):
    if axis is None or dtype is not None:
        translation.refuse(node, "softmax needs its dim, and no dtype")
    last = translation.row_axis(node, source, axis) == len(translation.shape(source)) - 1
    return source, nn.Softmax(dim=-1 if last else axis)


def _gelu(translation, node):
    source, approximate = translation.bind(node, "input", approximate="none")
    return source, nn.GELU(approximate)


def _dropout(translation, node):
    source, _, training, _ = translation.bind(node, "input", p=0.5, training=True, inplace=False)
    if training:
        translation.refuse(node, "it drops out in evaluation too; give it training=self.training")
    return (source,)


def _reshape(translation, node):
    if translation.values[node].shape[:1] != (translation.rows,):
        translation.refuse(node, "only within a row, not across rows")
    if translation.values[node].shape == translation.values[node.args[0]].shape:
        return (node.args[0],)
    gathers = translation.values[node.args[0]].shape[:1] != (translation.rows,)
    return node.args[0], modules.Reshape(*translation.shape(node), gathers=gathers)


def _squeeze(translation, node):
    source, axis = translation.bind(node, "input", dim=None)
    if axis is None or axis % max(translation.values[node].dim(), translation.values[source].dim()) == 0:
        translation.refuse(node, "it needs its dim, and not that of the batch")
    return _reshape(translation, node)


def _flatten(translation, node):
    source, start, end = translation.bind(node, "input", start_dim=0, end_dim=-1)
    if translation.row_axis(node, source, start) == 0 and end in (-1, translation.values[source].dim() - 1):
        return source, nn.Flatten()
    return _reshape(translation, node)


def _transpose(translation, node):
    source, *axes = translation.bind(node, "input", "dim0", "dim1")
    rank = translation.values[source].dim()
    if {axis % rank for axis in axes} != {rank - 2, rank - 1} or rank < 3:
        translation.refuse(node, "only the last two axes of a row")
    return source, modules.Transpose()


def _permute(translation, node):
    source, *axes = node.args
    axes = list(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
    rank = len(axes)
    if rank < 3 or [axis % rank for axis in axes] != [*range(rank - 2), rank - 1, rank - 2]:
        translation.refuse(node, "only the last two axes of a row, swapped")
    return source, modules.Transpose()


def _reduction(layer_type):
    def handle(translation, node):
        source, axes, keepdim = translation.bind(node, "input", dim=None, keepdim=False)
        if axes is None:
            translation.refuse(node, "it needs its dim")
        row_axes = [translation.row_axis(node, source, axis) for axis in ([axes] if isinstance(axes, int) else axes)]
        return source, *_reduced(translation, node, source, layer_type, row_axes, keepdim)
    return handle


def _reduced(translation, node, source, layer_type, axes, keepdim):
    """The last axis first: the others keep their numbers. Rows always have an axis: one may be put there first."""
    shape = translation.shape(source)
    if keepdim and len(shape) == len(axes):
        return [modules.Reshape(*shape, 1), *(layer_type(axis) for axis in sorted(axes, reverse=True)),
                *([modules.Reshape(*translation.shape(node))] if len(shape) > 1 else [])]
    return [*(layer_type(axis) for axis in sorted(axes, reverse=True)),
            *([modules.Reshape(*translation.shape(node))] if keepdim else [])]


def _select(translation, node):
    source, axis, index = translation.bind(node, "input", "dim", "index")
    return source, _select_layer(translation, node, source, axis, index)


def _select_layer(translation, node, source, axis, index):
    axis = translation.row_axis(node, source, axis)
    return modules.Select(index % translation.shape(source)[axis], axis)


def _getitem(translation, node):
    source, index = node.args
    if isinstance(translation.values[source], (tuple, list)) and isinstance(index, int):
        return _part(translation, node, source, index)
    if not isinstance(source, fx.Node) or not isinstance(translation.values[source], torch.Tensor):
        translation.refuse(node, "only entries of a tensor")
    return source, *_entries(translation, node, source, index if isinstance(index, tuple) else (index,))


def _attribute(translation, node):
    """x.max(1).values"""
    source, name = node.args
    if name != "values" or not isinstance(translation.values[source], tuple):
        translation.refuse(node, UNKNOWN)
    return _part(translation, node, source, 0)


def _part(translation, node, source, index):
    """One of several results."""
    called = translation.modules[source.target] if source.op == "call_module" else None
    if isinstance(called, nn.MultiheadAttention):
        return _attention(translation, node, source, index)
    if called is not None and index in (0, -len(translation.values[source])):
        return (source,)  # an adapter says what layer it is
    if source.target in (torch.chunk, torch.split, torch.split_with_sizes, "chunk", "split"):
        return _piece(translation, node, source, index)
    if source.target in (torch.max, "max") and index == 0:
        value, axis, keepdim = translation.bind(source, "input", "dim", keepdim=False)
        axis = translation.row_axis(node, value, axis)
        return value, *_reduced(translation, node, value, functions.Max, [axis], keepdim)
    translation.refuse(node, "no layer of a checkpoint gives several things")


def _piece(translation, node, source, index):
    """Of chunk or split."""
    value, axis = source.args[0], source.kwargs.get("dim", source.args[2] if len(source.args) > 2 else 0)
    row_axis, sizes = translation.row_axis(node, value, axis), [part.shape[axis] for part in translation.values[source]]
    index %= len(sizes)
    return value, functions.Slice(row_axis, sum(sizes[:index]), sum(sizes[:index + 1]))


def _entries(translation, node, source, index):
    """Slices first, then single entries from the last axis to the first: the others keep their numbers."""
    shape, plain = translation.values[source].shape, [entry for entry in index if entry is not Ellipsis]
    if len(plain) < len(index):
        at = index.index(Ellipsis)
        index = (*index[:at], *[slice(None)] * (len(shape) - len(plain)), *index[at + 1:])
    index = tuple(_alone(entry, size) if isinstance(entry, list) else entry for entry, size in zip(index, shape))
    if index[:1] != (slice(None),) or not all(isinstance(entry, (int, slice)) for entry in index):
        translation.refuse(node, "only entries and slices of a row's axes, as in x[:, 0] and x[:, 1:3]")
    cut = [(axis, *entry.indices(shape[axis])) for axis, entry in enumerate(index)
           if isinstance(entry, slice) and entry != slice(None)]
    if any(step != 1 or start >= end for _, start, end, step in cut):
        translation.refuse(node, "only slices without a step that are not empty")
    single = [(axis, entry % shape[axis]) for axis, entry in enumerate(index) if isinstance(entry, int)]
    return [*(functions.Slice(axis - 1, start, end) for axis, start, end, _ in cut),
            *(modules.Select(entry, axis - 1) for axis, entry in reversed(single))]


def _alone(entry, size):
    """x[:, [-1]], which keeps the axis."""
    return slice(entry[0] % size, entry[0] % size + 1) if len(entry) == 1 and isinstance(entry[0], int) else entry


def _narrow(translation, node):
    source, axis, start, length = translation.bind(node, "input", "dim", "start", "length")
    return source, functions.Slice(translation.row_axis(node, source, axis), start, start + length)


def _attention(translation, node, call, index):
    """attention(x, x, x)[0]"""
    path, attention = f"{translation.path}.{call.target}", translation.modules[call.target]
    masks = {key: value for key, value in call.kwargs.items() if key not in ("need_weights", "average_attn_weights")}
    given = [*call.args[:3], *(masks.pop(key, None) for key in ("query", "key", "value")[len(call.args):])]
    masked = any(value is not None for value in [*masks.values(), *call.args[3:4], *call.args[5:]])
    require(index == 0 and not masked, path, "only the first result of attention, without masks")
    require(all(_same_call(other, given[0]) for other in given), path,
            "attention of one thing to another; only self-attention, of x to x")
    require(attention.batch_first, path, "batch_first is off: rows would be positions")
    try:
        layer = modules.SelfAttention.of(attention)
    except ValueError as error:
        raise ExportError(path, str(error)) from None
    return given[0], Named(call.target.replace(".", "_"), layer, path)


def _same_call(one, other):
    """attention(norm(x), norm(x), norm(x)) is of the same thing."""
    if one is other or not isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        return one is other
    return one.op == other.op == "call_module" and one.target == other.target and not (one.kwargs or other.kwargs) \
        and len(one.args) == len(other.args) and all(map(_same_call, one.args, other.args))


def _to(translation, node):
    """to(), type_as() and their like: all is float32 here."""
    given, made = (translation.values[other].dtype for other in (node.args[0], node))
    if given != made:
        other = given if made == torch.float32 else made
        computed = f"a checkpoint computes in float32, not {other}"
        translation.refuse(node, computed if other.is_floating_point else CHOOSING)
    return (node.args[0],)


def _with(layer_type, *names, **defaults):
    """A function whose further arguments are the layer's, by the same names; inplace changes nothing here."""
    def handle(translation, node):
        source, *settings, _ = translation.bind(node, "input", *names, **defaults, inplace=False)
        return source, layer_type(**dict(zip([*names, *defaults], settings)))
    return handle


def _normalize(translation, node):
    source, p, axis, eps, _ = translation.bind(node, "input", p=2.0, dim=1, eps=1e-12, out=None)
    if p != 2:
        translation.refuse(node, "only by the 2-norm")
    return source, functions.L2Normalize(translation.row_axis(node, source, axis), eps)


def _amax(translation, node):
    source, axis, keepdim = translation.bind(node, "input", "dim", keepdim=False)
    if not isinstance(axis, int):
        translation.refuse(node, "only along one axis")
    axis = translation.row_axis(node, source, axis)
    return source, *_reduced(translation, node, source, functions.Max, [axis], keepdim)


def _log_softmax(translation, node):
    source, layer = _functional_softmax(translation, node)
    return source, nn.LogSoftmax(dim=layer.dim)


def _weights(translation, node, *given):
    """The tensors of a functional layer: all of them parameters, or nothing."""
    values = [translation.parameter(value) for value in given]
    if any(value is None and weight is not None for value, weight in zip(values, given)):
        translation.refuse(node, "only with weights that are the same for every row")
    return values


def _named(translation, node, layer, **tensors):
    for name, tensor in tensors.items():
        setattr(layer, name, None if tensor is None else nn.Parameter(tensor.detach().clone()))
    return Named(node.name, layer, translation.place(node))


def _linear(translation, node):
    source, *given = translation.bind(node, "input", "weight", bias=None)
    weight, bias = _weights(translation, node, *given)
    layer = nn.Linear(*reversed(weight.shape), bias=bias is not None)
    return source, _named(translation, node, layer, weight=weight, bias=bias)


def _matmul(translation, node):
    source, right = node.args[:2]
    (weight,) = _weights(translation, node, right)
    row = isinstance(source, fx.Node) and translation.parameter(source) is None
    if weight is None or weight.dim() != 2 or not row:
        translation.refuse(node, "only a row times a parameter of two axes")
    return source, _named(translation, node, nn.Linear(*weight.shape, bias=False), weight=weight.t())


def _convolution(layer_type):
    def handle(translation, node):
        source, *given, stride, padding, dilation, groups = translation.bind(
            node, "input", "weight", bias=None, stride=1, padding=0, dilation=1, groups=1)
        weight, bias = _weights(translation, node, *given)
        out, inner, *kernel = weight.shape
        layer = layer_type(inner * groups, out, tuple(kernel), stride, padding, dilation, groups, bias is not None)
        return source, _named(translation, node, layer, weight=weight, bias=bias)
    return handle


def _group_norm(translation, node):
    source, groups, *given, eps = translation.bind(node, "input", "num_groups", weight=None, bias=None, eps=1e-5)
    weight, bias = _weights(translation, node, *given)
    layer = nn.GroupNorm(groups, translation.shape(source)[0], eps)
    return source, _named(translation, node, layer, weight=weight, bias=bias)


def _rms_norm(translation, node):
    source, shape, *given, eps = translation.bind(node, "input", "normalized_shape", weight=None, eps=None)
    (weight,) = _weights(translation, node, *given)
    layer = modules.RMSNorm(tuple(shape), torch.finfo(torch.float32).eps if eps is None else eps)
    return source, _named(translation, node, layer, weight=layer.weight if weight is None else weight)


def _layer_norm(translation, node):
    source, shape, *given, eps = translation.bind(node, "input", "normalized_shape", weight=None, bias=None, eps=1e-5)
    weight, bias = _weights(translation, node, *given)
    return source, _named(translation, node, nn.LayerNorm(tuple(shape), eps), weight=weight, bias=bias)


def _pool(layer_type):
    def handle(translation, node):
        return node.args[0], layer_type(*node.args[1:], **node.kwargs)
    return handle


for _targets, _handler in (
        ((functional.relu, torch.relu, torch.relu_, "relu", "relu_"), _plain(nn.ReLU, inplace=False)),
        ((functional.silu,), _plain(nn.SiLU, inplace=False)),
        ((functional.tanh, torch.tanh, "tanh"), _plain(nn.Tanh)),
        ((functional.sigmoid, torch.sigmoid, "sigmoid"), _plain(nn.Sigmoid)),
        ((functional.relu6,), _plain(nn.ReLU6, inplace=False)),
        ((functional.mish,), _plain(nn.Mish, inplace=False)),
        ((functional.hardswish,), _plain(nn.Hardswish, inplace=False)),
        ((functional.hardsigmoid,), _plain(nn.Hardsigmoid, inplace=False)),
        ((torch.exp, "exp"), _plain(functions.Exp)),
        ((torch.log, "log"), _plain(functions.Log)),
        ((torch.sqrt, "sqrt"), _plain(functions.Sqrt)),
        ((functional.elu,), _with(nn.ELU, alpha=1.0)),
        ((functional.leaky_relu,), _with(nn.LeakyReLU, negative_slope=0.01)),
        ((functional.softplus,), _with(nn.Softplus, beta=1, threshold=20)),
        ((functional.hardtanh,), _with(nn.Hardtanh, min_val=-1.0, max_val=1.0)),
        ((torch.clamp, torch.clip, "clamp", "clip"), _with(functions.Clamp, min=None, max=None)),
        (("clamp_min",), lambda translation, node: (node.args[0], functions.Clamp(min=node.args[1]))),
        ((torch.softmax, "softmax"), _softmax),
        ((functional.softmax,), _functional_softmax),
        ((functional.log_softmax,), _log_softmax),
        ((functional.gelu,), _gelu),
        ((functional.dropout,), _dropout),
        ((functional.normalize,), _normalize),
        ((torch.amax, "amax"), _amax),
        (("contiguous", "long", "detach", "clone"), _same),
        (("float", "to", "type_as", "type"), _to),
        ((torch.flatten, "flatten"), _flatten),
        ((torch.reshape, "reshape", "view", "unflatten"), _reshape),
        ((torch.squeeze, torch.unsqueeze, "squeeze", "unsqueeze"), _squeeze),
        ((torch.transpose, "transpose"), _transpose),
        ((torch.permute, "permute"), _permute),
        ((torch.mean, "mean"), _reduction(modules.Mean)),
        ((torch.sum, "sum"), _reduction(modules.Sum)),
        ((torch.select, "select"), _select),
        ((torch.narrow, "narrow"), _narrow),
        ((operator.getitem,), _getitem),
        ((getattr,), _attribute),
        ((functional.linear,), _linear),
        ((torch.matmul, operator.matmul, "matmul"), _matmul),
        ((functional.layer_norm,), _layer_norm),
        ((functional.group_norm,), _group_norm),
        ((getattr(functional, "rms_norm", None),), _rms_norm),
        ((functional.conv1d, torch.conv1d), _convolution(nn.Conv1d)),
        ((functional.conv2d, torch.conv2d), _convolution(nn.Conv2d)),
        ((functional.adaptive_avg_pool2d,), _pool(nn.AdaptiveAvgPool2d)),
        ((functional.max_pool2d,), _pool(nn.MaxPool2d)),
        ((functional.avg_pool2d,), _pool(nn.AvgPool2d))):
    HANDLERS.update(dict.fromkeys(_targets, _handler))
