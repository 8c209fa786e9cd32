"""The openai package, unmodified, as a client; skipped where it is not installed (tests/run.sh installs it)."""

import asyncio
import os
import shutil
import time
import unittest

import numpy as np

from support.http import Client
from support.language import NAME, Words
from support.models import Tiny
from support.prometheus import Metrics
from support.server import ROOT, ServerCase

try:
    import openai
except ImportError:
    openai = None

ENCODER = os.path.join(ROOT, "tests", "data", "families", "nomic_bert")
MESSAGES = [{"role": "user", "content": "hello"}]


@unittest.skipUnless(openai, "the package openai is not installed")
class ClientCase(ServerCase):
    @staticmethod
    def models(directory):
        Words().write(os.path.join(directory, NAME))
        Tiny().write(os.path.join(directory, "tiny"))
        shutil.copytree(ENCODER, os.path.join(directory, "encoder"), ignore=shutil.ignore_patterns("expected"))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.openai = openai.OpenAI(base_url=f"{cls.server.url}/v1", api_key="none", max_retries=0)
        cls.addClassCleanup(cls.openai.close)

    def complete(self, **options):
        return self.openai.completions.create(model=NAME, prompt="once upon", max_tokens=12, seed=1, **options)

    def chat(self, **options):
        return self.openai.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=12, seed=1, **options)

    def await_idle(self):
        deadline = time.monotonic() + 60
        with Client(self.server.port) as client:
            while Metrics(client.get("/metrics").body.decode()).sum("moed_sequences_running") > 0:
                self.assertLess(time.monotonic(), deadline, "what was aborted still runs")
                time.sleep(0.01)


class SyncTest(ClientCase):
    def test_completions(self):
        answer = self.complete(logprobs=2)
        self.assertEqual((answer.object, answer.model, answer.choices[0].finish_reason), ("text_completion", NAME, "length"))
        self.assertEqual((answer.usage.prompt_tokens, answer.usage.completion_tokens), (9, 12))
        self.assertEqual(len(answer.choices[0].logprobs.token_logprobs), 12)
        self.assertEqual(answer.choices[0].text, self.complete().choices[0].text)

    def test_a_streamed_completion(self):
        chunks = list(self.complete(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
        self.assertEqual(text, self.complete().choices[0].text)
        self.assertEqual(chunks[-1].usage.completion_tokens, 12)

    def test_chats(self):
        answer = self.chat(logprobs=True, top_logprobs=2)
        self.assertEqual((answer.object, answer.choices[0].message.role), ("chat.completion", "assistant"))
        self.assertEqual(len(answer.choices[0].logprobs.content), 12)
        chunks = list(self.chat(stream=True))
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks),
                         answer.choices[0].message.content)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")

    def test_extensions(self):
        answer = self.complete(extra_body={"routing": True, "top_k": 5})
        self.assertEqual(len(answer.choices[0].model_extra["routing"]["layers"][0]["experts"]), 20)

    def test_embeddings(self):
        texts = [[1, 2, 3], [4, 5]] # in base64 unless it is told otherwise
        answer = self.openai.embeddings.create(model="encoder", input=texts)
        vectors = np.array([entry.embedding for entry in answer.data])
        self.assertEqual(vectors.shape, (2, 24))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        plain = self.openai.embeddings.create(model="encoder", input=texts, encoding_format="float")
        np.testing.assert_allclose(vectors, [entry.embedding for entry in plain.data], rtol=1e-6)

    def test_models(self):
        self.assertEqual(sorted(model.id for model in self.openai.models.list()), ["encoder", "tiny", NAME])
        self.assertEqual(self.openai.models.retrieve(NAME).id, NAME)

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as raised:
            self.complete(temperature=3)
        self.assertEqual(raised.exception.param, "temperature")
        with self.assertRaises(openai.NotFoundError):
            self.openai.completions.create(model="nobody", prompt="a")
        with self.assertRaises(openai.NotFoundError):
            self.openai.models.retrieve("nobody")

    def test_a_stream_that_is_aborted(self):
        stream = self.openai.completions.create(model=NAME, prompt="on", max_tokens=4000, stream=True)
        next(iter(stream))
        stream.close()
        self.await_idle()


class AsyncTest(ClientCase):
    def run_async(self, work):
        async def run():
            async with openai.AsyncOpenAI(base_url=f"{self.server.url}/v1", api_key="none", max_retries=0) as client:
                return await work(client)

        return asyncio.run(run())

    def test_many_at_once(self):
        async def ask(client, i):
            answer = await client.completions.create(model=NAME, prompt=f"number {i}", max_tokens=15, seed=i)
            return answer.choices[0].text

        async def work(client):
            return await asyncio.gather(*(ask(client, i) for i in range(20)))

        texts = self.run_async(work)
        self.assertEqual(texts[7], self.openai.completions.create(model=NAME, prompt="number 7", max_tokens=15,
                                                                  seed=7).choices[0].text)
        self.assertEqual(len(set(texts)), 20)

    def test_streams(self):
        async def work(client):
            stream = await client.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=12, seed=1, stream=True)
            return [chunk.choices[0].delta.content or "" async for chunk in stream]

        self.assertEqual("".join(self.run_async(work)), self.chat().choices[0].message.content)

    def test_a_task_that_is_cancelled(self):
        async def work(client):
            task = asyncio.create_task(client.completions.create(model=NAME, prompt="on", max_tokens=4000))
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.run_async(work)
        self.await_idle()
