"""Checkpoints without some experts answer as a server does that excludes them, for golden cases of every kind of gate."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from support.server import BINARY, ROOT, SHIPPED_MODELS
import test_what_if
from test_golden import answer_arrays

sys.path.insert(0, os.path.join(ROOT, "clients", "python"))

from moed import prune  # noqa: E402
from recipes import idx  # noqa: E402


class PrunedTest(test_what_if.EditedTest):
    test_every_case = None
    refused = {}

    @classmethod
    def models(cls, directory):
        for edit in test_what_if.editable():
            shutil.copytree(edit.case.directory, os.path.join(directory, edit.case.name))
            try:
                config, tensors = prune.prune(*prune.read(edit.case.directory), {edit.layer["name"]: {edit.expert}})
            except prune.PruneError as error:
                cls.refused[edit.case.name] = str(error)
                continue
            prune.write(os.path.join(directory, edit.case.name + "-pruned"), config, tensors)

    @staticmethod
    def gates(edit):
        """Those that choose among the expert."""
        if not edit.several:
            return [edit.name]
        every = range(edit.layer["experts"]["count"])
        return [f"{edit.layer['name']}.{gate['name']}" for gate in edit.layer["gates"]
                if edit.expert in gate.get("experts", every)]

    def test_as_if_excluded(self):
        self.connections = [self.new_connection() for _ in range(2)]
        compared = 0
        for edit in test_what_if.editable():
            if edit.case.name in self.refused:
                continue
            with self.subTest(edit.case.name):
                experts = {gate: {"exclude": [edit.expert]} for gate in self.gates(edit)}
                both = self.ask_together([self.requests(edit.case, experts=experts), self.requests(edit.case, "-pruned")])
                if both[0][0].status == 400:
                    continue
                compared += 1
                for answers in zip(*both):
                    self.assertEqual([answer.status for answer in answers], [200, 200], answers[1].body[:300])
                    one, other = map(answer_arrays, answers)
                    for name in edit.case.outputs:
                        np.testing.assert_allclose(other[name], one[name], rtol=1e-5, atol=1e-6)
        self.assertGreater(compared, 150 // test_what_if.EVERY)


class CommandTest(unittest.TestCase):
    def run_prune(self, *arguments, status=0):
        done = subprocess.run([sys.executable, "-m", "moed.prune", *arguments], text=True, capture_output=True, check=False,
                              cwd=os.path.join(ROOT, "clients", "python"), env={**os.environ, "MOED_BINARY": BINARY})
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def test_what_it_changes(self):
        images, labels = idx.read_set(os.path.join(ROOT, "tests", "data", "samples"), "t10k", "")
        with tempfile.TemporaryDirectory() as folder:
            rows, out = os.path.join(folder, "rows.npz"), os.path.join(folder, "mnist-4")
            np.savez(rows, image=np.asarray(images, np.float32).reshape(-1, 1, 28, 28)[:200], labels=np.asarray(labels)[:200])
            mnist = os.path.join(SHIPPED_MODELS, "mnist")
            said = self.run_prune(mnist, "--drop", "moe:3", "--rows", rows, out)
            self.assertIn("moe: without 3\n", said)
            self.assertRegex(said, r"before: accuracy 0\.9\d+, log loss [\d.]+\nafter:  accuracy 0\.7\d+, log loss")
            with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
                config = json.load(file)
            self.assertEqual(config["layers"][0]["experts"]["count"], 4)
            self.assertEqual(len(config["routing_reference"]["moe"]["share"]), 4)
            self.assertIn("exists; it is left alone", self.run_prune(mnist, "--drop", "moe:3", out, status=1))
            for drop, words in (("moe:5", "layer 'moe': has no expert [5], but 5 experts"), ("mow:1", "'mow': the model has no such"),
                                ("moe:0,moe:1,moe:2,moe:3", "gate 'moe': 1 experts are left, fewer than top_k 2"), ("moe", "expected LAYER:EXPERT")):
                self.assertIn(words, self.run_prune(mnist, "--drop", drop, out + "-x", status=1))

    def test_a_damaged_checkpoint_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            damaged = os.path.join(folder, "damaged")
            shutil.copytree(os.path.join(SHIPPED_MODELS, "mnist"), damaged)
            weights = os.path.join(damaged, "model.safetensors")
            os.truncate(weights, os.path.getsize(weights) - 100)
            said = self.run_prune(damaged, "--drop", "moe:3", os.path.join(folder, "out"), status=1)
            self.assertRegex(said, r"model\.safetensors: .*: bytes \d+\.\.\d+ do not hold")
            self.assertEqual(os.listdir(folder), ["damaged"])


if __name__ == "__main__":
    unittest.main()
