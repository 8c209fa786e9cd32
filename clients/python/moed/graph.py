"""Lists of layers that read each other's values by name, and the layers that join them.

config.json says it with three keys of a layer: "result" names what it gives, "input" what it reads instead of the value
before it, "of" what it joins to that. The list's own input is called "input".
"""

from typing import NamedTuple, Optional

import torch
from torch import nn

from moed.modules import CheckpointSequential, batch_axis


class Links(NamedTuple):
    """What a layer reads and gives by name. input None: the value of the layer before; result None: it has no name."""

    input: Optional[str] = None
    of: tuple = ()
    result: Optional[str] = None


PLAIN = Links()


class Graph(CheckpointSequential):
    """Layers with Links: run in order, every value that has a name is kept for later ones."""

    def __init__(self, steps, links):
        """steps: (name, layer, path or None); links: one Links for each."""
        super().__init__(steps)
        self.links = dict(zip(self._modules, links, strict=True))

    def forward(self, x):
        values = {"input": x}
        for name, layer in self._modules.items():
            links = self.links[name]
            x = layer(x if links.input is None else values[links.input], *(values[other] for other in links.of))
            if links.result is not None:
                values[links.result] = x
        return x


class _Join(nn.Module):
    """Base of Add, Multiply and Divide: the input, then the other values, the parameter `weight`, the number `value`.

    An axis of size 1 is repeated; the rows of all values have the same number of axes.
    """

    def __init__(self, value=None, weight=None):
        super().__init__()
        self.value = None if value is None else float(value)
        self.weight = None if weight is None else nn.Parameter(weight)

    def constants(self):
        return [constant for constant in (self.weight, self.value) if constant is not None]


class Add(_Join):
    def forward(self, x, *others):
        for other in (*others, *self.constants()):
            x = x + other
        return x


class Multiply(_Join):
    def forward(self, x, *others):
        for other in (*others, *self.constants()):
            x = x * other
        return x


class Divide(_Join):
    def forward(self, x, *others):
        for other in (*others, *self.constants()):
            x = x / other
        return x


class Concat(nn.Module):
    """The input and the other values side by side along an axis of the row."""

    def __init__(self, axis=0):
        super().__init__()
        self.axis = int(axis)

    def forward(self, x, *others):
        return torch.cat([x, *others], dim=batch_axis(self.axis, x))
