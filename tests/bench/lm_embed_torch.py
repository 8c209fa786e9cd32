"""nomic_bert with experts in PyTorch, for lm_embed.py: transformers has the dense one only.

    python3 lm_embed_torch.py DIRECTORY THREADS

Reads lists of token ids, one JSON line after the other, and writes their vectors and the seconds that they took. Texts are
sorted by length and computed in batches of 32, padded to the longest, as sentence-transformers does it.
"""

import json
import math
import os
import sys
import time

import torch
from safetensors.torch import load_file
from torch.nn import functional

BATCH = 32


class Nomic:
    def __init__(self, directory):
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        self.tensors = {name: tensor.float() for name, tensor in
                        load_file(os.path.join(directory, "model.safetensors")).items()}

    def linear(self, name, x):
        return functional.linear(x, self.tensors[name + ".weight"], self.tensors.get(name + ".bias"))

    def norm(self, name, x):
        return functional.layer_norm(x, x.shape[-1:], self.tensors[name + ".weight"], self.tensors[name + ".bias"],
                                     self.config["layer_norm_epsilon"])

    def attention(self, base, x, mask):
        texts, length, size = x.shape
        heads = self.config["n_head"]
        width = size // heads
        q, k, v = self.linear(base + "attn.Wqkv", x).view(texts, length, 3, heads, width).permute(2, 0, 3, 1, 4)
        angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
        cos, sin = (torch.cat([turned] * 2, -1) for turned in (angles.cos(), angles.sin()))
        q, k = (a * cos + torch.cat((-a[..., width // 2:], a[..., :width // 2]), -1) * sin for a in (q, k))
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1 / math.sqrt(width))
        return self.linear(base + "attn.out_proj", found.transpose(1, 2).reshape(x.shape))

    def mixture(self, base, x, mask):
        """Every expert computes its tokens; padding has none."""
        flat = x[mask]
        experts = self.config["num_experts"]
        weights, ids = self.linear(base + "mlp.router.layer", flat).softmax(-1).topk(self.config["moe_top_k"])
        up, down = (self.tensors[f"{base}mlp.experts.mlp.{name}"].view(experts, -1, x.shape[-1]) for name in ("w1", "w2"))
        y = torch.zeros_like(flat)
        for expert in range(experts):
            token, slot = (ids == expert).nonzero(as_tuple=True)
            hidden = functional.gelu(flat[token] @ up[expert].T) @ down[expert]
            y.index_add_(0, token, hidden * weights[token, slot, None])
        result = torch.zeros_like(x)
        result[mask] = y + self.tensors[base + "mlp.experts.bias"]
        return result

    def batch(self, texts):
        length = max(map(len, texts))
        tokens = torch.zeros(len(texts), length, dtype=torch.long)
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens[row, :len(text)] = torch.tensor(text)
            mask[row, :len(text)] = True
        x = self.tensors["embeddings.word_embeddings.weight"][tokens]
        x = self.norm("emb_ln", x + self.tensors["embeddings.token_type_embeddings.weight"][0])
        for layer in range(self.config["n_layer"]):
            base = f"encoder.layers.{layer}."
            x = self.norm(base + "norm1", x + self.attention(base, x, mask[:, None, None, :]))
            y = self.mixture(base, x, mask) if layer % 2 else \
                self.linear(base + "mlp.fc2", functional.gelu(self.linear(base + "mlp.fc1", x)))
            x = self.norm(base + "norm2", x + y)
        return functional.normalize((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)

    def embed(self, texts):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = [None] * len(texts)
        for at in range(0, len(order), BATCH):
            for i, vector in zip(order[at:at + BATCH], self.batch([texts[i] for i in order[at:at + BATCH]])):
                vectors[i] = vector.tolist()
        return vectors


def main():
    torch.set_num_threads(int(sys.argv[2]))
    model = Nomic(sys.argv[1])
    with torch.inference_mode():
        model.embed([[5, 6, 7]])
        for line in sys.stdin:
            texts = json.loads(line)
            begin = time.monotonic()
            vectors = model.embed(texts)
            print(json.dumps({"vectors": vectors, "seconds": time.monotonic() - begin}), flush=True)


if __name__ == "__main__":
    main()
