"""Trains and measures classifiers that are one MoE layer of experts ending in softmax.

The model of arXiv 2302.14703 ("expectation model"): the output is the mixture of the experts' probabilities, the loss
its negative log likelihood. There is no second softmax.
"""

import sys
import time

import torch

from moed import metrics

# Keeps log() finite when the mixture gives the true class no probability (the authors' value).
LIKELIHOOD_EPSILON = 1e-7
EVALUATION_ROWS = 2000


def mixture_loss(probabilities, labels):
    """-mean log of the probability of the label."""
    return -(probabilities[torch.arange(len(labels)), labels] + LIKELIHOOD_EPSILON).log().mean()


def train(moe, images, labels, epochs, batch_rows, rate, regularizer=None):
    """Adam over the parameters that require a gradient. `regularizer(p, x)` is added to the loss if given.

    Returns the seconds spent. Deterministic for a given torch.manual_seed, thread count and PyTorch version.
    """
    optimizer = torch.optim.Adam((weight for weight in moe.parameters() if weight.requires_grad), lr=rate)
    progress, start = Progress(epochs), time.monotonic()
    for epoch in range(1, epochs + 1):
        moe.train()
        losses, wrong = 0.0, 0
        for batch in torch.randperm(len(images)).split(batch_rows):
            output = moe(images[batch])
            loss = mixture_loss(output, labels[batch])
            if regularizer is not None:
                loss = loss + regularizer(moe.routing.probabilities, images[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.item() * len(batch)
            wrong += (output.argmax(dim=1) != labels[batch]).sum().item()
        progress.epoch(epoch, losses / len(images), wrong / len(images))
    return time.monotonic() - start


class Progress:
    """One line per epoch on standard error; on a terminal the lines are coloured."""

    def __init__(self, epochs):
        self.epochs = epochs
        self.start = time.monotonic()
        self.dim, self.plain = ("\033[2m", "\033[0m") if sys.stderr.isatty() else ("", "")

    def epoch(self, number, loss, error):
        elapsed = time.monotonic() - self.start
        print(f"epoch {number:3d}/{self.epochs}  loss {loss:.4f}  training error {100 * error:6.2f} %  "
              f"{self.dim}{elapsed:6.0f} s{self.plain}", file=sys.stderr, flush=True)


def evaluate(moe, images, labels):
    """Error and routing metrics of a MoE classifier over all rows given."""
    moe.eval()
    wrong, selected, probabilities, predicted = 0, 0, [], []
    with torch.no_grad():
        for rows, truth in zip(images.split(EVALUATION_ROWS), labels.split(EVALUATION_ROWS)):
            wrong += (moe(rows).argmax(dim=1) != truth).sum().item()
            experts, _, p = moe.routing
            selected = selected + torch.bincount(experts.flatten(), minlength=len(moe.experts))
            probabilities.append(p)
            predicted.append(_first_choice_predictions(moe, rows, p.argmax(dim=1)))
    p, predicted = torch.cat(probabilities), torch.cat(predicted)
    first_choice = p.argmax(dim=1)
    return {"error": wrong / len(images), "share": _fractions(selected),
            "first_choice": _fractions(torch.bincount(first_choice, minlength=len(moe.experts))),
            "gate_entropy_bits": metrics.gate_entropy_bits(p.numpy()),
            "usage_entropy_bits": metrics.usage_entropy_bits(p.numpy()),
            "mutual_information_bits": metrics.mutual_information_bits(
                first_choice.numpy(), predicted.numpy(), len(moe.experts), int(labels.max()) + 1)}


def _fractions(counts):
    return (counts.double() / counts.sum()).tolist()


def _first_choice_predictions(moe, rows, first_choice):
    """The class that each row's likeliest expert predicts by itself."""
    predicted = torch.empty_like(first_choice)
    for index, expert in enumerate(moe.experts):
        chosen = first_choice == index
        if chosen.any():
            predicted[chosen] = expert(rows[chosen]).argmax(dim=1)
    return predicted
