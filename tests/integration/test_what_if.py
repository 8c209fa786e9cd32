"""What if: requests that leave experts out, silence them or ask for fewer.

Answers equal those of a checkpoint that was edited by hand, bit for bit, for golden cases with a gate that can be
edited: left out is a gate row of zeros with a bias of almost minus infinity (a checkpoint's numbers are finite), silenced
is a last matrix and bias of zeros. The requests are sent together with others that ask for nothing.
"""

import json
import os
import shutil
import sys
import unittest

import numpy as np

from support.http import Connection, request_bytes
from support.models import Tiny, TwoLayers, softmax
from support.prometheus import Metrics
from support.server import ROOT, ServerCase
from test_golden import CASES, Case, answer_arrays, model_name

sys.path.insert(0, os.path.join(ROOT, "clients", "python"))

from moed import safetensors  # noqa: E402

LEAST = np.float32(-3e38)
REFUSED = "are left", "is left", "top_k 2, not for", "may leave"


def moe_layers(layers):
    for layer in layers:
        if layer["op"] == "moe":
            yield layer
        elif "layers" in layer:
            yield from moe_layers(layer["layers"])


class Edit:
    """One gate of a golden case, one expert, and the two checkpoints without it."""

    def __init__(self, name):
        self.case = Case(name)
        self.tensors = safetensors.read(os.path.join(CASES, name, "model.safetensors"))
        self.layer = next(moe_layers(self.case.config["layers"]))
        self.gate = self.layer.get("gate") or self.layer["gates"][-1]
        self.several = "gates" in self.layer
        inner = f"gates.{self.gate['name']}" if self.several else "gate"
        self.prefix = f"{self.layer['name']}.{inner}."
        self.name = f"{self.layer['name']}.{self.gate['name']}" if self.several else self.layer["name"]
        own = self.gate.get("experts", range(self.layer["experts"]["count"]))
        self.count = len(own)
        self.own = sum(map(ord, name)) % self.count  # the gate's index of the expert
        self.expert = own[self.own]

    def excluded(self):
        """Config and tensors with a gate that never chooses the expert; None: cannot be edited so."""
        if self.gate.get("kind") == "attentive" or self.gate["layers"][-1]["op"] != "linear" or self.count == 1:
            return None
        config, tensors = json.loads(json.dumps(self.case.config)), dict(self.tensors)
        row = self.prefix + self.gate["layers"][-1]["name"]
        weight = tensors[row + ".weight"].astype(np.float32).copy()
        bias = tensors.get(row + ".bias", np.zeros(self.count)).astype(np.float32).copy()
        weight[self.own], bias[self.own] = 0, LEAST
        tensors[row + ".weight"], tensors[row + ".bias"] = weight, bias
        if self.gate.get("score") != "sparsemixer":  # scores of 0 are chosen, too, where all others are 0
            select = tensors.get(self.prefix + "select_bias", np.zeros(self.count)).astype(np.float32).copy()
            select[self.own] = LEAST
            tensors[self.prefix + "select_bias"] = select
        if self.gate.get("top_k", self.count) == self.count:  # dense: it uses what is left
            edited = next(moe_layers(config["layers"]))
            (edited.get("gate") or edited["gates"][-1])["top_k"] = self.count - 1
        return config, tensors

    def silenced(self):
        """Config and tensors with an expert that gives nothing; None: it does not end in a matrix."""
        experts = self.layer["experts"]
        last = experts["layers"][-1]
        if last["op"] != "linear" or self.several or self.gate.get("key_layer") == last["name"] or \
                self.expert >= experts["count"] - experts.get("identity", 0):
            return None
        tensors = dict(self.tensors)
        matrix = f"{self.layer['name']}.experts.{self.expert}.{last['name']}"
        for name in (matrix + ".weight", matrix + ".bias"):
            if name in tensors:
                tensors[name] = np.zeros_like(tensors[name], dtype=np.float32)
        return self.case.config, tensors

    def write(self, directory, suffix, edited):
        to = os.path.join(directory, model_name(self.case.name) + suffix)
        os.makedirs(to)
        with open(os.path.join(to, "config.json"), "w", encoding="utf-8") as file:
            json.dump(edited[0], file)
        safetensors.write(os.path.join(to, "model.safetensors"), edited[1])


# Every n-th golden case: they come in families. GOLDEN_EVERY=1 takes all.
EVERY = int(os.environ.get("GOLDEN_EVERY", 3))


def editable():
    for name in sorted(os.listdir(CASES))[::EVERY]:
        directory = os.path.join(CASES, name)
        if os.path.exists(os.path.join(directory, "model.safetensors")) and any(
                file.endswith(".experts.i32") for file in os.listdir(directory)):
            yield Edit(name)


class EditedTest(ServerCase):
    options = {"max_queue_delay_us": 300}

    @staticmethod
    def models(directory):
        for edit in editable():
            shutil.copytree(edit.case.directory, os.path.join(directory, model_name(edit.case.name)),
                            ignore=lambda _, names: [n for n in names if not n.endswith((".json", ".safetensors"))])
            if edit.excluded():
                edit.write(directory, "-excluded", edit.excluded())
            if edit.silenced():
                edit.write(directory, "-silenced", edit.silenced())

    def requests(self, case, suffix="", experts=None):
        """One for each request of the case."""
        first = 0
        for rows in map(int, case.requests):
            inputs, tensors = [], b""
            for name, values in case.inputs.items():
                part = np.ascontiguousarray(values[first:first + rows])
                inputs.append({"name": name, "shape": list(part.shape), "datatype": "FP32",
                               "parameters": {"binary_data_size": part.nbytes}})
                tensors += part.tobytes()
            names = list(case.outputs) + [f"routing.{gate}.{what}" for gate in case.gates
                                          for what in ("experts", "weights")]
            request = {"inputs": inputs, "outputs": [{"name": name} for name in names],
                       "parameters": {"binary_data_output": True, **({"experts": json.dumps(experts)} if experts else {})}}
            content = json.dumps(request).encode()
            yield request_bytes("POST", f"/v2/models/{case.name}{suffix}/infer", content + tensors,
                                {"Inference-Header-Content-Length": len(content)})
            first += rows

    def ask_together(self, kinds):
        """The answers to requests of several kinds, each on a connection of its own, at the same time."""
        answers = [[] for _ in kinds]
        for requests in zip(*kinds):
            for connection, request in zip(self.connections, requests):
                connection.send(request)
            for i, connection in zip(range(len(requests)), self.connections):
                answers[i].append(connection.answer("POST"))
        return answers

    def assert_same(self, answers, others, empty_slots=False):
        for answer, other in zip(answers, others):
            self.assertEqual((answer.status, other.status), (200, 200), answer.body[:300])
            got, expected = answer_arrays(answer), answer_arrays(other)
            for name in expected:
                if empty_slots and name.startswith("routing."):
                    got[name] = got[name][..., :expected[name].shape[-1]]
                np.testing.assert_array_equal(got[name].view(np.int32), expected[name].view(np.int32), name)

    def check(self, edit, experts, suffix):
        """Whether the request was granted."""
        case = edit.case
        alone, plain, edited = self.ask_together(
            [self.requests(case, experts=experts), self.requests(case), self.requests(case, suffix)])
        if alone[0].status == 400:
            message = alone[0].json["error"]
            self.assertTrue(message.startswith(f"experts: gate '{edit.name}': "), message)
            self.assertTrue(any(words in message for words in REFUSED), message)
            return False
        self.assert_same(alone, edited, empty_slots=True)
        again, = self.ask_together([self.requests(case)])
        self.assert_same(plain, again)
        return True

    def test_every_case(self):
        self.connections = [self.new_connection() for _ in range(3)]
        granted = {"exclude": 0, "silence": 0}
        for edit in editable():
            for what, suffix, edited in (("exclude", "-excluded", edit.excluded()),
                                         ("silence", "-silenced", edit.silenced())):
                if not edited:
                    continue
                with self.subTest(f"{edit.case.name} {what}"):
                    granted[what] += self.check(edit, {edit.name: {what: [edit.expert]}}, suffix)
        self.assertGreater(granted["exclude"], 150 // EVERY)
        self.assertGreater(granted["silence"], 150 // EVERY)

    def new_connection(self):
        connection = Connection(self.server.port)
        self.addCleanup(connection.close)
        return connection


class WhatIfTest(ServerCase):
    """Both protocols, what is refused, and what is counted."""

    tiny, two = Tiny(), TwoLayers()
    rows = np.random.default_rng(5).normal(size=(20, 4)).astype(np.float32)

    @classmethod
    def models(cls, directory):
        cls.tiny.write(os.path.join(directory, "tiny"))
        cls.two.write(os.path.join(directory, "two-layers"))

    def expect(self, experts, silenced=()):
        """What the tiny model gives when only these experts are left."""
        moe = self.tiny.moe
        distribution = softmax((self.rows.astype(np.float64) @ moe.gate.T)[:, experts])
        chosen = np.argsort(-distribution, axis=1, kind="stable")[:, :2]
        weights = np.take_along_axis(distribution, chosen, axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        chosen = np.array(experts)[chosen]
        output = sum(weights[:, [j]] * np.stack([moe.weights[e] @ row * (e not in silenced)
                                                 for e, row in zip(chosen[:, j], self.rows)])
                     for j in range(chosen.shape[1]))
        return output, chosen, weights

    def v1(self, experts, **members):
        return self.client.predict("tiny", self.rows.tolist(), experts=experts, routing=True, **members)

    def oip(self, experts, model="tiny", **parameters):
        rows = self.rows if model == "tiny" else np.resize(self.rows, (20, 6))
        names = [{"name": "y"}, {"name": "routing.moe.experts"}] if model == "tiny" else []
        return self.client.infer(model, {
            "inputs": [{"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.astype(float).ravel().tolist()}],
            "outputs": names, "parameters": {"experts": experts, **parameters}})

    def layer(self, model="tiny", index=0):
        return self.client.get(f"/v2/models/{model}/routing").json["layers"][index]

    def test_v1(self):
        answer = self.v1({"moe": {"exclude": [1]}}).json
        self.assertEqual(answer["experts"], {"moe": {"exclude": [1]}})
        output, chosen, weights = self.expect([0, 2])
        np.testing.assert_allclose(answer["predictions"], output, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(answer["routing"]["moe"]["experts"], chosen)
        np.testing.assert_allclose(answer["routing"]["moe"]["weights"], weights, rtol=1e-5)

    def test_oip(self):
        answer = self.oip('{"moe": {"silence": [0], "only": [0, 2]}}').json
        self.assertEqual(json.loads(answer["parameters"]["experts"]), {"moe": {"silence": [0], "only": [0, 2]}})
        output, chosen, _ = self.expect([0, 2], silenced=[0])
        np.testing.assert_allclose(answer["outputs"][0]["data"], output.ravel(), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(answer["outputs"][1]["data"], chosen.ravel())

    def test_fewer(self):
        routing = self.v1({"moe": {"top_k": 1}}).json["routing"]["moe"]
        _, chosen, _ = self.expect([0, 1, 2])
        np.testing.assert_array_equal(routing["experts"], [[first, -1] for first in chosen[:, 0]])
        np.testing.assert_array_equal(routing["weights"], [[1, 0]] * 20)

    def test_nothing_asked(self):
        self.assertNotIn("experts", self.client.predict("tiny", self.rows.tolist()).json)
        before = self.layer()
        answer = self.v1({"moe": {"exclude": []}}).json
        self.assertEqual(answer["experts"], {"moe": {"exclude": []}})
        after = self.layer()
        self.assertEqual((after["rows"], after["intervened"]), (before["rows"] + 20, before["intervened"]))

    def test_refused(self):
        before = self.layer()
        for experts, words in (({"mow": {}}, "no gate 'mow'"),
                               ({"moe": {"exclude": [3]}}, "'exclude'[0] is 3, expected an expert from 0 to 2"),
                               ({"moe": {"exclude": [0, 1]}}, "1 of its 3 experts are left, fewer than top_k 2"),
                               ({"moe": {"only": []}}, "0 of its 3 experts are left"),
                               ({"moe": {"top_k": 3}}, "'top_k' is 3, expected 1 to 2"),
                               ({"moe": {"without": [1]}}, "unknown member 'without'"),
                               ("moe", "'experts' is a string, expected an object")):
            self.assert_error(self.v1(experts), 400, words)
        self.assert_error(self.oip("{"), 400, "parameters: 'experts': malformed JSON at byte 1")
        self.assert_error(self.oip({"moe": {}}), 400, "'experts' is an object, expected a string")
        self.assert_error(self.oip('{"second": {"only": [1, 2]}}', "two-layers"), 400,
                          "gate 'second': 2 of its 5 experts are left, fewer than top_k 3")
        after = self.layer()
        self.assertEqual((after["rows"], after["intervened"]), (before["rows"], before["intervened"]))
        self.assertEqual(self.v1({"moe": {"only": [1], "top_k": 1}}).status, 200)

    def test_counted_apart(self):
        """Rows that ask are counted as such in every layer, labels and tags notwithstanding, and in nothing else."""
        path = "/v2/models/two-layers/routing?include=ranks,pairs,classes,margins,batches"
        self.oip("{}", "two-layers", labels=[0] * 20)
        before = self.client.get(path).json
        answer = self.oip('{"first": {"exclude": [0]}}', "two-layers", labels=[1] * 20, tag="me")
        self.assertEqual(answer.status, 200, answer.body)
        after = self.client.get(path).json
        for layer, earlier in zip(after["layers"], before["layers"]):
            self.assertEqual(layer.pop("intervened"), earlier.pop("intervened") + 20)
            for expert in layer["experts"] + earlier["experts"]:
                del expert["idle_seconds"]
        after.pop("seconds"), before.pop("seconds")
        self.assertEqual(after, before)
        page = Metrics(self.client.get("/metrics").body.decode())
        for layer in ("first", "second"):
            self.assertEqual(page.value("moed_layer_intervened_rows_total", model="two-layers", version="1", layer=layer), 20)

    def test_not_counted_at_all(self):
        before = self.layer()
        answer = self.client.post("/v1/models/tiny:predict", {"instances": self.rows.tolist(), "experts": {"moe": {"top_k": 1}}},
                                  {"Moed-Statistics": "off"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.layer()["intervened"], before["intervened"])


if __name__ == "__main__":
    unittest.main()
