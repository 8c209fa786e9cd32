"""`moed probe`: what a container's health check believes."""

import socket
import unittest

from support.server import RUNNING_URL, Server, run

READY, NOT_READY, USAGE = 0, 1, 2


@unittest.skipIf(RUNNING_URL, "starts its own servers")
class ProbeTest(unittest.TestCase):
    def probe(self, *arguments, env=None):
        return run("probe", *map(str, arguments), env=env)

    def test_a_server_that_is_ready(self):
        server = Server()
        self.addCleanup(server.stop)
        for arguments, env in ((["--port", server.port], None), (["--port", server.port, "--live"], None),
                               ([], {"MOED_PORT": str(server.port), "MOED_HOST": "0.0.0.0"})):
            with self.subTest(arguments):
                ended = self.probe(*arguments, env=env)
                self.assertEqual((ended.returncode, ended.stdout), (READY, "ok\n"), ended.stderr)

    def test_nobody_there(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        ended = self.probe("--port", port)
        self.assertEqual(ended.returncode, NOT_READY)
        self.assertIn(f"http://127.0.0.1:{port}/v2/health/ready: Connection refused", ended.stderr)

    def test_one_that_never_answers(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        ended = self.probe("--port", listener.getsockname()[1], "--timeout-ms", 50)
        self.assertEqual(ended.returncode, NOT_READY)
        self.assertIn("no answer in time", ended.stderr)

    def test_wrong_usage(self):
        for arguments in (["--port", "0"], ["--port"], ["--port", "http"], ["--timeout-ms", "x"], ["--colour"], ["here"]):
            with self.subTest(arguments):
                ended = self.probe(*arguments)
                self.assertEqual(ended.returncode, USAGE, ended.stderr)
                self.assertIn("moed help probe", ended.stderr)

    def test_a_port_that_kubernetes_made(self):
        ended = self.probe(env={"MOED_PORT": "tcp://10.0.0.7:80", "MOED_HOST": "127.0.0.1"})
        self.assertNotEqual(ended.returncode, USAGE, ended.stderr)


if __name__ == "__main__":
    unittest.main()
