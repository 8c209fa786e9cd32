"""Shared by the benchmarks: rounds, medians, the machine, tables.

A figure is the median of rounds in which the contenders take turns (A B C, A B C, ...), so that whatever else the
machine does in these minutes falls on all of them. What is compared are ratios within one run on one machine.
"""

import math
import os
import statistics
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "bench")

QUIET_LOAD = 0.5


def summary(values):
    """The median of some rounds and their spread; `values` in order of the rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "values": values}


def ratio(one, other):
    """The ratio `one` / `other`, from adjacent rounds: whatever slowed both cancels."""
    return summary([a / b for a, b in zip(one["values"], other["values"])])


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def load_average():
    return round(os.getloadavg()[0], 2)


def machine():
    """What a reader must know about this machine."""
    fields = {}
    with open("/proc/cpuinfo", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True,
                            check=False).stdout.strip()
    return {"cpu": fields.get("model name", "unknown"), "cache": fields.get("cache size", "unknown"),
            "cpus": len(os.sched_getaffinity(0)), "instruction_sets": [name for name in known if name in flags],
            "commit": commit, "load_before": load_average()}


def all_cpus():
    return sorted(os.sched_getaffinity(0))


def halves():
    """(server's CPUs, load generator's CPUs): they do not compete."""
    cpus = all_cpus()
    middle = (len(cpus) + 1) // 2
    return (cpus[:middle], cpus[middle:]) if len(cpus) > 1 else (cpus, cpus)


def cpu_list(cpus):
    return ",".join(map(str, cpus))


def figure(value):
    """Three significant digits, without an exponent."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(result):
    """'98 (95-101)'"""
    return f"{figure(result['median'])} ({figure(result['low'])}-{figure(result['high'])})"


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"
