"""Modules that export() takes as what they mean, not as what their forward() does.

A loop over the rows of every expert cannot be recorded. An adapter says what such a module is: it is given the module
and returns layers of moed.nn and PyTorch with the module's weights. The exporter compares the answers of both, so an
adapter that is wrong is found out.

    @moed.register_adapter(TheirMoE)
    def adapt(module):
        return moed.nn.MoE(module.experts, moed.nn.Gate(module.router, top_k=module.k, normalize="sum"), "positions")

Most MoE blocks need none: blocks_of_experts.py finds router and experts by itself.
"""

import inspect
from typing import Any, Callable, Dict, Optional, Union

from torch import nn

from moed.prepare import evaluate

Adapter = Callable[..., nn.Module]
_adapters: Dict[Any, Adapter] = {}


def register_adapter(*classes: Union[type, str]) -> Callable[[Adapter], Adapter]:
    """Says how modules of these classes are exported: a decorator of a function from a module to layers.

    Args:
        classes: classes, or their full names ("package.module.Class") where importing them is not wanted. A class
            registered again gets the new adapter; subclasses are not meant.

    Returns:
        The decorator. The function takes the module, and an example of its input [1, ...] if it has a second parameter,
        and returns an nn.Module of the module's own parameters: moed.nn.MoE, an nn.Sequential, or any other module
        whose forward() can be recorded.
    """
    if not classes or not all(isinstance(given, (type, str)) for given in classes):
        raise TypeError("register_adapter takes classes or their names, as in @moed.register_adapter(TheirMoE)")

    def register(function: Adapter) -> Adapter:
        _adapters.update(dict.fromkeys(classes, function))
        return function
    return register


def adapter_of(module: nn.Module) -> Optional[Adapter]:
    """The function that was registered for the class of the module."""
    kind = type(module)
    return _adapters.get(kind) or _adapters.get(f"{kind.__module__}.{kind.__qualname__}")


def adapt(function: Adapter, module: nn.Module, row: Any) -> nn.Module:
    """What an adapter makes of the module. A MoE of positions takes rows that are vectors as items."""
    made = function(module, row) if len(inspect.signature(function).parameters) > 1 else function(module)
    if row.dim() == 2 and getattr(made, "route", None) == "positions":
        made.route = "rows"
    return evaluate(made)
