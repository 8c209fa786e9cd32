"""Translates the forward() of any nn.Module: torch.fx records what it calls, and every call becomes a layer.

What is recorded has to be a chain from the input to the output: calls of layers, of the functions in fx_functions.py,
and x + f(x), which becomes a Residual. The translation is then run against the module itself, with the module's weights and
with random ones (a weight that is zero would hide a mistake), so that what is exported is what was meant, or nothing.
"""

import copy
import dis
import inspect

import torch
from torch import fx, nn

from moed import fx_functions, modules
from moed.ops import ExportError, require

ROWS = 3  # more than one, and an unlikely size of anything else


def traceable(module):
    """Whether its forward() is the caller's own, and not PyTorch's or of a class of this package."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is not nn.Sequential.forward
    ours = any(base.__module__ in ("moed.modules", "moed.layers", "moed.gates") for base in type(module).__mro__)
    return not ours and type(module).__module__.split(".")[0] != "torch"


def trace(module, row, path):
    """`module` as modules.CheckpointSequential layers. `row` is an example of its input, batch axis included."""
    graph = _record(module, path)
    generator = torch.Generator().manual_seed(0)
    rows = row.repeat((ROWS,) + (1,) * (row.dim() - 1))
    if row.is_floating_point():
        rows = torch.randn(rows.shape, generator=generator)
    translated = _translate(module, graph, rows, path)
    _compare(module, translated, rows, path)
    other = _with_random_weights(module, generator)
    _compare(other, _translate(other, graph, rows, path), rows[:2], path)
    return translated


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module, name):
        return not traceable(module) and not isinstance(module, nn.Sequential)

    def proxy(self, node):
        return _Value(node, self)


def _unpack(value):
    """For `a, b = value`. PyTorch 1.13 looks for this instruction in a place where Python 3.11 no longer has it."""
    frame = inspect.currentframe().f_back.f_back
    running = next(step for step in dis.get_instructions(frame.f_code) if step.offset == frame.f_lasti)
    if running.opname == "UNPACK_SEQUENCE":
        return (value[index] for index in range(running.argval))
    return value.tracer.iter(value)


class _Value(fx.Proxy):
    def __iter__(self):
        return _unpack(self)

    def __getattr__(self, name):
        return _Attribute(self, name)


class _Attribute(fx.proxy.Attribute):
    def __iter__(self):
        return _unpack(self)


def _record(module, path):
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # whatever the caller's code makes of values that are not there
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
    return Translation(module, graph, recorder.values, path).layers()


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps every node's value: a shape decides what a reshape or a mean is."""

    def __init__(self, graph_module, path):
        super().__init__(graph_module, garbage_collect_values=False)
        self.path = path
        self.values = {}

    def run_node(self, node):
        try:
            self.values[node] = super().run_node(node)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            given = [self.values[arg] for arg in node.args if isinstance(arg, fx.Node)]
            shapes = ", ".join(str(list(value.shape[1:])) for value in given if isinstance(value, torch.Tensor))
            raise ExportError(f"{self.path}.{_name(node)}: does not accept rows of shape {shapes}: "
                              f"{str(error).splitlines()[0]}") from None
        return self.values[node]


def _name(node):
    """Of the layer, function or method that is called."""
    return node.target if isinstance(node.target, str) else node.target.__name__


def _compare(module, translated, rows, path):
    expected, got = module(rows.clone()), translated(rows.clone())
    scale = expected.abs().max().clamp_min(1.0).item()
    same = (got.shape == expected.shape and got.dtype == expected.dtype
            and torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * scale, equal_nan=True))
    require(same, path, f"{type(module).__name__} computes something else than the layers it calls, one after the "
                        "other: does it change a tensor in place that it uses again, or depend on its batch?")


def _with_random_weights(module, generator):
    module = copy.deepcopy(module)
    for weight in module.parameters():
        values = torch.randn(weight.shape, generator=generator)
        weight.copy_(values / max(weight[0].numel(), 1) ** 0.5 if weight.dim() > 1 else 1 + 0.5 * values)
    return module


class Translation:
    """Walks back from the output. What a call needs to know about its surroundings is asked here."""

    rows = ROWS

    def __init__(self, module, graph, values, path):
        self.modules = dict(module.named_modules())
        self.values = values
        self.path = path
        self.order = {node: index for index, node in enumerate(graph.nodes)}
        self.input = next(node for node in graph.nodes if node.op == "placeholder")
        self.output = next(node for node in graph.nodes if node.op == "output").args[0]

    def layers(self):
        require(isinstance(self.output, fx.Node), self.path, "forward gives several things; a layer gives one tensor")
        return modules.CheckpointSequential(self.chain(self.input, self.output))

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
        handler = fx_functions.HANDLERS.get(node.target) if node.op in ("call_function", "call_method") else None
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
        given = [str(arg) for arg in node.args] + [f"{key}={value}" for key, value in node.kwargs.items()]
        raise ExportError(f"{self.path}: {_name(node)}({', '.join(given)}): {reason}")

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

    def parameter(self, node):
        """The tensor that a node is, or None: a parameter of a module, perhaps expanded to all rows."""
        while isinstance(node, fx.Node) and node.op == "call_method" and node.target in ("expand", "repeat"):
            node = node.args[0]
        return self.values[node] if isinstance(node, fx.Node) and node.op == "get_attr" else None
