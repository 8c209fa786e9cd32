"""Whole models that people wrote in one go, with attention and texts around the mixture. See written_models.py."""

import torch
from torch import nn
from torch.nn import functional

from tests.written_more import IndexAddMoE


class Series(nn.Module):
    """Time series: a convolution, attention of a norm that is called three times, a mixture."""

    def __init__(self, channels=3, size=16):
        super().__init__()
        self.stem, self.bn = nn.Conv1d(channels, size, 3, padding=1), nn.BatchNorm1d(size)
        self.attn = nn.MultiheadAttention(size, 4, batch_first=True)
        self.n1, self.n2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.moe, self.head = IndexAddMoE(size), nn.Linear(size, 5)

    def forward(self, x):
        x = functional.relu(self.bn(self.stem(x))).transpose(1, 2)
        attended, _ = self.attn(self.n1(x), self.n1(x), self.n1(x), need_weights=False)
        x = x + attended
        return self.head((x + self.moe(self.n2(x))).mean(dim=1))


class Texts(nn.Module):
    """Embedding, mean of the words that are there, a loop over experts: all in one forward."""

    def __init__(self, words=40, size=16, count=4):
        super().__init__()
        self.emb, self.out = nn.Embedding(words, size, padding_idx=0), nn.Linear(size, 3)
        self.gate = nn.Linear(size, count)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(size, 32), nn.ReLU(), nn.Linear(32, size))
                                     for _ in range(count))

    def forward(self, ids):
        mask = (ids != 0).float().unsqueeze(-1)
        h = (self.emb(ids) * mask).sum(1) / mask.sum(1).clamp(min=1)
        best, index = self.gate(h).softmax(-1).max(-1)
        y = torch.zeros_like(h)
        for i, expert in enumerate(self.experts):
            rows = (index == i).nonzero().squeeze(-1)
            if rows.numel():
                y.index_add_(0, rows, expert(h[rows]) * best[rows].unsqueeze(1))
        return self.out(h + y)


class Beside(nn.Module):
    """A block that cannot be recorded, then a mixture of rows or of positions in words of its own."""

    def __init__(self, positions, size=16, count=3):
        super().__init__()
        self.block, self.norm, self.positions = IndexAddMoE(size), nn.LayerNorm(size), positions
        self.route, self.parts = nn.Linear(size, count), nn.ModuleList(nn.Linear(size, size) for _ in range(count))

    def forward(self, x):
        x = x + self.block(self.norm(x))
        x = x if self.positions else x.mean(1)
        shares = self.route(x).softmax(-1)
        return (shares.unsqueeze(-1) * torch.stack([part(x) for part in self.parts], -2)).sum(-2)
