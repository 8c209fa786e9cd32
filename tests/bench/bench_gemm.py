"""Dense algebra: rounds of build/bench/bench_gemm, OpenBLAS once by default and once with the core type set."""

import json
import os
import re
import subprocess

from bench import BUILD, figure, geometric_mean, ratio, spread, summary, table

ROWS = (1, 2, 4, 8, 16, 32, 64, 512)
QUICK_ROWS = (1, 4, 32)
F32_BYTES = 4
OURS = ("moed f32", "moed bf16", "moed f16", "moed int8", "moed int4")
BASELINES = ("OpenBLAS", "OpenBLAS best", "oneDNN f32", "LIBXSMM f32", "oneDNN bf16")


def best_core(instruction_sets):
    """The value of OPENBLAS_CORETYPE: OpenBLAS uses code for older cores on processors that it does not know."""
    return "SkylakeX" if "avx512f" in instruction_sets else "Haswell"


def one_round(rows, core):
    """({(n, k, rows, contender): gflops}, the machine as the program describes it)"""
    environment = dict(os.environ, **({"OPENBLAS_CORETYPE": core} if core else {}))
    output = subprocess.run([os.path.join(BUILD, "bench_gemm"), *map(str, rows)], env=environment, check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    head, *lines = map(json.loads, output.splitlines())
    points = {(line["n"], line["k"], line["rows"], line["contender"]): line["gflops"] for line in lines}
    return points, head


def started_core():
    """The core type that OpenBLAS picks by itself."""
    output = subprocess.run([os.path.join(BUILD, "bench_gemm")], env=dict(os.environ, OPENBLAS_VERBOSE="2"), check=True,
                            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True).stderr
    found = re.search(r"Core: (\w+)", output)
    return found.group(1) if found else "unknown"


def run(rounds, quick, machine):
    core = best_core(machine["instruction_sets"])
    values, heads = {}, []
    for _ in range(rounds):
        for setting in (None, core):
            points, head = one_round(QUICK_ROWS if quick else ROWS, setting)
            heads.append(head)
            for key, gflops in points.items():
                contender = key[3]
                if setting is None:
                    values.setdefault(key, []).append(gflops)
                elif contender == "OpenBLAS":
                    values.setdefault((*key[:3], "OpenBLAS best"), []).append(gflops)
    # The machine's peaks are the best of all rounds, because other processes slow some of them down.
    peaks = {key: max(head[key] for head in heads) for key in ("peak_gflops", "copy_gbytes")}
    return {"kernel": heads[0]["kernel"], "openblas_started_as": started_core(), "openblas_best": core, **peaks,
            "points": [dict(zip(("n", "k", "rows", "contender"), key), gflops=summary(list_of))
                       for key, list_of in values.items()]}


def by_shape(result):
    """{(n, k): {rows: {contender: summary}}} in the order measured."""
    shapes = {}
    for point in result["points"]:
        shapes.setdefault((point["n"], point["k"]), {}).setdefault(point["rows"], {})[point["contender"]] = point["gflops"]
    return shapes


def best_other(point):
    """The fastest F32 product that is not ours."""
    return max((point[name] for name in BASELINES if name in point and not name.endswith("bf16")),
               key=lambda gflops: gflops["median"])


def weight_gbytes(gflops, rows, size):
    """Weights read per second, when every one is read once for all rows."""
    return gflops / (2 * rows) * size


def summaries(result):
    """One line per contender: our speed relative to its own, over all points."""
    points = [(key, rows, point) for key, of in by_shape(result).items() for rows, point in of.items()]
    rows = []
    for title, one, other in [*(("f32 / " + name, lambda point: point["moed f32"], lambda point, name=name: point.get(name))
                                for name in BASELINES[:-1]),
                              ("f32 / best other f32", lambda point: point["moed f32"], best_other),
                              ("bf16 / f32", lambda point: point["moed bf16"], lambda point: point["moed f32"]),
                              ("int8 / f32", lambda point: point["moed int8"], lambda point: point["moed f32"])]:
        found = sorted((ratio(one(point), other(point))["median"], shape, count) for shape, count, point in points
                       if other(point))
        if found:
            (low, *low_at), (high, *high_at) = found[0], found[-1]
            rows.append([title, figure(geometric_mean([value for value, *_ in found])),
                         *(f"{figure(value)} ({shape[0]} x {shape[1]}, {count} rows)"
                           for value, (shape, count) in ((low, low_at), (high, high_at)))])
    return table(["speed", "geometric mean", "least", "most"], rows)


def report(result):
    text = [f"""## Dense algebra

y[rows, n] = x[rows, k] W[n, k]^T, GFLOP/s on one thread, of its CPU time: median (lowest-highest). Kernel
`{result['kernel']}`; this machine's multiply-adds peak at {figure(result['peak_gflops'])} GFLOP/s, it copies
{figure(result['copy_gbytes'])} GB/s (read and written). "GB/s" is how fast our F32 product goes through its weights, the
least it must read. OpenBLAS starts as {result['openblas_started_as']}; "best" is
OPENBLAS_CORETYPE={result['openblas_best']}. oneDNN has its weights packed once, and its BF16 inputs converted, outside
the time measured. LIBXSMM has its weights packed once in panels of 16 to 64 rows that its kernels read as they lie, and
its batch-reduce kernels, over blocks of k, compiled for each shape, outside the time measured.

{summaries(result)}"""]
    for (n, k), points in by_shape(result).items():
        present = [name for name in OURS + BASELINES if any(name in point for point in points.values())]
        rows = []
        for count, point in points.items():
            ours = point["moed f32"]
            rows.append([count, *(spread(point[name]) if name in point else "" for name in present),
                         f"{100 * ours['median'] / result['peak_gflops']:.0f} %",
                         figure(weight_gbytes(ours["median"], count, F32_BYTES)),
                         *(spread(ratio(ours, other)) for other in (point["OpenBLAS"], best_other(point))),
                         *(spread(ratio(point[name], ours)) for name in ("moed bf16", "moed int8"))])
        text.append(f"### {n} x {k}\n\n" + table(
            ["rows", *present, "f32 of peak", "GB/s", "f32 / OpenBLAS", "f32 / best other f32", "bf16 / f32",
             "int8 / f32"], rows))
    return "\n".join(text)
