"""What a call in a forward() is as layers: functions of PyTorch and methods of tensors.

A handler is given the Translation (fx_trace.py) and the call; it gives the value that the call starts from and the
layers that follow: none for what does nothing, one with weights as (name, layer, path). What it cannot express it
refuses.
"""

import math
import operator

import torch
from torch import fx, nn
from torch.nn import functional

from moed import modules
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
    translation.row_axis(node, source, axis)
    return source, nn.Softmax(dim=axis)


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
    return node.args[0], modules.Reshape(*translation.shape(node))


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
        if axes is None or keepdim:
            translation.refuse(node, "it needs its dim, and no keepdim")
        row_axes = [translation.row_axis(node, source, axis) for axis in ([axes] if isinstance(axes, int) else axes)]
        # The last axis first: the others keep their numbers.
        return source, *(layer_type(axis) for axis in sorted(row_axes, reverse=True))
    return handle


def _select(translation, node):
    source, axis, index = translation.bind(node, "input", "dim", "index")
    return source, _select_layer(translation, node, source, axis, index)


def _select_layer(translation, node, source, axis, index):
    axis = translation.row_axis(node, source, axis)
    return modules.Select(index % translation.shape(source)[axis], axis)


def _getitem(translation, node):
    source, index = node.args
    if source.op == "call_module" and isinstance(translation.modules[source.target], nn.MultiheadAttention):
        return _attention(translation, node, source, index)
    index = index if isinstance(index, tuple) else (index,)
    axes = [axis for axis, entry in enumerate(index) if entry != slice(None)]
    tensor = isinstance(translation.values[source], torch.Tensor)
    if len(axes) != 1 or not isinstance(index[axes[0]], int) or not tensor:
        translation.refuse(node, "only one entry of one axis, as in x[:, 0]")
    return source, _select_layer(translation, node, source, axes[0], index[axes[0]])


def _attention(translation, node, call, index):
    """attention(x, x, x)[0]"""
    path, attention = f"{translation.path}.{call.target}", translation.modules[call.target]
    masks = {key: value for key, value in call.kwargs.items() if key not in ("need_weights", "average_attn_weights")}
    given = [*call.args[:3], *(masks.pop(key, None) for key in ("query", "key", "value")[len(call.args):])]
    masked = any(value is not None for value in [*masks.values(), *call.args[3:4], *call.args[5:]])
    require(index == 0 and not masked, path, "only the first result of attention, without masks")
    require(len(set(given)) == 1, path, "attention of one thing to another; only self-attention, of x to x")
    require(attention.batch_first, path, "batch_first is off: rows would be positions")
    try:
        layer = modules.SelfAttention.of(attention)
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from None
    return given[0], (call.target.replace(".", "_"), layer, path)


def _add(translation, node):
    a, b = node.args[:2]
    if not all(isinstance(value, fx.Node) for value in (a, b)) or len(node.args) > 2 or node.kwargs:
        translation.refuse(node, "only x + f(x) and x + a parameter can be exported")
    for value, other in ((a, b), (b, a)):
        if translation.parameter(value) is not None:
            return other, (value.name, _position_embedding(translation, node, value, other), translation.path)
    first, last = sorted((a, b), key=translation.order.get)
    steps = translation.chain(first, last)
    if not steps:
        translation.refuse(node, "twice the same; multiply it by 2")
    return first, modules.Residual(modules.CheckpointSequential(steps))


def _position_embedding(translation, node, parameter, x):
    values = translation.parameter(parameter)
    shape = translation.shape(x)
    if list(values.shape) not in (shape, [1, *shape]):
        translation.refuse(node, f"{parameter} has shape {list(values.shape)}, but rows have {shape}")
    layer = modules.PositionEmbedding(*shape)
    layer.weight.data = values.detach().reshape(shape)
    return layer


def _concatenate(translation, node):
    parts, axis = translation.bind(node, "tensors", dim=0)
    token = translation.parameter(parts[0]) if len(parts) == 2 else None
    if token is None or axis not in (1, -2) or translation.values[node].dim() != 3 or token.numel() != token.shape[-1]:
        translation.refuse(node, "only a learned token before the positions of a row")
    layer = modules.ClassToken(token.numel())
    layer.weight.data = token.detach().reshape(-1)
    return parts[1], (parts[0].name, layer, translation.path)


def _multiply(translation, node):
    a, b = node.args
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        return _glu(translation, node, a, b)
    source, factor = (a, b) if isinstance(a, fx.Node) else (b, a)
    return source, modules.Scale(factor)


def _divide(translation, node):
    source, divisor = node.args
    if not isinstance(divisor, (int, float)) or abs(math.frexp(divisor)[0]) != 0.5:
        translation.refuse(node, "only division by a power of two is exactly a multiplication; "
                                 "multiply by a number instead")
    return source, modules.Scale(1 / divisor)


def _power(translation, node):
    source, exponent = translation.bind(node, "input", "exponent")
    if exponent != 3:
        translation.refuse(node, "only the third power")
    return source, modules.Cube()


def _glu(translation, node, a, b):
    """activation(gate(x)) * up(x), in either order."""
    for activated, up in ((a, b), (b, a)):
        activation = _activation(translation, activated)
        gate = activated.args[0] if activation else None
        if gate is not None and all(_is_linear(translation, value) for value in (gate, up)) and gate.args == up.args:
            name = f"{gate.target}_{up.target}".replace(".", "_")
            return gate.args[0], (name, _glu_layer(translation, gate, up, activation), translation.path)
    translation.refuse(node, "only a number times x, and activation(linear(x)) * linear(x)")


def _activation(translation, node):
    """The name a GLU has for the activation that `node` calls; None if it has none."""
    called = translation.modules[node.target] if node.op == "call_module" else None
    if node.target is functional.gelu:
        return GELUS.get(translation.bind(node, "input", approximate="none")[1])
    if type(called) is nn.GELU:
        return GELUS.get(called.approximate)
    return GLU_ACTIVATIONS.get(type(called) if called is not None else node.target)


def _is_linear(translation, node):
    return node.op == "call_module" and type(translation.modules[node.target]) is nn.Linear


def _glu_layer(translation, gate, up, activation):
    gate, up = translation.modules[gate.target], translation.modules[up.target]
    layer = modules.GLU(gate.in_features, gate.out_features, activation)
    layer.gate, layer.up = gate, up
    return layer


def _pool(layer_type):
    def handle(translation, node):
        return node.args[0], layer_type(*node.args[1:], **node.kwargs)
    return handle


GLU_ACTIVATIONS = {functional.silu: "silu", nn.SiLU: "silu", functional.sigmoid: "sigmoid", torch.sigmoid: "sigmoid",
                   "sigmoid": "sigmoid", nn.Sigmoid: "sigmoid", functional.relu: "relu", torch.relu: "relu",
                   "relu": "relu", nn.ReLU: "relu"}
GELUS = {"none": "gelu", "tanh": "gelu_tanh"}

# By function, and by method name.
HANDLERS = {}
for _targets, _handler in (
        ((functional.relu, torch.relu, torch.relu_, "relu", "relu_"), _plain(nn.ReLU, inplace=False)),
        ((functional.silu,), _plain(nn.SiLU, inplace=False)),
        ((functional.tanh, torch.tanh, "tanh"), _plain(nn.Tanh)),
        ((functional.sigmoid, torch.sigmoid, "sigmoid"), _plain(nn.Sigmoid)),
        ((torch.softmax, "softmax"), _softmax),
        ((functional.softmax,), _functional_softmax),
        ((functional.gelu,), _gelu),
        ((functional.dropout,), _dropout),
        (("contiguous", "float", "long", "detach", "clone"), _same),
        ((torch.flatten, "flatten"), _flatten),
        ((torch.reshape, "reshape", "view"), _reshape),
        ((torch.squeeze, torch.unsqueeze, "squeeze", "unsqueeze"), _squeeze),
        ((torch.transpose, "transpose"), _transpose),
        ((torch.permute, "permute"), _permute),
        ((torch.mean, "mean"), _reduction(modules.Mean)),
        ((torch.sum, "sum"), _reduction(modules.Sum)),
        ((torch.select, "select"), _select),
        ((operator.getitem,), _getitem),
        ((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
        ((operator.mul, operator.imul, torch.mul, "mul"), _multiply),
        ((operator.truediv, torch.div, "div"), _divide),
        ((operator.pow, torch.pow, "pow"), _power),
        ((torch.cat,), _concatenate),
        ((functional.max_pool2d,), _pool(nn.MaxPool2d)),
        ((functional.avg_pool2d,), _pool(nn.AvgPool2d))):
    HANDLERS.update(dict.fromkeys(_targets, _handler))
