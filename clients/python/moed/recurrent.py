"""Recurrent layers of PyTorch step by step: a checkpoint has no state, but rows have so many positions.

Each step has its own copy of the weights that the state passes, which is what unrolling costs; what the positions
themselves pass is one layer for all of them.
"""

from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import nn
from torch.nn import functional

from moed.ops import require

RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
MOST_STEPS = {"LSTM": 88, "GRU": 68, "RNN": 128}  # a list of layers names at most 1024 values: 11, 14, 3 for each
OTHERWISE = "attention over the positions (moed.nn.Attention, causal=True), or a convolution, takes any length"


class _States(List[Any]):
    """The last states of all layers, while their calls are recorded: their first axis is not that of the rows."""

    def __getitem__(self, index: Any) -> Any:
        inner = index[1:] if isinstance(index, tuple) else ()
        found = super().__getitem__(index[0] if isinstance(index, tuple) else index)
        if isinstance(found, list):
            return _States(found)
        return found[inner] if any(part != slice(None) for part in inner) else found

    def squeeze(self, dim: int = 0) -> Any:
        return self[0] if dim == 0 and len(self) == 1 else self


class Unrolled(nn.Module):
    """What nn.LSTM, nn.GRU or nn.RNN gives for rows of positions: (result, last state)."""

    def __init__(self, layer: Any, path: str):
        super().__init__()
        kind = type(layer).__name__
        require(layer.batch_first, path, f"{kind} without batch_first=True: its rows are positions. Make it with "
                                         f"batch_first=True, and give it [rows, positions, size]; or {OTHERWISE}")
        require(getattr(layer, "proj_size", 0) == 0, path, f"{kind} with proj_size; leave it out, or {OTHERWISE}")
        self.layer, self.kind, self.path = layer, kind, path
        self.layers, self.ways = layer.num_layers, 2 if layer.bidirectional else 1
        self.size = layer.hidden_size

    def forward(self, input: torch.Tensor, hx: Any = None) -> Tuple[torch.Tensor, Any]:
        x, states = input, []
        self._check(x, hx)
        for layer in range(self.layers):
            results = []
            for way in range(self.ways):
                steps, state = self._along(x, f"_l{layer}{'_reverse' if way else ''}", bool(way))
                results.append(torch.stack(steps, 1))
                states.append(state)
            x = torch.cat(results, -1) if self.ways == 2 else results[0]
        last = [_States(parts) if hasattr(x, "tracer") else torch.stack(parts, 0) for parts in zip(*states)]
        return x, tuple(last) if self.kind == "LSTM" else last[0]

    def _check(self, x: Any, hx: Any) -> None:
        steps = x.shape[1] if x.dim() == 3 else 0
        total = steps * self.layers * self.ways
        require(x.dim() == 3 and total <= MOST_STEPS[self.kind], self.path,
                f"{self.kind} over {steps} positions, {total} steps of all its layers: it is unrolled, for at most "
                f"{MOST_STEPS[self.kind]}; {OTHERWISE}")
        for state in hx if isinstance(hx, (tuple, list)) else [] if hx is None else [hx]:
            require(isinstance(state, torch.Tensor) and not state.any(), self.path,
                    f"{self.kind} with a state that it begins with; rows are computed by themselves, from zeros on")

    def _along(self, x: Any, suffix: str, backwards: bool) -> Tuple[List[Any], Tuple[Any, ...]]:
        """(what each position gives, the last state)"""
        weight, bias = (getattr(self.layer, f"{name}_hh{suffix}", None) for name in ("weight", "bias"))
        given = functional.linear(x, getattr(self.layer, f"weight_ih{suffix}"),
                                  getattr(self.layer, f"bias_ih{suffix}", None))
        steps: List[Any] = [None] * x.shape[1]
        state: Tuple[Any, ...] = ()
        for index in range(x.shape[1] - 1, -1, -1) if backwards else range(x.shape[1]):
            step = given.select(1, index)
            state = getattr(self, f"_{self.kind.lower()}")(step, weight, bias, *state)
            steps[index] = state[0]
        return steps, state

    def _rnn(self, step: Any, weight: Any, bias: Any, before: Optional[Any] = None) -> Tuple[Any, ...]:
        total = step + self._passed(step, weight, bias, before)
        return (torch.tanh(total) if self.layer.nonlinearity == "tanh" else torch.relu(total),)

    def _lstm(self, step: Any, weight: Any, bias: Any, before: Optional[Any] = None,
              cell: Optional[Any] = None) -> Tuple[Any, ...]:
        takes, keeps, new, shows = (step + self._passed(step, weight, bias, before)).chunk(4, -1)
        added = torch.sigmoid(takes) * torch.tanh(new)
        cell = added if cell is None else torch.sigmoid(keeps) * cell + added
        return torch.sigmoid(shows) * torch.tanh(cell), cell

    def _gru(self, step: Any, weight: Any, bias: Any, before: Optional[Any] = None) -> Tuple[Any, ...]:
        size = self.size
        passed = self._passed(step, weight, bias, before)
        first, own = (0, 0) if isinstance(passed, int) else (passed[..., :2 * size], passed[..., 2 * size:])
        both = torch.sigmoid(step[:, :2 * size] + first)
        resets, keeps = both[:, :size], both[:, size:]
        new = torch.tanh(step[:, 2 * size:] + resets * own)
        return (new - keeps * new if before is None else new + keeps * (before - new),)

    @staticmethod
    def _passed(step: Any, weight: Any, bias: Any, before: Optional[Any]) -> Any:
        """What of the state before enters a step; at first there is none."""
        if before is None:
            return 0 if bias is None else bias
        return functional.linear(before, weight, bias)


def unroll(module: nn.Module, path_of: Callable[[str], str]) -> None:
    """Puts Unrolled in place of the recurrent layers in a module. path_of: its names as the caller knows them."""
    for name, part in list(module.named_modules()):
        if type(part) in RECURRENT:
            holder, _, own = name.rpartition(".")
            setattr(module.get_submodule(holder), own, Unrolled(part, path_of(name)))
