"""Python side of the moed inference server.

    import moed

    moed.export(model, example_inputs, "my-model")     nn.Module -> checkpoint directory     (torch)
    moed.load("my-model")                              checkpoint directory -> nn.Module     (torch)
    moed.nn.MoE(experts, moed.nn.Gate(...))            layers                                (torch)
    moed.register_adapter(TheirMoE)(function)          MoE classes of other packages         (torch)
    moed.losses                                        balance and similarity regularisers   (torch)
    moed.Client("http://127.0.0.1:8080")               talk to a server                      (numpy)
    moed.routing_metrics                               H_s, H_u and I(E;Y) of a router       (numpy)
    moed.safetensors                                   read and write weight files           (numpy)

`import moed` needs numpy only. PyTorch is imported when one of the names that need it is first used, so a machine that
only sends requests never loads it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from moed import old_names as _old_names
from moed.client import Client, MoedError, ProtocolError, RequestError, Unreachable

if TYPE_CHECKING:
    from moed import losses, nn, routing_metrics, safetensors
    from moed.adapters import register_adapter
    from moed.exporter import export
    from moed.loader import LoadError, load
    from moed.ops import ExportError, ExportWarning

__version__ = "0.1.0"  # CMakeLists.txt has it too, and tests/lint/versions.sh compares them
__all__ = ["Client", "ExportError", "ExportWarning", "LoadError", "MoedError", "ProtocolError", "RequestError",
           "Unreachable", "export", "load", "losses", "nn", "register_adapter", "routing_metrics", "safetensors"]

# Imported when first used: (module, name in it), or the module itself.
_LAZY = {"export": ("moed.exporter", "export"), "load": ("moed.loader", "load"),
         "ExportError": ("moed.ops", "ExportError"), "ExportWarning": ("moed.ops", "ExportWarning"),
         "LoadError": ("moed.loader", "LoadError"),
         "losses": ("moed.losses", None), "nn": ("moed.nn", None),
         "register_adapter": ("moed.adapters", "register_adapter"),
         "routing_metrics": ("moed.routing_metrics", None), "safetensors": ("moed.safetensors", None)}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'moed' has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *_LAZY})


_old_names.install()
