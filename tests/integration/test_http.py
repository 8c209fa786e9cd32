"""HTTP: mistakes, slow clients and hostile ones. Whatever happens, the next client is served."""

import json
import os
import select
import time
import unittest

from support.http import PATIENCE_SECONDS, Closed, Connection, request_bytes
from support.models import Tiny
from support.server import ServerCase

PREDICT = "/v1/models/tiny:predict"
BODY = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()
REQUEST = request_bytes("POST", PREDICT, BODY)


class HttpCase(ServerCase):
    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))

    def connect(self, **settings):
        connection = Connection(self.server.port, **settings)
        self.addCleanup(connection.close)
        return connection

    def assert_serving(self):
        self.assertEqual(self.client.post(PREDICT, BODY).status, 200)


class WellFormedTest(HttpCase):
    options = {"max_body_bytes": "1M"}

    def test_keep_alive(self):
        connection = self.connect()
        for _ in range(100):
            self.assertEqual(connection.request("POST", PREDICT, BODY).status, 200)

    def test_pipelining_keeps_the_order(self):
        connection = self.connect()
        bodies = [json.dumps({"instances": [[i, 0, 0, 0]]}).encode() for i in range(20)]
        connection.send(b"".join(request_bytes("POST", PREDICT, body) for body in bodies))
        pipelined = [connection.answer().json["predictions"] for _ in bodies]
        self.assertEqual(pipelined, [self.client.post(PREDICT, body).json["predictions"] for body in bodies])

    def test_chunked_body(self):
        connection = self.connect()
        for piece in (1, 7, 1000):
            chunks = [BODY[i:i + piece] for i in range(0, len(BODY), piece)]
            connection.send(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for chunk in chunks:
                connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            connection.send(b"0\r\n\r\n")
            self.assertEqual(connection.answer().status, 200)

    def test_every_byte_on_its_own(self):
        connection = self.connect()
        for i in range(len(REQUEST)):
            connection.send(REQUEST[i:i + 1])
        self.assertEqual(connection.answer().status, 200)

    def test_expect_100_continue(self):
        connection = self.connect()
        connection.send(request_bytes("POST", PREDICT, b"", {"Content-Length": len(BODY), "Expect": "100-continue"}))
        self.assertTrue(connection.socket.recv(1000).startswith(b"HTTP/1.1 100 "))
        connection.send(BODY)
        self.assertEqual(connection.answer().status, 200)

    def test_http_1_0_and_connection_close(self):
        connection = self.connect()
        connection.send(f"POST {PREDICT} HTTP/1.0\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        answer = b""
        while piece := connection.socket.recv(4096):
            answer += piece
        self.assertIn(b" 200 ", answer.split(b"\r\n")[0])
        self.assertIn(b"predictions", answer)
        connection = self.connect()
        answer = connection.request("POST", PREDICT, BODY, {"Connection": "close"})
        self.assertEqual((answer.status, answer.closes), (200, True))
        self.assertTrue(connection.wait_closed())

    def test_query_is_no_part_of_the_path(self):
        self.assertEqual(self.client.get("/v2/health/live?verbose=1").status, 200)

    def test_head_has_no_body(self):
        connection = self.connect()
        self.assertEqual(connection.request("HEAD", "/metrics").status, 200)
        self.assertEqual(connection.request("HEAD", "/nosuch").status, 404)
        self.assertEqual(connection.request("GET", "/v2/health/live").status, 200)

    def test_large_answer(self):
        rows = [[1, 2, 3, 4]] * 1000
        self.assertEqual(len(self.client.post(PREDICT, {"instances": rows, "routing": True}).json["predictions"]), 1000)


class RefusedTest(HttpCase):
    """Every refusal is JSON and closes the connection."""

    options = {"max_body_bytes": 4096, "idle_timeout_ms": 1000}

    def refuse(self, data, status, *words):
        connection = self.connect()
        connection.send(data)
        answer = connection.answer()
        self.assert_error(answer, status, *words)
        self.assertTrue(answer.closes)
        self.assert_serving()

    def head(self, *lines, target=PREDICT, version="HTTP/1.1"):
        return "\r\n".join([f"POST {target} {version}", *lines, "", ""]).encode("latin-1")

    def test_declared_too_large_is_refused_before_it_is_sent(self):
        self.refuse(self.head("Host: x", "Content-Length: 4097"), 413, "4097", "4096")
        self.refuse(self.head("Host: x", "Content-Length: 4097", "Expect: 100-continue"), 413)
        self.refuse(self.head("Host: x", "Content-Length: 99999999999999999999"), 413)

    def test_refusal_reaches_a_client_that_sends_on(self):
        connection = self.connect()
        connection.send(self.head("Host: x", "Content-Length: 8000000"))
        try:
            connection.send(b"x" * 1000000)
        except (ConnectionResetError, BrokenPipeError):
            self.fail("reset before the answer could be read")
        self.assert_error(connection.answer(), 413)
        self.assert_serving()

    def test_chunks_that_sum_up_to_too_much(self):
        chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
        self.refuse(self.head("Host: x", "Transfer-Encoding: chunked") + chunk * 6 + b"0\r\n\r\n", 413)

    def test_two_readings_of_where_a_request_ends(self):
        """If a proxy in front read it differently, the rest would be another client's request."""
        for lines in (("Content-Length: 4", "Content-Length: 40"), ("Content-Length: 4", "Content-Length: 4"),
                      ("Content-Length: 4", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked, identity",),
                      ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"), ("Content-Length: +4",),
                      ("Content-Length: 4, 4",), ("Content-Length: 0x4",), ("Content-Length: -4",), ("Content-Length : 4",)):
            with self.subTest(lines):
                connection = self.connect()
                connection.send(self.head("Host: x", *lines) + b"abcdGET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = connection.answer()
                self.assertIn(answer.status, (400, 501))
                self.assert_error(answer, answer.status)
                self.assertTrue(connection.wait_closed(), "a second answer may follow")

    def test_host(self):
        self.refuse(self.head("Content-Length: 0"), 400, "Host")
        self.refuse(self.head("Host: a", "Host: b", "Content-Length: 0"), 400, "Host")

    def test_request_line(self):
        for line in (b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET  HTTP/1.1\r\nHost: x\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"):
            with self.subTest(line):
                self.refuse(line, 400)

    def test_http_version(self):
        self.refuse(self.head("Host: x", version="HTTP/9.9"), 505)

    def test_header_too_large(self):
        self.refuse(self.head("Host: x", "X-Large: " + "x" * 100000), 431)
        self.refuse(self.head("Host: x", *("X-Many: x" for _ in range(10000))), 431)

    def test_target_too_long(self):
        self.refuse(self.head("Host: x", target="/" + "x" * 100000), 414)

    def test_chunks_that_are_none(self):
        self.refuse(self.head("Host: x", "Transfer-Encoding: chunked") + b"zz\r\n", 400)


class SlowTest(HttpCase):
    options = {"request_timeout_ms": 600, "idle_timeout_ms": 1500}

    def assert_timeout(self, connection, began, seconds):
        self.assert_error(connection.answer(), 408)
        self.assertGreater(time.monotonic() - began, seconds - 0.1)
        self.assert_serving()

    def test_stalled_body(self):
        connection, began = self.connect(), time.monotonic()
        connection.send(REQUEST[:-5])
        self.assert_timeout(connection, began, 0.6)

    def test_body_byte_by_byte(self):
        """Never idle and never done: an idle timeout would wait for ever."""
        connection, began = self.connect(), time.monotonic()
        head = request_bytes("POST", PREDICT, b"", {"Content-Length": 1000})
        connection.send(head)
        while time.monotonic() < began + 0.5:
            connection.send(b" ")
            time.sleep(0.05)
        self.assert_timeout(connection, began, 0.6)

    def test_stalled_header(self):
        for length in (1, 10, REQUEST.index(b"\r\n") + 8):
            with self.subTest(length):
                connection, began = self.connect(), time.monotonic()
                connection.send(REQUEST[:length])
                self.assert_timeout(connection, began, 0.6)

    def test_header_byte_by_byte(self):
        connection, began = self.connect(), time.monotonic()
        connection.send(f"POST {PREDICT} HTTP/1.1\r\n".encode())
        with self.assertRaises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < began + PATIENCE_SECONDS:
                connection.send(b"X: 1\r\n")
                time.sleep(0.05)
        self.assert_serving()

    def test_silent_connection_is_closed(self):
        connection = self.connect()
        self.assertTrue(connection.wait_closed())

    def test_idle_connection_is_closed_without_a_word(self):
        connection = self.connect()
        self.assertEqual(connection.request("POST", PREDICT, BODY).status, 200)
        began = time.monotonic()
        self.assertTrue(connection.wait_closed())
        self.assertGreater(time.monotonic() - began, 1)

    def test_client_that_does_not_read(self):
        """Megabytes of answers for a client that reads none must not delay others."""
        connection = self.connect(receive_buffer=4096)
        rows = json.dumps({"instances": [[1, 2, 3, 4]] * 1000, "routing": True}).encode()
        connection.socket.settimeout(0.5)
        try:
            for _ in range(200):
                connection.send(request_bytes("POST", PREDICT, rows))
        except OSError:
            pass
        self.assert_serving()

    def test_disconnects_in_the_middle(self):
        for i in range(0, len(REQUEST), 7):
            with self.connect() as connection:
                connection.send(REQUEST[:i])
            connection = self.connect()
            connection.send(REQUEST[:i])
            connection.reset()
        for _ in range(50):
            connection = self.connect()
            connection.send(REQUEST)
            connection.reset()
        self.assert_serving()


class LongBodyTest(HttpCase):
    """A body that takes long to read is read beside the loop."""

    options = {"loops": 1}

    def answer_to(self, body):
        return self.client.post(PREDICT, body)

    def test_the_answer_is_the_same(self):
        rows = [[i / 7, -i, i * 1e-40, 1] for i in range(500)]
        short = json.dumps({"instances": rows, "routing": True}).encode()
        long = short.replace(b",", b"," + b" " * 2000)
        self.assertGreater(len(long), 1 << 20)
        self.assertEqual(self.answer_to(long).body, self.answer_to(short).body)

    def test_so_are_refusals(self):
        for wrong in (b"[1,2,3]", b"[1,2,3,null]", b"[1,2,3,1e99]", b"[1,2,3,[4]]"):
            short, long = (self.answer_to(b'{"instances":[[1,2,3,4],' + wrong + blanks + b"]}")
                           for blanks in (b"", b" " * (2 << 20)))
            self.assertEqual((short.status, short.body), (400, long.body))

    def test_others_do_not_wait_for_it(self):
        body = b'{"instances":[[' + b" " * (60 << 20) + b"1]]}"
        for _ in range(10):
            connection, health = self.connect(), self.connect()
            self.assertEqual(health.request("GET", "/v2/health/live").status, 200)
            connection.send(request_bytes("POST", PREDICT, body)[:-1])
            time.sleep(0.2)
            connection.send(b"}")
            self.assertEqual(health.request("GET", "/v2/health/live").status, 200)
            first = not select.select([connection.socket], [], [], 0)[0]
            self.assert_error(connection.answer(), 400, "has 1 number")
            if first:
                return
        self.fail("health was answered after the long body every time")

    def test_clients_that_go(self):
        body = b'{"instances":[[' + b" " * (20 << 20) + b"1]]}"
        for part in ("close", "reset"):
            connection = self.connect()
            connection.send(request_bytes("POST", PREDICT, body))
            getattr(connection, part)()
        self.assert_serving()


class ManyConnectionsTest(HttpCase):
    def test_500_idle_connections_cost_the_others_nothing(self):
        idle = [self.connect() for _ in range(500)]
        for connection in idle[::10]:
            self.assertEqual(connection.request("POST", PREDICT, BODY).status, 200)
        for _ in range(200):
            self.assert_serving()
        for connection in idle[1::10]:
            self.assertEqual(connection.request("POST", PREDICT, BODY).status, 200)


class ConnectionLimitTest(HttpCase):
    """The limit is for the process, however many loops share it and whichever accepts a connection."""

    options = {"max_connections": 8, "loops": 1}

    def setUp(self):
        self.client.close()

    def hold(self, count):
        held = [self.connect() for _ in range(count)]
        for connection in held:
            self.assertEqual(connection.request("POST", PREDICT, BODY).status, 200)
            time.sleep(0.01)  # idleness counts in milliseconds
        return held

    def test_idle_connections_give_way(self):
        held = self.hold(8)
        time.sleep(0.1)
        for given_up in held:
            answer = self.connect().request("POST", PREDICT, BODY)
            self.assertEqual((answer.status, answer.closes), (200, False))
            self.assertTrue(given_up.wait_closed(30))

    def test_unfinished_requests_keep_nobody_from_health(self):
        for _ in range(100):
            self.connect().send(REQUEST[:-1])
        for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
            began = time.monotonic()
            self.assertEqual(self.connect().request("GET", path).status, 200)
            self.assertLess(time.monotonic() - began, 30)
        answer = self.connect().request("POST", PREDICT, BODY)
        self.assert_error(answer, 503, "connection")
        self.assertEqual((answer.closes, answer.headers["retry-after"]), (True, "1"))

    def test_every_slot_can_be_used(self):
        server = self.start(max_connections=100)
        self.addCleanup(server.kill)
        held = []
        for _ in range(100):
            held.append(Connection(server.port))
            self.addCleanup(held[-1].close)
            held[-1].send(REQUEST[:-1])
        for connection in held:
            connection.send(REQUEST[-1:])
            self.assertEqual(connection.answer().status, 200)
        server.stop()


class ConnectionLimitOfLoopsTest(ConnectionLimitTest):
    options = {**ConnectionLimitTest.options, "loops": 3}


class ConnectionsPerAddressTest(HttpCase):
    options = {"max_connections_per_ip": 4, "loops": 1}

    def test_one_address_cannot_take_them_all(self):
        self.client.close()
        held = [self.connect() for _ in range(4)]
        for connection in held:
            self.assertEqual(connection.request("POST", PREDICT, BODY).status, 200)
        self.assertTrue(self.connect().wait_closed())
        held[0].close()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                self.assertEqual(self.connect().request("POST", PREDICT, BODY).status, 200)
                return
            except (Closed, BrokenPipeError):
                time.sleep(0.05)
        self.fail("no connection after one was freed")


class ConnectionsPerAddressOfLoopsTest(ConnectionsPerAddressTest):
    options = {**ConnectionsPerAddressTest.options, "loops": 3}


if __name__ == "__main__":
    unittest.main()
