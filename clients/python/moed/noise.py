"""Routing noise for training: `Gate(..., noise=...)`.

Noise makes a gate try experts that it would not choose yet. It does nothing in evaluation mode and leaves no trace in
a checkpoint, its weights included. A noise is called with a function that maps items to logits, and the items.
"""

import torch
from torch import nn
from torch.nn import functional


class UniformNoise(nn.Module):
    """logits + U[0, 1): Chen et al. 2022 (arXiv 2208.02813)."""

    def forward(self, logits_of, x):
        logits = logits_of(x)
        return logits + torch.rand_like(logits)


class GaussianNoise(nn.Module):
    """logits + N(0, 1) * (softplus(layers(x)) + 0.01), the scale learned: Shazeer et al. 2017 (arXiv 1701.06538).

    `layers` map an item to one number per expert; Shazeer's is a Linear without bias that begins at zero. The clean
    logits and the standard deviations of the latest pass are kept for the paper's load loss.
    """

    MINIMUM = 0.01

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.clean = self.deviation = None

    def __getstate__(self):
        return {**self.__dict__, "clean": None, "deviation": None}

    def forward(self, logits_of, x):
        self.clean = logits_of(x)
        self.deviation = functional.softplus(self.layers(x)) + self.MINIMUM
        return self.clean + torch.randn_like(self.clean) * self.deviation


class InputJitter(nn.Module):
    """logits of x * U[1 - epsilon, 1 + epsilon], a factor per number: Switch Transformers (arXiv 2101.03961)."""

    def __init__(self, epsilon=0.01):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, logits_of, x):
        return logits_of(x * torch.empty_like(x).uniform_(1 - self.epsilon, 1 + self.epsilon))
