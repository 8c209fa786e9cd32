"""MoE blocks with the names, packings and loops of other packages, written for these tests."""

import torch
from torch import nn
from torch.nn import functional


class Settings:
    """A configuration object."""

    def __init__(self, **values):
        self.__dict__.update(values)


def each_expert(experts, x, indices, weights):
    """The loop over experts and their rows that every one of these blocks has."""
    output = torch.zeros_like(x)
    for index in range(experts.count):
        rows, place = torch.where(indices == index)
        if rows.numel() > 0:
            output.index_add_(0, rows, experts.one(index, x[rows]) * weights[rows, place, None])
    return output


class PackedExperts(nn.Module):
    """Transformers: gate and up in one tensor, all experts in one parameter."""

    def __init__(self, count, size, inner, activation=functional.silu):
        super().__init__()
        self.count, self.act_fn = count, activation
        self.gate_up_proj = nn.Parameter(torch.randn(count, 2 * inner, size) / 4)
        self.down_proj = nn.Parameter(torch.randn(count, size, inner) / 4)

    def one(self, index, x):
        gate, up = functional.linear(x, self.gate_up_proj[index]).chunk(2, dim=-1)
        return functional.linear(self.act_fn(gate) * up, self.down_proj[index])


class ClampedExperts(nn.Module):
    """GPT-OSS: transposed, gate and up by turns, biases, limits."""

    def __init__(self, count, size, inner):
        super().__init__()
        self.count, self.alpha, self.limit = count, 1.702, 1.0
        self.gate_up_proj = nn.Parameter(torch.randn(count, size, 2 * inner))
        self.gate_up_proj_bias = nn.Parameter(torch.randn(count, 2 * inner))
        self.down_proj = nn.Parameter(torch.randn(count, inner, size))
        self.down_proj_bias = nn.Parameter(torch.randn(count, size))

    def one(self, index, x):
        gate_up = x @ self.gate_up_proj[index] + self.gate_up_proj_bias[index]
        gate, up = gate_up[..., ::2].clamp(max=self.limit), gate_up[..., 1::2].clamp(-self.limit, self.limit)
        return ((up + 1) * gate * torch.sigmoid(gate * self.alpha)) @ self.down_proj[index] + self.down_proj_bias[index]


class LimitedExperts(PackedExperts):
    """DeepSeek-V4: both halves clamped, nothing else of GPT-OSS."""

    limit = 0.5

    def one(self, index, x):
        gate, up = functional.linear(x, self.gate_up_proj[index]).chunk(2, dim=-1)
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return functional.linear(self.act_fn(gate) * up, self.down_proj[index])


class ZeroExperts(PackedExperts):
    """LongCat: the last ones give what they are given, and have no down_proj."""

    def __init__(self, count, zeros, size, inner):
        super().__init__(count, size, inner)
        self.down_proj = nn.Parameter(self.down_proj[:-zeros].detach())

    def one(self, index, x):
        return super().one(index, x) if index < len(self.down_proj) else x


class UngatedExperts(nn.Module):
    """Nemotron-H: up_proj and down_proj, relu squared between."""

    def __init__(self, count, size, inner):
        super().__init__()
        self.count, self.act_fn = count, lambda x: functional.relu(x).square()
        self.up_proj = nn.Parameter(torch.randn(count, inner, size) / 4)
        self.down_proj = nn.Parameter(torch.randn(count, size, inner) / 4)

    def one(self, index, x):
        return functional.linear(self.act_fn(functional.linear(x, self.up_proj[index])), self.down_proj[index])


class ModuleExperts(nn.ModuleList):
    """A module per expert."""

    @property
    def count(self):
        return len(self)

    def one(self, index, x):
        return self[index](x)


class MLP(nn.Module):
    def __init__(self, size, inner):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(size, inner, bias=False), nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class TopKRouter(nn.Module):
    """(logits, weights, indices) by one of the policies of language models."""

    def __init__(self, policy, count, size, top_k, **settings):
        super().__init__()
        self.policy, self.top_k = policy, top_k
        self.weight = nn.Parameter(torch.zeros(count, size))  # as they begin
        self.__dict__.update(settings)
        if policy == "deepseek-v3":
            self.register_buffer("e_score_correction_bias", torch.rand(count))

    def forward(self, x):
        logits = functional.linear(x, self.weight)
        return (logits, *getattr(self, f"_{self.policy.replace('-', '_')}")(logits))

    def _mixtral(self, logits):
        weights, indices = logits.softmax(-1).topk(self.top_k)
        return weights / weights.sum(-1, keepdim=True), indices

    def _olmoe(self, logits):
        return logits.softmax(-1).topk(self.top_k)

    def _gpt_oss(self, logits):
        weights, indices = logits.topk(self.top_k)
        return weights.softmax(-1), indices

    def _deepseek_v4(self, logits):
        weights, indices = functional.softplus(logits).sqrt().topk(self.top_k)
        return weights / weights.sum(-1, keepdim=True), indices

    def _deepseek_v3(self, logits):
        scores = logits.sigmoid()
        keys = (scores + self.e_score_correction_bias).unflatten(-1, (self.n_group, -1))
        best = keys.topk(2)[0].sum(-1).topk(self.topk_group)[1]
        keys = keys.masked_fill(torch.ones_like(keys[..., 0]).scatter(1, best, 0).bool().unsqueeze(-1), -9.0)
        indices = keys.flatten(1).topk(self.top_k)[1]
        weights = scores.gather(1, indices)
        return weights / weights.sum(-1, keepdim=True) * self.routed_scaling_factor, indices


class Block(nn.Module):
    """`pair`: also gives the logits, as older versions do."""

    def __init__(self, router, experts, shared=None, shared_gate=None, pair=False):
        super().__init__()
        self.gate, self.experts, self.pair = router, experts, pair
        if shared is not None:
            self.shared_expert = shared
        self.shared_expert_gate = shared_gate

    def forward(self, hidden_states):
        rows, positions, size = hidden_states.shape
        x = hidden_states.view(-1, size)
        logits, weights, indices = self.gate(x)
        output = each_expert(self.experts, x, indices, weights)
        if hasattr(self, "shared_expert"):
            shared = self.shared_expert(x)
            if self.shared_expert_gate is not None:
                shared = self.shared_expert_gate(x).sigmoid() * shared
            output = output + shared
        output = output.reshape(rows, positions, size)
        return (output, logits) if self.pair else output


class LinearGateBlock(nn.Module):
    """Remote code of the first Mixtral: a Linear as the gate, experts w1, w3 and w2 as modules, top_k on the block."""

    def __init__(self, count, size, inner):
        super().__init__()
        self.top_k = 2
        self.gate = nn.Linear(size, count, bias=False)
        self.experts = ModuleExperts(MLP(size, inner) for _ in range(count))

    def forward(self, x):
        flat = x.view(-1, x.shape[-1])
        weights, indices = self.gate(flat).softmax(-1).topk(self.top_k)
        output = each_expert(self.experts, flat, indices, weights / weights.sum(-1, keepdim=True))
        return output.view(x.shape), self.gate(flat)


class Dropping(LinearGateBlock):
    """Switch, GShard: an expert takes so many positions of a row, first choices first; the others get nothing of it."""

    def __init__(self, count, size, inner, expert_capacity):
        super().__init__(count, size, inner)
        self.expert_capacity = expert_capacity

    def forward(self, x):
        output = []
        for row in x:
            weights, indices = self.gate(row).softmax(-1).topk(self.top_k)
            order = functional.one_hot(indices.t().reshape(-1), len(self.experts)).cumsum(0)
            place = order.gather(1, indices.t().reshape(-1, 1)).reshape(self.top_k, -1).t()
            output.append(each_expert(self.experts, row, indices, weights * (place <= self.expert_capacity)))
        return torch.stack(output)


class EinsumMoE(nn.Module):
    """lucidrains: w1 and w2 of all experts, tensors of dispatch and combination, a loss beside the output."""

    class Experts(nn.Module):
        def __init__(self, count, size, inner):
            super().__init__()
            self.w1 = nn.Parameter(torch.randn(count, size, inner) / 3)
            self.w2 = nn.Parameter(torch.randn(count, inner, size) / 3)
            self.act = nn.ReLU()

        def forward(self, x):
            hidden = self.act(torch.einsum("end,edh->enh", x, self.w1))
            return torch.einsum("end,edh->enh", hidden, self.w2)

    class Gating(nn.Module):
        def __init__(self, count, size):
            super().__init__()
            self.w_gating = nn.Parameter(torch.randn(size, count))

        def forward(self, x):
            best, indices = (x @ self.w_gating).softmax(-1).topk(2)
            gates = best / (best.sum(-1, keepdim=True) + 1e-9)
            return torch.zeros(*x.shape[:-1], self.w_gating.shape[1]).scatter(-1, indices, gates)

    def __init__(self, count, size, inner):
        super().__init__()
        self.gate, self.experts = self.Gating(count, size), self.Experts(count, size, inner)

    def forward(self, inputs):
        combine = self.gate(inputs)
        flat = inputs.reshape(1, -1, inputs.shape[-1]).expand(combine.shape[-1], -1, -1)
        output = torch.einsum("end,ne->nd", self.experts(flat), combine.flatten(0, 1))
        return output.reshape(inputs.shape), combine.mean()


class NoisyTopK(nn.Module):
    """davidmrau: w_gate [in, E], noise in training, (output, loss); rows of one axis."""

    def __init__(self, count, size, outputs, k):
        super().__init__()
        self.k, self.noisy_gating = k, True
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(size, 6), nn.ReLU(), nn.Linear(6, outputs))
                                     for _ in range(count))
        self.w_gate, self.w_noise = nn.Parameter(torch.randn(size, count)), nn.Parameter(torch.zeros(size, count))

    def forward(self, x, loss_coef=1e-2):
        top, indices = (x @ self.w_gate).softmax(1).topk(min(self.k + 1, len(self.experts)))
        gates = top[:, :self.k] / (top[:, :self.k].sum(1, keepdim=True) + 1e-6)
        weights = torch.zeros(len(x), len(self.experts)).scatter(1, indices[:, :self.k], gates)
        parts = []
        for index, expert in enumerate(self.experts):
            rows = weights[:, index].nonzero().squeeze(1)
            part = torch.zeros(len(x), self.experts[0][2].out_features)
            parts.append(part.index_add(0, rows, expert(x[rows]) * weights[rows, index, None]))
        return sum(parts), weights.sum(0).var() * loss_coef


class Expectation(nn.Module):
    """arXiv 2302.14703's code: experts and a gate with a temperature that end in softmaxes, outputs kept on the module,
    a train() that trains."""

    class Network(nn.Module):
        def __init__(self, size, outputs):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(size, 8), nn.Linear(8, outputs)

        def forward(self, x, T=1.0, y=None):
            x = functional.relu(self.fc1(x.view(-1, self.fc1.in_features)))
            return functional.softmax(self.fc2(x) / T, dim=1)

    def __init__(self, count, size, classes):
        super().__init__()
        self.experts = nn.ModuleList(self.Network(size, classes) for _ in range(count))
        self.gate = self.Network(size, count)

    def train(self, trainloader, optimizer, epochs=10):
        raise AssertionError("not here")

    def forward(self, inputs, T=1.0):
        y = torch.vstack([expert(inputs).unsqueeze(0) for expert in self.experts])
        y.transpose_(0, 1)
        self.expert_outputs, self.gate_outputs = y, self.gate(inputs, T)
        return torch.sum(self.gate_outputs.unsqueeze(-1).repeat(1, 1, y.shape[2]) * y, 1)


class Selected(Expectation):
    """The same with the k likeliest experts. With one it is what their stochastic gates do in evaluation."""

    def __init__(self, count, size, classes, k):
        super().__init__(count, size, classes)
        self.k = k

    def forward(self, inputs, T=1.0):
        y = torch.stack([expert(inputs) for expert in self.experts], 1)
        values, indices = self.gate(inputs, T).topk(self.k)
        weights = torch.zeros(y.shape[:2]).scatter(1, indices, values / values.sum(1, keepdim=True))
        return torch.sum(weights.unsqueeze(-1) * y, 1)


class Attentive(Expectation):
    """The same code's attentive gate: its hidden vector against those of all experts, after the ReLU."""

    def __init__(self, count, size, classes, k):
        super().__init__(count, size, classes)
        self.k, self.query, self.key = k, nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, inputs, T=1.0):
        hidden = torch.stack([functional.relu(expert.fc1(inputs)) for expert in self.experts], 1)
        query = self.query(functional.relu(self.gate.fc1(inputs)))
        weights = torch.softmax((self.key(hidden) @ query.unsqueeze(-1)).squeeze(-1) / 8 ** 0.5, 1)
        values, indices = weights.topk(self.k)
        weights = torch.zeros_like(weights).scatter(1, indices, values / values.sum(1, keepdim=True))
        return torch.sum(weights.unsqueeze(-1) * torch.stack([expert(inputs) for expert in self.experts], 1), 1)


class RoutedPatches(nn.Module):
    """arXiv 2208.02813's synthetic code: filters over patches, cubed or not, summed; the weight is the raw logit."""

    class Filters(nn.Module):
        def __init__(self, cubed):
            super().__init__()
            self.cubed, self.conv1 = cubed, nn.Conv1d(1, 6, 5, 5, bias=False)

        def forward(self, x):
            x = self.conv1(x)
            x = torch.sum(x ** 3 if self.cubed else x, 2)
            return torch.stack([torch.sum(x[:, :3], 1), torch.sum(x[:, 3:], 1)]).transpose(1, 0)

    class Router(nn.Module):
        def __init__(self, count):
            super().__init__()
            self.conv1 = nn.Conv1d(1, count, 5, 5, bias=False)

        def forward(self, x):
            return torch.sum(self.conv1(x), 2)

    def __init__(self, count, cubed):
        super().__init__()
        self.router = self.Router(count)
        self.models = nn.ModuleList(self.Filters(cubed) for _ in range(count))

    def forward(self, x):
        gate, index = self.router(x).topk(k=1, dim=-1)
        mask = functional.one_hot(index.squeeze(-1), len(self.models)).float()
        output = torch.stack([model(x) for model in self.models])
        return functional.softmax(torch.einsum("be,ebc->bc", gate * mask, output), dim=1)


class RoutedImages(nn.Module):
    """arXiv 2208.02813's code: a convolution as the router, one expert a row, a softmax after the sum, four results."""

    class Router(nn.Module):
        def __init__(self, count):
            super().__init__()
            self.conv1 = nn.Conv2d(3, count, 4, 4)

        def forward(self, x):
            return torch.sum(torch.sum(self.conv1(x), 2), 2)

    class Expert(nn.Module):
        """A residual block whose shortcut has a convolution."""

        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
            self.shortcut = nn.Sequential(nn.Conv2d(3, 4, 1, 2, bias=False), nn.BatchNorm2d(4))
            self.linear = nn.Linear(4, 5)

        def forward(self, x):
            out = self.bn1(self.conv1(x))
            out += self.shortcut(x)
            return self.linear(functional.avg_pool2d(functional.relu(out), 4).flatten(1))

    def __init__(self, count, expert=None):
        super().__init__()
        self.router = self.Router(count)
        self.models = nn.ModuleList((expert or self.Expert)() for _ in range(count))

    def forward(self, x):
        select = functional.softmax(self.router(x), dim=1)
        gate, index = select.topk(k=1, dim=-1)
        mask = functional.one_hot(index.squeeze(-1), len(self.models)).float()
        inputs = torch.einsum("bjkd,be->ebjkd", x, mask)
        output = torch.stack([model(part) for model, part in zip(self.models, inputs)])
        output = torch.einsum("be,ebc->bc", gate * mask, output)
        return functional.softmax(output, dim=1), mask, select.mean(), 0


class Squared(Block):
    """A policy of its own."""

    def forward(self, x):
        _, weights, indices = self.gate(x.view(-1, x.shape[-1]))
        return each_expert(self.experts, x.view(-1, x.shape[-1]), indices, weights ** 2).view(x.shape)


class InputScaled(Block):
    """Llama 4: the weight multiplies the expert's input."""

    def forward(self, x):
        weights, indices = self.gate(x.view(-1, x.shape[-1]))[0].topk(1)
        flat = x.view(-1, x.shape[-1]) * weights.sigmoid()
        return each_expert(self.experts, flat, indices, torch.ones_like(weights)).view(x.shape)


class Flattening(InputScaled):
    """Llama 4, too, leaves the positions of all rows in one axis."""

    def forward(self, x):
        return super().forward(x).view(-1, x.shape[-1]), self.gate(x.view(-1, x.shape[-1]))


class SlotExperts(nn.Module):
    """soft-moe-pytorch's SoftMoE, its parts in a forward() that moves no weights between devices."""

    def __init__(self, block):
        super().__init__()
        self.norm, self.slot_norm, self.slot_embeds = block.norm, block.slot_norm, block.slot_embeds
        self.experts = block.experts.experts

    def forward(self, x):
        x = self.norm(x)
        logits = torch.einsum("bnd,esd->bnes", x, self.slot_norm(self.slot_embeds))
        slots = torch.einsum("bnd,bnes->besd", x, logits.softmax(1))
        given = torch.stack([expert(slots[:, index]) for index, expert in enumerate(self.experts)], 1).flatten(1, 2)
        return torch.einsum("bsd,bns->bnd", given, logits.flatten(2).softmax(-1))


class WithoutLoss(nn.Module):
    """Balanced by a bias on the choice alone, several shared experts in a list."""

    def __init__(self, count, size, inner, shared):
        super().__init__()
        self.top_k, self.gate = 2, nn.Linear(size, count, bias=False)
        self.experts = ModuleExperts(MLP(size, inner) for _ in range(count))
        self.shared_experts = nn.ModuleList(MLP(size, inner) for _ in range(shared))
        self.register_buffer("expert_bias", torch.linspace(-0.2, 0.2, count))

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        scores = torch.sigmoid(self.gate(flat))
        indices = (scores + self.expert_bias).topk(self.top_k)[1]
        weights = scores.gather(-1, indices)
        routed = each_expert(self.experts, flat, indices, weights / weights.sum(-1, keepdim=True))
        return (routed + sum(expert(flat) for expert in self.shared_experts)).reshape(x.shape)


class WithHead(nn.Module):
    """A mixture and what comes after it in one forward."""

    def __init__(self, size):
        super().__init__()
        self.experts, self.gate = nn.ModuleList(nn.Conv1d(size, 4, 3) for _ in range(3)), nn.Linear(size, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        weights = torch.softmax(self.gate(x.mean(2)), 1)
        mixed = (torch.stack([expert(x) for expert in self.experts], 1) * weights[:, :, None, None]).sum(1)
        return self.head(mixed.mean(-1))
