"""OpenAI's API over raw HTTP: every route, what answers and streams say, and what is refused."""

import base64
import io
import json
import os
import shutil
import time

import numpy as np

from support.language import ASSISTANT, CONTEXT, EOS, NAME, USER, VOCABULARY, Words
from support.openai import CHAT, COMPLETIONS, EMBEDDINGS, OpenAICase
from support.server import ROOT, SHIPPED_MODELS

ENCODER, EMBEDDER = (os.path.join(ROOT, "tests", "data", "families", name) for name in ("nomic_bert", "qwen3_embedding"))


def tensor(path, name):
    """A tensor of F32 in a file of safetensors."""
    with open(path, "rb") as file:
        content = file.read()
    end = 8 + int.from_bytes(content[:8], "little")
    entry = json.loads(content[8:end])[name]
    first, last = entry["data_offsets"]
    return np.frombuffer(content[end + first:end + last], "<f4").reshape(entry["shape"])


class CompletionsTest(OpenAICase):
    def test_a_completion(self):
        answer = self.ask(model=NAME, prompt="once upon", max_tokens=12, seed=1)
        self.assertEqual(answer["object"], "text_completion")
        self.assertEqual(answer["model"], NAME)
        self.assertTrue(answer["id"].startswith("cmpl-"))
        self.assertLess(abs(answer["created"] - time.time()), 1000)
        choice = answer["choices"][0]
        self.assertEqual((choice["index"], choice["finish_reason"], choice["logprobs"]), (0, "length", None))
        self.assertEqual(answer["usage"]["prompt_tokens"], 9)
        self.assertEqual(answer["usage"]["completion_tokens"], 12)
        self.assertEqual(answer["usage"]["total_tokens"], 21)

    def test_the_only_language_model_need_not_be_named(self):
        self.assertEqual(self.ask(prompt="a", max_tokens=1)["model"], NAME)

    def test_the_default_length_is_openais(self):
        self.assertEqual(self.ask(prompt="a", temperature=0)["usage"]["completion_tokens"], 16)

    def test_the_seed_decides(self):
        texts = {self.say(max_tokens=20, seed=seed)["text"] for seed in (1, 1, 2)}
        self.assertEqual(len(texts), 2)
        self.assertEqual(len({self.say(max_tokens=20)["text"] for _ in range(3)}), 3) # nobody's seed is the last one's

    def test_token_ids_are_as_good_as_text(self):
        prompt = "once upon"
        self.assertEqual(self.say(prompt, max_tokens=9, seed=1), self.say(list(prompt.encode()), max_tokens=9, seed=1))

    def test_several_prompts(self):
        prompts = ["once upon", "a", "the quick brown fox"]
        for given in (prompts, [list(prompt.encode()) for prompt in prompts]):
            choices = self.ask(prompt=given, max_tokens=7, seed=3)["choices"]
            self.assertEqual([choice["index"] for choice in choices], [0, 1, 2])
            self.assertEqual([choice["text"] for choice in choices],
                             [self.say(prompt, max_tokens=7, seed=3)["text"] for prompt in prompts])

    def test_the_end_of_sequence_ends(self):
        answer = self.ask(prompt="a", max_tokens=9, logit_bias={str(EOS): 100})
        self.assertEqual((answer["choices"][0]["finish_reason"], answer["choices"][0]["text"]), ("stop", ""))
        answer = self.ask(prompt="a", max_tokens=9, logit_bias={str(EOS): 100}, ignore_eos=True)
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")

    def test_an_answer_ends_at_the_tokens_that_a_request_names(self):
        text = self.say(max_tokens=40, seed=1)["text"]
        choice = self.say(max_tokens=40, seed=1, stop_token_ids=[ord(text[10]), EOS], ignore_eos=True)
        self.assertEqual((choice["finish_reason"], choice["text"]), ("stop", text[:text.index(text[10])]))
        self.refused(400, "vocabulary", param="stop_token_ids", prompt="a", stop_token_ids=[VOCABULARY])

    def test_stop_strings_are_cut_off(self):
        text = self.say(max_tokens=40, seed=1)["text"]
        stop = text[10:13]
        choice = self.say(max_tokens=40, seed=1, stop=["never in it", stop], logprobs=0)
        self.assertEqual((choice["finish_reason"], choice["text"]), ("stop", text[:text.index(stop)]))
        # What was generated is told all the same.
        self.assertEqual("".join(choice["logprobs"]["tokens"]), text[:text.index(stop) + len(stop)])

    def test_log_probabilities(self):
        choice = self.say("ab", max_tokens=5, seed=1, logprobs=3)
        logprobs = choice["logprobs"]
        self.assertEqual("".join(logprobs["tokens"]), choice["text"])
        self.assertEqual(len(logprobs["token_logprobs"]), 5)
        self.assertTrue(all(value < 0 for value in logprobs["token_logprobs"]))
        self.assertEqual([len(top) >= 3 for top in logprobs["top_logprobs"]], [True] * 5)
        self.assertEqual(logprobs["text_offset"], [0, 1, 2, 3, 4])

    def test_tokens_have_places_in_the_text(self):
        # Bytes that are no character, ends of sequences, which are not in the text, and a stop string that is held back.
        bias = {str(0xe9): 8, str(0xff): 8, str(EOS): 33}
        body = {"max_tokens": 200, "seed": 1, "logprobs": 0, "logit_bias": bias, "ignore_eos": True, "echo": True,
                "stop": ["e!", "l!"]}
        for prompt in ("a<|end|>né", [97, EOS, 0xff, *"né".encode(), 0xff]):
            whole = self.say(prompt, **body)
            offsets, text = whole["logprobs"]["text_offset"], whole["text"]
            self.assertEqual(offsets[:3], [0, 1, 8])
            self.assertIn("\ufffd", text[10:])
            self.assertIn("<|end|>", whole["logprobs"]["tokens"][7:])
            self.assertEqual(offsets, sorted(offsets))
            for token, offset in zip(whole["logprobs"]["tokens"], offsets):
                if len(token) == 1:
                    self.assertIn(token, text[offset:offset + 2]) # behind bytes that this token shows to be none
            parts = [event["choices"][0]["logprobs"] for event in self.streamed(prompt=prompt, **body)]
            self.assertEqual([offset for part in parts for offset in part["text_offset"]], offsets)

    def test_a_prompt_is_scored(self):
        scored = self.say("once upon", max_tokens=0, echo=True, logprobs=1)
        self.assertEqual((scored["text"], scored["finish_reason"]), ("once upon", "length"))
        values = scored["logprobs"]["token_logprobs"]
        self.assertIsNone(values[0])
        self.assertEqual(len(values), 9)
        more = self.say("once upon", max_tokens=3, echo=True, logprobs=1, seed=1)
        self.assertEqual(more["logprobs"]["token_logprobs"][:9], values)
        self.assertEqual(more["text"][9:], self.say("once upon", max_tokens=3, seed=1)["text"])
        # A prompt of many chunks, which is what a step with few rows for logits makes of it.
        long = self.say("x" * 700, max_tokens=0, echo=True, logprobs=0)["logprobs"]["token_logprobs"]
        self.assertEqual(len(long), 700)

    def test_routing(self):
        choice = self.say("abc", max_tokens=4, seed=1, routing=True)
        layers = choice["routing"]["layers"]
        self.assertEqual([layer["name"] for layer in layers], ["layers.0.moe", "layers.1.moe"])
        for layer in layers:
            self.assertEqual(len(layer["experts"]), 6) # all tokens but the last
            self.assertTrue(all(len(experts) == 2 and set(experts) <= {0, 1, 2, 3} for experts in layer["experts"]))
            self.assertTrue(all(abs(sum(weights) - 1) < 1e-5 for weights in layer["weights"]))

    def test_prompt_and_generated_tokens_are_told_apart(self):
        """Different experts of each step, of both kinds, and what weights a token costs to read."""
        before = self.phases()
        routed = self.say("abcdefgh", max_tokens=12, seed=3, routing=True)["routing"]["layers"]
        after = self.phases()
        memory, shared = {"prompt": 0, "generated": 0}, after["memory"]["shared_bytes"]
        for layer, earlier, chosen in zip(after["layers"], before["layers"], routed, strict=True):
            tokens = len(chosen["experts"]) - 11  # of the prompt, in one step; then 11 steps of one
            together = len({expert for experts in chosen["experts"][:tokens] for expert in experts})
            for phase, steps, busy in (("prompt", 1, together), ("generated", 11, 2)):
                now, then = layer["phases"][phase], earlier["phases"][phase]
                self.assertEqual(now["count"] - then["count"], steps)
                self.assertEqual(np.subtract(now["experts"], then["experts"]).tolist(), [steps * (n == busy) for n in (1, 2, 3, 4)])
                self.assertAlmostEqual(now["mean_experts"], np.average([1, 2, 3, 4], weights=now["experts"]), delta=1e-9)
                self.assertEqual([point["size"] for point in now["cache"]], [1, 2])
                memory[phase] += layer["expert_bytes"] * now["mean_experts"] / now["mean_rows"]
        for phase, bytes_ in memory.items():
            rows = after["layers"][0]["phases"][phase]["mean_rows"]
            self.assertAlmostEqual(after["memory"][f"{phase}_bytes_per_token"], bytes_ + shared / rows, delta=1e-6)

    def phases(self):
        return self.client.get(f"/v2/models/{NAME}/routing?include=phases").json

    def test_routing_as_other_clients_read_it(self):
        asked = {"prompt": "abc", "max_tokens": 4, "seed": 1}
        layers = self.ask(**asked, routing=True)["choices"][0]["routing"]["layers"]
        experts = np.array([layer["experts"] for layer in layers]).transpose(1, 0, 2)
        choice = self.ask(**asked, routing="npy")["choices"][0]
        read = np.load(io.BytesIO(base64.b64decode(choice["routed_experts"])))  # vLLM's
        self.assertEqual((read.dtype, read.tolist()), (np.int32, experts.tolist()))
        choice = self.ask(**asked, return_routed_experts=True)["choices"][0]
        read = np.frombuffer(base64.b64decode(choice["sgl_ext"]["routed_experts"]), np.int32)  # SGLang's
        self.assertEqual(read.tolist(), experts.ravel().tolist())
        self.assertNotIn("routing", choice)

    def test_greedy_and_penalties(self):
        greedy = self.say(max_tokens=30, temperature=0)["text"]
        self.assertEqual(self.say(max_tokens=30, temperature=0, seed=8)["text"], greedy)
        self.assertEqual(self.say(max_tokens=30, top_k=1)["text"], greedy)
        varied = self.say(max_tokens=26, temperature=0, presence_penalty=2, frequency_penalty=2)["text"]
        self.assertGreater(len(set(varied)), len(set(greedy)))


class StreamTest(OpenAICase):
    def test_a_stream_says_the_same(self):
        events = self.streamed(prompt="once upon", max_tokens=25, seed=1)
        whole = self.say("once upon", max_tokens=25, seed=1)
        self.assertEqual("".join(event["choices"][0]["text"] for event in events), whole["text"])
        self.assertEqual([event["choices"][0]["finish_reason"] for event in events],
                         [None] * (len(events) - 1) + ["length"])
        self.assertEqual({event["id"] for event in events}, {events[0]["id"]})
        self.assertGreater(len(events), 10)

    def test_usage_comes_last_where_it_is_asked_for(self):
        events = self.streamed(prompt="once upon", max_tokens=5, stream_options={"include_usage": True})
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"]["completion_tokens"], 5)
        self.assertTrue(all(event["usage"] is None for event in events[:-1]))

    def test_stop_strings_are_held_back(self):
        text = self.say(max_tokens=40, seed=1)["text"]
        stop = text[10:13]
        events = self.streamed(prompt="once upon", max_tokens=40, seed=1, stop=stop)
        self.assertEqual("".join(event["choices"][0]["text"] for event in events), text[:text.index(stop)])
        self.assertEqual(events[-1]["choices"][0]["finish_reason"], "stop")

    def test_characters_come_whole(self):
        # Of the letter e with an accent the first byte is likely, and then the second.
        bias = {str(byte): 100 for byte in "é".encode()}
        events = self.streamed(prompt="x", max_tokens=30, seed=4, logit_bias=bias)
        text = "".join(event["choices"][0]["text"] for event in events)
        self.assertIn("é", text)
        self.assertEqual(text, self.say("x", max_tokens=30, seed=4, logit_bias=bias)["text"])

    def test_several_prompts_are_told_apart(self):
        events = self.streamed(prompt=["once", "upon", "a time"], max_tokens=6, seed=1)
        for index, prompt in enumerate(["once", "upon", "a time"]):
            own = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
            self.assertEqual("".join(choice["text"] for choice in own), self.say(prompt, max_tokens=6, seed=1)["text"])
            self.assertEqual(own[-1]["finish_reason"], "length")

    def test_log_probabilities_and_echo(self):
        body = {"prompt": "once", "max_tokens": 5, "seed": 1, "logprobs": 2, "echo": True}
        parts = [event["choices"][0] for event in self.streamed(**body)]
        whole = self.ask(**body)["choices"][0]
        for key in ("tokens", "token_logprobs", "text_offset"):
            self.assertEqual([value for part in parts if part["logprobs"] for value in part["logprobs"][key]],
                             whole["logprobs"][key], key)
        self.assertEqual("".join(part["text"] for part in parts), whole["text"])

    def test_routing_comes_with_its_tokens(self):
        body = {"prompt": "once", "max_tokens": 5, "seed": 1, "routing": True}
        parts = [event["choices"][0]["routing"]["layers"] for event in self.streamed(logprobs=0, **body)]
        self.assertEqual([len(part[0]["experts"]) for part in parts], [4, 1, 1, 1, 1])
        for i, layer in enumerate(self.ask(**body)["choices"][0]["routing"]["layers"]):
            for key in ("experts", "weights"):
                self.assertEqual([row for part in parts for row in part[i][key]], layer[key])


class ChatTest(OpenAICase):
    messages = [{"role": "user", "content": "hello"}]

    def test_a_chat(self):
        answer = self.ask(CHAT, model=NAME, messages=self.messages, max_tokens=8, seed=1)
        self.assertEqual(answer["object"], "chat.completion")
        choice = answer["choices"][0]
        self.assertEqual(choice["message"]["role"], "assistant")
        self.assertEqual(choice["finish_reason"], "length")
        prompt = [USER, *b"hello", EOS, ASSISTANT]
        self.assertEqual(answer["usage"]["prompt_tokens"], len(prompt))
        self.assertEqual(choice["message"]["content"], self.say(prompt, max_tokens=8, seed=1)["text"])

    def test_a_streamed_chat(self):
        body = {"messages": self.messages, "max_completion_tokens": 9, "seed": 2}
        events = self.streamed(CHAT, **body)
        self.assertEqual(events[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertEqual("".join(event["choices"][0]["delta"].get("content") or "" for event in events),
                         self.ask(CHAT, **body)["choices"][0]["message"]["content"])
        self.assertEqual(events[-1]["choices"][0]["finish_reason"], "length")
        self.assertEqual(events[0]["object"], "chat.completion.chunk")

    def test_log_probabilities(self):
        choice = self.ask(CHAT, messages=self.messages, max_tokens=3, logprobs=True, top_logprobs=2)["choices"][0]
        self.assertEqual(len(choice["logprobs"]["content"]), 3)
        self.assertEqual(len(choice["logprobs"]["content"][0]["top_logprobs"]), 2)

    def test_the_prompt_of_a_chat(self):
        answer = self.ask("/apply-template", messages=self.messages)
        self.assertEqual(answer, {"prompt": "<|user|>hello<|end|><|assistant|>"})


class TextTest(OpenAICase):
    def test_tokenize(self):
        self.assertEqual(self.ask("/tokenize", content="né"), {"tokens": list("né".encode())})
        self.assertEqual(self.ask("/tokenize", content="<|end|>a"), {"tokens": [EOS, 97]})

    def test_detokenize(self):
        self.assertEqual(self.ask("/detokenize", tokens=[*"né".encode(), EOS]), {"content": "né<|end|>"})

    def test_long_texts_are_worked_on_elsewhere(self):
        text = "on and on " * 20000
        tokens = self.ask("/tokenize", content=text)["tokens"]
        self.assertEqual(tokens, list(text.encode()))
        self.assertEqual(self.ask("/detokenize", tokens=tokens), {"content": text})


class BoundsTest(OpenAICase):
    """Of a tokenizer with long tokens: 47 dashes in three bytes each are one."""

    DASHES = 1072

    @staticmethod
    def models(directory):
        shutil.copytree(os.path.join(SHIPPED_MODELS, "tiny-lm"), os.path.join(directory, "tiny-lm"))

    def test_a_text_of_tokens_is_bounded(self):
        one = self.ask("/detokenize", tokens=[self.DASHES])["content"].encode(errors="replace")
        self.assertGreater(len(one), 30)
        fits = self.ask("/detokenize", tokens=[self.DASHES] * 10000)["content"].encode()
        self.assertGreater(len(fits), 300000)
        self.refused(413, "the decoded text is longer than 4194304 bytes: decode fewer tokens", path="/detokenize",
                     tokens=[self.DASHES] * 200000)

    def test_what_cannot_fit_is_not_tokenized(self):
        longest = 96  # bytes of a token as tokenizer.json writes them
        for path, body in ((COMPLETIONS, lambda text: {"prompt": text}),
                           (CHAT, lambda text: {"messages": [{"role": "user", "content": text}]})):
            for text, sure in (("-" * 512 * longest, False), ("-" * 513 * longest, True), ("—" * 9 * 513 * longest, True)):
                error = self.refused(400, "exceed", "the model's context of 512 tokens", path=path, max_tokens=1, **body(text))
                if sure or path == COMPLETIONS:
                    self.assertEqual("at least" in error["message"], sure, error["message"])
        self.ask(prompt="— " * 100, max_tokens=1)


def letters_tokenizer():
    """Small enough for the encoder's vocabulary: letters, between <s> and </s>."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    around = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    return {"version": "1.0", "normalizer": {"type": "Lowercase"}, "pre_tokenizer": None, "decoder": {"type": "Fuse"},
            "added_tokens": [{"id": i, "content": text, **flags} for i, text in enumerate(("<s>", "</s>"))],
            "post_processor": {"type": "TemplateProcessing", "single": around, "pair": around, "special_tokens": {
                text: {"id": text, "ids": [i], "tokens": [text]} for i, text in enumerate(("<s>", "</s>"))}},
            "model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1} | {chr(ord("a") + i): 2 + i for i in range(26)}, "merges": []}}


class EmbeddingsTest(OpenAICase):
    @staticmethod
    def models(directory):
        Words().write(os.path.join(directory, NAME))
        for path, name in ((ENCODER, "encoder"), (ENCODER, "reader"), (EMBEDDER, "embedder")):
            shutil.copytree(path, os.path.join(directory, name), ignore=shutil.ignore_patterns("expected"))
        os.mkdir(os.path.join(directory, "embedder", "1_Pooling"))
        with open(os.path.join(directory, "embedder", "1_Pooling", "config.json"), "w", encoding="utf-8") as file:
            json.dump({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, file)
        modules = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling")]
        for name, content in (("tokenizer.json", letters_tokenizer()), ("modules.json", modules)):
            with open(os.path.join(directory, "reader", name), "w", encoding="utf-8") as file:
                json.dump(content, file)

    def embed(self, model="encoder", **body):
        answer = self.ask(EMBEDDINGS, model=model, **body)
        self.assertEqual((answer["object"], answer["model"]), ("list", model))
        self.assertEqual([entry["index"] for entry in answer["data"]], list(range(len(answer["data"]))))
        return [entry["embedding"] for entry in answer["data"]]

    def test_vectors_are_the_mean_of_what_transformers_computes(self):
        path = os.path.join(ENCODER, "expected", "model.safetensors")
        texts = [tensor(path, f"tokens.{i}").astype(int).tolist() for i in range(3)]
        together = self.embed(input=texts)
        for i, text in enumerate(texts):
            mean = tensor(path, f"logits.{i}").mean(axis=0)
            np.testing.assert_allclose(together[i], mean / np.linalg.norm(mean), rtol=1e-3, atol=1e-5)
            self.assertEqual(self.embed(input=text), [together[i]]) # the same bits alone

    def test_a_decoders_trunk_embeds(self):
        path = os.path.join(EMBEDDER, "expected", "model.safetensors")
        texts = [tensor(path, f"tokens.{i}").astype(int).tolist() for i in range(3)]
        for i, vector in enumerate(self.embed("embedder", input=texts)):
            last = tensor(path, f"logits.{i}")[-1]
            np.testing.assert_allclose(vector, last / np.linalg.norm(last), rtol=1e-3, atol=1e-5)
        self.refused(400, "generates no text", param="model", model="embedder", prompt=[1])

    def test_texts_are_read_as_the_tokenizer_says(self):
        one, other = self.embed("reader", input=["Hello", "b"])
        self.assertEqual(self.embed("reader", input="hello"), [one])
        self.assertEqual(self.embed("reader", input=[[0, 9, 6, 13, 13, 16, 1], [0, 3, 1]]), [one, other])
        self.assertGreater(abs(np.linalg.norm(one) - 1), 0.01) # modules.json has no Normalize
        self.assertEqual(self.ask(EMBEDDINGS, model="reader", input=["Hello", "b"])["usage"],
                         {"prompt_tokens": 10, "total_tokens": 10})

    def test_many_texts(self):
        texts = [[1 + i % 20] * (1 + i % 60) for i in range(200)]
        vectors = self.embed(input=texts)
        self.assertEqual(len(vectors), 200)
        self.assertEqual(vectors[77], self.embed(input=texts[77])[0])

    def test_forms(self):
        whole = self.embed(input=[3, 4, 5])[0]
        encoded = self.embed(input=[3, 4, 5], encoding_format="base64")[0]
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(encoded), "<f4"), whole, rtol=1e-6)
        cut = self.embed(input=[3, 4, 5], dimensions=8)[0]
        np.testing.assert_allclose(cut, np.array(whole[:8]) / np.linalg.norm(whole[:8]), rtol=1e-5)

    def test_what_is_refused(self):
        self.refused(400, "no tokenizer", path=EMBEDDINGS, param="input", model="encoder", input="text")
        self.refused(400, "no encoder", path=EMBEDDINGS, param="model", model=NAME, input="text")
        self.refused(400, "generates no text", param="model", model="encoder", prompt=[1])
        self.refused(400, "at most 24", path=EMBEDDINGS, param="dimensions", model="encoder", input=[1], dimensions=25)
        self.refused(400, "context", path=EMBEDDINGS, model="encoder", input=[1] * 65)
        self.refused(400, "several", prompt="a")


class ModelsTest(OpenAICase):
    def test_both_clients_read_the_list(self):
        answer = self.client.get("/v1/models").json
        self.assertEqual(sorted(answer["models"]), ["tiny", NAME])
        self.assertEqual(answer["object"], "list")
        self.assertEqual(sorted(model["id"] for model in answer["data"]), ["tiny", NAME])
        self.assertEqual({model["object"] for model in answer["data"]}, {"model"})

    def test_both_clients_read_one(self):
        answer = self.client.get(f"/v1/models/{NAME}").json
        self.assertEqual((answer["name"], answer["ready"]), (NAME, True))
        self.assertEqual((answer["id"], answer["object"]), (NAME, "model"))


class ErrorsTest(OpenAICase):
    def test_models(self):
        self.refused(404, "nobody", param="model", model="nobody", prompt="a")
        self.refused(400, "is no language model", param="model", model="tiny", prompt="a")
        self.assert_error(self.client.infer(NAME, {"inputs": [{"name": "tokens", "datatype": "INT32", "shape": [1],
                                                               "data": [1]}]}), 400, "sequences of tokens")

    def test_prompts(self):
        self.refused(400, "no tokens", param="prompt", prompt="")
        self.refused(400, str(VOCABULARY), param="prompt", prompt=[1, VOCABULARY])
        self.refused(400, str(VOCABULARY), path="/detokenize", param="tokens", tokens=[1, VOCABULARY])
        for body in ({"prompt": "a" * CONTEXT}, {"prompt": "a", "max_tokens": CONTEXT}):
            self.assertEqual(self.refused(400, "context", **body)["code"], "context_length_exceeded")
        self.ask(prompt="a" * (CONTEXT - 1), max_tokens=1)
        self.refused(400, prompt=None)

    def test_bodies(self):
        for body in (b"", b"{", b"[]", b'{"prompt": "a", "max_tokens": -1}', b'{"prompt": "a", "temperature": 9}',
                     b'{"prompt": "a", "n": 2}', b'{"prompt": "\xff"}'):
            answer = self.client.post(COMPLETIONS, body)
            self.assertEqual(answer.status, 400, (body, answer.body))
            self.assertEqual(list(answer.json), ["error"])
            self.assertTrue(answer.json["error"]["message"])

    def test_misspelt_members_are_named(self):
        """Every member that /openapi.json has."""
        schemas = self.client.get("/openapi.json").json["components"]["schemas"]
        shared, tokens = schemas["Sampling"]["properties"], [1]
        bodies = ((COMPLETIONS, schemas["CompletionRequest"]["allOf"][1], shared, {"prompt": "a"}),
                  (CHAT, schemas["ChatRequest"]["allOf"][1], shared, {"messages": [{"role": "user", "content": "a"}]}),
                  ("/v1/embeddings", schemas["EmbeddingRequest"], {}, {"input": "a"}),
                  ("/tokenize", schemas["TokenizeRequest"], {}, {"content": "a"}),
                  ("/detokenize", schemas["DetokenizeRequest"], {}, {"tokens": tokens}),
                  ("/apply-template", schemas["ChatRequest"]["allOf"][1], shared, {"messages": [{"role": "user", "content": "a"}]}))
        for path, own, others, body in bodies:
            for name in {**own["properties"], **others}:
                with self.subTest(path, name=name):
                    self.refused(400, f"did you mean '{name}'?", path=path, param=name.upper(), **body, **{name.upper(): 1})

    def test_what_is_too_much_is_named(self):
        self.refused(413, "a string of 10000000 bytes", prompt="a" * 10_000_000)
        self.refused(413, "too many values", prompt=[1] * 1_000_000)
        answer = self.client.post(COMPLETIONS, b'{"prompt": "a", "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001)
        self.assertEqual(answer.status, 400)
        self.assertIn("too great a depth", answer.json["error"]["message"])

    def test_methods_and_paths(self):
        answer = self.client.get(COMPLETIONS)
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "POST"))
        self.assertIn("message", answer.json["error"])
        answer = self.client.post(COMPLETIONS, b"x", {"Content-Encoding": "br"})
        self.assertEqual(answer.status, 415)
        self.assertIn("message", answer.json["error"])

    def test_a_stream_that_cannot_begin_has_a_status(self):
        with self.stream(prompt="a" * CONTEXT) as stream:
            self.assertEqual(stream.answer.status, 400)
            self.assertIn("context", json.load(stream.answer)["error"]["message"])
