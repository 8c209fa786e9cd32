"""The client against servers that mean no good: what they send is bounded in size and in time, and read strictly."""

import contextlib
import gzip
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
import zlib
from unittest import mock

from moed.client import Client, ProtocolError, RequestError, Unreachable

HEAD = b"HTTP/1.1 200 OK\r\n"
NAMES = json.dumps({"models": ["m"]}).encode()


def whole(content=NAMES, head=HEAD, *fields):
    lines = [*fields, b"Content-Length: %d" % len(content), b"", content]
    return head + b"\r\n".join(lines)


class RawServer:
    """Answers every request with these pieces, `pause` seconds before each but the first; a list of lists: in turn."""

    def __init__(self, answers, pause=0.0, tls=None):
        self.answers, self.pause, self.tls, self.ended, self.taken = answers, pause, tls, False, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self):
        while not self.ended:
            with contextlib.suppress(OSError), self.listener.accept()[0] as client:
                client.settimeout(10)
                if self.tls:
                    client = self.tls.wrap_socket(client, server_side=True)
                while not self.ended and client.recv(1 << 16):
                    for index, piece in enumerate(self.answers[min(self.taken, len(self.answers) - 1)]):
                        time.sleep(self.pause if index else 0)
                        client.sendall(piece)
                    self.taken += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.ended = True
        with contextlib.suppress(OSError), socket.create_connection(self.listener.getsockname()):
            pass
        self.thread.join()
        self.listener.close()


class Case(unittest.TestCase):
    def start(self, *answers, pause=0.0, tls=None, **options):
        """A client of a server that gives these answers, each bytes or a list of pieces."""
        pieces = [[answer] if isinstance(answer, bytes) else answer for answer in answers]
        server = RawServer(pieces, pause, tls)
        client = Client(server.url, **{"timeout": 5, **options})
        self.addCleanup(server.__exit__)
        self.addCleanup(client.close)
        server.__enter__()
        return client

    @contextlib.contextmanager
    def within(self, seconds):
        began = time.monotonic()
        yield
        self.assertLess(time.monotonic() - began, seconds)


class SizeTest(Case):
    def test_what_a_header_announces(self):
        client = self.start(HEAD + b"Content-Length: 99999999999999\r\n\r\n")
        with self.assertRaisesRegex(ProtocolError, "more than 268435456 bytes; Client's max_answer_bytes"):
            client.models()

    def test_what_comes_without_a_length(self):
        piece = b" " * 10_000
        for name, head, part in (("to the end", b"Connection: close\r\n\r\n", piece),
                                 ("chunks", b"Transfer-Encoding: chunked\r\n\r\n", b"2710\r\n" + piece + b"\r\n")):
            client = self.start([HEAD + head, *[part] * 1000], max_answer_bytes=25_000)
            with self.subTest(name), self.assertRaisesRegex(ProtocolError, "more than 25000 bytes"):
                client.models()

    def test_the_bound_itself_fits(self):
        for most in (len(NAMES), len(NAMES) - 1):
            client = self.start(whole(), max_answer_bytes=most)
            if most == len(NAMES):
                self.assertEqual(client.models(), ["m"])
            else:
                self.assertRaises(ProtocolError, client.models)

    def test_refusals_are_bounded_too(self):
        client = self.start(whole(b" " * 30_000, b"HTTP/1.1 400 Bad Request\r\n"), max_answer_bytes=25_000)
        self.assertRaises(ProtocolError, client.models)
        long = whole(json.dumps({"error": "x" * 5000}).encode(), b"HTTP/1.1 400 Bad Request\r\n")
        with self.assertRaises(RequestError) as caught:
            self.start(long).models()
        self.assertEqual(caught.exception.message, "x" * 1000 + "...")

    def test_codings_are_undone_within_the_bound(self):
        for name, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
            field = b"Content-Encoding: " + name.encode()
            with self.subTest(name):
                self.assertEqual(self.start(whole(pack(NAMES), HEAD, field)).models(), ["m"])
                bomb = self.start(whole(pack(bytes(50_000_000)), HEAD, field), max_answer_bytes=1_000_000)
                with self.assertRaisesRegex(ProtocolError, "more than 1000000 bytes"):
                    bomb.models()
                for broken in (pack(NAMES)[:-1], pack(NAMES) + b"x", b"no such coding"):
                    with self.assertRaisesRegex(ProtocolError, name):
                        self.start(whole(broken, HEAD, field)).models()
        with self.assertRaisesRegex(ProtocolError, "'br', which this client has not asked for"):
            self.start(whole(NAMES, HEAD, b"Content-Encoding: br")).models()

    def test_an_answer_that_is_cut_is_none(self):
        client = self.start(HEAD + b"Connection: close\r\nContent-Length: 60\r\n\r\n" + NAMES, timeout=0.5)
        with self.assertRaises(Unreachable):
            client.models()


class TimeTest(Case):
    def test_one_byte_now_and_then_is_no_answer(self):
        slowly = [bytes([byte]) for byte in whole()]
        for name, pieces in (("head", slowly), ("body", [HEAD + b"Content-Length: 99\r\n\r\n", *[b" "] * 99]),
                             ("chunks", [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 99]),
                             ("continue", [b"HTTP/1.1 100 Continue\r\n\r\n"] * 99)):
            client = self.start(pieces, pause=0.05, timeout=0.4)
            with self.subTest(name), self.within(3), self.assertRaisesRegex(Unreachable, "timed out"):
                client.models()

    def test_a_body_that_nobody_reads(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.3)
            with self.within(3), self.assertRaisesRegex(Unreachable, "timed out"):
                client.predict("m", [["x" * 20_000_000]])

    def test_waits_are_in_the_timeout(self):
        busy = whole(b'{"error": "busy"}', b"HTTP/1.1 503 Busy\r\n", b"Retry-After: 1")
        client = self.start(busy, busy, whole(), timeout=1.5)
        with self.within(3), self.assertRaisesRegex(RequestError, "503: busy"):
            client.models()

    def test_each_exchange_has_its_own(self):
        client = self.start(whole(), timeout=0.5)
        for _ in range(3):
            self.assertEqual(client.models(), ["m"])
            time.sleep(0.25)

    def test_no_time_is_refused(self):
        for timeout in (0, -1, float("nan"), float("inf")):
            with self.subTest(timeout), self.assertRaisesRegex(ValueError, "the timeout is"):
                Client("http://127.0.0.1:1", timeout=timeout)


class StrictTest(Case):
    def test_a_retry_after_that_is_no_number(self):
        """"²" is a digit to str.isdigit() and none to float()."""
        for text in (b"\xb2", b"1_0", b"+1", b"1.5", b"-1", b"Wed, 21 Oct 2015 07:28:00 GMT", b"9" * 400):
            busy = whole(b"{}", b"HTTP/1.1 503 Busy\r\n", b"Retry-After: " + text)
            with self.subTest(text), self.within(1):
                self.assertEqual(self.start(busy, whole()).models(), ["m"])

    def test_a_length_that_is_no_number(self):
        metadata = whole(json.dumps({"inputs": [{"name": "x", "datatype": "FP32"}]}).encode())
        for text in (b"\xb2", b"1_0", b"+14", b" ", b"9" * 5000):
            answer = whole(b'{"outputs":[]}', HEAD, b"Inference-Header-Content-Length: " + text)
            with self.subTest(text), self.assertRaisesRegex(ProtocolError, "Inference-Header-Content-Length is"):
                self.start(metadata, answer).infer("m", [[1]])

    def test_answers_of_any_shape(self):
        metadata = whole(json.dumps({"inputs": [{"name": "x", "datatype": "FP32"}]}).encode())
        output = {"name": "p", "datatype": "FP32", "shape": [1], "data": [1]}
        for answer in ([], 3, None, "x", {"outputs": 3}, {"outputs": [3]}, {"outputs": {"a": 1}},
                       {"outputs": [{**output, "shape": "x"}]}, {"outputs": [{**output, "data": [[1], [1, 2]]}]},
                       {"outputs": [{**output, "data": [10 ** 400]}]}, {"outputs": [{**output, "parameters": []}]},
                       {"outputs": [{**output, "parameters": {"binary_data_size": "4"}}]},
                       {"outputs": [{**output, "name": []}]}):
            with self.subTest(answer), self.assertRaises(ProtocolError):
                self.start(metadata, whole(json.dumps(answer).encode())).infer("m", [[1]])
        for answer in ({"predictions": 3}, {"predictions": [[1], [1, 2]]}, {"predictions": [{"a": 1}, 2]},
                       {"predictions": [1], "routing": []}, {"predictions": [1], "routing": {"moe": 3}}):
            with self.subTest(answer), self.assertRaises(ProtocolError):
                self.start(whole(json.dumps(answer).encode())).predict("m", [[1]], routing=True)
        for answer in ({"models": 3}, {"models": [{}]}, {"models": None}):
            with self.subTest(answer), self.assertRaises(ProtocolError):
                self.start(whole(json.dumps(answer).encode())).models()
        with self.assertRaises(ProtocolError):
            self.start(whole(b"[" * 200_000)).models()

    def test_metadata_of_any_shape(self):
        for inputs in (3, [3], [{"name": [], "datatype": "FP32"}]):
            with self.subTest(inputs), self.assertRaises(ProtocolError):
                self.start(whole(json.dumps({"inputs": inputs}).encode())).infer("m", [[1]])

    def test_what_cannot_be_an_address_or_a_token(self):
        for url in ("http://host/a b", "http://host\n", "http://host?x=1", "http://host#x", "http://user:pw@host"):
            with self.subTest(url), self.assertRaises(ValueError) as caught:
                Client(url)
            self.assertNotIn("pw", str(caught.exception))
        for token in ("", "a b", "a\r\nX: y", "ä"):
            with self.subTest(token), self.assertRaisesRegex(ValueError, "the token"):
                Client("http://host", token=token)

    def test_names_that_would_be_steps_in_a_path(self):
        client = Client("http://127.0.0.1:1")
        for arguments in (("..",), (".",), ("",), ("m", "..")):
            with self.subTest(arguments), self.assertRaisesRegex(ValueError, "cannot be a name"):
                client.metadata(*arguments)


class ProcessTest(Case):
    def test_threads_that_begin_in_a_child(self):
        """No thread of a child process is given the parent's connection while another makes room for its own."""
        client = self.start(whole())
        client.models()
        of_parent, first, make, asked = client._connection(), threading.Event(), threading.local, threading.Event()

        def slowly():
            if not first.is_set():
                first.set()
                asked.wait(5)
            return make()

        with mock.patch("os.getpid", return_value=1), mock.patch("threading.local", slowly):
            other = threading.Thread(target=client._connection)
            other.start()
            first.wait(5)
            try:
                self.assertIsNot(client._connection(), of_parent)
            finally:
                asked.set()
                other.join()


class TlsTest(Case):
    def test_a_ca_of_ones_own(self):
        with tempfile.TemporaryDirectory() as directory:
            key, certificate = (os.path.join(directory, name) for name in ("key.pem", "certificate.pem"))
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2",
                            "-keyout", key, "-out", certificate], check=True, capture_output=True)
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate, key)
            self.assertEqual(self.start(whole(), tls=tls, ca_file=certificate).models(), ["m"])
            with self.assertRaisesRegex(Unreachable, "CERTIFICATE_VERIFY_FAILED"):
                self.start(whole(), tls=tls).models()
            bytewise = [bytes([byte]) for byte in whole()]
            slowly = self.start(bytewise, pause=0.05, tls=tls, ca_file=certificate, timeout=0.5)
            with self.within(3), self.assertRaisesRegex(Unreachable, "timed out"):
                slowly.models()


if __name__ == "__main__":
    unittest.main()
