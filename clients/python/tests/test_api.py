"""The package's face: names, lazy imports, old names, what the wheel holds."""

import os
import subprocess
import sys
import unittest
import warnings

import torch
from torch import nn

import moed
from tests.export_case import ExportCase

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(code, *arguments):
    return subprocess.run([sys.executable, *arguments, "-c", code], capture_output=True, text=True, cwd=PACKAGE)


class NamesTest(ExportCase):
    def test_a_mixture_alone_is_a_model(self):
        model = moed.nn.MoE([nn.Linear(4, 2) for _ in range(3)], moed.nn.Gate(nn.Linear(4, 3), top_k=2))
        moed.export(model, torch.zeros(1, 4), self.path, labels=["a", "b"])
        self.assertEqual(self.config()["layers"][0]["name"], "moe")
        x = torch.randn(5, 4)
        torch.testing.assert_close(moed.load(self.path)(x), model(x))

    def test_mixtures_may_be_named_by_position(self):
        model = nn.Sequential(moed.nn.MoE([nn.Linear(4, 4)], moed.nn.Gate(nn.Linear(4, 1))))
        moed.export(model, (torch.zeros(1, 4),), self.path)
        self.assertEqual(self.config()["layers"][0]["name"], "0")

    def test_routing_is_returned_on_demand(self):
        model = moed.nn.MoE([nn.Linear(4, 2) for _ in range(3)], moed.nn.Gate(nn.Linear(4, 3), top_k=2))
        output, routing = model(torch.randn(5, 4), return_routing=True)
        self.assertEqual((output.shape, routing.experts.shape), ((5, 2), (5, 2)))
        tasks = moed.nn.MultiGateMoE([nn.Linear(4, 2)], {"a": moed.nn.Gate(nn.Linear(4, 1))})
        output, routing = tasks(torch.randn(5, 4), return_routing=True)
        self.assertEqual(set(routing), {"a"})

    def test_settings_of_gates_may_be_objects(self):
        groups, capacity = moed.nn.Groups(2, 1), moed.nn.Capacity(2.0)
        gate = moed.nn.Gate(nn.Linear(4, 4), top_k=1, groups=groups, capacity=capacity)
        self.assertEqual((gate.groups, gate.capacity), (groups, capacity))

    def test_what_is_no_example_is_answered(self):
        for example, message in ((None, "is NoneType; it must be a tensor"), (torch.zeros(4), "needs a batch axis"),
                                 ((torch.zeros(1, 4),) * 2, "is tuple.*MultiTask")):
            with self.subTest(message), self.assertRaisesRegex(moed.ExportError, "example_inputs: .*" + message):
                moed.export(nn.Linear(4, 4), example, self.path)


class ImportTest(unittest.TestCase):
    def test_pytorch_is_imported_on_demand(self):
        done = run("import sys, moed, moed.routing_metrics; assert 'torch' not in sys.modules; moed.nn; "
                   "assert 'torch' in sys.modules")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_there_is_nothing_else(self):
        with self.assertRaisesRegex(AttributeError, "module 'moed' has no attribute 'exprot'"):
            _ = moed.exprot
        self.assertLessEqual(set(moed.__all__), set(dir(moed)))

    def test_old_names_work_and_warn(self):
        code = ("from moed.export import export; from moed.load import load; from moed.blocks import Residual; "
                "import moed.metrics, moed.transformers, moed, tempfile, torch; from torch import nn; "
                "assert Residual is moed.nn.Residual; "
                "path = tempfile.mkdtemp(); export(nn.Linear(4, 2), path, input_shape=(4,)); load(path); "
                "moed.export(nn.Linear(4, 2), torch.zeros(1, 4), path); moed.load(path)")
        done = run(code, "-W", "always::DeprecationWarning")
        self.assertEqual(done.returncode, 0, done.stderr)
        for warning in ("moed.export is now moed.export() after `import moed`", "moed.metrics is now moed.routing_met"):
            self.assertIn(warning, done.stderr)

    def test_recipes_have_their_old_name_too(self):
        done = subprocess.run([sys.executable, "-m", "moed.recipes.clusters", "--help"], capture_output=True, text=True,
                              cwd=PACKAGE)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_nothing_of_ours_uses_an_old_name(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            import moed.describe  # noqa: F401
            import moed.nn  # noqa: F401


if __name__ == "__main__":
    unittest.main()
