"""build/bench/bench_model, which runs a checkpoint by the engine and by oneDNN, from the side of its drivers."""

import os
import subprocess
import time

import numpy as np

from bench import BUILD

MIN_SECONDS = 0.02


class Engine:
    """A process that times what each line asks for; ends with its `with` block."""

    def __init__(self, checkpoint, inputs, **environment):
        outputs = os.path.join(checkpoint, "outputs")
        program = os.path.join(BUILD, "bench_model")
        self.process = subprocess.Popen([program, checkpoint, inputs, outputs], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, env=dict(os.environ, **environment))
        self.kernel = self.process.stdout.readline().strip()
        if not self.kernel:
            raise SystemExit(f"bench_model: {program} failed")
        self.outputs = np.fromfile(outputs, dtype=np.float32)

    def microseconds(self, contender, rows):
        """Time of a forward pass of `rows` rows; None without that contender."""
        self.process.stdin.write(f"{contender} {rows}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) * 1e-3 or None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()


def torch_microseconds(forward, inputs, rows):
    """Times `forward` in this process: CPU time, over inputs that change from call to call."""
    calls, first = 0, 0
    forward(inputs[:rows])
    begin = now = time.thread_time()
    while now - begin < MIN_SECONDS:
        first = first + rows if first + 2 * rows <= len(inputs) else 0
        forward(inputs[first:first + rows])
        calls += 1
        now = time.thread_time()
    return 1e6 * (now - begin) / calls


def check(name, outputs, expected, tolerance=1e-4):
    """If two experts tie, each side may pick its own; more than one such row in a thousand is a mistake."""
    wrong = np.abs(outputs.reshape(expected.shape) - expected).reshape(len(expected), -1).max(axis=1) > tolerance
    if wrong.sum() > len(expected) // 1000:
        raise SystemExit(f"{name}: {wrong.sum()} of {len(expected)} rows differ from PyTorch's")
