"""Calls in terms of simpler ones: what fx_functions.py and fx_joins.py need no layer of its own for.

A recorded graph is gone through once more, and each call that has an entry here is replaced by the calls that the entry
makes. They are functions of tensors as anybody writes them: of the values that they are given they know the shapes, and
which of them are the same for every row.
"""

import math
import operator
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch.nn import functional

SIMPLER: Dict[Any, Callable] = {}  # by function, and by method name; a function may decline with NotImplemented
MOST_PARTS = 256  # that are put side by side


def simpler(*targets: Any) -> Callable:
    def register(function: Callable) -> Callable:
        SIMPLER.update(dict.fromkeys(targets, function))
        return function
    return register


def is_row(value: Any) -> bool:
    """Whether it stands for a tensor that differs from row to row."""
    return hasattr(value, "tracer") and value.tracer.is_row(value.node)


# ---- the order of axes ----

def _ordered(x: Any, order: Sequence[int]) -> Any:
    """permute() by swaps of the last two axes alone: each axis in turn goes to the end, past those behind it."""
    shape, now = list(x.shape), list(range(x.dim()))
    first = next((place for place, axis in enumerate(order) if place != axis), len(order))
    for axis in order[first:] if first < len(order) else []:
        at = now.index(axis)
        if at < len(now) - 1:
            before, behind = shape[:at], shape[at + 1:]
            if len(behind) > 1:
                x = x.reshape(*before, shape[at], math.prod(behind))
            x = x.transpose(-1, -2)
            shape = [*before, *behind, shape[at]]
            if len(behind) > 1:
                x = x.reshape(*shape)
        now = [*now[:at], *now[at + 1:], axis]
    return x


def _is_plain(order: Sequence[int]) -> bool:
    """Whether a Transpose does it, or nothing at all."""
    rank = len(order)
    return list(order) in ([*range(rank)], [*range(rank - 2), rank - 1, rank - 2])


@simpler(torch.permute, "permute")
def _permute(x: Any, *axes: Any) -> Any:
    given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    order = [axis % x.dim() for axis in given]
    if order[0] != 0 or order == [*range(x.dim() - 2), x.dim() - 1, x.dim() - 2]:
        return NotImplemented
    return x.reshape(*x.shape) if _is_plain(order) else _ordered(x, order)


@simpler(torch.transpose, torch.swapaxes, "transpose", "swapaxes", "swapdims")
def _transpose(x: Any, dim0: int, dim1: int) -> Any:
    order = list(range(x.dim()))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    if order[0] != 0 or _is_plain(order):
        return NotImplemented
    return _ordered(x, order)


@simpler(getattr)
def _attribute(x: Any, name: str) -> Any:
    return x.transpose(-1, -2) if name in ("mT", "mH") and x.dim() > 2 else NotImplemented


MOVES = (torch.movedim, "movedim", torch.moveaxis, "moveaxis")


def order_of_move(rank: int, source: Any, destination: Any) -> List[int]:
    """Where the axes were that movedim() gives."""
    sources, destinations = ([axis % rank for axis in ([given] if isinstance(given, int) else given)]
                             for given in (source, destination))
    order = [axis for axis in range(rank) if axis not in sources]
    for place, axis in sorted(zip(destinations, sources)):
        order.insert(place, axis)
    return order


@simpler(*MOVES)
def _movedim(x: Any, source: Any, destination: Any) -> Any:
    return x.permute(*order_of_move(x.dim(), source, destination))


def along_last(function: Callable, x: Any, axis: int) -> Any:
    """A function of the last axis, of another one."""
    order = [other for other in range(x.dim()) if other != axis % x.dim()] + [axis % x.dim()]
    back = [order.index(other) for other in range(x.dim())]
    return function(x.permute(*order)).permute(*back)


def _softmax_of(function: Callable) -> Callable:
    def softmax(x: Any, dim: Optional[int] = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
        if not isinstance(dim, int) or dim % x.dim() in (0, x.dim() - 1):
            return NotImplemented
        return along_last(lambda swapped: function(swapped, dim=-1), x, dim)
    return softmax


SIMPLER.update({torch.softmax: _softmax_of(functional.softmax), "softmax": _softmax_of(functional.softmax),
                functional.softmax: _softmax_of(functional.softmax),
                functional.log_softmax: _softmax_of(functional.log_softmax)})


# ---- parts of an axis ----

def _parts(x: Any, axis: int, starts: Sequence[int]) -> Any:
    """Entries of an axis, one after the other."""
    return torch.cat([x.narrow(axis, start, 1) for start in starts], axis)


@simpler(operator.getitem)
def _getitem(x: Any, index: Any) -> Any:
    """New axes, steps and lists of places: what is left are slices and single entries."""
    if not is_row(x) or not isinstance(x.tracer.values[x.node], torch.Tensor):
        return NotImplemented
    given = list(index) if isinstance(index, tuple) else [index]
    given = [list(entry) if isinstance(entry, range) else entry.tolist() if isinstance(entry, torch.Tensor)
             and entry.dtype == torch.long and entry.dim() == 1 else entry for entry in given]
    if any(entry is Ellipsis for entry in given):
        at = next(place for place, entry in enumerate(given) if entry is Ellipsis)
        there = sum(entry is not None and entry is not Ellipsis for entry in given)
        given[at:at + 1] = [slice(None)] * (x.dim() - there)
    lists = [entry for entry in given if isinstance(entry, list) and len(entry) > 1]
    steps = [entry for entry in given if isinstance(entry, slice) and entry.step not in (None, 1)]
    if len(lists) > 1 or not (lists or steps or None in given):
        return NotImplemented
    given = _kept(given)
    plain, added, place = [], [], 0
    for entry in given:
        if entry is None:
            added.append(place)
        elif not isinstance(entry, int):
            place += 1
        if entry is not None:
            plain.append(entry)
        if entry is None:
            place += 1
    for axis, entry in enumerate(plain):
        if isinstance(entry, list) and len(entry) > 1 or isinstance(entry, slice) and entry.step not in (None, 1):
            x, plain[axis] = _chosen(x, axis, entry), slice(None)
    x = x[tuple(plain)] if any(entry != slice(None) for entry in plain) else x
    for axis in added:
        x = x.unsqueeze(axis)
    return x


def _kept(given: List[Any]) -> List[Any]:
    """x[:, 1, None] keeps the axis, as x[:, 1:2] does."""
    kept: List[Any] = []
    for entry in given:
        if entry is None and kept and isinstance(kept[-1], int):
            kept[-1] = slice(kept[-1], kept[-1] + 1 or None)
        else:
            kept.append(entry)
    return kept


def _chosen(x: Any, axis: int, entry: Any) -> Any:
    size = x.shape[axis]
    if isinstance(entry, list):
        return _parts(x, axis, [place % size for place in entry])
    start, end, step = entry.indices(size)
    if start < step and size % step == 0 and end > size - step + start:  # every step-th of them all
        return x.reshape(*x.shape[:axis], size // step, step, *x.shape[axis + 1:]).select(axis + 1, start)
    return _parts(x, axis, range(start, end, step))


@simpler(torch.index_select, "index_select")
def _index_select(x: Any, dim: int, index: Any) -> Any:
    return _parts(x, dim, [int(place) for place in x.tracer.fixed_value(index).tolist()])


@simpler(torch.roll, "roll")
def _roll(x: Any, shifts: Any, dims: Any = None) -> Any:
    if dims is None:
        return NotImplemented
    shifts, dims = ([given] if isinstance(given, int) else given for given in (shifts, dims))
    for shift, axis in zip(shifts, dims):
        size = x.shape[axis]
        if shift % size:
            at = size - shift % size
            x = torch.cat([x.narrow(axis, at, size - at), x.narrow(axis, 0, at)], axis)
    return x


@simpler(torch.flip, "flip")
def _flip(x: Any, *dims: Any) -> Any:
    for axis in dims[0] if isinstance(dims[0], (list, tuple)) else dims:
        x = _parts(x, axis, range(x.shape[axis] - 1, -1, -1))
    return x


@simpler("repeat", "tile", torch.tile)
def _repeat(x: Any, *sizes: Any) -> Any:
    sizes = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if not is_row(x) or sizes[0] != 1 or len(sizes) < x.dim():
        return NotImplemented
    x = x.reshape(*x.shape[:1], *[1] * (len(sizes) - x.dim()), *x.shape[1:])
    for axis, count in enumerate(sizes):
        if count > 1:
            x = torch.cat([x] * count, axis)
    return x


@simpler("expand", "expand_as", "broadcast_to", torch.broadcast_to)
def _expand(x: Any, *sizes: Any) -> Any:
    if not is_row(x):
        return NotImplemented
    shape = list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else list(sizes)
    shape = list(sizes[0].shape) if len(sizes) == 1 and hasattr(sizes[0], "shape") else shape
    if len(shape) != x.dim():
        return NotImplemented
    for axis, size in enumerate(shape):
        if size not in (-1, x.shape[axis]):
            x = torch.cat([x] * size, axis)
    return x.reshape(*x.shape)


@simpler(torch.repeat_interleave, "repeat_interleave")
def _repeat_interleave(x: Any, repeats: int, dim: Optional[int] = None) -> Any:
    if not is_row(x) or dim is None or not isinstance(repeats, int):
        return NotImplemented
    dim %= x.dim()
    shape = list(x.shape)
    several = torch.cat([x.unsqueeze(dim + 1)] * repeats, dim + 1) if repeats > 1 else x
    return several.reshape(*shape[:dim], shape[dim] * repeats, *shape[dim + 1:])


@simpler("unbind", torch.unbind)
def _unbind(x: Any, dim: int = 0) -> Any:
    return tuple(x.select(dim, index) for index in range(x.shape[dim]))


@simpler(functional.pad)
def _pad(x: Any, pad: Sequence[int], mode: str = "constant", value: Optional[float] = None) -> Any:
    for index in range(len(pad) // 2):
        axis = x.dim() - 1 - index
        x = _padded(x, axis, pad[2 * index:2 * index + 2], mode, value or 0.0)
        if x is NotImplemented:
            break
    return x


def _padded(x: Any, axis: int, sizes: Sequence[int], mode: str, value: float) -> Any:
    if mode == "constant" and min(sizes) >= 0:
        edge = x.narrow(axis, 0, 1).clamp(value, value)
        first, last = [edge] * sizes[0], [edge] * sizes[1]
    elif mode == "replicate":
        first, last = [x.narrow(axis, 0, 1)] * sizes[0], [x.narrow(axis, x.shape[axis] - 1, 1)] * sizes[1]
    else:
        return NotImplemented
    return torch.cat([*first, x, *last], axis) if any(sizes) else x


@simpler(functional.interpolate)
def _interpolate(x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **others: Any) -> Any:
    if mode != "nearest":
        return NotImplemented
    axes = range(2, x.dim())
    factors = [scale_factor] * len(axes) if isinstance(scale_factor, (int, float)) else scale_factor
    sizes = [size] * len(axes) if isinstance(size, int) else size
    for axis in axes:
        factor = sizes[axis - 2] / x.shape[axis] if sizes is not None else factors[axis - 2]
        if factor != int(factor):
            return NotImplemented
        x = x.repeat_interleave(int(factor), axis)
    return x


# ---- products of two values ----

def _contracted(a: Any, b: Any) -> Any:
    """[..., n, k] and [..., k, m] -> [..., n, m], leading axes equal or 1."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


@simpler(torch.matmul, operator.matmul, torch.bmm, "matmul", "bmm", "__matmul__")
def _matmul(a: Any, b: Any) -> Any:
    if is_row(a) and is_row(b):
        if min(a.dim(), b.dim()) < 3:
            return NotImplemented
        while a.dim() != b.dim():
            a, b = (a.unsqueeze(1), b) if a.dim() < b.dim() else (a, b.unsqueeze(1))
        return _contracted(a, b)
    if is_row(b) and a.dim() == 2 and b.dim() > 2:  # positions are mixed
        return (b.transpose(-1, -2) @ a.t()).transpose(-1, -2)
    if is_row(a) and b.dim() > 2:
        letters = "bcdefghijklm"[:a.dim() - 2]
        first = letters[len(letters) - (b.dim() - 2):]
        if b.dim() < a.dim():
            return torch.einsum(f"z{letters[1:]}nx,{first}xy->z{letters[1:]}ny", a, b)
    return NotImplemented


@simpler(torch.einsum)
def _einsum(equation: str, *operands: Any) -> Any:
    operands = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    terms, output = _terms(equation.replace(" ", ""), operands)
    pairs = list(zip(terms, operands))
    while len(pairs) > 1:
        (first, a), (second, b), *rest = pairs
        kept = "".join(dict.fromkeys(letter for letter in first + second
                                     if letter in output or any(letter in term for term, _ in rest)))
        kept = output if not rest else kept
        pairs = [(kept, _pair(first, a, second, b, kept)), *rest]
    term, x = pairs[0]
    summed = [axis for axis, letter in enumerate(term) if letter not in output]
    x = x.sum(summed) if summed else x
    term = "".join(letter for letter in term if letter in output)
    return x if term == output else x.permute(*[term.index(letter) for letter in output])


def _terms(equation: str, operands: Sequence[Any]) -> tuple:
    """(letters of each operand, of the result), "..." in letters of its own."""
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if "->" not in equation:
        output = "".join(sorted(letter for letter in set(inputs) - {",", "."} if inputs.count(letter) == 1))
    counts = [x.dim() - len(term.replace("...", "")) for term, x in zip(terms, operands)]  # of letters in its place
    most = max((count for count, term in zip(counts, terms) if "..." in term), default=0)
    return [term.replace("...", "ABCDEFGH"[most - count:most])
            for count, term in zip(counts, terms)], output.replace("...", "ABCDEFGH"[:most])


def _pair(first: str, a: Any, second: str, b: Any, output: str) -> Any:
    if is_row(a) and is_row(b):
        letters = output + "".join(letter for letter in dict.fromkeys(first + second) if letter not in output)
        product = _spread(a, first, letters) * _spread(b, second, letters)
        gone = list(range(len(output), len(letters)))
        return product.sum(gone) if gone else product
    if not is_row(a):
        first, a, second, b = second, b, first, a
    return _with_fixed(first, a, second, b, output)


def _spread(x: Any, term: str, letters: str) -> Any:
    """Its axes in the order of `letters`, of size 1 where it has none."""
    order = [term.index(letter) for letter in letters if letter in term]
    x = x if order == sorted(order) else x.permute(*order)
    for place, letter in enumerate(letters):
        x = x if letter in term else x.unsqueeze(place)
    return x


def _with_fixed(first: str, a: Any, second: str, b: Any, output: str) -> Any:
    """The product of a value of the row and a parameter: a linear layer, or one for each entry of what both keep."""
    shared = [letter for letter in second if letter in first and letter in output]
    if shared:
        letter = shared[0]
        at, place, size = first.index(letter), second.index(letter), a.shape[first.index(letter)]
        smaller = output.replace(letter, "")
        parts = [_pair(first.replace(letter, ""), a.select(at, index), second.replace(letter, ""),
                       b.select(place, index), smaller) for index in range(size)]
        return torch.stack(parts, output.index(letter))
    gone = [letter for letter in second if letter in first]
    kept, new = [letter for letter in first if letter not in gone], [letter for letter in second if letter not in gone]
    sizes = {letter: size for term, x in ((first, a), (second, b)) for letter, size in zip(term, x.shape)}
    x = _spread(a, first, "".join(kept + gone)).reshape(*[sizes[letter] for letter in kept],
                                                        math.prod(sizes[letter] for letter in gone))
    weight = b.permute(*[second.index(letter) for letter in new + gone]).reshape(-1, x.shape[-1])
    y = functional.linear(x, weight).reshape(*[sizes[letter] for letter in kept + new])
    term = "".join(letter for letter in kept + new if letter in output)
    summed = [axis for axis, letter in enumerate(kept + new) if letter not in output]
    y = y.sum(summed) if summed else y
    return y if term == output else y.permute(*[term.index(letter) for letter in output])


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
               scale: Optional[float] = None, enable_gqa: bool = False) -> Any:
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        hidden = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril().logical_not()
        scores = scores.masked_fill(hidden, -math.inf)
    elif attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf) if is_bool else scores + attn_mask
    return functional.softmax(scores, dim=-1) @ value


if hasattr(functional, "scaled_dot_product_attention"):
    SIMPLER[functional.scaled_dot_product_attention] = _attention
