"""What the package's loader refuses is what the C engine refuses: damaged configs of every op, and damaged files.

    python3 -m tests.test_refused_alike [--count N]     in clients/python; tries all, or N spread over them
"""

import argparse
import copy
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import torch

from moed import ops, rules, rules_moe, safetensors
from moed.loader import LoadError, build, load
from tests import ENGINE
from tests.whole_configs import CASES

AT_ONCE = 2000  # models of a repository
IN_TESTS = 1500  # of some 44,000
WRONG = (None, True, "wrong", "", -1, 0, 1, 2, 3, 1000, 2 ** 40, 0.5, -0.5, 1e39, [], {}, [0], [1], [1, 2], ["a"],
         [[1]], [{"op": "relu"}], {"a": 1}, "last", "same", "input", "none")


def paths(value, path=()):
    """Of every value inside a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


def parent(config, path):
    for key in path[:-1]:
        config = config[key]
    return config


def put(value, owner, key):
    owner[key] = value


def add(extra, owner, key):
    owner[key][extra] = 1


def repeat(owner, key):
    owner[key] += copy.deepcopy(owner[key][-1:])


def damaged(config):
    """(what was done, config) of every key left out, every key of another kind, one key more, and an older format."""
    def change(what, path, edit):
        changed = copy.deepcopy(config)
        edit(parent(changed, path), path[-1])
        return f"{what} {'.'.join(map(str, path))}", changed

    for path in paths(config):
        yield change("without", path, dict.pop if isinstance(parent(config, path), dict) else list.pop)
        value = parent(config, path)[path[-1]]
        for wrong in WRONG:
            if wrong != value or isinstance(wrong, bool) != isinstance(value, bool):
                yield change(f"{json.dumps(wrong)} as", path, functools.partial(put, wrong))
        if isinstance(value, dict):
            for extra in ("misspelt", "weight", "of", "eps", "input", "result", "length", "name", "axis"):
                if extra not in value:
                    yield change(f"one {extra} more in", path, functools.partial(add, extra))
        if isinstance(value, list):
            yield change("more at the end of", path, repeat)
    for version in (1, 2, 3):
        yield f"format {version}", {**config, "format_version": version}


def misshapen(tensors):
    """(what was done, tensors) of every tensor left out, of another shape, and one more."""
    for name, shape in tensors.items():
        rest = {other: size for other, size in tensors.items() if other != name}
        yield f"without {name}", rest
        for changed in ([size + 1 for size in shape], shape[:-1], [*shape, 1], [1, *shape], shape[::-1],
                        [1] * len(shape), [1], [2], [3], [*shape[:-1], shape[-1] + 1]):
            if changed != shape:
                yield f"{name} as {changed}", {**rest, name: changed}
        for suffix in ("x", "bias", "weight"):
            other = name.rpartition(".")[0] + "." + suffix
            if other not in tensors:
                yield f"with {other}", {**tensors, other: shape}


def attempts():
    for name, (config, tensors) in CASES.items():
        yield f"{name}: as it is", config, tensors
        for what, changed in damaged(config):
            yield f"{name}: {what}", changed, tensors
        for what, changed in misshapen(tensors):
            yield f"{name}: {what}", config, changed


def write(directory, config, tensors):
    os.makedirs(directory)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    safetensors.write(os.path.join(directory, "model.safetensors"),
                      {name: np.full(shape, 0.5, "f4") for name, shape in tensors.items()})


def by_package(config, tensors):
    """Why it is refused, or "". What is not refused has to run."""
    try:
        model = build(copy.deepcopy(config), {name: torch.full(tuple(shape), 0.5) for name, shape in tensors.items()},
                      "model")
    except LoadError as error:
        return str(error)
    with torch.no_grad():
        model({name: torch.zeros(1, *entry.shape) for name, entry in zip(model.input_names, model.inputs)})
    return ""


def by_engine(repository):
    """{model: why it is refused}"""
    done = subprocess.run([ENGINE, "inspect", "--check", "--json", repository], capture_output=True, text=True)
    refused = dict(re.findall(rf"^moed: {re.escape(repository)}/([\w-]+)[/:] ?(.*)$", done.stderr, re.M))
    taken = len(done.stdout.splitlines())
    assert len(refused) + taken == len(os.listdir(repository)), done.stderr[-2000:]
    return refused


def differences(tried):
    """What only one of both refuses, of (what was done, config, tensors)."""
    found = []
    with tempfile.TemporaryDirectory() as repository:
        for index, (_, config, tensors) in enumerate(tried):
            write(os.path.join(repository, str(index)), config, tensors)
        refused = by_engine(repository)
    for index, (what, config, tensors) in enumerate(tried):
        engine = refused.get(str(index), "")
        try:
            package = by_package(config, tensors)
        except Exception as error:  # nothing but LoadError is an answer
            found.append(f"{what}: package fails: {type(error).__name__}: {error}; engine: {engine or 'takes it'}")
            continue
        if bool(package) != bool(engine):
            found.append(f"{what}: package {package or 'takes it'}; engine {engine or 'takes it'}")
    return found


# ---- files ----

LAYER = {"op": "linear", "name": "a"}
CONFIG = json.dumps({"model_type": "moed", "format_version": 1, "input": {"shape": [2]}, "layers": [LAYER]})
HEADER = {"a.weight": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}}
NUMBERS = np.arange(6, dtype="f4").tobytes()


def stored(header, data=NUMBERS):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def with_entry(**changes):
    return stored({"a.weight": {**HEADER["a.weight"], **changes}})


COUNTER = {"dtype": "I64", "shape": [1], "data_offsets": [24, 32]}
INDEX = {"a.weight": "one.safetensors"}
# {what: {file: its bytes}}; config.json and model.safetensors are the good ones where nothing else is said
FILES = {
    "good": {},
    "a key twice": {"config.json": CONFIG.replace('{"model', '{"description": "", "description": "", "model')},
    "NaN": {"config.json": CONFIG.replace("[2]", "[2], \"preprocess\": {\"scale\": NaN}")},
    "half a character": {"config.json": CONFIG.replace('{"model', '{"description": "\\ud800", "model')},
    "a NUL": {"config.json": CONFIG.replace('{"model', '{"description": "\\u0000", "model')},
    "a large integer": {"config.json": CONFIG.replace("[2]", "[99999999999999999999]")},
    "no object": {"config.json": "[]"}, "no JSON": {"config.json": "{"}, "no UTF-8": {"config.json": b'{"\xff": 1}'},
    "deep": {"config.json": "[" * 100000}, "empty config": {"config.json": b""},
    "a byte too many": {"model.safetensors": stored(HEADER, NUMBERS + b"\0")},
    "a byte too few": {"model.safetensors": stored(HEADER, NUMBERS[:-1])},
    "a hole": {"model.safetensors": stored({"a.weight": {**HEADER["a.weight"], "data_offsets": [4, 28]}},
                                           b"\0" * 4 + NUMBERS)},
    "overlapping": {"model.safetensors": stored(
        {**HEADER, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})},
    "a counter of batches": {"model.safetensors": stored({**HEADER, "a.num_batches_tracked": COUNTER},
                                                         NUMBERS + b"\0" * 8)},
    "another integer": {"model.safetensors": stored({**HEADER, "a.count": COUNTER}, NUMBERS + b"\0" * 8)},
    "no number": {"model.safetensors": stored(HEADER, np.full(6, np.nan, "f4").tobytes())},
    "infinite": {"model.safetensors": stored(HEADER, np.full(6, np.inf, "f4").tobytes())},
    "no sizes": {"model.safetensors": with_entry(shape=[])}, "size 0": {"model.safetensors": with_entry(shape=[0, 2])},
    "a size of 2.0": {"model.safetensors": with_entry(shape=[3, 2.0])},
    "one key more": {"model.safetensors": with_entry(more=1)}, "F64": {"model.safetensors": with_entry(dtype="F64")},
    "no dtype": {"model.safetensors": with_entry(dtype=None)}, "backwards": {
        "model.safetensors": with_entry(data_offsets=[24, 0])},
    "three offsets": {"model.safetensors": with_entry(data_offsets=[0, 24, 24])},
    "metadata": {"model.safetensors": stored({"__metadata__": {"format": "pt"}, **HEADER})},
    "metadata of numbers": {"model.safetensors": stored({"__metadata__": {"format": 1}, **HEADER})},
    "a tensor twice": {"model.safetensors": stored(json.dumps(HEADER)[:-1].encode() + b", "
                                                   + json.dumps(HEADER)[1:].encode())},
    "a header too long": {"model.safetensors": (1 << 40).to_bytes(8, "little") + b"{}"}, "no header": {
        "model.safetensors": b""},
    "an index": {"model.safetensors": None, "one.safetensors": stored(HEADER),
                 "model.safetensors.index.json": json.dumps({"weight_map": INDEX})},
    "an index that lists more": {"model.safetensors": None, "one.safetensors": stored(HEADER),
                                 "model.safetensors.index.json": json.dumps({"weight_map": {
                                     **INDEX, "b": "one.safetensors"}})},
    "an index that lists less": {"model.safetensors": None, "one.safetensors": stored(HEADER),
                                 "model.safetensors.index.json": json.dumps({"weight_map": {}})},
    "an index beside a file": {"one.safetensors": stored(HEADER),
                               "model.safetensors.index.json": json.dumps({"weight_map": INDEX})},
    "an index out of the directory": {"model.safetensors": None, "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a.weight": "../good/model.safetensors"}})},
    "an index of nothing": {"model.safetensors.index.json": "{}"},
}


def write_files(repository):
    for index, files in enumerate(FILES.values()):
        directory = os.path.join(repository, f"file-{index}")
        os.mkdir(directory)
        for name, content in {"config.json": CONFIG, "model.safetensors": stored(HEADER), **files}.items():
            if content is not None:
                with open(os.path.join(directory, name), "wb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)


@unittest.skipIf(ENGINE is None, "no moed")
class RefusedAlikeTest(unittest.TestCase):
    def test_whole_configs_are_taken(self):
        for name, (config, tensors) in CASES.items():
            with self.subTest(name):
                self.assertEqual(by_package(config, tensors), "")
        self.assertEqual(differences([(name, *case) for name, case in CASES.items()]), [])

    def test_every_op_is_among_them(self):
        written = json.dumps([config for config, _ in CASES.values()])
        for op in (*rules.RULES, *rules_moe.CONTAINERS):
            self.assertIn(f'"op": "{op}"', written)
        self.assertEqual(set(rules.RULES), set(ops.OPS))

    def test_damaged_configs(self):
        tried = list(attempts())
        self.assertEqual(differences(tried[::len(tried) // IN_TESTS]), [])

    def test_damaged_files(self):
        with tempfile.TemporaryDirectory() as repository:
            write_files(repository)
            refused = by_engine(repository)
            for index, what in enumerate(FILES):
                with self.subTest(what):
                    directory = os.path.join(repository, f"file-{index}")
                    engine = refused.get(f"file-{index}", "")
                    self.assertEqual(bool(engine), what not in ("good", "a counter of batches", "metadata", "an index"))
                    if engine:
                        self.assertRaises(ValueError, load, directory)
                    else:
                        load(directory)


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.test_refused_alike")
    parser.add_argument("--count", type=int, default=0)
    tried, found = list(attempts()), 0
    count = parser.parse_args().count or len(tried)
    tried = tried[::max(len(tried) // count, 1)]
    for begin in range(0, len(tried), AT_ONCE):
        for difference in differences(tried[begin:begin + AT_ONCE]):
            found += 1
            print(difference, flush=True)
    print(f"{len(tried)} damaged configs, {found} differences")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
