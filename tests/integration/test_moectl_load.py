"""moectl predict and bench: rows in every format, answers with their routing; load, percentiles, errors."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import numpy as np

from support.models import TwoLayers, write_slow
from support.moectl import MOECTL, moectl, moectl_environment, needs_moectl
from support.server import ROOT, ServerCase
from test_moectl import MoectlCase


@needs_moectl
class PredictTest(MoectlCase):
    def setUp(self):
        self.rows = np.random.default_rng(3).normal(size=(7, 6)).astype(np.float32)
        self.directory = self.enterContext(tempfile.TemporaryDirectory())

    def file(self, name, save, *arguments, **keywords):
        path = os.path.join(self.directory, name)
        save(path, *arguments, **keywords)
        return path

    def check(self, *arguments, **keywords):
        answer = json.loads(self.moectl("predict", "two-layers", "--json", *arguments, **keywords))
        output, first, second = TwoLayers().forward(self.rows)
        np.testing.assert_allclose(answer["outputs"]["score"], output, atol=1e-5)
        np.testing.assert_array_equal(answer["routing"]["first"]["experts"], first[1])
        np.testing.assert_array_equal(answer["routing"]["second"]["experts"], second[1])
        np.testing.assert_allclose(answer["routing"]["second"]["weights"], second[2], atol=1e-5)
        self.assertEqual((answer["model_name"], answer["model_version"]), ("two-layers", "1"))

    def test_numpy(self):
        self.check(self.file("rows.npy", np.save, self.rows))
        self.check(self.file("double.npy", np.save, self.rows.astype(np.float64)), "--rows", "2")
        self.check(self.file("rows.npz", np.savez, x=self.rows))
        self.check(self.file("packed.npz", np.savez_compressed, self.rows))

    def test_json(self):
        self.check(input=json.dumps(self.rows.tolist()))
        self.check("-", input=json.dumps({"instances": self.rows.tolist()}))
        self.check("-", input=json.dumps({"inputs": [{"name": "x", "shape": [7, 6], "datatype": "FP32",
                                                      "data": self.rows.ravel().tolist()}]}))

    def test_the_bits_are_the_servers(self):
        answer = json.loads(self.moectl("predict", "two-layers", "--json", input=json.dumps(self.rows.tolist())))
        expected = self.client.predict("two-layers", self.rows.tolist()).json["predictions"]
        np.testing.assert_array_equal(np.float32(answer["outputs"]["score"]), np.float32(expected))

    def test_table(self):
        table = self.moectl("predict", "two-layers", "--top", "2", input=json.dumps(self.rows.tolist()))
        output, first, _ = TwoLayers().forward(self.rows)
        for row, line in enumerate(table.splitlines()):
            best, second = np.argsort(-output[row])[:2]
            self.assertRegex(line, rf"^ +{row}  score {TwoLayers.labels[best]} \S+, {TwoLayers.labels[second]} ")
            self.assertIn(f"| first {first[1][row, 0]} (1)", line)

    def test_wrong_rows(self):
        for rows, got in (("[1]", "1 number"), ("[[1, 2], [3, 4], [5, 6], [7, 8]]", "4 rows of 2"),
                          ("[[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2, 3]]", "4 rows of 3")):
            self.assertIn(f"input 'x': expected rows of 6 numbers, got {got}\n",
                          self.moectl("predict", "two-layers", input=rows, status=1))
        self.assertIn("404", self.moectl("predict", "nope", input="[1]", status=1))


@needs_moectl
class ExamplesTest(ServerCase):
    """The shipped models and the files that the README shows."""

    def test_examples(self):
        def table(model, name):
            return moectl("predict", model, os.path.join(ROOT, "deploy", name), url=self.server.url).stdout
        self.assertIn("probabilities Ankle boot", table("fashion-mnist", "example.json"))
        self.assertIn("income <=50K 0.7144, >50K 0.2856", table("adult-mmoe", "example-adult.json"))

    def test_rows_of_words(self):
        row = {"numeric": [38, 13, 0, 0, 40], "workclass": "Private", "occupation": "Sales", "race": "White", "sex": "Male",
               "native-country": "Cambodia"}
        other = {**row, "occupation": "Craft-repair", "race": "Amer-Indian-Eskimo", "native-country": "?"}

        def predicted(rows, *options):
            return moectl("predict", "adult-mmoe", "-", *options, input=json.dumps(rows), url=self.server.url)

        both = [predicted([each]).stdout.split(None, 1)[1].strip() for each in (row, other)]
        for options in ((), ("--rows", "1")):
            table = predicted([row, other, row], *options).stdout.splitlines()
            self.assertEqual([line.split(None, 1)[1].strip() for line in table], [both[0], both[1], both[0]])
        self.assertIn('element 0 of row 0 is "Green"', predicted([{**row, "race": "Green"}]).stderr)
        self.assertIn("'race': expected a list of rows, each of numbers or of texts",
                      predicted([row, {**other, "race": 3}]).stderr)

    def test_rows_as_v1_has_them(self):
        rows = [{"numeric": [37, 77516, 13, 2174, 40], "workclass": 7, "occupation": 1, "race": 4, "sex": 1, "native-country": 39},
                {"sex": 0, "numeric": [50, 83311, 13, 0, 13], "workclass": 6, "occupation": 4, "race": 2, "native-country": [3]}]
        columns = {name: [row[name] if isinstance(row[name], list) else [row[name]] for row in rows] for name in rows[0]}
        answer = self.client.post("/v1/models/adult-mmoe:predict", {"inputs": columns})
        self.assertEqual(answer.status, 200, answer.body)
        for body in (rows, {"instances": rows}, {"inputs": columns}, columns):
            shown = json.loads(moectl("predict", "adult-mmoe", "--json", url=self.server.url, input=json.dumps(body)).stdout)
            for name, values in answer.json["outputs"].items():
                np.testing.assert_array_equal(np.float32(shown["outputs"][name]), np.float32(values))

    def test_rows_that_differ(self):
        row = {"numeric": [1, 2, 3, 4, 5], "workclass": 1}
        for rows, what in (([row, {**row, "sex": 1}], "row 1: 'sex' is not in the rows before"),
                           ([row, {"workclass": 1}], "row 1: expected the 2 inputs of the rows before, got 1"),
                           ([row, [1]], "row 1: expected an object of inputs, as row 0 is one"),
                           ([[1], row], "the rows: expected a list of rows, each of numbers"), ([{}], "there are no rows"),
                           ([{"numeric": {"a": 1}}], "'numeric': expected a list of rows, each of numbers")):
            done = moectl("predict", "adult-mmoe", url=self.server.url, input=json.dumps(rows))
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(what, done.stderr)

    def test_bench_makes_inputs_for_every_model(self):
        for model in ("adult-mmoe", "clusters"):
            done = moectl("bench", model, "--requests", 20, "--rows", 3, "--json", url=self.server.url)
            self.assertEqual(json.loads(done.stdout)["answers"], 20, done.stderr)
            self.assertEqual(done.returncode, 0)


@needs_moectl
class BenchTest(ServerCase):
    options = {"log_level": "warning"}

    @staticmethod
    def models(directory):
        TwoLayers().write(os.path.join(directory, "two-layers"))
        write_slow(os.path.join(directory, "slow"), 0.02)

    def bench(self, *arguments, status=0):
        done = moectl("bench", *arguments, "--json", url=self.server.url)
        self.assertEqual(done.returncode, status, done.stderr)
        return json.loads(done.stdout)

    def rows(self, model="two-layers"):
        return self.client.get(f"/v2/models/{model}/routing").json["layers"][0]["rows"]

    def test_a_number_of_requests(self):
        before = self.rows()
        result = self.bench("two-layers", "--requests", 100, "--rows", 3, "--concurrency", 4)
        self.assertEqual((result["answers"], result["failed"], result["connections"]), (100, 0, 4))
        self.assertEqual(self.rows() - before, 3 * (100 + 4))  # every connection is opened by a request
        times = [result["latency_ms"][key] for key in ("min", "p50", "p90", "p95", "p99", "p99.9", "max")]
        self.assertEqual(times, sorted(times))
        self.assertGreater(times[0], 0)

    def test_a_rate_is_kept(self):
        result = self.bench("two-layers", "--rate", 200, "--duration", 1)
        self.assertEqual(result["answers"], 200)
        self.assertGreater(result["seconds"], 0.99)

    def test_a_late_answer_delays_those_behind_it(self):
        """Requests due each millisecond on one connection wait for the slow ones: that is in their latency."""
        result = self.bench("slow", "--rate", 1000, "--requests", 20, "--concurrency", 1)
        self.assertGreater(result["latency_ms"]["p99"], 3 * result["service_ms"]["p50"])

    def test_given_rows(self):
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            np.save(file, np.zeros((5, 6), np.float32))
            file.flush()
            self.assertEqual(self.bench("two-layers", "--requests", 10, "--input", file.name)["answers"], 10)

    def test_table(self):
        table = moectl("bench", "two-layers", "--requests", 10, url=self.server.url).stdout
        self.assertRegex(table, r"10 answers in \d+\.\d\d s: ")
        self.assertIn("p99.9", table)

    def test_nothing_answers(self):
        done = moectl("bench", "two-layers", "--requests", 3, url="http://127.0.0.1:1")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("no answer", done.stderr)

    def test_refusals_are_counted(self):
        """A proxy that lets one connection through and then refuses."""
        proxy = Refusing(self.server.port, let_through=2)
        self.addCleanup(proxy.close)
        done = moectl("bench", "two-layers", "--requests", 5, "--json", url=f"http://127.0.0.1:{proxy.port}")
        self.assertEqual(done.returncode, 1, done.stdout)
        result = json.loads(done.stdout)
        self.assertEqual((result["answers"], result["failed"]), (0, 5))
        self.assertEqual([(error["status"], error["count"]) for error in result["errors"]], [(503, 5)])
        self.assertIn("on holiday", result["errors"][0]["text"])

    def test_an_interrupt_shows_what_there_is(self):
        before = self.rows()
        process = subprocess.Popen([MOECTL, "bench", "two-layers", "--duration", "60", "--json"],
                                   env=moectl_environment(self.server.url), stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while self.rows() < before + 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        result = json.loads(output)
        self.assertEqual((process.returncode, result["interrupted"]), (0, True))
        self.assertGreater(result["answers"], 0)


class Refusing:
    """Passes `let_through` requests on to the server and answers 503 to those behind them."""

    def __init__(self, port, let_through):
        self.server_port, self.left = port, let_through
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def close(self):
        self.listener.close()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.answer(connection)

    def answer(self, connection):
        """One request, which arrives whole because it is small; closes the connection."""
        request = connection.recv(1 << 20)
        while b"\r\n\r\n" not in request:
            request += connection.recv(1 << 20)
        head, _, body = request.partition(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                       if line.lower().startswith(b"content-length:")), 0)
        while len(body) < length:
            body += connection.recv(1 << 20)
        if self.left == 0:
            text = b'{"error":"on holiday"}'
            connection.sendall(b"HTTP/1.1 503 -\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
            return
        self.left -= 1
        with socket.create_connection(("127.0.0.1", self.server_port)) as server:
            server.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + b"\r\n\r\n" + body)
            while chunk := server.recv(1 << 20):
                connection.sendall(chunk)


if __name__ == "__main__":
    unittest.main()
