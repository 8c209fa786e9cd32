"""moectl bench of a language model: what is sent, and figures that are the server's own; streams that fail."""

import json
import os
import tempfile
import unittest

from support.http import Client
from support.language import NAME, Words
from support.models import TwoLayers
from support.moectl import moectl, needs_moectl
from support.prometheus import Metrics
from support.server import ServerCase
from test_moectl_generate import DONE, Speaking, StreamCase, event

KEYS = ("min", "p50", "p90", "p95", "p99", "p99.9", "max")


@needs_moectl
class BenchTextTest(ServerCase):
    @staticmethod
    def models(directory):
        Words().write(os.path.join(directory, NAME))
        Words().write(os.path.join(directory, "ids"))
        os.remove(os.path.join(directory, "ids", "tokenizer.json"))
        TwoLayers().write(os.path.join(directory, "two-layers"))

    def bench(self, *arguments, status=0, server=None):
        done = moectl("bench", *arguments, "--json", url=(server or self.server).url)
        self.assertEqual(done.returncode, status, done.stderr)
        return json.loads(done.stdout) if status == 0 else done.stderr

    def check_times(self, result):
        for name in ("latency_ms", "service_ms", "first_token_ms", "between_tokens_ms"):
            times = [result[name][key] for key in KEYS]
            self.assertEqual(times, sorted(times))
        self.assertGreater(result["first_token_ms"]["min"], 0)
        self.assertLess(result["first_token_ms"]["p50"], result["latency_ms"]["max"])

    def test_the_figures_are_the_servers(self):
        with self.start() as server, Client(server.port) as client:
            result = self.bench(NAME, "--requests", 20, "--concurrency", 2, "--prompt-tokens", 10, "--max-tokens", 6,
                                "--uncounted", server=server)
            metrics = Metrics(client.get("/metrics").body.decode())
            rows = client.get(f"/v2/models/{NAME}/routing").json["layers"][0]["rows"]
            server.stop()
        self.assertEqual((result["answers"], result["failed"], result["connections"]), (20, 0, 2))
        self.assertEqual((result["prompt_tokens"], result["answer_tokens"], result["cached_tokens"]), (200, 120, 0))
        self.assertAlmostEqual(result["answer_tokens_per_second"], 120 / result["seconds"], delta=0.001 * 120 / result["seconds"])
        self.check_times(result)
        # Every connection is opened by a request of one token and one more.
        self.assertEqual(metrics.value("moed_tokens_total", model=NAME, version="1", phase="prompt"), 200 + 2)
        self.assertEqual(metrics.value("moed_tokens_total", model=NAME, version="1", phase="generated"), 120 + 2)
        self.assertEqual(metrics.value("moed_first_token_seconds_count", model=NAME, version="1"), 20 + 2)
        self.assertEqual(metrics.value("moed_next_token_seconds_count", model=NAME, version="1"), 20 * 5)
        # What the server saw of the time lies within what moectl saw.
        self.assertLess(metrics.value("moed_next_token_seconds_sum", model=NAME, version="1"),
                        20 * result["service_ms"]["mean"] / 1000)
        self.assertEqual(rows, 0)

    def test_a_rate(self):
        result = self.bench(NAME, "--rate", 50, "--duration", 1, "--prompt-tokens", 4, "--max-tokens", 2)
        self.assertEqual((result["answers"], result["answer_tokens"]), (50, 100))

    def test_a_model_without_a_tokenizer(self):
        result = self.bench("ids", "--requests", 3, "--prompt-tokens", 4, "--max-tokens", 3)
        self.assertEqual((result["answers"], result["answer_tokens"]), (3, 9))
        self.check_times(result)

    def test_given_prompts(self):
        for text, tokens in (("Once\n\nupon a\n", 4 + 6), ('["Once", [1, 2, 3]]', 4 + 3), ("Once\nupon a", 4 + 6)):
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                file.write(text)
                file.flush()
                result = self.bench(NAME, "--requests", 4, "--max-tokens", 3, "--input", file.name)
            self.assertEqual((result["answers"], result["prompt_tokens"]), (4, 2 * tokens))

    def test_wrong_prompts(self):
        for text, words in ((b"", "there are no prompts"), (b"\n\n", "there are no prompts"), (b"[]", "there are no prompts"),
                            (b'["a", 3]', "prompt 1: expected a text or a list of token ids"), (b'[""]', "prompt 0: expected"),
                            (b'[[1, "a"]]', "prompt 0: expected"), (b"[1", "line 1, column 2"), (b"a\n\xff\n", "line 2 is not UTF-8"),
                            (b"a\0b\nc\n", "a NUL byte, which no prompt may hold")):
            with tempfile.NamedTemporaryFile(suffix=".txt") as file:
                file.write(text)
                file.flush()
                self.assertIn(words, self.bench(NAME, "--input", file.name, status=1))

    def test_table(self):
        table = moectl("bench", NAME, "--requests", 5, "--prompt-tokens", 3, "--max-tokens", 2, url=self.server.url).stdout
        self.assertIn("1 connection, one request at a time on each,\n3 tokens of prompt and at most 2 of answer each\n", table)
        self.assertRegex(table, r"5 answers in [\d.]+ s: [\d.]+ requests/s; 0 failed\n[\d.]+ tokens/s of answers, [\d.]+ of prompts\n")
        self.assertLessEqual(max(map(len, table.splitlines())), 80)
        self.assertRegex(table, r"\nfirst token +[\d.]+ ")
        self.assertRegex(table, r"\nbetween tokens +[\d.]+ ")
        self.assertNotIn("cache", table)

    def test_what_was_not_measured_is_no_figure(self):
        options = (NAME, "--requests", 3, "--prompt-tokens", 3, "--max-tokens", 1)  # no token has one before it
        self.assertEqual(set(self.bench(*options)["between_tokens_ms"].values()), {None})
        self.assertRegex(moectl("bench", *options, url=self.server.url).stdout, r"\nbetween tokens(        -){7}\n")

    def test_what_the_servers_cache_had_is_told(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("x" * 200)
            file.flush()
            table = moectl("bench", NAME, "--requests", 5, "--max-tokens", 2, "--input", file.name, url=self.server.url).stdout
        self.assertRegex(table, r"\n[1-9][\d.]* % of the tokens of prompts were in the server's cache\n")

    def test_wrong_usage(self):
        for arguments, words in (((NAME, "--rows", 2), f"'{NAME}' is a language model: --rows is not for it"),
                                 ((NAME, "--version", 1), "--version is not for it"),
                                 (("two-layers", "--max-tokens", 2), "'two-layers' is no language model: --max-tokens is not for it"),
                                 (("two-layers", "--prompt-tokens", 2), "--prompt-tokens is not for it"),
                                 (("two-layers", "--seed", 2), "--seed is not for it"),
                                 ((NAME, "--prompt-tokens", 4000), "has room for 4096 tokens, and not for 4000 of prompt and 128 of")):
            self.assertIn(words, self.bench(*arguments, status=1))


class Measured(Speaking):
    """The first answer is whole; `pieces` come behind it."""

    whole = (event("a"), event("b"), b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n', DONE)
    listing = {"models": ["m"], "data": [{"id": "m", "capabilities": ["completion"]}]}
    bodies, later = None, whole

    def do_POST(self):
        self.pieces = self.later if self.bodies else self.whole
        super().do_POST()

    def read_body(self):
        body = super().read_body()
        self.bodies.append(json.loads(body))
        return body


@needs_moectl
class BenchStreamTest(StreamCase):
    def measure(self, *later, options=(), status=0):
        self.bodies = []
        url = self.serve(handler=Measured, bodies=self.bodies, **({"later": later} if later else {}))
        done = moectl("bench", "m", "--json", *options, url=url)
        self.assertEqual(done.returncode, status, done.stderr)
        return json.loads(done.stdout)

    def prompts(self, *options):
        result = self.measure(options=("--requests", 6, "--prompt-tokens", 50, *options))
        self.assertEqual([body["max_tokens"] for body in self.bodies], [1] + [128] * 6)
        self.assertTrue(all(body["ignore_eos"] and body["stream"] for body in self.bodies))
        return result["seed"], [body["prompt"] for body in self.bodies[1:]]

    def test_prompts_are_random_and_the_same_again(self):
        seed, prompts = self.prompts()
        ids = [token for prompt in prompts for token in prompt]
        self.assertEqual((len(ids), len(set(map(tuple, prompts)))), (300, 6))
        self.assertEqual(len({prompt[0] for prompt in prompts}), 6)  # they have no beginning in common
        self.assertLess(max(ids), 1000)
        self.assertGreater(max(ids), 900)
        self.assertLess(min(ids), 100)
        self.assertEqual(self.prompts("--seed", seed), (seed, prompts))
        self.assertNotEqual(self.prompts(), (seed, prompts))  # or the server's cache would know them

    def test_answers_that_fail(self):
        whole = Measured.whole
        for later, words in (((event("a"),), "the answer broke off: its stream ended without [DONE]"),
                             ((event("a"), DONE), "the answer broke off: its stream ended without usage"),
                             ((event("a"), b'data: {"error":{"message":"late"}}\n\n', *whole), "the answer broke off: late"),
                             ((event("a"), b"data: 3\n\n", *whole), "an event of the answer is no JSON object"),
                             ((event("a"), None), "the answer broke off: transfer closed")):
            result = self.measure(*later, options=("--requests", 3), status=1)
            self.assertEqual((result["answers"], result["failed"], result["answer_tokens"]), (0, 3, 0))
            self.assertEqual([(error["status"], error["count"]) for error in result["errors"]], [(0, 3)])
            self.assertIn(words, result["errors"][0]["text"])
            self.assertIsNone(result["between_tokens_ms"]["max"])

    def test_times_are_those_of_events(self):
        a, b, *end = Measured.whole
        result = self.measure(0.2, a, 0.1, b, 0.3, *end, options=("--requests", 2))
        self.assertEqual((result["answers"], result["answer_tokens"], result["prompt_tokens"]), (2, 4, 6))
        self.assertGreaterEqual(result["first_token_ms"]["min"], 190)
        self.assertGreaterEqual(result["between_tokens_ms"]["min"], 90)
        self.assertLess(result["between_tokens_ms"]["min"], 300)
        self.assertGreaterEqual(result["latency_ms"]["min"], 580)

    def test_a_nul_is_a_byte_as_any_other(self):
        result = self.measure(event("a\0"), event("\0"), *Measured.whole[-2:], options=("--requests", 3))
        self.assertEqual((result["answers"], result["failed"], result["errors"]), (3, 0, []))

    def test_what_generates_nothing(self):
        url = self.serve(handler=Measured, listing={"models": ["m"], "data": [{"id": "m", "capabilities": ["embedding"]}]})
        done = moectl("bench", "m", url=url)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("'m' generates nothing: only models of rows and of text are measured", done.stderr)


if __name__ == "__main__":
    unittest.main()
