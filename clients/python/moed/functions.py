"""Functions of a row that a checkpoint can express and PyTorch has only as functions, as small modules.

Axes are those of one row, without the batch axis, exactly as config.json writes them.
"""

import torch
from torch import nn
from torch.nn import functional

from moed.modules import batch_axis


class ReLU2(nn.Module):
    """relu(x)^2."""

    def forward(self, x):
        return torch.relu(x).square()


class Exp(nn.Module):
    def forward(self, x):
        return x.exp()


class Log(nn.Module):
    def forward(self, x):
        return x.log()


class Sqrt(nn.Module):
    def forward(self, x):
        return x.sqrt()


class Clamp(nn.Module):
    """x, at least `min` and at most `max`; None: no such bound."""

    def __init__(self, min=None, max=None):
        super().__init__()
        if min is None and max is None:
            raise ValueError("clamp needs min or max")
        self.min = min
        self.max = max

    def forward(self, x):
        return x.clamp(self.min, self.max)


class Max(nn.Module):
    """The largest along an axis of the row, which is removed."""

    def __init__(self, axis):
        super().__init__()
        self.axis = int(axis)

    def forward(self, x):
        return x.amax(dim=batch_axis(self.axis, x))


class Slice(nn.Module):
    """Entries [start, end) of an axis of the row; end None: all from start on."""

    def __init__(self, axis=0, start=0, end=None):
        super().__init__()
        self.axis = int(axis)
        self.start = int(start)
        self.end = None if end is None else int(end)

    def forward(self, x):
        axis = batch_axis(self.axis, x)
        return x.narrow(axis, self.start, (x.shape[axis] if self.end is None else self.end) - self.start)


class L2Normalize(nn.Module):
    """x / max(|x|, eps) along an axis of the row."""

    def __init__(self, axis=-1, eps=1e-12):
        super().__init__()
        self.axis = int(axis)
        self.eps = float(eps)

    def forward(self, x):
        return functional.normalize(x, dim=batch_axis(self.axis, x), eps=self.eps)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """PyTorch's; the class tells a checkpoint's op from the average pooling that export() makes of PyTorch's."""


class GroupNorm(nn.Module):
    """nn.GroupNorm for a reader that does not know the number of channels yet: weight and bias may be None."""

    def __init__(self, num_groups, num_channels, eps=1e-5):
        super().__init__()
        self.num_groups = num_groups
        self.eps = float(eps)
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x):
        return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
