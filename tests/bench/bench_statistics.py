"""What statistics cost: everything on against everything off, in turns, on small shipped models.

    PYTHONPATH=clients/python /usr/bin/python3 tests/bench/bench_statistics.py [--rounds N] [--quick]

Three things are measured, all as CPU time, which a busy machine disturbs less than the clock on the wall:

engine   a forward pass in one process, with all that is counted (distributions, counts, ranks, pairs, classes, times
         of experts) and with none of it
steps    steps of one row of a language model, the same way (bench_sequence.c)
server   requests with an id and labels to one server over one connection, in turns with a tag, and with
         `Moed-Statistics: off`, which leaves out what is counted, kept for feedback and judged; texts also over
         sixteen connections at a time

A forward pass of a small model takes microseconds, a request tens of them. What the statistics of a row cost is
therefore also given as a part of what the server spends on it: the bar is 1 %. Needs build/bench
(sh tests/bench/run.sh builds it) and build/release.
"""

import argparse
import gzip
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "integration"), os.path.join(ROOT, "clients", "python")]

from bench import BUILD, table  # noqa: E402
from bench_model import Engine  # noqa: E402
from support.server import SHIPPED_MODELS, Server  # noqa: E402

IMAGES = os.path.join(ROOT, "tests", "data", "samples", "t10k-images-idx3-ubyte.gz")
MODELS, ROWS = ("clusters", "mnist"), (1, 64)
REQUESTS = 100  # of a turn
TOKENS = 24
TOGETHER = 16  # texts at a time
LANGUAGE_MODEL = "tiny-lm"


def inputs_of(model, rows):
    """Rows of floats."""
    if model == "clusters":
        return np.random.default_rng(0).standard_normal((rows, *input_of(model)["shape"]), dtype=np.float32)
    with gzip.open(IMAGES) as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16)[:rows * 784]
    return images.reshape(-1, 1, 28, 28).astype(np.float32)


def input_of(model):
    with open(os.path.join(SHIPPED_MODELS, model, "config.json"), encoding="utf-8") as file:
        return json.load(file)["input"]


def compare(turn, rounds):
    """(with, without, percentage that the first has more) of `turn(with)` in turns; of each the lowest tenth, which
    nothing else on the machine has disturbed."""
    pairs = []
    for i in range(rounds):
        first = turn(i % 2 == 0)
        other = turn(i % 2 != 0)
        pairs.append((first, other) if i % 2 == 0 else (other, first))
    on, off = (statistics.quantiles(of, n=10)[0] for of in zip(*pairs))
    return on, off, 100 * (on / off - 1)


# --- the engine -------------------------------------------------------------------------------------------------

def engine_points(rounds):
    points = {}
    for model in MODELS:
        with tempfile.TemporaryDirectory() as directory:
            for name in ("config.json", "model.safetensors"):
                os.symlink(os.path.join(SHIPPED_MODELS, model, name), os.path.join(directory, name))
            path = os.path.join(directory, "inputs")
            inputs_of(model, 512).tofile(path)
            with Engine(directory, path) as engine:
                for rows in ROWS:
                    points[model, rows] = compare(
                        lambda on: engine.microseconds("moed" if on else "uncounted", rows), rounds)
    return points


# --- steps of a language model ----------------------------------------------------------------------------------

def step_point(rounds):
    """(us with, us without, [lower quartile, median, upper quartile] of what a round has more, in us)."""
    program = os.path.join(BUILD, "bench_sequence")
    done = subprocess.run([program, os.path.join(SHIPPED_MODELS, LANGUAGE_MODEL), str(rounds)], capture_output=True,
                          text=True, check=True)
    on, _, off = zip(*[[float(number) / 1e3 for number in line.split()] for line in done.stdout.splitlines()])
    more = statistics.quantiles([a - b for a, b in zip(on, off)], n=4)
    return statistics.median(on), statistics.median(off), more


# --- the server -------------------------------------------------------------------------------------------------

def cpu_microseconds(pid):
    """That all threads of a process have had, to the nanosecond."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e3


class Requests:
    """A connection that sends the same body again and again, counted or not."""

    def __init__(self, server, path, body, count):
        self.pid, self.path, self.count, self.body = server.process.pid, path, count, json.dumps(body).encode()
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def send(self, counted):
        headers = {"Content-Type": "application/json"}
        headers.update({"Moed-Tag": "bench"} if counted else {"Moed-Statistics": "off"})
        self.connection.request("POST", self.path, self.body, headers)
        reply = self.connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise SystemExit(f"{self.path}: {reply.status} {body[:200]}")

    def turn(self, counted):
        """CPU time of the server for one request."""
        before = cpu_microseconds(self.pid)
        for _ in range(self.count):
            self.send(counted)
        return (cpu_microseconds(self.pid) - before) / self.count


def infer_requests(server, model, rows):
    data = inputs_of(model, rows)
    request = {"id": "bench", "parameters": {"labels": [1] * rows},
               "inputs": [{"name": input_of(model)["name"], "datatype": "FP32", "shape": list(data.shape),
                           "data": np.round(data.ravel().astype(np.float64), 3).tolist()}]}
    return Requests(server, f"/v2/models/{model}/infer", request, REQUESTS)


def text_requests(server):
    body = {"model": LANGUAGE_MODEL, "prompt": "It was the best of times", "max_tokens": TOKENS, "temperature": 0,
            "logit_bias": {"0": -100, "2": -100}}
    return Requests(server, "/v1/completions", body, REQUESTS // 50)


class Crowd:
    """Texts that are generated together."""

    def __init__(self, server):
        self.all = [text_requests(server) for _ in range(TOGETHER)]

    def turn(self, counted):
        """CPU time of the server for one of them."""
        before = cpu_microseconds(self.all[0].pid)
        threads = [threading.Thread(target=one.send, args=[counted]) for one in self.all]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (cpu_microseconds(self.all[0].pid) - before) / TOGETHER


def server_points(rounds):
    points = {}
    with Server(SHIPPED_MODELS) as server:
        for model in MODELS:
            for rows in ROWS:
                points[model, rows] = compare(infer_requests(server, model, rows).turn, rounds)
        points[LANGUAGE_MODEL, TOKENS] = compare(text_requests(server).turn, rounds)
        points[f"{LANGUAGE_MODEL}, {TOGETHER} at a time", TOKENS] = compare(Crowd(server).turn, rounds)
        server.stop()
    return points


# --- results ----------------------------------------------------------------------------------------------------

def print_results(engine, step, server):
    rows = [[model, count, f"{on:.2f}", f"{off:.2f}", f"{extra:+.1f} %", f"{on - off:.2f}",
             f"{100 * (on - off) / server[model, count][1]:+.2f} %"] for (model, count), (on, off, extra) in engine.items()]
    print("A forward pass, CPU us:\n")
    print(table(["model", "rows", "on", "off", "on / off", "us more", "of what the server spends on them"], rows))
    rows = [[model, count, f"{on:.1f}", f"{off:.1f}", f"{extra:+.1f} %"] for (model, count), (on, off, extra) in server.items()]
    on, off, more = step
    token = server[LANGUAGE_MODEL, TOKENS][1] / TOKENS
    print(f"A step of one row of {LANGUAGE_MODEL}, CPU us; of what the server spends on a token, {token:.0f} us:\n")
    print(table(["on", "off", "us more (quartiles)", "of a token"],
                [[f"{on:.1f}", f"{off:.1f}", f"{more[1]:.2f} ({more[0]:.2f} to {more[2]:.2f})",
                  f"{100 * more[1] / token:+.1f} % ({100 * more[0] / token:+.1f} to {100 * more[2] / token:+.1f})"]]))
    print("A request, CPU us of the server; rows, or tokens generated:\n")
    print(table(["model", "rows", "counted", "Moed-Statistics: off", "on / off"], rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that it works")
    options = parser.parse_args()
    rounds = 4 if options.quick else options.rounds
    print_results(engine_points(rounds), step_point(rounds), server_points(rounds))


if __name__ == "__main__":
    main()
