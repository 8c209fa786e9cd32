"""Overload: a bounded queue, deadlines, clients that give up. The models are slow on purpose."""

import json
import os
import re
import socket
import time
import unittest

from support.http import PATIENCE_SECONDS, Connection, request_bytes
from support.models import Tiny, write_elementwise, write_slow
from support.prometheus import Metrics
from support.server import ServerCase

SECONDS_PER_ROW = 0.15  # on an idle machine


def slow_request(rows=1, **members):
    return {"inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": [1, 2, 3, 4] * rows}], **members}


def slow_bytes(rows=1, **members):
    return request_bytes("POST", "/v2/models/slow/infer", json.dumps(slow_request(rows, **members)).encode())


class OverloadCase(ServerCase):
    options = {"max_batch_rows": 1, "max_queue_rows": 4, "max_request_rows": 4, "threads": 1, "loops": 1,
               "queue_timeout_ms": 120000}

    @staticmethod
    def models(directory):
        write_slow(os.path.join(directory, "slow"), SECONDS_PER_ROW)
        Tiny().write(os.path.join(directory, "tiny"))

    def connect(self):
        connection = Connection(self.server.port)
        self.addCleanup(connection.close)
        return connection

    def send_slow(self, rows=1, **members):
        """Sends a request for the slow model and makes sure it has arrived; answer() waits for the answer."""
        connection = self.connect()
        connection.send(slow_bytes(rows, **members))
        self.metrics()
        return connection

    def metrics(self):
        return Metrics(self.client.get("/metrics").body.decode())

    def rejected(self, reason):
        return self.metrics().value("moed_rejected_total", model="slow", version="1", reason=reason)

    def wait_until(self, condition, what):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def rows_computed(self):
        return self.metrics().value("moed_rows_total", model="slow", version="1")

    def queue_rows(self):
        return self.metrics().value("moed_queue_rows", model="slow", version="1")

    def tearDown(self):
        self.wait_until(lambda: self.queue_rows() == 0, "the queue does not empty")
        self.assertEqual(self.client.infer("slow", slow_request()).status, 200)


class QueueTest(OverloadCase):
    def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(self):
        running = self.send_slow()
        self.wait_until(lambda: self.queue_rows() == 0, "not computing")
        waiting = [self.send_slow() for _ in range(4)]
        before = self.rejected("queue_full")
        answer = self.client.infer("slow", slow_request())
        self.assertGreater(self.queue_rows(), 0, "refused, but late")
        self.assert_error(answer, 429, "queue is full")
        self.assertIn(int(answer.headers["retry-after"]), range(1, 31))
        self.assertEqual(self.rejected("queue_full"), before + 1)
        for connection in (running, *waiting):
            self.assertEqual(connection.answer().status, 200, "accepted, but not answered")

    def test_a_request_that_never_fits(self):
        self.assert_error(self.client.infer("slow", slow_request(rows=5)), 413, "limit is 4")

    def test_the_loop_stays_free(self):
        """While the slow model is computed, small models and metrics are answered many times: a loop that computed
        it would answer at most one of them after each row."""
        rows, answered = 4, 0
        end = self.rows_computed() + rows
        connections = [self.send_slow() for _ in range(rows)]
        while self.rows_computed() < end:
            self.assertEqual(self.client.predict("tiny", [[1, 2, 3, 4]]).status, 200)
            answered += 2
        self.assertGreater(answered, 3 * rows)
        for connection in connections:
            self.assertEqual(connection.answer().status, 200)


class TurnsTest(OverloadCase):
    def assert_before(self, first, others):
        """`first` is answered while at least one of the others waits."""
        self.assertEqual(first.answer().status, 200)
        self.assertGreater(self.queue_rows(), 0, "answered last")
        for connection in others:
            self.assertEqual(connection.answer().status, 200)

    def test_a_high_priority_goes_before_a_normal_one(self):
        first = self.send_slow()
        normal = [self.send_slow() for _ in range(2)]
        self.assert_before(self.send_slow(parameters={"priority": 1}), [first, *normal])

    def test_a_row_does_not_wait_for_the_end_of_a_large_request(self):
        large = self.send_slow(rows=4)
        self.wait_until(lambda: self.queue_rows() < 4, "not computing")
        self.assert_before(self.send_slow(), [large])

    def test_a_priority_is_a_number(self):
        self.assert_error(self.client.infer("slow", slow_request(parameters={"priority": "high"})), 400, "priority")


class DeadlineTest(OverloadCase):
    def test_the_client_says_how_long(self):
        """The protocol's timeout parameter, in microseconds."""
        first = self.send_slow()
        before = self.rejected("deadline")
        late = self.send_slow(parameters={"timeout": 50000})
        answer = late.answer()
        self.assert_error(answer, 504, "50 ms")
        waited = lambda: re.search(r"status=504 .* queue_ms=([0-9.]+)", self.server.log())
        self.wait_until(waited, "the log does not tell")
        self.assertGreater(float(waited()[1]), 40, "all of its time was in the queue")
        self.assertEqual(self.rejected("deadline"), before + 1)
        self.assertEqual(first.answer().status, 200)
        none = self.client.infer("slow", slow_request(parameters={"timeout": 1}))
        self.assert_error(none, 504, "had passed before")
        self.assertEqual(self.rejected("deadline"), before + 2)

    def test_who_would_be_late_is_refused_at_once(self):
        end = self.rows_computed() + 2  # while others waited: the speed is known
        connections = [self.send_slow() for _ in range(4)]
        self.wait_until(lambda: self.rows_computed() >= end, "not computing")
        late = self.connect()
        late.send(slow_bytes(parameters={"timeout": 60000}))
        answer = late.answer()
        self.assert_error(answer, 429, "what is before this request", "it may wait")
        self.assertIn(int(answer.headers["retry-after"]), range(1, 31))
        for connection in connections:
            self.assertEqual(connection.answer().status, 200)

    def test_a_generous_timeout_changes_nothing(self):
        self.assertEqual(self.client.infer("slow", slow_request(parameters={"timeout": 60000000})).status, 200)


class QueueTimeoutTest(OverloadCase):
    options = {**OverloadCase.options, "queue_timeout_ms": 100}

    def test_the_server_says_how_long(self):
        connections = [self.send_slow() for _ in range(4)]
        statuses = [connection.answer().status for connection in connections]
        self.assertEqual(statuses[0], 200)
        self.assertIn(504, statuses)
        self.assertLessEqual(set(statuses), {200, 429, 504})


class DisconnectTest(OverloadCase):
    def test_who_closes_only_the_sending_side_is_answered(self):
        connections = [self.send_slow() for _ in range(3)]
        for connection in connections:
            connection.socket.shutdown(socket.SHUT_WR)
        for connection in connections:
            self.assertEqual(connection.answer().status, 200)
            self.assertTrue(connection.wait_closed())

    def test_disconnect_while_computing(self):
        rows = self.rows_computed()
        for part in ("close", "reset"):
            connection = self.send_slow()
            self.wait_until(lambda: self.queue_rows() == 0, "not computing")
            getattr(connection, part)()
        self.wait_until(lambda: self.rows_computed() >= rows + 2, "a started computation does not end")

    def test_a_storm_of_them(self):
        for i in range(40):
            connection = self.connect()
            connection.send(slow_bytes())
            if i % 3 == 0:
                connection.reset()
            elif i % 3 == 1:
                connection.close()
        self.assertEqual(self.client.predict("tiny", [[1, 2, 3, 4]]).status, 200)


class GoneTest(OverloadCase):
    """With rows of a second: a closed connection, which may have been closed for sending only, is noticed by writing
    to it, once a second."""

    @staticmethod
    def models(directory):
        write_slow(os.path.join(directory, "slow"), 1)

    def test_nobody_computes_for_clients_that_have_gone(self):
        running = self.send_slow()
        self.wait_until(lambda: self.queue_rows() == 0, "not computing")
        before, computed = self.rejected("disconnected"), self.rows_computed()
        stays, *gone = [self.send_slow() for _ in range(3)]
        self.assertEqual(self.queue_rows(), 3)
        gone[0].close()
        gone[1].reset()
        self.assertEqual([connection.answer().status for connection in (running, stays)], [200, 200])
        self.wait_until(lambda: self.queue_rows() == 0, "something is still computed")
        self.assertEqual((self.rejected("disconnected"), self.rows_computed()), (before + 2, computed + 2))


class ElementwiseTest(ServerCase):
    options = {"threads": 1, "loops": 1}

    @staticmethod
    def models(directory):
        write_elementwise(os.path.join(directory, "elementwise"))

    def test_elementwise_layers_do_not_run_on_the_loop(self):
        def rows_computed():
            page = Metrics(self.client.get("/metrics").body.decode())
            return page.value("moed_rows_total", model="elementwise", version="1")

        connection = Connection(self.server.port)
        self.addCleanup(connection.close)
        request = {"inputs": [{"name": "x", "shape": [1, 20000], "datatype": "FP32", "data": [0.5] * 20000}]}
        connection.send(request_bytes("POST", "/v2/models/elementwise/infer", json.dumps(request).encode()))
        answered_meanwhile = 0
        while rows_computed() == 0:
            answered_meanwhile += 1
        self.assertEqual(connection.answer("POST").status, 200)
        self.assertGreater(answered_meanwhile, 10)  # a loop that computes answers one or two


if __name__ == "__main__":
    unittest.main()
