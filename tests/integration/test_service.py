"""Under a service manager: readiness, signs of life and a socket that is handed over."""

import os
import signal
import socket
import subprocess
import tempfile
import unittest

from support.http import HOST, Client
from support.models import Tiny
from support.server import BINARY, RUNNING_URL, START_SECONDS, STOP_SECONDS, environment

ROWS = [[1, 2, 3, 4]]


@unittest.skipIf(RUNNING_URL, "about a server's process; MOED_SERVER_URL names one that has started")
class ServiceTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="moed-service-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        Tiny().write(os.path.join(self.directory, "models", "tiny"))
        self.manager = self.opened(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.manager.settimeout(STOP_SECONDS)
        self.manager.bind(os.path.join(self.directory, "notify"))

    def opened(self, closing):
        self.addCleanup(closing.close)
        return closing

    def start(self, *flags, given=None, **variables):
        """As a service manager does: the socket is descriptor 3, and LISTEN_PID is the server's own."""
        fd = given.fileno() if given else None
        script = "LISTEN_PID=$$ WATCHDOG_PID=${WATCHDOG_PID-$$} " + 'exec "$0" "$@"' + (f" 3<&{fd}" if given else "")
        process = subprocess.Popen(["sh", "-c", script, BINARY, "serve", "--models",
                                    os.path.join(self.directory, "models"), "--port", "0", *flags],
                                   env={**environment(), "NOTIFY_SOCKET": self.manager.getsockname(), **variables},
                                   pass_fds=(fd,) if given else (), stdin=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def listening(self, backlog=16):
        given = self.opened(socket.create_server((HOST, 0), backlog=backlog))
        return given, given.getsockname()[1]

    def heard(self):
        return self.manager.recv(4096).decode()

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(STOP_SECONDS), 0, process.stderr.read())

    def test_what_the_manager_is_told(self):
        process = self.start("--loops", "2", WATCHDOG_USEC="200000")
        said = [self.heard() for _ in range(4)]
        self.assertEqual(sorted(set(said)), ["READY=1", "WATCHDOG=1"])
        process.send_signal(signal.SIGTERM)
        while (word := self.heard()) == "WATCHDOG=1":
            pass
        self.assertEqual(word, "STOPPING=1")
        self.assertEqual(process.wait(STOP_SECONDS), 0)

    def test_a_socket_outlives_its_server(self):
        """Who connects while no server runs is answered by the next one, of any number of loops."""
        given, port = self.listening()
        for loops in ("1", "2"):
            with Client(port) as client:
                process = self.start("--loops", loops, given=given, LISTEN_FDS="1")
                self.assertEqual(client.get("/v2/health/live").status, 200)
                self.assertEqual(self.heard(), "READY=1")
                self.assertEqual(client.predict("tiny", ROWS).status, 200)
            self.stop(process)
            self.assertEqual(self.heard(), "STOPPING=1")

    def test_what_is_meant_for_another_process(self):
        process = self.start(WATCHDOG_USEC="1000", WATCHDOG_PID="1", LISTEN_FDS="0")
        self.assertEqual(self.heard(), "READY=1")
        self.stop(process)
        self.assertEqual(self.heard(), "STOPPING=1")

    def refused(self, message, **start):
        process = self.start(**start)
        self.assertEqual(process.wait(START_SECONDS), 1)
        self.assertIn(message, process.stderr.read())

    def test_what_cannot_be_used(self):
        given, _ = self.listening()
        self.refused("gives 2 sockets, expected one", given=given, LISTEN_FDS="2")
        unix = self.opened(socket.socket(socket.AF_UNIX))
        self.refused("is not one that listens for TCP", given=unix, LISTEN_FDS="1")
        self.refused('LISTEN_FDS is \\"x\\", expected a whole number', given=given, LISTEN_FDS="x")
        self.refused('WATCHDOG_USEC is \\"-1\\", expected a whole number', WATCHDOG_USEC="-1")
        self.refused("expected a path or @NAME", NOTIFY_SOCKET="relative")
        self.refused("cannot reach the service manager at /nowhere", NOTIFY_SOCKET="/nowhere")


if __name__ == "__main__":
    unittest.main()
