"""MoE blocks as people write them for themselves: every way to choose and mix, every name. See written_models.py."""

import torch
from torch import nn
from torch.nn import functional

SIZE, COUNT = 8, 4


class FFN(nn.Module):
    def __init__(self, size=SIZE, inner=12, outputs=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(size, inner), nn.ReLU(), nn.Linear(inner, outputs or size), nn.Dropout(0.1))

    def forward(self, x):
        return self.net(x)


def experts(make=FFN):
    return nn.ModuleList(make() for _ in range(COUNT))


def in_place(values, indices):
    """(items, experts) of the chosen weights."""
    return torch.zeros(*values.shape[:-1], COUNT).scatter(-1, indices, values)


# ---- chosen by a loop over the experts ----

class NoisyRouter(nn.Module):
    def __init__(self, always):
        super().__init__()
        self.topkroute_linear, self.noise_linear = nn.Linear(SIZE, COUNT), nn.Linear(SIZE, COUNT)
        self.top_k, self.always = 2, always

    def forward(self, x):
        logits = self.topkroute_linear(x)
        if self.always or self.training:
            logits = logits + torch.randn_like(logits) * functional.softplus(self.noise_linear(x))
        values, indices = logits.topk(self.top_k, dim=-1)
        sparse = torch.full_like(logits, float("-inf")).scatter(-1, indices, values)
        return functional.softmax(sparse, dim=-1), indices


class SparseMoE(nn.Module):
    """A tutorial's: masks over flattened positions, written to in place."""

    def __init__(self, always_noisy=False):
        super().__init__()
        self.router, self.experts = NoisyRouter(always_noisy), experts()

    def forward(self, x):
        weights, indices = self.router(x)
        output, flat, flat_weights = torch.zeros_like(x), x.view(-1, SIZE), weights.view(-1, COUNT)
        for index, expert in enumerate(self.experts):
            mask = (indices == index).any(dim=-1).view(-1)
            if mask.any():
                output.view(-1, SIZE)[mask] += expert(flat[mask]) * flat_weights[mask, index].unsqueeze(1)
        return output


class Switch(nn.Module):
    """Top-1; drops: as many as the capacity of the batch."""

    def __init__(self, drops=False):
        super().__init__()
        self.capacity_factor, self.drops = 1.0, drops
        self.experts, self.switch, self.softmax = experts(), nn.Linear(SIZE, COUNT), nn.Softmax(dim=-1)

    def forward(self, x):
        flat = x.reshape(-1, SIZE)
        best, routes = torch.max(self.softmax(self.switch(flat)), dim=-1)
        output = flat.new_zeros(flat.shape)
        for index in range(COUNT):
            items = torch.eq(routes, index).nonzero(as_tuple=True)[0]
            if self.drops:
                items = items[:int(self.capacity_factor * len(flat) / COUNT)]
            output[items] = self.experts[index](flat[items])
        return (output * best.view(-1, 1)).view(x.shape)


class Affinity(nn.Module):
    """Shared and routed experts, a bias that steers the choice, a loss that is kept."""

    def __init__(self):
        super().__init__()
        self.centroids = nn.Parameter(torch.randn(COUNT, SIZE))
        self.register_buffer("bias", torch.zeros(COUNT))
        self.shared, self.routed = nn.ModuleList(FFN() for _ in range(2)), experts()
        self.aux_loss = None

    def forward(self, x):
        flat = x.view(-1, SIZE)
        affinity = torch.sigmoid(flat @ self.centroids.T)
        indices = (affinity + self.bias).topk(2, -1)[1]
        gates = affinity.gather(-1, indices)
        gates = gates / (gates.sum(-1, keepdim=True) + 1e-9)
        output = sum(expert(flat) for expert in self.shared)
        for index, expert in enumerate(self.routed):
            items, slots = torch.where(indices == index)
            if items.numel():
                output = output.index_add(0, items, expert(flat[items]) * gates[items, slots, None])
        self.aux_loss = affinity.mean()
        return output.view_as(x)


class Clusters(nn.Module):
    """Routed to the nearest centroids of a clustering."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centroid", torch.randn(COUNT, SIZE))
        self.experts = experts()

    def forward(self, x):
        flat = x.view(-1, SIZE)
        weights, indices = torch.topk(-torch.cdist(flat, self.centroid), 2, dim=-1)
        weights, output = functional.softmax(weights, dim=-1), torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            items, slots = torch.where(indices == index)
            output[items] += weights[items, slots, None] * expert(flat[items])
        return output.view_as(x)


class SequenceGate(nn.Module):
    """The mean of all positions chooses for the whole row."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(SIZE, COUNT), experts()

    def forward(self, x):
        values, indices = functional.softmax(self.gate(x.mean(dim=1)), -1).topk(2, -1)
        values, output = values / values.sum(-1, keepdim=True), torch.zeros_like(x)
        for row in range(x.size(0)):
            for slot in range(2):
                output[row] += values[row, slot] * self.experts[int(indices[row, slot])](x[row:row + 1])[0]
        return output


class GatedMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(SIZE, 12, bias=False) for _ in range(2))
        self.down_proj, self.act_fn = nn.Linear(12, SIZE, bias=False), nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class ForecastBlock(nn.Module):
    """Time-MoE's: a gated shared expert, logits beside the output."""

    def __init__(self):
        super().__init__()
        self.top_k, self.gate, self.experts = 2, nn.Linear(SIZE, COUNT, bias=False), experts(GatedMLP)
        self.shared_expert, self.shared_expert_gate = GatedMLP(), nn.Linear(SIZE, 1, bias=False)

    def forward(self, hidden):
        flat = hidden.view(-1, SIZE)
        logits = self.gate(flat)
        weights, chosen = torch.topk(functional.softmax(logits, dim=1, dtype=torch.float), self.top_k, dim=-1)
        mask, output = functional.one_hot(chosen, COUNT).permute(2, 1, 0), torch.zeros(flat.shape)
        for index in range(COUNT):
            slots, items = torch.where(mask[index])
            output.index_add_(0, items, self.experts[index](flat[items]) * weights[items, slots, None])
        output = output + torch.sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)
        return output.reshape(hidden.shape), logits


# ---- all experts, then mixed ----

class Stacked(nn.Module):
    """Tabular: a network as gate, experts side by side in a new last axis."""

    def __init__(self):
        super().__init__()
        self.gating = nn.Sequential(nn.Linear(SIZE, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3),
                                    nn.Linear(16, COUNT), nn.Softmax(dim=1))
        self.experts = experts(lambda: FFN(outputs=3))

    def forward(self, x):
        answers = torch.stack([expert(x) for expert in self.experts], dim=2)
        return torch.sum(self.gating(x).unsqueeze(1) * answers, dim=2)


class Product(nn.Module):
    def __init__(self, size=SIZE):
        super().__init__()
        self.experts, self.gate = experts(lambda: nn.Linear(size, 5)), nn.Linear(size, COUNT)

    def forward(self, x):
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        return torch.bmm(functional.softmax(self.gate(x), dim=-1).unsqueeze(1), answers).squeeze(1)


class Unlike(nn.Module):
    """Experts of different depth, a temperature."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(SIZE, 3)
        self.experts = nn.ModuleList([
            nn.Linear(SIZE, 1), nn.Sequential(nn.Linear(SIZE, 6), nn.ReLU(), nn.Linear(6, 1)),
            nn.Sequential(nn.Linear(SIZE, 6), nn.Tanh(), nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 1))])

    def forward(self, x):
        answers = torch.cat([expert(x) for expert in self.experts], dim=-1)
        return (torch.softmax(self.gate(x) / 0.7, dim=-1) * answers).sum(dim=-1, keepdim=True)


class OneTensor(nn.Module):
    """A matrix of each expert in one tensor; the best answers are gathered."""

    def __init__(self):
        super().__init__()
        self.gate, self.We, self.top_k = nn.Linear(SIZE, COUNT, bias=False), nn.Parameter(
            torch.randn(COUNT, SIZE, SIZE)), 2

    def forward(self, x):
        values, indices = functional.softmax(self.gate(x), -1).topk(self.top_k, -1)
        answers = torch.einsum("btd,edh->bteh", x, self.We)
        best = answers.gather(2, indices.unsqueeze(-1).expand(-1, -1, -1, SIZE))
        return (best * (values / values.sum(-1, keepdim=True)).unsqueeze(-1)).sum(2)


class FourTensors(nn.Module):
    """Two layers of all experts in tensors with biases; a mask of what was chosen."""

    def __init__(self):
        super().__init__()
        self.router, self.act, self.k = nn.Linear(SIZE, COUNT), nn.GELU(), 2
        self.w_in, self.b_in = nn.Parameter(torch.randn(COUNT, SIZE, 12)), nn.Parameter(torch.randn(COUNT, 12))
        self.w_out, self.b_out = nn.Parameter(torch.randn(COUNT, 12, SIZE)), nn.Parameter(torch.randn(COUNT, SIZE))

    def forward(self, x):
        values, indices = torch.topk(functional.softmax(self.router(x), -1), self.k, dim=-1)
        hidden = self.act(torch.einsum("bnd,edh->bneh", x, self.w_in) + self.b_in)
        answers = torch.einsum("bneh,ehd->bned", hidden, self.w_out) + self.b_out
        return torch.einsum("bned,bne->bnd", answers, in_place(values, indices))


class LowRank(nn.Module):
    """LoRA experts in lists of matrices beside the linear layer that they adapt."""

    def __init__(self, top_k=None):
        super().__init__()
        self.base, self.router, self.scaling, self.top_k = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, COUNT), 2.0, top_k
        self.lora_A = nn.ParameterList([nn.Parameter(torch.randn(2, SIZE)) for _ in range(COUNT)])
        self.lora_B = nn.ParameterList([nn.Parameter(torch.randn(SIZE, 2)) for _ in range(COUNT)])

    def forward(self, x):
        weights, total = functional.softmax(self.router(x), dim=-1), 0
        if self.top_k:
            weights = in_place(*weights.topk(self.top_k, -1))
        for index in range(COUNT):
            total = total + weights[..., index:index + 1] * (x @ self.lora_A[index].T @ self.lora_B[index].T)
        return self.base(x) + self.scaling * total


class Adapters(nn.Module):
    """LoRA experts as modules; the scale is a number in the code."""

    def __init__(self):
        super().__init__()
        self.base_layer, self.router = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, COUNT)
        self.experts = experts(lambda: nn.Sequential(nn.Linear(SIZE, 2, bias=False), nn.Linear(2, SIZE, bias=False)))

    def forward(self, x):
        values, indices = functional.softmax(self.router(x), dim=-1).topk(1, -1)
        total = 0
        for index, expert in enumerate(self.experts):
            total = total + expert(x) * ((indices == index).float() * values).sum(-1, keepdim=True)
        return self.base_layer(x) + total * 2.0


class Convolutions(nn.Module):
    """Convolutional experts, a gate of what is pooled of the image, w_gate and w_noise as parameters."""

    def __init__(self):
        super().__init__()
        self.experts = experts(lambda: nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU()))
        self.gap, self.k = nn.AdaptiveAvgPool2d((1, 1)), 2
        self.w_gate, self.w_noise = (nn.Parameter(torch.zeros(3, COUNT)) for _ in range(2))

    def forward(self, x):
        pooled = self.gap(x).view(x.size(0), -1)
        logits = pooled @ self.w_gate
        if self.training:
            logits = logits + torch.randn_like(logits) * functional.softplus(pooled @ self.w_noise)
        values, indices = logits.topk(self.k, dim=1)
        gates = in_place(functional.softmax(values, 1), indices)
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        return (gates.view(*gates.shape, 1, 1, 1) * answers).sum(1)


class SoftMoE(nn.Module):
    """Slots that are mixtures of positions, and back."""

    def __init__(self):
        super().__init__()
        self.phi, self.scale, self.experts = nn.Parameter(torch.randn(SIZE, COUNT, 2)), nn.Parameter(
            torch.ones(1)), experts()

    def forward(self, x):
        phi = self.scale * functional.normalize(self.phi, dim=0)
        logits = torch.einsum("bmd,dnp->bmnp", functional.normalize(x, dim=-1), phi)
        combine = functional.softmax(logits.flatten(2), dim=-1).view(logits.shape)
        slots = torch.einsum("bmd,bmnp->bnpd", x, logits.softmax(dim=1))
        answers = torch.stack([expert(slots[:, index]) for index, expert in enumerate(self.experts)], dim=1)
        return torch.einsum("bnpd,bmnp->bmd", answers, combine)


# ---- what a checkpoint has no words for ----

class ExpertChoice(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(SIZE, COUNT), experts()

    def forward(self, x):
        values, items = functional.softmax(self.gate(x), -1).transpose(1, 2).topk(2, -1)
        output = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            places = items[:, index].unsqueeze(-1).expand(-1, -1, SIZE)
            answers = expert(x.gather(1, places)) * values[:, index].unsqueeze(-1)
            output = output.scatter_add(1, places, answers)
        return output


class Depths(nn.Module):
    """Mixture of depths: half of the positions pass the block."""

    def __init__(self):
        super().__init__()
        self.router, self.block = nn.Linear(SIZE, 1), FFN()

    def forward(self, x):
        values, items = torch.topk(self.router(x), x.size(1) // 2, dim=1)
        places = items.expand(-1, -1, SIZE)
        return torch.scatter_add(x, 1, places, self.block(x.gather(1, places)) * values)


class Gumbel(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(SIZE, COUNT), experts()

    def forward(self, x):
        weights = functional.gumbel_softmax(self.gate(x), tau=1.0, hard=True)
        return (torch.stack([expert(x) for expert in self.experts], 1) * weights.unsqueeze(-1)).sum(1)


class EnoughOfThem(nn.Module):
    """Top-p: as many experts as make up 0.7."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(SIZE, COUNT), experts()

    def forward(self, x):
        shares = functional.softmax(self.gate(x), -1)
        sorted_shares, indices = shares.sort(-1, descending=True)
        weights = shares * in_place(((sorted_shares.cumsum(-1) - sorted_shares) < 0.7).float(), indices)
        weights = weights / weights.sum(-1, keepdim=True)
        return sum(weights[:, index:index + 1] * expert(x) for index, expert in enumerate(self.experts))
