"""What the tests of checkpoints share: a folder, small models, and the way through a checkpoint and back."""

import json
import os
import tempfile
import unittest
from collections import OrderedDict

import torch
from torch import nn

from moed import exporter, safetensors
from moed.layers import MoE, MultiGateMoE
from moed.loader import load


def named(**layers):
    return nn.Sequential(OrderedDict(layers))


def trained_like(module):
    """Gives every parameter and running statistic a value that a wrong axis or a forgotten tensor would change."""
    generator = torch.Generator().manual_seed(5)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(values + 0.5 if name.endswith("running_var") else values * 2 - 1)
    return module.eval()


def expert(inputs=12):
    return named(fc1=nn.Linear(inputs, 8), relu=nn.ReLU(), out=nn.Linear(8, 3), softmax=nn.Softmax(dim=-1))


def routings(model):
    """The latest Routing of every gate, in order."""
    mixtures = [part for part in model.modules() if isinstance(part, (MoE, MultiGateMoE))]
    return [routing for layer in mixtures
            for routing in ([layer.routing] if isinstance(layer, MoE) else layer.routing.values())]


def export(module, directory, shape=None, **settings):
    """moed.export() with the shape of a row in place of an example."""
    exporter.export(module, None if shape is None else torch.zeros(1, *shape), directory, **settings)


class ExportCase(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(folder.name, "model")

    def config(self):
        with open(os.path.join(self.path, "config.json"), encoding="utf-8") as file:
            return json.load(file)

    def tensors(self):
        return safetensors.read(os.path.join(self.path, "model.safetensors"))

    def files(self):
        contents = {}
        for name in os.listdir(self.path):
            with open(os.path.join(self.path, name), "rb") as file:
                contents[name] = file.read()
        return contents

    def assert_returns(self, module, shape, rows=4):
        """Exports, loads, compares outputs and routing, and exports again to the same bytes."""
        trained_like(module)
        x = torch.randn(rows, *shape)
        with torch.no_grad():
            expected = module(x)
        export(module, self.path, shape)
        first = self.files()
        loaded = load(self.path)
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), expected, rtol=1e-6, atol=1e-6)
        self.assert_same_routing(loaded, module)
        export(loaded, self.path)
        self.assertEqual(self.files(), first)

    def assert_same_routing(self, loaded, module):
        self.assertEqual(len(routings(loaded)), len(routings(module)))
        for theirs, ours in zip(routings(loaded), routings(module)):
            self.assertTrue(torch.equal(theirs.experts, ours.experts))
            torch.testing.assert_close(theirs.weights, ours.weights, rtol=1e-6, atol=1e-6)

    def assert_refused(self, module, shape, message, **settings):
        with self.assertRaisesRegex(ValueError, message):
            export(module, self.path, shape, **settings)
        self.assertEqual(os.listdir(self.folder), [])
