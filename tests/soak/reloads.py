"""A model of 500 MB is loaded again and again while clients ask for it all the time: no request fails.

    python3 tests/soak/reloads.py [--count 100] [--megabytes 500] [--clients 8]

Every reload finds changed files (a new time), so all of the checkpoint is read, packed and warmed up beside the one that
serves, and swapped in. Latencies are taken before and during the reloads, the resident set before, at most, and afterwards.
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
from support.http import Client
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as models:
        path = os.path.join(models, "large")
        write_wide(path, width=WIDTH, experts=max(2, round(options.megabytes / EXPERT_MB)))
        size = os.path.getsize(os.path.join(path, "model.safetensors")) / 1e6
        with Server(models, model_control="explicit", load_model="large", admin="true", log_level="error") as server, \
                Client(server.port) as admin:
            await_ready(server.port)
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
                ended = time.monotonic()
                after = settled_mb(server)
            finally:
                load.stop()
            failed = sum(o.status != 200 for o in load.outcomes)
            before = percentile([o.seconds for o in load.between(began, middle)], .99)
            during = percentile([o.seconds for o in load.between(middle, ended)], .99)
            server.stop()
    print(f"{options.count} reloads of {size:.0f} MB in {ended - middle:.0f} s, {refused} failed; {options.clients} clients of {ROWS} rows\n"
          f"requests: {len(load.outcomes)}, failed: {failed}\n"
          f"p99: {before * 1e3:.0f} ms before, {during * 1e3:.0f} ms during the reloads: {during / before:.1f} times\n"
          f"memory: {resident:.0f} MB before, at most {peak:.0f} MB, {after:.0f} MB afterwards")
    return 1 if failed or refused or after > 1.1 * resident + 16 else 0


if __name__ == "__main__":
    sys.exit(main())
