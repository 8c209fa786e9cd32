"""Dense algebra: rounds of build/bench/bench_gemm, OpenBLAS once as it starts and once with the core it should know."""

import json
import os
import re
import subprocess

from bench import BUILD, figure, ratio, spread, summary, table

ROWS = (1, 2, 4, 8, 16, 32, 64, 512)
QUICK_ROWS = (1, 4, 32)
OURS, BASELINES = ("moed f32", "moed bf16", "moed f16"), ("OpenBLAS", "OpenBLAS best", "oneDNN f32", "oneDNN bf16")


def best_core(instruction_sets):
    """What OPENBLAS_CORETYPE gets; OpenBLAS falls back to older cores on processors it has not heard of."""
    return "SkylakeX" if "avx512f" in instruction_sets else "Haswell"


def one_round(rows, core):
    """({(n, k, rows, contender): gflops}, peak, kernel)"""
    environment = dict(os.environ, **({"OPENBLAS_CORETYPE": core} if core else {}))
    output = subprocess.run([os.path.join(BUILD, "bench_gemm"), *map(str, rows)], env=environment, check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    head, *lines = map(json.loads, output.splitlines())
    points = {(line["n"], line["k"], line["rows"], line["contender"]): line["gflops"] for line in lines}
    return points, head["peak_gflops"], head["kernel"]


def started_core():
    """The core OpenBLAS picks by itself; it says so when asked."""
    output = subprocess.run([os.path.join(BUILD, "bench_gemm")], env=dict(os.environ, OPENBLAS_VERBOSE="2"), check=True,
                            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True).stderr
    found = re.search(r"Core: (\w+)", output)
    return found.group(1) if found else "unknown"


def run(rounds, quick, machine):
    core = best_core(machine["instruction_sets"])
    values, peaks, kernel = {}, [], None
    for _ in range(rounds):
        for setting in (None, core):
            points, peak, kernel = one_round(QUICK_ROWS if quick else ROWS, setting)
            peaks.append(peak)
            for key, gflops in points.items():
                contender = key[3]
                if setting is None:
                    values.setdefault(key, []).append(gflops)
                elif contender == "OpenBLAS":
                    values.setdefault((*key[:3], "OpenBLAS best"), []).append(gflops)
    # The machine's peak is the most it was seen to do, not what it did while a neighbour had its clock.
    return {"kernel": kernel, "openblas_started_as": started_core(), "openblas_best": core, "peak_gflops": max(peaks),
            "points": [dict(zip(("n", "k", "rows", "contender"), key), gflops=summary(list_of))
                       for key, list_of in values.items()]}


def by_shape(result):
    """{(n, k): {rows: {contender: summary}}} in the order measured."""
    shapes = {}
    for point in result["points"]:
        shapes.setdefault((point["n"], point["k"]), {}).setdefault(point["rows"], {})[point["contender"]] = point["gflops"]
    return shapes


def report(result):
    text = [f"""## Dense algebra

y[rows, n] = x[rows, k] W[n, k]^T, GFLOP/s on one thread, of its CPU time: median (lowest-highest). Kernel
`{result['kernel']}`; this machine's multiply-adds peak at {figure(result['peak_gflops'])} GFLOP/s. OpenBLAS starts as
{result['openblas_started_as']}; "best" is OPENBLAS_CORETYPE={result['openblas_best']}. oneDNN has its weights packed
once, and its BF16 inputs converted, outside the time measured.
"""]
    for (n, k), points in by_shape(result).items():
        present = [name for name in OURS + BASELINES if any(name in point for point in points.values())]
        rows = []
        for count, point in points.items():
            ours = point["moed f32"]
            best = max((point[name] for name in BASELINES if name in point and not name.endswith("bf16")),
                       key=lambda result: result["median"])
            rows.append([count, *(spread(point[name]) if name in point else "" for name in present),
                         f"{100 * ours['median'] / result['peak_gflops']:.0f} %", spread(ratio(ours, point["OpenBLAS"])),
                         spread(ratio(ours, best))])
        text.append(f"### {n} x {k}\n\n" + table(
            ["rows", *present, "f32 of peak", "f32 / OpenBLAS", "f32 / best other f32"], rows))
    return "\n".join(text)
