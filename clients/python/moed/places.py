"""Where in the caller's code a refusal is, as "model.py:12": the line that says or calls what cannot be exported."""

import inspect
import os
import re
import sys
import traceback
from types import FrameType
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import nn

from moed.multitask import MultiTask
from moed.ops import ExportError
from moed.prepare import without_wrapper

TORCH = os.path.join(os.path.dirname(torch.__file__), "")
Rows = Callable[[], Dict[str, torch.Tensor]]
PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def is_callers(filename: str) -> bool:
    """Whether it is code of neither PyTorch nor this package, nor made at run time."""
    return not filename.startswith((TORCH, PACKAGE, "<"))


def callers_line(frame: Optional[FrameType], end: Any = None) -> str:
    """Of the innermost frame that is the caller's, within the function with the code `end`."""
    while frame is not None and frame.f_code is not end:
        if is_callers(frame.f_code.co_filename):
            return _place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return ""


def line_of(error: BaseException) -> str:
    """Where the caller's code raised it, or called what did."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_callers(frame.filename)]
    return _place(frames[-1].filename, frames[-1].lineno or 0) if frames else ""


def unfit(path: str, row: torch.Tensor, error: Exception) -> ExportError:
    """Of what does not take such rows."""
    return ExportError(path, f"does not accept rows of shape {list(row.shape[1:])}: {error}", line_of(error))


def placed(error: ExportError, model: Any, rows: Optional[Rows] = None) -> ExportError:
    """The error with its line, where the module that it names is, or is called by, code of the caller.

    Args:
        error: names a submodule by its path.
        model: the caller's, or the MultiTask that holds it.
        rows: makes what to run the model with, to see who calls the submodule; None: it is not run.
    """
    if error.line or not isinstance(model, nn.Module):
        return error
    chain = _along(re.sub(r" \(.*", "", error.path).split("."), model)
    while chain:
        module = chain.pop()
        line = _of_class(module) or (_of_call(model, module, rows) if rows is not None else "")
        if line:
            return ExportError(error.path, error.reason, line)
    return error


def unsteady(module: nn.Module, rows: torch.Tensor, path: str) -> str:
    """The path of the innermost submodule that gives two answers to what it is given, or of the module itself."""
    calls: List[List[Any]] = []

    def note(name: str) -> Callable:
        return lambda part, given, result: calls[-1].append((name, given, result))
    hooks = [part.register_forward_hook(note(name)) for name, part in module.named_modules()]
    try:
        for _ in range(2):
            calls.append([])
            module(rows.clone())
    finally:
        for hook in hooks:
            hook.remove()
    for (name, given, result), (_, again, other) in zip(*calls):  # inner calls end first
        if _same(given, again) and not _same(result, other):
            return f"{path}.{name}" if name else path
    return path


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(_same, first, second))
    return True


def _along(path: List[str], model: nn.Module) -> List[nn.Module]:
    """The modules on the way to the one that the path names, as far as it is the caller's."""
    found: List[nn.Module] = []
    place: Any = {"model": model}
    if isinstance(model, MultiTask):
        place = {"model": model.layers, **_layers(model.input_names, model.inputs),
                 **_layers(model.output_names, model.outputs)}
        path = path[1:] if path[0] in ("inputs", "outputs") else path
    for name in path:
        place = place.get(name) if isinstance(place, dict) else getattr(place, name, None)
        if not isinstance(place, nn.Module):
            break
        place = without_wrapper(place)
        found.append(place)
    return found


def _layers(names: List[str], entries: Any) -> Dict[str, Any]:
    return {name: entry.layers for name, entry in zip(names, entries)}


def _of_class(module: nn.Module) -> str:
    """The forward() of a class of the caller's."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return _place(code.co_filename, code.co_firstlineno) if code is not None and is_callers(code.co_filename) else ""


class _Called(BaseException):
    """Ends a run of the model: past every handler of the caller's code."""


def _of_call(model: nn.Module, module: nn.Module, rows: Rows) -> str:
    """The line that calls the module, "" if none does."""
    lines: List[str] = []

    def found(*_: Any) -> None:
        lines.append(callers_line(sys._getframe(), _of_call.__code__))
        raise _Called
    hook = module.register_forward_pre_hook(found)
    try:
        with torch.no_grad():
            model(rows())
    except (_Called, Exception):  # whatever the caller's code says: the refusal stands without a line
        pass
    finally:
        hook.remove()
    return lines[0] if lines else ""


def _place(filename: str, line: int) -> str:
    return f"{os.path.basename(filename)}:{line}"
