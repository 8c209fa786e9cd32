"""The mixture of Chen et al. 2022 (arXiv 2208.02813) on images: its router, and what an expert sees in training."""

from collections import OrderedDict

from torch import nn

from moed.layers import Gate, MoE
from moed.modules import Sum
from moed.noise import UniformNoise

EXPERTS = 4


class ZeroedMoE(MoE):
    """Top-1. In training every expert runs on the whole batch, the images of the others set to zero.

    So does the authors' code. An expert's batch normalisation then sees the black images as well. In evaluation this is
    the same function as MoE.
    """

    def _combine(self, output_of, *items):
        if not self.training:
            return super()._combine(output_of, *items)
        self.routing = self.gate.route(self.logits)
        chosen, weight = self.routing.experts[:, 0], self.routing.weights
        masks = [chosen == index for index in range(len(self.experts))]
        return weight * sum(mask[:, None] * output_of(index, mask) for index, mask in enumerate(masks))

    def _run(self, index, items, rows):
        if not self.training:
            return super()._run(index, items, rows)
        return self.experts[index](items * rows[:, None, None, None])


def router():
    """Filters of 4x4 pixels, zero at first, summed over the image."""
    filters = nn.Conv2d(3, EXPERTS, 4, stride=4)
    nn.init.zeros_(filters.weight)
    nn.init.zeros_(filters.bias)
    return nn.Sequential(OrderedDict(filters=filters, sum_columns=Sum(2), sum_rows=Sum(1)))


def mixture(experts, zeroed):
    gate = Gate(router(), score="softmax", top_k=1, normalize="none", noise=UniformNoise())
    return (ZeroedMoE if zeroed else MoE)(experts, gate)
