"""The gate of core/CHECKPOINT.md: from logits to experts and weights.

    routing = route(gate, logits, bias, scale, members, requests, items_of_row)
    y = combine(routing, results)

`gate` is its entry in config.json, logits are [items, E], `bias` and `scale` are its select_bias and expert_scale or None,
`members` the layer's index of each of the E experts, `requests` how many items each request has,
`items_of_row` how many a row has.
"""

import math
from dataclasses import dataclass

import numpy as np

from reference_ops import sigmoid, softmax, softplus

FLT_MAX = float(np.finfo(np.float32).max)


@dataclass
class Routing:
    """One gate's decisions for a batch; the engine's `struct moed_routing` in numpy."""

    chosen: np.ndarray  # [items, k] best first, counted among the gate's own experts
    placed: np.ndarray  # [items, k] whether the chosen expert had room
    weights: np.ndarray  # [items, k] combine weights; 0 where dropped
    probability: np.ndarray  # [items, E] the gate's distribution before selection
    margins: np.ndarray  # [items, any] differences that decided; 0 for a tie
    members: np.ndarray  # [E] the layer's index of each expert

    padding: np.ndarray = None  # [items] what was not routed; None: nothing

    def spread(self, routed):
        """The same for all items, of which only those of the mask were routed."""
        def among_all(values, fill):
            whole = np.full((len(routed),) + values.shape[1:], fill, values.dtype)
            whole[routed] = values
            return whole

        margins = among_all(self.margins, np.inf)
        return Routing(among_all(self.chosen, 0), among_all(self.placed, False), among_all(self.weights, 0.0),
                       among_all(self.probability, 0.0), margins, self.members, ~routed)

    @property
    def experts(self):
        """[items, k] the layer's experts; -1 where dropped."""
        return np.where(self.placed, self.members[self.chosen], -1)

    @property
    def selected(self):
        return np.bincount(self.chosen[self.placed], minlength=len(self.members))

    @property
    def top1(self):
        first = self.chosen[:, 0] if self.padding is None else self.chosen[~self.padding, 0]
        return np.bincount(first, minlength=len(self.members))

    @property
    def weight_sum(self):
        total = np.zeros(len(self.members))
        np.add.at(total, self.chosen, self.weights)
        return total

    @property
    def probability_sum(self):
        return self.probability.sum(0)

    @property
    def entropy_sum(self):
        p = self.probability
        return -(p * np.log2(np.where(p > 0, p, 1.0))).sum()

    @property
    def dropped(self):
        return (~self.placed if self.padding is None else ~self.placed[~self.padding]).sum()


# --- scores ---------------------------------------------------------------------------------------


def share_out(scores, p=None):
    """Divided by their sum, or p-norm; equal shares if all scores are 0."""
    total = scores.sum(-1, keepdims=True) if p is None else norm(scores, p)
    return np.where(total == 0, 1.0 / scores.shape[-1], scores / np.where(total == 0, 1.0, total))


def norm(scores, p):
    """(sum |s|^p)^(1/p), scaled by the largest first: 0.5^2000 is 0."""
    largest = np.abs(scores).max(-1, keepdims=True)
    parts = np.abs(scores) / np.where(largest == 0, 1.0, largest)
    return largest * (parts**p).sum(-1, keepdims=True) ** (1.0 / p)


def score(gate, logits):
    """The scores that rank experts, and p, the gate's distribution over all of them."""
    kind = gate.get("score", "softmax")
    if kind == "sigmoid":
        return sigmoid(logits), share_out(sigmoid(logits))
    if kind == "sqrt_softplus":
        return np.sqrt(softplus(logits)), share_out(np.sqrt(softplus(logits)))
    return (softmax(logits) if kind == "softmax" else logits), softmax(logits)


# --- selection ------------------------------------------------------------------------------------


def best(values, count):
    """The `count` largest of each row, ties to the lower index, and how clearly each one won."""
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, 1)[:, : count + 1]
    return order[:, :count], ranked[:, :-1] - ranked[:, 1:]


def limit_to_groups(groups, ranking):
    """-infinity for all experts but those of the best groups."""
    grouped = ranking.reshape(len(ranking), groups["count"], -1)
    strongest = -np.sort(-grouped, axis=2)
    looked_at = 2 if groups.get("by", "top2") == "top2" else 1
    kept, margins = best(strongest[:, :, :looked_at].sum(2), groups["keep"])
    # Only which groups are kept matters, not their order.
    inside = np.zeros(grouped.shape[:2], bool)
    np.put_along_axis(inside, kept, True, 1)
    limited = np.where(inside[:, :, None], grouped, -np.inf).reshape(ranking.shape)
    return limited, margins[:, groups["keep"] - 1 :]


def top_k(gate, logits, bias):
    scores, probability = score(gate, logits)
    ranking = scores + (0.0 if bias is None else bias)
    margins = np.zeros((len(logits), 0))
    if "groups" in gate:
        ranking, margins = limit_to_groups(gate["groups"], ranking)
    chosen, gaps = best(ranking, gate.get("top_k", logits.shape[1]))
    normalize = gate.get("normalize", "none")
    weights = np.take_along_axis(logits if normalize == "softmax" else scores, chosen, 1)
    if normalize in ("sum", "lp"):
        weights = share_out(weights, None if normalize == "sum" else gate.get("p", 2))
    if normalize == "softmax":
        weights = softmax(weights)
    return chosen, weights, probability, np.concatenate([gaps, margins], 1)


def sparsemixer(gate, logits):
    """Twice: takes the best remaining expert, weighted among those not far below it."""
    threshold = 2 * gate.get("jitter", 0.01)
    left = np.ones(logits.shape, bool)
    chosen, weights, margins = [], [], []
    if "groups" in gate:
        limited, gaps = limit_to_groups(gate["groups"], logits)
        left = np.isfinite(limited)
        margins.append(gaps)
    for _ in range(2):
        first, gap = best(np.where(left, logits, -np.inf), 1)
        largest = np.take_along_axis(logits, first, 1)
        with np.errstate(invalid="ignore"):  # 0/0 is not above any threshold
            distance = (largest - logits) / np.maximum(np.abs(logits), largest)
        rivals = np.where(left & ~(distance > threshold), logits, -np.inf)
        chosen.append(first)
        weights.append(np.take_along_axis(softmax(rivals), first, 1))
        decided = np.abs(distance - threshold)
        np.put_along_axis(decided, first, np.inf, 1)  # not by itself
        margins += [gap, np.where(left & ~np.isnan(decided), decided, np.inf)]
        np.put_along_axis(left, first, False, 1)
    return [np.concatenate(parts, 1) for parts in (chosen, weights, margins)]


# --- capacity -------------------------------------------------------------------------------------


def places(capacity, items, experts):
    """How many of a group's items one expert takes."""
    if "places" in capacity:
        return capacity["places"]
    share = items * capacity["factor"] / experts
    share = math.ceil(share) if capacity.get("round", "down") == "up" else math.floor(share)
    return max(capacity.get("minimum", 1), min(items, share))


def line(order, scores, begin, items):
    """The pairs (item, slot) of a group, in the order in which they find places. scores: [items, k]"""
    slots = range(scores.shape[1])
    members = list(range(begin, begin + items))
    if order == "item":
        return [(item, slot) for item in members for slot in slots]
    if order == "pair":
        pairs = [(item, slot) for item in members for slot in slots]
        return sorted(pairs, key=lambda pair: -scores[pair])  # stable
    if order == "score":
        members.sort(key=lambda item: -scores[item, 0])
    return [(item, slot) for slot in slots for item in members]


def groups_of(capacity, requests, items_of_row):
    """How many items each group has."""
    for items in requests:
        most = capacity["rows"] * items_of_row if "rows" in capacity else items
        while items > 0:
            yield min(items, most)
            items -= most


def place(capacity, chosen, scores, experts, groups):
    placed = np.zeros(chosen.shape, bool)
    begin = 0
    for items in groups:
        free = np.full(experts, places(capacity, items, experts))
        for item, slot in line(capacity.get("order", "choice"), scores, begin, items):
            expert = chosen[item, slot]
            placed[item, slot] = free[expert] > 0
            free[expert] -= placed[item, slot]
        begin += items
    return placed


# --- all of it ------------------------------------------------------------------------------------


def route(gate, logits, bias, scale, members, requests, items_of_row):
    logits = np.clip(logits, -FLT_MAX, FLT_MAX)
    if gate.get("score") == "sparsemixer":
        chosen, weights, margins = sparsemixer(gate, logits)
        probability = softmax(logits)
    else:
        chosen, weights, probability, margins = top_k(gate, logits, bias)
    placed = np.ones(chosen.shape, bool)
    if "capacity" in gate:
        scores = np.take_along_axis(score(gate, logits)[0], chosen, 1)
        groups = groups_of(gate["capacity"], requests, items_of_row)
        placed = place(gate["capacity"], chosen, scores, len(members), groups)
        if gate["capacity"].get("order", "choice") in ("score", "pair"):
            gaps = np.diff(np.sort(scores[:, 0] if gate["capacity"]["order"] == "score" else scores.ravel()))
            margins = np.concatenate([margins, np.full((len(logits), 1), gaps.min(initial=1.0))], 1)
    if gate.get("capacity", {}).get("renormalize", False):
        left = np.where(placed, weights, 0.0)
        weights = np.where(placed.any(1, keepdims=True), share_out(left), left)
    weights = weights * gate.get("scale", 1.0)
    weights = np.where(placed, weights * (1.0 if scale is None else scale[chosen]), 0.0)
    return Routing(chosen, placed, weights, probability, margins, members)


def combine(routing, results):
    """results: [items, experts of the layer, ...]"""
    items = np.arange(len(results))
    each = (-1,) + (1,) * (results.ndim - 2)
    return sum(
        routing.weights[:, slot].reshape(each)
        * results[items, routing.members[routing.chosen[:, slot]]]
        for slot in range(routing.chosen.shape[1])
    )
