"""All experts of an image mixture at once, for training: the function of the plain modules, several times faster.

The experts of arXiv 2302.14703 are too small to keep a processor busy one by one, and three quarters of what their
convolution computes goes into the pooling after it. Here the experts' weights are stacked, so a linear layer of five
experts is one product; and the convolution and its pooling are one product with 4x4 patches, two pixels apart: four
kernels, shifted, give the four values that the pooling compares. The weights stay in the plain modules, which gradients
reach through the stacking, so nothing has to be copied back.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from moed.layers import AttentiveGate, MoE

SHIFTS = [(down, right) for down in (0, 1) for right in (0, 1)]


def patches_of(images):
    """(16, rows, windows): the pixels that each 2x2 pooling window of a 3x3 convolution sees."""
    windows = images[:, 0].unfold(1, 4, 2).unfold(2, 4, 2)
    return windows.permute(3, 4, 0, 1, 2).reshape(16, len(images), -1)


def convolve_and_pool(patches, weight, bias, norm=None):
    """relu and 2x2 max pooling of (norm of) the 3x3 convolution by `weight` (filters, 1, 3, 3).

    Returns (filters, rows, windows).

    Where the four values of a window are equal, as on a black background, amax shares the gradient among them; so are
    the pixels below them then, and the weights' gradient is the same as if one had got it all.
    """
    filters = weight.shape[0]
    kernels = torch.stack([F.pad(weight, (right, 1 - right, down, 1 - down)) for down, right in SHIFTS])
    values = (kernels.reshape(-1, 16) @ patches.flatten(1)).view(len(SHIFTS), filters, *patches.shape[1:])
    if norm is not None:
        return norm(values + bias[:, None, None]).amax(0).relu()
    return (values.amax(0) + bias[:, None, None]).relu()


class Front:
    """The layers conv, norm (or none), relu, pool, flatten with which a network of the paper begins."""

    def __init__(self, network):
        layers = list(network.children())
        self.conv = layers[0]
        self.norm = layers[1] if isinstance(layers[1], nn.BatchNorm2d) else None
        self.size = 4 if self.norm is None else 5
        relu, pool, flatten = layers[self.size - 3:self.size]
        if not (isinstance(relu, nn.ReLU) and isinstance(pool, nn.MaxPool2d) and pool.kernel_size == 2
                and isinstance(flatten, nn.Flatten) and self.conv.weight.shape[1:] == (1, 3, 3)):
            raise ValueError("the network does not begin with a 3x3 convolution of one channel and 2x2 pooling")


class StackedExperts:
    """Calls with patches give (outputs (E, rows, classes), hidden (E, rows, size) after the layer `key_layer`)."""

    def __init__(self, experts, key_layer=None):
        self.fronts = [Front(expert) for expert in experts]
        self.layers = list(zip(*(list(expert.named_children())[self.fronts[0].size:] for expert in experts)))
        self.key_layer = key_layer

    def __call__(self, patches):
        x, hidden = self._front(patches), None
        for alike in self.layers:
            name, first = alike[0]
            x = _linear([layer for _, layer in alike], x) if isinstance(first, nn.Linear) else first(x)
            if name == self.key_layer:
                hidden = x
        return x, hidden

    def _front(self, patches):
        weight = torch.cat([front.conv.weight for front in self.fronts])
        bias = torch.cat([front.conv.bias for front in self.fronts])
        pooled = convolve_and_pool(patches, weight, bias)
        # (E * filters, rows, windows) -> (E, rows, filters * windows)
        per_expert = pooled.view(len(self.fronts), -1, *pooled.shape[1:])
        return per_expert.transpose(1, 2).flatten(2)


def _linear(layers, x):
    weight = torch.stack([layer.weight for layer in layers])
    bias = torch.stack([layer.bias for layer in layers])
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


class StackedMoE:
    """A dense MoE, called with images; sets moe.routing as the layer itself does."""

    def __init__(self, moe):
        self.moe = moe
        self.attentive = isinstance(moe.gate, AttentiveGate)
        self.experts = StackedExperts(moe.experts, moe.gate.key_layer if self.attentive else None)
        self.front = Front(moe.gate.layers)
        self.rest = moe.gate.layers[self.front.size:]

    def __call__(self, images):
        patches = patches_of(images)
        outputs, hidden = self.experts(patches)
        self.moe.routing = self.moe.gate.route(self._logits(patches, hidden))
        return (self.moe.routing.probabilities.t().unsqueeze(2) * outputs).sum(dim=0)

    def _logits(self, patches, hidden):
        conv, gate = self.front.conv, self.moe.gate
        pooled = convolve_and_pool(patches, conv.weight, conv.bias, self.front.norm)
        x = self.rest(pooled.transpose(0, 1).flatten(1))
        if not self.attentive:
            return x
        keys = gate.key(hidden)  # (E, rows, size)
        return (keys * gate.query(x)).sum(dim=2).t() / math.sqrt(gate.hidden)


def batched(model):
    """The faster form of a mixture or of a single expert."""
    if isinstance(model, MoE):
        return StackedMoE(model)
    experts = StackedExperts([model])
    return lambda images: experts(patches_of(images))[0][0]
