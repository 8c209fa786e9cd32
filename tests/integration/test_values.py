"""Inputs whose values are words, unknown or missing, in every form that a row comes in."""

import os
import struct

import numpy as np

from support.models import random_tensor, write_checkpoint
from support.server import ServerCase

COLOURS = ["red", "light \"blue\"", "grün"]
UNKNOWN = 0
AGE = 40.0


class Paint:
    """y = W [age, embedding of the colour]."""

    embedding = random_tensor(3, len(COLOURS), 2)
    weight = random_tensor(4, 2, 3)

    @classmethod
    def write(cls, directory):
        write_checkpoint(directory, {
            "format_version": 3,
            "inputs": [{"name": "age", "shape": [1], "missing": AGE},
                       {"name": "colour", "shape": [1], "categories": len(COLOURS), "words": COLOURS,
                        "unknown": UNKNOWN, "missing": 2, "layers": [{"op": "embedding", "name": "colour"}]},
                       {"name": "kind", "shape": [1], "categories": 2,
                        "layers": [{"op": "embedding", "name": "kind"}]}],
            "layers": [{"op": "slice", "axis": 0, "start": 0, "end": 3}, {"op": "linear", "name": "out"}]},
            {"colour.weight": cls.embedding, "kind.weight": random_tensor(5, 2, 1), "out.weight": cls.weight})

    @classmethod
    def answer(cls, rows):
        """rows: of (age, index of the colour)."""
        return [(cls.weight @ np.concatenate([[age], cls.embedding[colour]])).tolist() for age, colour in rows]


class ValuesTest(ServerCase):
    options = {"threads": 1}

    @staticmethod
    def models(directory):
        Paint.write(os.path.join(directory, "paint"))

    def predict(self, body, key="predictions"):
        answer = self.client.post("/v1/models/paint:predict", body)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json[key]

    def infer(self, colours, ages=(1, 2), shape=(2, 1)):
        return self.client.post("/v2/models/paint/infer", {"inputs": [
            {"name": "age", "datatype": "FP32", "shape": list(shape), "data": list(ages)},
            {"name": "kind", "datatype": "INT32", "shape": list(shape), "data": [0, 1]},
            {"name": "colour", "shape": list(shape), **colours}]})

    def check(self, found, rows):
        np.testing.assert_allclose(found, Paint.answer(rows), atol=1e-5)

    def test_objects_of_words_numbers_and_nothing(self):
        for row, expected in (({"age": 30, "colour": COLOURS[1], "kind": 0}, (30, 1)),
                              ({"age": None, "colour": "purple", "kind": 0}, (AGE, UNKNOWN)),
                              ({"kind": 1, "colour": [None]}, (AGE, 2)),
                              ({"colour": 1, "age": [7.5], "kind": 1}, (7.5, 1))):
            with self.subTest(row):
                self.check(self.predict({"instances": [row, row]}), [expected] * 2)

    def test_columns(self):
        body = {"inputs": {"age": [1, 2, None], "colour": [["grün"], ["red"], ["x"]], "kind": [0, 0, 1]}}
        self.check(self.predict(body, "outputs"), [(1, 2), (2, 0), (AGE, UNKNOWN)])

    def test_words_over_v2(self):
        for datatype, data in (("BYTES", COLOURS[:2]), ("INT32", [0, 1]), ("INT64", [7, 1]), ("BYTES", ["?", COLOURS[1]])):
            answer = self.infer({"datatype": datatype, "data": data})
            self.assertEqual(answer.status, 200, answer.body)
            self.check(np.reshape(answer.json["outputs"][0]["data"], (2, 2)), [(1, 0), (2, 1)])

    def test_binary_words(self):
        words = b"".join(struct.pack("<I", len(word)) + word for word in (COLOURS[2].encode(), b"red"))
        header = b'''{"inputs": [{"name": "age", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]},
            {"name": "kind", "datatype": "INT32", "shape": [2, 1], "data": [0, 1]},
            {"name": "colour", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": %d}}]}'''
        for tail, status in ((words, 200), (words[:-1], 400), (words + b"\0", 400), (b"\xff\xff\xff\xff" * 2, 400)):
            json_part = header % len(tail)
            answer = self.client.post("/v2/models/paint/infer", json_part + tail,
                                      headers={"Inference-Header-Content-Length": str(len(json_part))})
            self.assertEqual(answer.status, status, answer.body)
            if status == 200:
                self.check(np.reshape(answer.json["outputs"][0]["data"], (2, 2)), [(1, 2), (2, 0)])

    def test_what_is_refused(self):
        row = {"age": 1, "colour": "red", "kind": 0}
        for change, message in (
                ({"kind": 2}, "element 0 of row 1 is 2, expected a category"),
                ({"kind": None}, "element 0 of row 1 is null, which the model has no value for"),
                ({"kind": "red"}, "instances[1] is '\"red\"', expected a number"),
                ({"age": "old"}, "instances[1] is '\"old\"', expected a number"),
                ({"colour": 1.5}, "element 0 of row 1 is 1.5, expected a category"),
                ({"colour": {"b64": "cmVk"}}, "expected a value"),
                ({"colour": "\ud800"}, "expected a string")):  # half a character
            with self.subTest(change):
                answer = self.client.post("/v1/models/paint:predict", {"instances": [row, {**row, **change}]})
                self.assertEqual(answer.status, 400, answer.body)
                self.assertIn(message, answer.json["error"])
        answer = self.client.post("/v1/models/paint:predict", {"instances": [row, {"age": 1, "colour": "red"}]})
        self.assertIn("instances[1]: input 'kind' is missing", answer.json["error"])

    def test_metadata(self):
        inputs = {entry["name"]: entry for entry in self.client.get("/v2/models/paint").json["inputs"]}
        self.assertEqual(inputs["age"]["parameters"], {"missing": AGE})
        self.assertEqual(inputs["colour"]["datatype"], "BYTES")
        self.assertEqual(inputs["colour"]["parameters"],
                         {"categories": 3, "words": COLOURS, "unknown": UNKNOWN, "missing": 2.0})
        config = self.client.get("/v2/models/paint/config").json
        self.assertEqual([entry["data_type"] for entry in config["input"]], ["TYPE_FP32", "TYPE_STRING", "TYPE_INT32"])
