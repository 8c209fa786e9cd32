"""Memory stays flat over hundreds of thousands of requests: valid, invalid and cut off.

    python3 tests/soak/memory.py [--requests 200000]

The resident set is sampled from /proc all along. Pools, spare batches and the allocator's own caches fill in the first
tenth; from there on the server may not grow by more than GROWTH_KB.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

import numpy as np

from support.http import Connection, request_bytes
from support.models import Tiny, write_wide
from support.server import Server
from support.threads import Background

CLIENTS = 6
GROWTH_KB = 2048
WIDTH = 256


def json_body(rows):
    return json.dumps({"instances": [[1, 2, 3, 4]] * rows, "routing": True}).encode()


def binary_request(rows):
    """A request for the model that runs on the compute thread."""
    data = np.ones((rows, WIDTH), "<f4").tobytes()
    head = json.dumps({"inputs": [{"name": "x", "shape": [rows, WIDTH], "datatype": "FP32",
                                   "parameters": {"binary_data_size": len(data)}}],
                       "parameters": {"binary_data_output": True}}).encode()
    return request_bytes("POST", "/v2/models/wide/infer", head + data, {"Inference-Header-Content-Length": len(head)})


PREDICT = "/v1/models/tiny:predict"
# Request, expected status, how many of a hundred.
MIX = [
    (request_bytes("POST", PREDICT, json_body(1)), 200, 40),
    (request_bytes("POST", PREDICT, json_body(50)), 200, 10),
    (binary_request(1), 200, 15),
    (binary_request(20), 200, 10),
    (request_bytes("GET", "/metrics"), 200, 2),
    (request_bytes("GET", "/v2/models/tiny/routing"), 200, 3),
    (request_bytes("POST", PREDICT, b'{"instances": [[1, 2, NaN, 4]]}'), 400, 5),
    (request_bytes("POST", PREDICT, json_body(1)[:-1]), 400, 5),
    (request_bytes("POST", "/v1/models/nosuch:predict", json_body(1)), 404, 4),
    (request_bytes("DELETE", "/metrics"), 405, 2),
    (request_bytes("GET", "/" + "p" * 24000 + "?" + "a&" * 1000), 404, 1),
    (request_bytes("POST", PREDICT, headers={"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
     + b"5;" + b"a" * 40000, 400, 1),
    (b"GARBAGE\r\n\r\n", 400, 1),
]
BROKEN_OFF = 4  # of a hundred: half a request, then the client is gone


def client(port, requests, seed, progress):
    """Sends `count` requests of the mix and cuts some connections off."""
    chance, connection = random.Random(seed), Connection(port)
    for _ in range(requests):
        (data, status, _), = chance.choices(MIX, [weight for _, _, weight in MIX])
        connection.send(data)
        answer = connection.answer()
        assert answer.status == status, (status, answer.status, answer.body)
        if answer.closes:
            connection.close()
            connection = Connection(port)
        if chance.randrange(100) < BROKEN_OFF:
            connection.send(data[:chance.randrange(len(data))])
            chance.choice((connection.close, connection.reset))()
            connection = Connection(port)
        progress.add()
    connection.close()


class Progress:
    """Counts requests over all threads."""

    def __init__(self):
        self.done, self._lock = 0, threading.Lock()

    def add(self):
        with self._lock:
            self.done += 1


def sample(server, load, progress):
    """[(requests done, resident KB)] while the load lasts."""
    samples = []
    while load.is_running():
        samples.append((progress.done, server.resident_kb()))
        time.sleep(0.2)
    return samples


def report(samples, total, seconds):
    """Prints the curve and returns whether it is flat."""
    step = max(1, len(samples) // 10)
    for done, kilobytes in samples[::step]:
        print(f"{done:>9} requests {kilobytes:>8} KB")
    warm = max(kilobytes for done, kilobytes in samples if done <= total / 10)
    highest = max(kilobytes for done, kilobytes in samples)
    growth = highest - warm
    print(f"{total} requests in {seconds:.0f} s; {warm} KB after the first tenth, at most {highest} KB: grew by {growth} KB "
          f"(allowed {GROWTH_KB})")
    return growth <= GROWTH_KB


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200000)
    each = parser.parse_args().requests // CLIENTS
    with tempfile.TemporaryDirectory() as models:
        Tiny().write(os.path.join(models, "tiny"))
        write_wide(os.path.join(models, "wide"), width=WIDTH)
        with Server(models, log_level="error") as server:
            progress, began = Progress(), time.monotonic()
            load = Background(CLIENTS, lambda number: client(server.port, each, number, progress))
            samples = sample(server, load, progress)
            load.join()
            flat = report(samples, each * CLIENTS, time.monotonic() - began)
            server.stop()
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
