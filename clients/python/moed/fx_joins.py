"""What a call in a forward() is as layers: sums, products and whatever else joins values. See fx_functions.py."""

import operator

import torch
from torch import fx, nn
from torch.nn import functional

from moed import modules
from moed.functions import Clamp
from moed.fx_translation import HANDLERS, Join, Named
from moed.graph import Add, Concat, Divide, Multiply


def _operands(translation, node):
    """The two of an operation without further settings."""
    if len(node.args) != 2 or set(node.kwargs) - {"alpha"} or node.kwargs.get("alpha", 1) != 1:
        translation.refuse(node, "not with these arguments")
    return node.args


def _is_row(translation, value):
    """Whether it is a value of the row: neither a number nor a parameter."""
    return isinstance(value, fx.Node) and isinstance(translation.values[value], torch.Tensor) and (
        translation.parameter(value) is None)


def _number(translation, value):
    """As a Python number; None if it is none."""
    if isinstance(value, fx.Node):
        value = translation.parameter(value)
        value = value.item() if value is not None and value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None


def _constant(translation, node, layer_type, x, value, sign=1.0):
    """x + value or x * value, of a number or a parameter."""
    number = _number(translation, value)
    if number is not None:
        return layer_type(value=sign * number)
    weight = translation.parameter(value)
    if weight is None:
        translation.refuse(node, "only of values of the row, parameters and numbers")
    rank = translation.values[x].dim() - 1
    while weight.dim() > rank and weight.shape[0] == 1:
        weight = weight[0]
    if weight.dim() > rank or translation.values[node].shape != translation.values[x].shape:
        translation.refuse(node, f"a parameter of shape {list(weight.shape)} makes rows of {translation.shape(x)} "
                                 "larger")
    return Named(node.name, layer_type(weight=sign * weight.detach()), translation.place(node))


def _same_rank(translation, node, *values):
    if len({translation.values[value].dim() for value in values}) > 1:
        translation.refuse(node, "only of values whose rows have the same number of axes")


# ---- sums ----

def _add(translation, node):
    a, b = _operands(translation, node)
    if not _is_row(translation, a):
        a, b = b, a
    if _is_row(translation, b):
        return _sum(translation, node, a, b)
    parameter = translation.parameter(b)
    shape = translation.shape(a)
    if parameter is not None and list(parameter.shape) in (shape, [1, *shape]):
        layer = modules.PositionEmbedding(*shape)
        layer.weight.data = parameter.detach().reshape(shape)
        return a, Named(b.name if b.op == "get_attr" else node.name, layer, translation.place(node))
    return a, _constant(translation, node, Add, a, b)


def _sum(translation, node, a, b):
    """x + f(x) is a residual, where nothing else reads what is inside f."""
    first, last = sorted((a, b), key=translation.order.get)
    if first is last:
        return first, modules.Scale(2.0)
    same_shape = translation.values[first].shape == translation.values[last].shape
    if same_shape and set(last.users) == {node} and translation.private(first, last):
        return first, modules.Residual(translation.between(first, last))
    _same_rank(translation, node, a, b)
    return a, Join(Add(), (b,))


def _subtract(translation, node):
    a, b = _operands(translation, node)
    if not _is_row(translation, b):
        return a, _constant(translation, node, Add, a, b, -1.0)
    if _is_row(translation, a):
        _same_rank(translation, node, a, b)
        return b, modules.Scale(-1.0), Join(Add(), (a,))
    return b, modules.Scale(-1.0), _constant(translation, node, Add, b, a)


def _negate(translation, node):
    return node.args[0], modules.Scale(-1.0)


# ---- products ----

def _multiply(translation, node):
    a, b = _operands(translation, node)
    if not _is_row(translation, a):
        a, b = b, a
    if not _is_row(translation, b):
        number = _number(translation, b)
        if number is not None:
            return a, modules.Scale(number)
        return _weighted_norm(translation, node, a, b) or (a, _constant(translation, node, Multiply, a, b))
    for activated, up in ((a, b), (b, a)):
        found = _glu(translation, node, activated, up) or _rms_norm(translation, node, activated, up)
        if found is not None:
            return found
    return _product(translation, node, a, b)


def _product(translation, node, a, b):
    _same_rank(translation, node, a, b)
    return a, Join(Multiply(), (b,))


def _divide(translation, node):
    a, b = _operands(translation, node)
    number = _number(translation, b)
    if number == 0:
        translation.refuse(node, "division by zero")
    if number is not None and _is_row(translation, a):
        return a, modules.Scale(1 / number)
    if not _is_row(translation, b):
        return a, _constant(translation, node, Divide, a, b)
    if _is_row(translation, a):
        _same_rank(translation, node, a, b)
        return a, Join(Divide(), (b,))
    one = b, Clamp(1.0, 1.0), Join(Divide(), (b,))
    return (*one, _constant(translation, node, Multiply, b, a)) if _number(translation, a) != 1 else one


def _power(translation, node):
    source, exponent = translation.bind(node, "input", "exponent")
    if exponent == 3:
        return source, modules.Cube()
    if exponent != 2:
        translation.refuse(node, "only the second and the third power")
    return source, Join(Multiply(), (source,))


def _square(translation, node):
    return node.args[0], Join(Multiply(), (node.args[0],))


# ---- gated linear units ----

GLU_ACTIVATIONS = {functional.silu: "silu", nn.SiLU: "silu", functional.sigmoid: "sigmoid", torch.sigmoid: "sigmoid",
                   "sigmoid": "sigmoid", nn.Sigmoid: "sigmoid", functional.relu: "relu", torch.relu: "relu",
                   "relu": "relu", nn.ReLU: "relu"}
GELUS = {"none": "gelu", "tanh": "gelu_tanh"}


def _glu(translation, node, activated, up):
    """activation(gate(x)) * up(x), or None."""
    activation = _activation(translation, activated)
    gate = activated.args[0] if activation else None
    if gate is None or not all(_is_linear(translation, value) for value in (gate, up)) or gate.args != up.args:
        return None
    if any(len(value.users) > 1 for value in (gate, up, activated)):
        return None
    gate_linear, up_linear = translation.modules[gate.target], translation.modules[up.target]
    layer = modules.GLU(gate_linear.in_features, gate_linear.out_features, activation)
    layer.gate, layer.up = gate_linear, up_linear
    return gate.args[0], Named(f"{gate.target}_{up.target}".replace(".", "_"), layer, translation.place(node))


def _activation(translation, node):
    """The name a GLU has for the activation that `node` calls; None if it has none."""
    called = translation.modules[node.target] if node.op == "call_module" else None
    if node.target is functional.gelu:
        return GELUS.get(translation.bind(node, "input", approximate="none")[1])
    if type(called) is nn.GELU:
        return GELUS.get(called.approximate)
    return GLU_ACTIVATIONS.get(type(called) if called is not None else node.target)


def _is_linear(translation, node):
    called = isinstance(node, fx.Node) and node.op == "call_module"
    return called and type(translation.modules[node.target]) is nn.Linear


# ---- norms that are written out ----

def _called(node, *targets):
    return isinstance(node, fx.Node) and node.op in ("call_function", "call_method") and node.target in targets


def _rms_norm(translation, node, x, factor):
    """x * rsqrt(mean(x^2) + eps), over the last axis; None if it is something else."""
    if not _called(factor, torch.rsqrt, "rsqrt"):
        return None
    total = factor.args[0]
    mean = total.args[0] if _called(total, operator.add, torch.add, "add") else None
    square = mean.args[0] if _called(mean, torch.mean, "mean") else None
    squares = (torch.pow, operator.pow, "pow", torch.square, "square", operator.mul)
    if not _called(square, *squares) or square.args[0] is not x or square.args[1:] not in ((2,), (), (x,)):
        return None
    axis, keepdim = translation.bind(mean, "input", "dim", keepdim=False)[1:]
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    if axis not in (-1, translation.values[x].dim() - 1) or not keepdim:
        return None
    layer = modules.RMSNorm(translation.shape(x)[-1], eps=_number(translation, total.args[1]) or 0.0)
    return x, Named(node.name, layer, translation.place(node))


def _weighted_norm(translation, node, normed, weight):
    """A written-out norm times its weight."""
    inner = normed
    while _called(inner, "to", "type_as", "float"):
        inner = inner.args[0]
    values = translation.parameter(weight)
    if not _called(inner, operator.mul, torch.mul, "mul") or values is None or len(inner.users) > 1:
        return None
    for x, factor in (inner.args, inner.args[::-1]):
        found = _rms_norm(translation, inner, x, factor) if isinstance(x, fx.Node) else None
        if found is not None and values.shape == found[1].layer.weight.shape:
            found[1].layer.weight.data = values.detach().clone()
            return found
    return None


# ---- side by side ----

def _concatenate(translation, node):
    parts, axis = translation.bind(node, "tensors", dim=0)
    parts = list(parts)
    token = translation.parameter(parts[0]) if len(parts) == 2 else None
    positions = axis in (1, -2) and translation.values[node].dim() == 3
    if token is not None and positions and token.numel() == token.shape[-1]:
        layer = modules.ClassToken(token.numel())
        layer.weight.data = token.detach().reshape(-1)
        return parts[1], Named(parts[0].name, layer, translation.place(node))
    if not all(_is_row(translation, part) for part in parts):
        translation.refuse(node, "only values of the row, and a learned token before the positions of a row")
    if len(parts) == 1:
        return (parts[0],)
    return parts[0], Join(Concat(translation.row_axis(node, parts[0], axis)), tuple(parts[1:]))


def _stack(translation, node):
    """Concatenated along the axis where the new one goes, or the last, and then cut."""
    parts, axis = translation.bind(node, "tensors", dim=0)
    rank = translation.values[node].dim()
    if axis % rank == 0 or rank < 3 or not all(_is_row(translation, part) for part in parts):
        translation.refuse(node, "only values of the row, along an axis of a row")
    if len(parts) == 1:
        return parts[0], modules.Reshape(*translation.shape(node))
    axis, shape = axis % rank - 1, translation.shape(parts[0])
    join = Join(Concat(min(axis, len(shape) - 1)), tuple(parts[1:]))
    if axis < len(shape):
        return parts[0], join, modules.Reshape(*translation.shape(node))
    return parts[0], join, modules.Reshape(*shape[:-1], len(parts), shape[-1]), modules.Transpose()


for _targets, _handler in (
        ((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
        ((operator.sub, operator.isub, torch.sub, "sub"), _subtract),
        ((operator.neg, torch.neg, "neg"), _negate),
        ((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _multiply),
        ((operator.truediv, operator.itruediv, torch.div, "div", "true_divide", torch.true_divide), _divide),
        ((operator.pow, torch.pow, "pow"), _power),
        ((torch.square, "square"), _square),
        ((torch.cat, torch.concat), _concatenate),
        ((torch.stack,), _stack)):
    HANDLERS.update(dict.fromkeys(_targets, _handler))
