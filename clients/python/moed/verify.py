"""The last step of every export: the model and its checkpoint answer the same rows, and the answers are compared.

The model is run as the caller gave it, before anything was folded or taken apart; the checkpoint by the package's own
loader and, where `moed` is found, by the C engine, which also says whether a server would take it. Rows are random
ones and those at edges: zeros, ones, large and small numbers, first and last categories.

A row whose answer jumps when its numbers, or the logits of a gate, change in the seventh digit is at an edge of the
router's choice (two equal logits, say). There neither side is wrong, and it is not compared; nor is one that is finite
or not by the seventh digit. Nor is a difference wrong that is no larger than what rounding does to the row, which the
checkpoint in float64 tells, also with what each of its layers gives rounded to 24 bits.
"""

import contextlib
import copy
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import numpy as np
import torch

from moed import engine
from moed.client import MoedError
from moed.gates import Gate, Routing
from moed.layers import MoE, MultiGateMoE
from moed.loader import LoadedModel
from moed.multitask import Input
from moed.ops import ExportError, require
from moed.places import line_of

Tensors = Dict[str, torch.Tensor]

EDGES = ("zeros", "ones", "minus ones", "a ramp", "large numbers", "small numbers")
ROWS, MOST_ELEMENTS = 24, 1 << 22
RELATIVE, ABSOLUTE = 1e-4, 2e-5  # of a number, and of the largest number of an output
NUDGE = 1e-6
MASKED = 1e8  # logits beyond are those of experts that are masked, and no measure of what rounding does to others
ROUNDING = 2 ** -23
ROUNDINGS = 8  # so many times what rounding does to the checkpoint's own answer


def sample_rows(inputs: Dict[str, Input]) -> Tensors:
    """Raw values for every input, [rows, ...] each."""
    elements = sum(int(np.prod(entry.shape)) for entry in inputs.values())
    count = max(len(EDGES) + 2, min(ROWS, MOST_ELEMENTS // max(elements, 1)))
    generator = torch.Generator().manual_seed(0)
    return {name: _rows_of(entry, count, generator) for name, entry in inputs.items()}


def _rows_of(entry: Input, count: int, generator: torch.Generator) -> torch.Tensor:
    if entry.categories is not None:
        rows = torch.randint(0, entry.categories, (count, *entry.shape), generator=generator)
        rows[0], rows[1] = 0, entry.categories - 1
        return rows
    rows = torch.randn(count, *entry.shape, generator=generator)
    rows[0], rows[1], rows[2] = 0, 1, -1
    rows[3] = torch.linspace(-1, 1, rows[3].numel()).reshape(entry.shape)
    rows[4] *= 10
    rows[5] *= 1e-3
    return _raw(rows, entry.preprocess or {})


def _raw(rows: torch.Tensor, settings: dict) -> torch.Tensor:
    """What clients would send to have `rows` enter the model."""
    def per_channel(values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).reshape((-1,) + (1,) * (rows.dim() - 2))

    if "std" in settings:
        rows = rows * per_channel(settings["std"])
    if "mean" in settings:
        rows = rows + per_channel(settings["mean"])
    return rows / settings.get("scale", 1.0)


def outcome(model: Any, rows: Tensors, path: str) -> Tensors:
    """The model's own answers, by output. It must give the same ones twice."""
    try:
        first, second = (_answers(model, {name: values.clone() for name, values in rows.items()}) for _ in range(2))
    except Exception as error:  # whatever the caller's code says
        shapes = {name: list(values.shape[1:]) for name, values in rows.items()}
        raise ExportError(path, f"does not accept rows of shape {shapes}: {type(error).__name__}: {error}",
                          line_of(error)) from None
    for name, values in first.items():
        require(torch.equal(torch.nan_to_num(values), torch.nan_to_num(second[name])), path,
                "gives two answers to the same rows: something in it is random at evaluation, or remembers")
    return first


def check_package(expected: Tensors, loaded: LoadedModel, rows: Tensors, path: str) -> None:
    """The package's own loader."""
    got = _answers(loaded, rows)
    _check(expected, got, _steady(loaded, rows, got), lambda: _roundings(loaded, rows, got), path,
           "the checkpoint computes")


def check_engine(binary: str, directory: str, loaded: LoadedModel, rows: Tensors, path: str) -> None:
    """The C engine, against the loader on the stored weights; the chosen experts too."""
    try:
        engine.inspect(binary, directory)
        with engine.Engine(binary, os.path.dirname(directory)) as server:
            arrays = {name: values.numpy() for name, values in rows.items()}
            answers = server.answers(os.path.basename(directory), arrays)
    except (engine.EngineError, MoedError) as error:
        raise ExportError(path, f"the server refuses the checkpoint: {error}") from None
    check_answers(answers, loaded, rows, path)


def check_answers(answers: Dict[str, np.ndarray], loaded: LoadedModel, rows: Tensors, path: str) -> None:
    """A server's answers, outputs and the experts of each row, against the loader's."""
    expected = _answers(loaded, rows)
    routings = _routings(loaded)
    steady = _steady(loaded, rows, expected)
    got = {name: torch.from_numpy(values.copy()) for name, values in answers.items()}
    _check(expected, got, steady, lambda: _roundings(loaded, rows, expected), path, "the server computes")
    for name, routing in routings.items():
        same = _same_sets(got[name], routing.experts, len(steady.answers))
        same |= _as_good(got[name], routing, len(steady.answers))
        require(bool(same[steady.answers & steady.experts].all()), path,
                f"'{name}': the server chooses other experts than the model")


def _same_sets(got: torch.Tensor, chosen: torch.Tensor, rows: int) -> torch.Tensor:
    """[rows] of bool. Of those chosen, the order of two that are nearly equal is nobody's promise."""
    first, second = (values.reshape(rows, -1, chosen.shape[-1]).sort(dim=-1).values for values in (got, chosen))
    return (first == second).flatten(1).all(dim=1)


def _as_good(got: torch.Tensor, routing: Routing, rows: int) -> torch.Tensor:
    """[rows] of bool. Of experts with one share, a sigmoid's 0 or 1 beyond float32, too, either may be chosen."""
    shares = torch.cat([routing.probabilities, torch.full_like(routing.probabilities[:, :1], -1)], 1)  # -1: no expert
    of_each = [shares.gather(1, chosen.reshape(routing.experts.shape).long() % shares.shape[1]).sort(dim=-1).values
               for chosen in (got, routing.experts)]
    return (of_each[0] == of_each[1]).reshape(rows, -1).all(dim=1)


def _routings(loaded: LoadedModel) -> Dict[str, Routing]:
    """Of the latest pass, by the name that the server gives their experts."""
    found = {}
    for path, module in loaded.named_modules():
        name = path.split(".")[-1]
        if type(module) is MoE:
            found[f"routing.{name}.experts"] = module.routing
        elif type(module) is MultiGateMoE:
            found.update({f"routing.{name}.{gate}.experts": _of_all(routing, module, gate)
                          for gate, routing in module.routing.items()})
    return found


def _of_all(routing: Routing, module: MultiGateMoE, gate: str) -> Routing:
    """Its distribution over all experts, where a gate chooses among some."""
    shares = routing.probabilities.new_full((len(routing.probabilities), len(module.experts)), -1)
    shares[:, module.gate_experts[gate]] = routing.probabilities
    return routing._replace(probabilities=shares)


def _experts(loaded: LoadedModel) -> Tensors:
    return {name: routing.experts for name, routing in _routings(loaded).items()}


def _answers(model: Any, rows: Tensors) -> Tensors:
    with torch.no_grad():
        answers = model(rows)
    return answers if isinstance(answers, dict) else {model.output_names[0]: answers}


class _Steady(NamedTuple):
    """[rows] of bool, three."""

    answers: torch.Tensor  # are finite and at no edge of a decision
    experts: torch.Tensor  # are at none
    finite: torch.Tensor   # whether answers are is no matter of digits


def _steady(loaded: LoadedModel, rows: Tensors, answers: Tensors) -> _Steady:
    """`answers` are those of the latest pass. Nudges come in pairs of opposite sign: of equal logits the one finds the
    largest first, the other the smallest.
    """
    steady = _finite(answers)
    settled, chosen, sure = torch.ones_like(steady), _experts(loaded), torch.ones_like(steady)
    for seed in range(2):
        for sign in (1, -1):
            with _nudged_logits(loaded, seed, sign * NUDGE):
                others = _answers(loaded, _nudged(rows, seed, sign * NUDGE))
            sure &= _finite(others) == _finite(answers)
            for name, values in answers.items():
                steady &= _same(others[name], values)
            for name, experts in _experts(loaded).items():
                settled &= _same_sets(experts, chosen[name], len(steady))
    return _Steady(steady, settled, sure)


def _finite(answers: Tensors) -> torch.Tensor:
    return torch.stack([torch.isfinite(values).flatten(1).all(dim=1) for values in answers.values()]).all(dim=0)


def _roundings(loaded: LoadedModel, rows: Tensors, answers: Tensors) -> Tensors:
    """How far each number of the answers is from what the checkpoint gives in float64, or that from what it gives with
    layers that round; 0 where that cannot be run."""
    exact = copy.deepcopy(loaded).double()
    for entry in exact.inputs:
        entry.preprocessed = _in_double(entry.preprocessed)
    try:
        precise = _answers(exact, rows)
        others = [{name: values.double() for name, values in answers.items()}]
        for seed in range(2):
            with _rounded(exact, seed):
                others.append(_answers(exact, rows))
    except RuntimeError:
        return {name: torch.zeros_like(values) for name, values in answers.items()}
    return {name: torch.stack([torch.nan_to_num((other[name] - values).abs()) for other in others]).amax(0).float()
            for name, values in precise.items()}


@contextlib.contextmanager
def _rounded(loaded: LoadedModel, seed: int) -> Iterator[None]:
    """What a layer gives is off by about a digit of float32, which the answers of another implementation may be."""
    generator = torch.Generator().manual_seed(seed)

    def round_off(module: Any, given: tuple, result: Any) -> Any:
        if not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return result
        return result * (1 + ROUNDING * torch.randn(result.shape, generator=generator, dtype=result.dtype))
    hooks = [module.register_forward_hook(round_off) for module in loaded.modules() if not list(module.children())]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _in_double(preprocessed: Callable) -> Callable:
    def doubled(raw: torch.Tensor) -> torch.Tensor:
        values = preprocessed(raw)
        return values.double() if values.is_floating_point() else values
    return doubled


@contextlib.contextmanager
def _nudged_logits(loaded: LoadedModel, seed: int, size: float) -> Iterator[None]:
    """Logits that differ by rounding alone, of inputs that are next to nothing, are not told apart by their inputs."""
    generator = torch.Generator().manual_seed(seed)

    def nudge(module: Any, given: tuple, logits: torch.Tensor) -> torch.Tensor:
        seen = torch.where(logits.abs() < MASKED, logits, torch.zeros_like(logits))
        largest = seen.abs().amax(-1, keepdim=True)
        return logits + size * largest * torch.randn(logits.shape, generator=generator)
    hooks = [gate.layers.register_forward_hook(nudge) for gate in loaded.modules() if isinstance(gate, Gate)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _nudged(rows: Tensors, seed: int, size: float) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    nudged = dict(rows)
    for name, values in rows.items():
        if values.is_floating_point():
            # In units of what a number varies by, which preprocessing may make anything; at least its last digits.
            scale = values.std(dim=0, keepdim=True).maximum(values.abs() / 5)
            nudged[name] = values + size * scale * torch.randn(values.shape, generator=generator)
    return nudged


def _same(got: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """[rows] of bool"""
    finite = expected[torch.isfinite(expected)]
    largest = float(finite.abs().max()) if finite.numel() else 1.0
    close = torch.isclose(got, expected, rtol=RELATIVE, atol=ABSOLUTE * largest, equal_nan=True)
    return close.reshape(len(got), -1).all(dim=1)


def _check(expected: Tensors, got: Tensors, steady: _Steady, roundings: Callable[[], Tensors], path: str,
           who: str) -> None:
    require(bool(steady.answers.any()), path, "every row that was tried is at an edge of a router's choice or gives "
                                              "numbers that are not finite; there is nothing to compare")
    for name, values in expected.items():
        require(got[name].shape == values.shape, path,
                f"output '{name}': {who} rows of shape {list(got[name].shape[1:])}, the model {list(values.shape[1:])}")
        # A row without finite answers of the checkpoint is not steady, and yet wrong if all of the model's are: of a
        # sum over numbers of which some are infinite others may be NaN.
        broken = _finite({name: values}) & ~_finite({name: got[name]}) & steady.finite
        wrong = (steady.answers & ~_same(got[name], values)) | broken
        if wrong.any():  # it takes another pass to know
            allowed = ROUNDINGS * roundings()[name]
            wrong &= broken | ((got[name] - values).abs() > allowed).reshape(len(values), -1).any(dim=1)
        if wrong.any():
            _refuse(name, got[name], values, wrong, path, who)


def _refuse(name: str, got: torch.Tensor, expected: torch.Tensor, wrong: torch.Tensor, path: str, who: str) -> None:
    rows: List[int] = wrong.nonzero().flatten().tolist()
    kind = EDGES[rows[0]] if rows[0] < len(EDGES) else "random numbers"
    difference = float((got - expected)[wrong].abs().max())
    raise ExportError(path, f"{who} something else than the model: output '{name}' differs by up to "
                      f"{difference:.3g} in {len(rows)} of {len(wrong)} rows (the first of {kind}). Does the model "
                      "change a tensor in place that it uses again, keep something between calls, or depend on the "
                      "other rows of a batch?")
