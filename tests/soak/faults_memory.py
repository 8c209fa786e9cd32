"""Faults of memory and of the clock. faults.c is preloaded for those that no system call brings about."""

import mmap
import os
import resource
import struct
import subprocess
import time

from support.http import Closed, Connection

from faults_allocations import allocations
from site_of_fault import PATIENCE_SECONDS, try_fault

HERE = os.path.dirname(os.path.abspath(__file__))
PREDICT = "/v1/models/tiny:predict"


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
        # A sanitizer wants to be the first to be loaded, and ends the process where malloc() would return NULL.
        self.env = {"LD_PRELOAD": self.library, "FAULTS_PAGE": path,
                    "ASAN_OPTIONS": "verify_asan_link_order=0:allocator_may_return_null=1"}

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


def faults(models, directory, count):
    preload = Preload(directory)
    bare = os.path.join(directory, "bare")
    os.makedirs(bare, exist_ok=True)
    yield "clock jumps", lambda: try_fault(lambda site: clock_jumps(preload, site), models, env=preload.env)
    yield "memory limit", lambda: try_fault(memory_limit, models, grows_mb=128)
    yield "failing allocations", lambda: allocations(os.path.join(bare, "models"), preload, bare, count)
