"""Writes a checkpoint without some of its experts, and says what that changes.

    python -m moed.prune DIR --drop LAYER:EXPERT,... [--rows rows.npz] OUT

Nothing is trained or rescaled: the gate chooses among the experts that are left, as a server does that excludes the
others. Tensors keep their dtype and bytes. With rows (an array for each input, and `labels` if they are known) both
checkpoints answer them by the C engine, and the answers are compared.
"""

import argparse
import copy
import json
import os
import re
import shutil
import sys
import tempfile
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

import numpy as np

from moed import engine, safetensors
from moed.safetensors import Stored
from moed.words import counted

LEAST_PROBABILITY = 1e-15


class PruneError(ValueError):
    """What cannot be dropped, and why."""


Tensors = Dict[str, Stored]


def without(tensor: Stored, rows: Set[int]) -> Stored:
    """Without these entries of the first axis."""
    parts = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape[0], -1)
    kept = [i for i in range(tensor.shape[0]) if i not in rows]
    return Stored(tensor.dtype, (len(kept), *tensor.shape[1:]), parts[kept].tobytes())


# ---- files ----


def read(directory: str) -> Tuple[Dict[str, Any], Tensors]:
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if config.get("model_type") != "moed":
        raise PruneError(f"{directory}: is no checkpoint of moed's own format")
    tensors: Tensors = {}
    for path in safetensors.files(directory):
        tensors.update(safetensors.read_stored(path))
    return config, tensors


def write(directory: str, config: Dict[str, Any], tensors: Tensors) -> None:
    """Into a new directory, which appears when it is complete, for whom the umask says."""
    if os.path.lexists(directory):
        raise PruneError(f"{directory}: exists; it is left alone")
    parent = os.path.dirname(os.path.abspath(directory))
    os.makedirs(parent, exist_ok=True)
    staging = tempfile.mkdtemp(prefix=".prune-", dir=parent)
    staged = os.path.join(staging, "checkpoint")
    try:
        os.mkdir(staged)
        safetensors.write_stored(os.path.join(staged, "model.safetensors"), tensors)
        with open(os.path.join(staged, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file, ensure_ascii=False, indent=1)
            file.write("\n")
        os.rename(staged, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# ---- pruning ----


def _index(text: str) -> Optional[int]:
    """An expert's number as tensors' names have it. int() also takes "1_0", " 1", "+1" and other scripts' digits."""
    return int(text) if re.fullmatch("0|[1-9][0-9]{0,8}", text) else None


def moe_layers(layers: List[Dict[str, Any]]) -> Iterator[Dict[str, Any]]:
    for layer in layers:
        if layer["op"] == "moe":
            yield layer
        elif "layers" in layer:
            yield from moe_layers(layer["layers"])


def _require(condition: bool, where: str, text: str) -> None:
    if not condition:
        raise PruneError(f"{where}: {text}")


def _prune_groups(gate: Dict[str, Any], dropped: Set[int], count: int, where: str) -> None:
    groups = gate["groups"]
    size = count // groups["count"]
    gone = [group for group in range(groups["count"]) if set(range(group * size, (group + 1) * size)) <= dropped]
    _require(len(gone) * size == len(dropped), where, f"its experts form groups of {size}: drop whole ones")
    groups["count"] -= len(gone)
    _require(groups["count"] >= groups["keep"], where,
             f"{groups['count']} groups are left, and it keeps {groups['keep']}")


def _prune_logits(gate: Dict[str, Any], dropped: Set[int], prefix: str, tensors: Tensors, where: str) -> None:
    """The rows of the last matrix; an attentive gate has none."""
    if gate.get("kind") == "attentive":
        return
    last = gate["layers"][-1]
    _require(last["op"] == "linear", where,
             f"ends in '{last['op']}', and only a linear layer has a row for each expert")
    for name in (f"{prefix}.{last['name']}.weight", f"{prefix}.{last['name']}.bias"):
        if name in tensors:
            tensors[name] = without(tensors[name], dropped)


def _prune_gate(gate: Dict[str, Any], dropped: Set[int], count: int, prefix: str, tensors: Tensors, where: str) -> None:
    """dropped: the gate's own indices, of `count`."""
    left, top_k = count - len(dropped), gate.get("top_k")
    _require(left > 0, where, "no expert is left")
    if top_k == count and gate.get("score") != "sparsemixer":
        gate["top_k"] = top_k = left  # it uses all of them
    _require(top_k is None or top_k <= left, where, f"{left} experts are left, fewer than top_k {top_k}")
    if "groups" in gate and dropped:
        _prune_groups(gate, dropped, count, where)
    _prune_logits(gate, dropped, prefix, tensors, where)
    for name in (f"{prefix}.select_bias", f"{prefix}.expert_scale"):
        if name in tensors:
            tensors[name] = without(tensors[name], dropped)
    if "factor" in gate.get("capacity", {}):
        gate["capacity"]["factor"] *= left / count  # each of the others takes as many as before


def _prune_reference(config: Dict[str, Any], name: str, dropped: Set[int]) -> None:
    reference = config.get("routing_reference", {}).get(name, {})
    for key, values in list(reference.items()):
        if isinstance(values, list):
            reference[key] = [value for i, value in enumerate(values) if i not in dropped]
            if not any(reference[key]):
                del config["routing_reference"][name]
                return


def _prune_gates(config: Dict[str, Any], layer: Dict[str, Any], dropped: Set[int], tensors: Tensors) -> None:
    name, count = layer["name"], layer["experts"]["count"]
    kept = [i for i in range(count) if i not in dropped]
    for gate in layer.get("gates") or [layer["gate"]]:
        own = gate.get("experts", list(range(count)))
        gone = {i for i, expert in enumerate(own) if expert in dropped}
        full = f"{name}.{gate['name']}" if "gates" in layer else name
        prefix = f"{name}.gates.{gate['name']}" if "gates" in layer else f"{name}.gate"
        _prune_gate(gate, gone, len(own), prefix, tensors, f"gate '{full}'")
        _prune_reference(config, full, gone)
        if "experts" in gate:
            gate["experts"] = [kept.index(expert) for expert in own if expert not in dropped]


def _prune_layer(config: Dict[str, Any], layer: Dict[str, Any], dropped: Set[int], tensors: Tensors) -> None:
    experts, name = layer["experts"], layer["name"]
    count = experts["count"]
    unknown = sorted(expert for expert in dropped if expert >= count)
    _require(not unknown, f"layer '{name}'", f"has no expert {unknown[:1]}, but {count} experts")
    _prune_gates(config, layer, dropped, tensors)
    if "identity" in experts:
        experts["identity"] -= sum(expert >= count - experts["identity"] for expert in dropped)
        _require(experts["identity"] < count - len(dropped), f"layer '{name}'", "only identity experts are left")
        if experts["identity"] == 0:
            del experts["identity"]
    if "inputs" in experts:
        experts["inputs"] = [entry for i, entry in enumerate(experts["inputs"]) if i not in dropped]
    experts["count"] = count - len(dropped)
    number = {expert: str(i) for i, expert in enumerate(i for i in range(count) if i not in dropped)}
    prefix = f"{name}.experts."
    for tensor in [key for key in tensors if key.startswith(prefix)]:
        expert, _, rest = tensor[len(prefix):].partition(".")
        values = tensors.pop(tensor)
        index = _index(expert)
        if index is None or index >= count:
            raise PruneError(f"tensor '{tensor}': '{expert}' is none of the layer's {count} experts")
        if index in number:
            tensors[f"{prefix}{number[index]}.{rest}"] = values


def prune(config: Dict[str, Any], tensors: Tensors, drops: Dict[str, Set[int]]) -> Tuple[Dict[str, Any], Tensors]:
    """Config and tensors without drops[layer]; the arguments stay as they are. PruneError if that is not a model."""
    config, tensors = copy.deepcopy(config), dict(tensors)
    layers = {layer["name"]: layer for layer in moe_layers(config["layers"])}
    for name, dropped in drops.items():
        _require(name in layers, f"'{name}'",
                 f"the model has no such MoE layer, but {', '.join(sorted(layers)) or 'none'}")
        _prune_layer(config, layers[name], dropped, tensors)
    return config, tensors


# ---- what it changes ----


def _numbers(tensors: Tensors) -> int:
    return sum(int(np.prod(tensor.shape)) for tensor in tensors.values())


def _class_output(answers: Dict[str, np.ndarray]) -> Optional[str]:
    return next((name for name, values in answers.items()
                 if not name.startswith("routing.") and values.ndim == 2 and values.shape[1] > 1), None)


def _quality(scores: np.ndarray, labels: np.ndarray) -> str:
    p = scores.astype(np.float64)
    if (p < 0).any() or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        p = np.exp(p - p.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(np.maximum(p[np.arange(len(labels)), labels], LEAST_PROBABILITY)).mean()
    return f"accuracy {(scores.argmax(axis=1) == labels).mean():.4f}, log loss {loss:.4f}"


def _answers(binary: str, directory: str, rows: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """In parts that any server takes."""
    with tempfile.TemporaryDirectory() as models:
        os.symlink(os.path.abspath(directory), os.path.join(models, "model"))
        with engine.Engine(binary, models) as served:
            count, parts = len(next(iter(rows.values()))), []
            for first in range(0, count, 64):
                parts.append(served.answers("model", {name: values[first:first + 64] for name, values in rows.items()}))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compare(before: str, after: str, rows: Dict[str, np.ndarray]) -> List[str]:
    """Lines about what two checkpoints answer to the same rows."""
    binary = engine.find()
    if not binary:
        raise PruneError("rows: no moed program is found to answer them; MOED_BINARY names one")
    rows = dict(rows)
    labels = rows.pop("labels", None)
    old, new = _answers(binary, before, rows), _answers(binary, after, rows)
    lines = []
    for name, values in old.items():
        if not name.startswith("routing."):
            lines.append(f"output '{name}': largest difference {np.abs(values - new[name]).max():.4g}")
    output = _class_output(old)
    if output:
        changed = (old[output].argmax(axis=1) != new[output].argmax(axis=1)).mean()
        lines.append(f"output '{output}': {changed:.2%} of {counted(len(old[output]), 'row')} answered otherwise")
        if labels is not None:
            lines.append(f"before: {_quality(old[output], labels)}")
            lines.append(f"after:  {_quality(new[output], labels)}")
    return lines


# ---- the command ----


def read_drops(text: str) -> Dict[str, Set[int]]:
    """LAYER:EXPERT,LAYER:EXPERT,..."""
    drops: Dict[str, Set[int]] = {}
    for part in text.split(","):
        layer, colon, expert = part.rpartition(":")
        index = _index(expert)
        if not (colon and layer) or index is None:
            raise PruneError(f"--drop '{part}': expected LAYER:EXPERT")
        drops.setdefault(layer, set()).add(index)
    return drops


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m moed.prune", description=__doc__.splitlines()[0])
    parser.add_argument("directory", metavar="DIR", help="the checkpoint")
    parser.add_argument("output", metavar="OUT", help="a new directory")
    parser.add_argument("--drop", required=True, metavar="LAYER:EXPERT,...", help="experts by the layer's index")
    parser.add_argument("--rows", metavar="FILE", help="an .npz to compare answers on: inputs, and labels if known")
    options = parser.parse_args(arguments)
    try:
        drops = read_drops(options.drop)
        config, tensors = read(options.directory)
        pruned, kept = prune(config, tensors, drops)
        write(options.output, pruned, kept)
        for name, dropped in drops.items():
            print(f"{name}: without {', '.join(map(str, sorted(dropped)))}")
        print(f"{_numbers(tensors)} numbers before, {_numbers(kept)} after")
        if options.rows:
            with np.load(options.rows) as rows:
                print("\n".join(compare(options.directory, options.output, dict(rows))))
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PruneError, engine.EngineError, OSError, ValueError, KeyError, RecursionError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
