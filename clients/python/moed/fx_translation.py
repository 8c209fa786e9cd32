"""Turns recorded calls into layers, from the last one back: each says what it is made of.

Calls of layers, and of the functions in fx_functions.py and fx_joins.py, can be layers. Where each reads the one before
they are a plain list; where values are read elsewhere, or joined, a graph.Graph.
"""

import inspect
import operator
from typing import Any, Callable, Dict, NamedTuple

import torch
from torch import fx, nn

from moed import graph, modules
from moed.blocks_of_attention import Given
from moed.ops import INFERENCE_NO_OPS, ExportError, require
from moed.words import short

HANDLERS: Dict[Any, Callable] = {}  # by function, and by method name; filled by fx_functions.py and fx_joins.py


# What a MoE layer does, and nothing else.
CHOICES = ("topk", "sort", "argsort", "argmax", "nonzero", "gather", "scatter", "scatter_add", "index_add", "one_hot")
CHOOSING = "a checkpoint chooses by values in its MoE layers alone. Of a mixture say with moed.register_adapter " \
    "which gate and experts it has (clients/python/PORTING.md); positions that are left out, as in a mixture of " \
    "depths, have no words there"


FILLED = "does not come from the rows: a tensor that forward() makes and then fills part by part, as in " \
    "y[mask] = ..., cannot be followed. Put it together with torch.stack, torch.cat or products; of a mixture say " \
    "with moed.register_adapter which gate and experts it has (clients/python/PORTING.md)"


UNKNOWN = "no layer of a checkpoint does that; if the module as a whole is something that one has, say so with " \
    "moed.register_adapter (clients/python/PORTING.md)"

# The caller's way to tell padding from words, which no layer has.
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
PADDED = ". If it says what is padding: the input says how long rows are, moed.nn.Input(..., length=...) in a " \
    "moed.nn.MultiTask, and layers leave padding out by themselves (clients/python/README.md)"


class Named(NamedTuple):
    """A layer with weights: what to call it, and where it is in the caller's model."""

    name: str
    layer: nn.Module
    path: str


class Join(NamedTuple):
    """A layer that joins other values, which are nodes, to the one before it."""

    layer: nn.Module
    others: tuple


class Entry(NamedTuple):
    """One node's layers: what they are made of, [(name, layer, path), ...], the values that number `at` joins."""

    node: fx.Node
    source: fx.Node
    steps: list
    others: tuple
    at: int


def called_name(node):
    """Of the layer, function or method that is called."""
    return node.target if isinstance(node.target, str) else node.target.__name__


def _compares_the_rows(node):
    """Whether it is made of a comparison with what forward() is given, or is one, with a step or two between."""
    nodes = [node]
    for _ in range(6):
        if any(called_name(other) in COMPARISONS and other.all_input_nodes[0].op == "placeholder" for other in nodes):
            return True
        nodes = [source for other in nodes for source in other.all_input_nodes if source.op != "call_module"]
    return False


def entry_of(result, key):
    """What forward() gives under a key: that of a dict, the place in a tuple; None: the tensor itself."""
    return result if key is None else result[key]


def _fields(output):
    """What forward() gives, as a dict or a list where it is an object made of several values."""
    if not (isinstance(output, fx.Node) and output.op == "call_function" and isinstance(output.target, type)):
        return output
    fields = inspect.signature(output.target).bind(*output.args, **output.kwargs).arguments
    return list(fields.values()) if issubclass(output.target, tuple) else fields


class Translation:
    """A recorded graph. What a call needs to know about its surroundings is asked here."""

    rows = 3  # in recorded values: more than one, and an unlikely size of anything else

    def __init__(self, module, recorded, values, path):
        self.modules = dict(module.named_modules())
        self.values = values
        self.path = path
        self.fixed = {}
        self.order = {node: index for index, node in enumerate(recorded.nodes)}
        self.input = next(node for node in recorded.nodes if node.op == "placeholder")
        self.output = _fields(next(node for node in recorded.nodes if node.op == "output").args[0])

    def layers(self, keys=None):
        """[all layers], or with keys [shared layers, those of the first key, ...]."""
        if keys is None:
            require(isinstance(self.output, fx.Node), self.path,
                    f"forward gives a {type(self.output).__name__}; a layer gives one tensor")
            return [self.between(self.input, self.output)]
        ends = [entry_of(self.output, key) for key in keys]
        return [self.between(*pair) for pair in self.parts(ends)]

    def parts(self, ends):
        """(start, end) of what all ends come of, then of each end: as late as all of them come of one value alone."""
        common = set.intersection(*(self.before(end) for end in ends))
        for node in sorted(common, key=self.order.get, reverse=True):
            if isinstance(self.values[node], torch.Tensor) and not self.is_fixed(node):
                try:
                    for end in ends:
                        self.entries(node, end)
                    return [(self.input, node), *((node, end) for end in ends)]
                except ExportError:
                    continue
        return [(self.input, self.input), *((self.input, end) for end in ends)]

    def before(self, end):
        """All nodes that `end` is made of, and itself."""
        found, pending = set(), [end]
        while pending:
            node = pending.pop()
            if node not in found:
                found.add(node)
                pending += node.all_input_nodes
        return found

    def between(self, start, end):
        """The layers that make one value of another: a CheckpointSequential, or a Graph where values are named."""
        entries = [entry for entry in self.entries(start, end)]
        real = {start: start}  # the value that a node is: that of its source, where it has no layers
        for entry in entries:
            real[entry.node] = entry.node if entry.steps else real[entry.source]
        entries = [entry for entry in entries if entry.steps]
        last, reads = start, []  # (what an entry reads, whether that is the value before it)
        for entry in entries:
            reads.append((real[entry.source], real[entry.source] is last))
            last = entry.node
        named = {source for source, is_before in reads if not is_before}
        named.update(real[other] for entry in entries for other in entry.others)
        if not named:
            return modules.CheckpointSequential([step for entry in entries for step in entry.steps])
        names = {node: short(node.name) for node in named} | {start: "input"}
        steps, links = [], []
        for entry, (source, is_before) in zip(entries, reads):
            steps += entry.steps
            own = [graph.PLAIN] * len(entry.steps)
            own[0] = own[0]._replace(input=None if is_before else names[source])
            own[entry.at] = own[entry.at]._replace(of=tuple(names[real[other]] for other in entry.others))
            own[-1] = own[-1]._replace(result=names[entry.node] if entry.node in named else None)
            links += own
        return graph.Graph(steps, links)

    def entries(self, start, end):
        """Those of all nodes between, each after what it is made of. Refuses what comes from elsewhere."""
        entries, done = [], {start}
        pending = [(end, None)]
        while pending:
            node, entry = pending.pop()
            if entry is not None:
                entries.append(entry)
            elif node not in done:
                require(isinstance(node, fx.Node) and node is not self.input, self.path,
                        f"{end} does not come from {start} alone")
                done.add(node)
                entry = self.entry(node)
                pending.append((node, entry))
                pending += [(other, None) for other in reversed((entry.source, *entry.others))]
        return entries

    def entry(self, node):
        """What makes `node`."""
        if node.op == "call_module":
            return self.call(node)
        if node.op == "get_attr":
            self.refuse(node, FILLED)
        handler = HANDLERS.get(node.target) if node.op in ("call_function", "call_method") else None
        if handler is None:
            self.refuse(node, CHOOSING if called_name(node).rstrip("_") in CHOICES else UNKNOWN)
        source, *layers = handler(self, node)
        steps, others, at = [], (), 0
        for layer in layers:
            if isinstance(layer, Join):
                at, (layer, others) = len(steps), layer
            steps.append(tuple(layer) if isinstance(layer, Named) else (node.name, layer, self.place(node)))
        return Entry(node, source, steps, others, at)

    def call(self, node):
        layer = self.modules[node.target]
        given, named = list(node.args), dict(node.kwargs)
        first = next(iter(inspect.signature(layer.forward).parameters), None)
        if not given and first in named:  # called by name
            given = [named.pop(first)]
        others = [*given[1:], *named.values()]
        if not given or not isinstance(given[0], fx.Node) or not all(map(self.is_same_for_all, others)):
            self.refuse(node, "a layer has one input")
        if others:
            args, kwargs = fx.node.map_arg((tuple(given[1:]), named), lambda other: _of_one_row(self.values[other]))
            layer = Given(layer, tuple(args), dict(kwargs))
        if isinstance(self.values[node], (tuple, list)):
            layer = modules.FirstResult(layer)  # the others are refused where they are used
        step = (node.target.replace(".", "_"), layer, f"{self.path}.{node.target}")
        return Entry(node, given[0], [] if type(layer) in INFERENCE_NO_OPS else [step], (), 0)

    # ---- what handlers ask ----

    def place(self, node):
        return f"{node.meta.get('path', self.path)} ({node.name})"

    def refuse(self, node, reason):
        given = [str(arg) for arg in node.args] + [f"{key}={value}" for key, value in node.kwargs.items()]
        advice = PADDED if _compares_the_rows(node) else ""
        said = f"{called_name(node)}({', '.join(given)}): {reason}{advice}"
        raise ExportError(node.meta.get("path", self.path), said, node.meta.get("line", ""))

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

    def private(self, start, end):
        """Whether `end` comes from `start` alone, and nothing else reads what lies between.

        Looks at no layer: sums ask it of each other, and would walk all that lies before them again and again.
        """
        between, pending = set(), [end]
        while pending:
            node = pending.pop()
            if node is start or node in between or self.is_fixed(node):
                continue
            if node is self.input:
                return False
            between.add(node)
            pending += node.all_input_nodes
        return all(set(node.users) <= between for node in between if node is not end)

    def is_same_for_all(self, given):
        """Whether what a call is given has no part of the row in it."""
        nodes = []
        fx.node.map_arg(given, nodes.append)
        return all(self.is_fixed(node) for node in nodes)

    def parameter(self, node):
        """The tensor that a node is if no row has a part in it, or None: a parameter, or what is computed of such.

        Of one that is expanded to all rows, the one before.
        """
        while isinstance(node, fx.Node) and node.op == "call_method" and node.target in ("expand", "repeat"):
            node = node.args[0]
        fixed = isinstance(node, fx.Node) and isinstance(self.values[node], torch.Tensor) and self.is_fixed(node)
        return self.values[node] if fixed else None

    def is_fixed(self, node):
        """Whether a value is the same for all rows of a shape. Their number counts as fixed: comparing shows it."""
        pending = [node]  # thousands of steps may follow each other
        while pending:
            latest = pending[-1]
            unknown = [before for before in latest.all_input_nodes if before not in self.fixed]
            if latest in self.fixed:
                pending.pop()
            elif _is_number(self.values[latest]) or self.is_by_the_way(latest):
                self.fixed[latest] = True
            elif latest is not self.input and unknown:
                pending += unknown
            else:
                self.fixed[latest] = latest is not self.input and all(map(self.fixed.get, latest.all_input_nodes))
        return self.fixed[node]

    def is_by_the_way(self, node):
        """Whether it is what a module gives beside its first result, and gives for all rows: relative positions."""
        if node.target is not operator.getitem or node.args[0].op != "call_module" or node.args[1] in (0, slice(None)):
            return False
        call, value = node.args[0], self.values[node]
        args, kwargs = fx.node.map_arg((call.args, call.kwargs), self.values.get)
        given = args[0] if args else next(iter(kwargs.values()), None)
        if not all(isinstance(part, torch.Tensor) and part.is_floating_point() for part in (given, value)):
            return False
        other = self.modules[call.target](given.flip(0) + 1, *args[1:], **kwargs) if args else None
        return other is not None and torch.equal(other[node.args[1]], value)


def _of_one_row(value):
    """Masks are often repeated for every row; there may be another number of rows."""
    repeated = isinstance(value, torch.Tensor) and value.dim() > 1 and len(value) == Translation.rows
    return value[:1] if repeated and torch.equal(value, value[:1].expand_as(value)) else value


def _is_number(value):
    return isinstance(value, (int, float)) or isinstance(value, tuple) and all(isinstance(part, int) for part in value)
