"""What becomes of requests, memory and other models when five times as much is asked as can be computed.

    python3 tests/soak/overload.py [--seconds 20] [--only rows|models|texts] [--json FILE]

rows     a model of rows at five times its capacity, by clients that send 1, 8 and 64 rows: how much of the capacity is
         answered, how long the answered ones waited, and whether memory grows. Capacity is measured in turns with it.
models   a second model's latency, without and with a flood for the first.
texts    five times as many streams of deploy/models/tiny-lm as are computed at a time: each ends as it should, or is
         refused at once; no page of keys and values is left in use.

The server has a CPU of its own, and its clients the others: what they take is then no part of the figures, which are those
of a server with one CPU. Exit status 1 if a figure misses its bound; latencies have bounds only where the machine is
otherwise idle (--strict).
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time

import clients
from clients import Pool, await_ready, closed_loop, infer_bytes, open_loop, percentile, read_head, resident_mb, rows_per_second
from support.http import HOST, Client, request_bytes
from support.models import random_tensor, write_checkpoint
from support.prometheus import Metrics
from support.server import SHIPPED_MODELS, Server

TIMES = 5
TURNS = 4
FILLING = 1.5  # seconds until a queue is full
STARTING = 0.5  # seconds until as many requests end as begin
QUEUE_ROWS, BATCH_ROWS = 512, 32
ROW_NUMBERS = 4
STREAMS = 80  # five times --max-sequences
GROWTH_MB = 16


class Report:
    def __init__(self):
        self.figures, self.wrong = {}, []

    def add(self, name, text, good=True):
        self.figures[name] = text
        if not good:
            self.wrong.append(name)
        print(f"| {name} | {text} | {'' if good else 'MISSED'} |", flush=True)


def write_convolutions(directory, layers):
    """Input x [4]; 21 million multiply-adds a layer: a row is a few bytes and one or two milliseconds of compute, so the
    clients take little of the machine."""
    channels, side = 64, 24
    config = [{"op": "linear", "name": "widen"}, {"op": "reshape", "shape": [1, side, side]}, {"op": "conv2d", "name": "stem", "padding": 1}]
    tensors = {"widen.weight": random_tensor(1, side * side, ROW_NUMBERS), "stem.weight": random_tensor(2, channels, 1, 3, 3)}
    for i in range(layers):
        config += [{"op": "conv2d", "name": f"conv{i}", "padding": 1}, {"op": "tanh"}]
        tensors[f"conv{i}.weight"] = random_tensor(3 + i, channels, channels, 3, 3)
    config += [{"op": "mean", "axis": 2}, {"op": "mean", "axis": 1}, {"op": "linear", "name": "out"}]
    write_checkpoint(directory, {"input": {"name": "x", "shape": [ROW_NUMBERS]}, "layers": config, "output": {"name": "y"}},
                     {**tensors, "out.weight": random_tensor(99, 2, channels)})


# ---- rows -----------------------------------------------------------------------------------------------------------

def mix_of(model):
    return [(weight, rows, infer_bytes(model, rows, ROW_NUMBERS)) for weight, rows in ((60, 1), (30, 8), (10, 64))]


class Cpu:
    """How much of the time a process has had a CPU."""

    def __init__(self, process):
        self.process, self.began, self.before = process, time.monotonic(), self._seconds(process)

    @staticmethod
    def _seconds(process):
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def share(self):
        return (self._seconds(self.process) - self.before) / (time.monotonic() - self.began)


async def measure_rows(port, seconds, server, report):
    """In turns, so that a busy machine disturbs both alike: what can be computed, and what is of five times as much."""
    pool, mix = Pool(port), mix_of("flooded")
    turn, outcomes, capacities, goodputs, asked, busy = seconds / TURNS, [], [], [], 0, []

    async def capacity():
        began = time.monotonic() + STARTING
        return rows_per_second(await closed_loop(pool, mix, 12, STARTING + turn), began, began + turn)

    await open_loop(pool, mix, TIMES * await capacity(), FILLING)  # buffers of a full queue
    resident = resident_mb(server)
    for _ in range(TURNS):
        capacities.append(await capacity())
        began = time.monotonic() + FILLING
        cpus = Cpu(server.process.pid), Cpu(os.getpid())
        flood = await open_loop(pool, mix, TIMES * capacities[-1], FILLING + turn)
        busy.append([cpu.share() for cpu in cpus])
        goodputs.append(rows_per_second(flood, began, began + turn))
        asked += sum(o.rows for o in flood) / (FILLING + turn) / TURNS
        outcomes += flood
    grown = resident_mb(server) - resident
    pool.close()
    capacity, goodput = sum(capacities) / TURNS, sum(goodputs) / TURNS
    answered = [o for o in outcomes if o.status == 200]
    refused = [o for o in outcomes if o.status == 429]
    others = len(outcomes) - len(answered) - len(refused)
    bound = 2 * (QUEUE_ROWS + BATCH_ROWS) / min(capacities + goodputs)  # half of a batch may go to shorter ones
    waits = sorted({int(o.headers["retry-after"]) for o in refused})
    report.add("capacity", f"{', '.join(f'{rate:.0f}' for rate in capacities)} rows/s")
    report.add("asked for", f"{asked:.0f} rows/s in {len(outcomes)} requests, {asked / capacity:.1f} times the capacity")
    report.add("goodput", f"{', '.join(f'{rate:.0f}' for rate in goodputs)} rows/s, {100 * goodput / capacity:.0f} % of the capacity",
               goodput >= 0.95 * capacity)
    shares = [f"{100 * sum(of) / TURNS:.0f} %" for of in zip(*busy)]
    report.add("CPU in the flood", f"server {shares[0]} of the one that it has, clients {shares[1]} of one")
    for rows in (1, 8, 64):
        of = [o.seconds for o in answered if o.rows == rows]
        report.add(f"answered, {rows} rows", f"{len(of)} of {sum(o.rows == rows for o in outcomes)}, p50 {percentile(of, .5) * 1e3:.0f} ms, "
                   f"p99 {percentile(of, .99) * 1e3:.0f} ms (bound {bound * 1e3:.0f} ms)", not of or percentile(of, .99) <= bound)
    report.add("refused with 429", f"{len(refused)}, p99 {percentile([o.seconds for o in refused], .99) * 1e3:.0f} ms, "
               f"Retry-After {waits[0] if waits else '-'} to {waits[-1] if waits else '-'} s")
    report.add("neither", f"{others}", others == 0)
    report.add("memory", f"{resident:.0f} MB, grew by {grown:.1f} MB", grown <= GROWTH_MB)


# ---- models ---------------------------------------------------------------------------------------------------------

async def measure_models(port, seconds, report, strict):
    pool, flood_pool = Pool(port), Pool(port)
    other = [(1, 1, infer_bytes("other", 1, ROW_NUMBERS))]
    flood = mix_of("flooded")
    alone, crowded, flooded = [], [], []
    for _ in range(4):  # in turns, so that a busy machine disturbs both alike
        alone += await open_loop(pool, other, 20, seconds / 8)
        running = asyncio.create_task(closed_loop(flood_pool, flood, 64, seconds / 8 + 1))
        await asyncio.sleep(0.5)  # until its queue is long
        crowded += await open_loop(pool, other, 20, seconds / 8)
        flooded += await running
    pool.close(), flood_pool.close()
    p99 = [percentile([o.seconds for o in outcomes], .99) for outcomes in (alone, crowded)]
    p50 = [percentile([o.seconds for o in outcomes], .5) for outcomes in (alone, crowded)]
    lost = sum(o.status != 200 for o in alone + crowded)
    report.add("other model alone", f"p50 {p50[0] * 1e3:.1f} ms, p99 {p99[0] * 1e3:.1f} ms")
    report.add("other model beside a flood", f"p50 {p50[1] * 1e3:.1f} ms, p99 {p99[1] * 1e3:.1f} ms: {p99[1] / p99[0]:.1f} times",
               not strict or p99[1] <= 2 * p99[0])
    report.add("of the flood", f"{sum(o.rows for o in flooded if o.status == 200) / (seconds / 2 + 4):.0f} rows/s")
    report.add("other model's requests refused or lost", f"{lost} of {len(alone + crowded)}", lost == 0)


# ---- texts ----------------------------------------------------------------------------------------------------------

async def stream(port, number):
    """One stream: (status, how it ended, seconds)."""
    began = time.monotonic()
    body = json.dumps({"prompt": "Once upon a time there was a " * random.Random(number).randint(1, 12), "max_tokens": 48,
                       "stream": True, "seed": number, "ignore_eos": True}).encode()
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request_bytes("POST", "/v1/completions", body, {"Content-Type": "application/json"}))
        status, headers = await asyncio.wait_for(read_head(reader), clients.LATE_SECONDS)
        if status != 200:
            await reader.readexactly(int(headers["content-length"]))
            return status, headers.get("retry-after"), time.monotonic() - began
        text = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), clients.LATE_SECONDS)
        return status, "done" if b"data: [DONE]" in text else "cut", time.monotonic() - began
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as failure:
        return 0, type(failure).__name__, time.monotonic() - began
    finally:
        writer.close()


async def measure_texts(port, seconds, server, report):
    end, ended = time.monotonic() + seconds, []

    async def client(number):
        while time.monotonic() < end:
            outcome = await stream(port, number + STREAMS * len(ended))
            ended.append(outcome)
            if outcome[0] == 429:
                await asyncio.sleep(0.2)  # impatient: Retry-After says more

    resident = []
    tasks = [asyncio.create_task(client(number)) for number in range(STREAMS)]
    while not all(task.done() for task in tasks):
        resident.append(resident_mb(server))
        await asyncio.sleep(0.5)
    await asyncio.gather(*tasks)
    warm = max(resident[:max(1, len(resident) // 3)])
    done = [outcome for outcome in ended if outcome[1] == "done"]
    refused = [outcome for outcome in ended if outcome[0] == 429]
    lost = [outcome for outcome in ended if outcome not in done and outcome not in refused]
    with Client(port) as http:
        page = Metrics(http.get("/metrics").body.decode())
    used = page.value("moed_kv_pages_used", model="tiny-lm", version="1")
    report.add("streams that ended with [DONE]", f"{len(done)}, {48 * len(done) / seconds:.0f} tokens/s")
    report.add("streams refused with 429", f"{len(refused)}, p99 {percentile([o[2] for o in refused], .99) * 1e3:.0f} ms, "
               f"Retry-After {sorted({int(o[1]) for o in refused})} s")
    report.add("streams lost or cut", f"{len(lost)} {lost[:3] if lost else ''}", not lost)
    report.add("memory of texts", f"{warm:.0f} MB after a third, at most {max(resident):.0f} MB", max(resident) - warm <= GROWTH_MB)
    report.add("pages in use afterwards", f"{used:.0f}", used == 0)


# ---- the whole ------------------------------------------------------------------------------------------------------

def start(models, cpus, **options):
    """A ready server on the first of the CPUs, or on all if there is one; this process keeps to the others."""
    os.sched_setaffinity(0, cpus[:1])
    server = Server(models, **options)
    os.sched_setaffinity(0, cpus[1:] or cpus)
    await_ready(server.port)
    return server


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", choices=["rows", "models", "texts"])
    parser.add_argument("--strict", action="store_true", help="the machine is idle: latencies have bounds, too")
    parser.add_argument("--json", help="also write the figures there")
    options = parser.parse_args()
    report, cpus = Report(), sorted(os.sched_getaffinity(0))
    limits = {"log_level": "error", "max_queue_rows": QUEUE_ROWS, "max_request_rows": 128, "max_batch_rows": BATCH_ROWS,
              "queue_timeout_ms": 60000}
    print("| figure | measured | |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as models:
        if options.only != "texts":
            write_convolutions(os.path.join(models, "flooded"), 2)
            write_convolutions(os.path.join(models, "other"), 3)
            with start(models, cpus, **limits) as server:
                if options.only != "models":
                    asyncio.run(measure_rows(server.port, options.seconds, server, report))
                if options.only != "rows":
                    asyncio.run(measure_models(server.port, options.seconds, report, options.strict))
                server.stop()
        if options.only in (None, "texts"):
            os.symlink(os.path.join(SHIPPED_MODELS, "tiny-lm"), os.path.join(models, "tiny-lm"))
            with start(models, cpus, model_control="explicit", load_model="tiny-lm", max_sequences=STREAMS // TIMES, **limits) as server:
                asyncio.run(measure_texts(server.port, options.seconds, server, report))
                server.stop()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"figures": report.figures, "missed": report.wrong}, file, indent=1)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
