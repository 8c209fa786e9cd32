"""Writes cases/: a checkpoint, its input, and what the reference makes of it, per case.

    cases/<case>/config.json, model.safetensors      or model.safetensors.index.json and its shards
                 input.f32                           [rows, input shape]
                 output.f32                          [rows, output shape]
                 routing.<layer>.experts.i32         [rows, k] best first
                 routing.<layer>.weights.f32         [rows, k]
                 routing.<layer>.sums.f64            selected[E], top1[E], weight_sum[E],
                                                     probability_sum[E], entropy_sum (bits)

Raw, little-endian. The bytes depend on nothing but the cases: numpy's frozen RandomState draws
every number, by integer arithmetic alone, and results are stored rounded to float32, so that
another libm's last bits do not show.

    generate.py            write them all
    generate.py --check    write them to a temporary directory and compare with what is there
"""

import filecmp
import json
import os
import shutil
import sys
import tempfile
import zlib

import numpy as np

import cases_gates  # noqa: F401 -- the three fill CASES
import cases_layers  # noqa: F401
import cases_models  # noqa: F401
import reference
from recipes import CASES

CASES_DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")

# Scores nearer than this might be ranked the other way round by float32.
MIN_GAP = 1e-3
# A sum of scores of both signs that nearly cancels makes weights of any size, and of any error.
MAX_SHARED_WEIGHT = 10
MAX_ATTEMPTS = 20000


# --- drawing a case -------------------------------------------------------------------------------


def to_dtype(values, dtype):
    """The bytes of float32 values in dtype; BF16 by truncation."""
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def representable(values, dtype):
    """What dtype keeps of drawn numbers, as float64: exactly what the file will hold."""
    values = np.asarray(values, np.float32)
    return reference.decode(to_dtype(values, dtype), dtype).reshape(values.shape)


def split_layers(layers, prefix, draw):
    """config.json's form of layers; their tensors go to draw(name, recipe)."""
    plain = []
    for layer in layers:
        layer = dict(layer)
        name = prefix + layer.get("name", "")
        for suffix, recipe in layer.pop("tensors", {}).items():
            draw(f"{name}.{suffix}", recipe)
        if layer["op"] == "residual":
            layer["layers"] = split_layers(layer["layers"], prefix, draw)
        if layer["op"] == "moe":
            split_moe(layer, name, draw)
        plain.append(layer)
    return plain


def split_moe(layer, name, draw):
    gate, experts = dict(layer["gate"]), dict(layer["experts"])
    for suffix, recipe in gate.pop("tensors", {}).items():
        draw(f"{name}.gate.{suffix}", recipe)
    gate["layers"] = split_layers(gate["layers"], f"{name}.gate.", draw)
    for e in range(experts["count"]):
        inner = split_layers(layer["experts"]["layers"], f"{name}.experts.{e}.", draw)
    experts["layers"] = inner
    layer["gate"], layer["experts"] = gate, experts


def draw_case(case, attempt):
    """config, tensors (float64, representable in their dtype) and input of one attempt."""
    random = np.random.RandomState(zlib.crc32(f"{case.name} {attempt}".encode()))
    tensors = {}

    def draw(name, recipe):
        tensors[name] = representable(recipe(random), case.dtype(name))

    config = {"model_type": "moed", "format_version": 1}
    config["input"] = {"name": "x", "shape": case.shape}
    if case.preprocess:
        config["input"]["preprocess"] = case.preprocess
    config["layers"] = split_layers(case.layers, "", draw)
    config.update(case.config)
    inputs = np.stack([case.inputs(random, case.shape) for _ in range(case.rows)])
    return config, tensors, inputs.astype(np.float32)


def is_decided(case, config, outputs, routing):
    """Whether float32 must come to the same choices as float64, and to nearly the same numbers."""
    gates = {layer["name"]: layer["gate"] for layer in moe_layers(config["layers"])}
    for name, layer in routing.items():
        ranked = np.sort(layer.ranking, 1)[:, ::-1][:, : layer.experts.shape[1] + 1]
        gaps = ranked[:, :-1] - ranked[:, 1:]
        if not np.all((gaps > MIN_GAP) | (case.ties & (gaps == 0))):
            return False
        shared = gates[name].get("normalize") == "sum"
        if shared and np.abs(layer.weights).max() > MAX_SHARED_WEIGHT:
            return False
    return bool(np.all(np.isfinite(outputs)))


def moe_layers(layers):
    for layer in layers:
        if layer["op"] == "moe":
            yield layer
        yield from moe_layers(layer.get("layers", []))


# --- writing it -----------------------------------------------------------------------------------


def write_safetensors(path, tensors, case):
    """Entries in the order of the model; the data the other way round if the case says so."""
    header = {"__metadata__": case.metadata} if case.metadata else {}
    stored = {name: to_dtype(values, case.dtype(name)) for name, values in tensors.items()}
    order = list(reversed(stored)) if case.reversed_data else list(stored)
    begins = dict(zip(order, np.cumsum([0] + [len(stored[name]) for name in order]).tolist()))
    for name, values in tensors.items():
        offsets = [begins[name], begins[name] + len(stored[name])]
        header[name] = {"dtype": case.dtype(name), "shape": values.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8 + case.misaligned_by)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(b"".join(stored[name] for name in order))


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)
        file.write("\n")


def write_checkpoint(directory, case, config, tensors):
    write_json(os.path.join(directory, "config.json"), config)
    if case.shards == 1:
        write_safetensors(os.path.join(directory, "model.safetensors"), tensors, case)
        return
    names, weight_map = list(tensors), {}
    for i in range(case.shards):
        shard = f"model-{i + 1:05}-of-{case.shards:05}.safetensors"
        mine = names[i :: case.shards]
        write_safetensors(os.path.join(directory, shard), {n: tensors[n] for n in mine}, case)
        weight_map.update(dict.fromkeys(mine, shard))
    index = {"metadata": {}, "weight_map": weight_map}
    write_json(os.path.join(directory, "model.safetensors.index.json"), index)


def write_expected(directory, outputs, routing):
    def write(name, values, dtype):
        np.asarray(values).astype(dtype).tofile(os.path.join(directory, name))

    write("output.f32", outputs, "<f4")
    for name, layer in routing.items():
        sums = [layer.selected, layer.top1, layer.weight_sum, layer.probability_sum]
        write(f"routing.{name}.experts.i32", layer.experts, "<i4")
        write(f"routing.{name}.weights.f32", layer.weights, "<f4")
        sums = np.concatenate(sums + [[layer.entropy_sum]])
        write(f"routing.{name}.sums.f64", sums.astype(np.float32), "<f8")


def write_case(directory, case):
    for attempt in range(MAX_ATTEMPTS):
        config, tensors, inputs = draw_case(case, attempt)
        outputs, routing = reference.run(config, tensors, inputs)
        if is_decided(case, config, outputs, routing):
            break
    else:
        sys.exit(f"{case.name}: no attempt of {MAX_ATTEMPTS} was decided")
    os.makedirs(directory)
    write_checkpoint(directory, case, config, tensors)
    inputs.astype("<f4").tofile(os.path.join(directory, "input.f32"))
    write_expected(directory, outputs, routing)
    check_written(directory, case, config, tensors)
    return attempt


def check_written(directory, case, config, tensors):
    """The files hold what was drawn, so what was computed is what they say."""
    read_config, read = reference.read_checkpoint(directory)
    assert read_config == json.loads(json.dumps(config)), case.name
    assert sorted(read) == sorted(tensors), case.name
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors), case.name


def write_all(root):
    shutil.rmtree(root, ignore_errors=True)
    for case in CASES:
        attempt = write_case(os.path.join(root, case.name), case)
        if "--verbose" in sys.argv:
            print(f"{case.name}: attempt {attempt}")


# --- comparing ------------------------------------------------------------------------------------


def files_below(root):
    return sorted(
        os.path.relpath(os.path.join(directory, name), root)
        for directory, _, names in os.walk(root)
        for name in names
    )


def check():
    with tempfile.TemporaryDirectory() as root:
        write_all(root)
        expected, found = files_below(root), files_below(CASES_DIRECTORY)
        wrong = sorted(set(expected) ^ set(found))
        for name in set(expected) & set(found):
            if not filecmp.cmp(f"{root}/{name}", f"{CASES_DIRECTORY}/{name}", shallow=False):
                wrong.append(name)
    for name in sorted(wrong):
        print(f"cases/{name} is not what generate.py writes")
    print(f"{len(CASES)} cases, {len(expected)} files, {len(wrong)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(check() if "--check" in sys.argv else write_all(CASES_DIRECTORY))
