"""Normalised gradient descent: every expert takes a step of the same length (Chen et al. 2022)."""

import torch


class NormalizedGD(torch.optim.Optimizer):
    """w -= rate * grad / norm, one norm per parameter group; give each expert a group of its own.

    The norm of a group is the SUM of its parameters' gradient norms, as in the authors' code, and not the norm of all
    of them together. A group without gradient (an expert that no row chose) stays where it is.
    """

    def __init__(self, groups, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            norm = sum(weight.grad.norm() for weight in weights)
            if len(weights) > 0 and norm > 0:
                for weight in weights:
                    self._move(weight, weight.grad / norm, group)

    def _move(self, weight, step, group):
        if group["weight_decay"]:
            step = step + group["weight_decay"] * weight
        if group["momentum"]:
            buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
            step = buffer.mul_(group["momentum"]).add_(step)
        weight.sub_(step, alpha=group["lr"])
