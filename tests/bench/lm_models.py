"""Language models of published shapes with four layers and random weights, as Hugging Face directories.

Numbers are BF16 of magnitudes that keep activations near one. A random router sends tokens to all experts alike, which
is the worst case for caches, and the same for every contender. The tokenizer is that of deploy/models/tiny-lm with a
word for every further token, so that each has a text to stream.
"""

import json
import math
import os
import re
import shutil

import numpy as np

from bench import ROOT

TINY = os.path.join(ROOT, "deploy", "models", "tiny-lm")
LAYERS = 4
PIECE = 1 << 24

COMMON = {"hidden_size": 2048, "num_hidden_layers": LAYERS, "num_experts_per_tok": 8, "hidden_act": "silu",
          "attention_bias": False, "tie_word_embeddings": False, "max_position_embeddings": 4096,
          "torch_dtype": "bfloat16", "bos_token_id": None, "eos_token_id": None}
SHAPES = {
    "olmoe": {**COMMON, "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "vocab_size": 50304,
              "intermediate_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64,
              "norm_topk_prob": False, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "clip_qkv": None},
    "qwen3": {**COMMON, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 151936,
              "intermediate_size": 6144, "moe_intermediate_size": 768, "num_attention_heads": 32,
              "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "norm_topk_prob": True,
              "decoder_sparse_step": 1, "mlp_only_layers": [], "rms_norm_eps": 1e-6, "rope_theta": 1000000.0},
}
TITLES = {"olmoe": "OLMoE-1B-7B", "qwen3": "Qwen3-30B-A3B"}


def expert_width(config):
    return config.get("moe_intermediate_size", config["intermediate_size"])


def layer_tensors(config, layer):
    """{name: shape} of one layer; norms have one axis."""
    hidden, width = config["hidden_size"], expert_width(config)
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    norms = (head, head) if config["model_type"] == "qwen3_moe" else (queries, keys)
    prefix = f"model.layers.{layer}."
    tensors = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,),
               "self_attn.q_proj.weight": (queries, hidden), "self_attn.k_proj.weight": (keys, hidden),
               "self_attn.v_proj.weight": (keys, hidden), "self_attn.o_proj.weight": (hidden, queries),
               "self_attn.q_norm.weight": norms[:1], "self_attn.k_norm.weight": norms[1:],
               "mlp.gate.weight": (config["num_experts"], hidden)}
    for expert in range(config["num_experts"]):
        for name, shape in (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width))):
            tensors[f"mlp.experts.{expert}.{name}_proj.weight"] = shape
    return {prefix + name: shape for name, shape in tensors.items()}


def tensors_of(config):
    table = (config["vocab_size"], config["hidden_size"])
    tensors = {"model.embed_tokens.weight": table}
    for layer in range(config["num_hidden_layers"]):
        tensors.update(layer_tensors(config, layer))
    return {**tensors, "model.norm.weight": (config["hidden_size"],), "lm_head.weight": table}


def bytes_of(config, name, weights):
    """Of a number of a tensor as moed keeps it, with the scales."""
    if weights in ("stored", "bf16") or name.endswith(("norm.weight", "mlp.gate.weight")):
        return 2
    layer, few = re.match(r"model\.layers\.(\d+)\.", name), max(1, config["num_hidden_layers"] // 8)
    outermost = not layer or not few <= int(layer.group(1)) < config["num_hidden_layers"] - few
    gated = name.endswith(("gate_proj.weight", "up_proj.weight"))
    return (8.5 if weights == "int8" else 6.5 if outermost and not gated else 4.5) / 8


def bytes_per_token(config, weights):
    """Bytes of matrices that one token reads: of all but the embedding and the experts that are not chosen."""
    total = 0
    for name, shape in tensors_of(config).items():
        used = config["num_experts_per_tok"] / config["num_experts"] if ".experts." in name else 1
        if not name.startswith("model.embed"):
            total += math.prod(shape) * used * bytes_of(config, name, weights)
    return total


def random_bf16(random, count):
    """`count` numbers of either sign between 2^-8 and 2^-6."""
    bits = random.integers(0, 1 << 16, count, np.uint16)
    return (bits & 0x80FF) + np.uint16(0x3B80)


def write_weights(path, tensors):
    """Norms are ones, biases zeros."""
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(1)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors.items():
            left = math.prod(shape)
            if len(shape) == 1:
                file.write(np.full(left, 0 if name.endswith("bias") else 0x3F80, np.uint16).tobytes())
                continue
            for at in range(0, left, PIECE):
                file.write(random_bf16(random, min(PIECE, left - at)).tobytes())


def write_tokenizer(directory, vocabulary):
    with open(os.path.join(TINY, "tokenizer.json"), encoding="utf-8") as file:
        tokenizer = json.load(file)
    words = tokenizer["model"]["vocab"]
    words.update({f"Ġw{token}": token for token in range(len(words), vocabulary)})
    with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False)
    shutil.copy(os.path.join(TINY, "tokenizer_config.json"), directory)


def write_model(directory, shape):
    """Writes the model unless it is there."""
    if os.path.exists(os.path.join(directory, "config.json")):
        return
    os.makedirs(directory, exist_ok=True)
    write_tokenizer(directory, SHAPES[shape]["vocab_size"])
    with open(os.path.join(directory, "generation_config.json"), "w", encoding="ascii") as file:
        json.dump({}, file)
    write_weights(os.path.join(directory, "model.safetensors"), tensors_of(SHAPES[shape]))
    with open(os.path.join(directory, "config.json"), "w", encoding="ascii") as file:
        json.dump(SHAPES[shape], file)
