"""Serves every golden case: outputs, routing and statistics equal the float64 reference.

The unit tests compare the engine with these cases; this is the rest of the way: inputs by name, rows of several
requests, each gate's routing, the sums behind the statistics.
"""

import json
import os
import re
import shutil
import unittest

import numpy as np

from support.server import ROOT, ServerCase

CASES = os.path.join(ROOT, "tests", "golden", "cases")
TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}  # the unit tests are strict; this only detects wrong tensors


def model_name(case):
    """A valid model name for a case."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", case)


class Case:
    def __init__(self, name):
        self.name = model_name(name)
        self.directory = os.path.join(CASES, name)
        with open(os.path.join(self.directory, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        entries = self.config.get("inputs") or [self.config["input"]]
        self.inputs = {}
        for entry in entries:
            label = entry.get("name", "input")
            values = self.read(f"input.{label}.f32", "<f4") if len(entries) > 1 else self.read("input.f32", "<f4")
            self.inputs[label] = values.reshape(-1, *entry["shape"])
        self.rows = len(next(iter(self.inputs.values())))
        outputs = self.config.get("outputs") or [self.config.get("output", {})]
        self.outputs = {entry.get("name", "output"): f"output.{entry['name']}.f32" if len(outputs) > 1 else "output.f32"
                        for entry in outputs}
        self.gates = sorted(file[len("routing."):-len(".experts.i32")] for file in os.listdir(self.directory)
                            if file.endswith(".experts.i32"))
        stored = os.path.join(self.directory, "requests.i32")
        self.requests = list(self.read("requests.i32", "<i4")) if os.path.exists(stored) else [self.rows]

    def read(self, file, kind):
        return np.fromfile(os.path.join(self.directory, file), kind)


def answer_arrays(answer):
    """name -> array of the binary tensors in an answer."""
    length = int(answer.headers["inference-header-content-length"])
    document, rest, arrays = json.loads(answer.body[:length]), answer.body[length:], {}
    for output in document["outputs"]:
        size = output["parameters"]["binary_data_size"]
        kind = {"FP32": "<f4", "INT32": "<i4"}[output["datatype"]]
        arrays[output["name"]], rest = np.frombuffer(rest[:size], kind).reshape(output["shape"]), rest[size:]
    return arrays


class GoldenTest(ServerCase):
    options = {"threads": 2}

    @staticmethod
    def models(directory):
        for name in os.listdir(CASES):
            to = os.path.join(directory, model_name(name))
            os.makedirs(to)
            for file in os.listdir(os.path.join(CASES, name)):
                if file.endswith((".json", ".safetensors")):
                    shutil.copy(os.path.join(CASES, name, file), os.path.join(to, file))

    def ask(self, case, first, rows, binary):
        """The server's arrays for these rows: all outputs and each gate's routing."""
        inputs, tensors = [], b""
        for name, values in case.inputs.items():
            part = np.ascontiguousarray(values[first:first + rows])
            entry = {"name": name, "shape": list(part.shape), "datatype": "FP32"}
            if binary:
                entry["parameters"] = {"binary_data_size": part.nbytes}
                tensors += part.tobytes()
            else:
                entry["data"] = part.astype(float).ravel().tolist()
            inputs.append(entry)
        names = list(case.outputs) + [f"routing.{gate}.{what}" for gate in case.gates for what in ("experts", "weights")]
        outputs = [{"name": name, "parameters": {"binary_data": True}} for name in names]
        answer = self.client.infer(case.name, {"inputs": inputs, "outputs": outputs}, tensors)
        self.assertEqual(answer.status, 200, answer.body[:500])
        return answer_arrays(answer)

    def check_answers(self, case, binary):
        parts, first = [], 0
        for rows in case.requests:
            parts.append(self.ask(case, first, int(rows), binary))
            first += int(rows)
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for name, file in case.outputs.items():
            np.testing.assert_allclose(whole[name].ravel(), case.read(file, "<f4"), **TOLERANCE)
        for gate in case.gates:
            np.testing.assert_array_equal(whole[f"routing.{gate}.experts"].ravel(),
                                          case.read(f"routing.{gate}.experts.i32", "<i4"))
            np.testing.assert_allclose(whole[f"routing.{gate}.weights"].ravel(),
                                       case.read(f"routing.{gate}.weights.f32", "<f4"), **TOLERANCE)

    def check_statistics(self, case, times):
        document = self.client.get(f"/v2/models/{case.name}/routing").json
        self.assertEqual(sorted(layer["name"] for layer in document["layers"]), case.gates)
        for layer in document["layers"]:
            sums = case.read(f"routing.{layer['name']}.sums.f64", "<f8")
            experts = len(layer["experts"])
            selected, top1, weight, probability = sums[:-1].reshape(4, experts)
            items = top1.sum()  # padding is not routed
            self.assertEqual(layer["rows"], times * items)
            self.assertEqual([expert["selected"] for expert in layer["experts"]], list(times * selected))
            self.assertEqual([expert["top1"] for expert in layer["experts"]], list(times * top1))
            np.testing.assert_allclose([expert["weight"] for expert in layer["experts"]], times * weight, **TOLERANCE)
            self.assertAlmostEqual(layer["gate_entropy_bits"], sums[-1] / items, places=3)
            mean = probability / items
            self.assertAlmostEqual(layer["usage_entropy_bits"], -(mean * np.log2(mean, where=mean > 0, out=0 * mean)).sum(),
                                   places=3)
            self.assertEqual(layer.get("dropped", 0), times * (items * layer["top_k"] - selected.sum()))

    def test_every_case(self):
        for name in sorted(os.listdir(CASES)):
            with self.subTest(name):
                case = Case(name)
                self.check_answers(case, binary=True)
                self.check_answers(case, binary=False)
                self.check_statistics(case, times=2)


class CategoriesTest(ServerCase):
    @staticmethod
    def models(directory):
        shutil.copytree(os.path.join(CASES, "outputs_and_inputs"), os.path.join(directory, "table"))

    def ask(self, tags, rows=1):
        return self.client.infer("table", {"inputs": [
            {"name": "tags", "shape": [rows, 3], "datatype": "FP32", "data": tags},
            {"name": "numeric", "shape": [rows, 3], "datatype": "FP32", "data": [1.5] * 3 * rows},
            {"name": "occupation", "shape": [rows, 1], "datatype": "UINT8", "data": [7] * rows}]})

    def test_categories_are_announced_as_integers(self):
        inputs = self.client.get("/v2/models/table").json["inputs"]
        self.assertEqual({entry["name"]: entry["datatype"] for entry in inputs},
                         {"numeric": "FP32", "occupation": "INT32", "tags": "INT32"})

    def test_any_datatype_may_hold_them(self):
        self.assertEqual(self.ask([0, 4, 2]).status, 200)

    def test_what_is_no_category_is_refused(self):
        for value in (5, -1, 1.5, 1e30):
            with self.subTest(value):
                answer = self.ask([0, 1, 2, 3, value, 0], rows=2)
                self.assertEqual(answer.status, 400)
                self.assertIn("input 'tags': element 1 of row 1 is", answer.json["error"])
                self.assertIn("expected a category: an integer from 0 to 4", answer.json["error"])

    def test_a_missing_input_is_named(self):
        answer = self.client.infer("table", {"inputs": [
            {"name": "tags", "shape": [1, 3], "datatype": "INT32", "data": [0, 0, 0]}]})
        self.assertEqual(answer.status, 400)
        self.assertIn("numeric", answer.json["error"])


class CapacityTest(ServerCase):
    """A request to a model whose experts have a capacity is computed as a whole, whatever else is in the batch."""

    options = {"max_batch_rows": 32}

    @staticmethod
    def models(directory):
        shutil.copytree(os.path.join(CASES, "capacity_one_request"), os.path.join(directory, "limited"))

    def test_more_rows_than_a_batch_are_refused(self):
        case = Case("capacity_one_request")
        name, values = next(iter(case.inputs.items()))
        rows = np.resize(values, (33,) + values.shape[1:])
        answer = self.client.infer("limited", {"inputs": [{"name": name, "shape": list(rows.shape), "datatype": "FP32",
                                                           "data": rows.astype(float).ravel().tolist()}]})
        self.assertEqual(answer.status, 413)
        self.assertIn("capacity", answer.json["error"])

    def test_drops_are_counted(self):
        case = Case("capacity_one_request")
        name, values = next(iter(case.inputs.items()))
        before = self.metric()
        answer = self.client.infer("limited", {"inputs": [
            {"name": name, "shape": list(values.shape), "datatype": "FP32", "data": values.astype(float).ravel().tolist()}]})
        self.assertEqual(answer.status, 200, answer.body)
        dropped = (case.read(f"routing.{case.gates[0]}.experts.i32", "<i4") < 0).sum()
        self.assertGreater(dropped, 0)
        self.assertEqual(self.metric() - before, dropped)

    def metric(self):
        page = self.client.get("/metrics").body.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines()
                   if line.startswith("moed_dropped_total{"))


if __name__ == "__main__":
    unittest.main()
