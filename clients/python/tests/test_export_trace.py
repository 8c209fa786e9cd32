"""Code that torch.fx cannot follow and torch.export can: that it is exported where PyTorch has it, else refused."""

import subprocess
import sys
import unittest

import torch
from torch import nn
from torch.nn import functional

import moed
from moed import export_trace
from moed.layers import Gate, MoE
from tests.export_case import ExportCase


def checked(x):
    """What type-checking libraries and einops do."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{type(x).__name__} is no tensor")
    return x


class Checked(nn.Module):
    """Layers, a mixture, joins and functions, all behind a check of types."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6))
        self.moe = MoE([nn.Linear(6, 6) for _ in range(3)], Gate(nn.Linear(6, 3), top_k=2), "positions")
        self.scale, self.last = nn.Parameter(torch.ones(6)), nn.Linear(9, 2)
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x):
        h = functional.gelu(self.first(checked(x)), approximate="tanh") * self.scale
        h = checked(h) + self.moe(h) - self.shift
        left, right = h.chunk(2, dim=-1)
        h = torch.cat([torch.softmax(left, -1), functional.silu(right), torch.clamp(h[..., 1:4], -1, 1)], dim=-1)
        return self.last(functional.layer_norm(checked(h.mean(dim=1)), (9,)).view(-1, 9))


class Several(Checked):
    def forward(self, x):
        score = checked(super().forward(x))
        return {"score": score, "share": torch.softmax(score, -1)}


class Unknown(nn.Module):
    def forward(self, x):
        return checked(x).sin()


class ExportTraceTest(ExportCase):
    @unittest.skipUnless(export_trace.available(), "PyTorch has no torch.export")
    def test_what_fx_cannot_follow(self):
        self.assert_returns(Checked(), (5, 8))
        self.assertIn("moe.experts.2.0.weight", self.tensors())

    @unittest.skipUnless(export_trace.available(), "PyTorch has no torch.export")
    def test_several_outputs(self):
        moed.export(Several().eval(), torch.zeros(1, 5, 8), self.path)
        self.assertEqual([output["name"] for output in self.config()["outputs"]], ["score", "share"])

    def test_only_moed_speaks_of_what_nothing_can_follow(self):
        program = """
import logging, sys, torch, moed
class Branch(torch.nn.Linear):
    def forward(self, x):
        print("printed by the code", file=sys.stderr)
        logging.getLogger("code").warning("logged by the code")
        y = super().forward(x)
        return y if y.sum() > 0 else -y
try:
    moed.export(torch.nn.Sequential(Branch(4, 4)), torch.zeros(1, 4), sys.argv[1])
except moed.ExportError as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", program, self.path], capture_output=True, text=True, check=False)
        self.assertIn("Branch.forward cannot be followed", done.stdout, done.stderr)
        self.assertLessEqual(set(done.stderr.splitlines()), {"printed by the code", "logged by the code"})
        self.assertIn("logged by the code", done.stderr)

    def test_refusals(self):
        message = "sin|cannot be followed: _Value is no tensor"
        self.assert_refused(nn.Sequential(Unknown()), (5, 8), message)
        if not export_trace.available():
            self.assert_refused(Checked(), (5, 8), r"Checked.forward cannot be followed.*test_export_trace.py:\d+")
