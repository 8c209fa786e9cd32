"""Normalised gradient descent: every expert takes a step of the same length (Chen et al. 2022)."""

import torch


class NormalizedGD(torch.optim.Optimizer):
    """w -= rate * grad / norm, one norm per parameter group; give each expert a group of its own.

    The norm of a group is the SUM of its parameters' gradient norms, as in the authors' code, and not the norm of all
    of them together. A weight without gradient (of an expert that did not run) stays where it is. One whose gradient
    is zero goes on by momentum and decay, as in the authors' code.
    """

    def __init__(self, groups, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._move(weights, self._steps(weights), group)

    def _steps(self, weights):
        """The gradients over their norm. Nothing here waits for a GPU, so that a graph can be made of it."""
        grads = [weight.grad for weight in weights]
        norm = torch.stack(torch._foreach_norm(grads)).sum()
        divisor = torch.where(norm > 0, norm, torch.ones_like(norm))
        return [grad / divisor for grad in grads]

    def _move(self, weights, steps, group):
        if group["weight_decay"]:
            torch._foreach_add_(steps, weights, alpha=group["weight_decay"])
        if group["momentum"]:
            buffers = [self._buffer(weight) for weight in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, steps)
            steps = buffers
        torch._foreach_add_(weights, steps, alpha=-group["lr"])

    def _buffer(self, weight):
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]
