"""Functions of numbers in terms of simpler calls, and pools of lines: see fx_simpler.py."""

import math
import operator
from typing import Any, Callable, List

import torch
from torch.nn import functional

from moed.fx_simpler import SIMPLER, along_last, is_row

# ---- values that a parameter makes larger ----

def _widened(function: Callable) -> Callable:
    """Of a value of the row and a tensor that is the same for all: the value is repeated first where that is larger."""
    def call(a: Any, b: Any, **kwargs: Any) -> Any:
        if is_row(a) == is_row(b) or kwargs:
            return NotImplemented
        row, fixed = (a, b) if is_row(a) else (b, a)
        fixed = row.tracer.fixed_value(fixed)
        if not isinstance(fixed, torch.Tensor) or fixed.dim() == 0:
            return NotImplemented
        alike = fixed.dim() == row.dim() and len(fixed) == row.shape[0] and bool((fixed == fixed[:1]).all())
        shape = torch.broadcast_shapes(row.shape, fixed[:1].shape if alike else fixed.shape)
        if len(shape) != row.dim() or shape[0] != row.shape[0] or not alike and shape == row.shape:
            return NotImplemented
        row, fixed = row.expand(*shape), fixed[0] if alike else fixed
        return function(row, fixed) if is_row(a) else function(fixed, row)
    return call


# ---- functions of numbers ----

def _of(function: Callable) -> Callable:
    """Of x alone, whatever inplace says."""
    return lambda x, inplace=False: function(x)


def _celu(x: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    return functional.elu(x / alpha) * alpha


def _power(x: Any, exponent: Any) -> Any:
    if exponent in (0.5, -0.5, -1):
        return {0.5: torch.sqrt, -0.5: torch.rsqrt, -1: _reciprocal}[exponent](x)
    return math.prod([x] * (exponent - 1), start=x) if exponent in range(4, 9) else NotImplemented


def _variance(x: Any, dim: Any = None, unbiased: Any = True, keepdim: bool = False, correction: Any = None) -> Any:
    if dim is None or isinstance(dim, bool):
        return NotImplemented
    axes = [dim] if isinstance(dim, int) else list(dim)
    count = math.prod(x.shape[axis] for axis in axes)
    less = correction if correction is not None else 1 if unbiased else 0
    centred = x - x.mean(axes, keepdim=True)
    return (centred * centred).mean(axes, keepdim=keepdim) * (count / (count - less))


def _std(x: Any, *args: Any, **kwargs: Any) -> Any:
    found = _variance(x, *args, **kwargs)
    return found if found is NotImplemented else torch.sqrt(found)


def _logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    if not isinstance(dim, int):
        return NotImplemented
    largest = x.amax(dim, keepdim=True)
    total = torch.log(torch.exp(x - largest).sum(dim, keepdim=True)) + largest
    return total if keepdim else total.squeeze(dim)


def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """Of a mask that is the same for every row; what softmax is not to see is very small, and not infinite."""
    if is_row(mask) or not isinstance(value, (int, float)):
        return NotImplemented
    mask = x.tracer.fixed_value(mask).float()
    value = max(min(value, torch.finfo(torch.float32).max), torch.finfo(torch.float32).min)
    return x * (1 - mask) + mask * value


def _where(mask: Any, a: Any, b: Any) -> Any:
    if is_row(mask):
        return NotImplemented
    if is_row(a) and isinstance(b, (int, float)):
        return a.masked_fill(~a.tracer.fixed_value(mask), b)
    return b.masked_fill(mask, a) if is_row(b) and isinstance(a, (int, float)) else NotImplemented


def _cosine_similarity(a: Any, b: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    return (functional.normalize(a, dim=dim, eps=eps) * functional.normalize(b, dim=dim, eps=eps)).sum(dim)


def _cdist(x: Any, centres: Any, p: float = 2.0, **others: Any) -> Any:
    if p != 2 or is_row(centres) or not is_row(x):
        return NotImplemented
    centres = x.tracer.fixed_value(centres)
    centres = centres[0] if centres.dim() == 3 else centres
    squares = (x * x).sum(-1, keepdim=True) - 2 * functional.linear(x, centres) + (centres * centres).sum(-1)
    return torch.sqrt(squares.clamp(min=0.0))


def _cumsum(x: Any, dim: int) -> Any:
    """By a matrix of ones up to the diagonal."""
    ones, axis = torch.ones(x.shape[dim], x.shape[dim]).tril(), dim % x.dim()
    if axis == 1 and x.dim() == 3:  # of what are channels to a convolution
        return functional.conv1d(x, ones.unsqueeze(2))
    return functional.linear(x, ones) if axis == x.dim() - 1 else \
        along_last(lambda swapped: functional.linear(swapped, ones), x, dim)


def _avg_pool1d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                count_include_pad: bool = True) -> Any:
    size, step, zeros = (int(torch.as_tensor(value).reshape(-1)[0]) for value in
                         (kernel_size, kernel_size if stride in (None, ()) else stride, padding))
    if ceil_mode or x.dim() != 3 or zeros and not count_include_pad:
        return NotImplemented
    channels = x.shape[1]
    return functional.conv1d(x, torch.full((channels, 1, size), 1 / size), None, step, zeros, 1, channels)


def _max_pool1d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, *others: Any, **more: Any) -> Any:
    size, step, zeros = (int(torch.as_tensor(value).reshape(-1)[0]) for value in
                         (kernel_size, kernel_size if stride in (None, ()) else stride, padding))
    if zeros or step != size or x.dim() != 3:
        return NotImplemented
    whole = x.shape[-1] // size
    return x.narrow(2, 0, whole * size).reshape(*x.shape[:2], whole, size).amax(-1)


def _adaptive_avg_pool1d(x: Any, output_size: Any) -> Any:
    size = output_size if isinstance(output_size, int) else output_size[0]
    return functional.adaptive_avg_pool2d(x.unsqueeze(2), (1, size)).squeeze(2)


def _adaptive_max_pool(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    sizes: List[Any] = [output_size] if isinstance(output_size, int) else list(output_size)
    if any(size != 1 for size in sizes):
        return NotImplemented
    return x.amax(-1, keepdim=True) if x.dim() == 3 else x.amax(-1, keepdim=True).amax(-2, keepdim=True)


def _glu(x: Any, dim: int = -1) -> Any:
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


def _reciprocal(x: Any) -> Any:
    return x.clamp(1.0, 1.0) / x


def _rsqrt(x: Any) -> Any:
    """Unless it is of a mean of squares, of which fx_joins.py makes a norm."""
    mean: Any = x.node.args[0] if x.node.target in (operator.add, torch.add, "add") else None
    square = mean.args[0] if getattr(mean, "target", None) in (torch.mean, "mean") else None
    if getattr(square, "target", None) in (torch.pow, operator.pow, "pow", torch.square, "square", operator.mul):
        return NotImplemented
    return _reciprocal(torch.sqrt(x))


def _selu(x: Any) -> Any:
    return functional.elu(x, 1.6732632423543772) * 1.0507009873554805


def _absolute(x: Any) -> Any:
    return torch.relu(x) + torch.relu(-x)


def _softsign(x: Any) -> Any:
    return x / (_absolute(x) + 1.0)


for _targets, _function in (
        ((operator.add, operator.iadd, torch.add, "add", "add_"), _widened(operator.add)),
        ((operator.sub, operator.isub, torch.sub, "sub"), _widened(operator.sub)),
        ((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _widened(operator.mul)),
        ((operator.truediv, operator.itruediv, torch.div, "div"), _widened(operator.truediv)),
        ((functional.celu, torch.celu), _celu), ((functional.selu, torch.selu), _of(_selu)),
        ((functional.softsign,), _of(_softsign)), ((torch.abs, "abs", operator.abs), _of(_absolute)),
        ((functional.logsigmoid,), _of(lambda x: -functional.softplus(-x))),
        ((functional.tanhshrink,), _of(lambda x: x - torch.tanh(x))),
        ((torch.pow, operator.pow, "pow"), _power), ((torch.var, "var"), _variance), ((torch.std, "std"), _std),
        ((torch.logsumexp, "logsumexp"), _logsumexp),
        (("masked_fill", "masked_fill_", torch.masked_fill), _masked_fill), ((torch.where,), _where),
        ((functional.cosine_similarity,), _cosine_similarity), ((torch.cdist,), _cdist),
        ((torch.cumsum, "cumsum"), _cumsum),
        ((torch.maximum, "maximum"), lambda a, b: b + torch.relu(a - b)),
        ((torch.minimum, "minimum"), lambda a, b: b - torch.relu(b - a)),
        ((torch.log1p, "log1p"), lambda x: torch.log(x + 1.0)), ((torch.expm1, "expm1"), lambda x: torch.exp(x) - 1.0),
        ((torch.rsqrt, "rsqrt"), _rsqrt), ((torch.reciprocal, "reciprocal"), _reciprocal),
        ((functional.avg_pool1d, torch.avg_pool1d), _avg_pool1d),
        ((functional.max_pool1d, torch.max_pool1d), _max_pool1d),
        ((functional.adaptive_avg_pool1d, torch.adaptive_avg_pool1d), _adaptive_avg_pool1d),
        ((functional.adaptive_max_pool1d, functional.adaptive_max_pool2d), _adaptive_max_pool),
        ((functional.glu,), _glu)):
    SIMPLER.update(dict.fromkeys(_targets, _function))
