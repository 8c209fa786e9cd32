"""A model of 500 MB is loaded again and again while clients ask for it all the time: no request fails.

    python3 tests/soak/reloads.py [--count 100] [--megabytes 500] [--clients 8] [--threads N]

Every reload finds changed files (a new time), so all of the checkpoint is read, packed and warmed up beside the one that
serves, and swapped in. Latencies and rates are taken before and during the reloads, the resident set before, at most, and
afterwards. --threads is the server's option: with one less than there are cores one of them is left to the loader.
Exit status 1 if a request fails, if the answers change, or if the memory is not given back.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time

from clients import Pool, await_ready, infer_bytes, percentile, resident_mb
from support.http import Client, Connection
from support.models import write_wide
from support.server import Server

WIDTH, ROWS = 2048, 4
EXPERT_MB = WIDTH * WIDTH * 4 / 1e6


class Load:
    """Clients in a thread of their own."""

    def __init__(self, port, clients):
        self.outcomes, self.stopped = [], threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run(port, clients)))
        self.thread.start()

    async def run(self, port, clients):
        pool, data = Pool(port), infer_bytes("large", ROWS, WIDTH)

        async def client():
            while not self.stopped.is_set():
                self.outcomes.append(await pool.ask(data, ROWS))

        await asyncio.gather(*(client() for _ in range(clients)))
        pool.close()

    def between(self, began, ended):
        return [o for o in list(self.outcomes) if began <= o.ended < ended]

    def stop(self):
        self.stopped.set()
        self.thread.join()


def answer(port, request=infer_bytes("large", ROWS, WIDTH)):
    """Its bytes, by a new connection: an idle one would be closed during a long load."""
    with Connection(port) as connection:
        connection.send(request)
        return connection.answer().body


def told(outcomes, seconds):
    p50, p99, slowest = (percentile([o.seconds for o in outcomes], part) * 1e3 for part in (.5, .99, 1))
    return f"{len(outcomes) / seconds:.0f} requests/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, slowest {slowest:.0f} ms"


def settled_mb(server):
    """The old model is freed by a thread of its own."""
    lowest, deadline = resident_mb(server), time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.2)
        lowest = min(lowest, resident_mb(server))
    return lowest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, help="compute threads of the server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as models:
        path = os.path.join(models, "large")
        write_wide(path, width=WIDTH, experts=max(2, round(options.megabytes / EXPERT_MB)))
        size = os.path.getsize(os.path.join(path, "model.safetensors")) / 1e6
        with Server(models, model_control="explicit", load_model="large", admin="true", log_level="error",
                    threads=options.threads) as server, Client(server.port) as admin:
            await_ready(server.port)
            expected, changed = answer(server.port), 0
            load = Load(server.port, options.clients)
            try:
                time.sleep(3)
                resident, began, peak = resident_mb(server), time.monotonic(), 0
                time.sleep(10)
                middle, refused = time.monotonic(), 0
                for number in range(options.count):
                    os.utime(os.path.join(path, "model.safetensors"), (number, number))
                    refused += admin.post("/v2/repository/models/large/load", b"{}").status != 200
                    peak = max(peak, resident_mb(server))
                    changed += answer(server.port) != expected
                ended = time.monotonic()
                after = settled_mb(server)
            finally:
                load.stop()
            failed = sum(o.status != 200 for o in load.outcomes)
            before, during = load.between(began, middle), load.between(middle, ended)
            server.stop()
    ratio = percentile([o.seconds for o in during], .99) / percentile([o.seconds for o in before], .99)
    print(f"{options.count} reloads of {size:.0f} MB in {ended - middle:.0f} s, {refused} failed; {options.clients} clients of {ROWS} rows\n"
          f"requests: {len(load.outcomes)}, failed: {failed}, answers that changed: {changed}\n"
          f"before: {told(before, middle - began)}\n"
          f"during the reloads: {told(during, ended - middle)}; p99 {ratio:.1f} times\n"
          f"memory: {resident:.0f} MB before, at most {peak:.0f} MB, {after:.0f} MB afterwards")
    return 1 if failed or refused or changed or after > 1.1 * resident + 16 else 0


if __name__ == "__main__":
    sys.exit(main())
