"""The requests in the README get the answers that it shows; its example of a stream stands what a server may say."""

import http.server
import json
import os
import subprocess
import sys
import threading
import unittest

from support.server import ROOT, ServerCase


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
            done = subprocess.run([sys.executable, os.path.join(ROOT, "deploy/speak.py"), "--url",
                                   f"http://127.0.0.1:{server.server_port}", "m", "hello"], capture_output=True,
                                  encoding="utf-8", timeout=60, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
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

    def test_a_line_without_an_end(self):
        done = self.speak(*[b"x" * (1 << 20)] * 80)
        self.assertEqual((done.returncode, done.stdout), (1, "\n    hello"))
        self.assertIn("a line of the answer has 67108864 bytes or more", done.stderr)


if __name__ == "__main__":
    unittest.main()
