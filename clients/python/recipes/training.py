"""Loss and measurement of classifiers that are one MoE layer of experts ending in softmax.

The model of arXiv 2302.14703 ("expectation model"): the output is the mixture of the experts' probabilities, the loss
its negative log likelihood. There is no second softmax.
"""

import torch

from moed import routing_metrics as metrics

# Keeps log() finite when the mixture gives the true class no probability (the authors' value).
LIKELIHOOD_EPSILON = 1e-7
EVALUATION_ROWS = 2000


def mixture_loss(probabilities, labels):
    """-mean log of the probability of the label."""
    return -(probabilities[torch.arange(len(labels)), labels] + LIKELIHOOD_EPSILON).log().mean()


def evaluate(moe, images, labels):
    """Error and routing metrics of a MoE classifier over all rows given."""
    moe.eval()
    wrong, selected, probabilities, predicted = 0, 0, [], []
    with torch.no_grad():
        for rows, truth in zip(images.split(EVALUATION_ROWS), labels.split(EVALUATION_ROWS)):
            output = moe(rows)
            wrong += (output.argmax(dim=1) != truth).sum().item()
            experts, _, p = moe.routing
            selected = selected + torch.bincount(experts.flatten(), minlength=len(moe.experts))
            probabilities.append(p)
            predicted.append(_first_choice_predictions(moe, rows, p.argmax(dim=1)))
    p, predicted = torch.cat(probabilities), torch.cat(predicted)
    first_choice = p.argmax(dim=1)
    by_class = torch.zeros(len(moe.experts), output.shape[1], dtype=torch.int64)
    by_class.index_put_((first_choice, labels), torch.ones_like(labels), accumulate=True)
    return {"error": wrong / len(images), "share": _fractions(selected),
            "first_choice": _fractions(by_class.sum(dim=1)), "first_choice_by_class": by_class.tolist(),
            "gate_entropy_bits": metrics.gate_entropy_bits(p.numpy()),
            "usage_entropy_bits": metrics.usage_entropy_bits(p.numpy()),
            "mutual_information_bits": metrics.mutual_information_bits(
                first_choice.numpy(), predicted.numpy(), len(moe.experts), output.shape[1])}


def error_of(forward, model, images, labels):
    """Share of wrong rows of `forward`, which runs `model`, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return sum((forward(rows).argmax(dim=1) != truth).sum().item() for rows, truth in
                   zip(images.split(EVALUATION_ROWS), labels.split(EVALUATION_ROWS))) / len(images)


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
