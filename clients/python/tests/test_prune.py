"""Pruned checkpoints as files and names; tests/integration/test_prune.py has what they answer."""

import copy
import os
import stat
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from moed import prune
from moed.safetensors import Stored

CONFIG = {"model_type": "moed", "layers": [
    {"op": "moe", "name": "moe", "experts": {"count": 3},
     "gate": {"top_k": 1, "layers": [{"op": "linear", "name": "g"}]}}]}


def stored(*shape):
    return Stored("F32", shape, np.zeros(shape, "float32").tobytes())


def tensors(*experts):
    return {"moe.gate.g.weight": stored(3, 2), **{f"moe.experts.{expert}.weight": stored(2, 2) for expert in experts}}


class PruneTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.out = os.path.join(folder.name, "out")

    def write(self):
        prune.write(self.out, CONFIG, tensors(0))

    def test_a_checkpoint_is_for_whom_the_umask_says(self):
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        self.write()
        for path, mode in ((self.out, 0o700), (os.path.join(self.out, "config.json"), 0o600)):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), mode, path)
        self.assertEqual(os.listdir(self.folder), ["out"])

    def test_what_is_there_is_left_alone(self):
        for make in (os.mkdir, lambda path: os.symlink("/nowhere", path), lambda path: open(path, "w").close()):
            make(self.out)
            with self.assertRaisesRegex(prune.PruneError, "exists; it is left alone"):
                self.write()
            self.assertEqual(os.listdir(self.folder), ["out"])
            (os.rmdir if os.path.isdir(self.out) else os.remove)(self.out)

    def test_experts_are_numbers_and_nothing_like_them(self):
        pruned, kept = prune.prune(copy.deepcopy(CONFIG), tensors("0", "1", "2"), {"moe": {1}})
        self.assertEqual(pruned["layers"][0]["experts"]["count"], 2)
        self.assertEqual(sorted(kept), ["moe.experts.0.weight", "moe.experts.1.weight", "moe.gate.g.weight"])
        for odd in ("0_1", " 1", "+1", "01", "\u0661", "-1", "x", "", "3"):
            with self.subTest(odd), self.assertRaisesRegex(prune.PruneError, "is none of the layer's 3 experts"):
                prune.prune(copy.deepcopy(CONFIG), tensors("0", "2", odd), {"moe": {1}})

    def test_drops_are_read_strictly(self):
        self.assertEqual(prune.read_drops("a:b:3,c:0"), {"a:b": {3}, "c": {0}})
        for text in ("a:\u0661", "a:1_0", "a: 1", "a:+1", "a:", ":1", "a", ""):
            with self.subTest(text), self.assertRaisesRegex(prune.PruneError, "expected LAYER:EXPERT"):
                prune.read_drops(text)

    def test_who_reads_no_more_sees_no_fault(self):
        source = os.path.join(self.folder, "source")
        prune.write(source, CONFIG, tensors(0, 1, 2))
        reader, writer = os.pipe()
        os.close(reader)
        try:
            ended = subprocess.run([sys.executable, "-m", "moed.prune", source, self.out, "--drop", "moe:1"],
                                   stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        finally:
            os.close(writer)
        self.assertEqual((ended.returncode, ended.stderr), (1, ""))
        self.assertEqual(prune.read(self.out)[0]["layers"][0]["experts"]["count"], 2)


if __name__ == "__main__":
    unittest.main()
