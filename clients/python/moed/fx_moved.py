"""Values whose rows are not their first axis, as the caller's code has them for a while: experts or positions first, a
gate's weights transposed.

Such a value is recorded with its rows first, and with the place where the code has them. Calls of it become calls of
the value that is recorded; where rows are first again it is a value as any other.
"""

import operator
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch.nn import functional

from moed.fx_simpler import MOVES, order_of_move

MOVED: Dict[Any, Callable] = {}  # by function, and by method name: of calls that are given a Moved
ALONG = {torch.sum: torch.sum, "sum": torch.sum, torch.mean: torch.mean, "mean": torch.mean, torch.amax: torch.amax,
         "amax": torch.amax}
SHARES = {torch.softmax: torch.softmax, "softmax": torch.softmax, functional.softmax: torch.softmax,
          functional.log_softmax: functional.log_softmax}
ALONE = (torch.relu, "relu", functional.relu, torch.sigmoid, "sigmoid", functional.sigmoid, torch.tanh, "tanh",
         functional.tanh, functional.gelu, functional.silu, functional.leaky_relu, functional.elu, torch.exp, "exp",
         operator.neg, torch.neg, "contiguous", "clone", "detach", "float", functional.dropout, torch.sqrt, "sqrt")
BOTH = {operator.add: operator.add, torch.add: operator.add, "add": operator.add, operator.mul: operator.mul,
        torch.mul: operator.mul, "mul": operator.mul, operator.sub: operator.sub, torch.sub: operator.sub,
        operator.truediv: operator.truediv, torch.div: operator.truediv, "div": operator.truediv}


class Moved:
    """value: with its rows first. place: of the axis of the rows in what the caller's code has."""

    def __init__(self, value: Any, place: int):
        self.value, self.place = value, place

    def real(self) -> Any:
        """As the code has it, which no layer does."""
        order = list(range(1, self.rank))
        order.insert(self.place, 0)
        return self.value.tracer.plain_call("permute", self.value, *order)

    @property
    def rank(self) -> int:
        return int(self.value.dim())

    def axis(self, given: int) -> int:
        """Where an axis of the code is in the value."""
        given %= self.rank
        return 0 if given == self.place else given + (given < self.place)


def moved(value: Any, place: int) -> Any:
    return Moved(value, place) if place else value


def begin(target: Any, args: Sequence[Any], kwargs: Dict[str, Any], is_row: Callable) -> Any:
    """What a call gives that moves the rows of plain values away from the front; NotImplemented of any other."""
    if target in (torch.stack, "stack"):
        parts, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if dim == 0 and isinstance(parts, (list, tuple)) and all(map(is_row, parts)):
            return Moved(torch.stack(list(parts), 1), 1)
        return NotImplemented
    order = _order(target, args, kwargs) if args and is_row(args[0]) else None
    return _permuted(Moved(args[0], 0), order) if order is not None and order[0] != 0 else NotImplemented


def follow(target: Any, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
    """A call with a Moved among its arguments; NotImplemented where it cannot be said of the value itself."""
    first = args[0] if args else None
    order = _order(target, args, kwargs) if isinstance(first, Moved) else None
    if order is not None:
        return _permuted(first, order)  # type: ignore[arg-type]
    if target in ALONE and isinstance(first, Moved):
        return moved(target(first.value, *args[1:], **kwargs) if callable(target) else getattr(first.value, target)(),
                     first.place)
    if target in ALONG and isinstance(first, Moved):
        return _along(ALONG[target], first, *args[1:], **kwargs)
    if target in SHARES and isinstance(first, Moved):
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        axis = first.axis(dim) if isinstance(dim, int) else 0
        return NotImplemented if axis == 0 else moved(SHARES[target](first.value, dim=axis), first.place)
    if target in BOTH and len(args) == 2:
        return _both(BOTH[target], *args)
    return MOVED[target](*args, **kwargs) if target in MOVED else NotImplemented


def _order(target: Any, args: Sequence[Any], kwargs: Dict[str, Any]) -> Optional[List[int]]:
    """Of the axes that a call gives, where they were; None if it is no such call."""
    given = args[0]
    rank = given.rank if isinstance(given, Moved) else given.dim()
    order = list(range(rank))
    if target in (torch.permute, "permute"):
        axes = args[1] if isinstance(args[1], (list, tuple)) else args[1:]
        return [axis % rank for axis in axes]
    if target in MOVES:
        return order_of_move(rank, *args[1:], **kwargs)
    if target in (torch.transpose, "transpose", torch.swapaxes, "swapaxes"):
        a, b = kwargs.get("dim0", args[1] if len(args) > 1 else 0), kwargs.get("dim1", args[2] if len(args) > 2 else 1)
    elif rank == 2 and (target in (torch.t, "t") or target is getattr and args[1] in ("T", "mT")):
        a, b = 0, 1
    elif target is getattr and args[1] in ("mT", "mH"):
        a, b = rank - 2, rank - 1
    else:
        return None
    order[a], order[b] = order[b], order[a]
    return order


def _permuted(given: Moved, order: Sequence[int]) -> Any:
    axes = [given.axis(axis) for axis in order]
    value = given.value.permute(0, *[axis for axis in axes if axis != 0])
    return moved(value, axes.index(0))


def _along(function: Callable, given: Moved, dim: Any = None, keepdim: bool = False, **others: Any) -> Any:
    dims = [dim] if isinstance(dim, int) else list(dim or [])
    axes = [given.axis(axis) for axis in dims]
    if not axes or 0 in axes or others:
        return NotImplemented
    gone = 0 if keepdim else sum(axis % given.rank < given.place for axis in dims)
    value = function(given.value, axes[0] if len(axes) == 1 else axes, keepdim=keepdim)
    return moved(value, given.place - gone)


def _both(function: Callable, a: Any, b: Any) -> Any:
    """Axes are aligned at the end; the rows have to be the same one in both."""
    ranks = [value.rank if isinstance(value, Moved) else value.dim() if hasattr(value, "dim") else 0
             for value in (a, b)]
    rank, places, values = max(ranks), set(), []
    for value, own in zip((a, b), ranks):
        if own == 0:
            values.append(value)
            continue
        if isinstance(value, torch.Tensor) or not (isinstance(value, Moved) or value.tracer.is_row(value.node)):
            return NotImplemented
        plain = value if isinstance(value, Moved) else Moved(value, 0)
        places.add(plain.place + rank - own)
        shape = plain.value.shape
        values.append(plain.value if own == rank else plain.value.reshape(shape[0], *[1] * (rank - own), *shape[1:]))
    return moved(function(*values), places.pop()) if len(places) == 1 else NotImplemented


def _unsqueeze(given: Moved, dim: int) -> Any:
    dim %= given.rank + 1
    before = dim <= given.place
    return Moved(given.value.unsqueeze(dim + 1 if before else dim), given.place + before)


def _squeeze(given: Moved, dim: int) -> Any:
    axis = given.axis(dim)
    return moved(given.value.squeeze(axis), given.place - (dim % given.rank < given.place)) if axis else NotImplemented


def _expand(given: Moved, *sizes: Any) -> Any:
    sizes = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if len(sizes) != given.rank:
        return NotImplemented
    rest = [size for place, size in enumerate(sizes) if place != given.place]
    return Moved(given.value.expand(-1, *rest), given.place)


def _getitem(given: Any, index: Any) -> Any:
    if not isinstance(given, Moved):
        return NotImplemented
    entries = list(index) if isinstance(index, tuple) else [index]
    if not all(isinstance(entry, (int, slice)) for entry in entries):
        return NotImplemented
    entries += [slice(None)] * (given.rank - len(entries))
    if entries[given.place] != slice(None):
        return NotImplemented
    gone = sum(isinstance(entry, int) for entry in entries[:given.place])
    rest = [entry for place, entry in enumerate(entries) if place != given.place]
    value = given.value[(slice(None), *rest)] if any(entry != slice(None) for entry in rest) else given.value
    return moved(value, given.place - gone)


def _select(given: Moved, dim: int, index: int) -> Any:
    axis = given.axis(dim)
    if axis == 0:
        return NotImplemented
    return moved(given.value.select(axis, index), given.place - (dim % given.rank < given.place))


def _unbind(given: Moved, dim: int = 0) -> Any:
    axis = given.axis(dim)
    if axis == 0:
        return NotImplemented
    return tuple(_select(given, dim, index) for index in range(given.value.shape[axis]))


def _linear(given: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(given, Moved) or given.place == given.rank - 1:
        return NotImplemented
    return Moved(functional.linear(given.value, weight, bias), given.place)


def _matmul(a: Any, b: Any) -> Any:
    """Of matrices whose rows are among the leading axes, or of a row and a parameter."""
    if isinstance(a, Moved) and not isinstance(b, Moved) and b.dim() == 2 and a.place < a.rank - 1:
        return Moved(a.value @ b, a.place)
    both = [value if isinstance(value, Moved) else Moved(value, 0) for value in (a, b)]
    alike = len({value.place for value in both}) == 1 and len({value.rank for value in both}) == 1
    return moved(both[0].value @ both[1].value, both[0].place) if alike and both[0].place < both[0].rank - 2 else \
        NotImplemented


def _einsum(equation: str, *operands: Any) -> Any:
    """The letter of the rows goes first; "..." is not looked into."""
    operands = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms, rows = inputs.split(","), set()
    if "." in equation or not output:
        return NotImplemented
    for index, (term, value) in enumerate(zip(terms, operands)):
        if isinstance(value, Moved):
            rows.add(term[value.place])
            terms[index] = term[value.place] + term[:value.place] + term[value.place + 1:]
    if len(rows) != 1 or not rows <= set(output):
        return NotImplemented
    letter = rows.pop()
    values = [value.value if isinstance(value, Moved) else value for value in operands]
    result = torch.einsum(f"{','.join(terms)}->{letter}{output.replace(letter, '')}", *values)
    return moved(result, output.index(letter))


for _targets, _function in (
        ((torch.unsqueeze, "unsqueeze"), _unsqueeze), ((torch.squeeze, "squeeze"), _squeeze), (("expand",), _expand),
        ((operator.getitem,), _getitem), ((torch.select, "select"), _select), ((torch.unbind, "unbind"), _unbind),
        ((functional.linear,), _linear), ((torch.matmul, operator.matmul, torch.bmm, "matmul", "bmm"), _matmul),
        ((torch.einsum,), _einsum)):
    MOVED.update(dict.fromkeys(_targets, _function))
