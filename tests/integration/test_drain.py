"""SIGTERM: accepted requests are answered, readiness fails first, the status is 0, the port is free at once."""

import contextlib
import json
import os
import signal
import time
import unittest

from support.http import PATIENCE_SECONDS, Client, Closed, Connection, request_bytes
from support.load import REQUEST, ask_on_new_connections, ask_until_told_to_leave
from support.models import Tiny, write_slow
from support.prometheus import Metrics
from support.server import BINARY, ServerCase
from support.threads import Background

SLOW_REQUEST = request_bytes("POST", "/v1/models/slow:predict", json.dumps({"instances": [[1, 2, 3, 4]]}).encode())


class DrainCase(ServerCase):
    # Arithmetic under sanitizers is a hundred times slower.
    options = {"drain_timeout_ms": 120000}

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        write_slow(os.path.join(directory, "slow"), seconds=0.01 if "tsan" in BINARY else 0.05)

    def setUp(self):
        self.server = self.start()
        self.addCleanup(self.server.kill)

    def assert_stopped(self):
        self.server.assert_clean(self.server.wait())

    def wait_until_computed(self, rows):
        deadline = time.monotonic() + PATIENCE_SECONDS
        with Client(self.server.port) as client:
            while Metrics(client.get("/metrics").body.decode()).value("moed_rows_total", model="tiny", version="1") < rows:
                self.assertLess(time.monotonic(), deadline, "clients are not served")
                time.sleep(0.05)


class UnderLoadTest(DrainCase):
    clients = 8

    def load_and_stop(self, client):
        load = Background(self.clients, lambda _: client(self.server.port))
        self.wait_until_computed(rows=100 * self.clients)
        self.server.signal()
        self.assert_stopped()
        self.assertGreater(sum(load.join()), self.clients)

    def test_no_request_is_lost_on_kept_connections(self):
        self.load_and_stop(ask_until_told_to_leave)

    def test_no_request_is_lost_on_new_connections(self):
        self.load_and_stop(ask_on_new_connections)

    def test_sigint_is_as_good(self):
        self.server.signal(signal.SIGINT)
        self.assert_stopped()


class InFlightTest(DrainCase):
    def test_requests_being_computed_and_waiting_are_answered(self):
        connections = [Connection(self.server.port) for _ in range(4)]
        for connection in connections:
            self.addCleanup(connection.close)
            connection.send(SLOW_REQUEST)
        with Client(self.server.port) as client:
            self.assertEqual(client.get("/v2/health/ready").status, 200)
            self.server.signal()
            for connection in connections:
                answer = connection.answer()
                self.assertEqual((answer.status, answer.closes), (200, True))
        self.assert_stopped()

    def test_requests_in_a_pipeline_are_answered(self):
        """All that had arrived, and no reset takes away answers that were sent."""
        with Connection(self.server.port) as connection:
            connection.send(100 * REQUEST + 5 * SLOW_REQUEST + 95 * REQUEST)  # the slow ones are what the signal meets
            connection.answer()
            self.server.signal()
            answers = [connection.answer() for _ in range(199)]
            self.assertEqual({answer.status for answer in answers}, {200})
            self.assertEqual([answer.closes for answer in answers].index(True), 198)
            self.assertEqual(connection.socket.recv(1), b"")  # an end, no reset
        self.assert_stopped()

    def test_a_client_that_never_stops_sending_gets_an_end_and_no_reset(self):
        self.server = self.start(drain_timeout_ms=3000)
        self.addCleanup(self.server.kill)
        with Connection(self.server.port) as connection:
            connection.socket.settimeout(0.01)
            sent = closes = answered = 0
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not closes and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    sent += connection.socket.send(20 * REQUEST)  # cut requests do not matter
                if not answered:
                    self.server.signal()
                with contextlib.suppress(TimeoutError):
                    answer = connection.answer()
                    answered += 1
                    closes = answer.closes
            self.assertTrue(closes)
        self.assert_stopped()

    def test_a_request_half_sent_is_waited_for(self):
        with Connection(self.server.port) as connection:
            connection.send(REQUEST[:-3])
            time.sleep(0.1)
            self.server.signal()
            time.sleep(0.5)
            connection.send(REQUEST[-3:])
            answer = connection.answer()
            self.assertEqual((answer.status, answer.closes), (200, True))
        self.assert_stopped()

    def test_idle_connections_are_closed(self):
        idle = [Connection(self.server.port) for _ in range(50)]
        for connection in idle:
            self.addCleanup(connection.close)
        for connection in idle[::2]:
            self.assertEqual(connection.request("GET", "/v2/health/live").status, 200)
        self.server.signal()
        for connection in idle:
            self.assertTrue(connection.wait_closed())
        self.assert_stopped()

    def test_clients_that_have_gone_do_not_hold_it_up(self):
        for _ in range(5):
            connection = Connection(self.server.port)
            connection.send(SLOW_REQUEST)
            connection.reset()
        self.server.signal()
        self.assert_stopped()

    def test_a_second_signal_ends_it_at_once(self):
        with Connection(self.server.port) as connection:
            connection.send(REQUEST[:-1])
            time.sleep(0.1)
            self.server.signal()
            self.server.signal()  # with the first, as timeout(1) does
            time.sleep(0.1)
            self.assertIsNone(self.server.process.poll())
            deadline = time.monotonic() + 30
            while self.server.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.3)
                self.server.signal()
            self.assertEqual(self.server.wait(), 128 + signal.SIGTERM)


class BacklogTest(DrainCase):
    """Connections that the kernel has accepted count as accepted, even if all of the server's are in use."""

    options = {**DrainCase.options, "max_connections": 20}

    def connect(self, data):
        connection = Connection(self.server.port)
        self.addCleanup(connection.close)
        connection.send(data)
        return connection

    def test_what_was_sent_is_answered(self):
        for _ in range(20):
            self.assertEqual(self.connect(REQUEST).answer().status, 200)
        time.sleep(0.1)
        self.server.process.send_signal(signal.SIGSTOP)
        # More than have a place, but not more than places and a loop's reserve (16) hold: beyond that, a loop that has
        # not seen the signal yet may refuse some with 503, as at any other time.
        waiting = [self.connect(REQUEST) for _ in range(30)]
        self.server.signal()
        self.server.process.send_signal(signal.SIGCONT)
        for connection in waiting:
            self.assertEqual(connection.answer().status, 200)
        self.assert_stopped()


class ReadinessTest(DrainCase):
    def test_readiness_fails_first_while_requests_are_served(self):
        """On a busy machine only a long delay shows it."""
        for delay_seconds in (1, 5, 60):
            if self.told_within(delay_seconds):
                return
        self.fail("too slow to see readiness fail")

    def told_within(self, delay_seconds):
        server = self.start(drain_delay_ms=delay_seconds * 1000)
        self.addCleanup(server.kill)
        with Client(server.port) as client:
            self.assertEqual(client.get("/v2/health/ready").status, 200)
            began = time.monotonic()
            server.signal()
            try:
                self.assert_leaving(server, client)
            except (ConnectionError, Closed, AssertionError):
                if time.monotonic() - began < delay_seconds:
                    raise
                return False
        server.assert_clean(server.wait())
        self.assertGreaterEqual(time.monotonic() - began, delay_seconds)
        return True

    def assert_leaving(self, server, client):
        while client.get("/v2/health/ready").status == 200:
            pass
        for path, status in (("/v2/health/ready", 503), ("/v2/models/tiny/ready", 503), ("/v2/health/live", 200)):
            self.assertEqual(client.get(path).status, status, path)
        # New connections too: this is the purpose of the delay.
        with Client(server.port) as newcomer:
            self.assertEqual(newcomer.predict("tiny", [[1, 2, 3, 4]]).status, 200)


class TimeoutTest(DrainCase):
    """Only a complete request can be lost: whatever slow clients do, the status is 0."""

    options = {"drain_timeout_ms": 2000}

    def connect(self, data=b"", **settings):
        connection = Connection(self.server.port, **settings)
        self.addCleanup(connection.close)
        connection.send(data)
        return connection

    def test_an_unfinished_header(self):
        self.connect(REQUEST[:10])
        refused = self.connect(REQUEST[:40])
        time.sleep(0.1)
        self.server.signal()
        self.assert_error(refused.answer(), 408)
        self.assert_stopped()

    def test_an_unfinished_body(self):
        kept = self.connect(REQUEST)
        self.assertEqual(kept.answer().status, 200)
        refused = self.connect(REQUEST[:-1])
        time.sleep(0.1)
        self.server.signal()
        time.sleep(0.05)
        kept.send(REQUEST[:-1])
        self.assert_error(refused.answer(), 408)
        self.assert_error(kept.answer(), 408)
        self.assert_stopped()

    def test_an_answer_nobody_takes(self):
        rows = json.dumps({"instances": [[1, 2, 3, 4]] * 1000, "routing": True}).encode()
        connection = self.connect(receive_buffer=4096)
        connection.socket.settimeout(1)
        with self.assertRaises(TimeoutError):
            for _ in range(10000):
                connection.send(request_bytes("POST", "/v1/models/tiny:predict", rows))
        self.server.signal()
        self.assert_stopped()

    def test_a_request_that_is_lost(self):
        rows = json.dumps({"instances": [[1, 2, 3, 4]] * 1000}).encode()
        self.connect(request_bytes("POST", "/v1/models/slow:predict", rows))
        time.sleep(0.1)
        self.server.signal()
        self.assertEqual(self.server.wait(), 1)
        self.assertRegex(self.server.log(), r"event=request_lost .*method=POST path=/v1/models/slow:predict")
        self.assertIn("drain_timeout", self.server.log())


class RestartTest(DrainCase):
    def test_the_port_is_free_at_once(self):
        with Connection(self.server.port) as connection:
            self.assertEqual(connection.request("GET", "/v2/health/live").status, 200)
            self.server.signal()
            self.assert_stopped()
        second = self.start(port=self.server.port)
        self.addCleanup(second.kill)
        self.assertEqual(second.port, self.server.port)
        with Client(second.port) as client:
            self.assertEqual(client.predict("tiny", [[1, 2, 3, 4]]).status, 200)
        second.stop()

    def test_restarts_in_a_row(self):
        for _ in range(5):
            server = self.start()
            server.stop()


if __name__ == "__main__":
    unittest.main()
