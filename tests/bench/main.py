"""Runs the benchmarks and writes results.json, results.md and the pictures, for run.sh."""

import argparse
import json
import os
import signal
import sys
import time

import bench
import bench_conv
import bench_gemm
import bench_http
import bench_memory
import bench_moe
import bench_ops
import plots
import report_http

PARTS = {"gemm": (bench_gemm.run, bench_gemm.report, plots.gemm), "conv": (bench_conv.run, bench_conv.report, plots.conv),
         "depthwise": (bench_conv.run_depthwise, bench_conv.report_depthwise, plots.depthwise),
         "ops": (bench_ops.run, bench_ops.report, plots.ops),
         "moe": (bench_moe.run, bench_moe.report, plots.moe), "http": (bench_http.run, report_http.report, plots.http),
         "memory": (bench_memory.run, bench_memory.report, plots.memory)}
ROUNDS, QUICK_ROUNDS = 5, 2


def describe(machine, rounds):
    return f"""# Benchmark

Medians of {rounds} rounds in which the contenders take turns, in one run on one machine; ratios hold elsewhere, absolute
figures do not.

{bench.table(["machine", ""], [[key, ", ".join(value) if isinstance(value, list) else value]
                               for key, value in machine.items()])}
"""


def write(results, directory):
    """Writes everything measured so far: an interrupted run keeps its finished parts."""
    with open(os.path.join(directory, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    with open(os.path.join(directory, "results.md"), "w", encoding="utf-8") as file:
        file.write(describe(results["machine"], results["rounds"]))
        for name, (_, report, plot) in PARTS.items():
            if name in results:
                file.write(report(results[name]) + "\n")
                plot(results[name], directory)


def main():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few points, two rounds: does it work, is it far off?")
    parser.add_argument("--rounds", type=int, help=f"measure everything so often (default {ROUNDS}, quick {QUICK_ROUNDS})")
    parser.add_argument("--out", default=os.path.join(bench.BUILD, "results"), help="directory for the results")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers and temporary files end with the run
    os.makedirs(options.out, exist_ok=True)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)

    machine = bench.machine()
    if machine["load_before"] > bench.QUIET_LOAD:
        print(f"warning: load average {machine['load_before']:.2f} before starting: figures will be noisy", file=sys.stderr)
    results = {"machine": machine, "rounds": rounds, "quick": options.quick}
    for name in options.only or PARTS:
        began = time.monotonic()
        results[name] = PARTS[name][0](rounds, options.quick, machine)
        machine["load_after"] = bench.load_average()
        write(results, options.out)
        print(f"    {name:<58} {time.monotonic() - began:6.0f} s", flush=True)
    print(f"    {options.out}/results.md, results.json, *.png")


if __name__ == "__main__":
    main()
