"""Hostile requests: they try to hold a connection, leak memory, lose an answer or be read in two ways."""

import json
import os
import time
import unittest

from support.http import Connection, request_bytes
from support.models import Tiny
from support.server import Server, ServerCase

PREDICT = "/v1/models/tiny:predict"
BODY = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
HEADER_LIMIT = 32 << 10


class HostileCase(ServerCase):
    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))

    def connect(self):
        connection = Connection(self.server.port)
        self.addCleanup(connection.close)
        return connection

    def assert_serving(self):
        began = time.monotonic()
        with Connection(self.server.port) as connection:
            self.assertEqual(connection.request("POST", PREDICT, BODY).status, 200)
        self.assertLess(time.monotonic() - began, 60)

    def assert_only_answer(self, data, status, *words):
        """One JSON error, and nothing that could be the answer to another request."""
        connection = self.connect()
        connection.send(data)
        answer = connection.answer()
        self.assert_error(answer, status, *words)
        self.assertTrue(answer.closes)
        self.assertTrue(connection.wait_closed())

    def ask(self, data):
        connection = self.connect()
        connection.send(data)
        return connection.answer()


class HeldConnectionsTest(HostileCase):
    """An endless chunk-size line once occupied a connection for ever, and half a core."""

    options = {"max_connections": 256, "loops": 1}
    endless = CHUNKED + b"5;" + b"a" * 40000

    def test_200_at_once(self):
        self.client.close()
        for _ in range(2):
            clients = [self.connect() for _ in range(200)]
            for client in clients:
                client.send(self.endless)
            self.assert_serving()
            for client in clients:
                client.close()
        deadline = time.monotonic() + 10
        places = [self.connect() for _ in range(250)]
        for connection in places:
            connection.send(LIVE)
            connection.socket.settimeout(max(0.1, deadline - time.monotonic()))
            self.assertEqual(connection.answer().status, 200)

    def test_nothing_spins(self):
        def processor_seconds():
            with open(f"/proc/{self.server.process.pid}/stat", encoding="ascii") as stat:
                return sum(int(ticks) for ticks in stat.read().rsplit(")", 1)[1].split()[11:13]) / os.sysconf("SC_CLK_TCK")

        unfinished = (self.endless, CHUNKED + b"5;" + b"a" * 100, CHUNKED, CHUNKED + b"0\r\nX: ", LIVE[:-1], b"GET /",
                      request_bytes("POST", PREDICT, b"x", {"Content-Length": 60000}), LIVE * 20 + LIVE[:20])
        clients = [self.connect() for _ in unfinished]
        for client, data in zip(clients, unfinished):
            client.send(data)
        time.sleep(0.5)
        before = processor_seconds()
        time.sleep(1)
        self.assertLess(processor_seconds() - before, 0.3)


class MemoryTest(HostileCase):
    """A target with too many parameters once leaked."""

    options = {"loops": 1, "env": {"ASAN_OPTIONS": "quarantine_size_mb=1"}}

    def test_2000_long_targets(self):
        request = b"GET /" + b"p" * 24000 + b"?" + b"a&" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        connection = self.connect()
        for i in range(2300):
            connection.send(request)
            self.assertEqual(connection.answer().status, 404)
            if i == 300:
                before = self.server.resident_kb()
        self.assertLess(self.server.resident_kb() - before, 8192)


class HeaderSizeTest(HostileCase):
    """If a header left too little memory for that of the answer, a request was once computed but not answered."""

    def test_every_size_is_answered(self):
        frame = len(self.header(0))
        for length in [*range(64, HEADER_LIMIT - 700, 1571), *range(HEADER_LIMIT - 700, HEADER_LIMIT + 10, 7),
                       HEADER_LIMIT, HEADER_LIMIT + 1, HEADER_LIMIT + 100000]:
            with self.subTest(length):
                answer = self.ask(self.header(length - frame))
                self.assertEqual(answer.status, 200 if length <= HEADER_LIMIT else 431)

    @staticmethod
    def header(filler):
        return b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"x" * max(filler, 0) + b"\r\n\r\n"

    def test_many_small_things(self):
        for data in (b"GET /v2/health/live?" + b"a&" * 14000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nCookie: " + b"a=b; " * 6000 + b"\r\n\r\n",
                     b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n" + b"A:\r\n" * 7000 + b"\r\n"):
            self.assertEqual(self.ask(data).status, 200)

    def test_long_header_and_chunks(self):
        head = CHUNKED[:-2] + b"X: " + b"x" * (HEADER_LIMIT - len(CHUNKED) - 5) + b"\r\n\r\n"
        self.assertEqual(len(head), HEADER_LIMIT)
        self.assertEqual(self.ask(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)).status, 200)


class TwoReadingsTest(HostileCase):
    """If a proxy in front read it differently, part of one request would be another."""

    def test_chunks(self):
        for body in (b"1e;\n a\r\n" + LIVE, b"1\n" + LIVE, b"1\r\nab\r\n" + LIVE, b"1\r\na\n" + LIVE, b"\r\n" + LIVE,
                     b"0\r\n" + LIVE, b"0\r\nX: y\n\r\n" + LIVE, b"0\r\nContent-Length: 5\r\n\r\n" + LIVE,
                     b"1 \r\na\r\n0\r\n\r\n" + LIVE, b"1;" + b"x" * 300 + b"\r\na\r\n0\r\n\r\n" + LIVE):
            with self.subTest(body):
                self.assert_only_answer(CHUNKED + body, 400)

    def test_fields(self):
        for fields in (b"Content-Encoding: gzip\r\nContent-Encoding: identity\r\n",
                       b"Inference-Header-Content-Length: 1\r\nInference-Header-Content-Length: 2\r\n",
                       b"Transfer-Encoding : chunked\r\n", b"X: a\r\n Content-Length: 5\r\n", b"X: a\0b\r\n",
                       b"X: a\rContent-Length: 5\r\n", b"Host: y\r\n", b": x\r\n"):
            with self.subTest(fields):
                self.assert_only_answer(b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (PREDICT.encode(), fields, LIVE), 400)

    def test_targets(self):
        for target in (b"/v2/health/live\0/../admin", b"/v2/health/live x", b"v2", b"/\x01", b"/v2\t", b"http://", b""):
            with self.subTest(target):
                self.assert_only_answer(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" + LIVE, 400)

    def test_requests_before_the_bad_one_are_answered(self):
        connection = self.connect()
        connection.send(request_bytes("POST", PREDICT, BODY) * 3 + LIVE + b"GARBAGE\r\n\r\n" + LIVE)
        self.assertEqual([connection.answer().status for _ in range(5)], [200, 200, 200, 200, 400])
        self.assertTrue(connection.wait_closed())


class OneReadingTest(HostileCase):
    """Unusual requests that are valid."""

    def test_white_space_around_values(self):
        for fields in (b"Content-Length: \t%d \r\n" % len(BODY), b"Content-Length:%d\t\r\n" % len(BODY)):
            self.assertEqual(self.ask(b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (PREDICT.encode(), fields, BODY)).status,
                             200)
        self.assertEqual(self.ask(CHUNKED.replace(b"chunked", b"chunked ") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)).status,
                         200)

    def test_absolute_targets(self):
        for target in (b"http://elsewhere:8080/v2/health/live", b"HTTPS://x/v2/health/live?a=/b", b"http://x"):
            self.assertEqual(self.ask(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n").status, 200)

    def test_long_length_of_the_inference_header(self):
        request = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32",
                                          "parameters": {"binary_data_size": 16}}]}).encode()
        for digits in (1, 40):
            answer = self.client.request("POST", "/v2/models/tiny/infer", request + bytes(16),
                                         {"Inference-Header-Content-Length": f"{len(request):0{digits}}"})
            self.assertEqual((digits, answer.status), (digits, 200), answer.body)

    def test_chunks_with_extensions_and_trailers(self):
        self.assertEqual(self.ask(CHUNKED + b"%x;a=b\r\n%s\r\n0;c\r\nX: y\r\nZ:\r\n\r\n" % (len(BODY), BODY)).status, 200)

    def test_empty_lines_before_a_request(self):
        connection = self.connect()
        connection.send(request_bytes("POST", PREDICT, BODY) + b"\r\n" + LIVE)
        self.assertEqual([connection.answer().status for _ in range(2)], [200, 200])

    def test_roots(self):
        self.assertEqual(self.client.get("/").json, {"status": "alive"})
        self.assertEqual(self.client.get("/v2/").json, self.client.get("/v2").json)


class RetryAfterTest(unittest.TestCase):
    def test_every_503_says_when_to_come_back(self):
        with Server(drain_delay_ms=3000) as server, Connection(server.port) as connection:
            server.signal()
            deadline = time.monotonic() + 2
            while (answer := connection.request("GET", "/v2/health/ready")).status == 200 and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertEqual((answer.status, answer.headers.get("retry-after")), (503, "1"))


if __name__ == "__main__":
    unittest.main()
