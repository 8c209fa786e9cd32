"""Two answers about one person from the census: income above 50,000 dollars, and never married.

    python3 -m recipes.adult --data DIR
    python3 -m recipes.adult --data DIR --variant mmoe --seeds 0 --out CHECKPOINT

The tasks are those on which multi-gate mixtures are usually shown. DIR holds adult.data and adult.test of the UCI
repository, gzip-compressed or not, with a header line or not.

    shared-bottom   one network, then a tower per task
    mmoe            eight experts; each task's gate mixes all of them (Ma et al. 2018)
    ple             two levels of three experts per task and two shared ones (Tang et al. 2020)

Marital status is the second answer, and the relationship (Husband, Own-child, ...) nearly gives it away: neither is
among the inputs. Education is there as a number.
"""

import csv
import gzip
import os
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from moed import routing_metrics as metrics
from moed.exporter import export
from moed.layers import Gate, MultiGateMoE
from moed.loader import load
from moed.modules import Select
from moed.multitask import Input, MultiTask, Output, ple
from recipes import card, runner, training
from recipes.idx import DataMissing

COLUMNS = ("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship",
           "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income")
NUMERIC = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
# A category's number is its place here; "?" is the census's own mark of what is not known.
CATEGORIES = {
    "workclass": "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay Never-worked ?",
    "occupation": "Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty Handlers-cleaners "
                  "Machine-op-inspct Adm-clerical Farming-fishing Transport-moving Priv-house-serv Protective-serv "
                  "Armed-Forces ?",
    "race": "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black",
    "sex": "Female Male",
    "native-country": "United-States Cambodia England Puerto-Rico Canada Germany Outlying-US(Guam-USVI-etc) India "
                      "Japan Greece South China Cuba Iran Honduras Philippines Italy Poland Jamaica Vietnam Mexico "
                      "Portugal Ireland France Dominican-Republic Laos Ecuador Taiwan Haiti Columbia Hungary "
                      "Guatemala Nicaragua Scotland Thailand Yugoslavia El-Salvador Trinadad&Tobago Peru Hong "
                      "Holand-Netherlands ?",
}
TASKS = {"income": ("<=50K", ">50K"), "never_married": ("no", "yes")}
EMBEDDING = 4
EXPERTS, EXPERT_SIZE, TOWER_SIZE = 8, 16, 8
PLE_SPECIFIC, PLE_SHARED, PLE_LEVELS = 3, 2, 2
BATCH_ROWS, RATE, EPOCHS = 512, 1e-3, 20
ADVICE = "Get adult.data and adult.test of the UCI repository's Adult data set and name their directory with --data."
ABOUT = ("Tells from a person's row in the 1994 census whether their income is above 50,000 dollars and whether they "
         "never married. ")
KINDS = {"shared-bottom": "One network serves both answers.",
         "mmoe": "Eight experts, of which each answer has its own mixture.",
         "ple": "Two levels of experts: three of each answer's own, and two that both share."}


def read_rows(directory, name):
    """The lists of strings of adult.data or adult.test."""
    path = os.path.join(directory, name)
    opener = open
    if os.path.exists(path + ".gz"):
        path, opener = path + ".gz", gzip.open
    if not os.path.exists(path):
        raise DataMissing(f"{path} is missing. {ADVICE}")
    with opener(path, "rt", encoding="ascii") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    return [row for row in rows if len(row) == len(COLUMNS) and row[0].isdigit()]


def read_set(directory, name):
    """({input: tensor}, {task: labels})"""
    columns = dict(zip(COLUMNS, zip(*read_rows(directory, name))))
    inputs = {"numeric": torch.tensor(np.array([columns[key] for key in NUMERIC], dtype=np.float32).T)}
    for key, text in CATEGORIES.items():
        number = {value: index for index, value in enumerate(text.split())}
        inputs[key] = torch.tensor([[number[value]] for value in columns[key]])
    labels = {"income": torch.tensor([int(value.startswith(">")) for value in columns["income"]]),
              "never_married": torch.tensor([int(value == "Never-married") for value in columns["marital-status"]])}
    return inputs, labels


def entries(numeric):
    """The model's inputs; numbers are brought to mean 0 and variance 1 of the training rows."""
    mean, std = numeric.mean(dim=0).tolist(), numeric.std(dim=0).tolist()
    result = {"numeric": Input((len(NUMERIC),), preprocess={"mean": mean, "std": std})}
    for key, text in CATEGORIES.items():
        words = text.split()
        not_known = words.index("?") if "?" in words else None
        result[key] = Input((1,), layers=nn.Embedding(len(words), EMBEDDING), words=words, unknown=not_known,
                            missing=not_known)
    return result, len(NUMERIC) + EMBEDDING * len(CATEGORIES)


def dense(inputs, outputs):
    return nn.Sequential(OrderedDict(fc=nn.Linear(inputs, outputs), relu=nn.ReLU()))


def gate(inputs, experts):
    return Gate(nn.Sequential(OrderedDict(logits=nn.Linear(inputs, experts))))


def tower(index, inputs):
    """A task's own layers, after its entry of the mixture (index None: after all there is)."""
    layers = [] if index is None else [("select", Select(index))]
    return nn.Sequential(OrderedDict(layers + [("fc", nn.Linear(inputs, TOWER_SIZE)), ("relu", nn.ReLU()),
                                               ("out", nn.Linear(TOWER_SIZE, 2)), ("softmax", nn.Softmax(dim=-1))]))


def mixture(variant, size):
    """The layers between inputs and towers."""
    if variant == "shared-bottom":
        return dense(size, EXPERTS * EXPERT_SIZE)
    if variant == "mmoe":
        gates = {task: gate(size, EXPERTS) for task in TASKS}
        experts = MultiGateMoE([dense(size, EXPERT_SIZE) for _ in range(EXPERTS)], gates)
        return nn.Sequential(OrderedDict(experts=experts))
    sizes = [size, EXPERT_SIZE]
    return ple(lambda level: dense(sizes[level], EXPERT_SIZE), lambda level, count: gate(sizes[level], count),
               tuple(TASKS), PLE_SPECIFIC, PLE_SHARED, PLE_LEVELS)


def build(variant, numeric):
    inputs, size = entries(numeric)
    shared = variant == "shared-bottom"
    outputs = {task: Output(tower(None if shared else index, EXPERTS * EXPERT_SIZE if shared else EXPERT_SIZE), labels)
               for index, (task, labels) in enumerate(TASKS.items())}
    return MultiTask(inputs, mixture(variant, size), outputs)


class AdultJob(runner.Job):
    """Adam on the sum of the tasks' cross entropies."""

    def __init__(self, model, inputs, labels, epochs):
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        super().__init__(model, {"optimizer": optimizer}, epochs)
        self.optimizer, self.inputs, self.labels = optimizer, inputs, labels

    def epoch(self):
        """(loss, share of wrong answers of both tasks)"""
        self.model.train()
        total, wrong, rows = 0.0, 0, len(self.inputs["numeric"])
        for batch in torch.randperm(rows).split(BATCH_ROWS):
            answers = self.model({name: values[batch] for name, values in self.inputs.items()})
            loss = sum(training.mixture_loss(answers[task], self.labels[task][batch]) for task in TASKS)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(batch)
            wrong += sum((answers[task].argmax(dim=1) != self.labels[task][batch]).sum().item() for task in TASKS)
        return total / rows, wrong / rows / len(TASKS)


def figures(model, inputs, labels, prefix):
    """Error and area under the ROC curve of every task."""
    model.eval()
    with torch.no_grad():
        answers = model(inputs)
    result = {}
    for task in TASKS:
        wrong = (answers[task].argmax(dim=1) != labels[task]).sum().item()
        result[f"{prefix}_error_{task}"] = wrong / len(labels[task])
        result[f"{prefix}_auc_{task}"] = metrics.area_under_curve(answers[task][:, 1].numpy(), labels[task].numpy())
    return result


def mixtures_of(model):
    """{layer name: MultiGateMoE}"""
    return {name: layer for name, layer in model.layers.named_children() if isinstance(layer, MultiGateMoE)}


def gate_figures(model):
    """{layer.gate: mean weight per expert} of the latest pass."""
    return {f"{name}.{gate}": routing.probabilities.mean(dim=0).tolist()
            for name, layer in mixtures_of(model).items() for gate, routing in layer.routing.items()}


class Adult(runner.Recipe):
    name, about, data = "adult", __doc__, "data/adult"
    variants = tuple(KINDS)

    def __init__(self):
        self.sets = None

    def read(self, directory, variant):
        if self.sets is None:
            self.sets = {"train": read_set(directory, "adult.data"), "test": read_set(directory, "adult.test")}
        return self.sets

    def job(self, variant, data, teacher, epochs):
        inputs, labels = data["train"]
        return AdultJob(build(variant, inputs["numeric"]), inputs, labels, epochs or EPOCHS)

    def measure(self, job, data):
        result = {**figures(job.model, *data["train"], "train"), **figures(job.model, *data["test"], "test")}
        return {**result, "gate_weights": gate_figures(job.model)}

    def export(self, variant, model, data, row, options, directory):
        inputs, labels = data["test"]
        export(model, None, directory, dtype=options.dtype, description=f"Adult census, {variant}: two tasks",
               reference_rows=inputs)
        stored = load(directory)
        measured = figures(stored, inputs, labels, "test")
        facts = card.origin("Adult (UCI repository, CC BY 4.0): 32,561 rows of the 1994 US census to train, 16,281 to "
                            "test", options.command, row, model, options.dtype)
        for task in TASKS:
            facts[f"{task}: test accuracy"] = card.percent(1 - measured[f"test_error_{task}"])
            facts[f"{task}: area under the curve"] = f"{measured[f'test_auc_{task}']:.4f}"
        for name, weights in gate_figures(stored).items():
            facts[f"Mean weight by expert, gate {name}"] = card.percents(weights)
        card.write(directory, ABOUT + KINDS[variant], facts, INPUTS_TEXT)


INPUTS_TEXT = (
    f"`numeric` is {', '.join(NUMERIC)}, as they are. The other inputs are categories, each as a word of its list or "
    "by its place there from 0; what is none of them, or null, is `?` where the list has that:\n\n"
    "| input | categories |\n|---|---|\n"
    + "".join(f"| `{key}` | {', '.join(text.split())} |\n" for key, text in CATEGORIES.items())
    + "\nThe figures are those of the weights as stored, on all test rows. The data are of 1994 and of one country: a "
      "model of them shows how several gates are served, and decides about nobody.")


if __name__ == "__main__":
    runner.main(Adult())
