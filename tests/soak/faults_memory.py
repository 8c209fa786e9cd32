"""Faults of memory and of the clock. faults.c is preloaded for those that no system call brings about."""

import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import time

from support.http import Closed, Connection, request_bytes
from support.server import BINARY, LISTENING, environment

from clients import infer_bytes
from site_of_fault import PATIENCE_SECONDS, WIDTH, Row, try_fault

HERE = os.path.dirname(os.path.abspath(__file__))
PREDICT = "/v1/models/tiny:predict"
FIRST = 5000
LAST_WORDS = "out of memory"


class Preload:
    """faults.c, compiled, and its page."""

    def __init__(self, directory):
        self.library, path = os.path.join(directory, "faults.so"), os.path.join(directory, "page")
        if not os.path.exists(self.library):
            subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", self.library, os.path.join(HERE, "faults.c"), "-ldl"], check=True)
        with open(path, "w+b") as file:
            file.write(bytes(4096))
            file.flush()
            self.page = mmap.mmap(file.fileno(), 4096)
        self.env = {"LD_PRELOAD": self.library, "FAULTS_PAGE": path}

    def set(self, clock_offset_s=0, fails_in=0):
        self.page[:16] = struct.pack("<qq", clock_offset_s, fails_in)

    @property
    def pending(self):
        return struct.unpack("<q", self.page[8:16])[0]

    @property
    def allocated(self):
        return struct.unpack("<q", self.page[16:24])[0]


def clock_jumps(preload, site):
    for offset in (86400 * 365, -86400 * 365 * 20, 3, -3, 0):
        preload.set(clock_offset_s=offset)
        time.sleep(0.6)
    return "the wall clock jumps a year ahead, 20 years back, 3 s to and fro"


def memory_limit(site):
    """No more address space than is in use and 100 MB."""
    with open(f"/proc/{site.pid}/status", encoding="ascii") as file:
        used = next(int(line.split()[1]) for line in file if line.startswith("VmSize:")) * 1024
    hard = resource.prlimit(site.pid, resource.RLIMIT_AS)
    resource.prlimit(site.pid, resource.RLIMIT_AS, (used + (100 << 20), hard[1]))
    statuses, connections = {}, [Connection(site.port, timeout=PATIENCE_SECONDS) for _ in range(12)]
    for connection in connections:
        connection.send(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n".encode() + b" " * 1000)
    for connection in connections:
        try:
            for _ in range(4):
                connection.send(b" " * 9999750)
            status = connection.answer("POST").status
        except (OSError, Closed):
            status = "closed"
        statuses[status] = statuses.get(status, 0) + 1
        connection.close()
    resource.prlimit(site.pid, resource.RLIMIT_AS, hard)
    alive = site.server.process.poll() is None
    return f"12 bodies of 40 MB where 100 MB can be had: {statuses}", "" if alive else f"the process ended: {site.server.log()[-200:]}"


# ---- the n-th allocation --------------------------------------------------------------------------------------------

def script():
    """Requests for every kind of route: (bytes, statuses that are right)."""
    ask = lambda method, path, body=b"", **headers: request_bytes(method, path, body, headers)
    rows = b'{"instances": [[1, 2, 3, 4], [5, 6, 7, 8]], "routing": true}'
    yield from (ask("GET", path) for path in (
        "/", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/config", "/v2/models/tiny/ready", "/metrics",
        "/v2/models/tiny/stats", "/v2/models/tiny/routing", "/v2/models/tiny/routing?window=1m&include=ranks,pairs",
        "/v1/models", "/v1/models/tiny", "/v2/nothing"))
    yield ask("POST", PREDICT, rows)
    yield ask("POST", PREDICT, b'{"instances": [[1, 2, 3')
    yield ask("POST", "/v2/models/tiny/infer", json.dumps({"id": "a", "parameters": {"tag": "me"}, "inputs": [
        {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}).encode())
    yield infer_bytes("wide", 3, WIDTH, priority=1)
    yield ask("POST", "/v2/repository/index", b"{}")
    yield ask("GET", "/v2/logging")


class Bare:
    """A server without a good client: every allocation is the script's."""

    def __init__(self, models, preload, directory):
        preload.set()
        self.log = open(os.path.join(directory, "bare.log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen([BINARY, "serve", "--models", models, "--port", "0", "--threads", "1", "--log-level", "error", "--admin", "true"],
                                        env=environment(preload.env), stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := LISTENING.search(self.text())) and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self.port = int(found[2])
        self.ask_all()  # what is allocated once and for all

    def text(self):
        return os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")

    def ask_all(self, fails_in=None, preload=None):
        """(statuses, how many were not answered)"""
        statuses, unanswered = [], 0
        if fails_in:
            preload.set(fails_in=fails_in)
        for data in script():
            try:
                with Connection(self.port, timeout=20) as connection:
                    connection.send(data)
                    statuses.append(connection.answer("GET").status)
            except (OSError, Closed):
                unanswered += 1
        return statuses, unanswered

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


def allocations(models, directory, count):
    """Each of `count` of the first allocations of the script fails in turn. The server answers on, or it says why it ends."""
    preload = Preload(directory)
    bare = Bare(models, preload, directory)
    before = preload.allocated
    expected, _ = bare.ask_all()
    total = preload.allocated - before
    served = ended = refused = 0
    wrong = []
    for number in range(count):
        n = 1 + number * min(total, FIRST) // count
        statuses, unanswered = bare.ask_all(n, preload)
        preload.set()
        time.sleep(0.02)
        if bare.process.poll() is None and unanswered <= 1:
            served += 1
            refused += statuses != expected
        elif bare.process.wait(PATIENCE_SECONDS) == -signal.SIGABRT and LAST_WORDS in bare.text():
            ended += 1
        else:
            wrong.append(f"allocation {n}: status {bare.process.poll()}, {unanswered} unanswered, {bare.text()[-150:]!r}")
        if bare.process.poll() is not None:
            bare.close()
            bare = Bare(models, preload, directory)
    again, unanswered = bare.ask_all()
    if again != expected or unanswered:
        wrong.append("what is answered afterwards differs")
    bare.close()
    return Row("", f"{count} of the {total} allocations of a script of all routes fail, one at a time",
               lost=f"{served} times it serves on ({refused} with another answer), {ended} times it says '{LAST_WORDS}' and aborts",
               wrong="; ".join(wrong[:3]))


def faults(models, directory, count):
    preload = Preload(directory)
    yield "clock jumps", lambda: try_fault(lambda site: clock_jumps(preload, site), models, env=preload.env)
    yield "memory limit", lambda: try_fault(memory_limit, models, grows_mb=128)
    yield "failing allocations", lambda: allocations(models, directory, count)
