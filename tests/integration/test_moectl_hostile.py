"""moectl and a server, or a document, that means it harm."""

import http.server
import json
import os
import shlex
import subprocess
import tempfile
import threading
import unittest

from support.moectl import MOECTL, moectl_environment, needs_moectl

ROUTING = {"model": "m", "version": "1", "window": "all",
           "layers": [{"name": "moe", "rows": 1, "top_k": 1, "experts": [{"index": 0, "selected": 1}]}]}


def answer_of(*outputs):
    """(head, bytes): (name, datatype, shape, bytes) each"""
    entries = [{"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
               for name, datatype, shape, size in outputs]
    head = json.dumps({"model_name": "m", "model_version": "1", "outputs": entries}).encode()
    return head, b"\0" * sum(size for _, _, _, size in outputs)


class Hostile(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = {"name": "m", "versions": ["1"], "platform": "moed", "outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 3]}],
             "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}
    names, answer = ["m"], answer_of()

    def log_message(self, *_):
        pass

    def reply(self, body, **headers):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(json.dumps({"models": self.names} if self.path == "/v1/models" else self.model).encode())

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        head, data = self.answer
        self.reply(head + data, Inference_Header_Content_Length=str(len(head)))


@needs_moectl
class HostileTest(unittest.TestCase):
    def serve(self, **says):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hostile,), says))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def refused(self, part, *arguments, url=None, status=1):
        done = subprocess.run([MOECTL, *arguments], env=moectl_environment(url), capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn(part, done.stderr)

    def file(self, value):
        file = tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8")
        self.addCleanup(file.close)
        json.dump(value, file)
        file.flush()
        return file.name

    def test_answers_of_other_sizes_than_they_say(self):
        rows = self.file([[0, 0], [0, 0]])
        for outputs in ([("p", "BYTES", [2, 5, 0], 0)], [("p", "FP32", [2, 0], 0)], [("p", "FP32", [2, 0, 1 << 32, 1 << 30], 0)]):
            self.refused("is not one of 2 rows", "predict", "m", rows, url=self.serve(answer=answer_of(*outputs)))
        url = self.serve(answer=answer_of(("routing.a.experts", "UINT8", [2, 80], 160), ("routing.a.weights", "FP64", [2, 10], 160)))
        self.refused("has no experts that it fits", "predict", "m", rows, url=url)

    def test_a_document_of_experts_beyond_any(self):
        for index in (1 << 20, 1 << 62):
            document = json.loads(json.dumps(ROUTING))
            document["layers"][0]["experts"][0]["index"] = index
            self.refused("index 1048576 or more", "export", "--format", "npy", "--from", self.file(document))

    def test_a_model_of_odd_metadata(self):
        model = {**Hostile.model, "outputs": [{"name": "routing.experts", "datatype": "INT32", "shape": [-1, 1]}]}
        done = subprocess.run([MOECTL, "models"], env=moectl_environment(self.serve(model=model)), capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.refused("names no input", "predict", "m", self.file([[0, 0]]), url=self.serve(model={**Hostile.model, "inputs": []}))

    def test_completion_runs_no_name(self):
        with tempfile.TemporaryDirectory() as folder:
            ran = os.path.join(folder, "ran")
            url = self.serve(names=[f"$(touch {ran})", f"`touch {ran}`", "--output=x", "model-1"])
            completion = subprocess.run([MOECTL, "--completion"], capture_output=True, text=True, check=True).stdout
            words = " ".join(map(shlex.quote, ("moectl", "predict", "")))
            script = completion + f'COMP_WORDS=({words})\nCOMP_CWORD=2\n_moectl\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
            path = os.path.dirname(MOECTL) + ":" + os.environ["PATH"]
            done = subprocess.run(["bash", "-c", script], env=moectl_environment(url, PATH=path), capture_output=True, text=True,
                                  check=True)
            self.assertEqual(done.stdout.split(), ["model-1"])
            self.assertFalse(os.path.exists(ran))


if __name__ == "__main__":
    unittest.main()
