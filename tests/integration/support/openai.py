"""What tests of OpenAI's API need: a server with a small language model, answers whole and as events."""

import http.client
import json
import os
import time

from support.http import HOST, PATIENCE_SECONDS, Client
from support.language import NAME, Words
from support.models import Tiny
from support.prometheus import Metrics
from support.server import ServerCase

COMPLETIONS, CHAT, EMBEDDINGS = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"


def write_models(directory):
    Words().write(os.path.join(directory, NAME))
    Tiny().write(os.path.join(directory, "tiny"))


def post(port, **body):
    with Client(port) as client:
        return client.post(COMPLETIONS, body)


class Stream:
    """An answer as events."""

    def __init__(self, port, path, body, headers=None):
        self._connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_SECONDS)
        self._connection.request("POST", path, json.dumps({"stream": True, **body}), headers or {})
        self.answer = self._connection.getresponse()
        self.done = False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self.answer.close()
        self._connection.close()

    def __iter__(self):
        while line := self.answer.readline():
            assert line.startswith(b"data: ") and line.endswith(b"\n"), line
            assert self.answer.readline() == b"\n"
            if line == b"data: [DONE]\n":
                assert self.answer.read() == b""
                self.done = True
                return
            yield json.loads(line[6:])


def text_of(choice):
    if "text" in choice:
        return choice["text"]
    return (choice.get("message") or choice.get("delta"))["content"]


class OpenAICase(ServerCase):
    models = staticmethod(write_models)

    def ask(self, path=COMPLETIONS, status=200, headers=None, **body):
        answer = self.client.post(path, body, headers)
        self.assertEqual(answer.status, status, answer.body)
        return answer.json

    def say(self, prompt="once upon", **body):
        """The only choice of a completion."""
        choices = self.ask(prompt=prompt, **body)["choices"]
        self.assertEqual(len(choices), 1)
        return choices[0]

    def stream(self, path=COMPLETIONS, **body):
        return Stream(self.server.port, path, body)

    def streamed(self, path=COMPLETIONS, **body):
        """All events of a stream that ends as it should."""
        with self.stream(path, **body) as stream:
            self.assertEqual(stream.answer.status, 200, stream.answer)
            self.assertEqual(stream.answer.headers["Content-Type"], "text/event-stream")
            events = list(stream)
            self.assertTrue(stream.done)
        return events

    def refused(self, status, *words, path=COMPLETIONS, param=None, **body):
        error = self.ask(path, status, **body)["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        for word in words:
            self.assertIn(word, error["message"])
        if param:
            self.assertEqual(error["param"], param)
        return error

    def metrics(self, server=None):
        with Client((server or self.server).port) as client:
            return Metrics(client.get("/metrics").body.decode())

    def sequences(self, server=None):
        """(running, waiting, pages in use)"""
        metrics = self.metrics(server)
        return tuple(int(metrics.sum(name)) for name in ("moed_sequences_running", "moed_sequences_waiting",
                                                        "moed_kv_pages_used"))

    def wait_for(self, condition, what):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.005)
