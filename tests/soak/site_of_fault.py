"""A server under a fault, a good client that asks all the while, and what became of both."""

import contextlib
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from support.http import Client, Closed, Connection, request_bytes
from support.models import Tiny, write_table, write_wide
from support.server import Server

from clients import await_ready, infer_bytes, resident_mb

WIDTH = 1664
PATIENCE_SECONDS = 60
GOOD = [request_bytes("POST", "/v1/models/tiny:predict", b'{"instances": [[1, 2, 3, 4]]}'),
        infer_bytes("wide", 2, WIDTH), request_bytes("GET", "/v2/health/live")]


def write_repository(directory):
    Tiny().write(os.path.join(directory, "tiny"))
    write_wide(os.path.join(directory, "wide"), width=WIDTH)
    write_table(os.path.join(directory, "table"))


class Good:
    """One client that asks for two models and for health; every answer must be the first one, bit for bit.

    gives_way: a kept connection may be closed before anything of an answer has come, as HTTP allows. Then it sends the
    request again on a new connection, where it must be answered, and counts it in gave_way."""

    def __init__(self, port, gives_way=False):
        self.port, self.asked, self.failures, self.slowest = port, 0, [], 0.0
        self.gives_way, self.gave_way = gives_way, 0
        self.expected = [self.ask(Connection(port), data) for data in GOOD]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    @staticmethod
    def ask(connection, data):
        connection.send(data)
        answer = connection.answer("POST" if data.startswith(b"POST") else "GET")
        return answer.status, answer.body

    def ask_kept(self, connection, data):
        """(the connection to keep, its answer)"""
        if connection and self.gives_way:
            try:
                return connection, self.ask(connection, data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            except Closed as closed:
                if closed.received:
                    raise
            connection.close()
            connection = None
            self.gave_way += 1
        connection = connection or Connection(self.port, timeout=PATIENCE_SECONDS)
        return connection, self.ask(connection, data)

    def run(self):
        connection = None
        while not self.stopped.wait(0.02):
            which = self.asked % len(GOOD)
            began = time.monotonic()
            self.asked += 1
            try:
                connection, answer = self.ask_kept(connection, GOOD[which])
                if answer != self.expected[which]:
                    self.failures.append(f"{answer[0]} {answer[1][:80]!r}")
            except (OSError, Closed) as failure:
                connection = None
                self.failures.append(type(failure).__name__)
            self.slowest = max(self.slowest, time.monotonic() - began)

    def stop(self):
        self.stopped.set()
        self.thread.join()


class Site:
    """options: of the server; models: the repository."""

    def __init__(self, models, env=None, gives_way=False, **options):
        self.models, self.env = models, env
        self.options = {"log_level": "error", "threads": 2, "max_batch_rows": 16, "non_finite": "accept", **options}
        self.server = Server(models, env=env, **self.options)
        try:
            await_ready(self.port)
            self.good = Good(self.server.port, gives_way)
        except BaseException:
            self.server.kill()
            raise
        self.client = Client(self.server.port, timeout=PATIENCE_SECONDS)
        time.sleep(0.3)
        self.resident = self.resident_mb()
        self.failed_before = len(self.good.failures)

    @property
    def port(self):
        return self.server.port

    @property
    def pid(self):
        return self.server.process.pid

    def resident_mb(self):
        return resident_mb(self.server)

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def recover(self):
        """Seconds until three good answers in a row on new connections; None: never."""
        began, row = time.monotonic(), 0
        while time.monotonic() < began + PATIENCE_SECONDS:
            try:
                with Connection(self.port, timeout=10) as connection:
                    row = row + 1 if Good.ask(connection, GOOD[2])[0] == 200 else 0
            except (OSError, Closed):
                row = 0
                time.sleep(0.02)
            if row == 3:
                return time.monotonic() - began
        return None

    def close(self):
        self.good.stop()
        self.client.close()
        self.server.kill()


class Row:
    """A line of the table."""

    def __init__(self, fault, injected, **figures):
        self.fault, self.injected = fault, injected
        self.lost = figures.get("lost", "0")
        self.memory = figures.get("memory", "")
        self.recovery = figures.get("recovery", "")
        self.wrong = figures.get("wrong", "")

    def markdown(self):
        cells = (self.fault, self.injected, self.lost, self.memory, self.recovery, self.wrong or "held")
        return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def try_fault(fault, models, grows_mb=64, **options):
    """Runs fault(site), which returns what was injected, or (what, what was wrong)."""
    site = Site(models, **options)
    try:
        injected = fault(site)
        injected, wrong = injected if isinstance(injected, tuple) else (injected, "")
        recovery = site.recover()
        time.sleep(0.3)
        grown = site.resident_mb() - site.resident
        site.good.stop()
        lost = len(site.good.failures) - site.failed_before
        kinds = sorted(set(site.good.failures))[:3]
        if not wrong and recovery is None:
            wrong = "does not recover"
        if not wrong and lost:
            wrong = f"good requests failed: {kinds}"
        if not wrong and grown > grows_mb:
            wrong = f"grew by {grown:.0f} MB"
        with contextlib.suppress(ProcessLookupError):
            site.server.signal(signal.SIGTERM)
            status = site.server.wait(PATIENCE_SECONDS)
            if status != 0 and not wrong:
                wrong = f"stopped with status {status}: {site.server.log()[-300:]}"
        again = f", {site.good.gave_way} sent again" if site.good.gives_way else ""
        return Row("", injected, lost=f"{lost} of {site.good.asked}{again}, slowest {site.good.slowest * 1e3:.0f} ms",
                   memory=f"{site.resident:.0f} MB {grown:+.1f}", recovery="" if recovery is None else f"{recovery * 1e3:.0f} ms",
                   wrong=wrong)
    finally:
        site.close()
