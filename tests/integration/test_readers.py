"""Clients that do not read what they asked for: what they hold is bounded, and what others need is given to them."""

import contextlib
import json
import struct
import time
import unittest

from support.http import Client, Connection, request_bytes
from support.openai import COMPLETIONS, OpenAICase
from test_grpc_hostile import DATA, END_STREAM, HEADERS, LIVE, Peer, header, infer_request, message, messages

MEGABYTE = 1 << 20
TOKENIZE = request_bytes("POST", "/tokenize", json.dumps({"content": "a" * 4_000_000}).encode())
TOKENIZED = 3 * 4_000_000  # the answer has more bytes: a number of two digits and a comma for each token


class AnswersTest(OpenAICase):
    """Answers that wait take no more memory than bodies may."""

    options = {"max_body_bytes": "8M", "max_total_body_bytes": "32M"}

    def ask_and_wait(self, stack):
        """A client that reads the beginning of its answer: its status."""
        client = stack.enter_context(Connection(self.server.port, receive_buffer=4096))
        client.send(TOKENIZE)
        return client, client.socket.recv(12)[-3:]

    def test_answers_that_nobody_reads(self):
        before = self.server.resident_kb()
        with contextlib.ExitStack() as stack:
            clients = [self.ask_and_wait(stack) for _ in range(16)]
            statuses = [status for _, status in clients]
            self.assertEqual(statuses[0], b"200")
            self.assertIn(b"503", statuses)
            grown = (self.server.resident_kb() - before) >> 10
            self.assertLess(grown, 32 + TOKENIZED // MEGABYTE + 32, "MB")  # and what the allocator keeps
            refused = clients[statuses.index(b"503")][0].socket.recv(4096)
            self.assertIn(b"Retry-After: ", refused)
            self.assertIn(b"that clients have not taken", refused)
            for path in ("/v2/health/ready", "/metrics", "/v2/models/tiny"):
                self.assertEqual(self.client.get(path).status, 200)
            # Who has taken nothing for some seconds gives way.
            deadline, status = time.monotonic() + 40, None
            while status != 200 and time.monotonic() < deadline:
                time.sleep(0.5)
                status = self.client.post("/tokenize", {"content": "a" * 4_000_000}).status
            self.assertEqual(status, 200)

    def test_a_slow_reader_gets_all_of_it(self):
        with contextlib.ExitStack() as stack:
            slow = stack.enter_context(Connection(self.server.port, receive_buffer=65536))
            slow.send(TOKENIZE)
            for _ in range(5):  # beside others that take nothing
                self.ask_and_wait(stack)
            taken, until = 0, time.monotonic() + 12
            while time.monotonic() < until:
                taken += len(slow.socket.recv(20000))
                time.sleep(0.1)
            while piece := slow.socket.recv(MEGABYTE):
                taken += len(piece)
                if taken > TOKENIZED and piece.endswith(b"]}"):
                    break
            self.assertGreater(taken, TOKENIZED)


class CallsTest(OpenAICase):
    """The same over gRPC, where a client's window for each call is 64 KB."""

    options = {"max_body_bytes": "2M", "max_total_body_bytes": "4M", "max_request_rows": 100000, "grpc_port": 0,
               "max_queue_rows": 2000000, "log_level": "info"}

    def ask(self, peer, body):
        """Asks once more and reads the header of the answer: whether it is one."""
        peer.stream += 2
        peer.send(header(peer.stream, "ModelInfer") + messages(peer.stream, body))
        while (answer := peer.until(HEADERS))[2] != peer.stream:
            pass
        return not answer[1] & END_STREAM

    def test_calls_that_nobody_reads(self):
        body = infer_request("tiny", "x", [100000, 4], struct.pack("<f", 0.5) * 400000)  # the answer has 1.2 MB
        with Peer(self.server.grpc_port) as peer, Peer(self.server.grpc_port) as other:
            peer.stream = -1
            answers = 0
            while answers < 20 and self.ask(peer, body):
                answers += 1
            self.assertIn(answers, range(1, 20))
            self.await_log("path=.inference.*that clients have not taken")
            other.send(header(1, "ServerLive") + message(1))
            self.assertEqual(other.until(DATA)[3], LIVE)
            self.wait_for(lambda: time.sleep(0.5) or self.ask(peer, body), "they are kept")


class StreamsTest(OpenAICase):
    """Who takes nothing of a stream keeps nobody else from running."""

    options = {"max_sequences": 4, "idle_timeout_ms": 600000}
    whole = {"prompt": ["go on"] * 4, "max_tokens": 2000, "logprobs": 20, "stream": True}  # more than sockets take

    @contextlib.contextmanager
    def stalled(self, **body):
        with Connection(self.server.port, receive_buffer=65536) as client:
            client.send(request_bytes("POST", COMPLETIONS, json.dumps({**self.whole, **body}).encode()))
            self.wait_for(lambda: self.sequences()[0] == 4, "it does not begin")
            tokens = lambda: self.metrics().sum("moed_tokens_total", phase="generated")
            seen = [tokens()]
            self.wait_for(lambda: seen.append(tokens()) or (len(seen) > 50 and seen[-1] == seen[-50]), "it goes on")
            yield client

    def rest(self, client):
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            piece = client.socket.recv(MEGABYTE)
            self.assertTrue(piece, received[-200:])
            received += piece
        return received

    def test_one_that_reads_nothing_gives_way(self):
        with self.stalled() as client, Client(self.server.port, timeout=60) as other:
            self.assertEqual(other.post(COMPLETIONS, {"prompt": "quick", "max_tokens": 5}).status, 200)
            self.assertEqual(self.sequences(), (0, 0, 0))
            end = self.rest(client)[-1000:]
            self.assertIn(b"other requests waited for its place", end)
            self.assertNotIn(b"[DONE]", end)

    def test_while_nobody_waits_it_may_pause(self):
        with self.stalled() as client:
            time.sleep(7)
            self.assertIn(b"[DONE]", self.rest(client)[-100:])

    def test_its_own_prompts_are_no_others(self):
        with self.stalled(prompt=["go on"] * 5) as client:
            time.sleep(7)
            self.assertIn(b"[DONE]", self.rest(client)[-100:])


if __name__ == "__main__":
    unittest.main()
