"""Models of several inputs and outputs, and the expert layers that multi-task recommenders are made of.

    model = MultiTask(inputs={"numeric": Input((6,), preprocess={"mean": [...], "std": [...]}),
                              "occupation": Input((1,), categories=15, layers=nn.Embedding(15, 8))},
                      layers=MultiGateMoE(experts, {"income": Gate(...), "marital": Gate(...)}),
                      outputs={"income": Output(nn.Sequential(Select(0), nn.Linear(16, 2), nn.Softmax(-1))),
                               "marital": Output(nn.Sequential(Select(1), nn.Linear(16, 2), nn.Softmax(-1)))})
    answers = model({"numeric": rows, "occupation": numbers})      # {"income": ..., "marital": ...}

It takes the raw values that clients will send, so what is trained is what is served.
"""

import math

import torch
from torch import nn

from moed import lengths
from moed.layers import MultiGateMoE
from moed.words import counted


class Input(nn.Module):
    """One input, and the layers it passes before it joins the others.

    Args:
        shape: of a row, without the batch axis.
        categories: the input holds integers 0 to categories - 1, of any type; its layers begin with an nn.Embedding.
        preprocess: {"scale": s, "mean": [m, ...], "std": [d, ...]}, one number or one per channel:
            (x * scale - mean) / std of the raw values.
        layers: a module; None: the values join as they are.
        words: what clients may call the categories, in order; without `categories` it says how many there are.
        unknown: the category that stands for words and integers that are none of them; None: they are refused.
        missing: the value or category that stands for null; None: it is refused.
        length: the name of another input, Input((1,), categories=shape[0] + 1) or fewer, which says how many entries
            of the first axis each row has. The others are padding, which no result depends on (moed.lengths).

    Shape:
        raw: [rows, *shape]

    Raises:
        ValueError: categories with preprocess; words without categories, or of another number.
    """

    def __init__(self, shape, categories=None, preprocess=None, layers=None, *, words=None, unknown=None, missing=None,
                 length=None):
        super().__init__()
        if words is not None:
            words = [str(word) for word in words]
            categories = len(words) if categories is None else categories
            if len(words) != categories or len(set(words)) != categories:
                raise ValueError(f"words: {counted(len(set(words)), 'different word')} for "
                                 f"{counted(categories, 'category', 'categories')}")
        if categories is not None and preprocess is not None:
            raise ValueError("categories are no quantities: they take no preprocess")
        if unknown is not None and not 0 <= unknown < (categories or 0):
            raise ValueError(f"unknown: {unknown} is no category of {categories}")
        if missing is not None and categories is not None and not 0 <= missing < categories:
            raise ValueError(f"missing: {missing} is no category of {categories}")
        self.values = {key: value for key, value in (("words", words), ("unknown", unknown), ("missing", missing))
                       if value is not None}
        self.shape = tuple(shape)
        self.categories = categories
        self.preprocess = preprocess
        self.layers = layers
        self.length = length
        self.as_integers = False  # whatever the first layer is

    def preprocessed(self, raw):
        """The raw values as the layers take them."""
        if self.categories is None:
            return preprocess(raw, self.preprocess or {})
        if self.as_integers:
            return raw.long()
        first = _first(self.layers)
        # PyTorch's layers take floats, all but one; what the caller's own take is likely to be that one.
        floats = first is None or type(first).__module__.startswith("torch.") and not isinstance(first, nn.Embedding)
        return raw.float() if floats else raw.long()

    def forward(self, raw):
        return self.of_lengths(raw, None)[0]

    def of_lengths(self, raw, counts):
        """(what joins the others, what is left of the lengths)"""
        x = self.preprocessed(raw)
        return (x, counts) if self.layers is None else lengths.run(self.layers, x, counts)


class Output(nn.Module):
    """One output: layers that begin with what the model's layers give. `labels` name the elements of its last axis."""

    def __init__(self, layers=None, labels=None):
        super().__init__()
        self.layers = layers
        self.labels = labels

    def forward(self, x, counts=None):
        x, counts = (x, counts) if self.layers is None else lengths.run(self.layers, x, counts)
        return lengths.cleared(x, counts)


class MultiTask(nn.Module):
    """{name: Input} -> layers -> {name: Output}. Several inputs are flattened and enter the layers side by side.

    Inputs that say how long the rows of others are do not enter the layers.
    """

    def __init__(self, inputs, layers, outputs):
        super().__init__()
        self.input_names = list(inputs)
        self.inputs = nn.ModuleList(inputs.values())
        self.layers = layers
        self.output_names = list(outputs)
        self.outputs = nn.ModuleList(outputs.values())
        self.length_names = {entry.length for entry in inputs.values() if entry.length is not None}
        for name, entry in inputs.items():
            if entry.length is not None:
                _check_length(name, entry, inputs)

    def data(self):
        """(name, Input) of what enters the layers: all inputs that are no lengths."""
        return [(name, entry) for name, entry in zip(self.input_names, self.inputs) if name not in self.length_names]

    def forward(self, rows):
        """rows: {input name: tensor}; a tensor will do if there is one input. Gives {output name: tensor}."""
        if isinstance(rows, torch.Tensor):
            rows = {self.input_names[0]: rows}
        if set(rows) != set(self.input_names):
            raise ValueError(f"the inputs are {self.input_names}, not {list(rows)}")
        entered = [entry.of_lengths(rows[name], entry.length and rows[entry.length].long().flatten())
                   for name, entry in self.data()]
        if len(entered) > 1 and any(counts is not None for _, counts in entered):
            raise ValueError("rows of different length join other inputs: reduce the first axis before, for example by "
                             "Mean(0)")
        x, counts = lengths.run(self.layers, join([x for x, _ in entered]), entered[0][1])
        return {name: output(x, counts) for name, output in zip(self.output_names, self.outputs)}


def _check_length(name, entry, inputs):
    other = inputs.get(entry.length)
    if other is None:
        raise ValueError(f"{name}: no input is called {entry.length!r}, its length")
    if not entry.shape:
        raise ValueError(f"{name}: rows without an axis have no length")
    most = entry.shape[0] + 1
    if math.prod(other.shape) != 1 or not 2 <= (other.categories or 0) <= most or (
            other.layers is not None or other.length is not None):
        raise ValueError(f"{name}: its length {entry.length!r} is not Input((1,), categories={most}), or fewer")


def join(entered):
    """What the model's layers get: the one input as it is, several flattened and side by side."""
    return entered[0] if len(entered) == 1 else torch.cat([x.reshape(len(x), -1) for x in entered], dim=1)


def preprocess(raw, settings):
    """(raw * scale - mean) / std in float32, mean and std per channel (axis 0 of a row) or one for all."""
    def per_channel(values):
        return torch.tensor(values, dtype=torch.float32).reshape((-1,) + (1,) * (raw.dim() - 2))

    x = raw.float() * settings.get("scale", 1.0)
    if "mean" in settings:
        x = x - per_channel(settings["mean"])
    return x / per_channel(settings["std"]) if "std" in settings else x


def _first(layers):
    while isinstance(layers, nn.Sequential) and len(layers) > 0:
        layers = layers[0]
    return layers


# --- expert layers ----------------------------------------------------------------------------------------------

def cgc(make_expert, make_gate, tasks, specific, shared, stacked=False, last=True):
    """Customised gate control, one level of PLE (Tang et al. 2020): `specific` experts of each task, `shared` of all.

    Every task's gate chooses among the task's experts and the shared ones; its output is entry t of the first axis.
    make_gate(n) makes a gate over n experts.
    stacked  the input is what a level below gives: an entry per task, then one for the shared experts.
    last     otherwise a gate over all experts, named "shared", makes that entry for the level above.
    """
    count = len(tasks) * specific + shared
    common = list(range(len(tasks) * specific, count))
    own = {task: list(range(index * specific, (index + 1) * specific)) for index, task in enumerate(tasks)}
    gate_experts = {task: own[task] + common for task in tasks}
    gate_inputs = {task: index for index, task in enumerate(tasks)}
    if not last:
        gate_experts["shared"] = list(range(count))
        gate_inputs["shared"] = len(tasks)
    expert_inputs = [index // specific if index not in common else len(tasks) for index in range(count)]
    return MultiGateMoE([make_expert() for _ in range(count)],
                        {name: make_gate(len(indices)) for name, indices in gate_experts.items()}, gate_experts,
                        gate_inputs if stacked else None, expert_inputs=expert_inputs if stacked else None)


def ple(make_expert, make_gate, tasks, specific, shared, levels):
    """Progressive layered extraction: `levels` CGC layers, one on the other. Output: an entry per task.

    make_expert(level), make_gate(level, n): a level's experts take what those below give.
    """
    stack = nn.Sequential()
    for level in range(levels):
        stack.add_module(f"level{level}", cgc(
            lambda level=level: make_expert(level), lambda count, level=level: make_gate(level, count), tasks,
            specific, shared, stacked=level > 0, last=level == levels - 1))
    return stack
