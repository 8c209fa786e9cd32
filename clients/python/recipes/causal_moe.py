"""A decoder whose feed-forward layers are sparse experts: the function of transformers' Qwen3MoeForCausalLM.

Parameters are kept as training wants them, the experts of a layer stacked; `published` gives them the names and shapes
of the Hugging Face layout. The rows of a batch are sorted by expert, so that every expert is one product of all its
rows: at some thousand tokens per step that is as fast as the processor goes, and no row is dropped.
"""

import json
import math
import os
from collections import namedtuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from moed import safetensors

# Of one layer, per token: the experts chosen (tokens, k), their combine weights, the probabilities of all (tokens, E).
Routing = namedtuple("Routing", "experts weights probabilities logits")
Shape = namedtuple("Shape", "vocabulary hidden layers heads kv_heads head_size experts top_k expert_size theta eps "
                            "context")


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps))


def rotary_tables(shape):
    """cos and sin, (context, head_size / 2)."""
    places = torch.arange(0, shape.head_size, 2, dtype=torch.float64) / shape.head_size
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), shape.theta ** -places)
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    """Half form: element j turns with element j + size / 2. x (rows, heads, positions, size)."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)


def plain_attention(q, k, v, is_causal):
    """The function of PyTorch's own, which it has since 2.0."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if is_causal:
        length = q.shape[-2]
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -math.inf)
    return scores.softmax(dim=-1) @ v


attend = getattr(F, "scaled_dot_product_attention", plain_attention)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape, size = shape, shape.head_size
        self.q_proj = nn.Linear(shape.hidden, shape.heads * size, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * size, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * size, bias=False)
        self.o_proj = nn.Linear(shape.heads * size, shape.hidden, bias=False)
        self.q_norm, self.k_norm = RMSNorm(size, shape.eps), RMSNorm(size, shape.eps)

    def forward(self, x, cos, sin):
        rows, length, _ = x.shape
        heads = [part.view(rows, length, -1, self.shape.head_size)
                 for part in (self.q_proj(x), self.k_proj(x), self.v_proj(x))]
        q, k = self.q_norm(heads[0]).transpose(1, 2), self.k_norm(heads[1]).transpose(1, 2)
        group = self.shape.heads // self.shape.kv_heads
        k, v = (part.repeat_interleave(group, dim=1) for part in (rotate(k, cos, sin), heads[2].transpose(1, 2)))
        mixed = attend(rotate(q, cos, sin), k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))


class Experts(nn.Module):
    """Softmax over all experts, the best k renormalised to 1, each a gated unit with SiLU."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.gate = nn.Linear(shape.hidden, shape.experts, bias=False)
        self.gate_up = nn.Parameter(torch.empty(shape.experts, 2 * shape.expert_size, shape.hidden))
        self.down = nn.Parameter(torch.empty(shape.experts, shape.hidden, shape.expert_size))
        self.routing = None

    def forward(self, x):
        flat = x.reshape(-1, self.shape.hidden)
        logits = self.gate(flat)
        probabilities = logits.softmax(dim=-1)
        best, experts = probabilities.topk(self.shape.top_k, dim=-1)
        weights = best / best.sum(dim=-1, keepdim=True)
        self.routing = Routing(experts, weights, probabilities, logits)
        return self._mixed(flat, experts, weights).view_as(x)

    def _mixed(self, flat, experts, weights):
        order = experts.flatten().argsort(stable=True)
        token = order // self.shape.top_k
        counts = torch.bincount(experts.flatten(), minlength=self.shape.experts).tolist()
        groups = flat[token].split(counts)
        outputs = [self._expert(index, rows) for index, rows in enumerate(groups)]
        return torch.zeros_like(flat).index_add(0, token, torch.cat(outputs) * weights.flatten()[order, None])

    def _expert(self, index, rows):
        gate, up = F.linear(rows, self.gate_up[index]).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down[index])


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.eps)
        self.mlp = Experts(shape)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class CausalMoE(nn.Module):
    """Token ids (rows, positions) -> logits (rows, positions, vocabulary). The output layer is the embedding's."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList([Block(shape) for _ in range(shape.layers)])
        self.norm = RMSNorm(shape.hidden, shape.eps)
        self.cos, self.sin = rotary_tables(shape)
        self._initialise()

    def _initialise(self):
        """Normal, 0.02; what is added to the stream is smaller, as there are 2 x layers such terms."""
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                added = name.endswith(("o_proj.weight", "mlp.down"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * self.shape.layers) if added else 0.02)

    def forward(self, tokens):
        x, length = self.embed_tokens(tokens), tokens.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def routings(self):
        return [layer.mlp.routing for layer in self.layers]


def balance_loss(routing, experts):
    """Switch's: E times sum over experts of share of the choices times mean probability; 1 when even."""
    shares = torch.bincount(routing.experts.flatten(), minlength=experts) / routing.experts.numel()
    return experts * (shares * routing.probabilities.mean(dim=0)).sum()


def z_loss(routing):
    """Keeps the router's logits small, where their rounding matters less."""
    return routing.logits.logsumexp(dim=-1).square().mean()


# --- the Hugging Face layout ------------------------------------------------------------------------------------

def config(shape, ends, dtype):
    """config.json of a Qwen3MoeForCausalLM; `ends` are the ids that end a text, `dtype` PyTorch's name of a type."""
    return {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": shape.vocabulary,
            "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_size, "num_experts": shape.experts,
            "num_experts_per_tok": shape.top_k, "moe_intermediate_size": shape.expert_size, "norm_topk_prob": True,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "intermediate_size": shape.expert_size * shape.top_k,
            "hidden_act": "silu", "rms_norm_eps": shape.eps, "rope_theta": shape.theta, "rope_scaling": None,
            "max_position_embeddings": shape.context, "attention_bias": False, "attention_dropout": 0.0,
            "use_sliding_window": False, "sliding_window": None, "tie_word_embeddings": True,
            "router_aux_loss_coef": 0.01, "output_router_logits": False, "initializer_range": 0.02,
            "use_cache": True, "bos_token_id": None, "eos_token_id": ends, "torch_dtype": dtype}


def published(model):
    """{name: array}: one matrix per expert and projection, as the family is published."""
    result = {}
    for name, value in model.state_dict().items():
        value, prefix = value.float().numpy(), f"model.{name}"
        if name.endswith(("mlp.gate_up", "mlp.down")):
            stem = prefix[:prefix.rindex(".")]
            for index, expert in enumerate(value):
                parts = {"down_proj": expert} if name.endswith("down") else \
                    dict(zip(("gate_proj", "up_proj"), (expert[:len(expert) // 2], expert[len(expert) // 2:])))
                result.update({f"{stem}.experts.{index}.{part}.weight": matrix for part, matrix in parts.items()})
        else:
            result[prefix] = value
    return result


def load(directory):
    """The CausalMoE of a checkpoint that `published` and `config` describe, in float32."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        keys = json.load(file)
    model = CausalMoE(Shape(*(keys[key] for key in (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "num_experts", "num_experts_per_tok", "moe_intermediate_size", "rope_theta", "rms_norm_eps",
        "max_position_embeddings"))))
    tensors = {name: torch.tensor(np.array(value, dtype=np.float32)) for name, value in
               safetensors.read(os.path.join(directory, "model.safetensors")).items()}
    model.load_state_dict({name: _stacked(name, tensors, model.shape.experts) for name in model.state_dict()})
    return model


def _stacked(name, tensors, experts):
    stem, _, part = f"model.{name}".rpartition(".")
    parts = {"gate_up": ("gate_proj", "up_proj"), "down": ("down_proj",)}.get(part)
    if parts is None:
        return tensors[f"model.{name}"]
    return torch.stack([torch.cat([tensors[f"{stem}.experts.{index}.{one}.weight"] for one in parts])
                        for index in range(experts)])


# --- writing ----------------------------------------------------------------------------------------------------

def continued(model, tokens, count, ends, temperature=0.7, top_k=40):
    """The ids that follow, drawn with torch's random numbers, until `count` or one of `ends`."""
    written = []
    with torch.no_grad():
        while len(written) < count and not (written and written[-1] in ends):
            logits = model(torch.tensor([(tokens + written)[-model.shape.context:]]))[0, -1]
            best, ids = logits.topk(top_k)
            written.append(int(ids[torch.multinomial((best / temperature).softmax(dim=-1), 1)]))
    return written
