"""Sequences beside each other: what load, clients that leave, stops and reloads do to answers and streams, what is
counted of them, and experts that are out of service."""

import gzip
import json
import os
import re
import threading
import time

import numpy as np

from support.http import Client, Connection, request_bytes
from support.language import CONTEXT, NAME, Words
from support.openai import CHAT, COMPLETIONS, EMBEDDINGS, OpenAICase, Stream, post, text_of
from support.prometheus import Metrics
from support.threads import Background, run_threads


class StatisticsTest(OpenAICase):
    def test_the_arena_is_known_before_the_first_request(self):
        server = self.start(loops=2, max_sequences=4)
        self.addCleanup(server.stop)
        metrics = self.metrics(server)
        self.assertEqual(metrics.sum("moed_kv_pages", model=NAME), 4 * CONTEXT // 32)
        self.assertEqual(metrics.sum("moed_kv_pages_used", model=NAME), 0)

    def test_tokens_are_counted(self):
        before = self.metrics()
        self.ask(prompt="0123456789", max_tokens=6, user="alice")
        self.streamed(prompt="0123456789", max_tokens=6)
        self.ask(prompt="0123456789", max_tokens=6, headers={"Moed-Statistics": "off"})
        after = self.metrics()
        model = {"model": NAME, "version": "1"}

        def grown(name, **labels):
            return after.sum(name, **model, **labels) - before.sum(name, **model, **labels)

        self.assertEqual(grown("moed_tokens_total", phase="generated"), 18)
        self.assertEqual(grown("moed_tokens_total", phase="prompt") + grown("moed_prompt_cached_tokens_total"), 30)
        self.assertEqual(grown("moed_first_token_seconds_count"), 3)
        self.assertEqual(grown("moed_next_token_seconds_count"), 15)
        self.assertEqual(grown("moed_requests_total", protocol="openai", code="200"), 3)
        self.assertEqual(grown("moed_layer_rows_total", layer="layers.0.moe"), 30)
        self.assertEqual(grown("moed_expert_selected_total", layer="layers.0.moe"), 60)
        self.assertEqual(grown("moed_expert_prompt_selected_total", layer="layers.0.moe"), 40)
        self.assertEqual(grown("moed_tag_rows_total", tag="alice"), 15)
        self.assertGreater(after.value("moed_kv_pages", **model), 0)


    def test_refusals_count_as_the_models(self):
        before = self.metrics()
        self.refused(400, "temperature", model=NAME, prompt="a", temperature=3)
        self.refused(400, "messages", path=CHAT)
        self.refused(413, "2049 items", prompt=["a"] * 2049)
        self.refused(400, "no embeddings", path=EMBEDDINGS, input="a")
        self.assertEqual(self.client.post(COMPLETIONS, b'{"prompt": ').status, 400)
        after = self.metrics()
        for name, labels, count in (("moed_requests_total", {"protocol": "openai", "code": "400"}, 4),
                                    ("moed_requests_total", {"protocol": "openai", "code": "413"}, 1),
                                    ("moed_rejected_total", {"reason": "invalid"}, 5)):
            labels.update(model=NAME, version="1")
            self.assertEqual(after.sum(name, **labels) - before.sum(name, **labels), count, labels)


class TogetherTest(OpenAICase):
    """What sequences do to each other: nothing but take time."""

    def test_the_same_text_alone_and_among_others(self):
        prompts = [f"{'word ' * (3 * i)}prompt number {i}" for i in range(9)]
        alone = [self.say(prompt, max_tokens=30, seed=i)["text"] for i, prompt in enumerate(prompts)]
        together = run_threads(9, lambda i: post(self.server.port, prompt=prompts[i], max_tokens=30, seed=i))
        self.assertEqual([answer.json["choices"][0]["text"] for answer in together], alone)

    def test_a_cached_prompt_changes_nothing(self):
        prompt = "the same beginning of many prompts, again and again, " * 3
        first = self.ask(prompt=prompt, max_tokens=20, seed=1)
        again = self.ask(prompt=prompt, max_tokens=20, seed=1)
        self.assertGreater(again["usage"]["prompt_tokens_details"]["cached_tokens"], 100)
        self.assertEqual(again["choices"], first["choices"])
        scored = self.say(prompt, max_tokens=20, seed=1, echo=True, logprobs=0)
        self.assertEqual(scored["text"], prompt + first["choices"][0]["text"])

    def test_a_long_prompt_stops_no_stream(self):
        with self.stream(prompt="go on", max_tokens=CONTEXT - 5, seed=1) as stream:
            events = iter(stream)
            next(events)
            long = Background(1, lambda _: post(self.server.port, prompt="long " * 400, max_tokens=1))
            while long.is_running():
                self.assertEqual(self.client.get("/health").status, 200)
                next(events)
            self.assertEqual(long.join()[0].status, 200)

    def test_a_client_that_leaves_frees_its_pages(self):
        with self.stream(prompt="go on", max_tokens=CONTEXT - 5) as stream:
            next(iter(stream))
            self.assertEqual(self.sequences(), (1, 0, CONTEXT // 32))
        self.wait_for(lambda: self.sequences() == (0, 0, 0), "the sequence is still there")
        connection = Connection(self.server.port) # the same without a stream
        connection.send(request_bytes("POST", COMPLETIONS, b'{"prompt": "go on", "max_tokens": 4000}'))
        self.wait_for(lambda: self.sequences()[0] == 1, "it does not begin")
        connection.reset()
        self.wait_for(lambda: self.sequences() == (0, 0, 0), "the sequence is still there")

    def test_clients_may_leave_while_a_thread_has_their_body(self):
        text, rows = "word " * 100000, [[1, 2, 3, 4]] * 100000
        packed = gzip.compress(json.dumps({"instances": rows[:1000]}).encode())
        bodies = ((COMPLETIONS, {"prompt": text}), (CHAT, {"messages": [{"role": "user", "content": text}]}),
                  (EMBEDDINGS, {"input": text}), ("/tokenize", {"content": text}), ("/detokenize", {"tokens": [97] * 100000}),
                  ("/apply-template", {"messages": [{"role": "user", "content": text}]}),
                  ("/v1/models/tiny:predict", {"instances": rows}), ("/v1/models/tiny:predict", packed))
        for path, body in bodies:
            body, headers = (body, {"Content-Encoding": "gzip"}) if body == packed else (json.dumps(body).encode(), {})
            for seconds in (0, 0.005):
                connection = Connection(self.server.port)
                connection.send(request_bytes("POST", path, body, headers))
                time.sleep(seconds)
                connection.reset()
        self.ask(prompt="a", max_tokens=1)
        self.wait_for(lambda: self.metrics().sum("moed_connections") <= 2, "they are held")
        self.assertEqual(self.sequences(), (0, 0, 0))

    def test_a_slow_reader_stops_only_itself(self):
        # More than the sockets' buffers take.
        body = json.dumps({"prompt": ["go on"] * 4, "max_tokens": 2000, "logprobs": 20, "stream": True}).encode()
        with Connection(self.server.port, receive_buffer=4096) as slow:
            slow.send(request_bytes("POST", COMPLETIONS, body))
            tokens = lambda: self.metrics().sum("moed_tokens_total", phase="generated")
            self.wait_for(lambda: self.sequences()[0] == 4, "it does not begin")
            seen = [tokens()]
            self.wait_for(lambda: seen.append(tokens()) or (len(seen) > 50 and seen[-1] == seen[-50]),
                          "it is not stopped")
            self.ask(prompt="quick", max_tokens=5)
            self.assertEqual(self.sequences()[0], 4)
            received = b""
            while b"[DONE]" not in received[-100:]:
                piece = slow.socket.recv(1 << 20)
                self.assertTrue(piece, "closed before its end")
                received += piece
            self.assertIn(b'"finish_reason":"length"', received.replace(b": ", b":"))


class QuarantineTest(OpenAICase):
    options = {"admin": "true"}

    def test_no_token_goes_to_an_expert_that_is_out_of_service(self):
        def experts():
            layers = self.say("once upon", max_tokens=30, seed=1, routing=True)["routing"]["layers"]
            return {expert for experts in layers[0]["experts"] for expert in experts}

        before = self.say("once upon a time, and once again, and again", max_tokens=20, seed=1)
        self.assertIn(2, experts())
        path, body = f"/v2/models/{NAME}/routing/quarantine", {"layer": "layers.0.moe", "expert": 2, "reason": "test"}
        self.assertEqual(self.client.post(path, body).status, 200)
        self.assertEqual(experts(), {0, 1, 3})
        # Nor do positions that were computed with it serve a prompt, or those without it afterwards.
        self.assertNotEqual(self.say("once upon a time, and once again, and again", max_tokens=20, seed=1), before)
        self.assertEqual(self.client.request("DELETE", path, json.dumps(body).encode()).status, 200)
        self.assertEqual(self.say("once upon a time, and once again, and again", max_tokens=20, seed=1), before)


class Without(Words):
    """The first gate never chooses expert 2: a row of zeros with a bias of almost minus infinity."""

    def tensors(self):
        tensors = super().tensors()
        tensors["layers.0.moe.gate.out.weight"][2] = 0
        tensors["layers.0.moe.gate.out.bias"] = np.where(np.arange(self.experts) == 2, np.float32(-3e38), np.float32(0))
        return tensors


def write_with_and_without(directory):
    Words().write(os.path.join(directory, NAME))
    Without().write(os.path.join(directory, "without"))


class WhatIfTest(OpenAICase):
    """A request that leaves an expert out gets the text of a model without it, and nobody else does."""

    models = staticmethod(write_with_and_without)
    options = {"admin": "true"}
    experts = {"layers.0.moe": {"exclude": [2]}}
    both = {"max_tokens": 40, "seed": 1, "temperature": 1}

    def words(self, status=200, **body):
        return self.ask(status=status, **{"model": NAME, **self.both, **body})

    def test_the_text_is_that_of_a_model_without_the_expert(self):
        prompt = "once upon a time, and once again, and again"
        body = {"prompt": [prompt, "0123"], "logprobs": 2, "routing": True}
        asked = self.words(experts=self.experts, **body)
        self.assertEqual(asked["experts"], self.experts)
        without = self.ask(model="without", **self.both, **body)
        self.assertEqual(asked["choices"], without["choices"])
        self.assertNotIn("experts", without)
        self.assertNotEqual(asked["choices"], self.words(**body)["choices"])
        messages = [{"role": "user", "content": prompt}]
        chats = [self.ask(path=CHAT, messages=messages, **self.both, **whose)["choices"] for whose in
                 ({"model": NAME, "experts": self.experts}, {"model": "without"})]
        self.assertEqual(*chats)
        events = self.streamed(model=NAME, prompt=prompt, experts=self.experts, **self.both)
        self.assertEqual("".join(event["choices"][0]["text"] for event in events), without["choices"][0]["text"])
        self.assertEqual([event["experts"] for event in events], [self.experts] * len(events))

    def test_no_page_of_it_is_shared(self):
        prompts = [f"{number} and the same beginning of many prompts, again and again, " * 3 for number in range(2)]
        text = lambda answer: answer["choices"][0]["text"]
        cached = lambda answer: answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        plain = self.words(prompt=prompts[0])  # whose pages others find
        asked = self.words(prompt=prompts[0], experts=self.experts)
        self.assertEqual((cached(asked), text(asked)), (0, text(self.ask(model="without", prompt=prompts[0], **self.both))))
        again = self.words(prompt=prompts[0])
        self.assertGreater(cached(again), 100)
        self.assertEqual(text(again), text(plain))
        for _ in range(2):
            asked = self.words(prompt=prompts[1], experts=self.experts)
            self.assertEqual(cached(asked), 0)
        self.assertEqual(cached(self.words(prompt=prompts[1])), 0)

    def test_others_beside_it_keep_their_text(self):
        prompts = [f"{'word ' * (3 * i)}prompt number {i}" for i in range(6)]
        kinds = [{}, {"experts": self.experts}, {"experts": {"layers.1.moe": {"top_k": 1}}}]
        ask = lambda i: post(self.server.port, model=NAME, prompt=prompts[i], **self.both, **kinds[i % 3])
        alone = [ask(i).json["choices"] for i in range(6)]
        self.assertEqual([answer.json["choices"] for answer in run_threads(6, ask)], alone)

    def test_its_rows_count_apart(self):
        before = self.metrics()
        self.words(prompt="0123456789", max_tokens=6, experts=self.experts)
        self.words(prompt="0123456789", max_tokens=6, experts=self.experts, headers={"Moed-Statistics": "off"})
        after = self.metrics()
        for name, count in (("moed_layer_intervened_rows_total", 15), ("moed_layer_rows_total", 0),
                            ("moed_expert_selected_total", 0), ("moed_expert_prompt_selected_total", 0)):
            labels = {"model": NAME, "layer": "layers.0.moe"}
            self.assertEqual(after.sum(name, **labels) - before.sum(name, **labels), count, name)

    def test_what_is_refused(self):
        for experts, words in (({"moe": {}}, "has no gate 'moe'"), ({"layers.0.moe": {"exclude": [4]}}, "from 0 to 3"),
                               ({"layers.0.moe": {"only": [1]}}, "left"), ({"layers.0.moe": {"drop": [1]}}, "'drop'"),
                               ([], "is a list")):
            error = self.words(prompt="a", experts=experts, status=400)["error"]
            self.assertIn(words, error["message"])
            self.assertEqual(error["param"], "experts", error)
        self.assertIn("experts", self.refused(400, path=EMBEDDINGS, input="a", experts=self.experts)["message"])
        for nothing in ({}, {"layers.0.moe": {}}, None):
            answer = self.words(prompt="a", experts=nothing)
            self.assertEqual(answer.get("experts"), nothing)
            self.assertEqual(answer["choices"], self.words(prompt="a")["choices"])

    def test_it_holds_beside_the_quarantine(self):
        path, body = f"/v2/models/{NAME}/routing/quarantine", {"layer": "layers.0.moe", "expert": 3, "reason": "test"}
        self.assertEqual(self.client.post(path, body).status, 200)
        choice = self.words(prompt="once upon", experts=self.experts, routing=True)["choices"][0]
        self.assertEqual({expert for row in choice["routing"]["layers"][0]["experts"] for expert in row}, {0, 1})
        error = self.words(prompt="a", experts={"layers.0.moe": {"exclude": [1, 2]}}, status=400)["error"]
        self.assertIn("beside those in quarantine", error["message"])
        self.assertEqual(self.client.request("DELETE", path, json.dumps(body).encode()).status, 200)


class OverloadTest(OpenAICase):
    options = {"max_sequences": 2, "max_queue_rows": 40, "max_request_rows": 40, "step_tokens": 16, "kv_cache_mb": 1}

    def test_nothing_that_is_accepted_is_lost(self):
        rss = lambda: self.metrics().sum("process_resident_memory_bytes")

        def client(number):
            outcomes = []
            for i in range(5):
                with Stream(self.server.port, COMPLETIONS, {"prompt": f"client {number}", "max_tokens": 100,
                                                            "seed": i}) as stream:
                    outcomes.append(stream.answer.status)
                    if stream.answer.status == 200:
                        events = list(stream)
                        assert stream.done and events[-1]["choices"][0]["finish_reason"] == "length"
                    else:
                        assert int(stream.answer.headers["Retry-After"]) >= 1, stream.answer.headers
            return outcomes

        run_threads(10, client)
        before = rss()
        outcomes = [status for own in run_threads(10, client) for status in own]
        self.assertEqual(set(outcomes), {200, 429})
        self.assertLess(rss(), before + (8 << 20))
        self.assertEqual(self.sequences(), (0, 0, 0))


class WaitingTest(OpenAICase):
    options = {"max_sequences": 1, "queue_timeout_ms": 300, "step_tokens": 16}

    def test_who_waits_too_long_is_told(self):
        with self.stream(prompt="go on", max_tokens=CONTEXT - 5) as stream:
            events = iter(stream)
            next(events)
            reader = threading.Thread(target=lambda: [None for _ in events])
            reader.start()
            self.refused(504, "did not begin within 300 ms", prompt="a")
            waited = lambda: re.search(r"status=504 .* queue_ms=([0-9.]+)", self.server.log())
            self.wait_for(waited, "the log does not tell")
            self.assertGreater(float(waited()[1]), 250, "all of its time was in the queue")
            reader.join()
            self.assertTrue(stream.done)


class StopTest(OpenAICase):
    options = {"drain_timeout_ms": 120000}

    def setUp(self):
        self.own = self.start()
        self.addCleanup(self.own.kill)

    def test_a_stop_lets_streams_end(self):
        with Stream(self.own.port, COMPLETIONS, {"prompt": "go on", "max_tokens": 1000}) as stream:
            events = iter(stream)
            next(events)
            self.own.signal()
            last = list(events)[-1]
            self.assertTrue(stream.done)
        self.assertEqual(last["choices"][0]["finish_reason"], "length")
        self.own.assert_clean(self.own.wait())

    def test_a_reload_lets_streams_end(self):
        body = {"prompt": "go on", "max_tokens": 1500, "seed": 1}
        with Stream(self.own.port, COMPLETIONS, body) as alone:
            expected = [text_of(event["choices"][0]) for event in alone]
        with Stream(self.own.port, COMPLETIONS, body) as stream:
            events = iter(stream)
            texts = [text_of(next(events)["choices"][0])]
            directory = os.path.join(self._directory.name, NAME)
            os.utime(os.path.join(directory, "config.json"))
            self.own.signal(1)
            with Client(self.own.port) as client:
                self.wait_for(lambda: Metrics(client.get("/metrics").body.decode()).sum("moed_sequences_running") == 1,
                              "the stream is gone")
                self.assertEqual(client.post(COMPLETIONS, {"prompt": "a", "max_tokens": 3}).status, 200)
            texts += [text_of(event["choices"][0]) for event in events]
            self.assertTrue(stream.done)
        self.assertEqual("".join(texts), "".join(expected))
        self.own.stop()


class LoopsTest(OpenAICase):
    options = {"loops": 2, "threads": 2}

    def test_loops_share_the_model(self):
        answers = run_threads(6, lambda _: post(self.server.port, prompt="once", max_tokens=9, seed=1))
        self.assertEqual(len({answer.json["choices"][0]["text"] for answer in answers}), 1)
