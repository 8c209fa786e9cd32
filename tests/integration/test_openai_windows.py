"""A language model whose layers see everything and a window in turns. Pages behind the window are given back: answers
stay the same whoever takes them, and none is lost."""

import json
import os
import re

from support.language import CONTEXT, NAME, Words
from support.openai import COMPLETIONS, OpenAICase, Stream, post, text_of
from support.server import run
from support.threads import run_threads

WINDOW, PAGE = 48, 32
POSITION_BYTES = 2 * 2 * 8 * 2  # of a layer: keys and values of two heads of eight, as f16


class Alternating(Words):
    def config(self):
        config = super().config()
        for block in config["layers"][0::4]:
            block["layers"][1]["window"] = WINDOW
        return config


def write_models(directory):
    Alternating(layers=4).write(os.path.join(directory, NAME))


class WindowsTest(OpenAICase):
    models = staticmethod(write_models)
    options = {"max_sequences": 4, "step_tokens": 64, "kv_cache_mb": 1,
               "max_queue_rows": 2000, "max_request_rows": 2000}

    def test_what_is_said_of_its_memory(self):
        directory = os.path.join(self._directory.name, NAME)
        options = [word for name, value in self.options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        said = json.loads(run("inspect", "--json", directory, *options).stdout)
        memory, (every, window) = said["memory"], said["memory"]["kinds"]
        self.assertEqual([every["window"], window["window"]], [0, WINDOW])
        self.assertEqual([every["position_bytes"], window["position_bytes"]], [2 * POSITION_BYTES] * 2)
        self.assertEqual(said["position_bytes"], 4 * POSITION_BYTES)
        # Eight sequences of four pages each, and the pages of a step.
        self.assertEqual(window["positions"], (8 * 4 + 64 // PAGE) * PAGE)
        self.assertEqual(memory["positions"], every["positions"])
        self.assertEqual(memory["cache_bytes"], (every["positions"] + window["positions"]) * 2 * POSITION_BYTES)
        self.assertLessEqual(memory["cache_bytes"], 1 << 20)
        self.assertGreater(memory["cache_bytes"], (1 << 20) - PAGE * 2 * POSITION_BYTES)
        self.assertEqual(memory["context_bytes"], (CONTEXT + 6 * PAGE) * 2 * POSITION_BYTES)
        server = self.start(loops=1, log_level="info")
        self.addCleanup(server.stop)
        self.assertEqual(self.metrics(server).sum("moed_kv_pages"), (every["positions"] + window["positions"]) // PAGE)
        log = re.search(r"keys and values of (\d+) positions in at most (\d+) MB", server.log())
        self.assertEqual([int(log[1]), int(log[2])], [memory["positions"], memory["cache_bytes"] >> 20])

    def test_a_cached_prompt_of_many_windows_changes_nothing(self):
        prompt = "the same beginning of many prompts, again and again, " * 12
        first = self.ask(prompt=prompt, max_tokens=60, seed=1)
        again = self.ask(prompt=prompt, max_tokens=60, seed=1)
        self.assertGreater(again["usage"]["prompt_tokens_details"]["cached_tokens"], 600)
        self.assertEqual(again["choices"], first["choices"])
        scored = self.say(prompt, max_tokens=60, seed=1, echo=True, logprobs=0)
        self.assertEqual(scored["text"], prompt + first["choices"][0]["text"])

    def test_overload_and_clients_that_leave(self):
        """Five times as many as run at a time; every third stops reading after a few tokens."""
        prompts = [f"{'word ' * (40 * (i % 5))}prompt {i % 7}" for i in range(20)]
        expected = [self.say(prompt, max_tokens=120, seed=i)["text"] for i, prompt in enumerate(prompts)]

        def client(number):
            for turn in range(3):
                body = {"prompt": prompts[number], "max_tokens": 120, "seed": number}
                if (number + turn) % 3 == 0:
                    with Stream(self.server.port, COMPLETIONS, body) as stream:
                        assert stream.answer.status in (200, 429)
                        events = iter(stream) if stream.answer.status == 200 else iter([])
                        assert expected[number].startswith("".join(text_of(event["choices"][0])
                                                                   for event, _ in zip(events, range(7))))
                    continue
                answer = post(self.server.port, **body)
                assert answer.status in (200, 429), answer
                assert answer.status == 429 or answer.json["choices"][0]["text"] == expected[number]

        run_threads(20, client)
        self.wait_for(lambda: self.sequences() == (0, 0, 0), "pages are left in use")
        self.assertEqual(self.say(prompts[3], max_tokens=120, seed=3)["text"], expected[3])
