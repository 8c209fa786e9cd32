"""The requests in the README get the answers that it shows; its example clients stand what a server may say."""

import gzip
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from support.server import BINARY, ROOT, ServerCase


def run_script(name, *arguments, **options):
    """deploy/NAME with arguments."""
    options = {"capture_output": True, "encoding": "utf-8", "timeout": 60,
               "env": {**os.environ, "PYTHONIOENCODING": "utf-8"}, **options}
    return subprocess.run([sys.executable, os.path.join(ROOT, "deploy", name), *arguments], **options)


def example(name):
    with open(os.path.join(ROOT, "deploy", name), "rb") as file:
        return file.read()


class ExamplesTest(ServerCase):
    def test_an_ankle_boot(self):
        answer = self.client.post("/v1/models/fashion-mnist:predict", example("example.json"))
        self.assertEqual(answer.status, 200, answer.body)
        (probabilities,) = answer.json["predictions"]
        self.assertEqual(probabilities.index(max(probabilities)), 9)

    def test_two_answers_about_one_row(self):
        answer = self.client.post("/v2/models/adult-mmoe/infer", example("example-adult.json"))
        self.assertEqual(answer.status, 200, answer.body)
        outputs = {output["name"]: output["data"] for output in answer.json["outputs"]}
        self.assertTrue(outputs["income"][0].endswith(":0:<=50K"), outputs)
        self.assertTrue(outputs["never_married"][0].endswith(":0:no"), outputs)
        self.assertEqual(sorted(outputs["routing.experts.income.experts"]), list(range(8)))

    def test_a_class_without_rows(self):
        done = run_script("stories/worth.py", "--moed", BINARY, "--rows", "50", "mnist")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"\n +8 +none of these rows\n")

    def test_no_server_is_left_behind(self):
        """SIGHUP is what a terminal sends that is closed."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number.name):
                worth = subprocess.Popen([sys.executable, os.path.join(ROOT, "deploy", "stories", "worth.py"), "--moed", BINARY],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                children = f"/proc/{worth.pid}/task/{worth.pid}/children"
                server, deadline = [], time.monotonic() + 60
                while not server and time.monotonic() < deadline:
                    with open(children, encoding="ascii") as file:
                        server = [pid for pid in file.read().split() if os.readlink(f"/proc/{pid}/exe") == os.path.realpath(BINARY)]
                time.sleep(0.5)  # so that worth.py knows of it
                worth.send_signal(number)
                self.assertEqual(worth.wait(60), 128 + number)
                self.assertFalse(os.path.exists(f"/proc/{server[0]}"))

    def test_a_reader_that_has_seen_enough(self):
        """As `| head` does: the pipe's other end is closed."""
        for arguments in (("speak.py", "--url", self.server.url, "tiny-lm"),
                          ("stories/worth.py", "--moed", BINARY, "--rows", "50", "mnist")):
            with self.subTest(arguments[0]):
                read, write = os.pipe()
                os.close(read)
                done = run_script(*arguments, capture_output=False, stdout=write, stderr=subprocess.PIPE)
                os.close(write)
                self.assertEqual((done.returncode, done.stderr), (1, ""))


class Guarded(http.server.BaseHTTPRequestHandler):
    """Refuses who has no token, and sends who has one elsewhere, where nobody may see it."""

    heard = ()

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((self.path, self.headers["Authorization"]))
        if self.headers["Authorization"] is None:
            body = b'{"error": "\033]0;x\a\xc2\x9b2J takes a token"}\n'
            self.send_response(401)
        else:
            body = b""
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.heard.append((self.path, self.headers["Authorization"]))
        self.send_error(404)


class TokenTest(unittest.TestCase):
    """deploy/speak.py and deploy/classify.py at a server that asks for a token."""

    def setUp(self):
        self.data = tempfile.TemporaryDirectory()
        self.addCleanup(self.data.cleanup)
        for name, size in (("images-idx3", 16 + 1010 * 784), ("labels-idx1", 8 + 1010)):
            with gzip.open(os.path.join(self.data.name, f"t10k-{name}-ubyte.gz"), "wb", 1) as file:
                file.write(bytes(size))
        self.handler = type("Handler", (Guarded,), {"heard": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        self.scripts = (("speak.py", "--url", url, "m"), ("classify.py", "--url", url, "--data", self.data.name, "m"))

    def run_all(self, *options, token=None):
        """Of each script: its name, how it ended, the Authorization of its requests."""
        env = {name: value for name, value in os.environ.items() if name != "MOED_TOKEN"}
        env.update({"PYTHONIOENCODING": "utf-8"}, **({"MOED_TOKEN": token} if token else {}))
        for name, *arguments in self.scripts:
            self.handler.heard.clear()
            yield name, run_script(name, *options, *arguments, env=env), [header for _, header in self.handler.heard]

    def test_a_refusal_says_where_a_token_goes_and_no_terminal_obeys_it(self):
        for name, done, heard in self.run_all():
            self.assertEqual((done.returncode, heard), (1, [None]), name)
            self.assertIn("answered 401", done.stderr, name)
            self.assertIn("?]0;x??2J takes a token", done.stderr, name)
            self.assertIn("(--token or MOED_TOKEN)", done.stderr, name)

    def test_a_token_goes_to_its_server_only(self):
        for name, done, heard in self.run_all("--token", "moed_1", token="moed_2"):
            self.assertEqual(heard, ["Bearer moed_1", None], (name, done.stderr))
        for name, done, heard in self.run_all(token="moed_2"):
            self.assertEqual(heard, ["Bearer moed_2", None], (name, done.stderr))

    def test_addresses_that_are_none(self):
        for url in ("localhost:8080", "http://", "ftp://127.0.0.1", "", "https:/127.0.0.1", "http://[1"):
            for name, *_, model in self.scripts:
                done = run_script(name, "--url", url, "--data" if name == "classify.py" else "--tokens",
                                  self.data.name if name == "classify.py" else "1", model)
                with self.subTest(name, url=url):
                    self.assertIn(done.returncode, (1, 2))
                    self.assertNotIn("Traceback", done.stderr)

    def test_a_server_that_speaks_no_http(self):
        """As one with TLS does, to who says http://."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            def answer():
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with connection:
                        connection.recv(1 << 20)
                        connection.sendall(b"\x15\x03\x03\x00\x02\x02\x16")
            threading.Thread(target=answer, daemon=True).start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            for name, _, _, *arguments in self.scripts:
                done = run_script(name, "--url", url, *arguments)
                self.assertEqual((done.returncode, done.stdout.strip()), (1, "m" if name == "classify.py" else ""), done.stderr)
                self.assertRegex(done.stderr, r"^\w+: \S+: no answer of HTTP; a server with TLS is https://\n$")
            listener.shutdown(socket.SHUT_RDWR)

    def test_a_token_that_no_header_can_hold(self):
        for token in ("a\r\nb", "schl\u00fcssel"):
            for name, done, heard in self.run_all("--token", token):
                self.assertEqual((done.returncode, heard), (2, []), name)
                self.assertIn("--token: expected printable ASCII", done.stderr, name)


class HostileStream(http.server.BaseHTTPRequestHandler):
    lines = ()

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        try:
            for line in self.lines:
                self.wfile.write(line)
        except ConnectionError:
            pass  # it has heard enough

    def do_GET(self):
        body = b'{"layers": [{"name": "moe", "experts": [{}]}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class SpeakTest(unittest.TestCase):
    """deploy/speak.py, which doubles as an example of how to read a stream."""

    def speak(self, *lines):
        handler = type("Handler", (HostileStream,), {"lines": lines})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            done = run_script("speak.py", "--url", f"http://127.0.0.1:{server.server_port}", "m", "hello")
            server.shutdown()
        return done

    @staticmethod
    def event(**document):
        return b"data: " + json.dumps(document).encode() + b"\n\n"

    def test_no_terminal_obeys_a_model(self):
        text = {"text": "grün\033]0;x\a\u009b2J\u202e", "routing": {"layers": [{"name": "moe", "experts": [[0], [0]]}]}}
        done = self.speak(self.event(choices=[text]), self.event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 1}))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("grün?]0;x??2J?", done.stdout)
        self.assertEqual(self.speak(self.event(error={"message": "\033[2Jno"})).stderr, "speak: ?[2Jno\n")

    def test_an_answer_that_breaks_off(self):
        done = self.speak(self.event(choices=[{"text": "grün"}]))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (1, "\n    hellogrün\n", "speak: the answer broke off\n"))

    def test_a_line_without_an_end(self):
        done = self.speak(*[b"x" * (1 << 20)] * 80)
        self.assertEqual((done.returncode, done.stdout), (1, "\n    hello\n"))
        self.assertIn("a line of the answer has 67108864 bytes or more", done.stderr)


if __name__ == "__main__":
    unittest.main()
