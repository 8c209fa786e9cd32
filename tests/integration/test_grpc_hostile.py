"""gRPC without a client library: frames by hand, clients that hang up, flood, or speak something else."""

import contextlib
import os
import select
import socket
import struct
import time
import unittest

from support.http import PATIENCE_SECONDS
from support.models import Tiny
from support.server import ServerCase

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
SERVICE = "/inference.GRPCInferenceService/"
LIVE = b"\0\0\0\0\x02\x08\x01"  # ServerLiveResponse{live: true} behind its prefix


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name, value):
    """A literal header field without indexing, as HPACK has it."""
    assert len(name) < 127 and len(value) < 127
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def header(stream, method, flags=END_HEADERS, **more):
    fields = {":method": "POST", ":scheme": "http", ":path": SERVICE + method, ":authority": "localhost",
              "content-type": "application/grpc", "te": "trailers", **more}
    return frame(HEADERS, flags, stream, b"".join(field(*pair) for pair in fields.items()))


def message(stream, body=b""):
    return frame(DATA, END_STREAM, stream, b"\0" + struct.pack(">I", len(body)) + body)


def messages(stream, body):
    """A message of any length, in frames."""
    data = b"\0" + struct.pack(">I", len(body)) + body
    pieces = [data[i:i + 16384] for i in range(0, len(data), 16384)]
    return b"".join(frame(DATA, END_STREAM * (piece is pieces[-1]), stream, piece) for piece in pieces)


def varint(number):
    data = b""
    while number > 127:
        data, number = data + bytes([number & 127 | 128]), number >> 7
    return data + bytes([number])


def part(number, value):
    """A field of a protobuf message whose value is bytes."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def infer_request(model, name, shape, raw):
    """A ModelInferRequest of one FP32 tensor with raw contents."""
    tensor = part(1, name.encode()) + part(2, b"FP32") + part(3, b"".join(map(varint, shape)))
    return part(1, model.encode()) + part(5, tensor) + part(7, raw)


class Peer:
    """A connection on which frames are written and read."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data

    def frame(self):
        """(kind, flags, stream, payload)"""
        head = self.receive(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream, self.receive(int.from_bytes(head[:3], "big"))

    def until(self, kind):
        while True:
            found = self.frame()
            if found[0] == kind:
                return found

    def is_closed(self):
        try:
            while True:
                self.frame()
        except (ConnectionError, OSError) as error:
            return not isinstance(error, TimeoutError)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()


class TinyCase(ServerCase):
    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))


class HostileCase(TinyCase):
    @property
    def port(self):
        return self.server.grpc_port

    def tearDown(self):
        with Peer(self.port) as peer:  # whatever was sent, others are served
            self.assert_live(peer, 1)

    def assert_live(self, peer, stream):
        peer.send(header(stream, "ServerLive") + message(stream))
        self.assertEqual(peer.until(DATA)[3], LIVE)


class HostileTest(HostileCase):
    """No timeout closes connections here."""

    options = {"grpc_port": 0, "log_level": "info", "idle_timeout_ms": 600000, "request_timeout_ms": 600000}

    def test_calls_in_a_row(self):
        with Peer(self.port) as peer:
            for stream in range(1, 21, 2):
                self.assert_live(peer, stream)

    def test_other_protocols_are_closed(self):
        for hello in (b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", os.urandom(200)):
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as raw:
                raw.sendall(hello + bytes(64))
                try:
                    while raw.recv(4096):
                        pass
                except ConnectionResetError:
                    pass

    def test_malformed_frames_end_the_connection(self):
        for bad in (frame(DATA, 0, 0, b"x"), frame(SETTINGS, 0, 0, b"123"), frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff"),
                    frame(PING, 0, 0, b"short"), frame(HEADERS, END_HEADERS, 2, b""), frame(9, 0, 1, b"")):
            with Peer(self.port) as peer:
                peer.send(bad)
                self.assertTrue(peer.is_closed(), bad)

    def test_hung_up_calls(self):
        for sent in (header(1, "ServerLive"), header(1, "ModelInfer") + frame(DATA, 0, 1, b"\0\0\0\1\0" + bytes(100)),
                     header(1, "ServerLive") + message(1)):
            with Peer(self.port) as peer:
                peer.send(sent)

    def test_floods_are_sent_away(self):
        for flood in (lambda stream: frame(PING, 0, 0, bytes(8)), lambda stream: frame(SETTINGS),
                      lambda stream: header(stream, "ServerLive") + frame(RST_STREAM, 0, stream, b"\0\0\0\x08"),
                      lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, field("Upper-case", "b")),
                      lambda stream: header(stream, "ModelInfer"),  # more than may be open are refused
                      lambda stream: (header(1, "ModelInfer") if stream == 1 else frame(DATA, PADDED, 1, b"\3\0\0\0"))):
            with Peer(self.port) as peer:
                try:
                    for stream in range(1, 8001, 2):
                        peer.send(flood(stream))
                except OSError:
                    pass  # sent away in the middle
                self.assertTrue(peer.is_closed())


class UnreadTest(HostileCase):
    """Clients that send and do not read."""

    options = HostileTest.options

    def flood(self, peer, frames, seconds):
        """Sends more and more of `frames` until that fails, or for so long; the bytes sent."""
        until, sent = time.monotonic() + seconds, 0
        peer.socket.settimeout(1)
        try:
            while time.monotonic() < until:
                peer.send(piece := frames(sent))
                sent += len(piece)
        except OSError:
            pass
        return sent

    def test_what_they_are_owed_does_not_grow(self):
        streams = lambda make: (lambda sent, next_stream=iter(range(1, 1 << 30, 2)):
                                b"".join(make(next(next_stream)) for _ in range(1000)))
        before = self.server.resident_kb()
        for make in (lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, field("Upper-case", "b")),
                     lambda stream: header(stream, "Nothing", END_HEADERS | END_STREAM),
                     lambda stream: header(stream, "ModelInfer") + frame(WINDOW_UPDATE, 0, stream, b"\x7f\xff\xff\xff")):
            with Peer(self.port) as peer:
                self.flood(peer, streams(make), 4)
        self.assertLess(self.server.resident_kb() - before, 64 << 10)

    def fill(self, peer):
        """Asks for answers until the sockets between take no more of them."""
        rows = 1000
        body = infer_request("tiny", "x", [rows, 4], bytes(16 * rows))
        peer.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0x7FFFFFFF)) + frame(WINDOW_UPDATE, 0, 0, b"\x7f\0\0\0"))
        for stream in range(1, 1600, 2):
            peer.send(header(stream, "ModelInfer") + messages(stream, body))
            if stream % 80 == 79:
                time.sleep(0.1)

    def test_one_that_is_sent_away_and_does_not_read_costs_no_time(self):
        if os.environ.get("MOED_TEST_LOOPS", "1") != "1":
            self.skipTest("the time of the process is not that of one loop")
        with Peer(self.port) as peer:
            self.fill(peer)
            for _ in range(4):
                peer.send(3000 * frame(PING, 0, 0, bytes(8)))
                time.sleep(0.2)
            before = self.server.cpu_seconds()
            time.sleep(2)
            self.assertLess(self.server.cpu_seconds() - before, 1)


class TimeoutsTest(HostileCase):
    options = {"grpc_port": 0, "log_level": "info", "idle_timeout_ms": 700, "request_timeout_ms": 700}

    def test_silent_and_idle_clients_are_sent_away(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as silent, Peer(self.port) as idle:
            self.assertEqual(idle.until(GOAWAY)[3][4:], bytes(4))
            self.assertTrue(idle.is_closed())
            self.assertEqual(silent.recv(1), b"")

    def test_slow_requests_are_refused(self):
        with Peer(self.port) as peer:
            peer.send(header(1, "ModelInfer") + frame(DATA, 0, 1, b"\0\0\0"))
            kind, flags, stream, payload = peer.until(HEADERS)
            self.assertEqual((flags & END_STREAM, stream), (END_STREAM, 1))
            self.assertEqual(peer.until(RST_STREAM)[3], bytes(4))
            self.assert_live(peer, 3)

    def test_a_silent_client_keeps_no_drain_waiting(self):
        server = self.start(drain_timeout_ms=60000, request_timeout_ms=60000)
        self.addCleanup(server.kill)
        with socket.create_connection(("127.0.0.1", server.grpc_port)):
            time.sleep(0.05)  # it is accepted
            server.signal()
            server.assert_clean(server.wait(45))


class SlotsTest(TinyCase):
    options = {"grpc_port": 0, "log_level": "info", "max_connections": 3}

    def test_idle_connections_give_way_to_each_other(self):
        port = self.server.grpc_port
        peers = []
        for _ in range(3):
            time.sleep(0.05)  # they have been idle for long when the next one comes, to which none need give way
            peers.append(Peer(port))
            peers[-1].send(header(1, "ServerLive") + message(1))
            self.assertEqual(peers[-1].until(DATA)[3], LIVE)
        for peer in peers:
            peer.send(header(3, "ServerLive") + message(3))
            self.assertEqual(peer.until(DATA)[3], LIVE)
            time.sleep(0.05)  # the first is the longest idle one, in whichever loop
        self.assertEqual(self.client.get("/v2").status, 200)  # takes the place of the first
        self.assertTrue(peers[0].is_closed())
        time.sleep(0.05)
        with Peer(port) as another:  # takes that of the second
            another.send(header(1, "ServerLive") + message(1))
            self.assertEqual(another.until(DATA)[3], LIVE)
        self.assertTrue(peers[1].is_closed())
        for peer in peers:
            peer.socket.close()


class ReserveTest(TinyCase):
    options = {"grpc_port": 0, "log_level": "info", "max_connections": 3, "request_timeout_ms": 600000,
               "idle_timeout_ms": 600000}

    def test_health_is_told_when_every_connection_is_in_use(self):
        port = self.server.grpc_port
        with contextlib.ExitStack() as stack:
            busy = [stack.enter_context(Peer(port)) for _ in range(3)]
            for peer in busy:
                peer.send(header(1, "ServerLive") + message(1) + header(3, "ModelInfer"))
                self.assertEqual(peer.until(DATA)[3], LIVE)
            for _ in range(40):  # who says nothing makes room
                stack.enter_context(Peer(port))
            last = stack.enter_context(Peer(port))
            last.send(header(1, "ServerLive") + message(1))
            self.assertEqual(last.until(DATA)[3], LIVE)
            last.send(header(3, "ServerMetadata") + message(3))
            while (answer := last.until(HEADERS))[2] != 3:
                pass
            self.assertTrue(answer[1] & END_STREAM, "it has an answer")
            self.assertEqual(self.client.get("/v2/health/live").status, 200)
            busy[0].socket.close()
            stream, kind = 5, None
            while kind != DATA and stream < 2000:  # once the server has seen that a slot is free
                time.sleep(0.02)
                last.send(header(stream, "ServerMetadata") + message(stream))
                while (answer := last.frame())[2] != stream or answer[0] not in (HEADERS, DATA):
                    pass
                kind = answer[0] if answer[0] == DATA or answer[1] & END_STREAM else last.until(DATA)[0]
                stream += 2
            self.assertEqual(kind, DATA)


class AddressTest(TinyCase):
    """A server of its own: nothing else closes connections here."""

    options = {"grpc_port": 0, "log_level": "info", "idle_timeout_ms": 600000, "request_timeout_ms": 600000,
               "max_connections_per_ip": 8}

    def test_connections_of_one_address_are_bounded(self):
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(socket.create_connection(("127.0.0.1", self.server.grpc_port), timeout=30))
                     for _ in range(20)]
            closed = set()  # any twelve: two loops accept in an order of their own
            until = time.monotonic() + PATIENCE_SECONDS
            while len(closed) < 12 and time.monotonic() < until:
                for peer in select.select([peer for peer in peers if peer not in closed], [], [], 1)[0]:
                    self.assertEqual(peer.recv(1), b"")
                    closed.add(peer)
            time.sleep(0.05)
            self.assertEqual(len(closed), 12)
            self.assertEqual(select.select([peer for peer in peers if peer not in closed], [], [], 0)[0], [],
                             "closed, but within the limit")


if __name__ == "__main__":
    unittest.main()
