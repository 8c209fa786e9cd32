"""Transformers of moed's blocks and PyTorch's own: that they are exported exactly, and train."""

import unittest

import torch
from torch import nn
from torch.nn import functional

from moed import modules
from moed.layers import Gate, MoE
from moed.transformer_layers import encoder_block
from tests.export_case import ExportCase, export, named


def experts(size, count=4):
    return MoE([nn.Sequential(nn.Linear(size, 12), nn.GELU(), nn.Linear(12, size)) for _ in range(count)],
               Gate(nn.Linear(size, count), top_k=2), route="positions")


class BlocksTest(ExportCase):
    def vision(self, norm_first, norm=nn.LayerNorm):
        """V-MoE: a vision transformer in which the second block's feed-forward layer is a mixture."""
        return nn.Sequential(nn.Conv2d(1, 8, 2, stride=2), modules.Reshape(8, 4), modules.Transpose(),
                             modules.ClassToken(8), modules.PositionEmbedding(5, 8),
                             encoder_block(8, 2, modules.GLU(8, 8), norm=norm, norm_first=norm_first),
                             encoder_block(8, 2, experts(8), norm=norm, norm_first=norm_first),
                             norm(8), modules.Select(0), nn.Linear(8, 3), nn.Softmax(dim=-1))

    def test_a_vision_transformer_with_experts(self):
        for norm_first in (True, False):
            for norm in (nn.LayerNorm, modules.RMSNorm):
                self.assert_returns(self.vision(norm_first, norm), (1, 4, 4))

    def test_it_trains(self):
        model = self.vision(True).train()
        x, labels = torch.randn(64, 1, 4, 4), torch.arange(64) % 3
        x = x + labels.reshape(-1, 1, 1, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        losses = []
        for _ in range(40):
            loss = functional.nll_loss(model(x).clamp_min(1e-7).log(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        self.assertLess(losses[-1], 0.5 * losses[0])


class PyTorchTest(ExportCase):
    def layer(self, **settings):
        return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **settings)

    def test_encoder_layers(self):
        for settings in ({}, {"norm_first": True}, {"activation": "gelu"},
                         {"activation": nn.SiLU(), "norm_first": True}, {"layer_norm_eps": 0.5, "dropout": 0.3}):
            with self.subTest(settings):
                self.assert_returns(nn.Sequential(self.layer(**settings), nn.Flatten(), nn.Linear(40, 2)), (5, 8))

    def test_encoders(self):
        self.assert_returns(nn.TransformerEncoder(self.layer(), 2), (5, 8))
        self.assert_returns(nn.TransformerEncoder(self.layer(norm_first=True), 2, norm=nn.LayerNorm(8)), (5, 8))
        self.assertIn("layers_1_self_attn.in_proj_weight", self.tensors())

    def test_they_are_what_a_forward_may_call(self):
        class Model(nn.Module):
            def __init__(self, layer):
                super().__init__()
                self.encoder = nn.TransformerEncoder(layer, 1)

            def forward(self, x):
                return self.encoder(x).mean(1)
        self.assert_returns(Model(self.layer()), (5, 8))

    def test_refusals(self):
        for layer, message in (
                (nn.TransformerEncoderLayer(8, 2, 16), "model.block: batch_first is off"),
                (self.layer(activation=functional.elu), "model.block: activation elu is not relu, gelu or silu"),
                (self.layer(activation=nn.RReLU()), "model.block: RReLU has no op"),
                (nn.TransformerDecoderLayer(8, 2, batch_first=True), "model.block: TransformerDecoderLayer has no op"),
                (nn.MultiheadAttention(8, 2), "model.block: MultiheadAttention has no op"),
                (modules.PositionEmbedding(4, 8),
                 r"model.block: the weight has shape \[4, 8\], but rows have \[5, 8\]")):
            with self.subTest(message):
                self.assert_refused(named(block=layer), (5, 8), message)
        flat = named(block=modules.SelfAttention(8, 2))
        self.assert_refused(flat, (8,), r"model.block: rows have shape \[8\]; attention")
        export(named(block=self.layer()), self.path, (5, 8))


if __name__ == "__main__":
    unittest.main()
