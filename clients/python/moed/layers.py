"""The Mixture-of-Experts layers: gates choose experts for every item, the layer returns their weighted sum.

These modules define what a trained checkpoint means; the server computes the same function. Axis 0 of every tensor is
the row. An item is what is routed: a row, or each position of one.
"""

import math

import torch
from torch import nn

from moed.gates import AttentiveGate, Capacity, Gate, Groups, Routing, sparsemixer
from moed.modules import real_entries
from moed.words import counted

__all__ = ["AttentiveGate", "Capacity", "Gate", "Groups", "MoE", "MultiGateMoE", "Routing", "sparsemixer"]

ROUTES = ("rows", "positions")
WEIGHS = ("outputs", "inputs")


class _Mixture(nn.Module):
    """What MoE and MultiGateMoE share: the experts, and what each of them sees.

    expert_inputs  one index per expert: it sees that entry of the item's first axis. None: all see the whole item.
    """

    def __init__(self, experts, expert_inputs):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        if expert_inputs is not None and len(expert_inputs) != len(self.experts):
            raise ValueError(f"{len(expert_inputs)} expert_inputs for {counted(len(self.experts), 'expert')}")
        self.expert_inputs = None if expert_inputs is None else list(expert_inputs)
        self.routing = None
        self.logits = None

    def __getstate__(self):
        # A copied or saved layer takes its weights along, not the last batch's routing with its graph.
        return {**self.__dict__, "routing": None, "logits": None}

    def expert_input(self, index, items):
        """What of the items expert `index` sees."""
        return items if self.expert_inputs is None else items[:, self.expert_inputs[index]]

    def _run(self, index, items, rows):
        return self.experts[index](self.expert_input(index, items)[rows])


class MoE(_Mixture):
    """sum_i w_i(x) * expert_i(x) over the experts the gate selects.

    With a plain gate an expert runs only on the items that chose it. `routing` holds the Routing of the latest forward
    pass and `logits` what it was made from, gradients included: regularisers and metrics read them there, and the layer
    still fits into an nn.Sequential.

    Args:
        experts: modules, alike in structure.
        gate: Gate or AttentiveGate.
        route: "rows" or "positions": every row is one item, or every vector of its last axis.
        shared: an expert that serves every item, added unweighted.
        shared_gate: nn.Linear(n, 1, bias=False), n the numbers of an item: the shared expert is multiplied by its
            sigmoid.
        expert_inputs: one index per expert: it sees that entry of the row's first axis. None: all see the whole row.
        weigh: "outputs" or "inputs": what the combine weights multiply. Llama 4 weighs what the experts are given.

    Raises:
        ValueError: settings that do not go together.
    """

    def __init__(self, experts, gate, route="rows", shared=None, shared_gate=None, expert_inputs=None,
                 weigh="outputs"):
        super().__init__(experts, expert_inputs)
        if route not in ROUTES:
            raise ValueError(f"route is {route!r}; it must be one of {', '.join(ROUTES)}")
        if expert_inputs is not None and route == "positions":
            raise ValueError("with route positions an item is a vector: it has no entries for expert_inputs")
        if shared_gate is not None and shared is None:
            raise ValueError("there is a shared_gate, but no shared expert")
        if weigh not in WEIGHS or (weigh == "inputs" and isinstance(gate, AttentiveGate)):
            raise ValueError(f"weigh is {weigh!r}; it must be one of {', '.join(WEIGHS)}, outputs with an attentive "
                             "gate")
        self.weigh = weigh
        self.gate = gate
        self.route = route
        self.shared = shared
        self.shared_gate = shared_gate

    def items(self, x):
        """What is routed of the rows x."""
        return x.reshape(-1, x.shape[-1]) if self.route == "positions" else x

    def forward(self, x, return_routing=False):
        """The weighted sum of the selected experts.

        Args:
            x: rows.
            return_routing: also return this pass's Routing. The attribute `routing` is of the latest pass of this
                object, which under DataParallel or activation checkpointing is not the one you called.

        Shape:
            x: [rows, ...]; with route "positions" [rows, ..., size].
            output: [rows, ...] with the expert's output axes.
        """
        items = self.items(x)
        output = self._like(x, self._of_items(items, len(items) // max(1, len(x))))
        return (output, self.routing) if return_routing else output

    def of_lengths(self, x, lengths):
        """The same of rows that end in padding, which is routed nowhere: expert -1, weight and probabilities 0.

        Shape:
            x: [rows, entries, ..., size]
            lengths: [rows]
        """
        if self.route != "positions":
            raise ValueError("a MoE layer that routes rows would see their padding; it goes with route=\"positions\"")
        items, each = self.items(x), math.prod(x.shape[2:-1])
        real = real_entries(lengths, x.shape[1]).flatten().repeat_interleave(each)
        if not real.any():  # whatever this gives is cleared below
            output = self._of_items(items, x.shape[1] * each).zero_()
        else:
            some = self._of_items(items[real], (lengths * each).tolist())
            output = some.new_zeros((len(items), *some.shape[1:])).masked_scatter(
                real.reshape(-1, *[1] * (some.dim() - 1)), some)
        self.routing = _spread(self.routing, real)
        return self._like(x, output)

    def _like(self, x, output):
        """Of items, as the rows have them."""
        return output.reshape(x.shape[:-1] + output.shape[1:]) if self.route == "positions" else output

    def _of_items(self, items, items_of_row):
        if isinstance(self.gate, AttentiveGate):
            outputs, hidden = zip(*(self._run_with_hidden(index, items) for index in range(len(self.experts))))
            self.logits = self.gate.logits(items, torch.stack(hidden, dim=1))
            output = self._combine(lambda index, rows: outputs[index][rows], items_of_row)
        else:
            self.logits = self.gate.logits(items)
            _check_logits("the gate", self.logits, len(self.experts))
            output = self._combine(lambda index, rows: self._run(index, items, rows), items_of_row, items)
        if self.shared is not None:
            output = output + self._shared_output(items)
        return output

    def _shared_output(self, items):
        output = self.shared(items)
        if self.shared_gate is None:
            return output
        return output * _broadcast(torch.sigmoid(self.shared_gate(items.flatten(1))), output)

    def _combine(self, output_of, items_of_row, items=None):
        """Adds the experts up in index order. `output_of(i, rows)` gives expert i's output for these items."""
        self.routing = self.gate.route(self.logits, items_of_row)
        experts, weights, _ = self.routing
        total = None
        for index in range(len(self.experts)):
            rows, slots = (experts == index).nonzero(as_tuple=True)
            if rows.numel() == 0:
                continue
            weight = weights[rows, slots]
            if self.weigh == "inputs":
                seen = self.expert_input(index, items)[rows]
                output = self.experts[index](_broadcast(weight, seen) * seen)
            else:
                output = output_of(index, rows)
                output = _broadcast(weight, output) * output
            if total is None:
                total = output.new_zeros((experts.shape[0],) + output.shape[1:])
            total = total.index_add(0, rows, output)
        return total

    def _run_with_hidden(self, index, items):
        """Expert output and its flattened hidden vector after the layer named gate.key_layer."""
        x, hidden = self.expert_input(index, items), None
        for name, layer in self.experts[index].named_children():
            x = layer(x)
            if name == self.gate.key_layer:
                hidden = x.flatten(1).clone()  # an in-place activation may follow
        if hidden is None:
            raise ValueError(f"the experts have no layer named {self.gate.key_layer!r}, the gate's key_layer")
        return x, hidden


class MultiGateMoE(_Mixture):
    """Several gates over one set of experts (MMoE, CGC, PLE): entry t of the output's first axis is gate t's sum.

    An expert runs once per row, whichever gates chose it. `routing` and `logits` are dicts by gate; Routing.experts are
    the layer's indices, probabilities and logits are of the gate's own experts, in their order.

    Args:
        experts: modules, alike in structure.
        gates: {name: Gate}, none of them attentive.
        gate_experts: {name: ascending expert indices}, the experts a gate chooses among, one logit each. A gate that is
            not named chooses among all.
        gate_inputs: {name: index}, the entry of the row's first axis that a gate sees. Not named: the whole row.
        expert_inputs: one index per expert, the same for what an expert sees. None: all see the whole row.

    Raises:
        ValueError: an attentive gate, or indices that do not fit.
    """

    def __init__(self, experts, gates, gate_experts=None, gate_inputs=None, expert_inputs=None):
        super().__init__(experts, expert_inputs)
        self.gates = nn.ModuleDict(gates)
        self.gate_experts = {name: list(range(len(self.experts))) for name in self.gates}
        self.gate_experts.update({name: list(indices) for name, indices in (gate_experts or {}).items()})
        self.gate_inputs = {name: None for name in self.gates}
        self.gate_inputs.update(gate_inputs or {})
        self._check()

    def _check(self):
        for name, gate in self.gates.items():
            if isinstance(gate, AttentiveGate):
                raise ValueError(f"gate {name} is attentive; a gate of several cannot be")
        for name, indices in self.gate_experts.items():
            if name not in self.gates or not indices or sorted(set(indices)) != indices:
                raise ValueError(f"gate_experts {name!r}: {indices} is no ascending list for one of {list(self.gates)}")
            if indices[0] < 0 or indices[-1] >= len(self.experts):
                raise ValueError(f"gate_experts {name!r}: {indices} is not within "
                                 f"{counted(len(self.experts), 'expert')}")
        if set(self.gate_inputs) != set(self.gates):
            raise ValueError(f"gate_inputs are for {list(self.gate_inputs)}; the gates are {list(self.gates)}")

    def forward(self, x, return_routing=False):
        """Every gate's weighted sum.

        Args:
            x: rows.
            return_routing: also return this pass's Routings, a dict by gate.

        Shape:
            x: [rows, ...]
            output: [rows, gates, ...] with the expert's output axes.
        """
        self.logits = {name: self._gate_logits(name, x) for name in self.gates}
        self.routing = {name: self._route(name) for name in self.gates}
        output = self._combine(x)
        return (output, self.routing) if return_routing else output

    def gate_input(self, name, x):
        index = self.gate_inputs[name]
        return x if index is None else x[:, index]

    def _gate_logits(self, name, x):
        logits = self.gates[name].logits(self.gate_input(name, x))
        _check_logits(f"gate {name}", logits, len(self.gate_experts[name]))
        return logits

    def _route(self, name):
        """The gate's Routing with the layer's expert indices in place of its own."""
        routing = self.gates[name].route(self.logits[name])
        indices = routing.experts.new_tensor(self.gate_experts[name] + [-1])  # -1, dropped, stays -1
        return routing._replace(experts=indices[routing.experts])

    def _combine(self, items):
        """(rows, gates, ...): every expert runs over the rows that any gate gave it, in index order."""
        totals = [None] * len(self.gates)
        for index in range(len(self.experts)):
            chosen = [self._chosen(name, index) for name in self.gates]
            wanted = torch.zeros(items.shape[0], dtype=torch.bool, device=items.device)
            for rows, _ in chosen:
                wanted[rows] = True
            if not wanted.any():
                continue
            output = self._run(index, items, wanted.nonzero().squeeze(1))
            place = wanted.cumsum(dim=0) - 1  # of an item in the expert's output
            if totals[0] is None:
                totals = [output.new_zeros((items.shape[0],) + output.shape[1:]) for _ in totals]
            totals = [total.index_add(0, rows, _broadcast(weights, output) * output[place[rows]])
                      for total, (rows, weights) in zip(totals, chosen)]
        return torch.stack(totals, dim=1)

    def _chosen(self, name, index):
        """(rows, weights) that gate `name` gives to expert `index`."""
        experts, weights, _ = self.routing[name]
        rows, slots = (experts == index).nonzero(as_tuple=True)
        return rows, weights[rows, slots]


def _spread(routing, real):
    """A Routing of the items that are real, or of all: with expert -1 and zeros for the others."""
    def among(values, otherwise):
        spread = values.new_full((len(real), values.shape[1]), otherwise)
        spread[real] = values[real] if len(values) == len(real) else values
        return spread
    return Routing(among(routing.experts, -1), among(routing.weights, 0), among(routing.probabilities, 0))


def _check_logits(gate, logits, count):
    if logits.shape[-1] != count:
        raise ValueError(f"{gate} gives {logits.shape[-1]} logits for {count} experts")


def _broadcast(numbers, like):
    """One number per item, in a shape that multiplies `like`."""
    return numbers.reshape((-1,) + (1,) * (like.dim() - 1))
