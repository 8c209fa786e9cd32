"""Records the forward() of any nn.Module with torch.fx, has it translated, and compares.

fx_translation.py makes layers of the calls. They are then run against the module itself, with the module's weights and
with random ones (a weight that is zero would hide a mistake), so that what is exported is what was meant, or nothing.
"""

import copy
import inspect
import operator
import os
import traceback
import warnings

import torch
from torch import fx, nn

from moed import export_trace, fx_functions, fx_joins  # noqa: F401  (their handlers)
from moed.adapters import adapter_of
from moed.blocks_of_attention import is_attention
from moed.blocks_of_experts import is_block
from moed.blocks_of_norms import norm_of
from moed.fx_translation import Translation, called_name, entry_of
from moed.ops import ExportError, require

TORCH = os.path.dirname(torch.__file__)
PACKAGE = os.path.dirname(os.path.abspath(__file__))
ROWS = Translation.rows
OURS = ("moed.attention", "moed.modules", "moed.layers", "moed.gates", "moed.graph", "moed.functions")


def is_ours(module):
    """Whether it is of a class of this package that is exported as it is."""
    return any(base.__module__ in OURS for base in type(module).__mro__)


def traceable(module):
    """Whether its forward() is the caller's own, and not PyTorch's or of a class of this package."""
    if is_ours(module) or adapter_of(module) is not None or is_block(module) or is_attention(module):
        return False
    if norm_of(module) is not None:
        return False
    if isinstance(module, nn.Sequential):
        return type(module).forward is not nn.Sequential.forward
    return type(module).__module__.split(".")[0] != "torch"


def trace(module, row, path, keys=None):
    """`module` as modules.CheckpointSequential layers. `row` is an example of its input, batch axis included.

    Where forward() gives several things, keys say which of them are wanted, and a list is returned: the layers that all
    share, then for each key those that follow.
    """
    generator = torch.Generator().manual_seed(0)
    rows = row.repeat((ROWS,) + (1,) * (row.dim() - 1))
    if row.is_floating_point():
        rows = torch.randn(rows.shape, generator=generator)
    translated = _translate(module, rows, path, keys)
    _compare(module, translated, rows, path, keys)
    other = _with_random_weights(module, generator)
    _compare(other, _translate(other, rows, path, keys), rows[:2], path, keys)
    return translated if keys is not None else translated[0]


# Of what a trace cannot follow: code whose course depends on values, as a loop over the rows of each expert does.
ADVICE = (". Code that depends on values cannot be exported as it is: of an MoE block say with moed.register_adapter "
          "which gate and experts it has (clients/python/PORTING.md)")


class _Tracer(fx.Tracer):
    """Records the calls and, unlike fx alone, makes them: every node has a value, of ROWS rows.

    So shapes are numbers that the caller's code may compute with, and a shape decides what a reshape or a mean is. Of
    every node it notes in which submodule and on which line of the caller's code it was made.
    """

    def __init__(self, path, rows):
        super().__init__()
        self.inside = [path]
        self.rows = rows
        self.values = {}
        self.making = False  # a call, in which fx is not to look

    def is_leaf_module(self, module, name):
        return not traceable(module) and not isinstance(module, nn.Sequential)

    def proxy(self, node):
        return _Value(node, self)

    def create_node(self, *args, **kwargs):
        node = super().create_node(*args, **kwargs)
        node.meta["path"], node.meta["line"] = self.inside[-1], _callers_line(inspect.currentframe())
        if node.op != "output":
            self.making = True
            try:
                self.values[node] = self.make(node)
            finally:
                self.making = False
        return node

    def make(self, node):
        args, kwargs = (fx.node.map_arg(given, self.values.get) for given in (node.args, node.kwargs))
        try:
            if node.op == "placeholder":
                return self.rows.clone()
            if node.op == "get_attr":
                return operator.attrgetter(node.target)(self.root)
            if node.op == "call_module":
                return self.root.get_submodule(node.target)(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], node.target)(*args[1:], **kwargs)
            return node.target(*args, **kwargs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
            shapes = ", ".join(str(list(value.shape[1:])) for value in given)
            without = [name for name, value in kwargs.items() if value is None]
            said = f", without {', '.join(without)}" if without else ""
            raise ExportError(f"{self.inside[0]}.{called_name(node)}: does not accept rows of shape {shapes}{said}: "
                              f"{str(error).splitlines()[0]} ({node.meta['line']})") from None

    def call_module(self, module, forward, args, kwargs):
        if self.making:
            return forward(*args, **kwargs)
        self.inside.append(f"{self.inside[0]}.{self.path_of_module(module)}")
        result = super().call_module(module, forward, args, kwargs)
        self.inside.pop()
        return result

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        return attr_val if self.making else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        """One input; what else forward() takes keeps its default."""
        needed = [name for name, parameter in list(inspect.signature(root_fn).parameters.items())[1:]
                  if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        names = needed or list(inspect.signature(root_fn).parameters)[1:2]
        require(len(names) == 1, self.inside[0],
                f"{type(self.root).__name__}.forward takes {names}; a layer has one input")
        return root_fn, [self.root, self.create_proxy("placeholder", names[0], (), {})]


def _callers_line(frame):
    """"model.py:12" of the innermost frame that is neither PyTorch's nor this package's."""
    while frame is not None and _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame is not None else ""


def _is_ours(filename):
    return filename.startswith((TORCH, PACKAGE, "<"))


class _Value(fx.Proxy):
    """What stands for a tensor in the caller's forward(). What depends on its shape only is answered at once."""

    KNOWN = ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad", "is_sparse", "is_quantized")
    ASKED = ("size", "dim", "numel", "nelement", "ndimension", "is_floating_point", "get_device", "element_size")

    def __getattr__(self, name):
        value = self.tracer.values[self.node]
        if name in self.KNOWN or name in self.ASKED:
            return getattr(value, name)
        return fx.proxy.Attribute(self, name)

    def __len__(self):
        return len(self.tracer.values[self.node])

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __bool__(self):
        raise TypeError("its course depends on values")

    __int__ = __float__ = __index__ = __bool__


def _record(module, rows, path):
    """(graph, the value of each of its nodes), by torch.fx; what that cannot follow by torch.export, where it is."""
    try:
        return _record_with_fx(module, rows, path)
    except ExportError as error:
        if not export_trace.available():
            raise
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return export_trace.record(module, rows, path, _Tracer(path, rows).is_leaf_module)
        except Exception:  # fx has said by path and line what is wrong
            raise error from None


def _record_with_fx(module, rows, path):
    tracer = _Tracer(path, rows)
    try:
        return tracer.trace(module), tracer.values
    except ExportError:
        raise
    except Exception as error:  # whatever the caller's code makes of values that are not there
        where = tracer.inside[-1]
        inner = module.get_submodule(where[len(path) + 1:]) if where != path else module
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
        line = f" ({os.path.basename(lines[-1].filename)}:{lines[-1].lineno})" if lines else ""
        raise ExportError(f"{where}: {type(inner).__name__}.forward cannot be followed: "
                          f"{str(error).splitlines()[0]}{line}{ADVICE}") from None


def _translate(module, rows, path, keys):
    graph, values = _record(module, rows, path)
    return Translation(module, graph, values, path).layers(keys)


def _compare(module, translated, rows, path, keys):
    result, (trunk, *branches) = module(rows.clone()), translated
    for key, branch in zip([None] if keys is None else keys, branches or [nn.Identity()]):
        try:
            got = branch(trunk(rows.clone()))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ExportError(f"{path}: the layers that {type(module).__name__} calls do not fit one after the other: "
                              f"{str(error).splitlines()[0]}") from None
        expected = entry_of(result, key)
        again = entry_of(module(rows.clone()), key)
        require(expected.shape != again.shape or torch.equal(torch.nan_to_num(expected), torch.nan_to_num(again)), path,
                f"{type(module).__name__} gives two answers to the same rows: something in it is random at evaluation, "
                "or remembers; noise belongs behind `if self.training`")
        _compare_tensors(module, expected, got, path)


def _compare_tensors(module, expected, got, path):
    scale = torch.nan_to_num(expected.abs(), nan=0.0, posinf=0.0).max().clamp_min(1.0).item()
    same = (got.shape == expected.shape and got.dtype == expected.dtype
            and torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * scale, equal_nan=True))
    require(same, path, f"{type(module).__name__} computes something else than the layers it calls, one after the "
                        "other: does it change a tensor in place that it uses again, or depend on its batch?")


def _with_random_weights(module, generator):
    module = copy.deepcopy(module)
    for weight in module.parameters():
        values = torch.randn(weight.shape, generator=generator)
        weight.copy_(values / max(weight[0].numel(), 1) ** 0.5 if weight.dim() > 1 else 1 + 0.5 * values)
    return module
