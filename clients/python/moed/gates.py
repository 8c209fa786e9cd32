"""Gates: which experts a routed item goes to, and with what weight.

The order is always

    layers -> logits (+ noise in training) -> score -> selection (+ select_bias, groups) -> weight -> normalize -> scale
    -> capacity

A gate owns the whole routing policy; the mixtures in layers.py own the experts. Axis 0 of every tensor is the item: a
row, or one position of a row.
"""

import math
from typing import NamedTuple, Optional

import torch
from torch import nn
from torch.nn import functional

SCORES = ("softmax", "sigmoid", "none", "sparsemixer", "sqrt_softplus")
NORMALIZATIONS = ("none", "sum", "softmax", "lp")
PLACING_ORDERS = ("choice", "item", "score", "pair")
GROUP_SCORES = ("top2", "max")


class Routing(NamedTuple):
    """Where the items of one forward pass went."""

    experts: torch.Tensor        # (items, k) int64, best first; -1 where the capacity had no place left
    weights: torch.Tensor        # (items, k) combine weights of those experts
    probabilities: torch.Tensor  # (items, E) the gate's distribution over all experts, before selection


class Groups(NamedTuple):
    """Group-limited selection: only experts of the `keep` best of `count` groups of neighbours can be selected."""

    count: int  # type: ignore[assignment]  # tuple.count() is not missed
    keep: int
    by: str = "top2"  # a group is as good as its two best selection values together, or as its best ("max")


class Capacity(NamedTuple):
    """How many of a group's S items go to one of E experts, and which.

    max(minimum, min(S, S * factor / E)), the share rounded "down" or "up"; or `places`, whatever S.
    rows         of a forward pass that make a group; None: all of them.
    order        "choice": first choices before second ones, earlier items before later ones. "score": the same, but
                 items with the highest first score come first. "item": item by item. "pair": by the score of each
                 choice.
    renormalize  the weights that are left are divided by their sum; with normalize "sum".
    """

    factor: Optional[float] = None
    minimum: int = 1
    round: str = "down"
    places: Optional[int] = None
    rows: Optional[int] = None
    order: str = "choice"
    renormalize: bool = False

    def places_of(self, items, experts):
        if self.places is not None:
            return self.places
        share = items * self.factor / experts
        return max(self.minimum, min(items, math.ceil(share) if self.round == "up" else math.floor(share)))


def _logits_of(layers):
    """How many logits a gate's layers give, where the last is an nn.Linear; else None: only a forward pass tells."""
    while type(layers) is nn.Sequential and len(layers):
        layers = layers[-1]
    return layers.out_features if type(layers) is nn.Linear else None


class Gate(nn.Module):
    """A plain gate: `layers` map an item to one logit per expert.

    Args:
        layers: module from an item to one logit per expert.
        score: "softmax" (over all experts), "sigmoid", "none", "sqrt_softplus" or "sparsemixer" (Phi: top_k 2, see
            `sparsemixer`): what a logit becomes before selection.
        top_k: experts per item; None evaluates all of them.
        normalize: of the selected weights: "none", "sum" (divide by their sum), "softmax" (of the selected logits) or
            "lp" (divide by their p-norm).
        select_bias: one number per expert, added for the selection only. It never enters a weight, so that a balance
            controller can steer traffic without changing what an expert contributes.
        scale: factor on the final weights.
        p: of normalize "lp".
        jitter: of score "sparsemixer".
        groups: Groups, or a dict of its fields.
        capacity: Capacity, or a dict of its fields. What finds no place is dropped.
        noise: a module of moed.noise, for training: it does nothing in evaluation and is no part of a checkpoint.
        expert_scale: one number per expert, which multiplies its weights last.

    Shape:
        logits(x): [items, ...] -> [items, E]
        route(logits): Routing of [items, k], [items, k], [items, E]

    Raises:
        ValueError: settings that do not go together.
    """

    def __init__(self, layers, score="softmax", top_k=None, normalize="none", select_bias=None, scale=None, p=2,
                 jitter=0.01, groups=None, capacity=None, noise=None, expert_scale=None):
        super().__init__()
        _check_choice("score", score, SCORES)
        _check_choice("normalize", normalize, NORMALIZATIONS)
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be at least 1")
        if p < 1 or jitter < 0:
            raise ValueError(f"p is {p}, jitter {jitter}; they must be at least 1 and 0")
        if score == "sparsemixer" and (top_k != 2 or normalize != "none" or select_bias is not None):
            raise ValueError("score sparsemixer goes with top_k 2, normalize none and no select_bias")
        count = _logits_of(layers) if type(self).logits is Gate.logits else None
        if top_k is not None and count is not None and top_k > count:
            raise ValueError(f"top_k is {top_k}, but the gate has {count} experts")
        self.layers = layers
        self.score = score
        self.top_k = top_k
        self.normalize = normalize
        self.scale = scale
        self.p = p
        self.jitter = jitter
        self.groups = _checked_groups(groups)
        self.capacity = _checked_capacity(capacity)
        self.noise = noise
        self.register_buffer("expert_scale", None if expert_scale is None else torch.as_tensor(expert_scale).float())
        self.register_buffer("select_bias", None if select_bias is None else torch.as_tensor(select_bias).float())

    def logits(self, x):
        return self._with_noise(self.layers, x)

    def _with_noise(self, logits_of, x):
        return self.noise(logits_of, x) if self.training and self.noise is not None else logits_of(x)

    def route(self, logits, items_of_row=1):
        """Selects and weighs experts. Gradients flow through the weights, not through the choice.

        items_of_row: how many items a row has, for a capacity of so many rows; a list where rows differ.
        """
        if not self.training:  # in training a NaN is to be seen
            logits = _finite(logits)
        if self.score == "sparsemixer":
            candidates = logits if self.groups is None else _only_best_groups(logits, self.groups, 2)
            experts, weights = sparsemixer(logits, candidates, self.jitter)
            probabilities = torch.softmax(logits, dim=-1)
        else:
            scores = self._scores(logits)
            experts = self._select(scores)
            weights = self._weights(logits, scores, experts)
            probabilities = self._probabilities(logits, scores)
        if self.scale is not None:
            weights = weights * self.scale
        if self.expert_scale is not None:
            weights = weights * self.expert_scale[experts]
        if self.capacity is not None:
            scores = (logits if self.score == "sparsemixer" else scores).gather(-1, experts)
            experts, weights = _drop(experts, weights, scores, self.capacity, logits.shape[-1], items_of_row)
            if self.capacity.renormalize:
                weights = weights * (1 if self.scale is None else self.scale)
        return Routing(experts, weights, probabilities)

    def _scores(self, logits):
        if self.score == "softmax":
            return torch.softmax(logits, dim=-1)
        if self.score == "sqrt_softplus":
            return functional.softplus(logits).sqrt()
        return torch.sigmoid(logits) if self.score == "sigmoid" else logits

    def _select(self, scores):
        count = scores.shape[-1]
        k = count if self.top_k is None else self.top_k
        if k > count:
            raise ValueError(f"top_k is {k}, but the gate has {count} experts")
        keys = scores.detach()
        if self.select_bias is not None:
            keys = _finite(keys + self.select_bias)
        if self.groups is not None:
            keys = _only_best_groups(keys, self.groups, k)
        # A stable sort, and not topk: topk leaves the order of equal scores open, and ties go to the lower index.
        return torch.sort(keys, dim=-1, descending=True, stable=True).indices[:, :k]

    def _weights(self, logits, scores, experts):
        if self.normalize == "softmax":
            return torch.softmax(logits.gather(-1, experts), dim=-1)
        weights = scores.gather(-1, experts)
        if self.normalize == "sum":
            return _normalize_sum(weights)
        return _divide_by_norm(weights, self.p) if self.normalize == "lp" else weights

    def _probabilities(self, logits, scores):
        if self.score == "none":
            return torch.softmax(logits, dim=-1)
        return _normalize_sum(scores)


class AttentiveGate(Gate):
    """The attentive gate of Krishnamurthy et al. 2023 (arXiv 2302.14703): query = gate, keys = experts.

    `layers` map a row to the gate's hidden vector g of size `hidden`; e_i is expert i's hidden vector after its layer
    `key_layer`; logits_i = (Wq g) . (Wk e_i) / sqrt(hidden). Wk is shared by all experts. Since every key is needed,
    every expert is evaluated for every row, whatever top_k says: such a model is dense. Distil it to serve it sparsely.
    """

    def __init__(self, layers, hidden, key_layer, **policy):
        super().__init__(layers, **policy)
        self.hidden = hidden
        self.key_layer = key_layer
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)

    def logits(self, x, expert_hidden):
        """expert_hidden: (rows, E, hidden)."""
        keys = self.key(expert_hidden)
        return self._with_noise(lambda x: self._against(keys, x), x)

    def _against(self, keys, x):
        query = self.query(self.layers(x)).unsqueeze(-1)
        return (keys @ query).squeeze(-1) / math.sqrt(self.hidden)


def sparsemixer(logits, candidates, jitter):
    """(experts, weights), (items, 2) each: the routing of Phi-3.5-MoE at inference.

    The best logit is selected with its softmax weight among the experts that are not far below it; then the same
    again without the first. The two weights do not sum to one. candidates: the logits, -infinity for experts
    that take no part.
    """
    chosen, weights, rest = [], [], candidates
    for _ in range(2):
        best = torch.sort(rest.detach(), dim=-1, descending=True, stable=True)
        expert, value = best.indices[:, :1], best.values[:, :1]
        with torch.no_grad():
            far = (value - logits) / torch.maximum(logits.abs(), value) > 2 * jitter
        chosen.append(expert)
        weights.append(torch.softmax(rest.masked_fill(far, -math.inf), dim=-1).gather(-1, expert))
        rest = rest.scatter(-1, expert, -math.inf)
    return torch.cat(chosen, dim=-1), torch.cat(weights, dim=-1)


def _finite(values):
    largest = torch.finfo(values.dtype).max
    return torch.nan_to_num(values, nan=-largest, posinf=largest, neginf=-largest)


def _normalize_sum(scores):
    """Divided by their sum; equal shares where that is zero."""
    total = scores.sum(dim=-1, keepdim=True)
    return torch.where(total == 0, torch.full_like(scores, 1 / scores.shape[-1]), scores / total)


def _divide_by_norm(scores, p):
    """Divided by their p-norm, which is taken of numbers up to one: their powers neither overflow nor all vanish."""
    largest = scores.detach().abs().amax(dim=-1, keepdim=True)
    ratios = scores / largest
    shares = ratios / ratios.norm(p=p, dim=-1, keepdim=True)
    return torch.where(largest == 0, torch.full_like(scores, 1 / scores.shape[-1]), shares)


def _only_best_groups(keys, groups, top_k):
    """The selection values with those outside the best groups at -infinity. Ties go to the lower group."""
    count = keys.shape[-1]
    if count % groups.count != 0 or groups.keep * (count // groups.count) < top_k:
        raise ValueError(f"{count} experts in {groups.count} groups, {groups.keep} kept: top_k {top_k} does not fit")
    members = keys.unflatten(-1, (groups.count, count // groups.count))
    best = 2 if groups.by == "top2" else 1
    values = members.topk(min(best, members.shape[-1]), dim=-1).values.sum(dim=-1)
    kept = torch.sort(values, dim=-1, descending=True, stable=True).indices[:, :groups.keep]
    outside = torch.ones_like(values, dtype=torch.bool).scatter(-1, kept, False)
    return members.masked_fill(outside.unsqueeze(-1), -math.inf).flatten(-2)


def _placed(experts, scores, capacity, count):
    """(items, k): whether every choice of one group finds a place."""
    items, k = experts.shape
    pairs = torch.arange(items * k, device=experts.device).reshape(items, k)
    if capacity.order == "item":
        line = pairs.reshape(-1)
    elif capacity.order == "pair":
        line = torch.sort(scores.reshape(-1), descending=True, stable=True).indices
    else:
        first = slice(None) if capacity.order == "choice" else \
            torch.sort(scores[:, 0], descending=True, stable=True).indices
        line = pairs[first].t().reshape(-1)  # all first choices, then all second ones
    in_order = experts.reshape(-1)[line]
    ranks = functional.one_hot(in_order, count).cumsum(dim=0).gather(1, in_order.unsqueeze(1)).squeeze(1) - 1
    placed = torch.empty_like(line, dtype=torch.bool)
    placed[line] = ranks < capacity.places_of(items, count)
    return placed.reshape(items, k)


def _group_sizes(rows, items_of_row, items):
    """Of torch.split: how many items compete for places."""
    if rows is None:
        return items
    if isinstance(items_of_row, int):
        return rows * items_of_row
    return [sum(items_of_row[first:first + rows]) for first in range(0, len(items_of_row), rows)]


def _drop(experts, weights, scores, capacity, count, items_of_row):
    """Expert -1 and weight 0 for every choice that comes after its expert is full."""
    group = _group_sizes(capacity.rows, items_of_row, len(experts))
    placed = torch.cat([_placed(*parts, capacity, count)
                        for parts in zip(experts.split(group), scores.detach().split(group))])
    weights = weights.masked_fill(~placed, 0.0)
    if capacity.renormalize:
        weights = _normalize_sum(weights).masked_fill(~placed, 0.0)
    return experts.masked_fill(~placed, -1), weights


def _check_choice(what, value, choices):
    if value not in choices:
        raise ValueError(f"{what} is {value!r}; it must be one of {', '.join(choices)}")


def _checked_groups(groups):
    if groups is None:
        return None
    groups = groups if isinstance(groups, Groups) else Groups(**groups)
    _check_choice("groups by", groups.by, GROUP_SCORES)
    if not 1 <= groups.keep <= groups.count:
        raise ValueError(f"groups keep {groups.keep} of {groups.count}; it must be 1 to {groups.count}")
    return groups


def _checked_capacity(capacity):
    if capacity is None:
        return None
    capacity = capacity if isinstance(capacity, Capacity) else Capacity(**capacity)
    if (capacity.factor is None) == (capacity.places is None):
        raise ValueError("capacity has either a factor or places")
    for what in ("minimum", "places", "rows"):
        value = getattr(capacity, what)
        if value is not None and value < 1:
            raise ValueError(f"capacity {what} is {value}; it must be at least 1")
    if capacity.factor is not None and capacity.factor <= 0:
        raise ValueError(f"capacity factor is {capacity.factor}: it must be above 0")
    _check_choice("capacity round", capacity.round, ("down", "up"))
    _check_choice("capacity order", capacity.order, PLACING_ORDERS)
    return capacity
