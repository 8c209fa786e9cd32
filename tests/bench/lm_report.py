"""The tables of lm.py."""

import statistics

import bench
import lm_models

# (figure, heading, what a value is divided by, whether less is better)
FIGURES = (("decode_1", "decode, 1 sequence, tokens/s", 1, False),
           ("decode_4", "4 sequences, sum", 1, False),
           ("decode_16", "16 sequences, sum", 1, False),
           ("prefill_512", "prefill of 512, tokens/s", 1, False),
           ("prefill_2048", "of 2048", 1, False),
           ("first_s", "short prompt behind a long one, s to first token", 1, True),
           ("pause_s", "longest pause of a stream meanwhile, s", 1, True),
           ("load_s", "load, s", 1, True),
           ("rss", "resident, MiB", 2 ** 20, True),
           ("anonymous", "of it no file", 2 ** 20, True))


def line(values):
    return ", ".join(f"{key} {bench.figure(value / (2 ** 20 if key in ('rss', 'anonymous') else 1))}"
                     for key, value in values.items())


def scaled(summary, divisor):
    return {key: summary[key] / divisor for key in ("median", "low", "high")}


def better(values, key, less):
    """Theirs that is best at `key`: a contender's name."""
    others = [name for name in values if name != "moed" and key in values[name]]
    return (min if less else max)(others, key=lambda name: values[name][key]["median"])


def over(point, key, less):
    """How many times as good moed is as the best of the others, round by round."""
    values = point["servers"]
    ours, theirs = values["moed"][key], values[better(values, key, less)][key]
    return bench.ratio(theirs, ours) if less else bench.ratio(ours, theirs)


def share(point):
    """Of the bandwidth that decoding one sequence uses."""
    rate = point["servers"]["moed"].get("decode_1")
    if not rate:
        return ""
    used = {"values": [value * point["bytes_per_token"] for value in rate["values"]]}
    part = bench.ratio(used, point["bandwidth"])
    return (f"Decoding one sequence reads {bench.figure(statistics.median(used['values']) / 1e9)} GB/s of weights, "
            f"{100 * part['median']:.0f} % ({100 * part['low']:.0f}-{100 * part['high']:.0f}) of what two threads read at best "
            f"just before, {bench.spread(scaled(point['bandwidth'], 1e9))} GB/s.\n")


def agreement(point):
    """Whether it is the same model: what both say of the next token after some prompts."""
    said = [f"{name} {of['same']} of {of['of']} times (log probabilities differ by at most {of['most']:.3f})"
            for name, of in point["answers"].items() if name != "moed"]
    return f"\nThe likeliest next token is ours with {', '.join(said)}.\n"


def point_report(point):
    names = list(point["servers"])
    rows = []
    for key, heading, divisor, less in FIGURES:
        if key not in point["servers"]["moed"]:
            continue
        rows.append([heading, *(bench.spread(scaled(point["servers"][name][key], divisor)) for name in names),
                     bench.spread(over(point, key, less))])
    header = ["", *("moed" if name == "moed" else f"llama.cpp {name}" for name in names), "times as good as the best"]
    return (f"### {lm_models.TITLES[point['shape']]}, {point['weights']}\n\n" + bench.table(header, rows) + "\n" +
            share(point) + agreement(point))


def report(results):
    machine = results["machine"]
    head = (f"## Language models\n\n`python3 tests/bench/lm.py {' '.join(results['arguments'])}`, {results['date']}, {machine['cpu']}, "
            f"{machine['cpus']} CPUs, {', '.join(machine['instruction_sets'])}, commit {machine['commit']}; load before "
            f"{machine['load_before']}, after {machine.get('load_after')}.\nMedians of {results['rounds']} rounds "
            "(lowest-highest) in which the servers take turns, and ratios of the same round.\n\n")
    return head + "\n".join(point_report(point) for point in results["points"])
