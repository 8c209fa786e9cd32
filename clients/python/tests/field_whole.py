"""Whole models for the table of field.py: language models of transformers, and decoders of their shape."""

import importlib

import torch
from torch import nn
from torch.nn import functional

from tests import foreign

SIZE, HEADS, KV_HEADS, POSITIONS, WORDS = 16, 4, 2, 6, 50
COMMON = {"hidden_size": SIZE, "intermediate_size": 24, "moe_intermediate_size": 12, "num_hidden_layers": 2,
          "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": 4, "vocab_size": WORDS,
          "max_position_embeddings": 64, "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4,
          "num_experts_per_tok": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPS = {"n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
FULL = {"layer_types": ["full_attention", "full_attention"]}
LATENT = {"num_key_value_heads": HEADS, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
          "qk_nope_head_dim": 4, "v_head_dim": 4, **GROUPS}
STATES = {"mamba_d_state": 4, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1}
DECODERS = (
    ("Mixtral", {}), ("Mixtral", {"sliding_window": 3}), ("Olmoe", {}),
    ("Qwen2Moe", {"shared_expert_intermediate_size": 20}), ("Qwen3Moe", {}), ("GraniteMoe", {}),
    ("GraniteMoeShared", {"shared_intermediate_size": 20}), ("Phimoe", {}),
    ("GptOss", {"head_dim": 8, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
    ("Glm4Moe", GROUPS), ("Dots1", GROUPS),
    ("Ernie4_5_Moe", {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1}), ("FlexOlmo", {}),
    ("MiniMaxM2", {}), ("Cohere2Moe", {}), ("MiniMax", FULL),
    ("Lfm2Moe", {**FULL, "num_dense_layers": 1, "norm_eps": 1e-5}), ("Olmoe", {"clip_qkv": 0.5}),
    ("HunYuanMoEV1", {"moe_topk": 2}), ("DeepseekV2", LATENT), ("DeepseekV3", LATENT),
    ("DeepseekV3", {**LATENT, "q_lora_rank": None}), ("Jamba", STATES))
REFUSED = (("JetMoe", {"kv_channels": 4}, "experts are parts of attention"),)
# What is said of them beside their name, by a setting.
SAID = {"sliding_window": ", a window", "clip_qkv": ", clipped", "mamba_d_state": ", its state step by step",
        "qk_rope_head_dim": ", latent attention"}


def causal_lm(name, **settings):
    """A model of transformers that gives a logit for every word at every position."""
    package = importlib.import_module("transformers")
    config = getattr(package, f"{name}Config")(**{**COMMON, **settings})
    return getattr(package, f"{name}ForCausalLM")(config).eval()


def switch_encoder():
    package = importlib.import_module("transformers")
    return package.SwitchTransformersEncoderModel(package.SwitchTransformersConfig(
        d_model=SIZE, d_kv=4, d_ff=24, num_layers=4, num_sparse_encoder_layers=2, num_heads=HEADS, num_experts=4,
        expert_capacity=3, vocab_size=WORDS, pad_token_id=0)).eval()


# ---- decoders of the same shape: rotary tables and a mask go from the model to its layers ----

class Norm(nn.Module):
    """An RMSNorm or LayerNorm, written out as packages do."""

    def __init__(self, size, centred=False):
        super().__init__()
        self.weight, self.variance_epsilon, self.centred = nn.Parameter(torch.ones(size)), 1e-5, centred

    def forward(self, hidden):
        hidden = hidden.to(torch.float32)
        if self.centred:
            hidden = hidden - hidden.mean(-1, keepdim=True)
        variance = (hidden * hidden).sum(-1, keepdim=True) / hidden.shape[-1]
        return self.weight * (hidden / torch.sqrt(variance + self.variance_epsilon))


class Rotary(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("inv_freq", 1e4 ** (-torch.arange(0, width, 2).float() / width), persistent=False)

    def forward(self, x, position_ids):
        angles = (position_ids[..., None].float() * self.inv_freq).repeat(1, 1, 2)
        return angles.cos(), angles.sin()


class Attention(nn.Module):
    """qk_norm: of every head. sinks: of GPT-OSS. Gives (mixed, None), as transformers' attention does."""

    def __init__(self, qk_norm=False, sinks=False, window=None, width=4):
        super().__init__()
        self.num_heads, self.head_dim, self.sliding_window = HEADS, width, window
        self.q_proj = nn.Linear(SIZE, HEADS * width, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(SIZE, KV_HEADS * width, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(HEADS * width, SIZE, bias=False)
        if qk_norm:
            self.q_norm, self.k_norm = Norm(width), Norm(width)
        if sinks:
            self.sinks = nn.Parameter(torch.zeros(HEADS))

    def forward(self, hidden_states, position_embeddings, attention_mask=None, cache=None):
        q, k, v = (layer(hidden_states).unflatten(-1, (-1, self.head_dim))
                   for layer in (self.q_proj, self.k_proj, self.v_proj))
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        cos, sin = (table.unsqueeze(1) for table in position_embeddings)
        half = self.head_dim // 2
        q, k = (part * cos + torch.cat([-part[..., half:], part[..., :half]], -1) * sin for part in (q, k))
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, dim=1) for part in (k, v))
        scores = q @ k.transpose(2, 3) / self.head_dim ** 0.5 + attention_mask
        if hasattr(self, "sinks"):
            sinks = self.sinks.reshape(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)
            shares = torch.softmax(torch.cat([scores, sinks], -1), -1)[..., :-1]
        else:
            shares = torch.softmax(scores, -1)
        return self.o_proj((shares @ v).transpose(1, 2).flatten(2)), None


class Layer(nn.Module):
    def __init__(self, centred=False, **attention):
        super().__init__()
        self.self_attn = Attention(**attention)
        self.mlp = foreign.Block(foreign.TopKRouter("mixtral", 4, SIZE, 2), foreign.PackedExperts(4, SIZE, 12))
        self.input_layernorm, self.post_attention_layernorm = Norm(SIZE, centred), Norm(SIZE, centred)

    def forward(self, hidden_states, position_embeddings=None, attention_mask=None, cache=None):
        mixed, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), cache=cache,
                                  position_embeddings=position_embeddings, attention_mask=attention_mask)
        hidden_states = hidden_states + mixed
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class Decoder(nn.Module):
    """A mask for every row, as transformers makes them; vectors as rows, or with words an embedding first."""

    def __init__(self, words=None, checks=False, window=None, width=4, **settings):
        super().__init__()
        self.embed = nn.Embedding(words, SIZE) if words else nn.Identity()
        self.rotary, self.window, self.checks = Rotary(width), window, checks
        self.layers = nn.ModuleList(Layer(window=window, width=width, **settings) for _ in range(2))
        self.norm, self.head = Norm(SIZE), nn.Linear(SIZE, 5)

    def forward(self, x):
        if self.checks and not isinstance(x, torch.Tensor):
            raise TypeError(f"{type(x).__name__} is no tensor")
        hidden, positions = self.embed(x), torch.arange(x.shape[1])
        tables = self.rotary(hidden, positions.unsqueeze(0))
        distance = positions.unsqueeze(1) - positions
        hides = (distance < 0) | (distance >= (self.window or len(positions)))
        mask = torch.zeros(hides.shape).masked_fill(hides, torch.finfo(torch.float32).min)
        mask = mask[None, None].expand(x.shape[0], 1, -1, -1)
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=tables, attention_mask=mask, cache=None)
        return self.head(self.norm(hidden))


# ---- SwinV2-MoE, of its definition ----

class WindowAttention(nn.Module):
    """Cosine attention within windows of side x side positions, with a bias that a network makes of distances."""

    def __init__(self, size, side, heads):
        super().__init__()
        self.num_heads = heads
        self.logit_scale = nn.Parameter(torch.log(10 * torch.ones(heads, 1, 1)))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, heads, bias=False))
        at = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
        distance = at.unsqueeze(1) - at
        self.register_buffer("distances", torch.sign(distance) * torch.log2(distance.abs() + 1))
        self.qkv, self.proj = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(-2, -1)
        bias = 16 * torch.sigmoid(self.cpb_mlp(self.distances).permute(2, 0, 1))
        shares = torch.softmax(scores * self.logit_scale.clamp(max=4.6).exp() + bias, -1)
        return self.proj((shares @ v).transpose(1, 2).flatten(2))


class SwinBlock(nn.Module):
    """Positions of an image of 8 x 8 patches; windows of 4 x 4, shifted by two."""

    def __init__(self, shift=2):
        super().__init__()
        self.attn, self.norm1, self.norm2 = WindowAttention(SIZE, 4, 2), nn.LayerNorm(SIZE), nn.LayerNorm(SIZE)
        self.mlp = foreign.Block(foreign.TopKRouter("mixtral", 4, SIZE, 1), foreign.PackedExperts(4, SIZE, 12))
        self.shift = shift

    def forward(self, x):
        image = torch.roll(x.view(-1, 8, 8, SIZE), (-self.shift, -self.shift), (1, 2))
        windows = image.view(-1, 2, 4, 2, 4, SIZE).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, SIZE)
        mixed = self.attn(windows).view(-1, 2, 2, 4, 4, SIZE).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, SIZE)
        x = x + self.norm1(torch.roll(mixed, (self.shift, self.shift), (1, 2)).reshape(x.shape))
        return x + self.norm2(self.mlp(x))
