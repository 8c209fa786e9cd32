"""Makes the fixtures of tests/unit/test_families.c: of each family a tiny random model as transformers
saves it, and what transformers computes with it.

    python3 make.py [FAMILY...]        needs torch and transformers (made with 5.24.0); default: all

<family>/config.json, model.safetensors    the checkpoint
<family>/expected/model.safetensors        for sequence s: tokens.s [n], logits.s [n, vocabulary]; for the
                                           m-th MoE layer experts.s.m and weights.s.m [n, k], by id

../../fuzz/corpus/family/<family>          its name and config, from which fuzzing starts

Everything is F32, ids included, so that moed's own reader reads it.
"""
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
SEQUENCES = [[3, 17, 42, 99, 5, 5, 64, 120, 7, 31, 88, 2], [127, 1, 1, 50, 50, 50, 9, 77, 110, 23], [11]]
SMALL = dict(vocab_size=128, hidden_size=24, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None, bos_token_id=None,
             eos_token_id=None)

MLA = dict(SMALL, num_key_value_heads=4, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6,
           moe_intermediate_size=8, n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, first_k_dense_replace=1,
           routed_scaling_factor=1.5)

# family: (model_type, keys of its configuration)
FAMILIES = {
    "olmoe": ("olmoe", dict(SMALL, num_experts=6, num_experts_per_tok=2)),
    "olmoe_clipped": ("olmoe", dict(SMALL, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True, clip_qkv=0.8,
                                    num_hidden_layers=1)),
    "qwen3_moe": ("qwen3_moe", dict(SMALL, head_dim=16, moe_intermediate_size=8, num_experts=8,
                                    num_experts_per_tok=3, norm_topk_prob=True, mlp_only_layers=[1],
                                    num_hidden_layers=3)),
    "qwen2_moe": ("qwen2_moe", dict(SMALL, moe_intermediate_size=8, shared_expert_intermediate_size=10,
                                    num_experts=6, num_experts_per_tok=2)),
    "mixtral": ("mixtral", dict(SMALL, num_local_experts=5, num_experts_per_tok=2, sliding_window=5)),
    "granitemoe": ("granitemoe", dict(SMALL, num_local_experts=6, num_experts_per_tok=3, embedding_multiplier=3.0,
                                      residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5,
                                      tie_word_embeddings=True)),
    "granitemoeshared": ("granitemoeshared", dict(
        SMALL, num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=10, embedding_multiplier=2.0,
        residual_multiplier=0.6, attention_multiplier=0.25, logits_scaling=1.5, tie_word_embeddings=True)),
    "phimoe": ("phimoe", dict(SMALL, num_local_experts=6, num_experts_per_tok=2, attention_bias=True,
                              lm_head_bias=True, router_jitter_noise=0.05, rope_parameters=dict(
                                  rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.2, 1.5],
                                  long_factor=[2.0, 4.0, 8.0], short_mscale=1.2, long_mscale=1.3,
                                  original_max_position_embeddings=32))),
    "gpt_oss": ("gpt_oss", dict(SMALL, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=4,
                                hidden_size=32, intermediate_size=32, rope_parameters=dict(
                                    rope_type="yarn", rope_theta=150000.0, factor=4.0, beta_fast=32.0,
                                    beta_slow=1.0, truncate=False, original_max_position_embeddings=16))),
    "gpt_oss_mxfp4": ("gpt_oss", dict(SMALL, head_dim=8, num_local_experts=3, num_experts_per_tok=2, hidden_size=32,
                                      intermediate_size=32, num_hidden_layers=1, sliding_window=4, rope_parameters=dict(
                                          rope_type="yarn", rope_theta=150000.0, factor=4.0, beta_fast=32.0,
                                          beta_slow=1.0, truncate=True, original_max_position_embeddings=16))),
    "ernie4_5_moe": ("ernie4_5_moe", dict(SMALL, moe_intermediate_size=8, moe_k=2, moe_num_experts=6,
                                          moe_num_shared_experts=2, num_hidden_layers=3, use_bias=True)),
    "glm4_moe": ("glm4_moe", dict(SMALL, head_dim=16, moe_intermediate_size=8, num_experts_per_tok=2,
                                  n_routed_experts=8, n_group=4, topk_group=2, routed_scaling_factor=1.7,
                                  use_qk_norm=True, attention_bias=True, num_mtp_layers=0)),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", dict(SMALL, head_dim=8, num_experts=5, moe_topk=2)),
    "minimax_m2": ("minimax_m2", dict(SMALL, head_dim=16, num_local_experts=6, num_experts_per_tok=2,
                                      rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                           partial_rotary_factor=0.5))),
    "deepseek_v2": ("deepseek_v2", dict(MLA, q_lora_rank=None, topk_method="greedy", rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, beta_fast=32.0, beta_slow=1.0, mscale=0.707,
        mscale_all_dim=0.5, original_max_position_embeddings=16))),
    "deepseek_v2_groups": ("deepseek_v2", dict(MLA, q_lora_rank=12, topk_method="group_limited_greedy", n_group=4,
                                               topk_group=2, num_hidden_layers=1, first_k_dense_replace=0)),
    "deepseek_v3": ("deepseek_v3", dict(MLA, q_lora_rank=12, n_group=4, topk_group=2, num_mtp_layers=0)),
    "deepseek_v3_fp8": ("deepseek_v3", dict(MLA, qk_nope_head_dim=40, v_head_dim=24, q_lora_rank=12, n_group=4,
                                            topk_group=2, num_mtp_layers=0)),
    "glm4_moe_lite": ("glm4_moe_lite", dict(MLA, q_lora_rank=12)),
    "lfm2_moe": ("lfm2_moe", dict(SMALL, moe_intermediate_size=8, num_experts=6, num_experts_per_tok=2,
                                  num_dense_layers=1, num_hidden_layers=3, conv_bias=True, routed_scaling_factor=1.3,
                                  layer_types=["conv", "full_attention", "conv"])),
    "qwen2": ("qwen2", dict(SMALL, num_hidden_layers=1)),
    "mistral": ("mistral", dict(SMALL, num_hidden_layers=1, sliding_window=5)),
    "qwen3_moe_fused": ("qwen3_moe", dict(SMALL, head_dim=8, moe_intermediate_size=8, num_experts=4,
                                          num_experts_per_tok=2, num_hidden_layers=1)),
    "qwen3_moe_fp8": ("qwen3_moe", dict(SMALL, head_dim=40, hidden_size=136, moe_intermediate_size=16, num_experts=3,
                                        num_experts_per_tok=2, num_hidden_layers=1)),
    "qwen3_bf16": ("qwen3", dict(SMALL, head_dim=8, num_hidden_layers=1, tie_word_embeddings=True)),
    "qwen3_fp8": ("qwen3", dict(SMALL, head_dim=40, num_hidden_layers=1)),
    "qwen3": ("qwen3", dict(SMALL, head_dim=16, tie_word_embeddings=True)),
    "qwen3_embedding": ("qwen3", dict(SMALL, head_dim=8, num_hidden_layers=2, tie_word_embeddings=True)),
    "llama": ("llama", dict(SMALL, attention_bias=True, mlp_bias=True, rope_parameters=dict(
        rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=16))),
    "granite": ("granite", dict(SMALL, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2,
                                logits_scaling=2.5, tie_word_embeddings=True)),
}


def randomize(model):
    """Random weights of which every one matters: no norm is 1, no bias 0."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
        if not tensor.is_floating_point() or "inv_freq" in name:
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            value = 1 + 0.3 * noise
        elif tensor.dim() < 2 or name.endswith("bias"):
            value = 0.2 * noise
        elif "embed" in name:
            value = noise
        elif "gate.weight" in name or "router" in name or "wg.weight" in name:
            value = 1.5 * noise / math.sqrt(tensor.shape[-1])
        else:
            value = 1.2 * noise / math.sqrt(tensor.shape[-1])
        with torch.no_grad():
            tensor.copy_(value)
    model.tie_weights()


def edit(directory, tensors, config):
    """Rewrites a saved checkpoint: other tensors, more keys."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors",
              metadata={"format": "pt"})
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config, indent=2) + "\n")


def quantize_mxfp4(model, directory):
    """Experts in blocks of random bytes, and the model's own weights those that transformers reads from them."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    tensors = load_file(directory / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, k, n = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, n, k // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(122, 125, (experts, n, k // 32), generator=generator, dtype=torch.uint8)
        tensors[name + "_blocks"], tensors[name + "_scales"] = blocks, scales
        with torch.no_grad():
            model.get_parameter(name).copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
    edit(directory, tensors, {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}})


def quantize_fp8(model, directory, factors=lambda _: torch.float32):
    """The layers' matrices as F8_E4M3 with a factor for each block of 128 x 128, of the dtype factors(name)."""
    tensors = load_file(directory / "model.safetensors")
    meant = dict(tensors)
    generator = torch.Generator().manual_seed(3)
    for name in [name for name in tensors if name.endswith(("proj.weight", "mqa.weight"))]:
        weight = tensors[name]
        grid = [(size + 127) // 128 for size in weight.shape]
        scales = 0.002 * (1 + torch.rand(grid, generator=generator))
        scales = scales.to(factors(name))
        each = scales.float().repeat_interleave(128, 0).repeat_interleave(128, 1)[:weight.shape[0], :weight.shape[1]]
        tensors[name] = (weight / each).to(torch.float8_e4m3fn)
        tensors[name + "_scale_inv"] = scales
        meant[name] = tensors[name].float() * each
    with tempfile.TemporaryDirectory() as plain:
        shutil.copy(directory / "config.json", plain)
        edit(Path(plain), meant, {})
        model.load_state_dict(transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).state_dict())
    edit(directory, tensors, {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic",
                                                      "fmt": "e4m3", "weight_block_size": [128, 128]}})


def quantize_fp8_halves(model, directory):
    """The factors have 16 bits, as those of Qwen's own checkpoints: most BF16, some F16."""
    quantize_fp8(model, directory, lambda name: torch.bfloat16 if "experts" in name else torch.float16)


QUANTIZED = {"gpt_oss_mxfp4": quantize_mxfp4, "qwen3_fp8": quantize_fp8, "deepseek_v3_fp8": quantize_fp8,
             "qwen3_moe_fp8": quantize_fp8_halves}


class Nomic:
    """nomic_bert with experts, written down from its description: transformers has the dense one only."""
    KEYS = dict(model_type="nomic_bert", activation_function="gelu", causal=False, expert_choice_router=False,
                layer_norm_epsilon=1e-5, max_trained_positions=64, mlp_fc1_bias=True, mlp_fc2_bias=True,
                moe_every_n_layers=2, moe_impl="megablocks", moe_normalize_expert_weights=False, moe_top_k=2, n_embd=24,
                n_head=4, n_inner=16, n_layer=2, n_positions=64, num_experts=4, num_shared_experts=0, parallel_block=False,
                prenorm=False, qkv_proj_bias=True, rotary_emb_base=10000, rotary_emb_fraction=1.0,
                rotary_emb_interleaved=False, rotary_emb_scale_base=None, rotary_scaling_factor=None,
                scale_attn_weights=True, type_vocab_size=1, use_rms_norm=False, vocab_size=128)

    def __init__(self):
        generator = torch.Generator().manual_seed(7)
        size, inner, experts = self.KEYS["n_embd"], self.KEYS["n_inner"], self.KEYS["num_experts"]
        self.tensors = {}

        def add(name, *shape, center=0.0):
            fan = shape[-1] if len(shape) > 1 else 16
            self.tensors[name] = center + torch.randn(shape, generator=generator) / math.sqrt(fan)

        def add_norm(name):
            add(name + ".weight", size, center=1.0)
            add(name + ".bias", size)

        add("embeddings.word_embeddings.weight", self.KEYS["vocab_size"], size)
        add("embeddings.token_type_embeddings.weight", 1, size)
        add_norm("emb_ln")
        for i in range(self.KEYS["n_layer"]):
            base = f"encoder.layers.{i}."
            linears = {"attn.Wqkv": (3 * size, size), "attn.out_proj": (size, size)}
            if i % 2 == 0:
                linears |= {"mlp.fc1": (inner, size), "mlp.fc2": (size, inner)}
            for name, shape in linears.items():
                add(base + name + ".weight", *shape)
                add(base + name + ".bias", shape[0])
            add_norm(base + "norm1")
            add_norm(base + "norm2")
            if i % 2 == 1:
                add(base + "mlp.router.layer.weight", experts, size)
                add(base + "mlp.experts.mlp.w1", experts * inner, size)
                add(base + "mlp.experts.mlp.w2", experts * inner, size)
                add(base + "mlp.experts.bias", size)

    def linear(self, name, x):
        return torch.nn.functional.linear(x, self.tensors[name + ".weight"], self.tensors.get(name + ".bias"))

    def norm(self, name, x):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.tensors[name + ".weight"],
                                              self.tensors[name + ".bias"], self.KEYS["layer_norm_epsilon"])

    def attention(self, base, x):
        heads, width = self.KEYS["n_head"], self.KEYS["n_embd"] // self.KEYS["n_head"]
        q, k, v = self.linear(base + "attn.Wqkv", x).view(len(x), 3, heads, width).permute(1, 2, 0, 3)
        frequencies = 10000.0 ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(len(x))[:, None] * frequencies
        cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
        turn = lambda a: a * cos + torch.cat((-a[..., width // 2:], a[..., :width // 2]), -1) * sin
        scores = turn(q) @ turn(k).transpose(1, 2) / math.sqrt(width)
        return self.linear(base + "attn.out_proj", (scores.softmax(-1) @ v).transpose(0, 1).reshape(x.shape))

    def mixture(self, base, x, seen):
        weights, ids = self.linear(base + "mlp.router.layer", x).softmax(-1).topk(self.KEYS["moe_top_k"])
        w1, w2 = (self.tensors[base + "mlp.experts.mlp." + w].view(self.KEYS["num_experts"], -1, x.shape[1])
                  for w in ("w1", "w2"))
        y = torch.stack([sum(weights[t, j] * torch.nn.functional.gelu(x[t] @ w1[e].T) @ w2[e]
                             for j, e in enumerate(ids[t])) for t in range(len(x))])
        order = ids.argsort(dim=-1)
        seen.append((ids.gather(1, order).float(), weights.gather(1, order)))
        return y + self.tensors[base + "mlp.experts.bias"]

    def __call__(self, tokens, seen):
        x = self.tensors["embeddings.word_embeddings.weight"][tokens]
        x = self.norm("emb_ln", x + self.tensors["embeddings.token_type_embeddings.weight"][0])
        for i in range(self.KEYS["n_layer"]):
            base = f"encoder.layers.{i}."
            x = self.norm(base + "norm1", x + self.attention(base, x))
            y = self.mixture(base, x, seen) if i % 2 else self.linear(
                base + "mlp.fc2", torch.nn.functional.gelu(self.linear(base + "mlp.fc1", x)))
            x = self.norm(base + "norm2", x + y)
        return x


def make_nomic(directory):
    model, expected = Nomic(), {}
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "expected").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(Nomic.KEYS, indent=2) + "\n")
    save_file(model.tensors, directory / "model.safetensors", metadata={"format": "pt"})
    for s, tokens in enumerate(SEQUENCES):
        seen = []
        expected[f"logits.{s}"] = model(torch.tensor(tokens), seen)
        expected[f"tokens.{s}"] = torch.tensor(tokens).float()
        expected[f"experts.{s}.0"], expected[f"weights.{s}.0"] = seen[0]
    save_file(expected, directory / "expected" / "model.safetensors")


def watch_experts(model):
    """Lists that each forward fills: of every MoE layer the ids and weights that it was given."""
    seen = []
    for name, module in model.named_modules():
        if type(module).__name__.endswith("Experts"):
            def hook(_, args, kwargs):
                ids, weights = list(args[1:]) + list(kwargs.values()) if len(args) < 3 else args[1:3]
                order = ids.argsort(dim=-1)
                seen.append((ids.gather(1, order).float(), weights.gather(1, order).float()))
            module.register_forward_pre_hook(hook, with_kwargs=True)
    return seen


def make(family):
    model_type, keys = FAMILIES[family]
    directory = HERE / family
    shutil.rmtree(directory, ignore_errors=True)
    config = transformers.AutoConfig.for_model(model_type, **keys)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    trunk = family.endswith("_embedding")  # without a head; its "logits" are vectors
    kind = transformers.AutoModel if trunk else transformers.AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.float32).eval()
    randomize(model)
    if family.endswith("_bf16"):
        model.to(torch.bfloat16).save_pretrained(directory)
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, config=config, dtype=torch.float32).eval()
    else:
        model.save_pretrained(directory, save_original_format=not family.endswith("_fused"))
    (directory / "generation_config.json").unlink(missing_ok=True)
    if family in QUANTIZED:
        QUANTIZED[family](model, directory)
    seen = watch_experts(model)
    expected = {}
    for s, tokens in enumerate(SEQUENCES):
        seen.clear()
        with torch.no_grad():
            output = model(torch.tensor([tokens]), use_cache=False)
            logits = (output.last_hidden_state if trunk else output.logits)[0]
        expected[f"tokens.{s}"] = torch.tensor(tokens).float()
        expected[f"logits.{s}"] = logits.contiguous()
        for m, (ids, weights) in enumerate(seen):
            expected[f"experts.{s}.{m}"] = ids.contiguous()
            expected[f"weights.{s}.{m}"] = weights.contiguous()
    (directory / "expected").mkdir()
    save_file(expected, directory / "expected" / "model.safetensors")
    spread = expected["logits.0"].std().item()
    size = sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())
    print(f"{family}: {size / 1000:.0f} KB, logits spread {spread:.2f}, {len(seen)} MoE layers")


def make_seed(directory):
    config = json.loads((directory / "config.json").read_text())
    seed = HERE.parents[1] / "fuzz" / "corpus" / "family" / directory.name
    seed.write_text(directory.name + "\n" + json.dumps(config, separators=(",", ":")))


if __name__ == "__main__":
    for name in sys.argv[1:] or [*FAMILIES, "nomic_bert"]:
        make_nomic(HERE / name) if name == "nomic_bert" else make(name)
        make_seed(HERE / name)
