"""What a large checkpoint costs to serve: a synthetic MoE model of 2 GB in F32 and in BF16, from the start of the
process until it is ready, beside reading the same file once and writing as much new memory once, which no start can do
without; and the memory the server holds then.
"""

import contextlib
import os
import tempfile
import time
import urllib.request

import numpy as np

from bench import all_cpus, figure, spread, summary, table
from bench_http import start_moed
from bench_moe import write_config
from moed import safetensors

D, FF, EXPERTS, TOP_K = 1024, 2048, 128, 2
QUICK_EXPERTS = 8
PIECE = 1 << 22


def write_model(directory, experts, dtype):
    """Bytes of the weights. The numbers are the same for every expert: nothing here looks at them."""
    os.mkdir(directory)
    write_config(directory, D, experts, TOP_K)
    random = np.random.default_rng(1)

    def matrix(n, k):
        return random.standard_normal((n, k), dtype=np.float32) * np.float32(k ** -0.5)

    fc1, fc2 = matrix(FF, D), matrix(D, FF)
    tensors = {"moe.gate.out.weight": matrix(experts, D)}
    for i in range(experts):
        tensors[f"moe.experts.{i}.fc1.weight"], tensors[f"moe.experts.{i}.fc2.weight"] = fc1, fc2
    path = os.path.join(directory, "model.safetensors")
    safetensors.write(path, tensors, dtype)
    return os.path.getsize(path)


def read_seconds(path):
    begin = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        while file.read(PIECE):
            pass
    return time.monotonic() - begin


def new_memory_seconds(size):
    """The host of a virtual machine may have to provide the memory first, which can take longer than all the rest."""
    begin = time.monotonic()
    np.empty(size, np.uint8).fill(1)
    return time.monotonic() - begin


def resident(pid):
    """Resident bytes: now, and at most so far."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return [1024 * int(fields[key].split()[0]) for key in ("VmRSS", "VmHWM")]


def start(models):
    """One start: seconds until the server is ready, bytes resident then, at most."""
    with contextlib.ExitStack() as stack:
        begin = time.monotonic()
        server = start_moed(stack, all_cpus(), models)
        urllib.request.urlopen(f"{server.url}/v2/health/ready").close()
        return {"start_s": time.monotonic() - begin, **dict(zip(("rss", "peak_rss"), resident(server.process.pid)))}


def run(rounds, quick, _machine):
    points = []
    for dtype in ("F32", "BF16"):
        with tempfile.TemporaryDirectory() as models:
            directory = os.path.join(models, "large")
            size = write_model(directory, QUICK_EXPERTS if quick else EXPERTS, dtype)
            path, values = os.path.join(directory, "model.safetensors"), []
            for _ in range(rounds):
                values.append({"read_s": read_seconds(path), "memory_s": new_memory_seconds(size), **start(models)})
            points.append({"dtype": dtype, "bytes": size,
                           **{key: summary([value[key] for value in values]) for key in values[0]}})
    return {"d": D, "ff": FF, "points": points}


def report(result):
    rows = [[point["dtype"], figure(point["bytes"] / 2 ** 20), spread(point["read_s"]), spread(point["memory_s"]), spread(point["start_s"]),
             figure(point["rss"]["median"] / 2 ** 20), figure(point["peak_rss"]["median"] / 2 ** 20),
             figure(point["rss"]["median"] / point["bytes"])] for point in result["points"]]
    return f"""## Memory and start

A synthetic MoE model, d = {result['d']}, ff = {result['ff']}; the file is in the page cache. "read" is reading it once,
"memory" writing as much new memory once; "start" lasts until the server is ready.

{table(["weights", "MiB", "read s", "memory s", "start s", "resident MiB", "at most MiB", "resident / weights"], rows)}"""
