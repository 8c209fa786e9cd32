"""Makes the copy of a caller's model that is exported: in evaluation mode, float32, on the CPU, without wrappers.

What changes a module's result without being in its forward() is folded into the weights (weight_norm, spectral_norm,
pruning, parametrizations) or refused with its path (hooks, a replaced forward, a module that stays in training mode).
"""

import contextlib
import copy
import importlib
import inspect
import re
import warnings
from typing import Any, Iterator, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel

from moed.multitask import MultiTask
from moed.ops import ExportError, require
from moed.recurrent import unroll
from moed.words import first_line

# torch.nn.utils has functions of the same names.
spectral_norm = importlib.import_module("torch.nn.utils.spectral_norm")
weight_norm = importlib.import_module("torch.nn.utils.weight_norm")

Module = TypeVar("Module", bound=nn.Module)
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def evaluated(model: MultiTask) -> MultiTask:
    """A copy in evaluation mode that computes what the model computes."""
    model = copied(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        require(not tensor.is_meta, re.sub(r"^layers\b", "model", name), "has no values: it is on the device 'meta'")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is not without_wrapper(child):
                setattr(parent, name, without_wrapper(child))
    for module in model.modules():
        if getattr(getattr(module, "config", None), "use_cache", False) is True:
            module.config.use_cache = False  # type: ignore[union-attr]  # of transformers: for a next call
    model = model.cpu().float()
    return evaluate(model)


def folded(model: MultiTask) -> MultiTask:
    """A copy whose forward() and weights are all there is to it, or ExportError."""
    model = copied(model)
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            _fold(module)
            _check(module, _path(name))
        unroll(model, _path)
    return evaluate(model)


def _path(name: str) -> str:
    """Of a submodule of the MultiTask, as the caller knows it."""
    return re.sub(r"^layers\b|^$", "model", name)


def without_wrapper(module: nn.Module) -> nn.Module:
    """What nn.DataParallel, torch.compile or an average of weights has been put around."""
    while True:
        if isinstance(module, WRAPPERS):
            module = module.module
        elif type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module


def copied(model: Module) -> Module:
    """A deep copy. Results that the model keeps, a loss for instance, are copied without their history."""
    memo = {id(value): value.detach() for value in _kept_results(model)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return copy.deepcopy(model, dict(memo))
    except Exception as error:  # whatever the caller keeps on the module
        raise ExportError(_uncopied(model, memo), f"cannot be copied ({type(error).__name__}: "
                          f"{first_line(error):.100}); take what is no part of the model off the module before "
                          "exporting") from None


@contextlib.contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Gives the modules back, in the end, what they kept of results before."""
    before = [(module, {name: copy.copy(value) if type(value) in (list, dict) else value
                        for name, value in vars(module).items() if not name.startswith("_")})
              for module in model.modules()]
    try:
        yield
    finally:
        for module, kept in before:
            for name in [name for name in vars(module) if not name.startswith("_") and name not in kept]:
                del vars(module)[name]
            vars(module).update(kept)


def _uncopied(model: nn.Module, memo: "dict[int, torch.Tensor]") -> str:
    """The attribute that cannot be copied."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:
                return re.sub(r"^layers\b|^$", "model", path) + f".{name}"
    return "model"


def _kept_results(model: nn.Module) -> Iterator[torch.Tensor]:
    for module in model.modules():
        pending, depth = list(vars(module).values()), 0
        while pending and depth < 4:  # lists of dicts of tuples, not all that a module can reach
            inner: list[Any] = []
            for value in pending:
                if isinstance(value, torch.Tensor) and not value.is_leaf:
                    yield value
                elif isinstance(value, dict):
                    inner += value.values()
                elif isinstance(value, (list, tuple)):
                    inner += value
            pending, depth = inner, depth + 1


def evaluate(model: Module) -> Module:
    """eval(), unless a module has a train() of its own that trains: eval() would call it."""
    if all("mode" in inspect.signature(type(module).train).parameters for module in model.modules()):
        return model.eval()
    for module in model.modules():
        module.training = False
    return model


# ---- what changes a result from outside forward() ----

def _fold(module: nn.Module) -> None:
    """Computes the weights that norms, pruning and parametrizations make, once and for all."""
    if parametrize.is_parametrized(module):
        # Not remove_parametrizations(): it changes the class, which the caller's module shares with its copy.
        weights = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore
        module.__class__ = type(module).__bases__[0]
        del module._modules["parametrizations"]
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight))
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, weight_norm.WeightNorm):
            weight_norm.remove_weight_norm(module, hook.name)
        elif isinstance(hook, spectral_norm.SpectralNorm):
            spectral_norm.remove_spectral_norm(module, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[arg-type]


def _check(module: nn.Module, path: str) -> None:
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    named = ", ".join(sorted({_name(hook) for hook in hooks}))
    require(not hooks, path, f"a forward hook ({named}) may change what it computes; remove it (handle.remove()), or "
                             "move what it does into forward")
    require("forward" not in vars(module), path,
            "its forward was replaced on the instance; make it a method of the class (for an MoE block of a class of "
            "its own, moed.register_adapter)")
    require(not isinstance(module, torch.jit.ScriptModule), path, "is scripted; export the module that was scripted")
    require(not module.training, path, f"{type(module).__name__} stays in training mode after eval(): what it then "
                                       "computes is not what evaluation computes")


def _name(hook: Any) -> str:
    return getattr(hook, "__qualname__", type(hook).__name__)
