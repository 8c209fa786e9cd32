"""Whole models as people write them for themselves: tutorials, competitions, papers' repositories, of 2025 and 2026."""

import math
from typing import Any, Callable, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from tests import written_more as more
from tests import written_whole as whole
from tests.written_blocks import (
    COUNT,
    FFN,
    SIZE,
    Adapters,
    Affinity,
    Clusters,
    Convolutions,
    Depths,
    EnoughOfThem,
    ExpertChoice,
    ForecastBlock,
    FourTensors,
    Gumbel,
    LowRank,
    OneTensor,
    Product,
    SequenceGate,
    SoftMoE,
    SparseMoE,
    Stacked,
    Switch,
    Unlike,
    experts,
)


class CausalHeads(nn.Module):
    """minGPT's: one matrix, a mask in a buffer."""

    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj, self.n_head = nn.Linear(SIZE, 3 * SIZE), nn.Linear(SIZE, SIZE), 2
        self.register_buffer("bias", torch.tril(torch.ones(16, 16)).view(1, 1, 16, 16))

    def forward(self, x):
        rows, positions, size = x.size()
        q, k, v = self.c_attn(x).split(size, dim=2)
        q, k, v = (part.view(rows, positions, 2, size // 2).transpose(1, 2) for part in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(self.bias[:, :, :positions, :positions] == 0, float("-inf"))
        mixed = functional.softmax(scores, dim=-1) @ v
        return self.c_proj(mixed.transpose(1, 2).contiguous().view(rows, positions, size))


class TinyGPT(nn.Module):
    def __init__(self, always_noisy=False):
        super().__init__()
        self.words, self.places = nn.Embedding(20, SIZE), nn.Embedding(16, SIZE)
        self.ln1, self.ln2 = nn.LayerNorm(SIZE), nn.LayerNorm(SIZE)
        self.attn, self.smoe, self.lm_head = CausalHeads(), SparseMoE(always_noisy), nn.Linear(SIZE, 20)

    def forward(self, idx, targets=None):
        x = self.words(idx) + self.places(torch.arange(idx.shape[1], device=idx.device))
        x = x + self.attn(self.ln1(x))
        logits = self.lm_head(x + self.smoe(self.ln2(x)))
        loss = None if targets is None else functional.cross_entropy(logits.view(-1, 20), targets.view(-1))
        return logits, loss


# ---- images ----

class DropPath(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        return x * torch.empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(0.9)


class TimmAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads, self.qkv, self.proj = 2, nn.Linear(SIZE, 3 * SIZE), nn.Linear(SIZE, SIZE)
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()

    def forward(self, x):
        rows, positions, size = x.shape
        q, k, v = self.qkv(x).reshape(rows, positions, 3, 2, size // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, dropout_p=0.0)
        return self.proj(x.transpose(1, 2).reshape(rows, positions, size))


class VisionMoE(nn.Module):
    """Patches, a class token, layer scales."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, SIZE, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, SIZE)), nn.Parameter(torch.randn(1, 5, SIZE))
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(SIZE) for _ in range(3))
        self.attn, self.mlp, self.drop, self.head = TimmAttention(), SparseMoE(), DropPath(), nn.Linear(SIZE, 3)
        self.ls1, self.ls2 = (nn.Parameter(torch.full((SIZE,), 0.1)) for _ in range(2))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), dim=1) + self.pos
        x = x + self.drop(self.ls1 * self.attn(self.norm1(x)))
        x = x + self.drop(self.ls2 * self.mlp(self.norm2(x)))
        return self.head(self.norm(x)[:, 0])


# ---- time series ----

class TimeMoE(nn.Module):
    """Numbers become vectors by a gated layer; a head for each horizon."""

    def __init__(self):
        super().__init__()
        self.emb_layer, self.gate_layer = (nn.Linear(1, SIZE, bias=False) for _ in range(2))
        self.act, self.norm, self.ffn_layer = nn.SiLU(), nn.LayerNorm(SIZE), ForecastBlock()
        self.lm_heads = nn.ModuleList(nn.Linear(SIZE, horizon, bias=False) for horizon in (1, 8))

    def forward(self, x):
        x = x.unsqueeze(-1)
        hidden = self.act(self.gate_layer(x)) * self.emb_layer(x)
        mixed, _ = self.ffn_layer(self.norm(hidden))
        hidden = hidden + mixed
        return torch.cat([head(hidden[:, -1]) for head in self.lm_heads], dim=-1)


class Forecasters(nn.Module):
    """Linear forecasters of which the best two are mixed."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts, self.topk = nn.Linear(8, COUNT), experts(lambda: nn.Linear(8, 4)), 2

    def forward(self, x):
        values, indices = functional.softmax(self.gate(x), dim=-1).topk(self.topk, -1)
        answers = torch.stack([expert(x) for expert in self.experts], dim=-2)
        best = torch.gather(answers, -2, indices.unsqueeze(-1).expand(*indices.shape, 4))
        return (best * (values / (values.sum(-1, keepdim=True) + 1e-6)).unsqueeze(-1)).sum(-2)


class Decomposed(nn.Module):
    """Each series normalised and given back its scale, its trend apart: RevIN, DLinear."""

    def __init__(self):
        super().__init__()
        self.moe, self.avg = Forecasters(), nn.AvgPool1d(5, 1)
        self.weight, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        mean = x.mean(1, keepdim=True).detach()
        deviation = torch.sqrt(torch.var(x, dim=1, keepdim=True, unbiased=False) + 1e-5).detach()
        x = (x - mean) / deviation * self.weight + self.bias
        padded = torch.cat([x[:, 0:1].repeat(1, 2, 1), x, x[:, -1:].repeat(1, 2, 1)], dim=1)
        trend = self.avg(padded.permute(0, 2, 1)).permute(0, 2, 1)
        y = self.moe((x - trend).permute(0, 2, 1)).permute(0, 2, 1) + trend[:, -4:]
        return (y - self.bias) / (self.weight + 1e-10) * deviation + mean


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(SIZE, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        output, _ = self.lstm(x)
        return self.fc(output[:, -1, :])


class RecurrentExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(Remembering() for _ in range(3))
        self.gate = nn.Sequential(nn.Flatten(), nn.Linear(6 * SIZE, 3), nn.Softmax(-1))

    def forward(self, x):
        return (torch.stack([expert(x) for expert in self.experts], 1) * self.gate(x).unsqueeze(-1)).sum(1)


# ---- recommenders, tables, graphs ----

class CrossNetwork(nn.Module):
    """DCN v2: crosses of low rank, mixed in every layer; the same gates in all."""

    def __init__(self, layers=2, rank=3):
        super().__init__()
        self.U, self.V, self.C = (nn.ParameterList(nn.Parameter(torch.randn(COUNT, *shape)) for _ in range(layers))
                                  for shape in ((SIZE, rank), (rank, SIZE), (rank, rank)))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(SIZE, 1)) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(SIZE, 1) for _ in range(COUNT))

    def forward(self, x):
        first = x = x.unsqueeze(2)
        for layer in range(len(self.U)):
            answers, gates = [], []
            for index in range(COUNT):
                gates.append(self.gates[index](x.squeeze(2)))
                narrow = torch.tanh(torch.matmul(self.V[layer][index], x))
                narrow = torch.tanh(torch.matmul(self.C[layer][index], narrow))
                answers.append((first * (torch.matmul(self.U[layer][index], narrow) + self.bias[layer])).squeeze(2))
            x = torch.matmul(torch.stack(answers, 2), torch.stack(gates, 1).softmax(1)) + x
        return x.squeeze(2)


class MultiGate(nn.Module):
    """MMoE with a matrix for each gate; experts come first in what is stacked."""

    def __init__(self):
        super().__init__()
        self.experts = experts(lambda: nn.Sequential(nn.Linear(SIZE, 6), nn.ReLU()))
        self.gates = nn.ParameterList(nn.Parameter(torch.randn(SIZE, COUNT)) for _ in range(2))
        self.towers = nn.ModuleList(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid())
                                    for _ in range(2))

    def forward(self, x):
        answers = torch.stack([expert(x) for expert in self.experts])
        gates = [functional.softmax(x @ gate, dim=1) for gate in self.gates]
        mixed = [(gate.t().unsqueeze(2).expand(-1, -1, 6) * answers).sum(dim=0) for gate in gates]
        return [tower(value) for tower, value in zip(self.towers, mixed)]


class History(nn.Module):
    """A bag of what somebody saw."""

    def __init__(self):
        super().__init__()
        self.bag, self.moe = nn.EmbeddingBag(20, SIZE, mode="mean", padding_idx=0), Product()

    def forward(self, ids):
        return self.moe(self.bag(ids))


class Winner(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(4, COUNT), experts(lambda: FFN(4, 6))

    def forward(self, x):
        logits = self.gate(x)
        weights = torch.zeros_like(logits).scatter_(-1, logits.max(-1, keepdim=True)[1], 1.0)
        return sum(weights[..., index:index + 1] * expert(x) for index, expert in enumerate(self.experts))


class Tokens(nn.Module):
    """Every column of a table a token, as FT-Transformer has it."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(SIZE, 4)) for _ in range(2))
        self.moe, self.head = Winner(), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.moe(x.unsqueeze(-1) * self.weight + self.bias).mean(1))


class Neighbours(nn.Module):
    """Nodes of one graph, whose edges are a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("adjacency", torch.rand(6, 6))
        self.experts, self.gate, self.out = experts(lambda: nn.Linear(SIZE, SIZE)), nn.Linear(SIZE, COUNT), nn.Linear(
            SIZE, 2)

    def forward(self, x):
        hidden = torch.matmul(self.adjacency, x)
        answers = torch.stack([torch.relu(expert(hidden)) for expert in self.experts], dim=-1)
        return self.out((answers * functional.softmax(self.gate(hidden), -1).unsqueeze(2)).sum(-1)).mean(1)


class SubTokens(nn.Module):
    """Multi-head MoE: parts of a token are routed by themselves."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.experts = nn.Linear(4, COUNT, bias=False), experts(lambda: FFN(4, 6))

        def forward(self, x):
            flat = x.view(-1, x.shape[-1])
            weights, indices = torch.topk(self.gate(flat), 2)
            weights, output = functional.softmax(weights, dim=1), torch.zeros_like(flat)
            for index, expert in enumerate(self.experts):
                items, slots = torch.where(indices == index)
                output[items] += weights[items, slots, None] * expert(flat[items])
            return output.view_as(x)

    def __init__(self):
        super().__init__()
        self.heads, self.merge, self.moe = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE), self.Block()

    def forward(self, x):
        rows, positions, size = x.shape
        return self.merge(self.moe(self.heads(x).reshape(rows, positions * 2, size // 2)).reshape(x.shape))


class Trained(nn.Module):
    """As Lightning's modules are: steps, optimisers, a trainer that is gone."""

    def __init__(self):
        super().__init__()
        self.model, self.loss, self.hparams, self._trainer = Stacked(), nn.CrossEntropyLoss(), {"lr": 1e-3}, None

    @property
    def trainer(self):
        raise RuntimeError("Trained is not attached to a Trainer")

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, index):
        return self.loss(self(batch[0]), batch[1])


class Levels(nn.Module):
    """Mixtures of mixtures, all dense."""

    def __init__(self):
        super().__init__()
        self.gate, self.groups = nn.Linear(SIZE, 2), nn.ModuleList(Product() for _ in range(2))

    def forward(self, x):
        weights = self.gate(x).softmax(-1)
        return sum(weights[:, index:index + 1] * group(x) for index, group in enumerate(self.groups))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables, self.moe = nn.ModuleList(nn.Embedding(5, 3) for _ in range(2)), Product()

    def forward(self, categories, numbers):
        found = [table(categories[:, index]) for index, table in enumerate(self.tables)]
        return self.moe(torch.cat([*found, numbers], dim=1))


class Written(NamedTuple):
    name: str
    make: Callable
    example: Any
    refused: str = ""     # what the refusal says
    settings: dict = {}
    mixtures: int = 1     # layers of the checkpoint that route; 0: all experts are run, as the model does


def _row(*shape: int) -> torch.Tensor:
    return torch.zeros(1, *shape)


WORDS, ROW, ROWS = torch.zeros(1, 6, dtype=torch.long), _row(SIZE), _row(6, SIZE)
RANDOM, CHOICE = "gives two answers to the same rows", "not experts items, nor as many as needed"
MODELS = (
    Written("GPT of a tutorial, noisy top-k while training", TinyGPT, WORDS),
    Written("GPT of a tutorial, always noisy", lambda: TinyGPT(True), WORDS, RANDOM),
    *([Written("ViT-MoE of timm's parts: class token, layer scales, drop path", VisionMoE, _row(3, 8, 8))]
      if hasattr(functional, "scaled_dot_product_attention") else []),
    Written("convolutional experts, a gate of the pooled image, w_gate and w_noise", Convolutions, _row(3, 6, 6)),
    Written("Switch without capacity, of tutorials", Switch, ROWS),
    Written("Switch that drops", lambda: Switch(True), ROWS),
    Written("shared and routed experts, a bias for balance, a loss that is kept", Affinity, ROWS),
    Written("the nearest centroids (Moirai-MoE)", Clusters, ROWS),
    Written("a gate of the mean of all positions", SequenceGate, ROWS),
    Written("Time-MoE: gated embedding, gated shared expert, heads of several horizons", TimeMoE, _row(6)),
    Written("RevIN and a moving average around linear forecasters, top-2", Decomposed, _row(8, 3)),
    Written("LSTM experts", RecurrentExperts, ROWS),
    Written("tabular, a network with batch norm as gate", Stacked, ROW),
    Written("tabular, of Lightning", Trained, ROW),
    Written("tabular, a token of each column (FT-Transformer), top-1", Tokens, ROW),
    Written("torch.bmm of gates and stacked experts", Product, ROW),
    Written("experts unlike each other", Unlike, ROW),
    Written("one tensor of all experts, gathered", OneTensor, ROWS),
    Written("experts in tensors with biases, einsum and a mask", FourTensors, ROWS),
    Written("LoRA experts, all of them", LowRank, ROWS, mixtures=0),
    Written("LoRA experts in lists of matrices, top-1", lambda: LowRank(1), ROWS),
    Written("LoRA experts as modules, top-1", Adapters, ROWS),
    Written("DCN v2: a mixture of low-rank crosses", CrossNetwork, ROW, mixtures=0),
    Written("MMoE by hand, experts first", MultiGate, ROW, settings={"output_name": ["a", "b"]}, mixtures=2),
    Written("a bag of embeddings before the mixture", History, WORDS),
    Written("nodes of one graph", Neighbours, ROWS, mixtures=0),
    Written("multi-head MoE: parts of tokens", SubTokens, ROWS),
    Written("mixtures of mixtures, dense", Levels, ROW, mixtures=3),
    Written("Soft MoE", SoftMoE, ROWS, mixtures=0),
    Written("expert choice", ExpertChoice, ROWS, CHOICE),
    Written("top-p", EnoughOfThem, ROW, CHOICE),
    Written("mixture of depths", Depths, ROWS, "positions that are left out"),
    Written("Gumbel-softmax in evaluation", Gumbel, ROW, RANDOM),
    Written("a router with a norm of its own, index_add", lambda: more.Encoder(more.IndexAddMoE()), _row(5, 6)),
    Written("hierarchical, all of them", more.HierarchicalDense, _row(6), mixtures=3),
    Written("hierarchical, one group", more.HierarchicalTop1, _row(6), "fills part by part, as in y[mask]"),
    Written("MMoE, gates in a ParameterList", more.MMoEParams, _row(10), settings={"output_name": ["a", "b"]},
            mixtures=2),
    Written("PLE of dicts, one number per row", more.PLEDict, _row(10), "keep the axis: leave squeeze(-1)"),
    Written("an expert for every pixel, top-2 over channels", more.PixelMoE, _row(8, 6, 6), "chooses by values"),
    Written("forecasters, a gate of mean, deviation and last value", more.StatGated, _row(24)),
    Written("a softmax masked below the k-th, a learned temperature", more.MaskedTopK, _row(12)),
    *([Written("nanoGPT with mixtures and losses", more.NanoGPT, torch.zeros(1, 12, dtype=torch.long), "",
               {"output_name": ["logits", None]}, 2)] if hasattr(functional, "scaled_dot_product_attention") else []),
    Written("DeepSeek from scratch: centroids, a bias, bincount", lambda: more.Encoder(more.DeepSeekMoE()), _row(5, 6)),
    Written("stacked experts by matmul, one with a bias", more.VmapExperts, _row(12)),
    Written("grouped convolutions as experts", more.GroupedConvExperts, _row(12), mixtures=0),
    Written("argmax and fancy indexing", more.HardArgmax, _row(12)),
    Written("GELU by hand", more.OwnGelu, _row(12)),
    Written("a gate of a GRU's last state", more.RecurrentGate, _row(6, 5)),
    Written("BASE layers: balanced while training, argmax after", lambda: more.Encoder(more.BaseLayer()), _row(5, 6)),
    Written("a cosine router with a learned temperature", lambda: more.Encoder(more.CosineTopK()), _row(5, 6)),
    Written("columns of categories in one input", more.ColumnsMMoE, torch.zeros(1, 3, dtype=torch.long),
            "columns of categories are inputs of their own", {"categories": 3}),
    Written("a mixture at every position, in words of its own", more.DensePositions, _row(5, 6)),
    Written("the same between other layers", more.DensePositionsInside, _row(5, 6), mixtures=0),
    Written("LoRA experts in two tensors, picked by zeros and a one", more.OneHotLoRA, _row(5, 12)),
    Written("an expert that is masked out", more.Disabled, _row(12)),
    Written("attention to columns", more.Fields, _row(4), mixtures=0),
    Written("time series: attention of a norm called three times", whole.Series, _row(3, 6)),
    Written("a block that loops, then a mixture of rows", lambda: whole.Beside(False), _row(5, 16), mixtures=2),
    Written("the same, then a mixture of positions", lambda: whole.Beside(True), _row(5, 16)),
    Written("texts: embedding, masked mean and a loop in one forward", whole.Texts, torch.zeros(1, 9, dtype=torch.long),
            "beside them: give the mixture a module of its own"),
    Written("two inputs in one forward", TwoInputs, (WORDS[:, :2], _row(2)), "put together with moed.nn.MultiTask"),
)
