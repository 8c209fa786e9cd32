"""`moectl ablate` on a shipped model: every figure equals numpy's of the answers, one by one."""

import json
import os
import sys
import tempfile
import unittest

import numpy as np

from support.server import ROOT, ServerCase
from test_moectl import moectl, needs_moectl

sys.path.insert(0, os.path.join(ROOT, "clients", "python"))

from recipes import idx  # noqa: E402

SAMPLES = os.path.join(ROOT, "tests", "data", "samples")
ROWS = 300


@needs_moectl
class AblateTest(ServerCase):
    options = {"log_level": "error"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        images, labels = idx.read_set(SAMPLES, "t10k", "")
        cls.images = np.asarray(images, np.float32).reshape(-1, 1, 28, 28)[:ROWS]
        cls.labels = np.asarray(labels, np.int64)[:ROWS]
        file = tempfile.NamedTemporaryFile(suffix=".npz")
        cls.addClassCleanup(file.close)
        np.savez(file, image=cls.images, labels=cls.labels)
        file.flush()
        cls.path = file.name

    def ablate(self, *arguments, status=0):
        done = moectl("ablate", *arguments, url=self.server.url)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def answers(self, experts=None):
        """(scores [rows, classes], the expert that each row ranked first)."""
        request = {"instances": self.images.tolist(), "routing": True, **({"experts": experts} if experts else {})}
        answer = self.client.post("/v1/models/mnist:predict", request, {"Moed-Statistics": "off"})
        self.assertEqual(answer.status, 200, answer.body[:300])
        return np.array(answer.json["predictions"]), np.array(answer.json["routing"]["moe"]["experts"])[:, 0]

    def check(self, got, scores, plain):
        answered = scores.argmax(axis=1)
        self.assertAlmostEqual(got["accuracy"], (answered == self.labels).mean(), places=12)
        p = np.maximum(scores[np.arange(ROWS), self.labels], 1e-15)
        self.assertAlmostEqual(got["log_loss"], -np.log(p).mean(), places=4)
        self.assertEqual(got.get("changed", 0), (answered != plain.argmax(axis=1)).sum())
        by_class = [(answered == self.labels)[self.labels == c].mean() for c in range(10)]
        np.testing.assert_allclose(got["by_class"], by_class, atol=1e-12)

    def test_as_numpy_has_it(self):
        before = self.client.get("/v2/models/mnist/routing").json["layers"]
        study = json.loads(self.ablate("mnist", self.path, "--json", "--rows", "128"))
        plain, first = self.answers()
        self.check(study, plain, plain)
        self.assertEqual((study["rows"], study["rows_by_class"]), (ROWS, np.bincount(self.labels, minlength=10).tolist()))
        (layer,) = study["layers"]
        self.assertEqual((layer["name"], [expert["index"] for expert in layer["experts"]]), ("moe", list(range(5))))
        for expert in layer["experts"]:
            for what, done in (("exclude", "excluded"), ("silence", "silenced")):
                with self.subTest(expert=expert["index"], what=what):
                    self.check(expert[done], self.answers({"moe": {what: [expert["index"]]}})[0], plain)
            # the picture of expert by class: who loses most is who went there first
            lost = np.array(study["by_class"]) - expert["excluded"]["by_class"]
            here = first[self.labels == lost.argmax()] == expert["index"]
            self.assertGreater(here.mean(), 0.5)
        self.assertEqual(before[0]["rows"], self.client.get("/v2/models/mnist/routing").json["layers"][0]["rows"])

    def test_as_a_table(self):
        table = self.ablate("mnist", self.path).splitlines()
        self.assertRegex(table[0], r"^mnist: 300 rows of 10 classes, accuracy 0\.9\d+, log loss 0\.\d+$")
        self.assertEqual(table[2], "moe: 5 experts, top_k 2")
        self.assertEqual(len(table), 10)

    def test_wrong_rows(self):
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            np.savez(file, image=self.images, labels=self.labels + 9)
            file.flush()
            self.assertIn("is no class: expected an integer from 0 to 9", self.ablate("mnist", file.name, status=1))
            file.seek(0)
            file.truncate()
            np.savez(file, image=self.images)
            file.flush()
            self.assertIn("expected an array 'labels' of integers", self.ablate("mnist", file.name, status=1))

    def test_language_models_take_no_rows(self):
        self.assertIn("scores texts at /v1/completions", self.ablate("tiny-lm", self.path, status=1))
        done = moectl("predict", "tiny-lm", "-", url=self.server.url, input="[1, 2]")
        self.assertEqual(done.returncode, 1)
        self.assertIn("takes sequences of tokens, not rows: ask by /v1/completions", done.stderr)


if __name__ == "__main__":
    unittest.main()
