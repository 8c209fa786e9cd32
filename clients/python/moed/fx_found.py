"""Finds in a recorded graph what a layer of a checkpoint does in words of the caller's own: GELU by erf.

What is found is found by its values: a formula may be written in many ways. Whoever records compares the whole again,
also with other weights.
"""

import math
from typing import Any, Dict

import torch
from torch import fx
from torch.nn import functional

ERFS = (torch.erf, torch.special.erf, "erf")
Values = Dict[fx.Node, Any]


def name_gelus(graph: fx.Graph, values: Values) -> None:
    """x (1 + erf(x / sqrt(2))) / 2, in whatever order, becomes functional.gelu(x)."""
    for node in [node for node in graph.nodes if node.op in ("call_function", "call_method") and node.target in ERFS]:
        scaled = node.args[0]
        source = _alike(node, values, values[scaled] * math.sqrt(2))
        last = _later(node, values, functional.gelu(values[source])) if source is not None else None
        if source is None or last is None:
            continue
        with graph.inserting_before(last):
            named = graph.call_function(functional.gelu, (source,))
        named.meta.update(last.meta)
        values[named] = values[last]
        last.replace_all_uses_with(named)


def _alike(node: fx.Node, values: Values, wanted: torch.Tensor) -> Any:
    """The value before a node that is this."""
    pending, seen = list(node.all_input_nodes), set()
    while pending:
        before = pending.pop(0)
        if before not in seen:
            seen.add(before)
            pending += before.all_input_nodes
            if _same(values.get(before), wanted):
                return before
    return None


def _later(node: fx.Node, values: Values, wanted: torch.Tensor) -> Any:
    """The value made of a node that is this."""
    pending, seen = list(node.users), set()
    while pending:
        after = pending.pop(0)
        if after not in seen:
            seen.add(after)
            pending += after.users
            if _same(values.get(after), wanted):
                return after
    return None


def _same(value: Any, wanted: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == wanted.shape and value.dtype == wanted.dtype and bool(
        torch.allclose(value, wanted, rtol=1e-4, atol=1e-5))
