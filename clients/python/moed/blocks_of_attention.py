"""Attention of a user's own module: finds its projections by their names, and what it computes by trying.

Hand-written attention differs in a few names, in how query, key and value are packed, in masks, scale and rotary
positions. Every combination that the module's attributes and tensors speak for is built with random weights and
compared with the module itself; the first one that gives the same answers is what is exported. A module that none fits
is refused.
"""

import itertools
import math
from collections import OrderedDict
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import nn

from moed.attention import Attention, matrix_of
from moed.blocks_of_experts import first_output, random_copy
from moed.modules import Residual, RMSNorm
from moed.ops import ExportError
from moed.places import unfit

QUERY = ("q_proj", "query", "q", "wq", "to_q", "q_lin", "Wq", "query_proj", "W_q", "w_q", "fc_q", "linear_q")
KEY = tuple(name.replace("query", "key").replace("q", "k") for name in QUERY)
VALUE = tuple(name.replace("query", "value").replace("q", "v") for name in QUERY)
PACKED = ("qkv", "qkv_proj", "c_attn", "in_proj", "Wqkv", "query_key_value", "to_qkv", "attn", "proj_qkv")
PACKED_KEY_VALUE = ("to_kv", "kv", "kv_proj", "Wkv")
OUT = ("o_proj", "out_proj", "dense", "out", "wo", "to_out", "proj", "c_proj", "out_lin", "Wo", "W_o", "w_o", "fc_out",
       "fc_o", "output", "o", "linear_out")
HEADS = ("num_heads", "n_head", "n_heads", "heads", "num_attention_heads", "nhead", "h", "n_local_heads", "head")
WINDOWS = ("sliding_window", "window", "window_size")
SCALES = ("scale", "scaling", "softmax_scale")
THETAS = ("rope_theta", "theta", "rotary_base", "base", "rope_base")
ROTARY_SIZES = ("rotary_dim", "rotary_ndims", "rot_dim")
NORMS = ("norm", "ln", "layer_norm", "layernorm", "norm1", "pre_norm")
SINKS = ("sinks", "sink", "attn_sinks")
QUERY_NORMS = ("q_norm", "q_layernorm", "query_norm", "query_layernorm")
KEY_NORMS = ("k_norm", "k_layernorm", "key_norm", "key_layernorm")
CLIPS = ("clip_qkv",)
MOST_HEADS = 64


class Given(nn.Module):
    """A module with what it is called with beside its one input: masks, rotary tables, the same for every row."""

    def __init__(self, module: nn.Module, args: tuple, kwargs: Dict[str, Any]):
        super().__init__()
        self.module, self.args, self.kwargs = module, args, kwargs

    def forward(self, x: torch.Tensor) -> Any:
        return self.module(x, *self.args, **self.kwargs)


class _Parts(NamedTuple):
    """Matrices [out, in] and biases of the projections."""

    query: Any
    key: Any
    value: Any
    out: Any


def is_attention(module: nn.Module) -> bool:
    """Whether it has projections to queries, keys and values and one to its output, under names that we know."""
    if child(module, OUT) is None or any(isinstance(part, nn.Conv1d) for part in module.children()):  # Mamba
        return False
    apart = child(module, QUERY) is not None
    return _by_head(module) is not None or apart and (child(module, PACKED_KEY_VALUE) is not None or None not in (
        child(module, KEY), child(module, VALUE))) or child(module, PACKED) is not None


def attention_block(module: nn.Module, row: torch.Tensor, path: str) -> nn.Module:
    """The layers that it is: Attention, perhaps after a norm or in a residual. Raises ExportError if none fits."""
    inner = module.module if isinstance(module, Given) else module
    trials = [random_copy(module, seed, spread=2.0) for seed in range(2)]
    rows = torch.randn((3, *row.shape[1:]), generator=torch.Generator().manual_seed(7))
    try:
        expected = [trial(rows.clone()) for trial in trials]
    except Exception as error:  # whatever the module's code says
        raise unfit(path, row, error) from None
    if row.dim() == 3:
        for settings in _settings(module, inner, row.shape[-1], expected[0]):
            if all(_answers(trial, settings, rows, answer) for trial, answer in zip(trials, expected)):
                return _build(module, settings, module(rows))
    raise ExportError(path, f"{type(inner).__name__} has projections to queries, keys and values, but no attention "
                      "that we know gives its answers; say what it is with moed.register_adapter and "
                      "moed.nn.Attention.of (clients/python/PORTING.md)")


# ---- reading the projections ----

def child(module: nn.Module, names: Tuple[str, ...]) -> Optional[nn.Module]:
    """The linear layer of one of these names; of a Sequential that ends in dropout the linear layer in it."""
    for name in names:
        found = module._modules.get(name)
        if isinstance(found, (nn.Sequential, nn.ModuleList)) and len(found) > 0:
            found = found[0]
        if found is not None and getattr(found, "weight", None) is not None and found.weight.dim() == 2:
            return found
    return None


def _by_head(module: nn.Module) -> Optional[nn.ModuleList]:
    """A list of heads that have projections of their own, side by side before the last one."""
    for part in module.children():
        if isinstance(part, nn.ModuleList) and len(part) > 0 and all(
                child(head, names) is not None for head in part for names in (QUERY, KEY, VALUE)):
            return part
    return None


def _beside_each_other(layers: List[Any]) -> tuple:
    weights, biases = zip(*map(matrix_of, layers))
    return torch.cat(weights), None if biases[0] is None else torch.cat(biases)


def _parts(module: nn.Module, heads: int, by_heads: bool, size: int) -> _Parts:
    out = matrix_of(child(module, OUT))
    apart, query = _by_head(module), child(module, QUERY)  # type: Any, Any
    if apart is not None:
        query, key, value = (_beside_each_other([child(head, names) for head in apart])
                             for names in (QUERY, KEY, VALUE))
        return _Parts(query, key, value, out)
    if query is not None:
        together = child(module, PACKED_KEY_VALUE)
        if together is None:
            return _Parts(matrix_of(query), matrix_of(child(module, KEY)), matrix_of(child(module, VALUE)), out)
        key, value = _cut(matrix_of(together), heads, by_heads, 2)
        return _Parts(matrix_of(query), key, value, out)
    weight, bias = matrix_of(child(module, PACKED))
    inner = out[0].shape[1]
    if len(weight) == 3 * inner:
        query, key, value = _cut((weight, bias), heads, by_heads, 3)
    else:  # fewer heads of keys and values
        rest = (len(weight) - inner) // 2
        query, key, value = _split((weight, bias), [inner, rest, rest])
    return _Parts(query, key, value, out)


def _cut(matrix: tuple, heads: int, by_heads: bool, count: int) -> List[tuple]:
    """One after the other, or by turns in every head."""
    weight, bias = matrix
    if not by_heads:
        return _split(matrix, [len(weight) // count] * count)
    whole = weight.reshape(heads, count, -1, weight.shape[1])
    biases = None if bias is None else bias.reshape(heads, count, -1)
    return [(whole[:, index].reshape(-1, weight.shape[1]), None if biases is None else biases[:, index].reshape(-1))
            for index in range(count)]


def _split(matrix: tuple, sizes: List[int]) -> List[tuple]:
    weight, bias = matrix
    biases = [None] * len(sizes) if bias is None else bias.split(sizes)
    return list(zip(weight.split(sizes), biases))


# ---- what it may compute ----

class _Settings(NamedTuple):
    heads: int
    by_heads: bool
    bias: Optional[int]  # which of the additive biases around the module; None: none
    norm: bool
    residual: bool
    given: Dict[str, Any]


def _settings(module: nn.Module, inner: nn.Module, size: int, result: Any) -> Iterator[_Settings]:
    """In the order in which they are tried."""
    out = matrix_of(child(inner, OUT))[0].shape[1]
    packings = (False, True) if child(inner, PACKED) or child(inner, PACKED_KEY_VALUE) else (False,)
    norms = (False, True) if _norm(inner, size) is not None else (False,)
    for heads, by_heads in itertools.product(_heads(inner, out), packings):
        width, biases = out // heads, range(len(_biases(module, result, heads)))
        scales = [float(value) for value in attributes(inner, SCALES) if isinstance(value, float)]
        choices = itertools.product(rotaries(module, inner, width), _qk_norms(inner, width, out),
                                    dict.fromkeys([None, *scales, 1.0, size ** -0.5]), (False, True),
                                    [None, *attributes(inner, WINDOWS)], [None, *biases], norms, (False, True))
        sinks, clip = _sinks(inner, heads) is not None, next(iter(attributes(inner, CLIPS)), None)
        for rotary, qk_norm, scale, causal, window, bias, norm, residual in choices:
            given = {"rotary": rotary, "scale": scale, "causal": causal, "window": window, "sinks": sinks, "clip": clip,
                     **qk_norm}
            yield _Settings(heads, by_heads, bias, norm, residual, given)


def _heads(module: nn.Module, out: int) -> List[int]:
    named = [value for value in attributes(module, HEADS) if isinstance(value, int) and 0 < value and out % value == 0]
    apart = _by_head(module)
    if apart is not None:
        return [len(apart)]
    others = [heads for heads in range(1, min(out, MOST_HEADS) + 1) if out % heads == 0]
    return named[:1] or others


def _qk_norms(module: nn.Module, width: int, out: int) -> List[Dict[str, Any]]:
    found = _norms(module)
    if found is None:
        return [{}]
    eps = [value for value in attributes(found[0], ("eps", "variance_epsilon")) if isinstance(value, float)]
    kind = "head" if found[0].weight.numel() == width else "all"
    return [{"qk_norm": kind, "eps": value, "qk_norm_late": late} for late in (False, True)
            for value in dict.fromkeys([*eps, 1e-6, torch.finfo(torch.float32).eps])]


def _sinks(module: nn.Module, heads: int) -> Optional[torch.Tensor]:
    """A learned logit without a value for each head, or None."""
    return next((module._parameters[name] for name in SINKS
                 if module._parameters.get(name) is not None and module._parameters[name].numel() == heads), None)


def _biases(module: nn.Module, result: Any, heads: int) -> List[torch.Tensor]:
    """A number for each head and pair of positions, the same for every row: what the module is given, keeps or gives.

    T5's attention gives its relative positions to those that follow.
    """
    tensors = [*_around(module), *_tensors(result[1:] if isinstance(result, (tuple, list)) else [])]
    found = [tensor[0] if tensor.dim() == 4 and len(tensor) == 1 else tensor for tensor in tensors]
    return [tensor for tensor in found if tensor.is_floating_point() and tensor.dim() == 3 and len(tensor) == heads
            and tensor.shape[1] == tensor.shape[2]]


def _norms(module: nn.Module) -> Any:
    """(of queries, of keys), or None."""
    query, key = ([module._modules[name] for name in names if name in module._modules]
                  for names in (QUERY_NORMS, KEY_NORMS))
    return (query[0], key[0]) if query and key and getattr(query[0], "weight", None) is not None else None


def rotaries(module: nn.Module, inner: nn.Module, width: int) -> List[Optional[Dict[str, Any]]]:
    """None first; then the angles that tables and buffers hold, then those of the attributes or the usual base."""
    found: List[Dict[str, Any]] = []
    for frequencies, factor in _frequencies(module, width):
        stretched = {} if factor == 1 else {"factor": factor}
        found.append({"dims": 2 * len(frequencies), **_as_theta(frequencies), **stretched})
    sizes = [value for value in attributes(inner, ROTARY_SIZES) if isinstance(value, int) and 0 < value <= width]
    thetas = [float(value) for value in attributes(inner, THETAS) if isinstance(value, (int, float))]
    found += [{"dims": size, "theta": theta} for size in [*sizes, width - width % 2]
              for theta in dict.fromkeys([*thetas, 10000.0]) if size > 1]
    different = [one for index, one in enumerate(found) if one not in found[:index]]
    return [None, *({**one, "interleaved": turns} for one in different for turns in (False, True))]


def _frequencies(module: nn.Module, width: int) -> Iterator[Tuple[torch.Tensor, float]]:
    """The angles per position that tensors around the module hold: as they are, or as tables of cos and sin.

    With each what cos and sin are multiplied by, as YaRN does.
    """
    tensors = _around(module)
    for tensor in tensors:
        if tensor.dim() == 1 and 1 < 2 * len(tensor) <= width and tensor.is_floating_point():
            yield tensor, 1.0
        elif tensor.is_complex() and tensor.dim() >= 2 and 2 * tensor.shape[-1] <= width:
            yield torch.angle(tensor.reshape(-1, *tensor.shape[-2:])[0] if tensor.dim() > 2 else tensor)[1], 1.0
    tables = [tensor.squeeze() for tensor in tensors if tensor.is_floating_point() and tensor.dim() >= 2]
    for cos, sin in zip(tables, tables[1:]):
        if cos.shape == sin.shape and cos.dim() == 2 and len(cos) > 1 and bool((cos[0] == cos[0, 0]).all()) and (
                bool((sin[0] == 0).all())):
            for angles in _one_of_each(torch.atan2(sin[1], cos[1]), width):
                yield angles, float(cos[0, 0])


def _one_of_each(angles: torch.Tensor, width: int) -> Iterator[torch.Tensor]:
    """Tables have the angle of every pair once, or twice: half after half, or by turns."""
    count = angles.shape[-1]
    half = count // 2
    if count <= width // 2:
        yield angles
    if 1 < count <= width and torch.equal(angles[:half], angles[half:]):
        yield angles[:half]
    elif width // 2 < count <= width:
        yield angles[::2]


def _around(module: nn.Module) -> List[torch.Tensor]:
    """What it is called with, and what it keeps."""
    tensors = [*_tensors(module.args), *_tensors(list(module.kwargs.values()))] if isinstance(module, Given) else []
    tensors += [buffer for _, buffer in module.named_buffers()]
    return tensors + [value for part in module.modules() for value in vars(part).values()
                      if isinstance(value, torch.Tensor)]


def _tensors(given: Any) -> Iterator[torch.Tensor]:
    for value in given:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _as_theta(frequencies: torch.Tensor) -> Dict[str, Any]:
    """{"theta"} where it says the same, of as few digits as do, else {"frequencies"}."""
    values = frequencies.detach().double()
    count = len(values)
    if count > 1 and abs(float(values[0]) - 1) < 1e-6 and values[-1] > 0:
        theta = float(values[-1]) ** (-count / (count - 1))
        for digits in range(1, 8):
            short = float(f"{theta:.{digits}g}")
            of_theta = short ** (-torch.arange(count, dtype=torch.float64) / count)
            if torch.allclose(values, of_theta, rtol=5e-7, atol=0):
                return {"theta": short}
    return {"frequencies": values.tolist()}


def _norm(module: nn.Module, size: int) -> Optional[nn.Module]:
    for name in NORMS:
        found = module._modules.get(name)
        weight = getattr(found, "weight", None)
        if found is not None and weight is not None and weight.shape == (size,):
            return found
    return None


def attributes(module: nn.Module, names: Tuple[str, ...]) -> list:
    """Values of these attributes of the module and its configuration, each once."""
    places = [module, getattr(module, "config", None), getattr(module, "args", None)]
    places += [part for part in module.children() if not list(part.parameters(recurse=False))]
    found = [getattr(place, name) for name in names for place in places
             if isinstance(getattr(place, name, None), (int, float)) and not isinstance(getattr(place, name), bool)]
    return list(dict.fromkeys(found))


# ---- trying ----

def _build(module: nn.Module, settings: _Settings, result: Any) -> nn.Module:
    """result: what the module gives, other layers' biases among it."""
    inner: nn.Module = module.module if isinstance(module, Given) else module
    parts = _parts(inner, settings.heads, settings.by_heads, matrix_of(child(inner, OUT))[0].shape[0])
    given = {key: value for key, value in settings.given.items() if value is not None and value is not False}
    norms = _norms(inner) if "qk_norm" in given else None
    if settings.bias is not None:
        given["bias"] = _biases(module, result, settings.heads)[settings.bias].detach().clone()
    layer: Any = Attention.of(*parts, heads=settings.heads, norms=norms, **given)
    if layer.sinks is not None:
        layer.sinks = nn.Parameter(_sinks(inner, settings.heads).detach().reshape(-1))  # type: ignore[union-attr]
    if settings.norm:
        layer = nn.Sequential(OrderedDict(norm=_own_norm(_norm(inner, parts.out[0].shape[0])), attention=layer))
    return (Residual(layer) if settings.residual else layer).eval()


def _own_norm(norm: Any) -> nn.Module:
    """PyTorch's layer norm as it is, any other as an RMSNorm."""
    if isinstance(norm, nn.LayerNorm):
        return norm
    eps = next((value for value in (getattr(norm, name, None) for name in ("eps", "variance_epsilon"))
                if isinstance(value, float)), torch.finfo(torch.float32).eps)
    layer = RMSNorm(len(norm.weight), eps)
    layer.weight = norm.weight
    return layer


def _answers(trial: nn.Module, settings: _Settings, rows: torch.Tensor, result: Any) -> bool:
    try:
        got, expected = _build(trial, settings, result)(rows.clone()), first_output(result)
    except Exception:  # parts that do not fit together
        return False
    largest = float(expected.abs().max())
    return got.shape == expected.shape and math.isfinite(largest) and torch.allclose(got, expected, rtol=1e-4,
                                                                                     atol=2e-5 * largest)
