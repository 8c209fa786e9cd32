"""Transformer blocks: built from moed's layers, and PyTorch's own in terms of them."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from moed import blocks
from moed.ops import ExportError, require

ACTIVATIONS = {functional.relu: nn.ReLU, torch.relu: nn.ReLU, functional.gelu: nn.GELU, functional.silu: nn.SiLU}


def encoder_block(size, heads, feed_forward, norm=nn.LayerNorm, norm_first=True, dropout=0.0):
    """Self-attention, then `feed_forward` (a MoE with route="positions", or any layer), each in a residual.

    norm_first  pre-norm, x + f(norm(x)); otherwise post-norm, norm(x + f(x)).
    """
    attention = blocks.SelfAttention(size, heads, dropout=dropout)
    if norm_first:
        return nn.Sequential(OrderedDict(
            attention=blocks.Residual(nn.Sequential(OrderedDict(norm=norm(size), attention=attention))),
            feed_forward=blocks.Residual(nn.Sequential(OrderedDict(norm=norm(size), feed_forward=feed_forward)))))
    return nn.Sequential(OrderedDict(
        attention=blocks.Residual(nn.Sequential(OrderedDict(attention=attention))), norm1=norm(size),
        feed_forward=blocks.Residual(nn.Sequential(OrderedDict(feed_forward=feed_forward))), norm2=norm(size)))


def of_pytorch(module, path):
    """nn.TransformerEncoder and nn.TransformerEncoderLayer as the layers they are made of."""
    if type(module) is nn.TransformerEncoderLayer:
        return _encoder_layer(module, path)
    norm = [("norm", module.norm, f"{path}.norm")] if module.norm is not None else []
    return blocks.Translated([(f"layers_{index}", layer, f"{path}.layers.{index}")
                       for index, layer in enumerate(module.layers)] + norm)


def _encoder_layer(layer, path):
    require(layer.self_attn.batch_first, path, "batch_first is off: rows would be positions")
    try:
        attention = blocks.SelfAttention.of(layer.self_attn)
    except ValueError as error:
        raise ExportError(f"{path}.self_attn: {error}") from None
    attention = ("self_attn", attention, f"{path}.self_attn")
    norm1, norm2 = (("norm1", layer.norm1, f"{path}.norm1"), ("norm2", layer.norm2, f"{path}.norm2"))
    feed_forward = [("linear1", layer.linear1, f"{path}.linear1"), ("activation", _activation(layer, path), path),
                    ("linear2", layer.linear2, f"{path}.linear2")]
    if layer.norm_first:
        return blocks.Translated([_residual("attention", [norm1, attention], path),
                           _residual("feed_forward", [norm2, *feed_forward], path)])
    return blocks.Translated([_residual("attention", [attention], path), norm1,
                       _residual("feed_forward", feed_forward, path), norm2])


def _residual(name, steps, path):
    return name, blocks.Residual(blocks.Translated(steps)), path


def _activation(layer, path):
    if isinstance(layer.activation, nn.Module):
        return layer.activation
    require(layer.activation in ACTIVATIONS, path,
            f"activation {getattr(layer.activation, '__name__', layer.activation)} is not relu, gelu or silu")
    return ACTIVATIONS[layer.activation]()
