"""Rows of different length: the first axis of an input ends in padding, and no result depends on what that holds.

run() passes rows through layers as forward() does, and says what is still padded. Layers that work on every entry by
itself need to know nothing; reductions see a row's own entries; what would mix entries is refused, as in the server.
"""

from typing import Any, List, Optional, Tuple

import torch
from torch import nn

from moed import functions, modules
from moed.graph import PLAIN, Concat, Graph
from moed.ops import INFERENCE_NO_OPS, OP_OF_MODULE

REDUCTIONS = (modules.Sum, modules.Mean, functions.Max, modules.Select)
MIXING = {"flatten", "reshape", "transpose", "class_token", "conv1d", "conv2d", "max_pool2d", "avg_pool2d",
          "adaptive_avg_pool2d", "group_norm"}
LAST_AXIS = {"linear", "glu", "softmax", "log_softmax"}
Lengths = Optional[torch.Tensor]


def run(layer: Any, x: torch.Tensor, lengths: Lengths) -> Tuple[torch.Tensor, Lengths]:
    """A layer's result, and the lengths of its rows, or None where the padded axis is gone.

    Args:
        layer: a module.
        x: rows.
        lengths: how many entries of the first axis each row has; None: the rows have no padding.

    Shape:
        x: [rows, entries, ...]
        lengths: [rows] of integers

    Raises:
        ValueError: the layer would see padding.
    """
    if lengths is None:
        return layer(x), None
    if isinstance(layer, Graph):
        return _graph(layer, x, lengths)
    if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
        left: Lengths = lengths
        for inner in layer:
            x, left = run(inner, x, left)
        return x, left
    if isinstance(layer, modules.Residual):
        return x + run(layer.layers, x, lengths)[0], lengths
    if isinstance(layer, REDUCTIONS) and modules.batch_axis(layer.axis, x) == 1:
        return _reduced(layer, x, lengths), None
    _check(layer, x)
    of_lengths = getattr(layer, "of_lengths", None)
    return layer(x) if of_lengths is None else of_lengths(cleared(x, lengths), lengths), lengths


def cleared(x: torch.Tensor, lengths: Lengths) -> torch.Tensor:
    """With 0 for padding, as an output has it."""
    return x if lengths is None else torch.where(_real(x, lengths), x, torch.zeros_like(x))


def _real(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    real = modules.real_entries(lengths, x.shape[1])
    return real.reshape(*real.shape, *[1] * (x.dim() - 2))


def _graph(graph: Graph, x: torch.Tensor, lengths: Lengths) -> Tuple[torch.Tensor, Lengths]:
    values = {"input": (x, lengths)}
    for name, layer in graph._modules.items():
        links = graph.links.get(name, PLAIN)
        if links.input is not None:
            x, lengths = values[links.input]
        if links.of:
            x, lengths = _joined(layer, x, lengths, [values[other] for other in links.of])
        else:
            x, lengths = run(layer, x, lengths)
        if links.result is not None:
            values[links.result] = x, lengths
    return x, lengths


def _joined(layer: Any, x: torch.Tensor, lengths: Lengths, others: List[Any]) -> Tuple[torch.Tensor, Lengths]:
    """Where one value is padded the result is."""
    for _, left in others:
        lengths = left if lengths is None else lengths
    if lengths is not None and isinstance(layer, Concat) and modules.batch_axis(layer.axis, x) == 1:
        raise ValueError("concat along an axis that ends in padding")
    return layer(x, *(value for value, _ in others)), lengths


def _reduced(layer: Any, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Of each row's own entries; 0 of none."""
    counts = lengths.reshape(-1, *[1] * (x.dim() - 2))
    if isinstance(layer, functions.Max):
        found = x.masked_fill(~_real(x, lengths), float("-inf")).amax(dim=1)
    elif isinstance(layer, modules.Select):
        if layer.index not in (0, -1):
            raise ValueError(f"entry {layer.index} may be padding: there are 0 and the last, -1")
        place = (lengths - 1).clamp_min(0) if layer.index == -1 else torch.zeros_like(lengths)
        found = x[torch.arange(len(x), device=x.device), place]
    else:
        found = cleared(x, lengths).sum(dim=1)
        if isinstance(layer, modules.Mean):
            found = found / counts.clamp_min(1)
    return torch.where(counts > 0, found, torch.zeros_like(found))


def _check(layer: Any, x: torch.Tensor) -> None:
    """Refuses what does not work on every entry of the first axis by itself."""
    if type(layer) in INFERENCE_NO_OPS or hasattr(layer, "of_lengths"):
        return
    name = OP_OF_MODULE.get(type(layer))
    if name is None:
        raise ValueError(f"{type(layer).__name__} is not known to leave padding alone: of rows of different length "
                         "give the layers themselves, in an nn.Sequential")
    axes = x.dim() - 1
    mixes = (name in MIXING or name in LAST_AXIS and axes == 1
             or name in ("layer_norm", "rms_norm") and len(layer.normalized_shape) >= axes
             or name in ("slice", "l2_normalize") and modules.batch_axis(layer.axis, x) == 1)
    if mixes:
        raise ValueError(f"{name} would see the padding of rows of different length: reduce the first axis before, for "
                         "example by Mean(0)")
