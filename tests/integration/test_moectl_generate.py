"""moectl generate: a language model's answer as it comes, who made it, and streams that mean it harm."""

import http.server
import json
import os
import signal
import subprocess
import threading
import time
import unittest

from support.http import Client
from support.moectl import MOECTL, moectl, moectl_environment, needs_moectl
from support.screen import Program
from support.server import ServerCase

PROMPT = "Emma was"


@needs_moectl
class GenerateTest(ServerCase):
    def generate(self, *arguments, status=0, **keywords):
        done = moectl("generate", *arguments, url=self.server.url, **keywords)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def answer(self, route="completions", **body):
        answer = self.client.post(f"/v1/{route}", {"model": "tiny-lm", "seed": 1, **body})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json["choices"][0]

    def seed_of_an_end(self):
        """A seed with which the model ends its answer itself, and that answer."""
        for seed in range(50):
            choice = self.answer(prompt=PROMPT, seed=seed, max_tokens=100, routing=True, logprobs=0)
            if choice["finish_reason"] == "stop":
                return seed, choice
        self.fail("the model ends no answer")

    def test_the_text_is_the_servers(self):
        text = self.answer(prompt=PROMPT, max_tokens=30)["text"] + "\n"
        for arguments, prompt in ((("Emma", "was"), None), (("Emma was",), None), ((), "Emma was\n"), (("-",), "Emma was"),
                                  (("--", "Emma", "was"), None)):
            self.assertEqual(self.generate("tiny-lm", "--seed", 1, "--max-tokens", 30, *arguments, input=prompt), text)
        self.assertNotEqual(self.generate("tiny-lm", "--seed", 1, "--max-tokens", 30, input="Emma was\n\n"), text)

    def test_sampling_is_passed_on(self):
        body = {"temperature": 0.5, "top_p": 0.8, "top_k": 7, "stop": "the"}
        options = ("--temperature", "0.5", "--top-p", "0.8", "--top-k", 7, "--stop", "the")
        self.assertEqual(self.generate("tiny-lm", "--seed", 1, "--max-tokens", 99, *options, PROMPT).rstrip("\n"),
                         self.answer(prompt=PROMPT, max_tokens=99, **body)["text"].rstrip("\n"))
        stops = ["e", "th", "of"]
        options = [part for stop in stops for part in ("--stop", stop)]
        for few in (stops, stops[1:]):
            text = self.generate("tiny-lm", "--seed", 1, "--max-tokens", 99, *options[-2 * len(few):], PROMPT)
            self.assertEqual(text.rstrip("\n"), self.answer(prompt=PROMPT, max_tokens=99, stop=few)["text"].rstrip("\n"))
        greedy = self.answer(prompt=PROMPT, temperature=0, max_tokens=20)["text"]
        self.assertEqual(self.generate("tiny-lm", "--temperature", "0", "--max-tokens", 20, PROMPT), greedy + "\n")

    def test_a_chat(self):
        messages = [{"role": "user", "content": "What is a hacker?"}]
        text = self.answer("chat/completions", messages=messages, max_tokens=20)["message"]["content"]
        self.assertEqual(self.generate("tiny-lm", "--chat", "--seed", 1, "--max-tokens", 20, "What is a hacker?").rstrip("\n"),
                         text.rstrip("\n"))

    def test_events_as_lines(self):
        lines = self.generate("tiny-lm", "--json", "--seed", 1, "--max-tokens", 5, PROMPT).splitlines()
        events = [json.loads(line) for line in lines]
        self.assertEqual("".join(event["choices"][0]["text"] for event in events[:-1]),
                         self.answer(prompt=PROMPT, max_tokens=5)["text"])
        self.assertEqual((events[-1]["choices"], events[-1]["usage"]["completion_tokens"]), ([], 5))
        routed = json.loads(self.generate("tiny-lm", "--json", "--experts", "--max-tokens", 1, PROMPT).splitlines()[0])
        self.assertEqual(len(routed["choices"][0]["routing"]["layers"]), 4)

    def check_table(self, table, tokens, layers, first):
        """Token i was made by the experts of position `first` + i."""
        head, *lines = table.splitlines()
        self.assertEqual(head.split(), ["token", *(layer["name"] for layer in layers)])
        self.assertEqual(len(lines), len(tokens))
        for i, (line, token) in enumerate(zip(lines, tokens)):
            self.assertTrue(line.startswith(token), line)
            cells = line[max(11, len(token)):].split()
            expected = [f(value) for layer in layers for pair in zip(layer["experts"][first + i], layer["weights"][first + i])
                        for f, value in zip((str, "{:.2f}".format), pair)]
            self.assertEqual(cells, expected)

    def test_the_experts_of_each_token(self):
        choice = self.answer(prompt=PROMPT, max_tokens=20, routing=True, logprobs=0)
        tokens, layers = choice["logprobs"]["tokens"], choice["routing"]["layers"]
        first = len(layers[0]["experts"]) - len(tokens)
        options = ("--seed", 1, "--max-tokens", 20, "--experts", PROMPT)
        self.check_table(self.generate("tiny-lm", *options), tokens, layers, first)
        self.check_table(self.generate("tiny-lm", "--layer", "layers.2.moe", *options), tokens, layers[2:3], first)

    def test_the_experts_of_the_end(self):
        seed, choice = self.seed_of_an_end()
        tokens, layers = [*choice["logprobs"]["tokens"], "(end)"], choice["routing"]["layers"]
        table = self.generate("tiny-lm", "--seed", seed, "--max-tokens", 100, "--experts", PROMPT)
        self.check_table(table, tokens, layers, len(layers[0]["experts"]) - len(tokens))

    def test_the_experts_of_a_chat(self):
        messages = [{"role": "user", "content": PROMPT}]
        choice = self.answer("chat/completions", messages=messages, max_tokens=5, routing=True, logprobs=True)
        tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
        layers = choice["routing"]["layers"]
        table = self.generate("tiny-lm", "--chat", "--seed", 1, "--max-tokens", 5, "--experts", PROMPT)
        self.check_table(table, tokens, layers, len(layers[0]["experts"]) - len(tokens))

    def test_what_does_not_speak_is_named(self):
        self.assertIn("'mnist' is no language model: moectl predict answers its rows", self.generate("mnist", "x", status=1))
        self.assertIn("404: 'model': unknown model 'nope'", self.generate("nope", "x", status=1))
        self.assertIn("there is no layer 'moe'; the first one is 'layers.0.moe'",
                      self.generate("tiny-lm", "--experts", "--layer", "moe", PROMPT, status=1))
        self.assertIn("400: 'prompt': there are no tokens in it", self.generate("tiny-lm", "", status=1))
        self.assertIn("the prompt is not UTF-8", self.generate("tiny-lm", status=1, input=b"\xff").decode())
        for arguments, what in ((["tiny-lm", PROMPT, "--stop", "\udcff"], "--stop"), (["\udcff", PROMPT], "the model's name")):
            self.assertIn(what + " is not UTF-8", self.generate(*arguments, status=1))
        long = self.generate("tiny-lm", status=1, input="a" * (4 << 20 | 1))
        self.assertIn("moectl: standard input has more than 4194304 bytes", long)
        self.assertIn("the prompt holds a NUL byte", self.generate("tiny-lm", status=1, input=b"a\0b").decode())

    def test_wrong_usage(self):
        for arguments, words in ((["tiny-lm", "--layer", "moe", "x"], "--layer is for --experts"),
                                 (["tiny-lm", "--temperature", "3"], "--temperature: expected a number from 0 to 2, got '3'"),
                                 (["tiny-lm", "--max-tokens", "0"], "--max-tokens: expected a whole number from 1"),
                                 (["tiny-lm", "--top-k", "1.5"], "--top-k: expected a whole number from 0 to 1000000000, got"),
                                 (["tiny-lm", "--seed", str(2 ** 53 + 1)], f"whole number from 0 to {2 ** 53 - 1}, got"),
                                 (["tiny-lm", *["--stop", "x"] * 17], "--stop: at most 16 of them"),
                                 ([], "expected: moectl generate MODEL [PROMPT...]")):
            self.assertIn(words, self.generate(*arguments, status=2))

    def rows(self, query=""):
        return self.client.get(f"/v2/models/tiny-lm/routing{query}").json["layers"][0]["rows"]

    def test_tags_and_statistics(self):
        with self.start() as server, Client(server.port) as client:
            for options in (("--uncounted",), ("--tag", "mine"), ()):
                done = moectl("generate", "tiny-lm", "--max-tokens", 2, *options, PROMPT, url=server.url)
                self.assertEqual(done.returncode, 0, done.stderr)
            rows = [client.get(f"/v2/models/tiny-lm/routing{query}").json["layers"][0]["rows"] for query in ("", "?tag=mine")]
            server.stop()
        self.assertEqual(rows, [8, 4])  # three tokens of the prompt, and one of the answer

    def test_a_terminal(self):
        for columns, shown in ((200, 4), (80, 4), (79, 4), (78, 3), (40, 1), (20, 1), (1, 1)):
            program = Program([MOECTL, "generate", "tiny-lm", "--experts", "--max-tokens", "20", "--seed", "1", PROMPT],
                              moectl_environment(self.server.url), 40, max(columns, 60))
            self.addCleanup(program.close)
            program.set_size(40, columns)
            self.assertEqual(program.wait(), 0)
            text, colours = program.screen.text.rstrip(), program.screen.colours
            with self.subTest(columns):
                lines = text.splitlines()
                self.assertEqual(colours, 0)
                self.assertRegex(lines[1], r"^ for  ")
                if columns >= 40:
                    self.assertLessEqual(max(map(len, lines[:21])), columns)
                    self.assertEqual(len(lines[1].split()), 1 + 4 * shown)
                if columns < 79:
                    self.assertEqual(lines[21], f"({shown} of 4 layers have room; --layer NAME shows another one, --json all)"
                                     [:max(columns, 60)])


class Speaking(http.server.BaseHTTPRequestHandler):
    """Answers with `pieces`, each a chunk; a number is a pause, None the end of the connection."""

    protocol_version = "HTTP/1.1"
    pieces, content_type, listing = [], "text/event-stream", {"models": ["m"], "data": []}
    model = {"name": "m", "versions": ["1"], "outputs": [],
             "inputs": [{"name": "tokens", "datatype": "INT32", "shape": [-1], "parameters": {"categories": 1000}}]}

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = json.dumps(self.listing if self.path == "/v1/models" else self.model).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read_body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        self.read_body()
        self.send_response(200 if self.pieces else 400)
        self.send_header("Content-Type", self.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.pieces:
            if piece is None:
                self.close_connection = True
                return
            if isinstance(piece, float):
                time.sleep(piece)
            else:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")


def event(text="", **members):
    return b"data: " + json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": None, **members}]}).encode() + b"\n\n"


def routed(tokens, *layers):
    """An event of tokens; of each layer the experts and weights of its rows."""
    return event("".join(map(str, tokens)), logprobs={"tokens": tokens}, routing={"layers": [
        {"name": f"l{i}", "experts": experts, "weights": weights} for i, (experts, weights) in enumerate(layers)]})


DONE = b"data: [DONE]\n\n"


class StreamCase(unittest.TestCase):
    def serve(self, *pieces, handler=Speaking, **says):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"pieces": pieces, **says}))
        server.handle_error = lambda *_: None  # moectl may hang up
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"


@needs_moectl
class StreamTest(StreamCase):
    def says(self, text, *pieces, options=(), **says):
        done = moectl("generate", "m", *options, "x", url=self.serve(*pieces, **says))
        self.assertEqual((done.returncode, done.stdout), (0, text), done.stderr)

    def fails(self, text, part, *pieces, options=(), **says):
        """With what had come before on standard output."""
        done = moectl("generate", "m", *options, "x", url=self.serve(*pieces, **says))
        self.assertEqual((done.returncode, done.stdout), (1, text), done.stderr)
        self.assertIn(part, done.stderr)

    def test_a_whole_stream(self):
        self.says("a b\n", event("a"), event(" b"), DONE)
        self.says("a\n", event("a\n"), DONE)
        self.says("", DONE)
        self.says("ab\n", event("a")[:9], event("a")[9:], b": still here\n\n", event("b") + DONE + event("c"))
        self.says("5 7\n", event(token_ids=[5]), event(token_ids=[7]), DONE)
        self.says("a\n", b'data: {"choices":[{"delta":{"role":"assistant"}}]}\r\n\r\n',
                  b'data: {"choices":[{"delta":{"content":"a"}}]}\r\n\r\n', DONE, options=("--chat",))

    def test_a_stream_that_breaks_off(self):
        self.fails("a\n", "the answer broke off: its stream ended without [DONE]", event("a"))
        self.fails("a\n", "the answer broke off: transfer closed", event("a"), None)
        self.fails("a\n", "the answer broke off: it is late\n", event("a"), b'data: {"error":{"message":"it is late"}}\n\n')
        self.fails("a\n", "the answer broke off: late", event("a"), b'data: {"error":"late"}\n\n')
        self.fails("", "the answer broke off: no reason was given", b'data: {"error":{}}\n\n', DONE)

    def test_what_is_no_answer(self):
        self.fails("", "expected text/event-stream, got text/html", b"<html>", content_type="text/html")
        self.fails("a\n", "an event of the answer is no JSON object: ", event("a"), b"data: {\n\n", DONE)
        self.fails("", "an event of the answer is no JSON object: [1]", b"data: [1]\n\n", DONE)
        self.fails("", "an event of the answer is no JSON object: ", b'data: {"choices":[{"text":"\xff"}]}\n\n', DONE)
        self.fails("", "an event of the answer is no JSON object: ", b'data: {"choices":[{"text":"\\ud83d"}]}\n\n', DONE)
        self.says("", b'data: {"choices":3}\n\n', b'data: {"choices":[[1]]}\n\n', b'data: {"choices":[{"text":7}]}\n\n', DONE)

    def test_a_line_without_end(self):
        endless = [b"data: " + b"x" * (1 << 19)] + [b"x" * (1 << 19)] * 3
        self.fails("a\n", "an event of more than 1048576 bytes (moectl: --max-answer-mb)", event("a"), *endless,
                   options=("--max-answer-mb", "1"))
        self.says("x" * (3 << 19) + "\n", *[event("x" * (1 << 19))] * 3, DONE, options=("--max-answer-mb", "1"))

    def test_time_counts_between_events(self):
        self.fails("a\n", "no event for 1 s", event("a"), *[0.25, b": still here\n\n"] * 40, options=("--timeout", "1"))
        self.says("aaaaaaaaa\n", *[event("a"), 0.25] * 9, DONE, options=("--timeout", "1"))

    def test_what_a_terminal_would_obey(self):
        text = "gr\u00fcn\u001b[2J\u0007\u007f\u009b2J\u061c\u200f\u2028\u202e\r\tend\n\U0001f600"
        self.says("gr\u00fcn?[2J???2J?????\tend\n\U0001f600\n", event(text), DONE)
        done = moectl("generate", "m", "--json", "x", url=self.serve(event(text), DONE))
        self.assertEqual(json.loads(done.stdout)["choices"][0]["text"], text)
        for letter in "\u001b\u007f\u009b\u061c\u200f\u2028\u202e":
            self.assertNotIn(letter, done.stdout)
        done = moectl("generate", "m", "--experts", "x", url=self.serve(routed([text], ([[1]], [[1]])), DONE))
        self.assertIn("gr\u00fcn?[2J???2J?????\\tend\\n\U0001f600  ", done.stdout)
        self.says("a?b\n", event("a\0b"), DONE)  # a byte of the vocabulary as any other
        done = moectl("generate", "m", "--experts", "x", url=self.serve(routed(["a\0b"], ([[1]], [[1]])), DONE))
        self.assertIn("a?b    ", done.stdout)
        done = moectl("generate", "m", "--json", "x", url=self.serve(event("a\0b"), DONE))
        self.assertEqual(json.loads(done.stdout)["choices"][0]["text"], "a\0b")
        self.fails("", "late ?[2J", b'data: {"error":"late \\u001b[2J"}\n\n')

    def test_a_table_of_odd_routing(self):
        experts = ("--experts",)
        self.says("token        l0\na             -     \n", routed(["a"], ([[-1]], [[0]])), DONE, options=experts)
        for wrong in (event("a", logprobs={"tokens": ["a"]}), routed(["a"]), routed(["a", "b"], ([[1]], [[1]])),
                      routed(["a"], ([[1]], [])), event("a", logprobs={"tokens": ["a"]}, routing={"layers": 3}),
                      event("a", logprobs={"tokens": ["a"]}, routing={"layers": [3]})):
            self.fails("", "says of its tokens not which experts made them", wrong, DONE, options=experts)
        self.fails("", "says of its tokens not", event("a"), DONE, options=experts)  # a server that knows no routing
        done = moectl("generate", "m", "--experts", "x", url=self.serve(
            routed(["a"], ([[1]], [[0.5]])), routed(["b"], ([[1 << 60, 3]], [[1e300, None]])), routed(["c"], ([3], ["x"])),
            routed([3], ([[]], [[]])), DONE))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.fails("token        l0\na             1 0.50\n", "says of its tokens", routed(["a"], ([[1]], [[0.5]])),
                   routed(["a"], ([[1]], [[0.5]]), ([[1]], [[0.5]])), DONE, options=experts)

    def test_what_makes_vectors(self):
        listing = {"models": ["m"], "data": [{"id": "m", "capabilities": ["embedding"]}]}
        self.fails("", "'m' makes vectors of texts and no text: ask it at /v1/embeddings", listing=listing)
        self.fails("", "400: no reason was given", listing={"data": [{"id": "m"}]})  # another server

    def test_an_interrupt_ends_the_answer(self):
        url = self.serve(*[event("word "), 0.05] * 2000, DONE)
        for number in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen([MOECTL, "generate", "m", "x"], env=moectl_environment(url), stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
            self.assertEqual(process.stdout.read(5), "word ")  # as it comes
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
            self.assertEqual((process.returncode, errors), (0, "moectl: interrupted\n"))
            self.assertTrue(output.endswith("\n"), output)

    def test_an_interrupt_of_silence(self):
        url = self.serve(event("word "), 30.0, DONE)
        process = subprocess.Popen([MOECTL, "generate", "m", "x"], env=moectl_environment(url), stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.DEVNULL)
        self.assertEqual(process.stdout.read(5), "word ")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        self.assertLess(time.monotonic() - began, 20)

    def test_a_full_disk_is_named(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([MOECTL, "generate", "m", "x"], env=moectl_environment(self.serve(event("a"), DONE)), stdout=full,
                                  stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (1, "moectl: cannot write standard output: No space left on device\n"))

    def test_who_reads_has_seen_enough(self):
        url = self.serve(*[event("word\n"), 0.02] * 2000, DONE)
        reader, writer = os.pipe()
        process = subprocess.Popen([MOECTL, "generate", "m", "x"], env=moectl_environment(url), stdout=writer, stderr=subprocess.PIPE,
                                   text=True)
        os.close(writer)
        os.read(reader, 5)
        os.close(reader)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertIn("cannot write standard output", errors)


if __name__ == "__main__":
    unittest.main()
