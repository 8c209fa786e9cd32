"""Attention with what language models and encoders add to it, as one layer over the positions of a row."""

import math

import torch
from torch import nn
from torch.nn import functional

from moed.modules import only_real

LLAMA3_KEYS = ("factor", "original", "low", "high")


def rotary_frequencies(pairs, theta=10000.0, scaling=None):
    """The angle per position of every pair of numbers; `scaling` as core/CHECKPOINT.md defines it."""
    frequencies = theta ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    if scaling is None:
        return frequencies
    stretched = frequencies / scaling["factor"]
    if scaling["type"] == "linear":
        return stretched
    if scaling["type"] == "llama3":
        _, original, low, high = (scaling[key] for key in LLAMA3_KEYS)
        turns = original * frequencies / (2 * math.pi)
        share = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - share) * stretched + share * frequencies
    low, high = (2 * pairs * math.log(scaling["original"] / (scaling.get(key, turns) * 2 * math.pi))
                 / (2 * math.log(theta)) for key, turns in (("fast", 32), ("slow", 1)))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    high += 0.001 if high == low else 0
    ramp = ((torch.arange(pairs, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    return stretched * ramp + frequencies * (1 - ramp)


def matrix_of(linear):
    """(weight (outputs, inputs), bias or None) of a linear layer; transformers' Conv1D has them the other way round."""
    if isinstance(linear, tuple):
        return linear
    weight = linear.weight.t() if type(linear).__name__ == "Conv1D" else linear.weight
    return weight, getattr(linear, "bias", None)


class Attention(nn.Module):
    """softmax(q k * scale + bias) v over the positions of a row (positions, size).

    Args:
        size: of a position.
        heads, kv_heads, head_dim: query heads, key and value heads (each serves heads / kv_heads), numbers of a head.
        causal: a position sees those up to itself. window: it sees those nearer than `window`, itself included.
        scale: of the products; None: 1 / sqrt(head_dim).
        rotary: {"theta", "dims", "interleaved", "factor", "frequencies", "scaling"}; None: none.
        qk_norm: "none", "head" or "all": queries and keys divided by their root mean square, of each head or of all.
        qk_norm_late: this comes after rotation. clip: queries, keys and values are kept within -clip to clip before it.
        sinks: whether every head has a learned logit without a value. bias: (heads, positions, positions) or None.

    Shape: (rows, positions, size) -> the same.
    """

    def __init__(self, size, heads, kv_heads=None, head_dim=None, causal=False, window=None, scale=None, rotary=None,
                 qk_norm="none", eps=1e-6, sinks=False, bias=None, linear_bias=True, qk_norm_late=False, clip=0.0):
        super().__init__()
        self.heads = heads
        self.kv_heads = heads if kv_heads is None else kv_heads
        self.head_dim = size // heads if head_dim is None else head_dim
        self.causal, self.window, self.scale = causal, window, scale
        self.rotary = rotary
        self.qk_norm, self.eps, self.qk_norm_late, self.clip = qk_norm, eps, qk_norm_late, clip
        inner = self.heads * self.head_dim
        projected = inner + 2 * self.kv_heads * self.head_dim
        self.in_proj_weight = nn.Parameter(torch.empty(projected, size).normal_(std=0.02))
        self.in_proj_bias = nn.Parameter(torch.zeros(self.in_proj_weight.shape[0])) if linear_bias else None
        self.out_proj = nn.Linear(inner, size, bias=linear_bias)
        if qk_norm != "none":
            groups = (self.heads, self.kv_heads) if qk_norm == "all" else (1, 1)
            self.q_norm, self.k_norm = (_Weight(count * self.head_dim) for count in groups)
        self.sinks = nn.Parameter(torch.zeros(heads)) if sinks else None
        self.bias = None if bias is None else nn.Parameter(torch.as_tensor(bias, dtype=torch.float32))

    @classmethod
    def of(cls, query, key, value, out, heads, norms=None, **settings):
        """The layer of given projections.

        Args:
            query, key, value, out: nn.Linear, or (weight, bias or None), weight (outputs, inputs).
            heads: query heads. Keys and values have as many as their sizes say.
            norms: with qk_norm, the norms of queries and keys, or their weights.
            settings: as of the class.
        """
        (query, key, value), (out, out_bias) = (matrix_of(part) for part in (query, key, value)), matrix_of(out)
        width = len(query[0]) // heads
        layer = cls(out.shape[0], heads, len(key[0]) // width, width, **settings)
        layer.in_proj_weight = nn.Parameter(torch.cat([query[0], key[0], value[0]]).detach())
        biases = [torch.zeros(len(weight)) if bias is None else bias for weight, bias in (query, key, value)]
        without = all(bias is None for _, bias in (query, key, value))
        layer.in_proj_bias = None if without else nn.Parameter(torch.cat(biases).detach())
        layer.out_proj.weight = nn.Parameter(out.detach())
        layer.out_proj.bias = None if out_bias is None else nn.Parameter(out_bias.detach())
        for own, norm in zip(("q_norm", "k_norm"), norms or ()):
            weight = norm if isinstance(norm, torch.Tensor) else norm.weight
            getattr(layer, own).weight = nn.Parameter(weight.detach())
        return layer

    def forward(self, x):
        return self.of_lengths(x, None)

    def of_lengths(self, x, lengths):
        """The same of rows that end in padding, which none of the others looks at. lengths: (rows) or None."""
        rows, positions, _ = x.shape
        sizes = [count * self.head_dim for count in (self.heads, self.kv_heads, self.kv_heads)]
        q, k, v = functional.linear(x, self.in_proj_weight, self.in_proj_bias).split(sizes, dim=-1)
        if self.qk_norm != "none" and not self.qk_norm_late:
            q, k = self._normal(q, self.q_norm.weight), self._normal(k, self.k_norm.weight)
        if self.clip > 0:
            q, k, v = (part.clamp(-self.clip, self.clip) for part in (q, k, v))
        q, k, v = (part.reshape(rows, positions, -1, self.head_dim).transpose(1, 2) for part in (q, k, v))
        if self.rotary is not None:
            q, k = self._turned(q), self._turned(k)
        if self.qk_norm != "none" and self.qk_norm_late:
            q, k = (self._normal(part.transpose(1, 2).flatten(2), norm.weight).unflatten(-1, (-1, self.head_dim))
                    .transpose(1, 2) for part, norm in ((q, self.q_norm), (k, self.k_norm)))
        k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (k, v))
        scores = q @ k.transpose(-1, -2) * (self.head_dim ** -0.5 if self.scale is None else self.scale)
        if self.bias is not None:
            scores = scores + self.bias
        visible = self._visible(positions, x.device)
        if lengths is not None:
            visible = only_real(visible, lengths)
        mixed = self._shares(scores.masked_fill(~visible, -math.inf)) @ v
        return self.out_proj(mixed.transpose(1, 2).reshape(rows, positions, -1))

    def _shares(self, scores):
        if self.sinks is None:
            return torch.softmax(scores, dim=-1)
        sinks = self.sinks.reshape(-1, 1, 1).expand(*scores.shape[:-1], 1)
        return torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[..., :-1]

    def _normal(self, x, weight):
        heads = x.unflatten(-1, (-1, weight.numel()))
        normal = heads * torch.rsqrt(heads.square().mean(dim=-1, keepdim=True) + self.eps)
        return (normal * weight).flatten(-2)

    def _visible(self, positions, device):
        distance = torch.arange(positions, device=device).unsqueeze(1) - torch.arange(positions, device=device)
        seen = torch.ones_like(distance, dtype=torch.bool)
        if self.causal:
            seen = seen & (distance >= 0)
        return seen if self.window is None else seen & (distance.abs() < self.window)

    def _turned(self, x):
        """x: (rows, heads, positions, head_dim)"""
        dims = self.rotary.get("dims", self.head_dim)
        pairs = dims // 2
        frequencies = self.rotary.get("frequencies")
        if frequencies is None:
            frequencies = rotary_frequencies(pairs, self.rotary.get("theta", 10000.0), self.rotary.get("scaling"))
        angles = torch.arange(x.shape[2], dtype=torch.float64).unsqueeze(1) * torch.as_tensor(frequencies).double()
        cos, sin = ((function(angles) * self.rotary.get("factor", 1.0)).to(x) for function in (torch.cos, torch.sin))
        turned, rest = x[..., :dims], x[..., dims:]
        if self.rotary.get("interleaved", False):
            a, b = turned[..., ::2], turned[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        else:
            a, b = turned[..., :pairs], turned[..., pairs:]
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        return torch.cat([turned, rest], dim=-1)


class _Weight(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
