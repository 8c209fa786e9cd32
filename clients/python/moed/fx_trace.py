"""Records the forward() of any nn.Module with torch.fx, has it translated, and compares.

fx_translation.py makes layers of the calls. They are then run against the module itself, with the module's weights and
with random ones (a weight that is zero would hide a mistake), so that what is exported is what was meant, or nothing.
"""

import contextlib
import copy
import inspect
import operator
import warnings

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from moed import export_trace, fx_functions, fx_joins, fx_numbers  # noqa: F401  (their handlers)
from moed.adapters import adapter_of
from moed.blocks_of_any_name import MARK, looks_like_block, marked
from moed.blocks_of_attention import is_attention
from moed.blocks_of_experts import RANDOM, is_block
from moed.blocks_of_latent import is_latent
from moed.blocks_of_norms import norm_of
from moed.fx_found import name_gelus
from moed.fx_mixtures import Unplaced, forget, in_branches, with_mixtures
from moed.fx_moved import Moved, begin, follow
from moed.fx_simpler import SIMPLER, is_row
from moed.fx_translation import Translation, called_name, entry_of
from moed.ops import ExportError, require
from moed.places import callers_line, line_of, unsteady
from moed.prepare import as_it_was
from moed.words import first_line

ROWS = Translation.rows
OURS = ("moed.attention", "moed.modules", "moed.layers", "moed.gates", "moed.graph", "moed.functions")


def is_ours(module):
    """Whether it is of a class of this package that is exported as it is."""
    return any(base.__module__ in OURS for base in type(module).__mro__)


# PyTorch's modules that are calls of functions which there are simpler terms for.
FUNCTIONS = tuple(getattr(nn, name) for name in (
    "GLU", "AvgPool1d", "MaxPool1d", "AdaptiveAvgPool1d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "CELU", "SELU",
    "Softsign", "LogSigmoid", "Tanhshrink", "CosineSimilarity", "ZeroPad1d", "ZeroPad2d", "ConstantPad1d",
    "ConstantPad2d", "ReplicationPad1d", "ReplicationPad2d", "Upsample") if hasattr(nn, name))


def traceable(module):
    """Whether its forward() is the caller's own, or PyTorch's and made of functions, and not of this package."""
    if isinstance(module, fx.GraphModule):
        return True
    if type(module) in FUNCTIONS or type(module) in (nn.Softmax, nn.LogSoftmax) and module.dim != -1:
        return True
    if is_ours(module) or adapter_of(module) is not None or is_block(module) or is_attention(module) \
            or is_latent(module):
        return False
    if norm_of(module) is not None or marked(module):
        return False
    if isinstance(module, nn.Sequential):
        return type(module).forward is not nn.Sequential.forward
    return type(module).__module__.split(".")[0] != "torch"


def trace(module, row, path, keys=None, mixtures=False):
    """`module` as modules.CheckpointSequential layers. `row` is an example of its input, batch axis included.

    Where forward() gives several things, keys say which of them are wanted, and a list is returned: the layers that all
    share, then for each key those that follow. mixtures: MoE layers are made of sums that weigh experts by a softmax;
    there is a place for them here. Raises Unplaced where one cannot be made, and nothing else is known to be wrong.
    """
    try:
        return _traced(module, row, path, keys, mixtures)
    except Unplaced:
        raise
    except ExportError as error:
        inner = _may_be_block(module, error.path[len(path) + 1:].split(" ")[0])
        if inner is None:
            raise
        setattr(inner, MARK, True)  # one call, which describe.py looks into
        try:
            return trace(module, row, path, keys, mixtures)
        except Unplaced:
            raise
        except ExportError:
            raise error from None


def _may_be_block(module, place):
    """The innermost submodule around a place that cannot be recorded that may be an MoE block, and was not tried."""
    while place:
        with contextlib.suppress(AttributeError):
            inner = module.get_submodule(place)
            if not hasattr(inner, MARK) and not is_ours(inner) and looks_like_block(inner):
                return inner
        place = place.rpartition(".")[0]
    return None


def _traced(module, row, path, keys, mixtures=False):
    generator = torch.Generator().manual_seed(0)
    rows = row[:1].repeat((ROWS,) + (1,) * (row.dim() - 1))
    if row.is_floating_point():
        rows = torch.randn(rows.shape, generator=generator)
    try:
        translated = _translate(module, rows, path, keys, mixtures)
        _compare(module, translated, rows, path, keys)
        other = _with_random_weights(module, generator)
        _compare(other, _translate(other, rows, path, keys, mixtures), rows[:2], path, keys)
    except ExportError as error:
        if mixtures and forget(module) and not isinstance(error, Unplaced):
            raise Unplaced(path, "where no layer can be told from them", error.line) from error
        raise
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
        node.meta["path"] = self.inside[-1]
        node.meta["line"] = callers_line(inspect.currentframe(), _record_with_fx.__code__)
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
            raise ExportError(f"{self.inside[0]}.{called_name(node)}", f"does not accept rows of shape {shapes}{said}: "
                              f"{first_line(error)}", node.meta["line"]) from None

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
        with as_it_was(module):  # losses that it keeps are none, while it is recorded
            return tracer.trace(module), tracer.values
    except ExportError:
        raise
    except Exception as error:  # whatever the caller's code makes of values that are not there
        where = tracer.inside[-1]
        inner = module.get_submodule(where[len(path) + 1:]) if where != path else module
        raise ExportError(where, f"{type(inner).__name__}.forward cannot be followed: {first_line(error)}{ADVICE}",
                          line_of(error)) from None


def tracer(path, rows):
    """Records the forward() of a part of a module that cannot be recorded as a whole (blocks_of_routers.py)."""
    return _Tracer(path, rows)


class _Simplifier(_Tracer):
    """Goes through a recorded graph, and makes calls that have simpler terms in those."""

    def __init__(self, module, rows, path):
        super().__init__(path, rows)
        self.root, self.graph, self.tensor_attrs = module, fx.Graph(), {}
        self.origin, self.rowwise = None, set()

    def create_node(self, *args, **kwargs):
        node = super().create_node(*args, **kwargs)
        node.meta.update(self.origin.meta)
        if node.op == "placeholder" or any(before in self.rowwise for before in node.all_input_nodes):
            self.rowwise.add(node)
        return node

    def is_row(self, node):
        return node in self.rowwise

    def fixed_value(self, given):
        """What a value is that is the same for every row."""
        return self.values[given.node] if isinstance(given, fx.Proxy) else given

    def simplified(self, graph):
        """(graph, the value of each of its nodes)"""
        new = {}
        for self.origin in graph.nodes:
            args, kwargs = (fx.node.map_arg(given, new.get) for given in (self.origin.args, self.origin.kwargs))
            new[self.origin] = self.call(self.origin, args, kwargs)
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        return self.graph, self.values

    def call(self, node, args, kwargs):
        if node.target is operator.getitem and isinstance(args[0], tuple):
            return args[0][args[1]]
        given, named = (fx.node.map_arg(part, self.proxy) for part in (args, kwargs))
        first = next(iter(args), None)
        if node.op == "call_module" and isinstance(first, Moved) and self.works_on_last_axis(node, first):
            result = Moved(self.create_proxy(node.op, node.target, (first.value,), {}, node.name), first.place)
        elif node.op in ("call_function", "call_method"):
            result = self.create_proxy(node.op, node.target, given, named, node.name)
        else:
            args, kwargs = (pytree.tree_map(_real, part) for part in (given, named))
            return self.create_node(node.op, node.target, *(fx.node.map_aggregate(part, _node_of)
                                                            for part in (args, kwargs)), node.name, node.type)
        return result if isinstance(result, Moved) else \
            tuple(map(_node_of, result)) if isinstance(result, tuple) else result.node

    def works_on_last_axis(self, node, given):
        """A layer of PyTorch's that takes any axes before the last."""
        kinds = (nn.Linear, nn.LayerNorm, nn.Dropout, nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)
        return isinstance(self.root.get_submodule(node.target), kinds) and given.place < given.rank - 1

    def plain_call(self, method, *args):
        """As it is: what simpler terms there are have been looked for."""
        return super().create_proxy("call_method", method, args, {})

    def create_proxy(self, kind, target, args, kwargs, *rest, **more):
        """In simpler terms, which may have such in turn."""
        result = NotImplemented
        if kind in ("call_function", "call_method") and not self.making:
            with contextlib.suppress(TypeError, ValueError, IndexError, AttributeError):  # arguments of another kind
                result = self.in_other_words(target, args, kwargs)
        if result is not NotImplemented:
            return result
        args, kwargs = (pytree.tree_map(_real, part) for part in (args, kwargs))
        return super().create_proxy(kind, target, tuple(args), kwargs, *rest, **more)

    def in_other_words(self, target, args, kwargs):
        if any(isinstance(part, Moved) for part in pytree.tree_flatten((args, kwargs))[0]):
            return follow(target, args, kwargs)
        result = begin(target, args, kwargs, is_row)
        return SIMPLER[target](*args, **kwargs) if result is NotImplemented and target in SIMPLER else result


def _real(given):
    return given.real() if isinstance(given, Moved) else given


def _node_of(given):
    return given.node if isinstance(given, fx.Proxy) else given


def _translate(module, rows, path, keys, mixtures):
    graph, values = _record(module, rows, path)
    name_gelus(graph, values)
    if mixtures:
        graph, values = with_mixtures(module, graph, values, path, keys is not None)
    graph, values = _Simplifier(module, rows, path).simplified(graph)
    translated = Translation(module, graph, values, path).layers(keys)
    if mixtures and in_branches(translated[1:]):
        raise Unplaced(path, "for outputs that part before")
    return translated


def _compare(module, translated, rows, path, keys):
    result, (trunk, *branches) = module(rows.clone()), translated
    for key, branch in zip([None] if keys is None else keys, branches or [nn.Identity()]):
        try:
            got = branch(trunk(rows.clone()))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ExportError(path, f"the layers that {type(module).__name__} calls do not fit one after the other: "
                              f"{first_line(error)}") from None
        expected = entry_of(result, key)
        again = entry_of(module(rows.clone()), key)
        if expected.shape == again.shape and not torch.equal(torch.nan_to_num(expected), torch.nan_to_num(again)):
            place = unsteady(module, rows, path)
            inner = module.get_submodule(place[len(path) + 1:])
            raise ExportError(place, RANDOM.format(type(inner).__name__))
        same = _alike(got, expected, 1e-4) or _alike_in_double(module, (trunk, branch), rows, key)
        require(same, path, f"{type(module).__name__} computes something else than the layers it calls, one after the "
                        "other: does it change a tensor in place that it uses again, or depend on its batch?")


def _alike(got, expected, tolerance):
    scale = torch.nan_to_num(expected.abs(), nan=0.0, posinf=0.0).max().clamp_min(1.0).item()
    return (got.shape == expected.shape and got.dtype == expected.dtype
            and torch.allclose(got, expected, rtol=tolerance, atol=0.1 * tolerance * scale, equal_nan=True))


def _alike_in_double(module, layers, rows, key):
    """Whether what differs is rounding alone, of differences of equals: in float64 it does not."""
    if not rows.is_floating_point():
        return False
    module, (trunk, branch) = copy.deepcopy(module).double(), copy.deepcopy(layers)
    try:
        return _alike(branch.double()(trunk.double()(rows.double())), entry_of(module(rows.double()), key), 1e-6)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False


def _with_random_weights(module, generator):
    module = copy.deepcopy(module)
    for weight in module.parameters():
        values = torch.randn(weight.shape, generator=generator)
        weight.copy_(values / max(weight[0].numel(), 1) ** 0.5 if weight.dim() > 1 else 1 + 0.5 * values)
    return module
