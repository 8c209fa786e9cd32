"""Finds mixtures in a forward() that runs all experts and weighs them itself, so that their routing is counted, too.

What is certain is taken: n numbers of a row, n values that are put side by side, made by one tensor of n experts, or
multiplied by one of the numbers each, and their weighted sum, found by its value. The sum becomes a MoE layer whose
item holds what the experts gave, with the logits behind: every expert of it passes its own entry on. Numbers that are
no softmax have to lie between 0 and 1 whatever a row holds (fx_weights.py): they are the sigmoids of some logits.
"""

import math
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import torch
from torch import fx, nn
from torch.nn import functional

from moed.functions import Slice
from moed.fx_weights import Bounded, name_of
from moed.gates import Gate
from moed.layers import MoE
from moed.ops import ExportError

SOFTMAX = (torch.softmax, functional.softmax, "softmax")
SIDE_BY_SIDE = (torch.stack, torch.cat, torch.concat)
CUTS = ("getitem", "select", "narrow", "chunk", "split", "unbind", "squeeze", "flatten", "reshape", "view")
MOST_EXPERTS = 512
FOUND = "_moed_found"  # of a MoE layer that was made here
Values = Dict[fx.Node, Any]
Graph = Tuple[fx.Graph, Values]


class Weighted(NamedTuple):
    """Numbers of each row (or several nodes with one each), the values that they weigh, in order, and their sum."""

    numbers: List[fx.Node]
    parts: List[fx.Node]
    total: fx.Node
    logits: Optional[fx.Node]  # of a softmax


class Unplaced(ExportError):
    """There are mixtures, and a checkpoint has no place for a MoE layer that they could be."""

    def __init__(self, path: str, where: str, line: str = ""):
        super().__init__(path, f"weighs experts {where}: exported as it is, all of them run, and their "
                         "routing is not counted. Give gate and experts a module of their own (self.gate, "
                         "self.experts), or say with moed.register_adapter which they are (clients/python/PORTING.md)",
                         line)


def with_mixtures(module: nn.Module, graph: fx.Graph, values: Values, path: str, joined: bool) -> Graph:
    """The graph with MoE layers, which become parts of `module`; as it is where there are no mixtures.

    joined: several come before all that reads them, for branches to part from.
    """
    forget(module)
    bounded = Bounded(module, values)
    everywhere = [weighted for node in list(graph.nodes) for weighted in _found(module, node, values)]
    everywhere += _others(module, graph, values, bounded, {weighted.total for weighted in everywhere})
    if not everywhere:
        return graph, values
    names: List[str] = []
    for weighted in everywhere:
        _require_a_place(weighted, values, bounded, path)
        name = "moe" if len(everywhere) == 1 else _name(weighted.logits or weighted.numbers[0])
        while hasattr(module, name) or name in names:
            name += "_moe"
        names.append(name)
    totals = [_replace(module, graph, values, weighted, name) for weighted, name in zip(everywhere, names)]
    if joined and len(totals) > 1:
        _join(graph, values, totals)
    return _in_order(graph, values)


def _require_a_place(weighted: Weighted, values: Values, bounded: Bounded, path: str) -> None:
    line = weighted.total.meta.get("line", "")
    if len(weighted.numbers) == 1 and values[weighted.numbers[0]].dim() != 2:
        raise Unplaced(path, "at every position", line)
    if weighted.logits is None and not bounded.is_share(weighted.numbers):
        raise Unplaced(path, "by numbers that need not lie between 0 and 1", line)


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
        attends = before.issuperset(_sources(module, parts))
        total = None if attends else _total(parts, shares, values, after)
        if total is not None:
            yield Weighted([node], parts, total, logits)
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


def _sources(module: nn.Module, parts: List[Any]) -> Set[Any]:
    """What values are cut out of. Numbers that are made of it attend to it: they are not those of a gate."""
    sources = set()
    for source in parts:
        while name_of(source, module) in CUTS and isinstance(source.args[0], fx.Node):
            source = source.args[0]
        sources.add(source)
    return sources


def _total(parts: List[fx.Node], shares: torch.Tensor, values: Values,
           after: Dict[fx.Node, None]) -> Optional[fx.Node]:
    """The first value that is the weighted sum."""
    shares = shares.reshape(-1, shares.shape[-1])
    given = torch.stack([values[part].reshape(len(shares), -1) for part in parts], 1)
    wanted = (shares.unsqueeze(-1) * given).sum(1)
    nearly = 1e-5 * float(wanted.abs().max())
    if not math.isfinite(nearly):  # masked logits, as numbers
        return None
    for node in after:
        value = values.get(node)
        if isinstance(value, torch.Tensor) and value.numel() == wanted.numel() and value.dtype == wanted.dtype \
                and torch.allclose(value.reshape(wanted.shape), wanted, rtol=1e-4, atol=nearly):
            return node
    return None


def _others(module: nn.Module, graph: fx.Graph, values: Values, bounded: Bounded,
            taken: Set[fx.Node]) -> List[Weighted]:
    """Those that are not stacked or multiplied behind a softmax of their own."""
    nodes, found = list(graph.nodes), []
    for weighted in [*_weighed(module, nodes, values), *_sums_of_products(module, nodes, values, bounded)]:
        if weighted.total not in taken:
            taken.add(weighted.total)
            found.append(weighted)
    return found


def _weighed(module: nn.Module, nodes: List[fx.Node], values: Values) -> Iterator[Weighted]:
    """Any numbers that weigh what is side by side: what is so is sought first, for it is rare."""
    of_experts = _of_all_experts(module, nodes, values)
    for node in nodes:
        for count in _counts(node, values, of_experts):
            for numbers in nodes:
                value: Any = values.get(numbers)
                if not (_is_of_rows(value) and 1 < value.shape[-1] == count <= MOST_EXPERTS):
                    continue
                before, after = _reached(numbers, lambda other: other.all_input_nodes), _after(numbers)
                if node in before or not any(other.op == "placeholder" for other in before):
                    continue
                parts = [] if node in after else _parts(node, value, values)
                parts = [] if before.issuperset(_sources(module, parts)) else parts
                total = _total(parts, value, values, after) if parts else None
                if total is not None:
                    yield Weighted([numbers], parts, total, _logits(module, numbers, values))
                    break


def _counts(node: fx.Node, values: Values, of_experts: Dict[fx.Node, Set[int]]) -> Set[int]:
    """How many values may lie side by side in it."""
    if node.target in SIDE_BY_SIDE and node.args and isinstance(node.args[0], (list, tuple)):
        return {len(node.args[0])}
    value: Any = values.get(node)
    return {value.shape[1], value.shape[-1]} & of_experts.get(node, set()) if _is_of_rows(value) else set()


def _of_all_experts(module: nn.Module, nodes: List[fx.Node], values: Values) -> Dict[fx.Node, Set[int]]:
    """How many experts' values a node may hold: it is made of a tensor with a matrix for each, or parts a layer's."""
    sizes: Dict[fx.Node, Set[int]] = {}
    for node in nodes:
        value = values.get(node)
        if not isinstance(value, torch.Tensor) or value.dim() < 3:
            continue
        if node.op == "get_attr":
            for other in _reached(node, lambda other: list(other.users)):
                sizes.setdefault(other, set()).add(len(value))
        source = node.args[0] if name_of(node, module) in ("view", "reshape", "unflatten", nn.Unflatten) else None
        if isinstance(source, fx.Node) and name_of(source, module) in ("linear", nn.Linear) \
                and values[source].dim() == 2:
            sizes.setdefault(node, set()).update(value.shape[1:])
    return sizes


def _is_of_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 1 and value.dtype == torch.float32


def _parts(node: fx.Node, numbers: torch.Tensor, values: Values) -> List[fx.Node]:
    """What lies side by side, taken apart where one tensor holds all of it."""
    if node.target in SIDE_BY_SIDE:
        parts = list(node.args[0])
        return parts if _alike(parts, numbers, values) else []
    shape, axes = values[node].shape, numbers.dim() - 1
    if shape[:axes] != numbers.shape[:-1]:
        return []
    axis = axes if len(shape) > axes and shape[axes] == numbers.shape[-1] else len(shape) - 1
    parts = []
    if len(shape) > numbers.dim() and shape[axis] == numbers.shape[-1]:
        for index in range(shape[axis]):
            with node.graph.inserting_after(parts[-1] if parts else node):
                parts.append(node.graph.call_method("select", (node, axis, index)))
            parts[-1].meta.update(node.meta)
            values[parts[-1]] = values[node].select(axis, index)
    return parts


def _sums_of_products(module: nn.Module, nodes: List[fx.Node], values: Values,
                      bounded: Bounded) -> Iterator[Weighted]:
    """Sums whose every term is a number of each row, made of the row, by a value: g * p * expert(x) + ..."""
    inside: Set[fx.Node] = set()
    for node in reversed(nodes):
        if node in inside or name_of(node, module) not in ("add", "iadd", "add_"):
            continue
        sums, terms = _terms(module, node)
        pairs = [_number_and_part(module, term, values, bounded) for term in terms]
        if len(terms) > 1 and all(pairs):
            inside |= sums
            numbers, parts = ([pair[place] for pair in pairs if pair] for place in (0, 1))
            if _are_experts(module, numbers, parts, values):
                yield Weighted(numbers, parts, node, None)


def _terms(module: nn.Module, node: fx.Node) -> Tuple[Set[fx.Node], List[Any]]:
    """(the sums that a sum is made of, what they add up)"""
    sums, terms, pending = set(), [], [node]  # type: Any, Any, Any
    while pending:
        given = pending.pop()
        if isinstance(given, fx.Node) and name_of(given, module) in ("add", "iadd", "add_"):
            sums.add(given)
            pending += given.args[::-1]
        elif isinstance(given, fx.Node) or given != 0:
            terms.append(given)
    return sums, terms


def _number_and_part(module: nn.Module, term: Any, values: Values,
                     bounded: Bounded) -> Optional[Tuple[fx.Node, fx.Node]]:
    """A product's factors, where one is a number of each row; of two numbers, where one is a share."""
    if not isinstance(term, fx.Node) or name_of(term, module) not in ("mul", "imul", "mul_"):
        return None
    factors: Tuple[Any, ...] = term.args
    if len(factors) != 2 or not all(isinstance(factor, fx.Node) and _is_of_rows(values.get(factor)) and
                                    len(values[factor]) == len(values[term]) for factor in factors):
        return None
    sizes, rows = [values[factor].numel() for factor in factors], len(values[term])
    shares = [size == rows and (other > rows or bounded.is_share(factor))
              for size, other, factor in zip(sizes, sizes[::-1], factors)]
    if sum(shares) != 1:
        return None
    return (factors[0], factors[1]) if shares[0] else (factors[1], factors[0])


def _are_experts(module: nn.Module, numbers: List[fx.Node], parts: List[fx.Node], values: Values) -> bool:
    """Not attention, whose numbers are made of what they weigh, nor a gate between a value and what is made of it."""
    def inputs(node: fx.Node) -> List[fx.Node]:
        return node.all_input_nodes
    before = {other for number in numbers for other in _reached(number, inputs)}
    return _alike(parts, values[numbers[0]], values) and not before.issuperset(_sources(module, parts)) and \
        any(other.op == "placeholder" for other in before) and \
        all(_reached(part, inputs).isdisjoint(parts) for part in parts)


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
    parts, total, count = weighted.parts, weighted.total, len(weighted.parts)
    rows = len(values[total])
    size = values[parts[0]].numel() // rows
    gate = Gate(nn.Sequential(OrderedDict(logits=Slice(1, size, size + 1), flat=nn.Flatten())),
                score="softmax" if weighted.logits else "sigmoid")
    layer = MoE([Slice(0, 0, size) for _ in range(count)], gate, expert_inputs=range(count)).eval()
    setattr(layer, FOUND, True)
    setattr(module, name, layer)
    write = _Writer(graph, values, total)
    stacked = write(torch.stack, [write("reshape", part, rows, size) for part in parts], 1)
    logits = weighted.logits or _logits_of(module, write, weighted.numbers, rows)
    behind = write("reshape", logits, rows, count, 1)
    mixed = write(name, write(torch.cat, [stacked, behind], 2), module=layer)
    shaped = write("reshape", mixed, *values[total].shape)
    total.replace_all_uses_with(shaped)
    return shaped


def _logits_of(module: nn.Module, write: _Writer, numbers: List[fx.Node], rows: int) -> fx.Node:
    """Whose sigmoids the numbers are."""
    if len(numbers) == 1 and name_of(numbers[0], module) in ("sigmoid", nn.Sigmoid):
        return numbers[0].args[0]  # type: ignore[return-value]
    if len(numbers) > 1:
        numbers = [write(torch.cat, [write("reshape", number, rows, 1) for number in numbers], 1)]
    rest = write(torch.add, write(torch.mul, numbers[0], -1.0), 1.0)
    return write(torch.log, write(torch.div, numbers[0], rest))


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
