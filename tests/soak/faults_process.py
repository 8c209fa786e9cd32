"""Faults of the process, its files and its operators."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time

from support.http import HOST, Client, Connection, request_bytes
from support.models import write_table
from support.prometheus import Metrics
from support.server import BINARY, Server, environment

from site_of_fault import GOOD, PATIENCE_SECONDS, Good, Row, Site, try_fault

TABLE = {"instances": [[5], [60000]]}


# ---- files of its own -----------------------------------------------------------------------------------------------

@contextlib.contextmanager
def small_disk(directory):
    """A file system of 64 KB, mounted: needs root."""
    path = os.path.join(directory, "disk")
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def disk_full(models, directory):
    with small_disk(directory) as disk:
        def fill(site):
            with contextlib.suppress(OSError), open(os.path.join(disk, "rest"), "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            time.sleep(2)
            os.unlink(os.path.join(disk, "rest"))
            time.sleep(1)
            saved = [name for name in os.listdir(disk) if name.endswith(".routing")]
            return "the disk of --state is full for 2 s", "" if saved else f"nothing is saved afterwards: {os.listdir(disk)}"

        return try_fault(fill, models, state=disk, state_interval_ms=200)


def disk_read_only(models, directory):
    """From the start: one that has open files cannot be made so."""
    with small_disk(directory) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

        def wait(site):
            time.sleep(2)
            told = wait_for(lambda: "state" in site.server.log())
            return "the disk of --state is read-only", "" if told else "nothing in the log"

        return try_fault(wait, models, state=disk, state_interval_ms=200, log_level="warning")


def log_stopped(models):
    """Standard error is a pipe that nobody reads, with a line for every request."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    reading, writing = os.pipe()
    process = subprocess.Popen([BINARY, "serve", "--models", models, "--port", str(port), "--log-level", "info", "--log-max-per-second", "0"],
                               env=environment(), stdout=subprocess.DEVNULL, stderr=writing)
    os.close(writing)
    failed, asked, began = 0, 0, time.monotonic()
    try:
        while time.monotonic() < began + PATIENCE_SECONDS:
            with contextlib.suppress(OSError), Connection(port) as connection:
                if Good.ask(connection, request_bytes("GET", "/v2/health/ready"))[0] == 200:
                    break
            time.sleep(0.05)
        with Connection(port, timeout=PATIENCE_SECONDS) as connection:
            while asked < 4000:
                asked += 1
                failed += Good.ask(connection, GOOD[0])[0] != 200
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE_SECONDS)
        return Row("", "standard error is a pipe that nobody reads", lost=f"{failed} of {asked}",
                   wrong="" if failed == 0 and status == 0 else f"{failed} failed, status {status}")
    finally:
        os.close(reading)
        process.kill()
        process.wait()


# ---- signals --------------------------------------------------------------------------------------------------------

def stopped(site):
    site.server.signal(signal.SIGSTOP)
    time.sleep(2)
    site.server.signal(signal.SIGCONT)
    return "SIGSTOP, and SIGCONT 2 s later"


def killed(models, directory):
    """kill -9 under load; the next one on the same port has the statistics, but for the last interval."""
    state = os.path.join(directory, "state")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    site = Site(models, port=port, state=state, state_interval_ms=200)
    try:
        time.sleep(2)
        with Client(port) as client:  # and what is counted now is saved before the end
            rows = Metrics(client.get("/metrics").body.decode()).value("moed_rows_total", model="tiny", version="1")
        time.sleep(1)
        site.server.signal(signal.SIGKILL)
        site.server.wait()
        began = time.monotonic()
        again = Server(models, **site.options)
        try:
            recovery = site.recover()
            took = time.monotonic() - began
            time.sleep(0.5)
            site.good.stop()
            with Client(port) as client:
                kept = client.get("/v2/models/tiny/routing").json
            again.stop()
        finally:
            again.kill()
        expected = ("Closed", "Connection", "BrokenPipe", "503 b'{\"error\": \"model")  # which is being loaded
        strange = [failure for failure in site.good.failures if not failure.startswith(expected)]
        wrong = strange[0] if strange else "" if recovery is not None else "does not come back"
        if not wrong and kept["rows"] < rows:
            wrong = f"{kept['rows']} rows are counted, {rows} were before the last 200 ms"
        return Row("", f"kill -9 under load, a new start on the same port; {kept['rows']:.0f} of {rows:.0f} rows still counted",
                   lost=f"{len(site.good.failures)} of {site.good.asked}, in flight or while there was no server",
                   recovery=f"{took * 1e3:.0f} ms", wrong=wrong)
    finally:
        site.close()


# ---- models ---------------------------------------------------------------------------------------------------------

def table_status(site):
    return site.client.predict("table", TABLE["instances"]).status


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def truncated(site):
    before = table_status(site)
    os.truncate(os.path.join(site.models, "table", "model.safetensors"), 4096)
    refused = wait_for(lambda: table_status(site) == 503)
    return "a mapped model file is truncated", "" if before == 200 and refused else f"{before}, then {table_status(site)}"


def replaced(site):
    path = os.path.join(site.models, "table")
    before = site.client.predict("table", TABLE["instances"]).json
    write_table(path + ".new", seed=2)
    os.rename(path, os.path.join(site.models, ".old"))
    os.rename(path + ".new", path)
    site.server.signal(signal.SIGHUP)
    changed = wait_for(lambda: site.client.predict("table", TABLE["instances"]).json != before)
    return "a model's directory is replaced, SIGHUP", "" if changed and table_status(site) == 200 else "the old one is served"


def deleted(site):
    shutil.rmtree(os.path.join(site.models, "table"))
    between = table_status(site)
    site.server.signal(signal.SIGHUP)
    gone = wait_for(lambda: table_status(site) == 404)
    return "a model's directory is deleted, SIGHUP", "" if between == 200 and gone else f"{between}, then {table_status(site)}"


def half_copied(site):
    path = os.path.join(site.models, "half")
    shutil.copytree(os.path.join(site.models, "table"), path)
    os.truncate(os.path.join(path, "model.safetensors"), 100000)
    site.server.signal(signal.SIGHUP)
    told = wait_for(lambda: site.client.predict("half", [[1]]).status == 503)
    return "a half-copied model, SIGHUP", "" if told and table_status(site) == 200 else "not told"


def with_copy(fault, models, directory):
    copy = os.path.join(directory, "copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(models, copy)
    return try_fault(fault, copy)


def faults(models, directory):
    """(name, function that gives a Row)"""
    if os.geteuid() == 0:
        yield "disk full", lambda: disk_full(models, directory)
        yield "disk read-only", lambda: disk_read_only(models, directory)
    yield "log pipe stopped", lambda: log_stopped(models)
    yield "stopped and continued", lambda: try_fault(stopped, models)
    yield "killed under load", lambda: killed(models, directory)
    for name, fault in (("model truncated", truncated), ("model replaced", replaced), ("model deleted", deleted),
                        ("model half-copied", half_copied)):
        yield name, lambda fault=fault: with_copy(fault, models, directory)
