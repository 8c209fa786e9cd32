"""Small modules that a checkpoint can express and PyTorch has no module for.

Shapes and axes are those of one row, without the batch axis, exactly as config.json writes them.
"""

import torch
from torch import nn


class Cube(nn.Module):
    """x^3, the activation of the analysed CNN experts in Chen et al. 2022 (arXiv 2208.02813)."""

    def forward(self, x):
        return x ** 3


class Scale(nn.Module):
    """x * value, with a fixed value."""

    def __init__(self, value):
        super().__init__()
        self.value = float(value)

    def forward(self, x):
        return x * self.value


class Reshape(nn.Module):
    """Gives every row the shape `shape`."""

    def __init__(self, *shape):
        super().__init__()
        self.shape = tuple(int(size) for size in shape)

    def forward(self, x):
        return x.reshape(x.shape[0], *self.shape)


class _Reduction(nn.Module):
    """Base of Sum and Mean: removes one axis of the row."""

    def __init__(self, axis):
        super().__init__()
        self.axis = int(axis)

    def batch_axis(self, x):
        """The axis of `x`, batch axis included, that `self.axis` of a row is."""
        return self.axis + 1 if self.axis >= 0 else self.axis + x.dim()


class Sum(_Reduction):
    def forward(self, x):
        return x.sum(dim=self.batch_axis(x))


class Mean(_Reduction):
    def forward(self, x):
        return x.mean(dim=self.batch_axis(x))


class Residual(nn.Module):
    """x + layers(x). Takes one nn.Sequential (which keeps its names) or the layers themselves."""

    def __init__(self, *layers):
        super().__init__()
        given_one = len(layers) == 1 and isinstance(layers[0], nn.Sequential)
        self.layers = layers[0] if given_one else nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axes, those of `shape`. PyTorch has its own only since 2.4."""

    def __init__(self, shape, eps=1e-6):
        super().__init__()
        self.normalized_shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.eps = float(eps)
        self.weight = nn.Parameter(torch.ones(self.normalized_shape))

    def forward(self, x):
        axes = tuple(range(-len(self.normalized_shape), 0))
        return x * torch.rsqrt(x.pow(2).mean(dim=axes, keepdim=True) + self.eps) * self.weight


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of rows of any rank, channels first.

    PyTorch has one class per rank; a checkpoint has one op, and its reader does not know the rank yet.
    """

    def _check_input_dim(self, input):
        pass
