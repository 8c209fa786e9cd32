"""Logits that a block computes in words of its own: the part of its forward() before it begins to choose, recorded.

A router may normalise, project, compare or divide by what it has learned before it picks the largest. What torch.fx can
follow of it, up to the first step that depends on values, is a graph; of that each value that has a number for every
expert may be the logits.
"""

from typing import Any, Dict, Iterator, List, Set, Tuple

import torch
from torch import fx, nn
from torch.nn import functional

from moed.fx_translation import CHOICES, called_name
from moed.modules import Reshape

ROWS = 3  # that are recorded, as many as where the whole is recorded (fx_translation.py)
MOST = 12  # values of one recording that are tried
NO_LOGITS = (torch.softmax, functional.softmax, "softmax", torch.sigmoid, "sigmoid", torch.zeros_like)
UNCHANGED = ("view", "reshape", "contiguous", "float", "to", "type_as", "squeeze", "unsqueeze")  # a value tried already


CACHE = "_moed_recorded"  # of a module, while its parts are tried


def recorded_routers(module: nn.Module, count: int, row: torch.Tensor, tracer: Any) -> List[nn.Module]:
    """Modules from an item to a number for each of `count` experts.

    Args:
        module: the block. Its own forward() is recorded, and those of the parts that may be its router.
        row: an example of its input.
        tracer: makes an fx.Tracer of (path, rows), which has the value of every node.
    """
    found = vars(module).setdefault(CACHE, {})
    if count not in found:
        found[count] = list(_recorded(module, count, row, tracer))
    return found[count]


def _recorded(module: nn.Module, count: int, row: torch.Tensor, tracer: Any) -> Iterator[nn.Module]:
    size = row.shape[-1]
    shapes: List[Tuple[int, ...]] = [tuple(row.shape[1:])] if row.dim() == 2 else [(1, size), tuple(row.shape[1:])]
    lists = (nn.ModuleList, nn.ModuleDict)
    for part in (module, *(inner for inner in module.children() if not isinstance(inner, lists))):
        for shape in dict.fromkeys([*shapes, (size,)]):
            rows = torch.randn((ROWS, *shape), generator=torch.Generator().manual_seed(3))
            yield from _routers(part, count, rows, tracer)


def _routers(part: nn.Module, count: int, rows: torch.Tensor, make: Any) -> Iterator[nn.Module]:
    tracer = make("router", rows)
    try:
        tracer.trace(part)
    except Exception:  # here it begins to choose, or cannot be followed
        if not hasattr(tracer, "graph"):
            return
    for node in _per_expert(tracer, count)[:MOST]:
        yield nn.Sequential(Reshape(*rows.shape[1:]), Recorded(part, tracer.graph, node), Reshape(count))


def _per_expert(tracer: Any, count: int) -> List[fx.Node]:
    """What may be logits: which depends on no weights, for copies with others have to give the same, in order."""
    chosen: Set[fx.Node] = set()
    found: Dict[fx.Node, None] = {}
    for node in tracer.graph.nodes:
        if called_name(node) in CHOICES or chosen.intersection(node.all_input_nodes):
            chosen.add(node)
        value = tracer.values.get(node)
        called = node.op in ("call_module", "call_function", "call_method")
        if not called or node in chosen or not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        again = called_name(node) in UNCHANGED and not found.keys().isdisjoint(node.all_input_nodes)
        if value.shape in ((ROWS, count), (ROWS, 1, count)) and node.target not in NO_LOGITS and not again:
            found[node] = None
    return list(found)


class Recorded(nn.Module):
    """The part of a recorded forward() that makes one of its values."""

    def __init__(self, module: nn.Module, recorded: fx.Graph, end: fx.Node):
        super().__init__()
        graph, new, needed = fx.Graph(), {}, {end}  # type: Any, Any, Any
        for node in reversed(recorded.nodes):
            if node in needed:
                needed.update(node.all_input_nodes)
        for node in recorded.nodes:
            if node in needed or node.op == "placeholder":
                new[node] = graph.node_copy(node, new.__getitem__)
        graph.output(new[end])
        self.part = fx.GraphModule(module, graph)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == ROWS:
            return self.part(x)
        filled = torch.cat([x, x[-1:].expand(-len(x) % ROWS, *x.shape[1:])])  # their number is part of the recording
        return torch.cat([self.part(rows) for rows in filled.split(ROWS)])[:len(x)]
