"""The server as a process: the reader of its log, descriptors, signals, limits."""

import contextlib
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from support.http import HOST, PATIENCE_SECONDS, Client
from support.models import Tiny, write_slow
from support.prometheus import Metrics
from support.server import BINARY, LISTENING, RUNNING_URL, START_SECONDS, STOP_SECONDS, environment
from support.threads import Background

ROWS = {"instances": [[1, 2, 3, 4]]}
PATIENT = ("--drain-timeout-ms", "300000")  # a slow request under sanitizers on a busy machine


def line_of(fd, pattern, seconds=START_SECONDS):
    """Reads from a pipe until a line matches."""
    text, found, deadline = "", None, time.monotonic() + seconds
    while select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
        piece = os.read(fd, 4096).decode(errors="replace")
        text += piece
        found = pattern.search(text)
        if found or not piece:
            break
    if not found:
        raise AssertionError(f"no {pattern.pattern} in:\n{text}")
    return found


@unittest.skipIf(RUNNING_URL, "about a server's process; MOED_SERVER_URL names one that has started")
class ProcessCase(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="moed-process-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        Tiny().write(os.path.join(self.directory, "tiny"))

    def start(self, *flags, listening=LISTENING, journal=False, **settings):
        """A server whose standard error is a pipe of the smallest size that nobody reads any more."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        pipe = os.fstat(writer)
        extra = {"JOURNAL_STREAM": f"{pipe.st_dev}:{pipe.st_ino + (not journal)}"}
        process = subprocess.Popen([BINARY, "serve", "--models", self.directory, "--port", "0", *flags],
                                   env=environment(extra), stderr=writer, stdin=subprocess.DEVNULL, **settings)
        os.close(writer)
        self.addCleanup(self.end, process)
        self.port = int(line_of(reader, listening)[2])
        return process, reader

    def end(self, process):
        if process.poll() is None:
            process.kill()
            process.wait()

    def client(self):
        client = Client(self.port)
        self.addCleanup(client.close)
        return client

    def assert_stops(self, process, status=0):
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(STOP_SECONDS), status)


class LogTest(ProcessCase):
    # More lines than the pipe (64 KiB) and the server's buffer (1 MiB) hold.
    path = "/v2/" + "x" * 500
    requests = 4000

    def flood(self, client):
        for _ in range(self.requests):
            self.assertEqual(client.get(self.path).status, 404)

    def test_a_reader_that_has_stopped_does_not_stop_the_server(self):
        process, _ = self.start()
        client = self.client()
        self.flood(client)
        self.assertEqual(client.get("/v2/health/live").status, 200)
        self.assertGreater(Metrics(client.get("/metrics").body.decode()).sum("moed_log_dropped_total"), 100)
        client.close()
        self.assert_stops(process)

    def test_a_reader_that_comes_back_is_told_what_it_missed(self):
        process, reader = self.start()
        client = self.client()
        self.flood(client)
        dropped = Metrics(client.get("/metrics").body.decode()).sum("moed_log_dropped_total")
        said = line_of(reader, re.compile(r"level=warning event=log_dropped lines=(\d+) total=(\d+)\n"))
        self.assertEqual((int(said[1]), int(said[2])), (dropped, dropped))
        client.close()
        self.assert_stops(process)

    def test_a_reader_that_is_gone_does_not_stop_the_server(self):
        reader, writer = os.pipe()
        process, pipe = self.start()
        os.close(reader), os.close(writer)
        client = self.client()
        os.dup2(os.open(os.devnull, os.O_RDONLY), pipe)  # closes the last reader
        for _ in range(100):
            self.assertEqual(client.get(self.path).status, 404)
        client.close()
        self.assert_stops(process)

    def test_everything_logged_is_there_at_the_end(self):
        process, reader = self.start()
        client = self.client()
        for _ in range(50):
            client.get(self.path)
        client.close()
        self.assert_stops(process)
        text = ""
        while piece := os.read(reader, 1 << 16):
            text += piece.decode()
        self.assertEqual(text.count("event=request"), 50)
        self.assertIn("event=drained", text)

    def test_what_an_operator_should_hear_of_is_a_warning(self):
        write_slow(os.path.join(self.directory, "slow"), seconds=0.05)
        process, reader = self.start("--log-level", "warning", "--max-queue-rows", "1", "--max-request-rows", "1",
                                     "--max-batch-rows", "1", "--threads", "1", "--queue-timeout-ms", "60000")
        answers, deadline = set(), time.monotonic() + PATIENCE_SECONDS
        while 429 not in answers:  # on a busy machine six requests may come one after another
            self.assertLess(time.monotonic(), deadline, "never refused")
            answers.update(Background(6, lambda _: self.client().predict("slow", ROWS["instances"]).status).join())
            self.assertLessEqual(answers, {200, 429})
        line_of(reader, re.compile(r"level=warning event=request client=127\.0\.0\.1 .*status=429"))
        self.assert_stops(process)


    def test_json_lines(self):
        process, reader = self.start("--log-format", "json",
                                     listening=re.compile(r'"url":"(http://\S+:(\d+))"}$', re.M))
        with self.client() as client:
            answer = client.post("/v1/models/tiny:predict", ROWS, {"X-Request-Id": "abc-1"})
            self.assertEqual(answer.headers["x-request-id"], "abc-1")
            self.assertEqual(client.get("/no\"such\\").status, 404)
        self.assert_stops(process)
        text = ""
        while piece := os.read(reader, 1 << 16):
            text += piece.decode()
        lines = [json.loads(line) for line in text.splitlines()]
        (request,) = [line for line in lines if line["event"] == "request" and line["status"] == 200]
        self.assertEqual((request["level"], request["id"], request["rows"]), ("info", "abc-1", len(ROWS["instances"])))
        for key in ("queue_ms", "compute_ms", "encode_ms", "ms"):
            self.assertGreaterEqual(request[key], 0)
        self.assertEqual(lines[-1]["event"], "drained")

    def test_the_journal_is_told_the_level(self):
        process, reader = self.start("--log-max-per-second", "0", journal=True,
                                     listening=re.compile(r"^<6>listening on (http://\S+:(\d+))$", re.M))
        self.assertEqual(self.client().get("/v2").status, 200)
        self.assert_stops(process)
        text = ""
        while piece := os.read(reader, 1 << 16):
            text += piece.decode()
        self.assertRegex(text, r"(?m)^<6>time=\S+ level=info event=request .*status=200")
        self.assertEqual([line for line in text.splitlines() if not re.match("<[3467]>", line)], [])

    def test_every_request_has_an_id(self):
        process, reader = self.start()
        with self.client() as client:
            made = {client.get(path).headers["x-request-id"] for path in ("/v2", "/v2", "/nowhere", "/v2/models/x")}
            self.assertEqual(len(made), 4)
            body = {"id": "mine", "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
            infer = "/v2/models/tiny/infer"
            self.assertEqual(client.post(infer, body).headers["x-request-id"], "mine")
            self.assertEqual(client.post(infer, body, {"X-Request-Id": "hers"}).headers["x-request-id"], "hers")
            self.assertEqual(client.post(infer, {**body, "inputs": []}, {"X-Request-Id": "bad"}).status, 400)
            for bad in ("x" * 64, "a b", "\xe4"):
                self.assertRegex(client.get("/v2", {"X-Request-Id": bad}).headers["x-request-id"], "^[0-9a-f]{16}$")
        line_of(reader, re.compile(r"status=400 .* id=bad .*error="))
        self.assert_stops(process)

    def test_a_flood_is_sampled(self):
        process, reader = self.start("--log-max-per-second", "3")
        with self.client() as client:
            for _ in range(100):
                client.get("/v2")
            time.sleep(1.1)
            client.get("/v2/last")
        self.assert_stops(process)
        text = ""
        while piece := os.read(reader, 1 << 16):
            text += piece.decode()
        written = text.count("event=request")
        self.assertLess(written, 20)
        self.assertEqual(sum(map(int, re.findall(r"unwritten=(\d+)", text))), 101 - written)

    def test_slow_requests_and_levels_at_run_time(self):
        write_slow(os.path.join(self.directory, "slow"), seconds=0.2)
        process, reader = self.start("--log-level", "error", "--log-slow-ms", "50", "--admin")
        with self.client() as client:
            answer = client.post("/v2/logging", {"log_warning": True, "log_info": False})
            self.assertEqual((answer.status, answer.json["log_warning"], answer.json["log_info"]), (200, True, False))
            for body in ({"log_error": False}, {"log_file": "x"}, {"level": 1}, {"log_info": 1}, []):
                self.assertEqual(client.post("/v2/logging", body).status, 400)
            self.assertEqual(client.get("/v2/logging").json, answer.json)
            self.assertEqual(client.predict("slow", ROWS["instances"]).status, 200)
            line_of(reader, re.compile(r"level=warning event=request .*model=slow .*slow=true"))
        self.assert_stops(process)


class DescriptorsTest(ProcessCase):
    def test_descriptors_that_are_closed_at_the_start(self):
        for closed in ((0,), (1,), (2,), (0, 1), (0, 1, 2)):
            with self.subTest(closed):
                self.serve_without(closed)

    def serve_without(self, closed):
        with socket.socket() as probe:  # a server without standard error cannot say which port it took
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen([BINARY, "serve", "--models", self.directory, "--port", str(port)],
                                   env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL,
                                   preexec_fn=lambda: [os.close(fd) for fd in closed])
        self.addCleanup(self.end, process)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError), Client(port) as client:
                while client.predict("tiny", ROWS["instances"]).status == 503:
                    self.assertLess(time.monotonic(), deadline)  # it is being loaded
                for _ in range(1000):
                    self.assertEqual(client.predict("tiny", ROWS["instances"]).status, 200)
                break
        for fd in closed:
            self.assertEqual(os.readlink(f"/proc/{process.pid}/fd/{fd}"), "/dev/null")
        self.assert_stops(process)


class SignalsTest(ProcessCase):
    def setUp(self):
        super().setUp()
        write_slow(os.path.join(self.directory, "slow"), seconds=0.2)

    def send_during_a_request(self, process, number):
        request = Background(1, lambda _: self.client().predict("slow", ROWS["instances"]).status)
        time.sleep(0.05)
        process.send_signal(number)
        self.assertEqual(request.join(), [200])

    def test_signals_that_mean_another_program(self):
        process, reader = self.start()
        for number in ("HUP", "USR1", "USR2", "ALRM", "PIPE", "IO", "PROF", "VTALRM", "XFSZ"):
            with self.subTest(number):
                self.send_during_a_request(process, getattr(signal, "SIG" + number))
        line_of(reader, re.compile("event=reloading message=.SIGHUP"))
        self.assert_stops(process)

    def on_a_terminal(self, *before, hangups=signal.SIG_DFL):
        """A server in the foreground of a terminal, with its log elsewhere: its process, the terminal, the log."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        pid, terminal = pty.fork()
        if pid == 0:
            signal.signal(signal.SIGHUP, hangups)  # whatever these tests were started with
            os.dup2(writer, 2)
            os.execve(before[0] if before else BINARY,
                      [*before, BINARY, "serve", "--models", self.directory, "--port", "0", *PATIENT], environment())
        os.close(writer)
        self.port = int(line_of(reader, LISTENING)[2])
        return pid, terminal, reader

    def test_a_terminal_that_is_closed(self):
        """Whoever started it there is gone; as long as the terminal is there SIGHUP means look again."""
        pid, terminal, reader = self.on_a_terminal()
        os.kill(pid, signal.SIGHUP)
        line_of(reader, re.compile("event=reloading message=.SIGHUP"))
        request = Background(1, lambda _: self.client().predict("slow", ROWS["instances"]).status)
        time.sleep(0.05)
        os.close(terminal)
        self.assertEqual(request.join(), [200])
        line_of(reader, re.compile("event=stopping message=.SIGHUP, and the terminal is closed"))
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def test_a_server_that_a_terminal_has_let_go(self):
        """As setsid, a service manager or a job in the background: it outlives the terminal, and SIGHUP means look again."""
        pid, terminal, reader = self.on_a_terminal("/usr/bin/setsid", "--wait")
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            server = int(file.read())
        os.close(terminal)
        os.waitpid(pid, 0)
        self.assert_looks_again(server, reader)

    def test_a_server_that_shall_outlive_its_terminal(self):
        """As after nohup or trap '' HUP."""
        pid, terminal, reader = self.on_a_terminal(hangups=signal.SIG_IGN)
        os.close(terminal)
        self.assert_looks_again(pid, reader)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def assert_looks_again(self, server, reader):
        os.kill(server, signal.SIGHUP)
        line_of(reader, re.compile("event=reloading message=.SIGHUP"))
        self.assertEqual(self.client().get("/v2/health/ready").status, 200)
        os.kill(server, signal.SIGTERM)
        line_of(reader, re.compile("event=drained"))

    def test_sigquit_drains(self):
        process, reader = self.start(*PATIENT)
        self.send_during_a_request(process, signal.SIGQUIT)
        self.assertEqual(process.wait(STOP_SECONDS), 0)
        line_of(reader, re.compile("event=stopping message=.SIGQUIT"))


class FilesTest(ProcessCase):
    def test_the_defaults_start_where_few_files_may_be_open(self):
        limit = (1024, 1024)
        adapted = re.compile("level=warning event=few_files .*at most 9\\d\\d connections(?s:.*)" + LISTENING.pattern, re.M)
        process, _ = self.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit), listening=adapted)
        self.assertEqual(self.client().get("/v2/health/ready").status, 200)
        self.assert_stops(process)

    def test_a_number_that_cannot_be_had_is_refused(self):
        ended = subprocess.run([BINARY, "serve", "--models", self.directory, "--max-connections", "1024"],
                               env=environment(), stderr=subprocess.PIPE, text=True, timeout=START_SECONDS,
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)))
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"1024 connections need \d+ open files, but at most 1024 are allowed")


if __name__ == "__main__":
    unittest.main()
