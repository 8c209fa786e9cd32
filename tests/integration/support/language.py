"""A language model made at test time: random weights, two MoE layers, a tokenizer whose tokens are bytes."""

import json
import os

import numpy as np

from support.models import random_tensor, write_checkpoint

CONTEXT = 4096
EOS, USER, ASSISTANT = 256, 257, 258
VOCABULARY = 264  # as published models do, some more than there are tokens
NAME = "words"

CHAT_TEMPLATE = ("{% for message in messages %}{% if message['role'] == 'user' %}<|user|>{% else %}<|assistant|>{% endif %}"
                 "{{ message['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")


def byte_characters():
    """The character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def tokenizer():
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": EOS, "content": "<|end|>", **special}, {"id": USER, "content": "<|user|>", **special},
                         {"id": ASSISTANT, "content": "<|assistant|>", **special}],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {character: byte for byte, character in sorted(byte_characters().items())}, "merges": []}}


class Words:
    """Says letters, most of the time; never ends by itself unless it is asked to by logit_bias."""

    size, heads, kv_heads, head_dim, experts, top_k = 32, 4, 2, 8, 4, 2

    def __init__(self, layers=2, seed=1, size=None, hidden=48):
        self.layers, self.seed, self.hidden = layers, seed, hidden
        self.size = size or self.size

    def config(self):
        blocks = []
        for i in range(self.layers):
            blocks += [
                {"op": "residual", "layers": [
                    {"op": "rms_norm", "name": f"layers.{i}.norm1"},
                    {"op": "attention", "name": f"layers.{i}.attention", "over": "sequence", "heads": self.heads,
                     "kv_heads": self.kv_heads, "head_dim": self.head_dim, "rotary": {"theta": 10000}}]},
                {"op": "residual", "layers": [
                    {"op": "rms_norm", "name": f"layers.{i}.norm2"},
                    {"op": "moe", "name": f"layers.{i}.moe",
                     "gate": {"layers": [{"op": "linear", "name": "out"}], "top_k": self.top_k, "normalize": "sum"},
                     "experts": {"count": self.experts, "layers": [{"op": "glu", "name": "in"},
                                                                   {"op": "linear", "name": "out"}]}}]}]
        return {"format_version": 3, "context": CONTEXT, "description": "letters at random",
                "inputs": [{"name": "tokens", "shape": [], "categories": VOCABULARY,
                            "layers": [{"op": "embedding", "name": "embed"}]}],
                "layers": blocks,
                "outputs": [{"name": "logits", "layers": [{"op": "rms_norm", "name": "norm"},
                                                          {"op": "linear", "name": "lm_head"}]}]}

    def tensors(self):
        seed = iter(range(self.seed * 1000, self.seed * 1000 + 1000))
        random = lambda *shape: random_tensor(next(seed), *shape)
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        bias = np.full(VOCABULARY, -4, np.float32)
        bias[ord("a"):ord("z") + 1] = 2
        bias[ord(" ")] = 3
        bias[EOS:] = -30
        tensors = {"embed.weight": random(VOCABULARY, self.size) * 4, "norm.weight": np.ones(self.size, np.float32),
                   "lm_head.weight": random(VOCABULARY, self.size) * 2, "lm_head.bias": bias}
        for i in range(self.layers):
            layer = f"layers.{i}"
            tensors |= {f"{layer}.norm1.weight": np.ones(self.size, np.float32),
                        f"{layer}.norm2.weight": np.ones(self.size, np.float32),
                        f"{layer}.attention.in_proj_weight": random(queries + 2 * keys, self.size),
                        f"{layer}.attention.out_proj.weight": random(self.size, queries),
                        f"{layer}.moe.gate.out.weight": random(self.experts, self.size) * 3}
            for e in range(self.experts):
                expert = f"{layer}.moe.experts.{e}"
                tensors |= {f"{expert}.in.gate.weight": random(self.hidden, self.size),
                            f"{expert}.in.up.weight": random(self.hidden, self.size),
                            f"{expert}.out.weight": random(self.size, self.hidden)}
        return tensors

    def write(self, directory, text=True):
        write_checkpoint(directory, self.config(), self.tensors())
        files = {"tokenizer.json": tokenizer(), "tokenizer_config.json": {"chat_template": CHAT_TEMPLATE},
                 "generation_config.json": {"eos_token_id": EOS}}
        for name, content in files.items() if text else ():
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                json.dump(content, file)
