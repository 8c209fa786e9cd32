"""Small modules that a checkpoint can express and PyTorch has no module for.

Shapes and axes are those of one row, without the batch axis, exactly as config.json writes them.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from moed.words import short


def batch_axis(axis, x):
    """The axis of `x`, batch axis included, that `axis` of a row is."""
    return axis + 1 if axis >= 0 else axis + x.dim()


def real_entries(lengths, entries):
    """(rows, entries) of bool: what is no padding, of rows of different length."""
    return torch.arange(entries, device=lengths.device) < lengths.reshape(-1, 1)


def only_real(visible, lengths):
    """What of (positions, positions) is visible in rows that end in padding: (rows, 1, positions, positions).

    Padding itself sees everything: what it gives counts for nothing, and a softmax of nothing would be NaN.
    """
    real = real_entries(lengths, visible.shape[-1])
    return ((visible & real[:, None, :]) | ~real[:, :, None]).unsqueeze(1)


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
    """Gives every row the shape `shape`.

    gathers: x may have the positions of all rows in its first axis, as MoE blocks leave them that flatten what they are
    given. Only where such a block is recorded; in a checkpoint rows are rows.
    """

    def __init__(self, *shape, gathers=False):
        super().__init__()
        self.shape = tuple(int(size) for size in shape)
        self.gathers = gathers

    def forward(self, x):
        return x.reshape(-1 if self.gathers else x.shape[0], *self.shape)


class _Reduction(nn.Module):
    """Base of Sum and Mean: removes one axis of the row."""

    def __init__(self, axis):
        super().__init__()
        self.axis = int(axis)


class Sum(_Reduction):
    def forward(self, x):
        return x.sum(dim=batch_axis(self.axis, x))


class Mean(_Reduction):
    def forward(self, x):
        return x.mean(dim=batch_axis(self.axis, x))


class Residual(nn.Module):
    """x + layers(x). Takes one nn.Sequential (which keeps its names) or the layers themselves."""

    def __init__(self, *layers):
        super().__init__()
        given_one = len(layers) == 1 and isinstance(layers[0], nn.Sequential)
        self.layers = layers[0] if given_one else nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


class CheckpointSequential(nn.Sequential):
    """Layers that a checkpoint's were read into, or that stand for a module of the caller's own.

    Their names are those of the checkpoint and unique in it, so export() does not join them to the names of what is
    around them. `paths` tells where each is in the caller's model, for messages.
    """

    def __init__(self, steps):
        """steps: (name, layer, path or None)"""
        super().__init__()
        self.paths = {}
        for name, layer, path in steps:
            name = short(name)
            unique = name if not hasattr(self, name) else short(f"{name}_{len(self._modules)}")
            self.add_module(unique, layer)
            self.paths[unique] = path


class FirstResult(nn.Module):
    """The first thing that a caller's module gives, which gives several: its output beside losses or logits."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)[0]


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


class Select(nn.Module):
    """Entry `index` of an axis of the row, which is removed."""

    def __init__(self, index, axis=0):
        super().__init__()
        self.index = int(index)
        self.axis = int(axis)

    def forward(self, x):
        return x.select(batch_axis(self.axis, x), self.index)


class Transpose(nn.Module):
    """Swaps the last two axes."""

    def forward(self, x):
        return x.transpose(-1, -2)


class PositionEmbedding(nn.Module):
    """x + weight, a learned number for every number of a row of shape `shape`."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape).normal_(std=0.02))

    def forward(self, x):
        return x + self.weight


class ClassToken(nn.Module):
    """Puts a learned vector before the others: (positions, size) -> (positions + 1, size)."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size).normal_(std=0.02))

    def forward(self, x):
        return torch.cat([self.weight.expand(x.shape[0], 1, -1), x], dim=1)


class GLU(nn.Module):
    """activation(gate(x)) * up(x): SwiGLU with silu, GEGLU with gelu, GLU with sigmoid, ReGLU with relu.

    GPT-OSS: limit bounds gate from above and up on both sides; silu is g * sigmoid(alpha g); shift is added to up.
    """

    ACTIVATIONS = {"silu": functional.silu, "gelu": functional.gelu, "sigmoid": torch.sigmoid, "relu": torch.relu,
                   "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh")}

    def __init__(self, inputs, outputs, activation="silu", bias=True, limit=None, alpha=1.0, shift=0.0):
        super().__init__()
        if activation not in self.ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}; it must be one of {', '.join(self.ACTIVATIONS)}")
        if alpha != 1 and activation != "silu":
            raise ValueError(f"alpha goes with silu, not with {activation}")
        self.activation = activation
        self.limit, self.alpha, self.shift = limit, alpha, shift
        self.gate = nn.Linear(inputs, outputs, bias=bias)
        self.up = nn.Linear(inputs, outputs, bias=bias)

    def forward(self, x):
        gate, up = self.gate(x), self.up(x)
        if self.limit is not None:
            gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        gated = self.ACTIVATIONS[self.activation](gate) if self.alpha == 1 else gate * torch.sigmoid(self.alpha * gate)
        return gated * (up + self.shift)


class SelfAttention(nn.Module):
    """softmax(q k / sqrt(size / heads)) v over the positions of a row (positions, size).

    What nn.MultiheadAttention computes of x with itself, and its parameters, as a layer of one input and one output.
    """

    def __init__(self, size, heads, bias=True, dropout=0.0):
        super().__init__()
        self._take(nn.MultiheadAttention(size, heads, bias=bias, dropout=dropout))

    @classmethod
    def of(cls, attention):
        """The layer that an nn.MultiheadAttention is on (x, x, x), parameters shared."""
        if attention.in_proj_weight is None:
            raise ValueError("keys or values have a size of their own (kdim, vdim)")
        if attention.bias_k is not None or attention.add_zero_attn:
            raise ValueError("add_bias_kv or add_zero_attn is on")
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._take(attention)
        return layer.train(attention.training)

    def _take(self, attention):
        self.heads = attention.num_heads
        self.dropout = attention.dropout
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(self, x):
        return self.of_lengths(x, None)

    def of_lengths(self, x, lengths):
        """The same of rows that end in padding, which none of the others looks at. lengths: (rows) or None."""
        # Written out, for PyTorch 1.13's own fast path wants a bias.
        rows, positions, size = x.shape
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = projected.reshape(rows, positions, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / math.sqrt(size // self.heads)
        if lengths is not None:
            all_of_it = torch.ones(positions, positions, dtype=torch.bool, device=x.device)
            scores = scores.masked_fill(~only_real(all_of_it, lengths), -math.inf)
        attention = torch.softmax(scores, dim=-1)
        mixed = functional.dropout(attention, self.dropout, self.training) @ v
        return self.out_proj(mixed.transpose(1, 2).reshape(rows, positions, size))
