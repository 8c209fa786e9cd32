"""Between what bounds the numbers of a recorded value lie, whatever a row holds: weights of experts are known by it."""

import math
from typing import Any, Callable, Dict, Tuple

import torch
from torch import fx, nn

Bounds = Tuple[float, float]
DEEPEST = 100  # calls behind a value; what lies further back is not looked at
UNKNOWN, SHARE, POSITIVE = (-math.inf, math.inf), (0.0, 1.0), (0.0, math.inf)
OF_NAME: Dict[Any, Bounds] = {
    **dict.fromkeys(("softmax", "sigmoid", "hardsigmoid", nn.Softmax, nn.Sigmoid, nn.Hardsigmoid), SHARE),
    **dict.fromkeys(("relu", "relu_", "softplus", "exp", "square", "abs", nn.ReLU, nn.Softplus), POSITIVE)}
MOVES = ("reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze", "transpose", "permute", "t", "contiguous",
         "getitem", "narrow", "select", "chunk", "split", "unbind", "expand", "clone", "float", "detach", "cat",
         "concat", "stack", nn.Identity, nn.Dropout, nn.Flatten, nn.Unflatten)


def name_of(node: fx.Node, module: nn.Module) -> Any:
    """What a node calls: a function's or a method's name, a module's type."""
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target)))
    return getattr(node.target, "__name__", node.target)


class Bounded:
    """The bounds of a graph's values."""

    def __init__(self, module: nn.Module, values: Dict[fx.Node, Any]):
        self.module, self.values = module, values
        self.known: Dict[fx.Node, Bounds] = {}
        self.depth = 0

    def of(self, given: Any) -> Bounds:
        if isinstance(given, (int, float)):
            return float(given), float(given)
        if isinstance(given, (list, tuple)):
            bounds = [self.of(part) for part in given] or [UNKNOWN]
            return min(low for low, _ in bounds), max(high for _, high in bounds)
        if not isinstance(given, fx.Node):
            return UNKNOWN
        if given not in self.known:
            self.depth += 1
            self.known[given] = self._of_call(given) if self.depth < DEEPEST else UNKNOWN
            self.depth -= 1
        return self.known[given]

    def is_share(self, given: Any) -> bool:
        low, high = self.of(given)
        return low >= SHARE[0] and high <= SHARE[1]

    def _of_call(self, node: fx.Node) -> Bounds:
        name = name_of(node, self.module)
        if name in OF_NAME:
            return OF_NAME[name]
        if name in MOVES and node.args:
            return self.of(node.args[0])
        rule = RULES.get(str(name).strip("_"))
        plain = len(node.args) == 2 and not node.kwargs or rule in (Bounded.normalized, Bounded.clamped)
        return rule(self, node) if rule and plain and node.args else UNKNOWN

    def product(self, node: fx.Node) -> Bounds:
        (low, high), (least, most) = self.of(node.args[0]), self.of(node.args[1])
        return (0.0 if 0 in (low, least) else low * least, 0.0 if 0 in (high, most) else high * most) \
            if min(low, least) >= 0 else UNKNOWN

    def total(self, node: fx.Node) -> Bounds:
        (low, high), (least, most) = self.of(node.args[0]), self.of(node.args[1])
        return low + least, high + most

    def difference(self, node: fx.Node) -> Bounds:
        first, second = node.args[:2] if name_of(node, self.module) != "rsub" else node.args[1::-1]
        (low, high), (least, most) = self.of(first), self.of(second)
        return low - most, high - least

    def quotient(self, node: fx.Node) -> Bounds:
        """By a number above zero, or by what they sum to."""
        (low, high), by = self.of(node.args[0]), node.args[1]
        if isinstance(by, (int, float)) and by > 0:
            return low / by, high / by
        given, whole = (self.values.get(part) if isinstance(part, fx.Node) else None for part in (node.args[0], by))
        summed = isinstance(given, torch.Tensor) and isinstance(whole, torch.Tensor) and any(
            _near(given.sum(axis, keepdim=True), whole) for axis in range(1, given.dim()))
        return SHARE if low >= 0 and summed else UNKNOWN

    def normalized(self, node: fx.Node) -> Bounds:
        return SHARE if self.of(node.args[0])[0] >= 0 else UNKNOWN

    def clamped(self, node: fx.Node) -> Bounds:
        named = dict(zip(("min", "max"), node.args[1:]), **node.kwargs)
        low, high = self.of(node.args[0])
        least, most = named.get("min"), named.get("max")
        return (max(low, least) if isinstance(least, (int, float)) else low,
                min(high, most) if isinstance(most, (int, float)) else high)


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.numel() == other.numel() and torch.allclose(one.flatten(), other.flatten(), rtol=1e-4)


RULES: Dict[str, Callable[[Bounded, fx.Node], Bounds]] = {
    **dict.fromkeys(("mul", "imul"), Bounded.product), **dict.fromkeys(("add", "iadd"), Bounded.total),
    **dict.fromkeys(("sub", "isub", "rsub"), Bounded.difference), "normalize": Bounded.normalized,
    **dict.fromkeys(("truediv", "itruediv", "div"), Bounded.quotient),
    **dict.fromkeys(("clamp", "clip"), Bounded.clamped)}
