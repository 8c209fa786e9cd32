"""The server under test: the real binary on a free port, and the checks of every stop.

    MOED_BINARY      the binary to test (default build/release/moed)
    MOED_TEST_LOOPS  event loops of the servers (default 1)
    MOED_TEST_KERNEL the kernel that they multiply with (default: the best one of this machine)
    MOED_SERVER_URL  test a running server, for instance under gdb; tests that need options or models of
                     their own are skipped, and so are the checks of how it stops

Every test ends with a stop: SIGTERM, exit status 0, and no report from a sanitizer or a leak checker.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

from support.http import Client

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
SHIPPED_MODELS = os.path.join(ROOT, "deploy", "models")
BINARY = os.path.abspath(os.environ.get("MOED_BINARY", os.path.join(ROOT, "build", "release", "moed")))
RUNNING_URL = os.environ.get("MOED_SERVER_URL")

# Long enough for sanitized builds on a busy machine: these limits only detect a server that hangs.
START_SECONDS, STOP_SECONDS = 300, 300
# The default of 10 s is short for large batches under sanitizers on a busy machine.
QUEUE_TIMEOUT_MS = 300000
SANITIZER_WORDS = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|Assertion")
GRPC_LISTENING = re.compile(r"gRPC on \S+ port (\d+)")
LISTENING = re.compile(r"^listening on (https?://\S+:(\d+))$", re.MULTILINE)


def environment(extra=None):
    """The environment of a binary under test: without the machine's MOED_ settings; sanitizers end the process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MOED_")}
    if os.environ.get("MOED_TEST_KERNEL"):
        clean["MOED_KERNEL"] = os.environ["MOED_TEST_KERNEL"]
    return {"UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1", **clean, "OPENBLAS_NUM_THREADS": "1",
            **(extra or {})}


def run(*arguments, env=None, timeout=START_SECONDS):
    """Runs a command of the binary to its end; the CompletedProcess has text in stdout and stderr."""
    return subprocess.run([BINARY, *arguments], env=environment(env), capture_output=True, text=True, timeout=timeout,
                          check=False)


class Server:
    """A `moed serve` process. Options are keyword arguments: max_batch_rows=1 is --max-batch-rows 1."""

    def __init__(self, models=SHIPPED_MODELS, env=None, binary=BINARY, **options):
        options = {"models": models, "port": 0, "log_level": "warning", "loops": os.environ.get("MOED_TEST_LOOPS"),
                   "queue_timeout_ms": QUEUE_TIMEOUT_MS, **options}
        flags = [part for name, value in options.items() if value is not None
                 for part in ("--" + name.replace("_", "-"), str(value))]
        self._log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen([binary, "serve", *flags], env=environment(env), stdout=self._log,
                                        stderr=self._log, stdin=subprocess.DEVNULL)
        try:
            self.url, self.port = self._await_listening()
        except BaseException:
            self.kill()
            raise

    def _await_listening(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = LISTENING.search(self.log())
            if found:
                return found[1], int(found[2])
            if self.process.poll() is not None:
                raise AssertionError(f"the server died at its start, status {self.process.returncode}:\n{self.log()}")
            time.sleep(0.01)
        raise AssertionError(f"the server is not up after {START_SECONDS} s:\n{self.log()}")

    @property
    def grpc_port(self):
        """Of --grpc-port; needs the log's level to be info. The log is written by a thread of its own."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = GRPC_LISTENING.search(self.log())
            if found:
                return int(found[1])
            time.sleep(0.01)
        raise AssertionError(f"the log names no port of gRPC:\n{self.log()}")

    def resident_kb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))

    def cpu_seconds(self):
        """Of all threads."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def log(self):
        """All output so far."""
        return os.pread(self._log.fileno(), 1 << 26, 0).decode(errors="replace")

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout=STOP_SECONDS):
        """The exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server has not stopped after {timeout} s:\n{self.log()}") from None

    def stop(self):
        """Sends SIGTERM; AssertionError unless the server ends as it should."""
        try:
            if self.process.poll() is not None:
                raise AssertionError(f"the server died, status {self.process.returncode}:\n{self.log()}")
            self.signal()
            self.assert_clean(self.wait())
        finally:
            self.kill()

    def assert_clean(self, status):
        log = self.log()
        if status != 0 or SANITIZER_WORDS.search(log):
            raise AssertionError(f"the server stopped with status {status} and wrote:\n{log[-20000:]}")

    def kill(self):
        """Ends the process, whatever happened before."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill()


class RunningServer:
    """A server that someone else started and will stop."""

    def __init__(self):
        self.url = RUNNING_URL
        self.port = int(RUNNING_URL.rsplit(":", 1)[1])

    def stop(self):
        pass


class ServerCase(unittest.TestCase):
    """Tests on one server that is started for the class; `options` are its options.

    Subclasses whose tests do without options of their own and serve the shipped models also run against a server
    that is running already.
    """

    options = {}
    models = None  # a function that writes a model repository into the directory it is given; None: the shipped one

    @classmethod
    def setUpClass(cls):
        if RUNNING_URL and (cls.options or cls.models):
            raise unittest.SkipTest("needs a server of its own; MOED_SERVER_URL names a running one")
        cls._directory = tempfile.TemporaryDirectory(prefix="moed-models-")
        cls.addClassCleanup(cls._directory.cleanup)
        if cls.models:
            cls.models(cls._directory.name)
        cls.server = cls.start()
        cls.addClassCleanup(cls.server.stop)
        cls.client = Client(cls.server.port)
        cls.addClassCleanup(cls.client.close)

    @classmethod
    def start(cls, **options):
        """Another server, with the class's options and these."""
        if RUNNING_URL:
            return RunningServer()
        return Server(cls._directory.name if cls.models else SHIPPED_MODELS, **{**cls.options, **options})

    def new_client(self, **settings):
        client = Client(self.server.port, **settings)
        self.addCleanup(client.close)
        return client

    def await_log(self, pattern):
        deadline = time.monotonic() + 60
        while not re.search(pattern, self.server.log()) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertRegex(self.server.log(), pattern)

    def assert_error(self, answer, status, *words):
        """Expects a JSON error whose message contains all the words, whichever protocol's."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(list(answer.json), ["error"])
        error = answer.json["error"]
        for word in words:
            self.assertIn(word, error if isinstance(error, str) else error["message"])
