"""A caller's plain module seen as a MultiTask: what its one input and its outputs are."""

import contextlib
import inspect
import numbers
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

import torch
from torch import nn

from moed import recommenders  # noqa: F401  (its adapters)
from moed.adapters import adapter_of
from moed.multitask import Input, MultiTask, Output
from moed.ops import require
from moed.prepare import copied, evaluate, evaluated, without_wrapper

Key = Union[str, int]
ROWS = 3  # an unlikely size of anything else
TABLES = (nn.Embedding, nn.EmbeddingBag)


class Subject(MultiTask):
    """keys: where in what the module gives each output is; None: it gives the one output itself."""

    def __init__(self, input_name: str, entry: Input, module: nn.Module):
        super().__init__({input_name: entry}, module, {})
        self.keys: Optional[List[Key]] = None

    def result(self, rows: Dict[str, torch.Tensor]) -> Any:
        return self.layers(self.inputs[0](rows[self.input_names[0]]))

    def forward(self, rows: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        result = self.result(rows)
        if self.keys is None:
            return {self.output_names[0]: result}
        return {name: result[key] for name, key in zip(self.output_names, self.keys)}


def whole_model(model: nn.Module, example_inputs: Any) -> nn.Module:
    """A MultiTask, where the model's class has an adapter that makes one of it; else the model.

    Such an adapter is given the model alone, or also the example inputs, which it has a default for.
    """
    adapter = adapter_of(without_wrapper(model))
    parameters = list(inspect.signature(adapter).parameters.values()) if adapter is not None else []
    if adapter is None or len(parameters) > 1 and parameters[1].default is inspect.Parameter.empty:
        return model
    made = adapter(evaluate(copied(without_wrapper(model))), *([example_inputs] if len(parameters) > 1 else []))
    return made if isinstance(made, MultiTask) else model


def subject_of(model: nn.Module, example_inputs: Any, input_name: str, output_name: Any,
               preprocess: Optional[Mapping[str, Any]], categories: Optional[int], labels: Any) -> Subject:
    """A copy in evaluation mode, with what the arguments of export() say about it."""
    require(isinstance(model, nn.Module), "model", f"is {type(model).__name__}, not an nn.Module")
    example = _example(example_inputs)
    if not example.is_floating_point() or categories is not None:
        categories = _categories(model, categories, example)
    require(categories is None or preprocess is None, "preprocess", "of categories, which are no quantities")
    entry = Input(example.shape[1:], categories, preprocess)
    entry.as_integers = not example.is_floating_point()
    subject = evaluated(Subject(input_name, entry, model))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            rows = example[:1].cpu().repeat((ROWS,) + (1,) * (example.dim() - 1))
            result = subject.layers(rows.float() if example.is_floating_point() else rows)
        except Exception:  # whatever the caller's code says: describing the layers says where
            result = torch.zeros(ROWS, 1)
    subject.keys, subject.output_names = _outputs(result, output_name)
    labels = labels if isinstance(labels, dict) else {subject.output_names[0]: labels}
    require(set(labels) <= set(subject.output_names), "labels", f"of {sorted(labels)}; the outputs are "
                                                                f"{subject.output_names}")
    subject.outputs = nn.ModuleList(Output(labels=labels.get(name)) for name in subject.output_names).eval()
    return subject


def _example(example: Any) -> torch.Tensor:
    if isinstance(example, (tuple, list)) and len(example) == 1:
        example = example[0]
    require(isinstance(example, torch.Tensor), "example_inputs",
            f"is {type(example).__name__}; it must be a tensor, batch axis included, as in torch.zeros(1, 3, 32, 32). "
            "A model of several inputs is put together with moed.nn.MultiTask")
    require(example.dim() > 1, "example_inputs",
            f"has shape {list(example.shape)}; it needs a batch axis before those of a row")
    return example


def _categories(model: nn.Module, categories: Optional[int], example: torch.Tensor) -> int:
    if categories is None:
        sizes = {part.num_embeddings for part in model.modules() if isinstance(part, TABLES)}
        sizes = sizes if len(sizes) < 2 else _looked_up(model, example)
        require(len(sizes) == 1, "example_inputs", "are integers; say with categories=n that they are 0 to n - 1")
        categories = sizes.pop()
    require(isinstance(categories, numbers.Integral) and 0 < int(categories) < 1 << 31, "categories",
            f"is {categories!r}; it is how many there are, 1 to 2^31 - 1")
    return int(categories)


def _looked_up(model: nn.Module, example: torch.Tensor) -> Set[int]:
    """Sizes of the embeddings that the input itself goes to: others are of positions, or of distances between them."""
    found: Set[int] = set()

    def note(part: Any, given: tuple) -> None:
        if len(given) > 0 and given[0].shape == example.shape and torch.equal(given[0], example):
            found.add(part.num_embeddings)

    trial, example = evaluate(copied(without_wrapper(model))).cpu().float(), example[:1].cpu()
    for part in trial.modules():
        if isinstance(part, TABLES):
            part.register_forward_pre_hook(note)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
        trial(example)  # what it cannot do is said where it is described
    return found


def _outputs(result: Any, names: Union[str, Sequence[Optional[str]]]) -> Tuple[Optional[List[Key]], List[str]]:
    """(keys, output names): which tensors of what forward() gives are outputs."""
    if isinstance(result, torch.Tensor):
        require(isinstance(names, str), "output_name", f"is {names!r}, but the model gives one tensor")
        return None, [str(names)]
    require(isinstance(result, (dict, tuple, list)), "model",
            f"gives a {type(result).__name__}; a tensor, or a tuple or dict of tensors, can be served")
    keys: List[Key] = list(result) if isinstance(result, dict) else list(range(len(result)))
    given = dict(zip(keys, getattr(result, "_fields", keys)))
    if not isinstance(names, str):
        require(len(names) == len(keys), "output_name", f"has {len(names)} names, but the model gives {keys}")
        chosen = {key: name for key, name in zip(keys, names) if name is not None}
    else:
        rows = [key for key in keys if _has_rows(result[key])]
        chosen = {rows[0]: names} if len(rows) == 1 else {key: given[key] for key in rows}
        require(all(isinstance(name, str) for name in chosen.values()), "model",
                f"gives a tuple of {len(keys)}; name its entries, as in output_name=['logits', None] (None leaves one "
                "out)")
    require(len(chosen) > 0, "model", "gives no tensor with an axis of rows")
    for key in chosen:
        require(_has_rows(result[key]), "output_name", f"names {key!r}, which is no tensor with an axis of rows")
    return list(chosen), [str(name) for name in chosen.values()]


def _has_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == ROWS
