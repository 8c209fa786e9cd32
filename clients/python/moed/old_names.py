"""Module names of moed 0.0, importable for one more release: each import gives the new module and a warning."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
import warnings
from typing import Any, Optional, Sequence

# Old module -> new module, and the name in the old one that `import moed` now gives as moed.<name>.
RENAMED = {"moed.blocks": "moed.modules", "moed.calls": "moed.fx_functions", "moed.metrics": "moed.routing_metrics",
           "moed.trace": "moed.fx_trace", "moed.transformers": "moed.transformer_layers", "moed.walk": "moed.describe"}
FUNCTIONS = {"moed.export": "moed.exporter", "moed.load": "moed.loader"}
RECIPES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "recipes")


class _CallableModule(types.ModuleType):
    """moed.export and moed.load were modules and are functions: once the old module is imported it is both."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        new = importlib.import_module(FUNCTIONS[self.__name__])
        return getattr(new, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Loader(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _CallableModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        new = importlib.import_module(RENAMED.get(module.__name__) or FUNCTIONS[module.__name__])
        for name, value in vars(new).items():
            if not name.startswith("__"):
                setattr(module, name, value)
        if module.__name__ == "moed.export":
            module.__dict__["export"] = new.export_shape
        if module.__name__ == "moed.blocks":
            module.__dict__["Translated"] = new.CheckpointSequential


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Optional[Sequence[str]], target: Optional[types.ModuleType] = None
                  ) -> Optional[importlib.machinery.ModuleSpec]:
        if fullname == "moed.recipes" and os.path.isdir(RECIPES):
            _warn(fullname, "recipes")
            return importlib.util.spec_from_file_location(fullname, os.path.join(RECIPES, "__init__.py"),
                                                          submodule_search_locations=[RECIPES])
        if fullname in RENAMED:
            _warn(fullname, RENAMED[fullname])
        elif fullname in FUNCTIONS:
            _warn(fullname, f"{fullname}() after `import moed`")
        else:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader())


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning, stacklevel=3)


def install() -> None:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
