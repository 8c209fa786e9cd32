"""Finds mixtures in a forward() that runs all experts and weighs them itself, so that their routing is counted, too.

What is certain is taken: a softmax over n numbers of a row, n values that are put side by side or multiplied by one of
its numbers each, and their weighted sum, found by its value. The sum becomes a MoE layer whose item holds what the
experts gave, with the logits behind: every expert of it passes its own entry on.
"""

from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import torch
from torch import fx, nn
from torch.nn import functional

from moed.functions import Slice
from moed.gates import Gate
from moed.layers import MoE
from moed.ops import ExportError

SOFTMAX = (torch.softmax, functional.softmax, "softmax")
SIDE_BY_SIDE = (torch.stack, torch.cat, torch.concat)
MOST_EXPERTS = 512
FOUND = "_moed_found"  # of a MoE layer that was made here
Values = Dict[fx.Node, Any]
Graph = Tuple[fx.Graph, Values]


class Weighted(NamedTuple):
    """A softmax, the values that it weighs, in order, and their sum."""

    logits: fx.Node
    parts: List[fx.Node]
    total: fx.Node


class Unplaced(ExportError):
    """There are mixtures, and a checkpoint has no place for a MoE layer that they could be."""

    def __init__(self, path: str, where: str, line: str = ""):
        super().__init__(path, f"weighs experts by a softmax {where}: exported as it is, all of them run, and their "
                         "routing is not counted. Give gate and experts a module of their own (self.gate, "
                         "self.experts), or say with moed.register_adapter which they are (clients/python/PORTING.md)",
                         line)


def with_mixtures(module: nn.Module, graph: fx.Graph, values: Values, path: str, joined: bool) -> Graph:
    """The graph with MoE layers, which become parts of `module`; as it is where there are no mixtures.

    joined: several come before all that reads them, for branches to part from.
    """
    forget(module)
    everywhere = [weighted for node in list(graph.nodes) for weighted in _found(module, node, values)]
    found = [weighted for weighted in everywhere if values[weighted.logits].dim() == 2]
    if len(found) < len(everywhere):
        total = next(weighted.total for weighted in everywhere if weighted not in found)
        raise Unplaced(path, "at every position", total.meta.get("line", ""))
    if not found:
        return graph, values
    totals = []
    for weighted in found:
        name = "moe" if len(found) == 1 else _name(weighted.logits)
        while hasattr(module, name):
            name += "_moe"
        totals.append(_replace(module, graph, values, weighted, name))
    if joined and len(totals) > 1:
        _join(graph, values, totals)
    return _in_order(graph, values)


def forget(module: nn.Module) -> bool:
    """Takes the MoE layers of an earlier recording off `module`; whether there were any."""
    names = [name for name, part in module.named_children() if hasattr(part, FOUND)]
    for name in names:
        delattr(module, name)
    return bool(names)


def in_branches(branches: List[nn.Module]) -> bool:
    """Whether a MoE layer is where a checkpoint has none."""
    return any(isinstance(part, MoE) for branch in branches for part in branch.modules())


# ---- finding ----

def _found(module: nn.Module, node: fx.Node, values: Values) -> Iterator[Weighted]:
    logits = _logits(module, node, values)
    if logits is None:
        return
    shares, after = values[node], _after(node)
    before = _reached(logits, lambda other: other.all_input_nodes)
    for parts in [*_stacked(list(node.graph.nodes), shares, values, after), *_multiplied(shares, values, after)]:
        total = None if before.issuperset(parts) else _total(parts, shares, values, after)  # attention to the parts
        if total is not None:
            yield Weighted(logits, parts, total)
            return


def _logits(module: nn.Module, node: fx.Node, values: Values) -> Optional[fx.Node]:
    """What a softmax is of, where it gives a few numbers of each row."""
    called = module.get_submodule(node.target) if node.op == "call_module" else None
    if not (type(called) is nn.Softmax or node.op != "call_module" and node.target in SOFTMAX) or not node.args:
        return None
    given, shares = values.get(node.args[0]), values[node]
    if not isinstance(given, torch.Tensor) or given.dim() < 2 or not 1 < given.shape[-1] <= MOST_EXPERTS:
        return None
    alike = given.shape == shares.shape and given.dtype == shares.dtype == torch.float32
    return node.args[0] if alike and torch.allclose(given.softmax(-1), shares, atol=1e-6) else None


def _after(node: fx.Node) -> Dict[fx.Node, None]:
    """What is made of it, in order."""
    made = _reached(node, lambda other: list(other.users))
    return {other: None for other in node.graph.nodes if other in made}


def _reached(node: fx.Node, follow: Callable[[fx.Node], List[fx.Node]]) -> Set[fx.Node]:
    """All that comes by going on from a node."""
    reached: Set[fx.Node] = set()
    pending = [node]
    while pending:
        for other in follow(pending.pop()):
            if other not in reached:
                reached.add(other)
                pending.append(other)
    return reached


def _stacked(nodes: List[fx.Node], shares: torch.Tensor, values: Values,
             after: Dict[fx.Node, None]) -> Iterator[List[fx.Node]]:
    for node in nodes:
        parts = node.args[0] if node.target in SIDE_BY_SIDE and node.args else None
        if isinstance(parts, (list, tuple)) and len(parts) == shares.shape[-1] and node not in after \
                and _alike(list(parts), shares, values):
            yield list(parts)


def _alike(parts: List[Any], shares: torch.Tensor, values: Values) -> bool:
    """Whether they are values of the rows, all of one shape."""
    if len(set(parts)) < len(parts) or not all(isinstance(part, fx.Node) for part in parts):
        return False
    found: List[Any] = [values.get(part) for part in parts]
    return all(isinstance(value, torch.Tensor) and value.dtype == shares.dtype and value.dim() > 0
               and value.shape == found[0].shape and value.shape[:shares.dim() - 1] == shares.shape[:-1]
               for value in found)


def _multiplied(shares: torch.Tensor, values: Values, after: Dict[fx.Node, None]) -> Iterator[List[fx.Node]]:
    """Each by its own number: sum(w[:, i:i + 1] * expert(x) for i, expert in enumerate(experts))."""
    parts: List[Any] = [None] * shares.shape[-1]
    for product in after:
        if getattr(product.target, "__name__", product.target) not in ("mul", "imul") or len(product.args) != 2:
            continue
        for weight, other in (product.args, product.args[::-1]):
            place = _place(values.get(weight), shares, parts) if weight in after and other not in after else None
            if place is not None:
                parts[place] = other
    if None not in parts and _alike(parts, shares, values):
        yield parts


def _place(number: Any, shares: torch.Tensor, parts: List[Any]) -> Optional[int]:
    """Which of the numbers of a softmax a value is, among those that weigh nothing yet."""
    if not isinstance(number, torch.Tensor) or number.dtype != shares.dtype or number.numel() != shares[..., 0].numel():
        return None
    return next((index for index, part in enumerate(parts)
                 if part is None and torch.equal(number.flatten(), shares[..., index].flatten())), None)


def _total(parts: List[fx.Node], shares: torch.Tensor, values: Values,
           after: Dict[fx.Node, None]) -> Optional[fx.Node]:
    """The first value that is the weighted sum."""
    shares = shares.reshape(-1, shares.shape[-1])
    given = torch.stack([values[part].reshape(len(shares), -1) for part in parts], 1)
    wanted = (shares.unsqueeze(-1) * given).sum(1)
    nearly = 1e-5 * float(wanted.abs().max())
    for node in after:
        value = values.get(node)
        if isinstance(value, torch.Tensor) and value.numel() == wanted.numel() and value.dtype == wanted.dtype \
                and torch.allclose(value.reshape(wanted.shape), wanted, rtol=1e-4, atol=nearly):
            return node
    return None


# ---- replacing ----

def _name(logits: fx.Node) -> str:
    """After the layer that gives the logits."""
    return str(logits.target if logits.op == "call_module" else logits.name).replace(".", "_") + "_moe"


class _Writer:
    """Adds calls before a node, with their values."""

    def __init__(self, graph: fx.Graph, values: Values, before: fx.Node):
        self.graph, self.values, self.before = graph, values, before

    def __call__(self, target: Any, *args: Any, module: Optional[nn.Module] = None) -> fx.Node:
        with self.graph.inserting_before(self.before):
            kind = "call_module" if module else "call_method" if isinstance(target, str) else "call_function"
            node = self.graph.create_node(kind, target, args)
        node.meta.update(self.before.meta)
        given = fx.node.map_arg(args, self.values.get)
        self.values[node] = module(*given) if module else \
            getattr(given[0], target)(*given[1:]) if isinstance(target, str) else target(*given)
        return node


def _replace(module: nn.Module, graph: fx.Graph, values: Values, weighted: Weighted, name: str) -> fx.Node:
    logits, parts, total = weighted
    rows, count = values[logits].shape
    size = values[parts[0]].numel() // rows
    gate = Gate(nn.Sequential(OrderedDict(logits=Slice(1, size, size + 1), flat=nn.Flatten())))
    layer = MoE([Slice(0, 0, size) for _ in range(count)], gate, expert_inputs=range(count)).eval()
    setattr(layer, FOUND, True)
    setattr(module, name, layer)
    write = _Writer(graph, values, total)
    stacked = write(torch.stack, [write("reshape", part, rows, size) for part in parts], 1)
    behind = write("reshape", logits, rows, count, 1)
    mixed = write(name, write(torch.cat, [stacked, behind], 2), module=layer)
    shaped = write("reshape", mixed, *values[total].shape)
    total.replace_all_uses_with(shaped)
    return shaped


def _join(graph: fx.Graph, values: Values, totals: List[fx.Node]) -> None:
    """All of them side by side, then each again: outputs part from what they have in common."""
    last = [total for total in totals if not set(_after(total)) & set(totals)]
    users = {total: list(total.users) for total in last}
    write = _Writer(graph, values, next(node for node in graph.nodes if node.op == "output"))
    rows = len(values[last[0]])
    sizes = [values[total].numel() // rows for total in last]
    side = write(torch.cat, [write("reshape", total, rows, size) for total, size in zip(last, sizes)], 1)
    for index, (total, size) in enumerate(zip(last, sizes)):
        begin = sum(sizes[:index])
        again = write("reshape", write("narrow", side, 1, begin, size), *values[total].shape)
        for user in users[total]:
            user.replace_input_with(total, again)


def _in_order(graph: fx.Graph, values: Values) -> Graph:
    """The same with every node behind what it reads."""
    place = {node: index for index, node in enumerate(graph.nodes)}
    waiting = {node: len(node.all_input_nodes) for node in graph.nodes}
    ready = [(place[node], node) for node, count in waiting.items() if count == 0]
    new, copied, found = fx.Graph(), {}, {}  # type: Any, Any, Any
    while ready:
        ready.sort(key=lambda pair: pair[0])
        node = ready.pop(0)[1]
        copied[node] = new.node_copy(node, copied.__getitem__)
        if node in values:
            found[copied[node]] = values[node]
        for user in node.users:
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append((place[user], user))
    return new, found
