"""MoE blocks whose parts have names that we do not know: what can be experts, router and shared expert is tried.

Only blocks that cannot be recorded get here. Experts are any list of modules, or any tensors of one axis more, a router
whatever gives a number for each of them. Every expert's answer and every router's logits are computed once, then mixed
by each policy and compared with the block, with random weights.
"""

import itertools
from collections import OrderedDict
from typing import Any, Callable, Iterator, List, NamedTuple, Optional

import torch
from torch import nn
from torch.nn import functional

from moed.blocks_of_experts import (
    NOT_TOLD,
    POLICIES,
    RANDOM,
    TOP_K,
    attributes,
    capacities,
    first_output,
    random_copy,
    with_linear,
)
from moed.blocks_of_routers import CACHE, recorded_routers
from moed.functions import L2Normalize
from moed.gates import Capacity, Gate
from moed.layers import MoE
from moed.modules import GLU, Mean, Scale, Select
from moed.ops import ExportError, require
from moed.places import unfit
from moed.prepare import evaluate

TEMPERATURES = ("temperature", "tau", "temp")
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh)
LISTS = (nn.ModuleList, nn.ModuleDict)
NO_ACTIVATIONS = (nn.Dropout, nn.Softmax, *LISTS, nn.ParameterList)
MOST_EXPERTS = 512
MARK = "_moed_block"
EXPERTS = "experts"  # in the cache of a module


def looks_like_block(module: nn.Module) -> bool:
    """Whether it has what may be experts, and a tensor with as many rows or columns."""
    for count in {len(experts) for experts in _experts(module)}:
        if any(count in tensor.shape for tensor in _matrices(module)):
            return True
    return False


class _Reading(NamedTuple):
    """Which of its parts are experts, router and shared expert (None: none), and what is routed."""

    experts: int
    router: int
    shared: Optional[int]
    route: str


class _Policy(NamedTuple):
    top_k: Optional[int]
    score: str
    normalize: str
    bias: Optional[int]
    capacity: Optional[Capacity]


class _Parts(NamedTuple):
    experts: List[nn.Module]
    router: nn.Module
    shared: Optional[nn.Module]


def any_block(module: nn.Module, row: torch.Tensor, path: str, tracer: Callable) -> nn.Module:
    """The block as MoE. Raises ExportError if nothing that was tried gives its answers.

    tracer: of what can be recorded of a forward() (blocks_of_routers.py).
    """
    try:
        return _found(module, row, path, tracer)
    finally:
        vars(module).pop(CACHE, None)


def _found(module: nn.Module, row: torch.Tensor, path: str, tracer: Callable) -> nn.Module:
    trials = [_random(module, seed) for seed in range(2)]
    rows = torch.randn((3, *row.shape[1:]), generator=torch.Generator().manual_seed(7))
    try:
        expected, again = ([first_output(trial(rows.clone())) for trial in trials] for _ in range(2))
    except Exception as error:  # whatever the block's code says
        raise unfit(path, row, error) from None
    require(all(map(torch.equal, expected, again)), path, RANDOM.format(type(module).__name__))
    for each in (module, *trials):
        vars(each)[CACHE] = {EXPERTS: list(_experts(each))}  # they are asked for by every reading
    for reading in _readings(module, row, tracer):
        mixed = [_Mixed(trial, reading, rows, tracer) for trial in trials]
        for policy in _policies(module, reading, row, tracer) if mixed[0].logits is not None else []:
            scale = mixed[0].scale_of(policy, expected[0])
            other = mixed[1].scale_of(policy, expected[1]) if scale is not None else None
            if scale is not None and other is not None and abs(scale - other) < 1e-4 * abs(scale):
                return _build(module, row, reading, policy, float(f"{scale:.4g}"), tracer)
    raise ExportError(path, f"{type(module).__name__} may be an MoE block, but no policy gives its answers. {NOT_TOLD}")


def marked(module: nn.Module) -> bool:
    """Whether it was found to be one call of a forward() around it that can be recorded without it only."""
    return MARK in vars(module)


def _random(module: nn.Module, seed: int) -> nn.Module:
    """Biases of a choice begin at zero, too, and may be buffers."""
    trial = random_copy(module, seed)
    generator = torch.Generator().manual_seed(seed + 10)
    for name, value in trial.named_buffers():
        if value.dim() == 1 and value.is_floating_point() and "running" not in name:
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return evaluate(trial)


def _readings(module: nn.Module, row: torch.Tensor, tracer: Callable) -> Iterator[_Reading]:
    routes = ("positions", "rows") if row.dim() > 2 else ("rows",)
    for index, experts in enumerate(_experts(module)):
        routers = len(list(_routers(module, experts, row, tracer)))
        shares = [None, *range(len(_shared(module, experts)))]
        for shared, router, route in itertools.product(shares, range(routers), routes):
            yield _Reading(index, router, shared, route)


def _policies(module: nn.Module, reading: _Reading, row: torch.Tensor, tracer: Callable) -> Iterator[_Policy]:
    count = len(_parts(module, reading, row, tracer).experts)
    named = [value for value in attributes(module, TOP_K) if isinstance(value, int) and 0 < value <= count]
    biases = [None, *range(len(_biases(module, count)))]
    for top_k in dict.fromkeys([*named, 1, 2, count]):
        for (score, normalize), bias in itertools.product(POLICIES, biases):
            yield _Policy(top_k, score, normalize, bias, None)
    for capacity in capacities(module):
        for top_k in dict.fromkeys([*named, 1, 2]):
            yield from (_Policy(top_k, score, normalize, None, capacity) for score, normalize in POLICIES)


def _parts(module: nn.Module, reading: _Reading, row: torch.Tensor, tracer: Callable) -> _Parts:
    experts = next(itertools.islice(_experts(module), reading.experts, None))
    router = next(itertools.islice(_routers(module, experts, row, tracer), reading.router, None))
    shared = None if reading.shared is None else _shared(module, experts)[reading.shared]
    return _Parts(experts, router, shared)


def _gate(module: nn.Module, parts: _Parts, policy: _Policy, scale: Optional[float]) -> Gate:
    bias = None if policy.bias is None else _biases(module, len(parts.experts))[policy.bias]
    top_k = None if policy.top_k == len(parts.experts) and policy.capacity is None else policy.top_k
    return Gate(parts.router, policy.score, top_k, policy.normalize, bias, scale, capacity=policy.capacity).eval()


class _Mixed:
    """What a trial's parts give: computed once, mixed by every policy."""

    def __init__(self, trial: nn.Module, reading: _Reading, rows: torch.Tensor, tracer: Callable):
        self.trial, self.logits, self.shared = trial, None, 0.0  # type: Any, Any, Any
        try:
            self.parts = _parts(trial, reading, rows[:1], tracer)
            items = rows.reshape(-1, rows.shape[-1]) if reading.route == "positions" else rows
            logits = self.parts.router(items)
            self.outputs = torch.stack([first_output(expert(items)) for expert in self.parts.experts], 1)
            if self.parts.shared is not None:
                self.shared = first_output(self.parts.shared(items))
                torch.testing.assert_close(self.shared.shape, self.outputs[:, 0].shape)
            self.items_of_row = len(items) // len(rows)
            self.logits = logits if logits.shape == self.outputs.shape[:2] else None
        except Exception:  # parts that do not fit together
            self.logits = None

    def scale_of(self, policy: _Policy, expected: torch.Tensor) -> Optional[float]:
        """What the mixture is multiplied by to be the block's answer, None if it is something else."""
        try:
            routing = _gate(self.trial, self.parts, policy, None).route(self.logits, self.items_of_row)
        except Exception:
            return None
        weights = torch.zeros_like(self.logits)
        for slot in range(routing.experts.shape[1]):
            chosen = routing.experts[:, slot:slot + 1].clamp_min(0)
            weights.scatter_add_(1, chosen, routing.weights[:, slot:slot + 1])
        mixed = (weights.reshape(*weights.shape, *[1] * (self.outputs.dim() - 2)) * self.outputs).sum(1)
        if mixed.numel() != expected.numel():
            return None
        wanted, largest = expected.reshape(mixed.shape) - self.shared, float(expected.abs().max())
        scale = float((wanted * mixed).sum() / (mixed * mixed).sum().clamp_min(1e-20))
        scale = 1.0 if abs(scale - 1) < 1e-4 else scale
        return scale if scale != 0 and torch.allclose(scale * mixed, wanted, rtol=1e-4, atol=1e-5 * largest) else None


def _build(module: nn.Module, row: torch.Tensor, reading: _Reading, policy: _Policy, scale: float,
           tracer: Callable) -> nn.Module:
    parts = _parts(module, reading, row, tracer)
    gate = _gate(module, parts, policy, None if scale == 1 else scale)
    return evaluate(MoE(parts.experts, gate, reading.route, parts.shared))


# ---- what may be experts ----

def _experts(module: nn.Module) -> Iterator[List[nn.Module]]:
    """Every list of modules, then every set of tensors of one axis more, then pairs of lists of matrices."""
    kept = vars(module).get(CACHE)
    return iter(kept[EXPERTS]) if kept else _new_experts(module)


def _new_experts(module: nn.Module) -> Iterator[List[nn.Module]]:
    for part in module.children():
        if isinstance(part, LISTS) and 1 < len(part) <= MOST_EXPERTS:
            yield list(part.values() if isinstance(part, nn.ModuleDict) else part)
    for holder in (module, *(part for part in module.children() if not isinstance(part, LISTS))):
        yield from _packed(holder)
    lists = [list(part) for part in module.children() if isinstance(part, nn.ParameterList)]
    for first, second in itertools.permutations(lists, 2):
        if len(first) == len(second) > 1 and all(tensor.dim() == 2 for tensor in (*first, *second)):
            for turned in (False, True):
                yield from _sequences([first, second], turned, [None, None], None)


def _packed(holder: nn.Module) -> Iterator[List[nn.Module]]:
    tensors = [tensor for tensor in holder._parameters.values() if tensor is not None]
    weights = [tensor for tensor in tensors if tensor.dim() == 3 and tensor.shape[1] > 1]
    counts = {len(tensor) for tensor in weights}
    if len(weights) not in (1, 2, 3) or len(counts) != 1 or not 1 < counts.copy().pop() <= MOST_EXPERTS:
        return
    biases = [tensor.reshape(len(tensor), -1) for tensor in tensors
              if len(tensor) in counts and (tensor.dim() == 2 or tensor.dim() == 3 and tensor.shape[1] == 1)]
    for turned in (False, True):
        for order in itertools.permutations(weights):
            sizes = [tensor.shape[2 if turned else 1] for tensor in order]
            own = _own_biases(biases, sizes)
            if len(order) < 3:
                for activation in [*_activations(holder), None] if len(order) == 2 else [None]:
                    yield from _sequences(list(order), turned, own, activation)
            else:
                for activation in ("silu", "gelu", "relu", "sigmoid", "gelu_tanh"):
                    yield from _gated(list(order), turned, activation)


def _own_biases(biases: List[Any], sizes: List[int]) -> List[Any]:
    """Of each matrix the next bias of its size; none at all where one is left over."""
    rest, own = list(biases), []
    for size in sizes:
        own.append(next((bias for bias in rest if bias.shape[1] == size), None))
        rest = [bias for bias in rest if bias is not own[-1]]
    return [None] * len(sizes) if rest else own


def _sequences(stacks: List[Any], turned: bool, biases: List[Any], activation: Any) -> Iterator[List[nn.Module]]:
    """One linear layer after the other. turned: matrices are [in, out]."""
    experts: List[nn.Module] = []
    for index in range(len(stacks[0])):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for place, (stack, bias) in enumerate(zip(stacks, biases)):
            if place and activation is not None:
                layers["act"] = activation
            weight = stack[index].t() if turned else stack[index]
            layers[f"w{place + 1}"] = with_linear(weight, None if bias is None else bias[index])
        linear = [layer for layer in layers.values() if isinstance(layer, nn.Linear)]
        if any(a.out_features != b.in_features for a, b in zip(linear, linear[1:])):
            return
        experts.append(nn.Sequential(layers))
    yield experts


def _gated(stacks: List[Any], turned: bool, activation: str) -> Iterator[List[nn.Module]]:
    experts: List[nn.Module] = []
    for gate, up, down in zip(*([matrix.t() for matrix in stack] if turned else list(stack) for stack in stacks)):
        if gate.shape != up.shape or down.shape[1] != gate.shape[0]:
            return
        layer = GLU(1, 1, activation)
        layer.gate, layer.up = with_linear(gate), with_linear(up)
        experts.append(nn.Sequential(OrderedDict(glu=layer, down=with_linear(down))))
    yield experts


def _activations(holder: nn.Module) -> List[nn.Module]:
    own = [part for part in holder.children() if not list(part.parameters())
           and type(part).__module__.startswith("torch.") and not isinstance(part, NO_ACTIVATIONS)]
    return [*own, *(kind() for kind in ACTIVATIONS), nn.GELU("tanh")]


# ---- what may be the router ----

def _matrices(module: nn.Module) -> List[torch.Tensor]:
    """Matrices outside the lists of what is alike, and vectors of numbers for each of them."""
    found = [tensor for tensor in (*module._parameters.values(), *module._buffers.values())
             if tensor is not None and tensor.dim() == 2 and tensor.is_floating_point()]
    for part in module.children():
        if not isinstance(part, (*LISTS, nn.ParameterList)):
            found += [tensor for tensor in (*part.parameters(), *part.buffers())
                      if tensor.dim() == 2 and tensor.is_floating_point()]
    return found


def _routers(module: nn.Module, experts: List[nn.Module], row: torch.Tensor, tracer: Callable) -> Iterator[nn.Module]:
    """Of an item; then of what is pooled of it; then whatever the code computes before it chooses."""
    count = len(experts)
    plain = [*_linears(module, count), *_networks(module, count)]
    yield from plain
    for matrix in _matrices(module):
        if matrix.shape[0] == count:
            yield from (_Distance(matrix), _Distance(matrix, squared=True), _cosine(matrix))
    for value in attributes(module, TEMPERATURES):
        yield from (nn.Sequential(router, Scale(1 / float(value))) for router in plain if value)
    if row.dim() > 2:
        axes = row.dim() - 2
        first_axis = row.dim() == 4  # channels first
        pools = [nn.Sequential(*[Mean(1)] * axes) if first_axis else Mean(0), Select(0), Select(-1), nn.Flatten()]
        yield from (nn.Sequential(pool, router) for pool in pools for router in plain)
    yield from recorded_routers(module, count, row, tracer)


def _linears(module: nn.Module, count: int) -> Iterator[nn.Module]:
    for part in (module, *(part for part in module.children() if not isinstance(part, (*LISTS, nn.ParameterList)))):
        for inner in part.modules() if part is not module else (module,):
            bias = inner._parameters.get("bias")
            for name, weight in (*inner._parameters.items(), *inner._buffers.items()):
                if weight is None or weight.dim() != 2 or not weight.is_floating_point():
                    continue
                own = bias if name == "weight" and bias is not None and bias.numel() == count else None
                if weight.shape[0] == count:
                    yield with_linear(weight, own)
                if weight.shape[1] == count:
                    yield with_linear(weight.t(), own)


def _networks(module: nn.Module, count: int) -> Iterator[nn.Module]:
    for part in module.children():
        if isinstance(part, nn.Sequential) and len(part) > 1:
            yield nn.Sequential(*part[:-1]) if isinstance(part[-1], nn.Softmax) else part


class _Distance(nn.Module):
    """Minus the distance to each of some points."""

    def __init__(self, points: torch.Tensor, squared: bool = False):
        super().__init__()
        points = points.detach()
        self.linear, self.squared = with_linear(-2 * points, points.square().sum(1)), squared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = (x * x).sum(-1, keepdim=True) + self.linear(x)
        return -squares if self.squared else -torch.sqrt(squares.clamp(min=0.0))


def _cosine(points: torch.Tensor) -> nn.Module:
    return nn.Sequential(L2Normalize(-1), with_linear(functional.normalize(points.detach(), dim=-1)))


def _biases(module: nn.Module, count: int) -> List[torch.Tensor]:
    """Numbers for each expert that may steer the choice."""
    return [tensor.detach() for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None and tensor.shape == (count,) and tensor.is_floating_point()]


# ---- what may serve every item ----

class _Together(nn.Module):
    """The sum of several."""

    def __init__(self, parts: List[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.parts[0](x)
        for part in self.parts[1:]:
            total = total + part(x)
        return total


def _shared(module: nn.Module, experts: List[nn.Module]) -> List[nn.Module]:
    found: List[nn.Module] = [nn.Identity()]
    for part in module.children():
        if isinstance(part, LISTS):
            parts = list(part.values() if isinstance(part, nn.ModuleDict) else part)
            if parts and parts[0] is not experts[0]:
                found.append(_Together(parts))
        elif list(part.parameters()):
            found.append(part)
    return found
