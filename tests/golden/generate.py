"""Writes cases/: a checkpoint, its input, and the results of the reference, per case.

    cases/<case>/config.json, model.safetensors      or model.safetensors.index.json and its shards
                 input.f32                           [rows, input shape]
                 output.f32                          [rows, output shape]
                 input.<name>.f32, output.<name>.f32      of each, where there are several
                 requests.i32                        rows of each request, where it matters
                 routing.<gate>.experts.i32          [items, k] best first, -1 where dropped
                 routing.<gate>.weights.f32          [items, k]
                 routing.<gate>.sums.f64             selected[E], top1[E], weight_sum[E],
                                                     probability_sum[E], entropy_sum (bits)

<gate> is the MoE layer's name, or "<layer>.<gate's name>" where it has several.

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

import cases_attention  # noqa: F401
import cases_capacity  # noqa: F401 -- these fill CASES
import cases_functions  # noqa: F401
import cases_gates  # noqa: F401
import cases_graphs  # noqa: F401
import cases_layers  # noqa: F401
import cases_lengths  # noqa: F401
import cases_models  # noqa: F401
import cases_positions  # noqa: F401
import cases_routers  # noqa: F401
import cases_tasks  # noqa: F401
import reference
from recipes import CASES

CASES_DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")

# Float32 might rank scores closer than this in the other order.
MIN_GAP = 1e-3
# If scores of both signs nearly cancel, their sum makes weights of any size, with any error.
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
    """Drawn numbers rounded to dtype, as float64: exactly what the file will hold."""
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


def split_gate(gate, prefix, draw):
    gate = dict(gate)
    for suffix, recipe in gate.pop("tensors", {}).items():
        draw(prefix + suffix, recipe)
    gate["layers"] = split_layers(gate["layers"], prefix, draw)
    return gate


def split_moe(layer, name, draw):
    experts = dict(layer["experts"])
    if "gates" in layer:
        layer["gates"] = [split_gate(g, f"{name}.gates.{g['name']}.", draw) for g in layer["gates"]]
    else:
        layer["gate"] = split_gate(layer["gate"], f"{name}.gate.", draw)
    for e in range(experts["count"] - experts.get("identity", 0)):
        inner = split_layers(layer["experts"]["layers"], f"{name}.experts.{e}.", draw)
    experts["layers"] = inner
    layer["experts"] = experts
    if "shared" in layer:
        layer["shared"] = split_shared(layer["shared"], name, draw)


def split_shared(shared, name, draw):
    shared = dict(shared)
    for suffix, recipe in shared.pop("tensors").items():
        draw(f"{name}.{suffix}", recipe)
    shared["layers"] = split_layers(shared["layers"], f"{name}.shared.", draw)
    return shared


def split_part(part, draw):
    """An entry of inputs or outputs, whose layers may be absent."""
    layers = part.get("layers")
    return {**part, "layers": split_layers(layers, "", draw)} if layers else part


def input_entry(name, shape, **options):
    return {"name": name, "shape": shape, **{key: o for key, o in options.items() if o}}


def draw_config(case, draw):
    config = {"model_type": "moed", "format_version": case.version}
    if case.sources is None:
        config["input"] = input_entry("x", case.shape, preprocess=case.preprocess)
    else:
        config["inputs"] = [split_part(input_entry(**vars(s)), draw) for s in case.sources]
    config["layers"] = split_layers(case.layers, "", draw)
    if case.outputs:
        config["outputs"] = [split_part(output, draw) for output in case.outputs]
    config.update(case.config)
    return config


def draw_case(case, attempt):
    """config, tensors (float64, representable in their dtype) and inputs of one attempt."""
    random = np.random.RandomState(zlib.crc32(f"{case.name} {attempt}".encode()))
    tensors = {}

    def draw(name, recipe):
        tensors[name] = representable(recipe(random), case.dtype(name))

    config = draw_config(case, draw)
    if case.sources is None:
        draws = [lambda: case.inputs(random, case.shape)]
    else:
        draws = [lambda source=source: source.draw(random) for source in case.sources]
    inputs = [np.stack([row() for _ in range(case.rows)]).astype(np.float32) for row in draws]
    return config, tensors, inputs


def is_decided(case, config, outputs, routing):
    """Whether float32 must make the same choices as float64, and give nearly the same numbers."""
    gates = dict(gates_of(config["layers"]))
    for name, gate in routing.items():
        if not np.all((gate.margins > MIN_GAP) | (case.ties & (gate.margins == 0))):
            return False
        shared = gates[name].get("normalize") in ("sum", "lp")
        if shared and np.abs(gate.weights).max() > MAX_SHARED_WEIGHT:
            return False
    if case.shows and not case.shows(routing):
        return False
    return all(np.all(np.isfinite(output)) for output in outputs)


def gates_of(layers):
    """Every gate by the name of its routing."""
    for layer in layers:
        if "gate" in layer:
            yield layer["name"], layer["gate"]
        for gate in layer.get("gates", []):
            yield f"{layer['name']}.{gate['name']}", gate
        yield from gates_of(layer.get("layers", []))


# --- writing it -----------------------------------------------------------------------------------


def write_safetensors(path, tensors, case):
    """Entries in the order of the model; data in reverse order if the case says so."""
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


def write_numbers(directory, name, values, dtype):
    np.asarray(values).astype(dtype).tofile(os.path.join(directory, name))


def write_tensors(directory, kind, entries, values):
    """input.f32; of several, input.<name>.f32 each."""
    for entry, each in zip(entries, values, strict=True):
        name = f"{kind}.{entry['name']}.f32" if len(values) > 1 else f"{kind}.f32"
        write_numbers(directory, name, each, "<f4")


def write_routing(directory, routing):
    for name, gate in routing.items():
        sums = [gate.selected, gate.top1, gate.weight_sum, gate.probability_sum]
        sums = np.concatenate(sums + [[gate.entropy_sum]])
        write_numbers(directory, f"routing.{name}.experts.i32", gate.experts, "<i4")
        write_numbers(directory, f"routing.{name}.weights.f32", gate.weights, "<f4")
        write_numbers(directory, f"routing.{name}.sums.f64", sums.astype(np.float32), "<f8")


def write_case(directory, case):
    for attempt in range(MAX_ATTEMPTS):
        config, tensors, inputs = draw_case(case, attempt)
        outputs, routing = reference.run(config, tensors, inputs, case.requests)
        if is_decided(case, config, outputs, routing):
            break
    else:
        sys.exit(f"{case.name}: no attempt of {MAX_ATTEMPTS} was decided")
    os.makedirs(directory)
    write_checkpoint(directory, case, config, tensors)
    write_tensors(directory, "input", config.get("inputs", [{}]), inputs)
    write_tensors(directory, "output", config.get("outputs", [{}]), outputs)
    write_routing(directory, routing)
    if case.requests:
        write_numbers(directory, "requests.i32", case.requests, "<i4")
    check_written(directory, case, config, tensors)
    return attempt


def check_written(directory, case, config, tensors):
    """Checks that the files hold the drawn numbers, from which the results were computed."""
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
