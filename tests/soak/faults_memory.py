"""Faults of memory and of the clock. faults.c is preloaded for those that no system call brings about."""

import contextlib
import mmap
import os
import resource
import struct
import subprocess
import time

from support.http import Closed, Connection
from support.server import BINARY

from faults_allocations import allocations
from site_of_fault import PATIENCE_SECONDS, Row, try_fault

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


def send_bodies(site, count):
    """{status: how many bodies of 40 MB were answered so}; all are announced before any goes on, and they come side by side."""
    statuses, connections = {}, [Connection(site.port, timeout=PATIENCE_SECONDS) for _ in range(count)]
    for connection in connections:
        connection.send(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n".encode() + b" " * 1000)
    for _ in range(4):
        for connection in connections:
            with contextlib.suppress(OSError):  # it has been refused
                connection.send(b" " * 9999750)
    for connection in connections:
        try:
            status = connection.answer("POST").status
        except (OSError, Closed):
            status = "closed"
        statuses[status] = statuses.get(status, 0) + 1
        connection.close()
    return statuses


class Group:
    """A cgroup below this process' own, of either version, with a limit of memory. OSError: that cannot be had."""

    def __init__(self, limit):
        with open("/proc/self/cgroup", encoding="ascii") as file:
            paths = {controllers: path for _, controllers, path in (line.strip().split(":", 2) for line in file)}
        old = "memory" in paths
        parent = "/sys/fs/cgroup" + ("/memory" if old else "") + paths["memory" if old else ""]
        self.path = os.path.join(parent, f"moed-faults-{os.getpid()}")
        self.peak, self.kills = ("memory.max_usage_in_bytes", "memory.oom_control") if old else ("memory.peak", "memory.events")
        os.mkdir(self.path)
        try:
            with open(os.path.join(self.path, "memory.limit_in_bytes" if old else "memory.max"), "w", encoding="ascii") as file:
                file.write(str(limit))
        except OSError:
            os.rmdir(self.path)
            raise

    def read(self, name):
        with open(os.path.join(self.path, name), encoding="ascii") as file:
            return file.read()

    def program(self, directory):
        """The server, as a program that joins the group before anything else."""
        path = os.path.join(directory, "moed-in-group")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\necho $$ >{self.path}/cgroup.procs && exec {BINARY} \"$@\"\n")
        os.chmod(path, 0o755)
        return path

    def used(self):
        """(the most bytes, processes that were killed)"""
        kills = next(line.split()[1] for line in self.read(self.kills).splitlines() if line.startswith("oom_kill "))
        return int(self.read(self.peak)), int(kills)

    def close(self):
        os.rmdir(self.path)


def group_limit(models, directory):
    """A container's memory, where bodies may have a third of it."""
    try:
        group = Group(192 << 20)
    except OSError as failure:
        return Row("", f"NOT RUN: no cgroup can be made: {failure}")

    def fault(site):
        statuses = send_bodies(site, 40)
        peak, kills = group.used()
        alive = site.server.process.poll() is None
        return (f"40 bodies of 40 MB, in a cgroup of 201 MB where bodies may have 67: {statuses}; at most {peak / 1e6:.0f} MB",
                "" if alive and kills == 0 else f"{kills} killed")

    try:
        return try_fault(fault, models, grows_mb=128, binary=group.program(directory), max_total_body_bytes=64 << 20,
                         max_body_bytes=48 << 20)
    finally:
        group.close()


def memory_limit(site):
    """No more address space than is in use and 100 MB."""
    with open(f"/proc/{site.pid}/status", encoding="ascii") as file:
        used = next(int(line.split()[1]) for line in file if line.startswith("VmSize:")) * 1024
    hard = resource.prlimit(site.pid, resource.RLIMIT_AS)
    resource.prlimit(site.pid, resource.RLIMIT_AS, (used + (100 << 20), hard[1]))
    statuses = send_bodies(site, 12)
    resource.prlimit(site.pid, resource.RLIMIT_AS, hard)
    alive = site.server.process.poll() is None
    return f"12 bodies of 40 MB where 100 MB can be had: {statuses}", "" if alive else f"the process ended: {site.server.log()[-200:]}"


def faults(models, directory, count):
    preload = Preload(directory)
    bare = os.path.join(directory, "bare")
    os.makedirs(bare, exist_ok=True)
    yield "clock jumps", lambda: try_fault(lambda site: clock_jumps(preload, site), models, env=preload.env)
    yield "memory limit", lambda: try_fault(memory_limit, models, grows_mb=128)
    yield "cgroup limit", lambda: group_limit(models, directory)
    yield "failing allocations", lambda: allocations(os.path.join(bare, "models"), preload, bare, count)
