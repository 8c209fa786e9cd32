"""Open Inference Protocol V2: JSON and binary tensors both ways, datatypes, chosen outputs, routing, classes."""

import json
import os
import unittest

import numpy as np

from support.models import Tiny, TwoLayers
from support.server import ServerCase

ROWS = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)


def tensor(rows, name="x", datatype="FP32", **members):
    return {"name": name, "shape": list(rows.shape), "datatype": datatype, **members}


def json_request(rows, name="x", **members):
    return {"inputs": [tensor(rows, name, data=rows.ravel().tolist())], **members}


def binary_request(rows, name="x", datatype="FP32", **members):
    size = {"parameters": {"binary_data_size": rows.nbytes}}
    return {"inputs": [tensor(rows, name, datatype, **size)], **members}


def outputs(answer):
    """name -> array, from JSON data or from the binary tensors behind the JSON."""
    length = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    document, rest, arrays = json.loads(answer.body[:length]), answer.body[length:], {}
    types = {"FP32": "<f4", "INT32": "<i4"}
    for output in document["outputs"]:
        if "data" in output:
            data = np.array(output["data"], types[output["datatype"]])
        else:
            size = output["parameters"]["binary_data_size"]
            data, rest = np.frombuffer(rest[:size], types[output["datatype"]]), rest[size:]
        arrays[output["name"]] = data.reshape(output["shape"])
    assert rest == b"", "bytes after the last tensor"
    return arrays


class TestModels(ServerCase):
    options = {"threads": 2, "non_finite": "accept"}

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        TwoLayers().write(os.path.join(directory, "two-layers"))


class InferTest(TestModels):
    def setUp(self):
        self.expected = Tiny().moe.forward(ROWS)

    def assert_outputs(self, answer, binary, names=("y",)):
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["content-type"], "application/octet-stream" if binary else "application/json")
        self.assertEqual("inference-header-content-length" in answer.headers, binary)
        arrays = outputs(answer)
        self.assertEqual(list(arrays), list(names))
        np.testing.assert_allclose(arrays["y"], self.expected[0], atol=1e-5)
        return arrays

    def test_json_in_json_out(self):
        answer = self.client.infer("tiny", json_request(ROWS, id="a \"b\" é"))
        self.assert_outputs(answer, binary=False)
        self.assertEqual({key: answer.json[key] for key in ("id", "model_name", "model_version")},
                         {"id": "a \"b\" é", "model_name": "tiny", "model_version": "1"})

    def test_nested_data_is_as_good_as_flat(self):
        request = {"inputs": [tensor(ROWS, data=ROWS.tolist())]}
        self.assert_outputs(self.client.infer("tiny", request), binary=False)

    def test_binary_in_json_out(self):
        self.assert_outputs(self.client.infer("tiny", binary_request(ROWS), ROWS.tobytes()), binary=False)

    def test_json_in_binary_out(self):
        request = json_request(ROWS, outputs=[{"name": "y", "parameters": {"binary_data": True}}])
        self.assert_outputs(self.client.infer("tiny", request), binary=True)

    def test_binary_in_binary_out(self):
        request = binary_request(ROWS, parameters={"binary_data_output": True})
        self.assert_outputs(self.client.infer("tiny", request, ROWS.tobytes()), binary=True)

    def test_header_with_a_request_that_is_all_json(self):
        """The C++ client sends the header always."""
        content = json.dumps(json_request(ROWS)).encode()
        answer = self.client.post("/v2/models/tiny/infer", content, {"Inference-Header-Content-Length": len(content)})
        self.assert_outputs(answer, binary=False)

    def test_raw_body(self):
        """Header 0: the body is one row, and the answer is binary."""
        answer = self.client.post("/v2/models/tiny/infer", ROWS[:1].tobytes(), {"Inference-Header-Content-Length": "0"})
        self.assertEqual(answer.status, 200, answer.body)
        np.testing.assert_allclose(outputs(answer)["y"], self.expected[0][:1], atol=1e-5)

    def test_version_in_the_path(self):
        self.assert_outputs(self.client.infer("tiny", json_request(ROWS), version=1), binary=False)

    def test_integer_datatypes(self):
        whole = np.array([[0, 1, 2, 3], [200, 100, 50, 25]])
        expected = Tiny().moe.forward(whole)[0]
        for datatype, kind in (("UINT8", "u1"), ("UINT16", "<u2"), ("INT32", "<i4"), ("INT64", "<i8"), ("FP16", "<f2"),
                               ("FP64", "<f8")):
            with self.subTest(datatype):
                data = whole.astype(kind)
                answer = self.client.infer("tiny", binary_request(data, datatype=datatype), data.tobytes())
                self.assertEqual(answer.status, 200, answer.body)
                np.testing.assert_allclose(outputs(answer)["y"], expected, rtol=1e-4, atol=1e-4)
        answer = self.client.infer("tiny", {"inputs": [tensor(whole, datatype="UINT8", data=whole.tolist())]})
        np.testing.assert_allclose(outputs(answer)["y"], expected, rtol=1e-4, atol=1e-4)

    def layer(self):
        return self.client.get("/v2/models/tiny/routing").json["layers"][0]

    def test_rows_that_are_not_finite_poison_nothing(self):
        """Beside them the others keep their bits; they go to experts that exist, and count as rows."""
        odd = np.float32([[np.nan] * 4, [np.inf, 0, -np.inf, 1], [-np.inf] * 4, [3e38] * 4, [0, 0, np.nan, 0]])
        mixed = np.stack([ROWS[:5], odd], axis=1).reshape(-1, 4)
        names, before = ["y", "routing.moe.experts", "routing.moe.weights"], self.layer()
        alone, beside = (outputs(self.client.infer("tiny", binary_request(
            rows, parameters={"binary_data_output": True}, outputs=[{"name": name} for name in names]), rows.tobytes()))
            for rows in (ROWS[:5], mixed))
        for name in names:
            self.assertEqual(beside[name][::2].tobytes(), alone[name].tobytes(), name)
        experts, weights = beside["routing.moe.experts"], beside["routing.moe.weights"]
        self.assertTrue(((experts >= 0) & (experts < 3)).all() and np.isfinite(weights).all(), (experts, weights))
        self.assertTrue(np.isnan(beside["y"][1]).all())
        after = self.layer()
        self.assertEqual(after["rows"] - before["rows"], 15)
        self.assertTrue(all(np.isfinite(figure) for figure in after.values() if isinstance(figure, float)), after)
        self.assertNotIn("NaN", self.client.get("/metrics").body.decode())

    def test_answers_that_are_not_finite_are_null_in_json(self):
        rows = np.full((1, 4), np.nan, np.float32)
        answer = self.client.infer("tiny", binary_request(rows), rows.tobytes())
        self.assertEqual((answer.status, answer.json["outputs"][0]["data"]), (200, [None, None]))

    def test_a_number_beyond_fp32_is_refused_all_the_same(self):
        rows = np.float64([[1e39, 0, 0, 0]])
        answer = self.client.infer("tiny", binary_request(rows, datatype="FP64"), rows.tobytes())
        self.assert_error(answer, 400, "element 0 of row 0", "FP32")


class RoutingOutputsTest(TestModels):
    NAMES = ["routing.moe.experts", "y", "routing.moe.weights"]

    def check(self, binary):
        request = json_request(ROWS, outputs=[{"name": name, "parameters": {"binary_data": binary}}
                                              for name in self.NAMES])
        answer = self.client.infer("tiny", request)
        self.assertEqual(answer.status, 200, answer.body)
        arrays = outputs(answer)
        self.assertEqual(list(arrays), self.NAMES)
        _, experts, weights, _ = Tiny().moe.forward(ROWS)
        np.testing.assert_array_equal(arrays["routing.moe.experts"], experts)
        np.testing.assert_allclose(arrays["routing.moe.weights"], weights, atol=1e-5)

    def test_json(self):
        self.check(binary=False)

    def test_binary(self):
        self.check(binary=True)

    def test_only_when_asked_for(self):
        answer = self.client.infer("tiny", json_request(ROWS))
        self.assertEqual([output["name"] for output in answer.json["outputs"]], ["y"])

    def test_every_layer_has_its_own(self):
        rows = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
        names = ["routing.second.experts", "routing.first.experts", "routing.first.weights", "routing.second.weights"]
        answer = self.client.infer("two-layers", json_request(rows, outputs=[{"name": name} for name in names]))
        self.assertEqual(answer.status, 200, answer.body)
        arrays, (_, first, second) = outputs(answer), TwoLayers().forward(rows)
        np.testing.assert_array_equal(arrays["routing.first.experts"], first[1])
        np.testing.assert_array_equal(arrays["routing.second.experts"], second[1])
        np.testing.assert_allclose(arrays["routing.first.weights"], first[2], atol=1e-5)
        np.testing.assert_allclose(arrays["routing.second.weights"], second[2], atol=1e-5)


class ClassificationTest(TestModels):
    def test_best_classes_with_labels(self):
        rows = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)
        scores = TwoLayers().forward(rows)[0]
        request = json_request(rows, outputs=[{"name": "score", "parameters": {"classification": 2}}])
        answer = self.client.infer("two-layers", request)
        (output,) = answer.json["outputs"]
        self.assertEqual((output["datatype"], output["shape"]), ("BYTES", [4, 2]))
        ranking = np.argsort(-scores, axis=1)[:, :2]
        for text, index, score in zip(output["data"], ranking.ravel(), np.take_along_axis(scores, ranking, 1).ravel()):
            value, at, label = text.split(":")
            self.assertEqual((int(at), label), (index, TwoLayers.labels[index]))
            self.assertAlmostEqual(float(value), score, places=4)


if __name__ == "__main__":
    unittest.main()
