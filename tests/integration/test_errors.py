"""Requests that the server must refuse, with the right status and a message: what, where, what was expected."""

import json
import os
import unittest

import numpy as np

from support.http import Client
from support.models import Tiny
from support.server import ServerCase
from test_oip import binary_request, json_request, tensor

ROW = np.float32([[1, 2, 3, 4]])


class ErrorsCase(ServerCase):
    options = {"max_request_rows": 16, "max_body_bytes": 4096}

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))

    def infer(self, request, tensors=b""):
        return self.client.infer("tiny", request, tensors)

    def tearDown(self):
        """After any refusal the next request is served."""
        self.assertEqual(self.client.predict("tiny", ROW.tolist()).status, 200)


class PathsTest(ErrorsCase):
    def test_unknown_model(self):
        answer = self.client.predict("nosuch", [[1]])
        self.assert_error(answer, 404, "nosuch", "/v1/models")
        for path in ("/v2/models/nosuch", "/v2/models/nosuch/ready", "/v2/models/nosuch/config",
                     "/v2/models/nosuch/routing", "/v1/models/nosuch"):
            with self.subTest(path):
                self.assert_error(self.client.get(path), 404, "nosuch")

    def test_unknown_version(self):
        self.assert_error(self.client.predict("tiny", [[1]], version=7), 404, "tiny", "'7'", "latest is 1")
        self.assert_error(self.client.get("/v2/models/tiny/versions/7"), 404, "'7'")

    def test_unknown_path(self):
        for path in ("/v3", "/v2//", "/v2/models", "/v3/models/tiny", "/v2/models/tiny/infer/", "/v2/models/tiny/nosuch",
                     "/v2/models//ready", "/v1/models/tiny:explain", "/v2/models/%zz", "/v2/models/%00", "/../etc"):
            with self.subTest(path):
                self.assert_error(self.client.get(path), 404)

    def test_wrong_method(self):
        for method, path, allowed in (("GET", "/v2/models/tiny/infer", "POST"), ("PUT", "/v1/models/tiny:predict", "POST"),
                                      ("POST", "/metrics", "GET, HEAD"), ("DELETE", "/v2/models/tiny", "GET, HEAD")):
            with self.subTest(f"{method} {path}"):
                answer = self.client.request(method, path)
                self.assert_error(answer, 405, path, method, allowed)
                self.assertEqual(answer.headers["allow"], allowed)

    def test_all_methods_of_a_path_are_told(self):
        """HEAD is not one where GET changes something, as SGLang's clients ask: what is dumped would be gone."""
        with self.start(admin="true") as server, Client(server.port) as client:
            for method, path, allowed in (("PUT", "/v2/logging", "GET, HEAD, POST"),
                                          ("GET", "/v2/models/tiny/routing/quarantine", "POST, DELETE"),
                                          ("HEAD", "/start_expert_distribution_record", "GET, POST"),
                                          ("HEAD", "/dump_expert_distribution_record", "GET, POST")):
                with self.subTest(f"{method} {path}"):
                    answer = client.request(method, path)
                    self.assertEqual((answer.status, answer.headers.get("allow")), (405, allowed))

    def test_openai_clients_read_errors_in_their_own_shape(self):
        """Also those of requests that no handler sees."""
        limit = {"Content-Length": 100 << 30}
        for method, path, headers, status, kind, code in (
                ("GET", "/v1/models/nosuch", {}, 404, "invalid_request_error", "model_not_found"),
                ("PUT", "/v1/models", {}, 405, "invalid_request_error", None),
                ("POST", "/v1/completions", limit, 413, "invalid_request_error", None),
                ("POST", "/v1/embeddings", {"Content-Encoding": "x"}, 415, "invalid_request_error", None)):
            with self.subTest(path):
                answer = self.new_client().request(method, path, b"", headers)
                self.assert_error(answer, status)
                error = answer.json["error"]
                self.assertEqual((error["type"], error["param"], error["code"]), (kind, None, code))
        for path in ("/v1/models/tiny:predict", "/v2/models/tiny/infer"):
            self.assertIsInstance(self.new_client().request("POST", path, b"", limit).json["error"], str)

    def test_a_name_may_be_escaped(self):
        self.assertEqual(self.client.get("/v2/models/t%69ny").status, 200)


class JsonTest(ErrorsCase):
    def test_malformed_with_position(self):
        body = b'{"inputs": [\n  {"name": "x",, "shape": [1,4]}]}'
        answer = self.client.post("/v2/models/tiny/infer", body)
        self.assert_error(answer, 400, "malformed JSON", f"byte {body.index(b',,') + 1}", "line 2")

    def test_not_an_object(self):
        for body in (b"", b"[]", b"[1,2]", b"3", b'"x"', b"null", b"{", b"\x00", b"\xff\xfe", b"{}{}", b"{'inputs': 1}"):
            with self.subTest(body):
                for path in ("/v2/models/tiny/infer", "/v1/models/tiny:predict"):
                    self.assert_error(self.client.post(path, body), 400)

    def test_nan_and_infinity(self):
        for word in ("NaN", "Infinity", "-Infinity", "1e999", "nan", "0x10", "+1", ".5", "01", "1."):
            with self.subTest(word):
                answer = self.client.post("/v1/models/tiny:predict", b'{"instances": [[1, 2, %s, 4]]}' % word.encode())
                self.assert_error(answer, 400)

    def test_binary_nan_and_infinity(self):
        for value in (np.nan, np.inf, -np.inf):
            rows = np.float32([[1, 2, 3, 4], [1, value, 3, 4]])
            answer = self.infer(binary_request(rows), rows.tobytes())
            self.assert_error(answer, 400, "element 1 of row 1", "not a finite number")

    def test_nan_names_its_place(self):
        answer = self.client.post("/v1/models/tiny:predict", b'{"instances": [[1, 2, 3, 4], [1, NaN, 3, 4]]}')
        self.assert_error(answer, 400, "instances[1][1]", "NaN")

    def test_nested_too_deeply(self):
        self.assert_error(self.client.post("/v1/models/tiny:predict", b"[" * 2000), 400, "nested too deeply")

    def test_duplicate_members(self):
        self.assert_error(self.client.post("/v1/models/tiny:predict", b'{"instances":[[1,2,3,4]],"instances":[]}'), 400)

    def test_a_misspelt_member(self):
        answer = self.client.post("/v1/models/tiny:predict", {"instances": ROW.tolist(), "routin": True})
        self.assert_error(answer, 400, "routin", "expected")


class TensorsTest(ErrorsCase):
    def test_wrong_shape(self):
        for shape in ([1, 5], [4], [1, 4, 1], [1, 2, 2], [1.5, 4], [-1, 4], "4", None, [], [[1, 4]], [1, 10**20]):
            with self.subTest(shape):
                request = {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": [1, 2, 3, 4]}]}
                self.assert_error(self.infer(request), 400, "shape")

    def test_wrong_count(self):
        for count in (0, 3, 5, 8):
            with self.subTest(count):
                request = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1] * count}]}
                self.assert_error(self.infer(request), 400, "'x'")

    def test_rows_of_the_wrong_length_name_the_row(self):
        self.assert_error(self.client.predict("tiny", [[1, 2, 3, 4], [1, 2, 3]]), 400, "instances[1]", "3", "4")
        self.assert_error(self.client.predict("tiny", [[1, 2, 3, 4], [1, 2, 3, 4, 5]]), 400, "instances[1]", "5", "4")

    def test_a_row_without_its_list(self):
        self.assert_error(self.client.predict("tiny", [1, 2, 3, 4]), 400, "each row is a list")

    def test_not_numbers(self):
        for value in ("1", None, True, {}, [1]):
            with self.subTest(value):
                self.assert_error(self.client.predict("tiny", [[1, 2, value, 4]]), 400)

    def test_empty_batch(self):
        request = {"inputs": [{"name": "x", "shape": [0, 4], "datatype": "FP32", "data": []}]}
        self.assert_error(self.infer(request), 400, "empty batch")
        self.assert_error(self.client.predict("tiny", []), 400, "empty batch")
        self.assert_error(self.client.predict("tiny", [[]]), 400)

    def test_too_many_rows(self):
        rows = np.ones((17, 4), np.float32)
        self.assert_error(self.client.predict("tiny", rows.tolist()), 413, "17", "16")
        self.assert_error(self.infer(json_request(rows)), 413, "17", "16")
        self.assert_error(self.infer(binary_request(rows), rows.tobytes()), 413, "17", "16")
        self.assertEqual(self.client.predict("tiny", rows[:16].tolist()).status, 200)

    def test_wrong_datatype(self):
        for datatype in ("BYTES", "FP33", "fp32", "", None, 32):
            with self.subTest(datatype):
                self.assert_error(self.infer({"inputs": [tensor(ROW, datatype=datatype, data=[1, 2, 3, 4])]}), 400,
                                  "datatype")

    def test_names(self):
        self.assert_error(self.infer(json_request(ROW, name="z")), 400, "'z'", "'x'")
        self.assert_error(self.infer({"inputs": [{"shape": [1, 4], "datatype": "FP32", "data": [1]}]}), 400, "name")
        self.assert_error(self.infer({"inputs": []}), 400, "'x'")
        self.assert_error(self.infer({}), 400, "inputs")
        self.assert_error(self.infer({"inputs": json_request(ROW)["inputs"] * 2}), 400, "twice")

    def test_unknown_output(self):
        answer = self.infer(json_request(ROW, outputs=[{"name": "nosuch"}]))
        self.assert_error(answer, 400, "nosuch", "'y'", "routing.moe.experts")
        answer = self.infer(json_request(ROW, outputs=[{"name": "routing.nosuch.experts"}]))
        self.assert_error(answer, 400, "routing.nosuch.experts")
        self.assert_error(self.infer(json_request(ROW, outputs=[{"name": "y"}] * 2)), 400, "twice")


class BinaryTest(ErrorsCase):
    def post(self, content, length):
        return self.client.post("/v2/models/tiny/infer", content, {"Inference-Header-Content-Length": length})

    def test_header_that_does_not_fit(self):
        content = json.dumps(binary_request(ROW)).encode() + ROW.tobytes()
        for length in (len(content) + 1, "-1", "x", "", "1 2", "99999999999999999999999"):
            with self.subTest(length):
                self.assert_error(self.post(content, length), 400, "Inference-Header-Content-Length")

    def test_size_that_does_not_fit(self):
        for size in (0, 15, 17, 1 << 40, -1, "16", 1.5):
            with self.subTest(size):
                request = {"inputs": [tensor(ROW, parameters={"binary_data_size": size})]}
                self.assert_error(self.infer(request, ROW.tobytes()), 400, "binary_data_size")

    def test_bytes_missing_or_left_over(self):
        self.assert_error(self.infer(binary_request(ROW), ROW.tobytes()[:-1]), 400, "binary_data_size")
        self.assert_error(self.infer(binary_request(ROW), ROW.tobytes() + b"\0"), 400, "1 byte after the JSON")

    def test_data_twice_or_not_at_all(self):
        request = {"inputs": [tensor(ROW, data=[1, 2, 3, 4], parameters={"binary_data_size": 16})]}
        self.assert_error(self.infer(request, ROW.tobytes()), 400, "exactly one")
        self.assert_error(self.infer({"inputs": [tensor(ROW)]}), 400, "exactly one")

    def test_raw_body_of_the_wrong_length(self):
        self.assert_error(self.post(b"\0" * 15, 0), 400, "15 bytes", "16 bytes")


class EncodingTest(ErrorsCase):
    def test_content_encoding(self):
        for encoding in ("br", "gzip, gzip", "x"):
            with self.subTest(encoding):
                answer = self.client.post("/v1/models/tiny:predict", b"\x1f\x8b", {"Content-Encoding": encoding})
                self.assert_error(answer, 415, encoding)
        answer = self.client.post("/v1/models/tiny:predict", {"instances": ROW.tolist()}, {"Content-Encoding": "identity"})
        self.assertEqual(answer.status, 200)

    def test_content_type_is_free(self):
        """Clients of the protocol send none."""
        for kind in ("text/plain", "application/octet-stream", "application/json; charset=utf-8"):
            answer = self.client.post("/v1/models/tiny:predict", {"instances": ROW.tolist()}, {"Content-Type": kind})
            self.assertEqual(answer.status, 200)


if __name__ == "__main__":
    unittest.main()
