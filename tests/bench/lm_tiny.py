"""Whether llama.cpp makes of deploy/models/tiny-lm what moed makes of it: greedy texts of both.

    python3 tests/bench/lm_tiny.py [--python PYTHON]

Builds llama.cpp as lm.py does. The file is converted to F32, because llama.cpp rounds activations to BF16 where weights
are BF16, and keys and values are kept as F32 by both.
"""

import argparse
import os
import sys

import bench
import lm_llama
import lm_load

PROMPTS = ("In the beginning", "And it came to pass", "It was a truth", "She could not", "hacker: n.", "A program is",
           "The king said unto", "Elizabeth was", "The system", "There is no", "1 2 3", "Mr.")
TOKENS = 64


def texts(server):
    return [lm_load.complete(server, prompt, TOKENS, temperature=0)[0]["choices"][0]["text"] for prompt in PROMPTS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moed", default=os.path.join(bench.ROOT, "build", "release", "moed"))
    parser.add_argument("--python", default=sys.executable, help="one that has torch and transformers")
    parser.add_argument("--cache", default=os.path.join(bench.ROOT, "build", "lm"))
    options = parser.parse_args()
    lm_llama.build(options.cache)
    models = os.path.join(bench.ROOT, "deploy", "models")
    gguf = os.path.join(options.cache, "tiny-lm-f32.gguf")
    lm_llama.convert(options.cache, options.python, os.path.join(models, "tiny-lm"), gguf, "f32")
    port = lm_load.free_port()
    with lm_load.Server([options.moed, "serve", "--models", models, "--model-control", "explicit", "--load-model",
                         "tiny-lm", "--port", "0", "--kv-cache", "f32"]) as moed, \
         lm_load.Server(lm_llama.server_command(options.cache, gguf, 2, True, port, "f32"), port) as llama:
        pairs = list(zip(PROMPTS, texts(moed), texts(llama)))
    for prompt, ours, theirs in pairs:
        if ours != theirs:
            print(f"{prompt!r}: moed {ours!r}, llama.cpp {theirs!r}")
    print(f"{sum(ours == theirs for _, ours, theirs in pairs)} of {len(pairs)} texts of {TOKENS} tokens are the same; "
          f"the first: {PROMPTS[0] + pairs[0][1]!r}")


if __name__ == "__main__":
    main()
