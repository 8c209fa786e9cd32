"""Norms that are written out, each in words of its own."""

import torch
from torch import nn

import moed
from moed.blocks_of_norms import norm_of
from moed.modules import RMSNorm
from tests.export_case import ExportCase

SIZE = 6


class Written(nn.Module):
    """`norm` is a function of (rows, weight, bias, eps)."""

    def __init__(self, norm, eps=1e-5, bias=False):
        super().__init__()
        self.norm, self.eps = norm, eps
        self.scale = nn.Parameter(torch.ones(SIZE))
        self.shift = nn.Parameter(torch.zeros(SIZE)) if bias else None

    def forward(self, x):
        return self.norm(x, self.scale, self.shift, self.eps)


def by_root(x, weight, bias, eps):
    return weight * (x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps))


def around_zero(x, weight, bias, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (1 + weight)


def centred(x, weight, bias, eps):
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).sum(-1, keepdim=True) / x.shape[-1]
    normal = weight * (x - mean) / (variance + eps).sqrt()
    return normal if bias is None else normal + bias


def by_deviation(x, weight, bias, eps):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps)


def of_positions(x, weight, bias, eps):
    return weight * x * torch.rsqrt(x.square().mean(1, keepdim=True) + eps)


class NormsTest(ExportCase):
    def test_found(self):
        for norm, eps, bias, kind in ((by_root, 1e-6, False, RMSNorm), (around_zero, 1e-3, False, RMSNorm),
                                      (centred, 1e-5, True, nn.LayerNorm), (centred, 1e-12, False, nn.LayerNorm)):
            with self.subTest(norm.__name__, eps=eps):
                module = Written(norm, eps, bias)
                found = norm_of(module)
                self.assertIs(type(found), kind)
                self.assertEqual(found.eps, eps)
                self.assert_returns(nn.Sequential(nn.Linear(4, SIZE), module), (3, 4))

    def test_not_found(self):
        for norm in (by_deviation, of_positions, lambda x, weight, bias, eps: x * weight,
                     lambda x, weight, bias, eps: x.no_such_thing()):
            self.assertIsNone(norm_of(Written(norm)))
        self.assertIsNone(norm_of(nn.PReLU(SIZE)))

    def test_one_that_is_neither(self):
        """By the deviation, of one less than there are: recorded as it is written."""
        moed.export(nn.Sequential(Written(by_deviation)).eval(), torch.zeros(1, 3, SIZE), self.path)
        self.assertIn("divide", [layer["op"] for layer in self.config()["layers"]])
