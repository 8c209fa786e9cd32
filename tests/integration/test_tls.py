"""TLS: versions, certificates and their reload, clients' certificates, and HTTP's odd moments inside of it."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
import warnings

from support.http import Closed, Connection, request_bytes
from support.moectl import moectl, needs_moectl
from support.models import Tiny, write_slow
from support.server import ServerCase, run

SLOW = request_bytes("POST", "/v1/models/slow:predict", json.dumps({"instances": [[1, 2, 3, 4]]}).encode())


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


class Secure(Connection):
    """A connection with TLS around it."""

    def __init__(self, port, context):
        super().__init__(port)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")


@unittest.skipUnless(shutil.which("openssl"), "openssl is missing")
class TlsCase(ServerCase):
    options = {"log_level": "info", "request_timeout_ms": 2000, "drain_timeout_ms": 120000}
    client_ca = False

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        write_slow(os.path.join(directory, "slow"), seconds=0.3)

    @classmethod
    def start(cls, **options):
        if "files" not in cls.__dict__:
            directory = tempfile.TemporaryDirectory()
            cls.addClassCleanup(directory.cleanup)
            cls.files = directory.name
            cls.certify("server", "one")
            cls.certify("clients", "their CA")
        if cls.client_ca:
            options["tls_client_ca"] = cls.path("clients.pem")
        return super().start(tls_cert=cls.path("server.pem"), tls_key=cls.path("server.key"), **options)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.files, name)

    @classmethod
    def certify(cls, name, subject):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-keyout", cls.path(name + ".key"), "-out", cls.path(name + ".pem"), "-subj", f"/CN={subject}",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")

    def context(self, **settings):
        context = ssl.create_default_context(cafile=self.path("server.pem"))
        for name, value in settings.items():
            setattr(context, name, value)
        return context

    def connect(self, context=None):
        connection = Secure(self.server.port, context or self.context())
        self.addCleanup(connection.close)
        return connection


class TlsTest(TlsCase):
    def test_requests(self):
        self.assertTrue(self.server.url.startswith("https://"))
        body = json.dumps({"instances": [[1, 2, 3, 4]] * 500}).encode()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            connection = self.connect(self.context(minimum_version=version, maximum_version=version))
            for _ in range(3):
                answer = connection.request("POST", "/v1/models/tiny:predict", body)
                self.assertEqual((answer.status, len(answer.json["predictions"])), (200, 500))
                self.assertEqual(connection.request("GET", "/v2").status, 200)
                self.assertEqual(connection.request("HEAD", "/v2").status, 200)

    def test_a_handshake_waits_for_no_acknowledgement(self):
        """Systems delay them by at least 40 ms."""
        def seconds():
            began = time.monotonic()
            self.connect()
            return time.monotonic() - began

        self.assertLess(min(seconds() for _ in range(20)), 0.039)

    def test_old_versions_are_refused(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.connect(context)

    def test_http_1_1_is_agreed_on(self):
        context = self.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.assertEqual(self.connect(context).socket.selected_alpn_protocol(), "http/1.1")

    def test_large_bodies_and_slow_readers(self):
        connection = self.connect()
        instances = [[0.123456789 + i, 2.5, -3.25, 4.125] for i in range(1000)]
        body = json.dumps({"instances": instances, "routing": True}).encode()
        self.assertGreater(len(body), 2 * 16384)  # records
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(20):
            connection.send(request_bytes("POST", "/v1/models/tiny:predict", body))
        time.sleep(0.3)
        for _ in range(20):
            self.assertEqual(len(connection.answer().json["predictions"]), 1000)

    def test_bytes_that_come_one_by_one(self):
        connection = self.connect()
        for byte in request_bytes("POST", "/v1/models/tiny:predict", b'{"instances":[[1,2,3,4]]}'):
            connection.send(bytes([byte]))
        self.assertEqual(connection.answer().status, 200)

    def test_a_pipeline(self):
        connection = self.connect()
        connection.send(200 * request_bytes("GET", "/v2"))
        self.assertEqual({connection.answer().status for _ in range(200)}, {200})

    def test_refusals_are_read(self):
        connection = self.connect()
        connection.send(b"GET / HTTP/1.1\nHost: x\r\n\r\n")
        answer = connection.answer()
        self.assertEqual((answer.status, answer.closes), (400, True))
        self.assertEqual(connection.socket.recv(1), b"")  # with a close_notify: no ssl.SSLEOFError
        connection = self.connect()
        connection.send(b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        self.assertEqual(connection.answer().status, 408)
        connection = self.connect()
        connection.send(b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                        b"Expect: 100-continue\r\n\r\n")
        self.assertIn(b"100 Continue", connection.socket.recv(100))

    def test_the_end_is_told(self):
        connection = self.connect()
        answer = connection.request("GET", "/v2", headers={"Connection": "close"})
        self.assertTrue(answer.closes)
        self.assertEqual(connection.socket.recv(1), b"")
        connection = self.connect()
        connection.send(b"GET /v2 HTTP/1.0\r\n\r\n")
        self.assertEqual(connection.answer().status, 200)
        self.assertEqual(connection.socket.recv(1), b"")

    def test_a_client_that_has_ended_its_side_is_answered(self):
        """By a close_notify; an end without one is that of a client that has gone."""
        connection = self.connect()
        connection.send(SLOW)
        connection.socket.settimeout(0)
        with self.assertRaises(ssl.SSLWantReadError):
            connection.socket.unwrap()  # sends it, and would wait for the server's
        connection.socket.settimeout(60)
        self.assertEqual(connection.answer().status, 200)
        gone = self.connect()
        gone.send(SLOW)
        gone.close()
        self.await_log("status=499")

    def test_what_is_no_tls(self):
        with Connection(self.server.port) as plain:
            plain.send(request_bytes("GET", "/v2"))
            with self.assertRaises(Closed):
                plain.answer()
        with Connection(self.server.port) as silent:
            self.assertEqual(self.connect().request("GET", "/v2").status, 200)
            silent.reset()
        with Connection(self.server.port) as cut:
            cut.send(b"\x16\x03\x01\x02\x00\x01")
        self.assertEqual(self.connect().request("GET", "/v2").status, 200)

    def test_events(self):
        connection = self.connect()
        connection.send(request_bytes("GET", "/v2/models/tiny/routing/live"))
        received = b""
        while received.count(b"data:") < 2:
            received += connection.socket.recv(65536)

    def test_reload(self):
        context = self.context()
        kept = self.connect(context)
        before = kept.socket.getpeercert(True)
        self.server.signal(signal.SIGHUP)
        self.await_log('event=certificate message="[^ ]* is the same as before"')
        self.certify("server", "two")
        self.server.signal(signal.SIGHUP)
        self.await_log('event=certificate message="new connections')
        self.assertEqual(kept.request("GET", "/v2").status, 200)
        after = self.connect().socket.getpeercert(True)
        self.assertNotEqual(before, after)
        with open(self.path("server.key"), "w") as file:
            file.write("nonsense")
        self.server.signal(signal.SIGHUP)
        self.await_log("event=certificate_failed")
        self.assertEqual(self.connect().socket.getpeercert(True), after)
        self.certify("server", "three")
        self.server.signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.connect()
                break
            except ssl.SSLError:
                time.sleep(0.05)
        self.assertEqual(kept.request("GET", "/v2").status, 200)

    def test_probe(self):
        port = str(self.server.port)
        self.assertEqual(run("probe", "--port", port, "--tls").returncode, 0)
        self.assertEqual(run("probe", "--port", port, env={"MOED_TLS_CERT": "x"}).returncode, 0)
        plain = run("probe", "--port", port)
        self.assertEqual(plain.returncode, 1)
        self.assertIn("without an answer; a server with TLS is asked with --tls", plain.stderr)

    @needs_moectl
    def test_moectl(self):
        known = self.path("known.pem")  # another test replaces server.pem
        with open(known, "w", encoding="ascii") as file:
            file.write(ssl.get_server_certificate(("127.0.0.1", self.server.port)))
        done = moectl("models", "--names", "--ca", known, url=self.server.url)
        self.assertEqual((done.returncode, done.stdout), (0, "slow\ntiny\n"), done.stderr)
        done = moectl("models", "--names", url=self.server.url, env={"MOED_CA": known})
        self.assertEqual(done.returncode, 0, done.stderr)
        for ca, words in ((None, "no answer: .*certificate.*--ca"), (self.path("clients.pem"), "no answer: .*certificate"),
                          ("/nowhere.pem", "cannot use the CA file: .*/nowhere.pem; expected a file of certificates in PEM")):
            done = moectl("models", *(["--ca", ca] if ca else []), url=self.server.url)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, words)
        done = moectl("models", url=self.server.url.replace("https", "http"))
        self.assertRegex(done.stderr, "no answer: .*; a server with TLS is https://")

    def test_a_drain(self):
        server = self.start()
        self.addCleanup(server.kill)
        connection = Secure(server.port, ssl.create_default_context(cafile=self.path("server.pem")))
        self.addCleanup(connection.close)
        connection.send(SLOW)
        time.sleep(0.1)
        server.signal()
        answer = connection.answer()
        self.assertEqual((answer.status, answer.closes), (200, True))
        self.assertEqual(connection.socket.recv(1), b"")
        server.assert_clean(server.wait())


class ClientCertificateTest(TlsCase):
    client_ca = True

    def test_everything_but_health_takes_a_certificate(self):
        connection = self.connect()
        self.assertEqual(connection.request("GET", "/v2/health/ready").status, 200)
        self.assert_error(connection.request("GET", "/v2"), 403, "client certificate")
        self.assert_error(connection.request("GET", "/metrics"), 403, "client certificate")
        context = self.context()
        self.sign("me", "clients")
        context.load_cert_chain(self.path("me.pem"), self.path("me.key"))
        self.assertEqual(self.connect(context).request("GET", "/v2").status, 200)

    def test_certificates_of_others_are_refused(self):
        self.certify("stranger", "a stranger")
        context = self.context()
        context.load_cert_chain(self.path("stranger.pem"), self.path("stranger.key"))
        with self.assertRaises((ssl.SSLError, ConnectionError, Closed)):
            self.connect(context).request("GET", "/v2/health/ready")

    def sign(self, name, authority):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                self.path(name + ".key"), "-out", self.path(name + ".csr"), "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path(authority + ".pem"), "-CAkey",
                self.path(authority + ".key"), "-CAcreateserial", "-days", "2", "-out", self.path(name + ".pem"))


class OptionsTest(unittest.TestCase):
    def test_wrong_ones(self):
        for wrong in (["--tls-cert", "x"], ["--tls-key", "x"], ["--tls-client-ca", "x"]):
            done = run("check-config", "--models", "x", *wrong)
            self.assertEqual(done.returncode, 2)
            self.assertIn("tls_cert and tls_key belong together", done.stderr)
        with tempfile.TemporaryDirectory() as models:
            done = run("serve", "--models", models, "--port", "0", "--tls-cert", "/nowhere", "--tls-key", "/nowhere")
            self.assertEqual(done.returncode, 1)
            self.assertIn("tls_cert: cannot read /nowhere: No such file or directory", done.stderr)


if __name__ == "__main__":
    unittest.main()
