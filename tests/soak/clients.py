"""Clients for soaks: many at once in one thread, each request timed. Plain HTTP over asyncio, so that the load takes
little of the machine that the server needs."""

import asyncio
import json
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from support.http import HOST, Client, request_bytes

LATE_SECONDS = 120  # an answer that has not come by then is lost


def await_ready(port):
    """Until all models are loaded: the port is open before."""
    deadline = time.monotonic() + LATE_SECONDS
    with Client(port) as client:
        while client.get("/v2/health/ready").status != 200:
            assert time.monotonic() < deadline, "the server does not become ready"
            time.sleep(0.05)


class Outcome:
    """One request: its status (0: lost), its rows, and when it was sent and answered."""

    def __init__(self, status, rows, began, ended, headers):
        self.status, self.rows, self.began, self.ended, self.headers = status, rows, began, ended, headers

    @property
    def seconds(self):
        return self.ended - self.began


def infer_bytes(model, rows, width, **parameters):
    """A request of so many rows of numbers, binary, which costs no more to read than it must."""
    tensor = random.Random(rows).randbytes(rows * width * 2)  # two bytes of each float are zero: none is large
    data = b"".join(b"\0\0" + tensor[i:i + 1] + b"\x3f" for i in range(0, len(tensor), 2))
    head = json.dumps({"inputs": [{"name": "x", "shape": [rows, width], "datatype": "FP32",
                                   "parameters": {"binary_data_size": len(data)}}],
                       "parameters": {"binary_data_output": True, **parameters}}).encode()
    return request_bytes("POST", f"/v2/models/{model}/infer", head + data, {"Inference-Header-Content-Length": len(head)})


class Pool:
    """Kept connections: as many as there are requests at a time."""

    def __init__(self, port):
        self._port, self._free = port, []

    async def ask(self, data, rows=1):
        """Sends one request; an Outcome."""
        began = time.monotonic()
        try:
            reader, writer = self._free.pop() if self._free else await asyncio.open_connection(HOST, self._port)
            writer.write(data)
            status, headers, _ = await asyncio.wait_for(read_answer(reader), LATE_SECONDS)
            if headers.get("connection", "").lower() == "close":
                writer.close()
            else:
                self._free.append((reader, writer))
            return Outcome(status, rows, began, time.monotonic(), headers)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            return Outcome(0, rows, began, time.monotonic(), {})

    def close(self):
        for _, writer in self._free:
            writer.close()


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split(" ")[1]), headers


async def read_answer(reader):
    status, headers = await read_head(reader)
    return status, headers, await reader.readexactly(int(headers["content-length"]))


async def closed_loop(pool, mix, clients, seconds):
    """So many clients, each with one request at a time; mix: [(weight, rows, bytes)]."""
    outcomes, end = [], time.monotonic() + seconds

    async def client(number):
        chance = random.Random(number)
        while time.monotonic() < end:
            (_, rows, data), = chance.choices(mix, [weight for weight, _, _ in mix])
            outcomes.append(await pool.ask(data, rows))

    await asyncio.gather(*(client(number) for number in range(clients)))
    return outcomes


async def open_loop(pool, mix, rows_per_second, seconds):
    """Requests at random times, whatever becomes of those before, so many rows a second on average."""
    chance, tasks, now = random.Random(7), [], time.monotonic()
    end, due = now + seconds, now
    weights = [weight for weight, _, _ in mix]
    mean_rows = sum(weight * rows for weight, rows, _ in mix) / sum(weights)
    while due < end:
        await asyncio.sleep(max(0, due - time.monotonic()))
        (_, rows, data), = chance.choices(mix, weights)
        tasks.append(asyncio.create_task(pool.ask(data, rows)))
        due += chance.expovariate(rows_per_second / mean_rows)
    return await asyncio.gather(*tasks)


def rows_per_second(outcomes, began, ended):
    """Of answers between two moments."""
    return sum(o.rows for o in outcomes if o.status == 200 and began <= o.ended < ended) / (ended - began)


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def resident_mb(server):
    return server.resident_kb() / 1024
