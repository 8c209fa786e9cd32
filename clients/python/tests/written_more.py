"""More models as people write them: routers, gates and loops of repositories. See written_models.py."""

import torch
from torch import nn
from torch.nn import functional


def mlp(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class NoisyTopKRouter(nn.Module):
    def __init__(self, dim, n, k):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.w_gate = nn.Linear(dim, n, bias=False)
        self.w_noise = nn.Linear(dim, n, bias=False)
        self.k = k

    def forward(self, x):
        x = self.norm(x)
        logits = self.w_gate(x)
        if self.training:
            logits = logits + torch.randn_like(logits) * functional.softplus(self.w_noise(x))
        top, idx = logits.topk(self.k, dim=-1)
        return functional.softmax(top, dim=-1), idx


class IndexAddMoE(nn.Module):
    def __init__(self, dim=16, n=4, k=2):
        super().__init__()
        self.router = NoisyTopKRouter(dim, n, k)
        self.experts = nn.ModuleList([mlp(dim, 32, dim) for _ in range(n)])

    def forward(self, x):
        b, t, d = x.shape
        flat = x.reshape(-1, d)
        w, idx = self.router(flat)
        out = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            token, slot = torch.where(idx == i)
            if token.numel() == 0:
                continue
            out.index_add_(0, token, expert(flat[token]) * w[token, slot].unsqueeze(-1))
        return out.view(b, t, d)


class Encoder(nn.Module):
    def __init__(self, moe, dim=16):
        super().__init__()
        self.inp = nn.Linear(6, dim)
        self.norm = nn.LayerNorm(dim)
        self.moe = moe
        self.head = nn.Linear(dim, 3)

    def forward(self, x):
        x = self.inp(x)
        y = self.moe(self.norm(x))
        if isinstance(y, tuple):
            y = y[0]
        return self.head((x + y).mean(1))


class HierarchicalDense(nn.Module):
    def __init__(self, dim=6, groups=2, per=3, out=4):
        super().__init__()
        self.top = nn.Linear(dim, groups)
        self.sub = nn.ModuleList([nn.Linear(dim, per) for _ in range(groups)])
        self.experts = nn.ModuleList([nn.ModuleList([mlp(dim, 8, out) for _ in range(per)]) for _ in range(groups)])

    def forward(self, x):
        g = torch.softmax(self.top(x), dim=-1)
        y = 0
        for i, (gate, experts) in enumerate(zip(self.sub, self.experts)):
            p = torch.softmax(gate(x), dim=-1)
            z = torch.stack([e(x) for e in experts], dim=1)
            y = y + g[:, i:i + 1] * torch.einsum('be,beo->bo', p, z)
        return y


class HierarchicalTop1(HierarchicalDense):
    def forward(self, x):
        g = torch.softmax(self.top(x), dim=-1)
        choice = g.argmax(-1)
        y = torch.zeros(len(x), 4, device=x.device)
        for i in range(len(self.experts)):
            rows = (choice == i).nonzero(as_tuple=True)[0]
            if len(rows) == 0:
                continue
            p = torch.softmax(self.sub[i](x[rows]), dim=-1)
            z = torch.stack([e(x[rows]) for e in self.experts[i]], dim=1)
            y[rows] = g[rows, i:i + 1] * (p.unsqueeze(-1) * z).sum(1)
        return y


class MMoEParams(nn.Module):
    def __init__(self, dim=10, n=4, hidden=8, tasks=2):
        super().__init__()
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(dim, hidden), nn.ReLU()) for _ in range(n)])
        self.gates = nn.ParameterList([nn.Parameter(torch.randn(dim, n) * .1) for _ in range(tasks)])
        self.towers = nn.ModuleList([nn.Sequential(nn.Linear(hidden, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid())
                                     for _ in range(tasks)])

    def forward(self, x):
        e = torch.stack([f(x) for f in self.experts])            # E B H
        outs = []
        for g, tower in zip(self.gates, self.towers):
            w = functional.softmax(x @ g, dim=1).t().unsqueeze(2)          # E B 1
            outs.append(tower((w * e).sum(0)))
        return outs


class PLEDict(nn.Module):
    def __init__(self, dim=10, hidden=8):
        super().__init__()
        self.shared = nn.ModuleList([mlp(dim, 8, hidden) for _ in range(2)])
        self.specific = nn.ModuleDict({t: nn.ModuleList([mlp(dim, 8, hidden) for _ in range(2)])
                                       for t in ("click", "buy")})
        self.gate = nn.ModuleDict({t: nn.Sequential(nn.Linear(dim, 4), nn.Softmax(dim=-1)) for t in ("click", "buy")})
        self.tower = nn.ModuleDict({t: nn.Linear(hidden, 1) for t in ("click", "buy")})

    def forward(self, x):
        shared = [e(x) for e in self.shared]
        result = {}
        for task, experts in self.specific.items():
            outs = torch.stack([e(x) for e in experts] + shared, dim=-1)       # B H E
            mixed = torch.matmul(outs, self.gate[task](x).unsqueeze(-1)).squeeze(-1)
            result[task] = torch.sigmoid(self.tower[task](mixed)).squeeze(-1)
        return result


class PixelMoE(nn.Module):
    def __init__(self, c=8, n=4, k=2):
        super().__init__()
        self.gate = nn.Conv2d(c, n, 1)
        self.experts = nn.ModuleList([nn.Sequential(nn.Conv2d(c, 16, 1), nn.ReLU(), nn.Conv2d(16, c, 1))
                                      for _ in range(n)])
        self.k = k

    def forward(self, x):
        logits = self.gate(x)
        top, idx = logits.topk(self.k, dim=1)
        w = torch.zeros_like(logits).scatter(1, idx, functional.softmax(top, dim=1))
        return sum(w[:, i:i + 1] * e(x) for i, e in enumerate(self.experts))


class StatGated(nn.Module):
    def __init__(self, length=24, horizon=6, n=3):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(length, horizon) for _ in range(n)])
        self.gate = nn.Linear(3, n)

    def forward(self, x):                     # B L
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True) + 1e-5
        z = (x - mean) / std
        stats = torch.cat([mean, std, x[:, -1:]], dim=-1)
        w = functional.softmax(self.gate(stats), dim=-1)
        y = torch.stack([e(z) for e in self.experts], dim=-1)
        y = (y * w.unsqueeze(1)).sum(-1)
        return y * std + mean


class MaskedTopK(nn.Module):
    def __init__(self, d=12, n=6, k=2, out=3):
        super().__init__()
        self.gate = mlp(d, 16, n)
        self.experts = nn.ModuleList([mlp(d, 16, out) for _ in range(n)])
        self.log_temp = nn.Parameter(torch.zeros(()))
        self.k = k

    def forward(self, x):
        logits = self.gate(x) / self.log_temp.exp()
        kth = logits.topk(self.k, dim=-1).values[:, -1:]
        w = functional.softmax(logits.masked_fill(logits < kth, float('-inf')), dim=-1)
        y = torch.stack([e(x) for e in self.experts], dim=1)
        return torch.bmm(w.unsqueeze(1), y).squeeze(1)


class CausalSelfAttention(nn.Module):
    def __init__(self, d, h, block=32):
        super().__init__()
        self.c_attn = nn.Linear(d, 3 * d)
        self.c_proj = nn.Linear(d, d)
        self.n_head = h

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class NanoMoE(nn.Module):
    def __init__(self, d, n=4, k=2):
        super().__init__()
        self.gate = nn.Linear(d, n, bias=False)
        self.experts = nn.ModuleList(mlp(d, 2 * d, d) for _ in range(n))
        self.k = k

    def forward(self, x):
        B, T, C = x.shape
        x = x.view(-1, C)
        probs = functional.softmax(self.gate(x), dim=-1, dtype=torch.float32)
        w, sel = torch.topk(probs, self.k, dim=-1)
        w = w / w.sum(dim=-1, keepdim=True)
        out = torch.zeros_like(x)
        mask = functional.one_hot(sel, num_classes=len(self.experts)).permute(2, 1, 0)
        for e in range(len(self.experts)):
            k, tok = torch.where(mask[e])
            out.index_add_(0, tok, self.experts[e](x[tok]) * w[tok, k, None])
        density = probs.mean(0)
        aux = (density * density).sum() * len(self.experts)
        return out.view(B, T, C), aux


class NanoBlock(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(d), CausalSelfAttention(d, h)
        self.ln_2, self.mlp = nn.LayerNorm(d), NanoMoE(d)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        y, aux = self.mlp(self.ln_2(x))
        return x + y, aux


class NanoGPT(nn.Module):
    def __init__(self, vocab=50, d=16, h=2, layers=2, block=12):
        super().__init__()
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(vocab, d), wpe=nn.Embedding(block, d), drop=nn.Dropout(.1),
            h=nn.ModuleList([NanoBlock(d, h) for _ in range(layers)]), ln_f=nn.LayerNorm(d)))
        self.lm_head = nn.Linear(d, vocab, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, idx, targets=None):
        b, t = idx.size()
        pos = torch.arange(0, t, dtype=torch.long, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))
        total = 0.0
        for block in self.transformer.h:
            x, aux = block(x)
            total = total + aux
        x = self.transformer.ln_f(x)
        if targets is not None:
            logits = self.lm_head(x)
            loss = functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
            return logits, loss + total
        return self.lm_head(x[:, [-1], :]), None


class SwiGLU(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.w1, self.w3 = nn.Linear(d, h, bias=False), nn.Linear(d, h, bias=False)
        self.w2 = nn.Linear(h, d, bias=False)

    def forward(self, x):
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class DeepSeekMoE(nn.Module):
    def __init__(self, d=16, n=8, k=3, shared=2):
        super().__init__()
        self.centroids = nn.Parameter(torch.randn(n, d) * .1)
        self.register_buffer("expert_bias", torch.linspace(-.1, .1, n))
        self.routed = nn.ModuleList(SwiGLU(d, 12) for _ in range(n))
        self.shared = nn.ModuleList(SwiGLU(d, 12) for _ in range(shared))
        self.k, self.route_scale = k, 2.5

    def forward(self, x):
        shape = x.shape
        x = x.view(-1, shape[-1])
        s = torch.sigmoid(functional.linear(x, self.centroids))
        idx = torch.topk(s + self.expert_bias, self.k, dim=-1, sorted=False).indices
        w = s.gather(1, idx)
        w = w / w.sum(-1, keepdim=True) * self.route_scale
        y = torch.zeros_like(x)
        counts = torch.bincount(idx.flatten(), minlength=len(self.routed)).tolist()
        for i, e in enumerate(self.routed):
            if counts[i] == 0:
                continue
            r, c = torch.where(idx == i)
            y[r] += e(x[r]) * w[r, c, None]
        z = sum(e(x) for e in self.shared)
        return (y + z).view(shape)


class VmapExperts(nn.Module):
    def __init__(self, d=12, n=4, out=3):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(n, d, 8) * .3)
        self.b1 = nn.Parameter(torch.zeros(n, 1, 8))
        self.w2 = nn.Parameter(torch.randn(n, 8, out) * .3)
        self.gate = nn.Linear(d, n)

    def forward(self, x):
        h = torch.relu(torch.matmul(x.unsqueeze(0), self.w1) + self.b1)
        y = torch.matmul(h, self.w2)                                  # E B O
        return torch.einsum('ebo,be->bo', y, self.gate(x).softmax(-1))


class GroupedConvExperts(nn.Module):
    def __init__(self, d=12, n=4, h=8, out=3):
        super().__init__()
        self.n = n
        self.fc1 = nn.Conv1d(d * n, h * n, 1, groups=n)
        self.fc2 = nn.Conv1d(h * n, out * n, 1, groups=n)
        self.gate = nn.Linear(d, n)

    def forward(self, x):
        h = x.repeat(1, self.n).unsqueeze(-1)
        y = self.fc2(functional.relu(self.fc1(h))).view(x.size(0), self.n, -1)
        return (self.gate(x).softmax(-1).unsqueeze(-1) * y).sum(1)


class HardArgmax(nn.Module):
    def __init__(self, d=12, n=4, out=3):
        super().__init__()
        self.experts = nn.ModuleList([mlp(d, 8, out) for _ in range(n)])
        self.gate = nn.Linear(d, n)

    def forward(self, x):
        y = torch.stack([e(x) for e in self.experts], dim=1)
        best = self.gate(x).argmax(-1)
        return y[torch.arange(x.size(0)), best]


class RecurrentGate(nn.Module):
    def __init__(self, d=5, n=3, h=8, out=2):
        super().__init__()
        self.rnn = nn.GRU(d, h, batch_first=True)
        self.gate = nn.Linear(h, n)
        self.experts = nn.ModuleList([mlp(h, 8, out) for _ in range(n)])

    def forward(self, x):
        _, h = self.rnn(x)
        h = h[-1]
        w = torch.softmax(self.gate(h), -1)
        return torch.stack([e(h) for e in self.experts], -1).mul(w.unsqueeze(1)).sum(-1)


class BaseLayer(nn.Module):
    def __init__(self, d=16, n=4):
        super().__init__()
        self.expert_centroids = nn.Parameter(torch.randn(n, d) * .2)
        self.experts = nn.ModuleList([mlp(d, 32, d) for _ in range(n)])

    def forward(self, x):
        b, t, d = x.shape
        flat = x.reshape(-1, d)
        affinity = flat @ self.expert_centroids.t()
        if self.training:
            for _ in range(5):
                affinity = affinity - affinity.logsumexp(0, keepdim=True)
                affinity = affinity - affinity.logsumexp(1, keepdim=True)
        choice = affinity.argmax(-1)
        alpha = torch.sigmoid(affinity.gather(1, choice[:, None]))
        out = torch.empty_like(flat)
        for i, e in enumerate(self.experts):
            m = choice == i
            out[m] = e(flat[m])
        return (alpha * out).view(b, t, d)


class ColumnsMMoE(nn.Module):
    def __init__(self, sizes=(5, 7, 3), e=4, n=3):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(s, e) for s in sizes])
        d = e * len(sizes)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(d, 8), nn.ReLU()) for _ in range(n)])
        self.gates = nn.ModuleList([nn.Linear(d, n, bias=False) for _ in range(2)])
        self.heads = nn.ModuleList([nn.Linear(8, 1) for _ in range(2)])

    def forward(self, x):                       # B 3 integers
        h = torch.cat([t(x[:, i]) for i, t in enumerate(self.tables)], -1)
        ex = torch.stack([m(h) for m in self.experts], 1)
        outs = []
        for g, head in zip(self.gates, self.heads):
            outs.append(torch.sigmoid(head(torch.einsum('bnh,bn->bh', ex, g(h).softmax(-1)))))
        return torch.cat(outs, 1)


class CosineTopK(nn.Module):
    def __init__(self, d=16, n=4, k=2):
        super().__init__()
        self.proj = nn.Linear(d, 8)
        self.expert_emb = nn.Parameter(torch.randn(n, 8))
        self.temperature = nn.Parameter(torch.tensor(0.3))
        self.experts = nn.ModuleList([mlp(d, 16, d) for _ in range(n)])
        self.k = k

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        logits = functional.normalize(self.proj(x), dim=-1) @ functional.normalize(self.expert_emb, dim=-1).t()
        gates = functional.softmax(logits / self.temperature.clamp(min=0.01), dim=-1)
        v, i = gates.topk(self.k, dim=-1)
        out = torch.zeros_like(x)
        for slot in range(self.k):
            for e in range(len(self.experts)):
                m = i[:, slot] == e
                if m.any():
                    out[m] += v[m, slot, None] * self.experts[e](x[m])
        return out.reshape(shape)


class DensePositions(nn.Module):
    def __init__(self, d=6, n=3):
        super().__init__()
        self.route = nn.Linear(d, n)
        self.workers = nn.ModuleList([mlp(d, 8, d) for _ in range(n)])

    def forward(self, x):
        w = self.route(x).softmax(-1)
        y = torch.stack([e(x) for e in self.workers], dim=-2)
        return (w.unsqueeze(-1) * y).sum(-2)


class DensePositionsInside(DensePositions):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(x + super().forward(self.norm(x))).mean(1)


def by_erf(x):
    return x * 0.5 * (1.0 + torch.erf(x / 2 ** 0.5))


class OwnGelu(HardArgmax):
    def forward(self, x):
        shares = functional.softmax(self.gate(x), -1)
        return (shares.unsqueeze(-1) * torch.stack([by_erf(expert(x)) for expert in self.experts], 1)).sum(1)


class OneHotLoRA(nn.Module):
    """A low-rank expert beside a layer for all, picked by a product with zeros and a one."""

    def __init__(self, d=12, r=4, n=4):
        super().__init__()
        self.base, self.router = nn.Linear(d, d), nn.Linear(d, n, bias=False)
        self.down = nn.Parameter(torch.randn(n, d, r) * .3)
        self.up = nn.Parameter(torch.randn(n, r, d) * .3)

    def forward(self, x):
        shares = functional.softmax(self.router(x), -1)
        picked = functional.one_hot(shares.argmax(-1), shares.shape[-1]).to(x.dtype) * shares
        return self.base(x) + torch.einsum('...d,ndr,nrk,...n->...k', x, self.down, self.up, picked)


class Disabled(nn.Module):
    """An expert that is out of service."""

    def __init__(self, d=12, n=4):
        super().__init__()
        self.gate, self.experts = nn.Linear(d, n), nn.ModuleList(nn.Linear(d, 3) for _ in range(n))
        self.register_buffer("dead", torch.tensor([False, True, False, False]))

    def forward(self, x):
        w = torch.softmax(self.gate(x).masked_fill(self.dead, float("-inf")), -1)
        return sum(w[:, i, None] * e(x) for i, e in enumerate(self.experts))


class Fields(nn.Module):
    """Attention to columns: no mixture."""

    def __init__(self, fields=4, size=6):
        super().__init__()
        self.columns = nn.ModuleList(nn.Linear(1, size) for _ in range(fields))
        self.score, self.out = nn.Linear(size, 1), nn.Linear(size, 2)

    def forward(self, x):
        columns = torch.stack([column(x[:, i:i + 1]) for i, column in enumerate(self.columns)], 1)
        return self.out((self.score(torch.tanh(columns)).softmax(1) * columns).sum(1))
