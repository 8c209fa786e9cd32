"""The Mixture-of-Experts layer: a gate chooses experts for every row, the layer returns their weighted sum.

These modules define what a trained checkpoint means; the server computes the same function. The order is always

    gate layers -> logits -> score -> selection (+ select_bias) -> weight -> normalize -> scale -> weighted sum

A gate owns the whole routing policy; `MoE` owns the experts and the combination. Axis 0 of every tensor is the row.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

SCORES = ("softmax", "sigmoid", "none")
NORMALIZATIONS = ("none", "sum", "softmax")


class Routing(NamedTuple):
    """Where the rows of one forward pass went."""

    experts: torch.Tensor        # (rows, k) int64, best first
    weights: torch.Tensor        # (rows, k) combine weights of those experts
    probabilities: torch.Tensor  # (rows, E) the gate's distribution over all experts, before selection


class Gate(nn.Module):
    """A plain gate: `layers` map a row to one logit per expert.

    score      softmax (over all experts) | sigmoid | none: what a logit becomes before selection.
    top_k      experts per row; None evaluates all of them.
    normalize  none | sum (divide by the selected sum) | softmax (over the selected logits).
    select_bias  one number per expert, added for the selection only. It never enters a weight, so that a balance
                 controller can steer traffic without changing what an expert contributes.
    scale      factor on the final weights.
    """

    def __init__(self, layers, score="softmax", top_k=None, normalize="none", select_bias=None, scale=None):
        super().__init__()
        if score not in SCORES:
            raise ValueError(f"score is {score!r}; it must be one of {', '.join(SCORES)}")
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize is {normalize!r}; it must be one of {', '.join(NORMALIZATIONS)}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be at least 1")
        self.layers = layers
        self.score = score
        self.top_k = top_k
        self.normalize = normalize
        self.scale = scale
        self.register_buffer("select_bias", None if select_bias is None else torch.as_tensor(select_bias).float())

    def logits(self, x):
        return self.layers(x)

    def route(self, logits):
        """Selects and weighs experts. Gradients flow through the weights, not through the choice."""
        scores = self._scores(logits)
        experts = self._select(scores)
        return Routing(experts, self._weights(logits, scores, experts), self._probabilities(logits, scores))

    def _scores(self, logits):
        if self.score == "softmax":
            return torch.softmax(logits, dim=-1)
        return torch.sigmoid(logits) if self.score == "sigmoid" else logits

    def _select(self, scores):
        count = scores.shape[-1]
        k = count if self.top_k is None else self.top_k
        if k > count:
            raise ValueError(f"top_k is {k}, but the gate has {count} experts")
        keys = scores.detach() if self.select_bias is None else scores.detach() + self.select_bias
        # A stable sort, and not topk: topk leaves the order of equal scores open, and ties go to the lower index.
        return torch.sort(keys, dim=-1, descending=True, stable=True).indices[:, :k]

    def _weights(self, logits, scores, experts):
        weights = scores.gather(-1, experts)
        if self.normalize == "sum":
            weights = weights / weights.sum(dim=-1, keepdim=True)
        elif self.normalize == "softmax":
            weights = torch.softmax(logits.gather(-1, experts), dim=-1)
        return weights if self.scale is None else weights * self.scale

    def _probabilities(self, logits, scores):
        if self.score == "none":
            return torch.softmax(logits, dim=-1)
        return scores / scores.sum(dim=-1, keepdim=True)


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
        query = self.query(self.layers(x)).unsqueeze(-1)
        return (self.key(expert_hidden) @ query).squeeze(-1) / math.sqrt(self.hidden)


class MoE(nn.Module):
    """sum_i w_i(x) * expert_i(x) over the experts the gate selects.

    Experts are alike in structure. With a plain gate an expert runs only on the rows that chose it. `routing` holds
    the Routing of the latest forward pass, gradients included: regularisers and metrics read it there, and the layer
    still fits into an nn.Sequential.
    """

    def __init__(self, experts, gate):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.gate = gate
        self.routing = None

    def __getstate__(self):
        # A copied or saved layer takes its weights along, not the last batch's routing with its graph.
        return {**self.__dict__, "routing": None}

    def forward(self, x):
        if isinstance(self.gate, AttentiveGate):
            outputs, hidden = zip(*(self._run_with_hidden(expert, x) for expert in self.experts))
            self.routing = self.gate.route(self.gate.logits(x, torch.stack(hidden, dim=1)))
            return self._combine(lambda index, rows: outputs[index][rows])
        logits = self.gate.logits(x)
        if logits.shape[-1] != len(self.experts):
            raise ValueError(f"the gate gives {logits.shape[-1]} logits for {len(self.experts)} experts")
        self.routing = self.gate.route(logits)
        return self._combine(lambda index, rows: self.experts[index](x[rows]))

    def _combine(self, output_of):
        """Adds the experts up in index order. `output_of(i, rows)` gives expert i's output for these rows."""
        experts, weights, _ = self.routing
        total = None
        for index in range(len(self.experts)):
            rows, slots = (experts == index).nonzero(as_tuple=True)
            if rows.numel() == 0:
                continue
            output = output_of(index, rows)
            if total is None:
                total = output.new_zeros((experts.shape[0],) + output.shape[1:])
            weight = weights[rows, slots].reshape((-1,) + (1,) * (output.dim() - 1))
            total = total.index_add(0, rows, weight * output)
        return total

    def _run_with_hidden(self, expert, x):
        """Expert output and its flattened hidden vector after the layer named gate.key_layer."""
        hidden = None
        for name, layer in expert.named_children():
            x = layer(x)
            if name == self.gate.key_layer:
                hidden = x.flatten(1).clone()  # an in-place activation may follow
        if hidden is None:
            raise ValueError(f"the experts have no layer named {self.gate.key_layer!r}, the gate's key_layer")
        return x, hidden
