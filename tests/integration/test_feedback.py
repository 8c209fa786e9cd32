"""Labels: accuracy, log loss and calibration by expert, from requests and from feedback, as numpy has them."""

import json
import os
import unittest

import numpy as np

from support.models import Tiny, TwoLayers, write_checkpoint
from support.prometheus import Metrics
from support.server import ServerCase

TWO = {"model": "two-layers", "version": "1"}


class NoClasses(Tiny):
    def write(self, directory):
        write_checkpoint(directory, {"input": {"name": "x", "shape": [4]}, "layers": [
            self.moe.layer(), {"op": "reshape", "shape": [1, 2]}]}, self.moe.tensors())


class FeedbackCase(ServerCase):
    @staticmethod
    def models(directory):
        TwoLayers().write(os.path.join(directory, "two-layers"))
        NoClasses().write(os.path.join(directory, "no-classes"))

    def setUp(self):
        self.server = self.start()
        self.addCleanup(self.server.stop)
        self.client = self.new_client()
        self.rows = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
        self.truth = np.random.default_rng(3).integers(0, 3, 40)

    def infer(self, rows, request_id=None, **parameters):
        request = {"inputs": [{"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}],
                   "outputs": [{"name": "score"}, {"name": "routing.first.experts"}, {"name": "routing.second.experts"}],
                   "parameters": parameters, **({"id": request_id} if request_id else {})}
        answer = self.client.infer("two-layers", request)
        self.assertEqual(answer.status, 200, answer.body)
        return [np.array(output["data"]).reshape(output["shape"]) for output in answer.json["outputs"]]

    def feedback(self, request_id, labels, status=200):
        answer = self.client.post("/v2/models/two-layers/feedback", {"id": request_id, "labels": labels})
        self.assertEqual(answer.status, status, answer.body)
        return answer.json

    def experts(self, query=""):
        return [layer["experts"] for layer in self.client.get(f"/v2/models/two-layers/routing{query}").json["layers"]]

    def check(self, scores, chosen, truth, query=""):
        """scores [n, 3] are logits; chosen: [n, k] of each layer."""
        p = np.exp(scores.astype(np.float32).astype(np.float64))  # the answer's decimals are those of float32
        p /= p.sum(axis=1, keepdims=True)
        confidence, correct = p.max(axis=1), p.argmax(axis=1) == truth
        loss, part = -np.log(p[np.arange(len(p)), truth]), np.minimum((confidence * 10).astype(int), 9)

        def figures(mine):
            if not mine.any():
                return None, None, None
            gaps = [abs(correct[mine & (part == b)].sum() - confidence[mine & (part == b)].sum()) for b in range(10)]
            return correct[mine].mean(), loss[mine].mean(), sum(gaps) / mine.sum()

        for experts, first in zip(self.experts(query), (layer[:, 0] for layer in chosen)):
            for expert in experts:
                mine = first == expert["index"]
                self.assertEqual(expert["labelled"], mine.sum())
                self.check_figures([expert[key] for key in ("accuracy", "log_loss", "ece")], figures(mine))
        return figures

    def check_figures(self, values, expected):
        for value, wanted in zip(values, expected, strict=True):
            if wanted is None:
                self.assertIsNone(value)
            else:
                self.assertAlmostEqual(value, wanted, delta=1e-9)

    def check_classes(self, figures, chosen, truth, include="classes"):
        """The same by true class, since the load; figures: those of a mask over the rows, as check() gives them."""
        layers = self.client.get(f"/v2/models/two-layers/routing?include={include}").json["layers"]
        for layer, first in zip(layers, (layer[:, 0] for layer in chosen)):
            table = layer["classes"]["truth"]
            for i, expert in enumerate(layer["experts"]):
                for c in range(3):
                    mine = (first == expert["index"]) & (truth == c)
                    self.assertEqual(table["counts"][i][c], mine.sum())
                    if mine.any():
                        self.assertEqual(table["correct"][i][c], round(figures(mine)[0] * mine.sum()))
                    self.check_figures([table[key][i][c] for key in ("log_loss", "ece")], figures(mine)[1:])
        return layers


class LabelsTest(FeedbackCase):
    def test_with_the_request(self):
        self.assertNotIn("labelled", self.experts()[0][0])
        scores, *chosen = self.infer(self.rows, labels=self.truth.tolist())
        for query in ("", "?window=1m"):
            figures = self.check(scores, chosen, self.truth, query)
        self.check_classes(figures, chosen, self.truth)
        page = Metrics(self.client.get("/metrics").body.decode())
        self.assertEqual(page.sum("moed_expert_labelled_total", layer="first", **TWO), 40)
        for expert in self.experts()[0]:
            labels = {"layer": "first", "expert": str(expert["index"]), **TWO}
            self.assertEqual(page.value("moed_expert_labelled_total", **labels), expert["labelled"])
            if expert["labelled"]:
                self.assertEqual(page.value("moed_expert_accuracy_ratio", window="5m", **labels), expert["accuracy"])
                self.assertAlmostEqual(page.value("moed_expert_correct_total", **labels) / expert["labelled"],
                                       expert["accuracy"], delta=1e-12)

    def test_in_v1_by_name_and_not_known(self):
        names = [None if i % 3 == 0 else TwoLayers.labels[label] for i, label in enumerate(self.truth)]
        answer = self.client.predict("two-layers", self.rows.tolist(), labels=names, routing=True)
        self.assertEqual(answer.status, 200, answer.body)
        known = np.arange(40) % 3 != 0
        chosen = [np.array(answer.json["routing"][layer]["experts"])[known] for layer in ("first", "second")]
        self.check(np.array(answer.json["predictions"])[known], chosen, self.truth[known])

    def test_later_by_id(self):
        parts = [self.infer(part, f"id-{i}") for i, part in enumerate(np.split(self.rows, 4))]
        self.assertNotIn("labelled", self.experts()[0][0])
        for i in (2, 0, 3, 1):
            answer = self.feedback(f"id-{i}", self.truth[10 * i:10 * i + 10].tolist())
            self.assertEqual(answer, {"id": f"id-{i}", "labelled": 10})
        scores, *chosen = (np.concatenate(part) for part in zip(*parts))
        self.check_classes(self.check(scores, chosen, self.truth), chosen, self.truth)

    def test_sums_by_class_are_exact(self):
        """The integers behind the figures, for who adds up replicas."""
        self.assertNotIn("classes", self.client.get("/v2/models/two-layers/routing?include=exact").json["layers"][0]["exact"])
        scores, *chosen = self.infer(self.rows, labels=self.truth.tolist())
        layers = self.check_classes(self.check(scores, chosen, self.truth), chosen, self.truth, "classes,exact")
        empty = 0
        for layer in layers:
            truth, exact = layer["classes"]["truth"], layer["exact"]["classes"]
            for i, c in np.ndindex(len(exact), 3):
                if truth["counts"][i][c] == 0:
                    self.assertEqual(exact[i][c], {})
                    empty += 1
                    continue
                bins = np.array([[items, correct, int(sum_)] for items, correct, sum_ in exact[i][c]["bins"]])
                n, right, _ = bins.sum(axis=0)
                self.assertEqual((n, right), (truth["counts"][i][c], truth["correct"][i][c]))
                self.assertEqual(truth["log_loss"][i][c], int(exact[i][c]["log_loss"]) / 2**32 / n)
                self.assertAlmostEqual(truth["ece"][i][c], np.abs(bins[:, 1] - bins[:, 2] / 2**32).sum() / n, delta=1e-15)
        self.assertGreater(empty, 0)

    def test_answers_are_the_same_with_labels(self):
        body = {"instances": self.rows.tolist(), "routing": True}
        plain = self.client.post("/v1/models/two-layers:predict", body).body
        self.assertEqual(self.client.post("/v1/models/two-layers:predict",
                                          {**body, "labels": self.truth.tolist(), "tag": "a"}).body, plain)

    def test_labels_count_under_the_tag(self):
        scores, *chosen = self.infer(self.rows, labels=self.truth.tolist(), tag="a")
        self.infer(self.rows, labels=self.truth.tolist())
        self.check(scores, chosen, self.truth, "?tag=a")

    def test_what_is_not_counted_is_not_judged(self):
        answer = self.client.post("/v1/models/two-layers:predict", {"instances": self.rows.tolist(),
                                                                    "labels": self.truth.tolist()},
                                  {"Moed-Statistics": "off"})
        self.assertEqual(answer.status, 200)
        self.assertNotIn("labelled", self.experts()[0][0])


class RefusedTest(FeedbackCase):
    def test_feedback(self):
        self.infer(self.rows[:2], "known")
        self.assertIn("had 2 rows", self.feedback("known", [1], 400)["error"])
        self.assertIn("no recent answer", self.feedback("unknown", [1], 404)["error"])
        self.assertIn("labels[0] is 'pink'", self.feedback("known", ["pink"], 400)["error"])
        for body in (b"", b"{", b"[]", json.dumps({"id": "known"}).encode()):
            self.assertEqual(self.client.post("/v2/models/two-layers/feedback", body).status, 400)
        answer = self.client.post("/v2/models/no-classes/feedback", {"id": "a", "labels": [1]})
        self.assertEqual(answer.status, 400)
        self.assertIn("no output of one number for each", answer.json["error"])
        self.assertEqual(self.client.get("/v2/models/two-layers/feedback").status, 405)
        page = Metrics(self.client.get("/metrics").body.decode())
        self.assertEqual(page.value("moed_feedback_lost_total", **TWO), 1)

    def test_labels(self):
        row = self.rows[:1].tolist()
        for labels, message in (([0, 1], "'labels' has 2 entries, expected 1"), ([3], "labels[0] is not a class"),
                                ("red", "'labels' is a string"), (["pink"], "labels[0] is 'pink'")):
            answer = self.client.predict("two-layers", row, labels=labels)
            self.assertEqual(answer.status, 400, answer.body)
            self.assertIn(message, answer.json["error"])


if __name__ == "__main__":
    unittest.main()
