"""The client against a server of a few lines that records what it is sent and answers what it is told."""

import contextlib
import json
import os
import socket
import threading
import time
import traceback
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from moed.client import Client, ProtocolError, RequestError, Unreachable

JSON_LENGTH = "Inference-Header-Content-Length"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        stub = self.server
        stub.requests.append((self.command, self.path, dict(self.headers), body, self.client_address))
        queued = stub.queues.get(self.path)
        status, headers, content = queued.pop(0) if queued else stub.answers[self.path]
        time.sleep(stub.delays.get(self.path, 0))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # a client that gave up waiting
            self.wfile.write(content)
        # The way of a server that drops idle connections: without a word.
        self.close_connection = self.path in stub.hang_up_after

    do_GET = do_POST = answer

    def log_message(self, *arguments):
        pass


class ClientCase(unittest.TestCase):
    def setUp(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.requests, self.server.answers, self.server.hang_up_after = [], {}, set()
        self.server.delays, self.server.queues = {}, {}
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.client = Client(f"http://127.0.0.1:{self.server.server_port}", timeout=5)
        self.addCleanup(self.client.close)

    def answer(self, path, content, status=200, headers=None):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.server.answers[path] = (status, headers or {}, content)

    def sent(self):
        return self.server.requests[-1]


class PredictTest(ClientCase):
    def test_rows_and_predictions(self):
        self.answer("/v1/models/m:predict", {"predictions": [[0.25, 0.75], [1, 0]]})
        result = self.client.predict("m", np.float32([[1, 2], [3, 4]]))
        np.testing.assert_array_equal(result["predictions"], [[0.25, 0.75], [1, 0]])
        self.assertNotIn("routing", result)
        self.assertEqual(json.loads(self.sent()[3]), {"instances": [[1, 2], [3, 4]]})
        self.assertEqual(self.sent()[2]["Content-Type"], "application/json")

    def test_several_outputs(self):
        self.answer("/v1/models/m:predict", {"predictions": [{"a": [1, 2], "b": [3]}, {"a": [4, 5], "b": [6]}]})
        predictions = self.client.predict("m", [[1], [2]])["predictions"]
        np.testing.assert_array_equal(predictions["a"], [[1, 2], [4, 5]])
        np.testing.assert_array_equal(predictions["b"], [[3], [6]])

    def test_routing(self):
        self.answer("/v1/models/m/versions/3:predict", {
            "predictions": [[1]], "routing": {"moe": {"experts": [[4, 0]], "weights": [[0.5, 0.5]]}}})
        result = self.client.predict("m", [[1]], routing=True, version=3)
        np.testing.assert_array_equal(result["routing"]["moe"]["experts"], [[4, 0]])
        self.assertTrue(json.loads(self.sent()[3])["routing"])

    def test_rows_of_several_inputs(self):
        self.answer("/v1/models/m:predict", {"predictions": [[1], [2]], "outputs": [[1], [2]]})
        rows = [{"age": np.float32(3), "job": "x"}, {"age": None, "job": np.str_("y")}]
        np.testing.assert_array_equal(self.client.predict("m", rows)["predictions"], [[1], [2]])
        self.assertEqual(json.loads(self.sent()[3]), {"instances": [{"age": 3, "job": "x"}, {"age": None, "job": "y"}]})
        columns = {"age": np.float32([3, 4]), "job": ["x", "y"]}
        np.testing.assert_array_equal(self.client.predict("m", columns)["predictions"], [[1], [2]])
        self.assertEqual(json.loads(self.sent()[3]), {"inputs": {"age": [3, 4], "job": ["x", "y"]}})
        self.answer("/v1/models/m:predict", {"outputs": {"a": [[1], [2]], "b": [3, 4]}})
        np.testing.assert_array_equal(self.client.predict("m", columns)["predictions"]["b"], [3, 4])

    def test_json_has_no_nan(self):
        for value in (float("nan"), float("inf")):
            with self.subTest(value), self.assertRaisesRegex(ValueError, "JSON cannot hold the rows, but infer()"):
                self.client.predict("m", [[value]])
        self.assertEqual(self.server.requests, [])

    def test_model_names_are_quoted(self):
        self.answer("/v1/models/a%2Fb%20c:predict", {"predictions": []})
        self.client.predict("a/b c", [[1]])


class InferTest(ClientCase):
    def setUp(self):
        super().setUp()
        self.answer("/v2/models/m", {"name": "m", "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3]}]})

    def answer_binary(self, *arrays_and_types):
        outputs, data = [], b""
        for name, datatype, array in arrays_and_types:
            blob = array.tobytes()
            outputs.append({"name": name, "datatype": datatype, "shape": list(array.shape),
                            "parameters": {"binary_data_size": len(blob)}})
            data += blob
        head = json.dumps({"model_name": "m", "outputs": outputs}).encode()
        self.answer("/v2/models/m/infer", head + data, headers={JSON_LENGTH: str(len(head))})

    def test_binary_both_ways(self):
        probabilities, experts = np.float32([[0.1, 0.9]]), np.int32([[2, 1]])
        self.answer_binary(("p", "FP32", probabilities), ("routing.moe.experts", "INT32", experts))
        result = self.client.infer("m", np.float64([[1, 2, 3]]))
        np.testing.assert_array_equal(result["p"], probabilities)
        np.testing.assert_array_equal(result["routing.moe.experts"], experts)
        self.assertEqual(result["routing.moe.experts"].dtype, np.int32)

        _, _, headers, body, _ = self.sent()
        self.assertEqual(headers["Content-Type"], "application/octet-stream")
        size = int(headers[JSON_LENGTH])
        self.assertEqual(json.loads(body[:size]), {
            "inputs": [{"name": "image", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}],
            "parameters": {"binary_data_output": True}})
        self.assertEqual(body[size:], np.float32([1, 2, 3]).tobytes())

    def test_named_outputs(self):
        self.answer_binary(("p", "FP32", np.float32([[1]])))
        self.client.infer("m", np.zeros((1, 3)), outputs=["p", "routing.moe.weights"])
        size = int(self.sent()[2][JSON_LENGTH])
        request = json.loads(self.sent()[3][:size])
        self.assertEqual(request["outputs"], [{"name": "p", "parameters": {"binary_data": True}},
                                              {"name": "routing.moe.weights", "parameters": {"binary_data": True}}])
        self.assertNotIn("parameters", request)

    def test_json_both_ways(self):
        self.answer("/v2/models/m/infer", {"outputs": [
            {"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]})
        result = self.client.infer("m", [[1, 2, 3], [4, 5, 6]], binary=False)
        np.testing.assert_array_equal(result["p"], np.float32([[1, 2], [3, 4]]))
        self.assertEqual(json.loads(self.sent()[3])["inputs"][0]["data"], [1, 2, 3, 4, 5, 6])
        self.assertNotIn(JSON_LENGTH, self.sent()[2])
        self.assertEqual(self.sent()[2]["Content-Type"], "application/json")

    def test_several_inputs_and_outputs(self):
        self.answer("/v2/models/m", {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]},
                                                             {"name": "job", "datatype": "INT32", "shape": [-1, 1]}]})
        self.answer_binary(("a", "FP32", np.float32([[0.5], [1.5]])), ("b", "FP32", np.float32([[2], [3]])))
        result = self.client.infer("m", {"job": np.int64([[7], [9]]), "x": [[1, 2], [3, 4]]})
        np.testing.assert_array_equal(result["a"], [[0.5], [1.5]])
        np.testing.assert_array_equal(result["b"], [[2], [3]])
        size = int(self.sent()[2][JSON_LENGTH])
        self.assertEqual(json.loads(self.sent()[3][:size])["inputs"], [
            {"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}},
            {"name": "job", "shape": [2, 1], "datatype": "INT32", "parameters": {"binary_data_size": 8}}])
        self.assertEqual(self.sent()[3][size:], np.float32([1, 2, 3, 4]).tobytes() + np.int32([7, 9]).tobytes())

    def test_categories_are_whole_numbers(self):
        self.answer("/v2/models/m", {"inputs": [{"name": "job", "datatype": "INT32"}]})
        self.answer_binary(("p", "FP32", np.float32([[1]])))
        self.client.infer("m", np.float64([[7.0]]))
        for value in (7.5, float("nan"), 2.0 ** 40):
            with self.subTest(value), self.assertRaisesRegex(ValueError, "input job takes INT32, and not every number"):
                self.client.infer("m", [[value]])

    def test_inputs_are_named_as_the_model_names_them(self):
        self.answer("/v2/models/two", {"inputs": [{"name": name, "datatype": "FP32"} for name in "xy"]})
        for rows in ({"x": [[1]]}, {"x": [[1]], "z": [[1]]}, [[1]]):
            with self.subTest(rows), self.assertRaisesRegex(ValueError, r"two takes the inputs \['x', 'y'\], not"):
                self.client.infer("two", rows)
        self.answer("/v2/models/odd", {"inputs": [{"name": "x", "datatype": "FP8"}]})
        with self.assertRaisesRegex(ProtocolError, "odd: input x takes FP8"):
            self.client.infer("odd", [[1]])

    def answer_words(self):
        values = {"categories": 3, "words": ["red", "grün", "?"], "unknown": 2, "missing": 1}
        self.answer("/v2/models/m", {"inputs": [
            {"name": "colour", "datatype": "BYTES", "shape": [-1, 1], "parameters": values},
            {"name": "age", "datatype": "FP32", "shape": [-1, 1], "parameters": {"missing": 40.0}},
            {"name": "kind", "datatype": "INT32", "shape": [-1, 1], "parameters": {"categories": 2}}]})
        self.answer_binary(("p", "FP32", np.float32([[1]])))

    def sent_for(self, **rows):
        """(datatype, tensor) of the colour; the tensors of all inputs."""
        self.client.infer("m", {"colour": [["red"], ["grün"]], "age": [[1], [2]], "kind": [[0], [1]], **rows})
        size = int(self.sent()[2][JSON_LENGTH])
        request, tensors, found = json.loads(self.sent()[3][:size]), self.sent()[3][size:], []
        for entry in request["inputs"]:
            length = entry["parameters"]["binary_data_size"]
            found, tensors = [*found, tensors[:length]], tensors[length:]
        return request["inputs"][0]["datatype"], found

    def test_words(self):
        self.answer_words()
        words = b"\x03\0\0\0red" + b"\x05\0\0\0gr\xc3\xbcn"
        for colour in ([["red"], ["grün"]], np.array([["red"], ["grün"]]), [["red"], [None]], [[b"red"], [None]]):
            with self.subTest(colour):
                datatype, tensors = self.sent_for(colour=colour)
                self.assertEqual((datatype, tensors[0]), ("BYTES", words))
        for colour in ([[0], [1]], np.int64([[0], [1]]), [[0], [None]]):
            with self.subTest(colour):
                datatype, tensors = self.sent_for(colour=colour)
                self.assertEqual((datatype, tensors[0]), ("INT32", np.int32([0, 1]).tobytes()))
        self.answer("/v2/models/m/infer", {"outputs": [{"name": "p", "datatype": "FP32", "shape": [1], "data": [1]}]})
        self.client.infer("m", {"colour": [["grün"]], "age": [[1]], "kind": [[0]]}, binary=False)
        self.assertEqual(json.loads(self.sent()[3])["inputs"][0],
                         {"name": "colour", "shape": [1, 1], "datatype": "BYTES", "data": ["grün"]})

    def test_missing_values(self):
        self.answer_words()
        self.assertEqual(self.sent_for(age=[[None], [2.5]])[1][1], np.float32([40, 2.5]).tobytes())
        for rows, message in (({"kind": [[None], [1]]}, "input kind: element 0 is None, which the model has no"),
                              ({"colour": [["red"], [1]]}, "input colour: element 1 is 1, and others are words"),
                              ({"kind": [["a"], ["b"]]}, "input kind takes INT32, not words")):
            with self.subTest(rows), self.assertRaisesRegex(ValueError, message):
                self.sent_for(**rows)

    def test_bf16_is_widened(self):
        self.answer_binary(("p", "BF16", np.uint16([0x3F80, 0xC000])))
        np.testing.assert_array_equal(self.client.infer("m", [[1, 2, 3]])["p"], [1.0, -2.0])

    def test_the_metadata_is_asked_for_once(self):
        self.answer_binary(("p", "FP32", np.float32([[1]])))
        for _ in range(3):
            self.client.infer("m", [[1, 2, 3]])
        self.assertEqual([request[1] for request in self.server.requests].count("/v2/models/m"), 1)

    def test_answers_that_break_the_protocol(self):
        def output(datatype, size):
            return {"outputs": [{"name": "p", "datatype": datatype, "shape": [size // 4],
                                 "parameters": {"binary_data_size": size}}]}

        for name, content, headers in (
                ("no JSON", b"no JSON", {}), ("no outputs", {}, {}), ("length", {"outputs": []}, {JSON_LENGTH: "999"}),
                ("missing data", output("FP32", 4), {}), ("unknown type", output("FP99", 0), {})):
            self.answer("/v2/models/m/infer", content, headers=headers)
            with self.subTest(name), self.assertRaises(ProtocolError):
                self.client.infer("m", [[1, 2, 3]])


class StateTest(ClientCase):
    def test_models_and_routing(self):
        self.answer("/v1/models", {"models": [{"name": "a", "state": "AVAILABLE"}, {"name": "b"}]})
        self.assertEqual(self.client.models(), ["a", "b"])
        self.answer("/v2/models/a/routing", {"model": "a", "layers": []})
        self.assertEqual(self.client.routing("a"), {"model": "a", "layers": []})

    def test_ready(self):
        self.answer("/v2/health/ready", b"")
        self.assertTrue(self.client.ready())
        self.answer("/v2/models/m/ready", {"error": "loading"}, status=503)
        self.assertFalse(self.client.ready("m"))


class FailureTest(ClientCase):
    def test_the_servers_words_and_status(self):
        self.answer("/v1/models/m:predict", {"error": "instances[0]: expected 3 numbers, got 2"}, status=400)
        with self.assertRaises(RequestError) as caught:
            self.client.predict("m", [[1, 2]])
        self.assertEqual(caught.exception.status, 400)
        self.assertEqual(caught.exception.message, "instances[0]: expected 3 numbers, got 2")
        self.assertEqual(str(caught.exception), "400: instances[0]: expected 3 numbers, got 2")

    def test_errors_of_openais_routes(self):
        self.answer("/v1/models", {"error": {"message": "this takes a token", "type": "x", "param": None}}, status=401)
        with self.assertRaisesRegex(RequestError, "^401: this takes a token$"):
            self.client.models()

    def test_errors_of_something_in_between(self):
        self.answer("/v1/models", b"<html>oops</html>", status=502)
        with self.assertRaisesRegex(RequestError, "502: Bad Gateway"):
            self.client.models()

    def test_the_connection_is_kept(self):
        self.answer("/v1/models", {"models": []})
        for _ in range(3):
            self.client.models()
        self.assertEqual(len({address for *_, address in self.server.requests}), 1)

    def test_a_dropped_idle_connection_is_replaced(self):
        self.answer("/v1/models", {"models": []})
        self.server.hang_up_after.add("/v1/models")
        for _ in range(3):
            self.client.models()
        self.assertEqual(len({address for *_, address in self.server.requests}), 3)

    def test_an_error_does_not_spoil_the_connection(self):
        self.answer("/v1/models", {"models": []})
        self.answer("/v1/models/m:predict", {"error": "no"}, status=400)
        with self.assertRaises(RequestError):
            self.client.predict("m", [[1]])
        self.assertEqual(self.client.models(), [])
        self.assertEqual(len({address for *_, address in self.server.requests}), 1)

    def test_a_late_answer_is_not_taken_for_the_next(self):
        self.answer("/v1/models", {"models": [{"name": "current"}]})
        self.answer("/v1/models/slow:predict", {"predictions": [], "models": [{"name": "stale"}]})
        self.server.delays["/v1/models/slow:predict"] = 0.4
        with Client(self.client.url, timeout=0.1) as client:
            with self.assertRaisesRegex(Unreachable, "timed out"):
                client.predict("slow", [[1]])
            self.assertEqual(client.models(), ["current"])

    def busy(self, *answers):
        self.answer("/v1/models", {"models": [{"name": "m"}]})
        self.server.queues["/v1/models"] = [(status, headers, b'{"error": "busy"}') for status, headers in answers]

    def test_a_busy_server_is_asked_again(self):
        for status in (429, 503):
            self.busy((status, {"Retry-After": "1"}), (status, {}))
            began = time.monotonic()
            self.assertEqual(self.client.models(), ["m"])
            self.assertGreater(time.monotonic() - began, 1.1)  # what it was told, then its own first wait doubled
        self.assertEqual(len(self.server.requests), 6)

    def test_not_for_ever(self):
        self.busy(*[(503, {"Retry-After": "0"})] * 3)
        with self.assertRaisesRegex(RequestError, "503: busy"):
            self.client.models()
        self.busy((429, {"Retry-After": "60"}))
        with self.assertRaisesRegex(RequestError, "429: busy"):
            self.client.models()
        with Client(self.client.url, retries=0) as client:
            self.busy((503, {}))
            with self.assertRaisesRegex(RequestError, "503: busy"):
                client.models()
        self.assertEqual(len(self.server.requests), 3 + 1 + 1)

    def test_other_refusals_are_final(self):
        self.busy((400, {"Retry-After": "0"}))
        with self.assertRaisesRegex(RequestError, "400: busy"):
            self.client.models()

    def test_threads_have_connections_of_their_own(self):
        self.answer_names("a", "b", "c", "d")
        wrong = []

        def ask(name):
            for _ in range(50):
                self.client.metadata(name)["name"] == name or wrong.append(name)
        threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((wrong, len({address for *_, address in self.server.requests})), ([], 4))

    def answer_names(self, *names):
        for name in names:
            self.answer(f"/v2/models/{name}", {"name": name, "inputs": []})

    def test_after_fork(self):
        """Parent and child at once: on one connection they would read each other's answers."""
        self.answer_names("parent", "child")
        self.client.metadata("parent")
        child = os.fork()
        name = "parent" if child else "child"
        right = all(self.client.metadata(name)["name"] == name for _ in range(50))
        if not child:
            os._exit(0 if right else 1)
        self.assertEqual((right, os.waitpid(child, 0)[1]), (True, 0))
        self.assertEqual(len({address for *_, address in self.server.requests}), 2)

    def test_a_token_is_sent(self):
        self.answer("/v1/models", {"models": []})
        self.client.models()
        self.assertNotIn("Authorization", self.sent()[2])
        with Client(self.client.url, token="moed_x") as client:
            client.models()
        self.assertEqual(self.sent()[2]["Authorization"], "Bearer moed_x")

    def test_nobody_listens(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with Client(f"http://127.0.0.1:{unused.getsockname()[1]}") as client:
                self.assertFalse(client.ready())
                with self.assertRaises(Unreachable):
                    client.models()

    def test_errors_tell_no_passwords(self):
        for url in ("http://name:secret@host", "ftp://name:secret@host", "name:secret@host", "http://name:secret/@host",
                    "http://name:secret?@host", "http://name:secret #@host"):
            with self.subTest(url), self.assertRaises(ValueError) as caught:
                Client(url)
            self.assertNotIn("secret", "".join(traceback.format_exception(caught.exception)))

    def test_bad_urls_are_refused_at_once(self):
        for url in ("127.0.0.1:8080", "ftp://host", "http://"):
            with self.subTest(url), self.assertRaisesRegex(ValueError, "is not an http"):
                Client(url)


if __name__ == "__main__":
    unittest.main()
