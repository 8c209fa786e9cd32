"""MoE blocks of other packages: finds experts and router by their names and shapes, and the policy by trying.

What differs between the blocks of Mixtral, Qwen, OLMoE, DeepSeek, Granite, Phi, GPT-OSS, Switch, DBRX, of lucidrains,
davidmrau, st-moe, Tutel or FastMoE are a few names, how weights are packed, and the routing policy. Every combination
that the block's attributes allow is built with random weights and compared with the block itself; the first one that
gives the same answers is what is exported. A block none fits is refused.
"""

import copy
import itertools
from collections import OrderedDict
from typing import Any, Iterator, List, NamedTuple, Optional

import torch
from torch import nn
from torch.nn import functional

from moed.functions import ReLU2
from moed.gates import Capacity, Gate, Groups
from moed.layers import MoE
from moed.modules import GLU
from moed.ops import ExportError, require
from moed.places import unfit
from moed.prepare import evaluate

EXPERTS = ("experts", "models", "expert", "local_experts", "moe_experts")
ROUTERS = ("gate", "router", "gating", "gate_network", "routing", "w_gate", "wg")
TOP_K = ("top_k", "k", "num_experts_per_tok", "moe_top_k", "top_n", "topk", "moe_k", "num_selected_experts")
BIASES = ("e_score_correction_bias", "expert_bias", "select_bias", "score_bias")
SCALES = ("routed_scaling_factor", "scale", "moe_scale", "routing_scale")
FACTORS = ("capacity_factor_eval", "eval_capacity_factor", "capacity_factor")
SHARED = ("shared_expert", "shared_experts", "shared_mlp")
ADVICE = "say what it is with moed.register_adapter (clients/python/PORTING.md)"
NOT_TOLD = "A checkpoint's items choose so many experts each, by themselves: not experts items, nor as many as needed"
RANDOM = "{} gives two answers to the same rows: something in it is random at evaluation, or remembers; noise " \
    "belongs behind `if self.training`"
INNER = ("experts", "expert_list")  # of a module around a ModuleList
PLAIN = (("w1", "w2"), ("up_proj", "down_proj"))  # without a gate: lucidrains, Nemotron-H
POLICIES = (("softmax", "sum"), ("softmax", "none"), ("none", "softmax"), ("sigmoid", "sum"), ("sigmoid", "none"),
            ("none", "none"), ("sqrt_softplus", "sum"), ("sqrt_softplus", "none"))
ACTIVATIONS = {"silu": functional.silu, "gelu": functional.gelu, "relu": torch.relu, "sigmoid": torch.sigmoid,
               "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh")}

LISTS = (nn.ModuleList, nn.ModuleDict)
SAMPLES = torch.linspace(-3, 3, 31)


def is_block(module: nn.Module) -> bool:
    """Whether it has experts and a router under names that we know."""
    known = any(hasattr(module, name) for name in ROUTERS)
    return known and not isinstance(module, LISTS) and _holder(module) is not None


def block(module: nn.Module, row: torch.Tensor, path: str) -> nn.Module:
    """The block as MoE, perhaps followed by a softmax. Raises ExportError if no policy gives its answers."""
    require(row.is_floating_point(), path, f"{type(module).__name__} has experts and a router, and is given categories"
            f"{_beside(module)}; {ADVICE}")
    trials = [random_copy(module, seed) for seed in range(2)]
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn((3, *row.shape[1:]), generator=generator)
    if row.dim() == 3:  # alike positions all want the same experts: what capacity there is shows
        rows[1] = rows[1, :1].clone()
        rows[2, ::2] = rows[2, :1].clone()
    try:
        expected, again = ([first_output(trial(rows.clone())) for trial in trials] for _ in range(2))
    except Exception as error:  # whatever the block's code says
        raise unfit(path, row, error) from None
    require(all(torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))
                for first, second in zip(expected, again)), path, RANDOM.format(type(module).__name__))
    if not all(bool(torch.isfinite(answer).all()) for answer in expected):
        raise ExportError(path, f"{type(module).__name__} gives numbers that are not finite for random weights, so "
                          f"that its routing policy cannot be found by trying; {ADVICE}")
    try:
        settings, choices = _settings(module), list(_choices(module, row))
    except Exception as error:  # weights that fit together in a way that we do not know
        raise ExportError(path, f"the experts of {type(module).__name__} are packed in a way that we do not know "
                          f"({error}); {ADVICE}") from None
    for choice in choices:
        for policy in settings:
            if all(_answers(trial, choice, policy, rows, answer) for trial, answer in zip(trials, expected)):
                return _build(module, choice, policy, row)
    raise ExportError(path, f"{type(module).__name__} has experts and a router, but no routing policy that we know "
                      f"gives its answers{_beside(module)}. {NOT_TOLD}; {ADVICE}")


def _beside(module: nn.Module) -> str:
    """Layers around a mixture in one forward are what most often keeps it from being found."""
    others = [name for name, part in module._modules.items() if name not in (*EXPERTS, *ROUTERS, *SHARED)
              and isinstance(part, nn.Module) and list(part.parameters())]
    return f" ({', '.join(others)} beside them: give the mixture a module of its own)" if others else ""


class _Choice(NamedTuple):
    """How to read the block: which of its possible experts and routers, what is routed, what follows."""

    experts: int
    router: int
    route: str
    softmax: bool


class _Policy(NamedTuple):
    top_k: Optional[int]
    score: str
    normalize: str
    scale: Optional[float] = None
    biased: bool = False
    groups: Optional[Groups] = None
    p: float = 2
    jitter: float = 0.01
    capacity: Optional[Capacity] = None
    weigh: str = "outputs"


def _choices(module: nn.Module, row: torch.Tensor) -> Iterator[_Choice]:
    routes = ("positions", "rows") if row.dim() > 2 else ("rows",)
    counts = (len(list(_experts(module))), len(list(_routers(module, row))))
    for softmax in (False, True):
        for experts, router, route in itertools.product(range(counts[0]), range(counts[1]), routes):
            yield _Choice(experts, router, route, softmax)


def _settings(module: nn.Module) -> List[_Policy]:
    """Policies in the order in which they are tried: those that the block's attributes speak for."""
    count = len(next(_experts(module)))
    named = [value for value in attributes(module, TOP_K) if isinstance(value, int) and 0 < value <= count]
    top_ks = list(dict.fromkeys([*named, count, 1, 2]))
    scales = [float(value) for value in attributes(module, SCALES) if isinstance(value, (int, float))] + [None]
    biased = [True, False] if _bias(module) is not None else [False]
    policies = [_Policy(k, score, normalize, scale, bias, group) for k in top_ks for scale in dict.fromkeys(scales)
                for bias in biased for group in _groups(module, count) for score, normalize in POLICIES]
    policies += [_Policy(k, "softmax", "lp", p=float(p)) for k in top_ks
                 for p in attributes(module, ("moe_normalize_expert_weights",)) if p]
    policies += [_Policy(2, "sparsemixer", "none", jitter=float(jitter))
                 for jitter in attributes(module, ("router_jitter_noise",)) if isinstance(jitter, float)]
    plain = [_Policy(k, score, normalize) for k in top_ks for score, normalize in POLICIES]
    policies += [policy._replace(capacity=capacity) for capacity in capacities(module) for policy in plain]
    return policies + [policy._replace(weigh="inputs") for policy in plain]


def capacities(module: nn.Module) -> List[Capacity]:
    """Per row of positions, as most packages count, or per batch; so many places, or by a factor."""
    fixed = [Capacity(places=value, rows=rows, order=order, renormalize=again)
             for value in attributes(module, ("expert_capacity",)) if isinstance(value, int) and value > 0
             for rows in (1, None) for order in ("choice", "score") for again in (False, True)]
    return fixed + [Capacity(float(factor), minimum, rounding, rows=rows)
                    for factor in attributes(module, FACTORS)
                    if isinstance(factor, (int, float)) and factor > 0
                    for rows in (1, None) for minimum in (4, 1) for rounding in ("down", "up")]


def _groups(module: nn.Module, count: int) -> list:
    number = [value for value in attributes(module, ("n_group", "num_group", "num_expert_group")) if value]
    keep = [value for value in attributes(module, ("topk_group", "topk_groups")) if value]
    if not number or not keep or number[0] >= count:
        return [None]
    return [Groups(number[0], keep[0], by) for by in ("top2", "max")] + [None]


def attributes(module: nn.Module, names: tuple) -> list:
    """Values of these attributes of the block, its router, experts and their configurations, each once."""
    places: List[Any] = [module, *(getattr(module, name, None) for name in (*ROUTERS, *EXPERTS))]
    places += [getattr(place, "config", None) for place in places]
    found = [getattr(place, name) for name in names for place in places
             if place is not None and not isinstance(getattr(place, name, None), (type(None), nn.Module, torch.Tensor))]
    return [value for index, value in enumerate(found) if value not in found[:index] and not callable(value)]


# ---- trying ----

def random_copy(module: nn.Module, seed: int, spread: float = 1.0) -> nn.Module:
    """With weights that hide nothing: routers often begin at zero. spread: of what a matrix gives for such inputs."""
    generator = torch.Generator().manual_seed(seed)
    trial = copy.deepcopy(module)
    tensors = [*trial.parameters(), *(value for name, value in trial.named_buffers() if name.endswith(BIASES))]
    for tensor in tensors:
        values = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() < 2:
            tensor.data = 1 + 0.5 * values
            continue
        inputs = tensor.shape[-1] if tensor.dim() < 4 else tensor[0].numel()  # of a convolution all of its window
        tensor.data = spread * values / inputs ** 0.5
    return trial


def _answers(trial: nn.Module, choice: _Choice, policy: _Policy, rows: torch.Tensor, expected: torch.Tensor) -> bool:
    try:
        got = _build(trial, choice, policy, rows[:1])(rows.clone())
    except Exception:  # parts that do not fit together
        return False
    largest = float(expected.abs().max())
    if got.numel() == expected.numel() and expected.dim() == 2:
        expected = expected.reshape(got.shape)  # of blocks that leave the positions of all rows in one axis
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * largest)


def _build(module: nn.Module, choice: _Choice, policy: _Policy, row: torch.Tensor) -> nn.Module:
    experts = next(itertools.islice(_experts(module), choice.experts, None))
    router = next(itertools.islice(_routers(module, row), choice.router, None))
    gate = Gate(router, policy.score, None if policy.top_k == len(experts) else policy.top_k, policy.normalize,
                _bias(module) if policy.biased else None, policy.scale, policy.p, policy.jitter, policy.groups,
                policy.capacity)
    shared, shared_gate = _shared(module)
    mixture: nn.Module = MoE(experts, gate, choice.route, shared, shared_gate, weigh=policy.weigh)
    if choice.softmax:
        mixture = nn.Sequential(OrderedDict(moe=mixture, probabilities=nn.Softmax(dim=-1)))
    return evaluate(mixture)


def first_output(result: Any) -> torch.Tensor:
    """The block's output, where it also gives losses or logits."""
    if isinstance(result, dict):
        result = tuple(result.values())
    return result if isinstance(result, torch.Tensor) else result[0]


# ---- reading the router ----

def _routers(module: nn.Module, row: torch.Tensor) -> Iterator[nn.Module]:
    """Layers that may give the logits: a linear layer, or the network that the block's gate is."""
    count = len(next(_experts(module)))
    for name in ROUTERS:
        found = getattr(module, name, None)
        if isinstance(found, torch.Tensor):
            yield from _linears([(found, None)], count)
        elif isinstance(found, nn.Module):
            yield from _linears(_matrices(found), count)
            yield from _networks(found)


def _matrices(router: nn.Module) -> Iterator[tuple]:
    """(weight, bias) of the router itself and of the linear layers in it."""
    for part in router.modules():
        for name in ("weight", "w_gating", "w_gate", "wg", "kernel"):
            weight = part._parameters.get(name)
            if weight is not None and weight.dim() == 2:
                yield weight, part._parameters.get("bias")


def _linears(matrices: Any, count: int) -> Iterator[nn.Module]:
    for weight, bias in matrices:
        if weight.shape[0] == count:
            yield with_linear(weight, bias)
        if weight.shape[1] == count:
            yield with_linear(weight.t(), bias)


def _networks(router: nn.Module) -> Iterator[nn.Module]:
    """A network, without the softmax at its end: the gate has its own."""
    layers = list(router) if isinstance(router, nn.Sequential) else []
    if layers and isinstance(layers[-1], nn.Softmax):
        yield nn.Sequential(*layers[:-1])
    elif list(router.children()):
        yield _Logarithm(router)
        yield router


class _Logarithm(nn.Module):
    """The logits of a network that gives probabilities. A checkpoint has those before its softmax."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(self.network(x))


def _bias(module: nn.Module) -> Optional[torch.Tensor]:
    count = len(next(_experts(module)))
    for name, value in itertools.chain(module.named_buffers(), module.named_parameters()):
        if name.endswith(BIASES) and value.numel() == count:
            return value.detach().reshape(-1)
    return None


def _shared(module: nn.Module) -> tuple:
    for name in SHARED:
        shared = getattr(module, name, None)
        if isinstance(shared, nn.ModuleList):
            shared = _Together(shared) if len(shared) > 1 else next(iter(shared), None)
        if isinstance(shared, nn.Module):
            gate = getattr(module, "shared_expert_gate", None)
            return shared, gate if isinstance(gate, nn.Linear) else None
    return None, None


class _Together(nn.Module):
    """The sum of several shared experts."""

    def __init__(self, experts: nn.ModuleList):
        super().__init__()
        self.experts = experts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.experts[0](x)
        for expert in self.experts[1:]:
            total = total + expert(x)
        return total


# ---- reading the experts ----

def _holder(module: nn.Module) -> Optional[nn.Module]:
    for name in EXPERTS:
        found = getattr(module, name, None)
        if isinstance(found, nn.Module) and _holds_experts(found):
            return found
    return module if _holds_experts(module) and not isinstance(module, nn.ModuleList) else None


def _holds_experts(module: nn.Module) -> bool:
    if isinstance(module, LISTS):
        return len(module) > 1
    names = {*module._parameters, *module._modules}
    inner = any(isinstance(getattr(module, name, None), nn.ModuleList) for name in INNER)
    packed = any(group <= names for group in ({"gate_up_proj", "down_proj"}, {"input_linear", "output_linear"}))
    plain = any(_is_packed(module, *names) for names in PLAIN)
    return inner or packed or plain or {"w1", "v1", "w2"} <= set(getattr(module._modules.get("mlp"), "_parameters", ()))


def _is_packed(module: nn.Module, *names: str) -> bool:
    """Whether it has these tensors of all experts."""
    weights = [module._parameters.get(name) for name in names]
    return all(weight is not None and weight.dim() == 3 for weight in weights)


def _experts(module: nn.Module) -> Iterator[List[nn.Module]]:
    """Every list of experts that the weights may mean."""
    holder = _holder(module)
    if holder is not None:
        yield from _of_holder(holder)


def _of_holder(holder: nn.Module) -> Iterator[List[nn.Module]]:
    if isinstance(holder, LISTS):
        parts = list(holder.values() if isinstance(holder, nn.ModuleDict) else holder)
        if len(parts) > 1:
            yield parts
        return
    for name in INNER:
        if isinstance(getattr(holder, name, None), nn.ModuleList):
            yield from _of_holder(getattr(holder, name))
    weights = {name: value for name, value in holder._parameters.items() if value is not None}
    if {"gate_up_proj", "down_proj"} <= set(weights):
        yield from _gated(holder, weights["gate_up_proj"], weights["down_proj"], weights.get("gate_up_proj_bias"),
                          weights.get("down_proj_bias"))
    elif hasattr(holder, "input_linear") and hasattr(holder, "output_linear"):
        yield from _gated(holder, holder.input_linear.weight, holder.output_linear.weight, None, None)
    elif _is_packed(holder, "w1", "w2"):
        yield _plain(holder, weights["w1"].transpose(1, 2), weights["w2"].transpose(1, 2))
    elif _is_packed(holder, "up_proj", "down_proj"):
        yield _plain(holder, weights["up_proj"], weights["down_proj"])
    elif isinstance(getattr(holder, "mlp", None), nn.Module) and {"w1", "v1", "w2"} <= set(holder.mlp._parameters):
        yield _databricks(holder.mlp)


def _gated(holder: Any, gate_up: torch.Tensor, down: torch.Tensor, gate_up_bias: Optional[torch.Tensor],
           down_bias: Optional[torch.Tensor]) -> Iterator[List[nn.Module]]:
    """gate_up [E, 2 I, H] or [E, H, 2 I]; gate and up one after the other or by turns. Those without a down are
    identities (LongCat's zero experts)."""
    for transposed, by_turns in itertools.product((False, True), repeat=2):
        if transposed:
            gate_up_, down_ = gate_up.transpose(1, 2), down.transpose(1, 2)
        else:
            gate_up_, down_ = gate_up, down
        if gate_up_.shape[1] != 2 * down_.shape[2]:
            continue
        half = gate_up_.shape[1] // 2
        gate, up = (slice(0, None, 2), slice(1, None, 2)) if by_turns else (slice(0, half), slice(half, None))
        experts = [_gated_expert(holder, _slice(gate_up_, gate_up_bias, i, gate), _slice(gate_up_, gate_up_bias, i, up),
                                 _slice(down_, down_bias, i)) for i in range(len(down_))]
        yield experts + [nn.Identity()] * (len(gate_up_) - len(down_))


def _slice(weights: torch.Tensor, biases: Optional[torch.Tensor], expert: int, part: slice = slice(None)) -> nn.Linear:
    return with_linear(weights[expert, part], None if biases is None else biases[expert, part])


def _gated_expert(holder: Any, gate: nn.Linear, up: nn.Linear, down: nn.Linear) -> nn.Module:
    limit = getattr(holder, "limit", None)
    limit = float(limit) if isinstance(limit, (int, float)) else None
    if limit is not None and hasattr(holder, "alpha"):  # GPT-OSS
        return _glu(gate, up, down, GLU(1, 1, "silu", limit=limit, alpha=float(holder.alpha), shift=1.0))
    activation = next((getattr(holder, name) for name in ("act_fn", "activation", "act", "activation_fn")
                       if callable(getattr(holder, name, None))), functional.silu)
    return _glu(gate, up, down, GLU(1, 1, _name_of(activation), limit=limit))


def _glu(gate: nn.Linear, up: nn.Linear, down: nn.Linear, layer: GLU) -> nn.Module:
    layer.gate, layer.up = gate, up
    return nn.Sequential(OrderedDict(glu=layer, down=down))


def _name_of(activation: Any) -> str:
    for name, function in ACTIVATIONS.items():
        if torch.allclose(activation(SAMPLES.clone()), function(SAMPLES), rtol=1e-5, atol=1e-6):
            return name
    raise ValueError("no gated linear unit has this activation")


def _plain(holder: Any, first: torch.Tensor, second: torch.Tensor) -> List[nn.Module]:
    """first [E, I, H], second [E, H, I], an activation between."""
    activation = getattr(holder, "act", None) or getattr(holder, "act_fn", None) or nn.ReLU()
    if torch.allclose(activation(SAMPLES.clone()), SAMPLES.relu().square()):
        activation = ReLU2()
    return [nn.Sequential(OrderedDict(w1=with_linear(w1), act=activation, w2=with_linear(w2)))
            for w1, w2 in zip(first, second)]


def _databricks(mlp: Any) -> List[nn.Module]:
    """DBRX: w1, v1 and w2 [E I, H], one expert under the other."""
    shape = (mlp.moe_num_experts, mlp.ffn_hidden_size, mlp.hidden_size)
    w1, v1, w2 = (weight.view(shape) for weight in (mlp.w1, mlp.v1, mlp.w2))
    activation = _name_of(mlp.activation_fn)
    parts = ((with_linear(w1[i]), with_linear(v1[i]), with_linear(w2[i].t())) for i in range(shape[0]))
    return [_glu(gate, up, down, GLU(1, 1, activation)) for gate, up, down in parts]


def with_linear(weight: torch.Tensor, bias: Optional[torch.Tensor] = None) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=bias is not None)  # whose weights nobody draws
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight.detach())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach())
    return layer
