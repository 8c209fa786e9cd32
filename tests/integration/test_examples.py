"""The requests in the README get the answers that it shows."""

import os
import unittest

from support.server import ROOT, ServerCase


def example(name):
    with open(os.path.join(ROOT, "deploy", name), "rb") as file:
        return file.read()


class ExamplesTest(ServerCase):
    def test_an_ankle_boot(self):
        answer = self.client.post("/v1/models/fashion-mnist:predict", example("example.json"))
        self.assertEqual(answer.status, 200, answer.body)
        (probabilities,) = answer.json["predictions"]
        self.assertEqual(probabilities.index(max(probabilities)), 9)

    def test_two_answers_about_one_row(self):
        answer = self.client.post("/v2/models/adult-mmoe/infer", example("example-adult.json"))
        self.assertEqual(answer.status, 200, answer.body)
        outputs = {output["name"]: output["data"] for output in answer.json["outputs"]}
        self.assertTrue(outputs["income"][0].endswith(":0:<=50K"), outputs)
        self.assertTrue(outputs["never_married"][0].endswith(":0:no"), outputs)
        self.assertEqual(sorted(outputs["routing.experts.income.experts"]), list(range(8)))


if __name__ == "__main__":
    unittest.main()
