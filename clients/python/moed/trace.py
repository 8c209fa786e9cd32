"""Translates the forward() of any nn.Module into layers: torch.fx records what it calls, and every call becomes a layer.

What is recorded has to be a chain from the input to the output: calls of layers, of the functions below, and x + f(x),
which becomes a Residual. The translation is then run against the module itself, with the module's weights and with
random ones (a weight that is zero would hide a mistake), so that what is exported is what was meant, or nothing.
"""

import copy
import math
import operator

import torch
from torch import fx, nn
from torch.nn import functional

from moed import blocks
from moed.ops import ExportError, require

ROWS = 3  # more than one, and an unlikely size of anything else


def traceable(module):
    """Whether its forward() is the caller's own, and not PyTorch's or of a class of this package."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is not nn.Sequential.forward
    ours = any(base.__module__ in ("moed.blocks", "moed.layers", "moed.gates") for base in type(module).__mro__)
    return not ours and type(module).__module__.split(".")[0] != "torch"


def trace(module, row, path):
    """`module` as blocks.Translated layers. `row` is an example of its input, batch axis included."""
    graph = _record(module, path)
    rows = row.repeat((ROWS,) + (1,) * (row.dim() - 1))
    if row.is_floating_point():
        rows = torch.randn_like(rows)
    translated = _translate(module, graph, rows, path)
    _compare(module, translated, rows, path)
    other = _with_random_weights(module)
    _compare(other, _translate(other, graph, rows, path), rows[:2], path)
    return translated


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module, name):
        return not traceable(module) and not isinstance(module, nn.Sequential)


def _record(module, path):
    try:
        graph = _Tracer().trace(module)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ExportError(f"{path}: {type(module).__name__}.forward cannot be followed: {error}") from None
    inputs = [node.name for node in graph.nodes if node.op == "placeholder"]
    require(len(inputs) == 1, path, f"{type(module).__name__}.forward takes {inputs}; a layer has one input")
    return graph


def _translate(module, graph, rows, path):
    recorder = _Recorder(fx.GraphModule(module, graph), path)
    try:
        recorder.run(rows.clone())
    except ExportError as error:  # to which fx adds what it was doing
        raise ExportError(str(error).splitlines()[0]) from None
    return _Translation(module, graph, recorder.values, path).layers()


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps every node's value: a shape decides what a reshape or a mean is."""

    def __init__(self, graph_module, path):
        super().__init__(graph_module, garbage_collect_values=False)
        self.path = path
        self.values = {}

    def run_node(self, node):
        try:
            self.values[node] = super().run_node(node)
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = [list(self.values[arg].shape[1:]) for arg in node.args
                      if isinstance(self.values.get(arg) if isinstance(arg, fx.Node) else None, torch.Tensor)]
            raise ExportError(f"{self.path}.{node.target}: does not accept rows of shape {shapes}: "
                              f"{str(error).splitlines()[0]}") from None
        return self.values[node]


def _compare(module, translated, rows, path):
    expected, got = module(rows.clone()), translated(rows.clone())
    scale = expected.abs().max().clamp_min(1.0).item()
    same = got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * scale, equal_nan=True)
    require(same, path, f"{type(module).__name__} computes something else than the layers it calls, one after the "
                        "other: does it change a tensor in place that it uses again, or depend on its batch?")


def _with_random_weights(module):
    module = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        values = torch.randn(weight.shape, generator=generator)
        weight.copy_(values / max(weight[0].numel(), 1) ** 0.5 if weight.dim() > 1 else 1 + 0.5 * values)
    return module


# --- from calls to layers ---------------------------------------------------------------------------------------

class _Translation:
    def __init__(self, module, graph, values, path):
        self.modules = dict(module.named_modules())
        self.values = values
        self.path = path
        self.order = {node: index for index, node in enumerate(graph.nodes)}
        self.input = next(node for node in graph.nodes if node.op == "placeholder")
        self.output = next(node for node in graph.nodes if node.op == "output").args[0]

    def layers(self):
        require(isinstance(self.output, fx.Node), self.path, "forward gives several things; a layer gives one tensor")
        return blocks.Translated(self.chain(self.input, self.output))

    def chain(self, start, end):
        """(name, layer, path) of what leads from one value to another, each step from one value to the next."""
        steps, node = [], end
        while node is not start:
            require(isinstance(node, fx.Node) and node is not self.input, self.path,
                    f"{end} does not come from {start} alone; only a chain of layers and x + f(x) can be exported")
            node, new = self.step(node)
            steps = new + steps
        return steps

    def step(self, node):
        """(the value that `node` is made of, the steps that make it)"""
        if node.op == "call_module":
            return self.call(node)
        handler = HANDLERS.get(node.target) if node.op in ("call_function", "call_method") else None
        if handler is None:
            self.refuse(node, "no layer of a checkpoint does that")
        source, *layers = handler(self, node)
        return source, [layer if isinstance(layer, tuple) else (node.name, layer, f"{self.path} ({node.name})")
                        for layer in layers]

    def call(self, node):
        layer = self.modules[node.target]
        if len(node.args) != 1 or node.kwargs:
            self.refuse(node, "a layer has one input")
        return node.args[0], [(node.target.replace(".", "_"), layer, f"{self.path}.{node.target}")]

    def refuse(self, node, reason):
        target = node.target if isinstance(node.target, str) else node.target.__name__
        given = [str(arg) for arg in node.args] + [f"{key}={value}" for key, value in node.kwargs.items()]
        raise ExportError(f"{self.path}: {target}({', '.join(given)}): {reason}")

    def bind(self, node, *names, **defaults):
        """The arguments of a call by name; those without a default first. The first is always the tensor."""
        given = dict(zip([*names, *defaults], node.args))
        given.update(node.kwargs)
        if len(node.args) > len(names) + len(defaults) or set(given) - {*names, *defaults} or set(names) - set(given):
            self.refuse(node, "not with these arguments")
        return [{**defaults, **given}[name] for name in (*names, *defaults)]

    def shape(self, node):
        """The shape of a value, as one row has it."""
        return list(self.values[node].shape[1:])

    def row_axis(self, node, source, axis):
        """An axis of `source`, batch axis included, as an axis of a row."""
        rank = self.values[source].dim()
        if not isinstance(axis, int) or axis % rank == 0:
            self.refuse(node, "only single axes of a row, not that of the batch")
        return axis % rank - 1

    def activation(self, node):
        """The name a GLU has for the activation that `node` calls; None if it has none."""
        called = self.modules[node.target] if node.op == "call_module" else None
        if node.target is functional.gelu:
            return GELUS.get(self.bind(node, "input", approximate="none")[1])
        if type(called) is nn.GELU:
            return GELUS.get(called.approximate)
        return GLU_ACTIVATIONS.get(type(called) if called is not None else node.target)

    def parameter(self, node):
        """The tensor that a node is, or None: a parameter of a module, perhaps expanded to all rows."""
        while isinstance(node, fx.Node) and node.op == "call_method" and node.target in ("expand", "repeat"):
            node = node.args[0]
        return self.values[node] if isinstance(node, fx.Node) and node.op == "get_attr" else None


# A handler gives the value it starts from and the layers that follow; one with weights as (name, layer, path).

def _plain(layer_type, *names, **defaults):
    """A function of a tensor alone; what else it may be given (inplace) changes nothing here."""
    def handle(self, node):
        return self.bind(node, "input", *names, **defaults)[0], layer_type()
    return handle


def _same(self, node):
    return (node.args[0],)


def _softmax(self, node):
    source, axis, _, dtype = self.bind(node, "input", dim=None, _stacklevel=3, dtype=None)
    if axis is None or dtype is not None:
        self.refuse(node, "softmax needs its dim, and no dtype")
    self.row_axis(node, source, axis)
    return source, nn.Softmax(dim=axis)


def _gelu(self, node):
    source, approximate = self.bind(node, "input", approximate="none")
    return source, nn.GELU(approximate)


def _dropout(self, node):
    source, _, training, _ = self.bind(node, "input", p=0.5, training=True, inplace=False)
    if training:
        self.refuse(node, "it drops out in evaluation too; give it training=self.training")
    return (source,)


def _reshape(self, node):
    if self.values[node].shape[:1] != (ROWS,):
        self.refuse(node, "only within a row, not across rows")
    return node.args[0], blocks.Reshape(*self.shape(node))


def _squeeze(self, node):
    source, axis = self.bind(node, "input", dim=None)
    if axis is None or axis % max(self.values[node].dim(), self.values[source].dim()) == 0:
        self.refuse(node, "it needs its dim, and not that of the batch")
    return _reshape(self, node)


def _flatten(self, node):
    source, start, end = self.bind(node, "input", start_dim=0, end_dim=-1)
    if self.row_axis(node, source, start) == 0 and end in (-1, self.values[source].dim() - 1):
        return source, nn.Flatten()
    return _reshape(self, node)


def _transpose(self, node):
    source, *axes = self.bind(node, "input", "dim0", "dim1")
    rank = self.values[source].dim()
    if {axis % rank for axis in axes} != {rank - 2, rank - 1} or rank < 3:
        self.refuse(node, "only the last two axes of a row")
    return source, blocks.Transpose()


def _permute(self, node):
    source, *axes = node.args
    axes = list(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
    rank = len(axes)
    if rank < 3 or [axis % rank for axis in axes] != [*range(rank - 2), rank - 1, rank - 2]:
        self.refuse(node, "only the last two axes of a row, swapped")
    return source, blocks.Transpose()


def _reduction(layer_type):
    def handle(self, node):
        source, axes, keepdim = self.bind(node, "input", dim=None, keepdim=False)
        if axes is None or keepdim:
            self.refuse(node, "it needs its dim, and no keepdim")
        axes = [axes] if isinstance(axes, int) else axes
        # The last axis first: the others keep their numbers.
        return source, *(layer_type(axis) for axis in sorted((self.row_axis(node, source, a) for a in axes), reverse=True))
    return handle


def _select(self, node):
    source, axis, index = self.bind(node, "input", "dim", "index")
    return source, _select_layer(self, node, source, axis, index)


def _select_layer(self, node, source, axis, index):
    axis = self.row_axis(node, source, axis)
    return blocks.Select(index % self.shape(source)[axis], axis)


def _getitem(self, node):
    source, index = node.args
    if source.op == "call_module" and isinstance(self.modules[source.target], nn.MultiheadAttention):
        return _attention(self, node, source, index)
    index = index if isinstance(index, tuple) else (index,)
    axes = [axis for axis, entry in enumerate(index) if entry != slice(None)]
    if len(axes) != 1 or not isinstance(index[axes[0]], int) or not isinstance(self.values[source], torch.Tensor):
        self.refuse(node, "only one entry of one axis, as in x[:, 0]")
    return source, _select_layer(self, node, source, axes[0], index[axes[0]])


def _attention(self, node, call, index):
    """attention(x, x, x)[0]"""
    path, attention = f"{self.path}.{call.target}", self.modules[call.target]
    masks = {key: value for key, value in call.kwargs.items() if key not in ("need_weights", "average_attn_weights")}
    given = [*call.args[:3], *(masks.pop(key, None) for key in ("query", "key", "value")[len(call.args):])]
    masked = any(value is not None for value in [*masks.values(), *call.args[3:4], *call.args[5:]])
    require(index == 0 and not masked, path, "only the first result of attention, without masks")
    require(len(set(given)) == 1, path, "attention of one thing to another; only self-attention, of x to x")
    require(attention.batch_first, path, "batch_first is off: rows would be positions")
    try:
        layer = blocks.SelfAttention.of(attention)
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from None
    return given[0], (call.target.replace(".", "_"), layer, path)


def _add(self, node):
    a, b = node.args[:2]
    if not all(isinstance(value, fx.Node) for value in (a, b)) or len(node.args) > 2 or node.kwargs:
        self.refuse(node, "only x + f(x) and x + a parameter can be exported")
    for value, other in ((a, b), (b, a)):
        if self.parameter(value) is not None:
            return other, (value.name, _position_embedding(self, node, value, other), self.path)
    first, last = sorted((a, b), key=self.order.get)
    steps = self.chain(first, last)
    if not steps:
        self.refuse(node, "twice the same; multiply it by 2")
    return first, blocks.Residual(blocks.Translated(steps))


def _position_embedding(self, node, parameter, x):
    values = self.parameter(parameter)
    shape = self.shape(x)
    if list(values.shape) not in (shape, [1, *shape]):
        self.refuse(node, f"{parameter} has shape {list(values.shape)}, but rows have {shape}")
    layer = blocks.PositionEmbedding(*shape)
    layer.weight.data = values.detach().reshape(shape)
    return layer


def _concatenate(self, node):
    parts, axis = self.bind(node, "tensors", dim=0)
    token = self.parameter(parts[0]) if len(parts) == 2 else None
    if token is None or axis not in (1, -2) or self.values[node].dim() != 3 or token.numel() != token.shape[-1]:
        self.refuse(node, "only a learned token before the positions of a row")
    layer = blocks.ClassToken(token.numel())
    layer.weight.data = token.detach().reshape(-1)
    return parts[1], (parts[0].name, layer, self.path)


def _multiply(self, node):
    a, b = node.args
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        return _glu(self, node, a, b)
    source, factor = (a, b) if isinstance(a, fx.Node) else (b, a)
    return source, blocks.Scale(factor)


def _divide(self, node):
    source, divisor = node.args
    if not isinstance(divisor, (int, float)) or abs(math.frexp(divisor)[0]) != 0.5:
        self.refuse(node, "only division by a power of two is exactly a multiplication; multiply by a number instead")
    return source, blocks.Scale(1 / divisor)


def _power(self, node):
    source, exponent = self.bind(node, "input", "exponent")
    if exponent != 3:
        self.refuse(node, "only the third power")
    return source, blocks.Cube()


def _glu(self, node, a, b):
    """activation(gate(x)) * up(x), in either order."""
    for activated, up in ((a, b), (b, a)):
        activation = self.activation(activated)
        gate = activated.args[0] if activation else None
        if gate is not None and all(_is_linear(self, value) for value in (gate, up)) and gate.args == up.args:
            name = f"{gate.target}_{up.target}".replace(".", "_")
            return gate.args[0], (name, _glu_layer(self, gate, up, activation), self.path)
    self.refuse(node, "only a number times x, and activation(linear(x)) * linear(x)")


def _is_linear(self, node):
    return node.op == "call_module" and type(self.modules[node.target]) is nn.Linear


def _glu_layer(self, gate, up, activation):
    gate, up = self.modules[gate.target], self.modules[up.target]
    layer = blocks.GLU(gate.in_features, gate.out_features, activation)
    layer.gate, layer.up = gate, up
    return layer


def _pool(layer_type):
    def handle(self, node):
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
        ((functional.softmax, torch.softmax, "softmax"), _softmax),
        ((functional.gelu,), _gelu),
        ((functional.dropout,), _dropout),
        (("contiguous", "float", "long", "detach", "clone"), _same),
        ((torch.flatten, "flatten"), _flatten),
        ((torch.reshape, "reshape", "view"), _reshape),
        ((torch.squeeze, torch.unsqueeze, "squeeze", "unsqueeze"), _squeeze),
        ((torch.transpose, "transpose"), _transpose),
        ((torch.permute, "permute"), _permute),
        ((torch.mean, "mean"), _reduction(blocks.Mean)),
        ((torch.sum, "sum"), _reduction(blocks.Sum)),
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
