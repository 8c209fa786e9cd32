"""Attention whose keys and values are made of one short vector a position: DeepSeek's MLA, found by trying.

Over the positions of a row it is plain attention over what queries, keys and values are made of: the queries' source,
the normalised latent and the turned part of the keys, side by side. Queries, keys and values are linear in that, so
what the projections do becomes one matrix.
"""

import itertools
import math
from typing import Any, Dict, List, NamedTuple, Optional

import torch
from torch import nn

from moed.attention import Attention, matrix_of
from moed.blocks_of_attention import HEADS, OUT, QUERY, SCALES, Given, attributes, child, rotaries
from moed.blocks_of_experts import first_output, random_copy
from moed.blocks_of_norms import norm_of
from moed.functions import Slice
from moed.graph import PLAIN, Concat, Graph, Links
from moed.ops import ExportError
from moed.places import unfit

KV_DOWN = ("kv_a_proj_with_mqa", "wkv_a", "kv_a_proj", "kv_down_proj", "kv_down")
KV_UP = ("kv_b_proj", "wkv_b", "kv_up_proj", "kv_up")
KV_NORM = ("kv_a_layernorm", "kv_norm", "kv_layernorm")
QUERY_DOWN = ("q_a_proj", "wq_a", "q_down_proj", "q_down")
QUERY_UP = ("q_b_proj", "wq_b", "q_up_proj", "q_up")
QUERY_NORM = ("q_a_layernorm", "q_norm", "q_layernorm")


def is_latent(module: nn.Module) -> bool:
    """Whether it has projections to a latent and from it, and one to its output, under names that we know."""
    queries = child(module, QUERY) is not None or None not in (child(module, QUERY_DOWN), child(module, QUERY_UP))
    return queries and all(child(module, names) is not None for names in (KV_DOWN, KV_UP, OUT)) and bool(
        attributes(module, HEADS))


def latent_block(module: nn.Module, row: torch.Tensor, path: str) -> nn.Module:
    """The layers that it is. Raises ExportError if none fits."""
    inner = module.module if isinstance(module, Given) else module
    trials = [random_copy(module, seed, spread=2.0) for seed in range(2)]
    rows = torch.randn((3, *row.shape[1:]), generator=torch.Generator().manual_seed(7))
    try:
        expected = [first_output(trial(rows.clone())) for trial in trials]
    except Exception as error:  # whatever the module's code says
        raise unfit(path, row, error) from None
    for settings in _settings(module, inner) if row.dim() == 3 else []:
        if all(_answers(trial, settings, rows, answer) for trial, answer in zip(trials, expected)):
            return _build(inner, settings)
    raise ExportError(path, f"{type(inner).__name__} makes keys and values of a latent, but not in a way that we know; "
                            "say what it is with moed.register_adapter (clients/python/PORTING.md)")


def _settings(module: nn.Module, inner: nn.Module) -> List[Dict[str, Any]]:
    """In the order in which they are tried."""
    sizes = _sizes(inner)
    if sizes is None:
        return []
    scales = [float(value) for value in attributes(inner, SCALES) if isinstance(value, float)]
    scales = list(dict.fromkeys([*scales, (sizes.plain + sizes.turned) ** -0.5]))
    turns = [turn for turn in rotaries(module, inner, sizes.turned) if turn is None or turn["dims"] == sizes.turned]
    return [{"rotary": rotary, "scale": scale, "causal": causal}
            for rotary, scale, causal in itertools.product(turns, scales, (True, False))]


class _Sizes(NamedTuple):
    heads: int
    plain: int   # numbers of a head's query that are not turned
    turned: int
    latent: int
    value: int   # numbers of a head's value


def _sizes(module: nn.Module) -> Optional[_Sizes]:
    heads = int(attributes(module, HEADS)[0])
    down, up, out = (matrix_of(child(module, names))[0] for names in (KV_DOWN, KV_UP, OUT))
    latent, value = up.shape[1], out.shape[1] // heads
    sizes = _Sizes(heads, up.shape[0] // heads - value, down.shape[0] - latent, latent, value)
    return sizes if min(sizes) > 0 else None


def _build(module: nn.Module, settings: Dict[str, Any]) -> nn.Module:
    sizes: Any = _sizes(module)
    down = child(module, KV_DOWN)
    size, narrow = matrix_of(down)[0].shape[1], child(module, QUERY_DOWN)
    steps: List[tuple] = [("kv_down", down, PLAIN._replace(result="latent"))]
    steps += [("latent", Slice(1, 0, sizes.latent), PLAIN), *_norm(module, KV_NORM)]
    steps[-1] = (*steps[-1][:2], PLAIN._replace(result="normal"))
    steps += [("turned", Slice(1, sizes.latent), Links("latent", (), "turned"))]
    given, query = "input", child(module, QUERY)
    if narrow is not None:
        steps += [("q_down", narrow, Links("input")), *_norm(module, QUERY_NORM)]
        steps[-1] = (*steps[-1][:2], steps[-1][2]._replace(result="queries"))
        given, query = "queries", child(module, QUERY_UP)
    wide = (size if narrow is None else matrix_of(narrow)[0].shape[0]) + sizes.latent + sizes.turned
    before = max(0, size - wide)  # so that what comes out has room
    names = ["normal", "turned", *(["padding"] if before else [])]
    if before:
        steps += [("padding", Slice(1, 0, before), Links("input", (), "padding"))]
    steps += [("joined", Concat(1), Links(given, tuple(names)))]
    steps += [("attention", _attention(sizes, query, module, wide + before, settings), PLAIN)]
    if wide + before > size:
        steps += [("output", Slice(1, 0, size), PLAIN)]
    return Graph([(name, layer, None) for name, layer, _ in steps], [links for _, _, links in steps]).eval()


def _norm(module: nn.Module, names: tuple) -> List[tuple]:
    found = next((module._modules[name] for name in names if name in module._modules), None)
    norm = norm_of(found) if found is not None else None
    if found is not None and norm is None:
        raise ValueError("a norm that we do not know")
    return [] if norm is None else [("norm", norm, PLAIN)]


def _attention(sizes: Any, query: Any, module: nn.Module, wide: int, settings: Dict[str, Any]) -> nn.Module:
    """Over [source of queries, latent, turned part of keys, ...]; heads have their turned numbers first."""
    (asks, ask_bias), (ups, up_bias), (out, out_bias) = (
        matrix_of(layer) for layer in (query, child(module, KV_UP), child(module, OUT)))
    heads, plain, turned, value = sizes.heads, sizes.plain, sizes.turned, sizes.value
    head, source = max(plain + turned, value), asks.shape[1]
    q, k, v = (torch.zeros(heads, head, wide) for _ in range(3))
    asks, ups = asks.reshape(heads, plain + turned, source), ups.reshape(heads, plain + value, sizes.latent)
    at = slice(source, source + sizes.latent)
    q[:, :turned, :source], q[:, turned:turned + plain, :source] = asks[:, plain:], asks[:, :plain]
    k[:, :turned, at.stop:at.stop + turned] = torch.eye(turned)
    k[:, turned:turned + plain, at] = ups[:, :plain]
    v[:, :value, at] = ups[:, plain:]
    mixed = torch.zeros(wide, heads, head)
    mixed[:len(out), :, :value] = out.reshape(len(out), heads, value)
    biases = [torch.zeros(heads, head) for _ in range(3)]
    if ask_bias is not None:
        ask_bias = ask_bias.reshape(heads, -1)
        biases[0][:, :turned], biases[0][:, turned:turned + plain] = ask_bias[:, plain:], ask_bias[:, :plain]
    if up_bias is not None:
        biases[1][:, turned:turned + plain] = up_bias.reshape(heads, -1)[:, :plain]
        biases[2][:, :value] = up_bias.reshape(heads, -1)[:, plain:]
    without = ask_bias is None and up_bias is None
    parts = [(part.reshape(heads * head, wide), None if without else bias.reshape(-1))
             for part, bias in zip((q, k, v), biases)]
    final = None if out_bias is None else torch.cat([out_bias, torch.zeros(wide - len(out))])
    given = {key: setting for key, setting in settings.items() if setting is not None and setting is not False}
    ask, hold, give = parts
    return Attention.of(ask, hold, give, (mixed.reshape(wide, heads * head), final), heads=heads, **given)


def _answers(trial: nn.Module, settings: Dict[str, Any], rows: torch.Tensor, expected: torch.Tensor) -> bool:
    inner = trial.module if isinstance(trial, Given) else trial
    try:
        got = _build(inner, settings)(rows.clone())  # type: ignore[arg-type]
    except Exception:  # parts that do not fit together
        return False
    largest = float(expected.abs().max())
    return got.shape == expected.shape and math.isfinite(largest) and torch.allclose(got, expected, rtol=1e-4,
                                                                                     atol=2e-5 * largest)
