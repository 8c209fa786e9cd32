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
    names, answer, listing = ["m"], answer_of(), {}
    refusal, posts = None, 0  # of every POST but the first

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        listing = {"models": self.names, **self.listing}
        answer = listing if self.path == "/v1/models" else self.model
        self.reply(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).posts += 1
        if self.refusal and self.posts > 1:
            self.reply(json.dumps({"error": self.refusal}, ensure_ascii=False).encode(), status=400)
            return
        head, data = self.answer
        self.reply(head + data, Inference_Header_Content_Length=str(len(head)))


@needs_moectl
class HostileTest(unittest.TestCase):
    def serve(self, **says):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hostile,), says))
        server.handle_error = lambda *_: None  # moectl may hang up
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def shown(self, *arguments, url=None):
        done = subprocess.run([MOECTL, *arguments], env=moectl_environment(url), capture_output=True, encoding="utf-8", check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

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

    CONTROLS = "\u0007\u007f\u009b2J\u061c\u200f\u2028\u2029\u202e\u2066"  # what a terminal obeys, and some text
    NAME = f"gr\u00fcn{CONTROLS}\U0001f600"

    def assert_harmless(self, text):
        for letter in set(self.CONTROLS) - set("2J"):
            self.assertNotIn(letter, text)
        self.assertIn("gr\u00fcn", text)

    def test_json_holds_nothing_that_a_terminal_obeys(self):
        model = {**Hostile.model, "name": self.NAME, "outputs": [{"name": self.NAME, "datatype": "FP32", "shape": [-1, 1]}]}
        url = self.serve(model=model, answer=answer_of((self.NAME, "FP32", [1, 1], 4)))
        layer = {**ROUTING["layers"][0], "name": self.NAME, "quarantine": [{"expert": 0, "reason": self.NAME}]}
        document = self.file({**ROUTING, "model": self.NAME, "layers": [layer]})
        for command, says in ((("models", "--json"), lambda said: said[0]["name"]),
                              (("predict", "m", self.file([[0, 0]]), "--json"), lambda said: [*said["outputs"]][0]),
                              (("routing", "--from", document, "--json"), lambda said: said["layers"][0]["quarantine"][0]["reason"]),
                              (("merge", document, document), lambda said: said["model"])):
            with self.subTest(command):
                text = self.shown(*command, url=url)
                self.assert_harmless(text)
                self.assertEqual(says(json.loads(text)), self.NAME)
        for command in (("models",), ("models", "--names"), ("predict", "m", self.file([[0, 0]])), ("routing", "--from", document),
                        ("routing", "--from", document, "--csv"), ("report", document), ("report", document, "--json"),
                        ("export", "--from", document, "--format", "csv")):
            with self.subTest(command):
                self.assert_harmless(self.shown(*command, url=self.serve(model=model, names=[self.NAME], answer=answer_of(
                    (self.NAME, "FP32", [1, 1], 4)))))

    def test_names_are_cut_between_characters(self):
        for shift in range(3):  # so that every place of a character comes to the end of the room there is
            name = "x" * shift + "\u20ac" * 600
            layer = {"name": name, "rows": 100000, "top_k": 1,
                     "experts": [{"index": i, "selected": 100000 * (i == 0)} for i in range(4)],
                     "quarantine": [{"expert": 1, "reason": name}]}
            said = json.loads(self.shown("report", self.file({**ROUTING, "layers": [layer]}), "--json"))
            self.assertIn("quarantine", [finding["kind"] for finding in said["findings"]])
            done = subprocess.run([MOECTL, "bench", "m", "--requests", "1", "--json"], capture_output=True, check=False,
                                  env=moectl_environment(self.serve(refusal=name)))
            self.assertIn("\u20ac", json.loads(done.stdout)["errors"][0]["text"])

    def test_an_answer_without_end(self):
        url = self.serve(model=b" " * (3 << 20))
        self.refused("more than 1048576 bytes (moectl: --max-answer-mb)", "predict", "m", "--max-answer-mb", "1", url=url)
        self.refused("expected a whole number from 1 to", "models", "--max-answer-mb", "0", url=url, status=2)
        self.refused("expected a whole number from 1 to", "models", "--max-answer-mb", "0x10", url=url, status=2)

    def test_names_that_would_be_other_requests(self):
        for name in ("..", "a\r\nX: y", "a b#c"):
            url = self.serve(names=[name], model={**Hostile.model, "name": "other"})
            if name == "..":
                self.refused("cannot be the name of a model", "models", "--json", url=url)
            else:
                self.assertEqual(json.loads(self.shown("models", "--json", url=url))[0]["name"], "other")

    def test_a_model_is_not_left_out_in_silence(self):
        self.refused("the metadata of 'm' is no JSON object", "models", "--json", url=self.serve(model=b"[1"))

    def test_a_password_is_not_told(self):
        url = self.serve().replace("http://", "http://me:secret@")
        for where in (url, "http://me:secret@127.0.0.1:1"):
            for command in (("models", "--json"), ("top", "--count", "1")):
                done = subprocess.run([MOECTL, *command, "--url", where], env=moectl_environment(), capture_output=True,
                                      text=True, check=False)
                self.assertNotIn("secret", done.stdout + done.stderr)

    def test_kinds_of_models(self):
        said = [{"id": "m", "max_model_len": 512, "capabilities": ["completion", "chat"]}, 3, {"id": 4},
                {"id": "e", "capabilities": ["embedding"]}, {"id": "t", "capabilities": ["completion", 7]}]
        url = self.serve(names=["m", "e", "t", "x"], listing={"data": said})
        heads = [line for line in self.shown("models", url=url).splitlines() if not line.startswith(" ")]
        self.assertEqual([head.partition("   ")[2] for head in heads],
                         ["language model, 512 tokens", "embedder", "language model, no chat", ""])
        self.assertEqual([model.get("capabilities") for model in json.loads(self.shown("models", "--json", url=url))],
                         [["completion", "chat"], ["embedding"], ["completion", 7], None])

    def test_a_sequence_is_asked_elsewhere(self):
        tokens = {"name": "tokens", "datatype": "INT32", "shape": [-1], "parameters": {"categories": 20}}
        url = self.serve(model={**Hostile.model, "inputs": [tokens]})
        self.refused("a language model is asked at /v1/completions", "predict", "m", self.file([[0, 0]]), url=url)
        self.assertIn("tokens INT32[-1], 20 categories\n", self.shown("models", url=url))

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
