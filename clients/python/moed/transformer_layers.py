"""Transformer blocks: built from moed's layers, and PyTorch's own in terms of them."""

import torch
from torch import nn
from torch.nn import functional

from moed import modules
from moed.modules import CheckpointSequential
from moed.ops import ExportError, require

ACTIVATIONS = {functional.relu: nn.ReLU, torch.relu: nn.ReLU, functional.gelu: nn.GELU, functional.silu: nn.SiLU}


def encoder_block(size, heads, feed_forward, norm=nn.LayerNorm, norm_first=True, dropout=0.0):
    """Self-attention, then `feed_forward` (a MoE with route="positions", or any layer), each in a residual.

    norm_first  pre-norm, x + f(norm(x)); otherwise post-norm, norm(x + f(x)).
    """
    attention = modules.SelfAttention(size, heads, dropout=dropout)
    return _block(norm_first, ("attention", attention, None), ("norm1", norm(size), None),
                  [("feed_forward", feed_forward, None)], ("norm2", norm(size), None), None)


def of_pytorch(module, path):
    """nn.TransformerEncoder and nn.TransformerEncoderLayer as the layers they are made of."""
    if type(module) is nn.TransformerEncoderLayer:
        return _encoder_layer(module, path)
    norm = [("norm", module.norm, f"{path}.norm")] if module.norm is not None else []
    layers = [(f"layers_{index}", layer, f"{path}.layers.{index}") for index, layer in enumerate(module.layers)]
    return CheckpointSequential(layers + norm)


def _encoder_layer(layer, path):
    require(layer.self_attn.batch_first, path, "batch_first is off: rows would be positions")
    try:
        attention = modules.SelfAttention.of(layer.self_attn)
    except ValueError as error:
        raise ExportError(f"{path}.self_attn", str(error)) from None
    return _block(layer.norm_first, ("self_attn", attention, f"{path}.self_attn"),
                  ("norm1", layer.norm1, f"{path}.norm1"),
                  [("linear1", layer.linear1, f"{path}.linear1"), ("activation", _activation(layer, path), path),
                   ("linear2", layer.linear2, f"{path}.linear2")], ("norm2", layer.norm2, f"{path}.norm2"), path)


def _block(norm_first, attention, norm1, feed_forward, norm2, path):
    """Of (name, layer, path) each; feed_forward is a list of them."""
    def residual(name, *steps):
        return name, modules.Residual(CheckpointSequential(steps)), path

    if norm_first:
        return CheckpointSequential([residual("residual1", norm1, attention),
                                     residual("residual2", norm2, *feed_forward)])
    return CheckpointSequential([residual("residual1", attention), norm1, residual("residual2", *feed_forward), norm2])


def _activation(layer, path):
    if isinstance(layer.activation, nn.Module):
        return layer.activation
    require(layer.activation in ACTIVATIONS, path,
            f"activation {getattr(layer.activation, '__name__', layer.activation)} is not relu, gelu or silu")
    return ACTIVATIONS[layer.activation]()
