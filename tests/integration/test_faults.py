"""A directory with two faults: `moed serve` and `moed inspect` tell the same one, the first that is met."""

import json
import os
import re
import shutil
import tempfile
import unittest

from support.language import Words
from support.server import ROOT, RUNNING_URL, run

ENCODER = os.path.join(ROOT, "tests", "data", "families", "nomic_bert")


def text(name, content):
    def spoil(directory):
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(content)
    return spoil


def config(**members):
    def spoil(directory):
        path = os.path.join(directory, "config.json")
        with open(path) as file:
            content = json.load(file) | members
        with open(path, "w") as file:
            json.dump(content, file)
    return spoil


def no_weights(directory):
    os.remove(os.path.join(directory, "model.safetensors"))


# In the order in which they are met.
FAULTS = {
    "serving.json": text("serving.json", "{"),
    "no weights": no_weights,
    "config.json": config(layers=[{"op": "nothing"}]),
    "outputs": config(outputs=[{"name": "logits", "layers": [{"op": "rms_norm", "name": "norm"}, {"op": "linear", "name": "lm_head"}]},
                               {"name": "more", "layers": [{"op": "relu"}]}]),
    "tokenizer.json": text("tokenizer.json", "["),
    "modules.json": text("modules.json", "["),
}


@unittest.skipIf(RUNNING_URL, "about a server's start; MOED_SERVER_URL names one that has started")
class FaultsTest(unittest.TestCase):
    def told(self, repository, directory):
        """What the two say of it."""
        served = run("serve", "--models", repository, "--port", "0", "--strict-start")
        found = re.search(r'event=fatal message="(.*)"$', served.stderr, re.MULTILINE)
        self.assertTrue(found, served.stderr)
        inspected = run("inspect", directory)
        self.assertEqual(inspected.returncode, 1, inspected.stdout)
        return found[1].replace('\\"', '"'), inspected.stderr.removeprefix("moed: ").rstrip()

    def check(self, write, names, called="model"):
        with tempfile.TemporaryDirectory(prefix="moed-faults-") as repository:
            directory = os.path.join(repository, called)
            write(directory)
            for name in names:
                FAULTS[name](directory)
            served, inspected = self.told(repository, directory)
            self.assertIn(inspected.replace("cannot be served under its name: ", ""), served)
            return inspected

    def test_language_models(self):
        names = [name for name in FAULTS if name != "modules.json"]
        for i, first in enumerate(names):
            alone = self.check(Words().write, [first])
            for second in names[i + 1:]:
                with self.subTest(first=first, second=second):
                    if {first, second} == {"config.json", "outputs"}:  # one file
                        continue
                    both = self.check(Words().write, [second, first])
                    self.assertEqual(both.split("/model", 1)[1], alone.split("/model", 1)[1])

    def test_encoders(self):
        def write(directory):
            shutil.copytree(ENCODER, directory)
        for names in (["modules.json"], ["modules.json", "serving.json"], ["modules.json", "no weights"]):
            with self.subTest(names=names):
                self.assertIn(names[-1].replace("no weights", "no model.safetensors"), self.check(write, names))

    def test_names(self):
        self.assertIn("name", self.check(Words().write, ["serving.json"], called="a b"))


if __name__ == "__main__":
    unittest.main()
