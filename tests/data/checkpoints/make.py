#!/usr/bin/env python3
"""Makes the checkpoints beside this file: good/NAME, and bad/NAME that each break one rule.

    python3 tests/data/checkpoints/make.py

Every bad checkpoint is a good one with an edit or two, and has a file `error` with what the loader
must say, one part per line. The good ones are also the seeds of tests/fuzz/fuzz_checkpoint.c. All of
it is committed: run this after a change and look at what git says.
"""

import shutil
import struct
import sys
from pathlib import Path

import bad_attention
import bad_config
import bad_functions
import bad_gates
import bad_graphs
import bad_inputs
import bad_layers
import bad_lengths
import bad_sequences
import bad_tokens
import bad_weights
import good

HERE = Path(__file__).resolve().parent
SEEDS = HERE.parent.parent / "fuzz" / "corpus" / "checkpoint"


def write_bad(name, base, edits, parts):
    checkpoint = base()
    for edit in edits:
        edit(checkpoint)
    checkpoint.write(HERE / "bad" / name)
    (HERE / "bad" / name / "error").write_text("".join(part + "\n" for part in parts))


def write_seeds(name, checkpoint):
    """As the fuzz target reads them: length of the config, the config, and the weights as one file
    or, with the highest bit of the length set, as a list of shapes."""
    checkpoint.shards = 1
    files = checkpoint.files()
    config = files["config.json"]
    shapes = "".join(" ".join([checkpoint.dtype, tensor, *map(str, values.shape)]) + "\n"
                     for tensor, values in checkpoint.tensors.items())
    SEEDS.mkdir(parents=True, exist_ok=True)
    (SEEDS / name).write_bytes(struct.pack("<I", len(config)) + config + files["model.safetensors"])
    (SEEDS / (name + "_shapes")).write_bytes(struct.pack("<I", len(config) | 1 << 31) + config + shapes.encode())


def main():
    sys.setrecursionlimit(10000)  # json.dumps, of a thousand nested layers
    for kind in "good", "bad":
        shutil.rmtree(HERE / kind, ignore_errors=True)
    for make in good.small, good.image, good.every_op, good.tasks, good.encoder, good.graph, good.functions, good.decoder, good.histories, good.scorer, good.sentence, good.text:
        make().write(HERE / "good" / make.__name__)
        write_seeds(make.__name__, make())
    for part in bad_config, bad_layers, bad_weights, bad_inputs, bad_sequences, bad_gates, bad_graphs, bad_functions, bad_attention, bad_lengths, bad_tokens:
        for case in part.CASES:
            write_bad(*case)


if __name__ == "__main__":
    main()
