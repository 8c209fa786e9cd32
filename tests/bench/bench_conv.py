"""Convolutions: the engine beside OpenBLAS (windows written out, then a product), oneDNN and PyTorch.

One convolution with bias, by itself, on one thread in CPU time. oneDNN keeps its own formats, as within a network.
"""

import json
import os
import tempfile

import numpy as np
import torch
from torch.nn import functional

from bench import figure, ratio, spread, summary, table
from bench_gemm import best_core
from bench_model import Engine, check, torch_microseconds
from moed import safetensors

# Name, shape of a row, filters, kernel, stride, padding; groups, if any.
SHAPES = (("Fashion-MNIST expert and gate", (1, 28, 28), 8, (3, 3), 1, 0),
          ("patches of the clusters", (1, 200), 16, (50,), 50, 0),
          ("CIFAR-10, first", (3, 32, 32), 16, (3, 3), 1, 1),
          ("CIFAR-10, second", (16, 16, 16), 32, (3, 3), 1, 1),
          ("CIFAR-10, third", (32, 8, 8), 64, (3, 3), 1, 1),
          ("64 channels", (64, 16, 16), 64, (3, 3), 1, 1),
          ("64 channels, stride 2", (64, 16, 16), 128, (3, 3), 2, 1))


def depthwise(network, channels, size, kernel, stride):
    name = f"{network}, {channels} channels of {size}x{size}, {kernel}x{kernel} / {stride}"
    return name, (channels, size, size), channels, (kernel, kernel), stride, kernel // 2, channels


# Those of MobileNetV2, for images of 32 x 32 and of 224 x 224; of kernels of 5 x 5, MobileNetV3's; of few channels.
DEPTHWISE = (*(depthwise("MobileNetV2, 32x32", *shape) for shape in (
    (32, 16, 3, 1), (96, 16, 3, 2), (144, 8, 3, 1), (144, 8, 3, 2), (192, 4, 3, 1), (192, 4, 3, 2), (384, 2, 3, 1),
    (576, 2, 3, 2))),
    *(depthwise("MobileNetV2, 224x224", *shape) for shape in (
        (32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 3, 1), (144, 56, 3, 2), (192, 28, 3, 1), (192, 28, 3, 2),
        (384, 14, 3, 1), (576, 14, 3, 1), (576, 14, 3, 2), (960, 7, 3, 1))),
    *(depthwise("MobileNetV3, 32x32", *shape) for shape in ((72, 8, 5, 2), (120, 4, 5, 1), (672, 2, 5, 1))),
    *(depthwise("MobileNetV3, 224x224", *shape) for shape in (
        (72, 56, 5, 2), (120, 28, 5, 1), (672, 14, 5, 2), (960, 7, 5, 1))),
    *(depthwise("few", *shape) for shape in (
        (2, 112, 3, 1), (4, 16, 3, 1), (4, 56, 3, 2), (7, 112, 3, 2), (4, 112, 5, 2))))
ROWS, QUICK_ROWS = (1, 8, 64), (8,)
INPUT_ROWS, LARGE_INPUT_ROWS, LARGE_ROW = 128, 64, 100_000
CONTENDERS = ("moed", "OpenBLAS", "OpenBLAS best", "oneDNN", "PyTorch")


def write(directory, shape, filters, kernel, stride, padding, groups=1):
    """The checkpoint and its inputs; returns what PyTorch is to run, and the inputs."""
    random = np.random.default_rng(1)
    channels = shape[0] // groups
    fan_in = channels * int(np.prod(kernel))
    weight = random.standard_normal((filters, channels, *kernel), dtype=np.float32) * np.float32(fan_in ** -0.5)
    bias = random.standard_normal(filters, dtype=np.float32)
    input_rows = LARGE_INPUT_ROWS if np.prod(shape) > LARGE_ROW else INPUT_ROWS
    inputs = random.standard_normal((input_rows, *shape), dtype=np.float32)
    config = {"model_type": "moed", "format_version": 1, "input": {"name": "x", "shape": shape},
              "layers": [{"op": f"conv{len(kernel)}d", "name": "conv", "stride": stride, "padding": padding,
                          "groups": groups}],
              "output": {"name": "y"}}
    with open(os.path.join(directory, "config.json"), "w", encoding="ascii") as file:
        json.dump(config, file)
    safetensors.write(os.path.join(directory, "model.safetensors"), {"conv.weight": weight, "conv.bias": bias})
    inputs.tofile(os.path.join(directory, "inputs"))
    convolve = functional.conv2d if len(kernel) == 2 else functional.conv1d
    tensors = torch.from_numpy(weight), torch.from_numpy(bias)
    return (lambda x: convolve(x, *tensors, stride=stride, padding=padding, groups=groups)), torch.from_numpy(inputs)


def compare(directory, forward, inputs, row_counts, rounds, core):
    """{rows: {contender: summary of microseconds}}; "best" is OpenBLAS told its core, a process of its own."""
    inputs_file = os.path.join(directory, "inputs")
    values = {rows: {} for rows in row_counts}
    with Engine(directory, inputs_file) as ours, Engine(directory, inputs_file, OPENBLAS_CORETYPE=core) as told:
        check("bench_conv", ours.outputs, forward(inputs).numpy())
        measure = {"moed": lambda rows: ours.microseconds("moed", rows),
                   "OpenBLAS": lambda rows: ours.microseconds("OpenBLAS", rows),
                   "OpenBLAS best": lambda rows: told.microseconds("OpenBLAS", rows),
                   "oneDNN": lambda rows: ours.microseconds("oneDNN", rows),
                   "PyTorch": lambda rows: torch_microseconds(forward, inputs, rows)}
        for _ in range(rounds):
            for rows in row_counts:
                for name in CONTENDERS:
                    measured = measure[name](rows)
                    if measured:
                        values[rows].setdefault(name, []).append(measured)
    return {rows: {name: summary(times) for name, times in of.items()} for rows, of in values.items()}


@torch.no_grad()
def measure(shapes, row_counts, rounds, machine):
    torch.set_num_threads(1)
    points, core = [], best_core(machine["instruction_sets"])
    for name, *shape in shapes:
        with tempfile.TemporaryDirectory() as directory:
            forward, inputs = write(directory, *shape)
            macs = forward(inputs[:1]).numel() * shape[0][0] // (shape[5:] or [1])[0] * int(np.prod(shape[2]))
            measured = compare(directory, forward, inputs, row_counts, rounds, core)
            points += [{"name": name, "shape": shape, "macs": macs, "rows": rows, "us": us}
                       for rows, us in measured.items()]
    return {"pytorch": torch.__version__, "points": points}


def run(rounds, quick, machine):
    return measure(SHAPES[2:4] if quick else SHAPES, QUICK_ROWS if quick else ROWS, rounds, machine)


def run_depthwise(rounds, quick, machine):
    return measure(DEPTHWISE[::4] if quick else DEPTHWISE, QUICK_ROWS if quick else ROWS, rounds, machine)


def times(sizes):
    return "x".join(map(str, sizes))


def table_of(result):
    names = [name for name in CONTENDERS if name in result["points"][0]["us"]]
    rows = []
    for point in result["points"]:
        shape, filters, kernel, stride, padding = point["shape"][:5]
        ours = point["us"]["moed"]
        rows.append([point["name"], f"{times(shape)}, {filters} of {times(kernel)}, stride {stride}, padding {padding}",
                     point["rows"], *(spread(point["us"][name]) for name in names),
                     *(spread(ratio(point["us"][name], ours)) for name in names[1:]),
                     figure(2e-3 * point["macs"] * point["rows"] / ours["median"])])
    return table(["convolution", "shape", "rows", *(f"{name} us" for name in names),
                  *(f"{name} / moed" for name in names[1:]), "moed GFLOP/s"], rows)


def report(result):
    return f"""## Convolutions

Microseconds per forward pass of one convolution with bias, on one thread, of its CPU time: median (lowest-highest).
For OpenBLAS the windows of a row are written out and multiplied ("best": told its core, as above); oneDNN reads and leaves
its own formats, which costs it nothing here; PyTorch {result["pytorch"]} converts.

{table_of(result)}"""


def report_depthwise(result):
    return f"""## Depthwise convolutions

As above: groups of one channel each, with bias. oneDNN reads and leaves its own formats, PyTorch {result["pytorch"]}
converts.

{table_of(result)}"""
