"""A vision transformer with experts (V-MoE, arXiv 2106.05974): images in patches, every other feed-forward a mixture.

    python3 examples/vision_moe.py && moed inspect vision-moe
"""
import torch
from torch import nn

import moed
from moed.nn import ClassToken, Gate, GaussianNoise, MoE, PositionEmbedding, Reshape, Select, Transpose, encoder_block

SIZE, HEADS, HIDDEN, EXPERTS, CLASSES = 64, 4, 128, 8, 10
PATCH, PATCHES = 4, 7 * 7  # of images of 28 x 28


def feed_forward():
    return nn.Sequential(nn.Linear(SIZE, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, SIZE))


def experts():
    """Every position is routed by itself. Noise is for training; a checkpoint never sees it."""
    noise = GaussianNoise(nn.Linear(SIZE, EXPERTS, bias=False))
    gate = Gate(nn.Linear(SIZE, EXPERTS, bias=False), top_k=2, noise=noise)
    return MoE([feed_forward() for _ in range(EXPERTS)], gate, route="positions")


model = nn.Sequential()
model.add_module("patches", nn.Conv2d(1, SIZE, PATCH, stride=PATCH))
model.add_module("as_positions", nn.Sequential(Reshape(SIZE, PATCHES), Transpose()))
model.add_module("class_token", ClassToken(SIZE))
model.add_module("position", PositionEmbedding(PATCHES + 1, SIZE))
model.add_module("block0", encoder_block(SIZE, HEADS, feed_forward()))
model.add_module("block1", encoder_block(SIZE, HEADS, experts()))
model.add_module("norm", nn.LayerNorm(SIZE))
model.add_module("class", Select(0))
model.add_module("head", nn.Linear(SIZE, CLASSES))
model.add_module("probabilities", nn.Softmax(dim=-1))
# ... train it as any other module ...
moed.export(model, torch.zeros(1, 1, 28, 28), "vision-moe", input_name="image", output_name="probabilities",
            preprocess={"scale": 1 / 255, "mean": [0.2859], "std": [0.353]})
