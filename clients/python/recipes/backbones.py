"""The networks that serve as experts, and alone, on 32x32 colour images: each ends in one logit per class.

    cnn          three convolutions of ours, for the paper's own small network is not published
    mobilenetv2  as made for images of this size: the first two stages keep all pixels (Sandler et al. 2018)
    resnet18     likewise, with a first convolution of 3x3 and no pooling after it (He et al. 2016)
"""

from collections import OrderedDict

import torch
from torch import nn

CNN_FILTERS = (3, 16, 32, 64)
# expansion, channels, blocks, stride of the first block
MOBILE_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                 (6, 320, 1, 1))
MOBILE_FIRST, MOBILE_LAST = 32, 1280
RESNET_STAGES = ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2))  # channels, blocks, stride of the first block


class Network(nn.Sequential):
    """A large network. With `mixed` on it computes in bfloat16, weights and answers staying float32."""

    mixed = False

    def forward(self, x):
        if not self.mixed:
            return super().forward(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return super().forward(x).float()


def set_mixed(model, on):
    for module in model.modules():
        if isinstance(module, Network):
            module.mixed = on


class Sum(nn.Module):
    """layers(x) + shortcut(x)."""

    def __init__(self, layers, shortcut):
        super().__init__()
        self.layers, self.shortcut = layers, shortcut

    def forward(self, x):
        return self.layers(x) + self.shortcut(x)


def normed(inputs, outputs, size, stride=1, groups=1):
    """A convolution without bias and its batch normalisation."""
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


def cnn(classes):
    layers = []
    for number, (inputs, outputs) in enumerate(zip(CNN_FILTERS, CNN_FILTERS[1:]), 1):
        layers += [(f"conv{number}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),
                   (f"norm{number}", nn.BatchNorm2d(outputs)), (f"relu{number}", nn.ReLU()),
                   (f"pool{number}", nn.MaxPool2d(2))]
    return nn.Sequential(OrderedDict(layers + [("flatten", nn.Flatten()), ("out", nn.Linear(64 * 4 * 4, classes))]))


def projection(inputs, outputs, stride):
    """The shortcut of a block: the input itself where its shape fits."""
    return nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(*normed(inputs, outputs, 1, stride))


def basic_block(inputs, outputs, stride):
    layers = nn.Sequential(*normed(inputs, outputs, 3, stride), nn.ReLU(), *normed(outputs, outputs, 3))
    return [Sum(layers, projection(inputs, outputs, stride)), nn.ReLU()]


def resnet18(classes):
    layers, inputs = normed(3, RESNET_STAGES[0][0], 3) + [nn.ReLU()], RESNET_STAGES[0][0]
    for outputs, blocks, stride in RESNET_STAGES:
        for block in range(blocks):
            layers += basic_block(inputs, outputs, stride if block == 0 else 1)
            inputs = outputs
    return Network(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(inputs, classes))


def inverted_block(inputs, outputs, expansion, stride):
    wide = expansion * inputs
    layers = nn.Sequential(*normed(inputs, wide, 1), nn.ReLU(), *normed(wide, wide, 3, stride, groups=wide), nn.ReLU(),
                           *normed(wide, outputs, 1))
    return layers if stride > 1 else Sum(layers, projection(inputs, outputs, 1))


def mobilenetv2(classes):
    layers, inputs = normed(3, MOBILE_FIRST, 3) + [nn.ReLU()], MOBILE_FIRST
    for expansion, outputs, blocks, stride in MOBILE_STAGES:
        for block in range(blocks):
            layers.append(inverted_block(inputs, outputs, expansion, stride if block == 0 else 1))
            inputs = outputs
    layers += normed(inputs, MOBILE_LAST, 1) + [nn.ReLU(), nn.AvgPool2d(4), nn.Flatten()]
    return Network(*layers, nn.Linear(MOBILE_LAST, classes))


BACKBONES = {"cnn": cnn, "mobilenetv2": mobilenetv2, "resnet18": resnet18}
