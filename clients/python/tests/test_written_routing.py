"""The routing of mixtures in words of their own, as the server counts it, beside numpy's of the model's logits."""

import os
import unittest

import numpy as np
import torch

import moed
from moed import engine
from tests import ENGINE, written_blocks
from tests import written_more as more
from tests.export_case import ExportCase
from tests.test_adapters import randomised

ROWS = 40


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def every(logits):
    """(weights, best expert, who is selected) of mixtures that use all experts."""
    shares = softmax(logits)
    return shares, shares.argmax(axis=1), np.ones_like(shares)


def best(count, normalize):
    """The same of those that use the `count` best."""
    def routed(logits):
        shares = softmax(logits)
        selected = np.zeros_like(shares)
        np.put_along_axis(selected, np.argsort(-shares, axis=1)[:, :count], 1, axis=1)
        weights = shares * selected
        return weights / weights.sum(axis=1, keepdims=True) if normalize else weights, shares.argmax(axis=1), selected
    return routed


def statistics(x):
    return torch.cat([x.mean(-1, keepdim=True), x.std(-1, keepdim=True) + 1e-5, x[:, -1:]], dim=-1)


def normed(model, x):
    """What the mixture of an Encoder is given."""
    return model.norm(model.inp(x)).flatten(0, 1)


def cosines(model, x):
    moe, x = model.moe, normed(model, x)
    return torch.cosine_similarity(moe.proj(x)[:, None], moe.expert_emb[None], dim=-1) / moe.temperature.clamp(min=0.01)


# Model, shape of a row, the logits of each of its mixtures, how they choose.
CASES = (
    (more.MMoEParams, (10,), [lambda model, x, task=task: x @ model.gates[task] for task in range(2)], every),
    (more.HierarchicalDense, (6,), [lambda model, x: model.top(x), *(
        lambda model, x, group=group: model.sub[group](x) for group in range(2))], every),
    (more.StatGated, (24,), [lambda model, x: model.gate(statistics(x))], every),
    (more.RecurrentGate, (6, 5), [lambda model, x: model.gate(model.rnn(x)[1][-1])], every),
    (more.VmapExperts, (12,), [lambda model, x: model.gate(x)], every),
    (more.DensePositions, (5, 6), [lambda model, x: model.route(x).flatten(0, 1)], every),
    (written_blocks.Unlike, (written_blocks.SIZE,), [lambda model, x: model.gate(x) / 0.7], every),
    (more.Disabled, (12,), [lambda model, x: model.gate(x).masked_fill(model.dead, -torch.inf)], every),
    (more.MaskedTopK, (12,), [lambda model, x: model.gate(x) / model.log_temp.exp()], best(2, True)),
    (lambda: more.Encoder(more.IndexAddMoE()), (5, 6),
     [lambda model, x: model.moe.router.w_gate(model.moe.router.norm(normed(model, x)))], best(2, True)),
    (lambda: more.Encoder(more.CosineTopK()), (5, 6), [cosines], best(2, False)),
)


@unittest.skipUnless(ENGINE, "moed is not built")
class WrittenRoutingTest(ExportCase):
    def test_what_the_server_counts(self):
        for make, shape, logits, choose in CASES:
            torch.manual_seed(1)
            model = randomised(make())
            rows = torch.randn(ROWS, *shape)
            with self.subTest(type(getattr(model, "moe", model)).__name__):
                moed.export(model, torch.zeros(1, *shape), self.path, **self.outputs_of(model))
                with torch.no_grad():
                    expected = [choose(of(model, rows).double().numpy()) for of in logits]
                self.assert_counted(rows, expected)

    @staticmethod
    def outputs_of(model):
        return {"output_name": ["a", "b"]} if isinstance(model, more.MMoEParams) else {}

    @staticmethod
    def weigh(experts, weights):
        """Whether these are the experts' sums of weights."""
        counted = [expert["weight"] for expert in experts]
        return len(counted) == len(weights) and np.allclose(counted, weights, rtol=1e-4)

    def assert_counted(self, rows, expected):
        """Each of `expected` is one layer of the server's answer; layers are named after the model's parts."""
        with engine.Engine(ENGINE, os.path.dirname(self.path)) as server:
            server.client.infer("model", rows.numpy())
            layers = server.client.routing("model")["layers"]
        self.assertEqual(len(layers), len(expected))
        for weights, first, selected in expected:
            experts = next(layer["experts"] for layer in layers if self.weigh(layer["experts"], weights.sum(axis=0)))
            self.assertEqual([expert["selected"] for expert in experts], selected.sum(axis=0).tolist())
            self.assertEqual([expert["top1"] for expert in experts],
                             np.bincount(first, minlength=len(experts)).tolist())


if __name__ == "__main__":
    unittest.main()
