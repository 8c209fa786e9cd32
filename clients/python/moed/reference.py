"""`routing_reference`: how a checkpoint's gates route known-good data, with which a server compares its traffic."""

import math
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Tuple

import torch
from torch import nn

from moed.gates import Routing
from moed.layers import MoE, MultiGateMoE
from moed.multitask import MultiTask
from moed.ops import require
from moed.words import counted

BATCH_ROWS = 256
LISTS = ("share", "weight", "probability")


def measured(model: MultiTask, rows: Any, experts: Mapping[str, int]) -> Dict[str, Dict[str, Any]]:
    """Runs raw rows through a loaded checkpoint, some at a time.

    Args:
        model: the checkpoint as moed.load() gives it.
        rows: a tensor, or {input: tensor}, [rows, ...] each.
        experts: how many each gate has, by the name that the checkpoint gives it.

    Returns:
        {gate: {"share", "weight", "probability", "rows"}}: of each expert its part of the selections, the mean of its
        part of an item's absolute combine weights, and the mean of the gate's distribution.
    """
    inputs = _checked_rows(model, rows)
    count = len(next(iter(inputs.values())))
    return summed(model, ({name: values[start:start + BATCH_ROWS] for name, values in inputs.items()}
                          for start in range(0, count, BATCH_ROWS)), experts)


def summed(model: nn.Module, batches: Iterable[Any], experts: Mapping[str, int]) -> Dict[str, Dict[str, Any]]:
    """The same of any module with MoE layers, run on batches of rows: each what the module takes."""
    count, sums = 0, {}  # type: int, Dict[str, List[torch.Tensor]]
    with torch.no_grad():
        for batch in batches:
            model(batch)
            count += len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)
            for name, chosen, routing in _routings(model):
                parts = _sums(routing, chosen)
                sums[name] = [a + b for a, b in zip(sums[name], parts)] if name in sums else parts
    names = {name.replace(".", "_"): name for name in experts}  # PyTorch's names have no dots
    require(set(names) == set(sums), "reference_rows", f"pass through {sorted(sums)}, not through {sorted(experts)}")
    return {name: {**{key: _share(values) for key, values in zip(LISTS, sums[plain])}, "rows": count}
            for plain, name in names.items()}


def _checked_rows(model: MultiTask, rows: Any) -> Dict[str, torch.Tensor]:
    if not isinstance(rows, Mapping):
        require(len(model.input_names) == 1, "reference_rows", f"is no dict by input: {model.input_names}")
        rows = {model.input_names[0]: rows}
    require(set(rows) == set(model.input_names), "reference_rows",
            f"has {sorted(rows)}; the inputs are {model.input_names}")
    given = {name: torch.as_tensor(values) for name, values in rows.items()}
    for name, entry in zip(model.input_names, model.inputs):
        shape = list(given[name].shape[1:])
        require(given[name].dim() > 1 and shape == list(entry.shape), "reference_rows",
                f"of '{name}' are of shape {shape}, a row is {list(entry.shape)}")
    counts = {len(values) for values in given.values()}
    require(len(counts) == 1 and counts != {0}, "reference_rows", f"are {sorted(counts)} rows of different inputs")
    return given


def _routings(model: nn.Module) -> Iterator[Tuple[str, List[int], Routing]]:
    """Of the latest pass: (name without dots, the layer's indices of the gate's experts, Routing)."""
    for path, module in model.named_modules():
        name = path.split(".")[-1]
        if type(module) is MoE:
            yield name, list(range(len(module.experts))), module.routing
        elif type(module) is MultiGateMoE:
            for gate, routing in module.routing.items():
                yield f"{name}_{gate}", module.gate_experts[gate], routing


def _sums(routing: Routing, chosen: List[int]) -> List[torch.Tensor]:
    """Per expert of a gate, in float64: selections, parts of the items' absolute weights, probabilities."""
    served = torch.stack([routing.experts == index for index in chosen])  # [experts, items, k]
    weights = routing.weights.double().abs()
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-300)
    return [served.sum(dim=(1, 2)).double(), (served * weights).sum(dim=(1, 2)),
            routing.probabilities.double().sum(dim=0)]


def _share(values: torch.Tensor) -> List[float]:
    total = float(values.sum())
    return [float(value) / total if total > 0 else 1 / len(values) for value in values]


def checked(reference: Mapping[str, Any], experts: Mapping[str, int]) -> Dict[str, Dict[str, Any]]:
    """What a caller says, as config.json has it."""
    require(isinstance(reference, Mapping), "routing_reference", f"{reference!r} is no dict by MoE layer")
    for name, entry in reference.items():
        require(name in experts, "routing_reference", f"{name!r} is not a MoE layer; there are {sorted(experts)}")
        unknown = set(entry) - {*LISTS, "rows"}
        require(not unknown, "routing_reference", f"{name} has unknown keys {sorted(unknown)}; there are "
                                                  f"{', '.join(LISTS)} and rows")
        for key in ("share", "rows"):
            require(key in entry, "routing_reference", f"{name} has no {key}")
        for key in LISTS:
            require(len(entry.get(key, "e" * experts[name])) == experts[name], "routing_reference",
                    f"{name} has {counted(experts[name], 'expert')}, but "
                    f"{counted(len(entry.get(key, '')), 'number')} of {key}")
            values = [float(value) for value in entry.get(key, [1])]
            require(min(values) >= 0 and 0 < sum(values) < math.inf, "routing_reference",
                    f"{name}: {key} has a number that is negative or not finite, or all are 0")
        require(int(entry["rows"]) == entry["rows"] > 0, "routing_reference", f"{name}: {entry['rows']} rows")
    return {name: {**{key: [float(value) for value in entry[key]] for key in LISTS if key in entry},
                   "rows": int(entry["rows"])} for name, entry in reference.items()}
