"""Records with torch.export the forward() that torch.fx cannot follow, in the words that fx would have used.

torch.export runs the code with tensors that are tensors, where fx puts proxies in their place: einops, type-checking
libraries and isinstance(x, torch.Tensor) take them. What a checkpoint has as a layer of its own stays one call: while
the code is recorded, such modules call the operator moed::leaf. The operators of the recorded graph become the
functions of PyTorch that fx_functions.py and fx_joins.py know.
"""

import contextlib
import copy
import importlib
import inspect
import logging
import operator
import os
import re
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import fx, nn
from torch.nn import functional
from torch.utils import _pytree

FUNCTIONS = {"linear": functional.linear, "gelu": functional.gelu, "silu": functional.silu, "elu": functional.elu,
             "leaky_relu": functional.leaky_relu, "hardtanh": functional.hardtanh, "hardswish": functional.hardswish,
             "hardsigmoid": functional.hardsigmoid, "mish": functional.mish, "softplus": functional.softplus,
             "log_softmax": functional.log_softmax, "softmax": torch.softmax, "dropout": functional.dropout,
             "adaptive_avg_pool2d": functional.adaptive_avg_pool2d, "avg_pool2d": functional.avg_pool2d,
             "max_pool2d": functional.max_pool2d, "relu6": functional.relu6, "view": torch.reshape,
             "_unsafe_view": torch.reshape, "bmm": torch.matmul, "mm": torch.matmul, "true_divide": torch.div}
METHODS = {"contiguous": "contiguous", "clone": "clone", "detach": "detach", "alias": "contiguous", "to": "to",
           "_to_copy": "to", "expand": "expand", "repeat": "repeat", "lift_fresh_copy": "clone", "type_as": "type_as",
           "float": "float"}
LISTS = (nn.ModuleList, nn.ModuleDict)  # never called: what they hold is
ASSERTS = re.compile(r"_assert|sym_constrain|_check")
Values = Dict[fx.Node, Any]
_leaves: Dict[str, Callable] = {}  # what moed::leaf calls, while something is recorded
_calls: List["_Call"] = []  # its calls, which it is given the numbers of
_library: List[Any] = []


def available() -> bool:
    """Whether the installed PyTorch has torch.export and operators with shapes of their own."""
    return hasattr(torch, "export") and hasattr(getattr(torch, "library", None), "register_fake")


def record(module: nn.Module, rows: torch.Tensor, path: str, is_leaf: Callable) -> Tuple[fx.Graph, Values]:
    """(graph, the value of each of its nodes). Raises whatever torch.export raises.

    Args:
        module: whose forward() is recorded.
        rows: an example of its one input.
        path: of the module, for messages.
        is_leaf: (submodule, name) -> whether it stays one call.
    """
    _define()
    leaves = {name: part for name, part in module.named_modules()
              if name and not isinstance(part, LISTS) and is_leaf(part, name)}
    leaves = {name: part for name, part in leaves.items()
              if not any(name.startswith(f"{other}.") for other in leaves)}
    try:
        for name, part in leaves.items():
            _leaves[name] = copy.deepcopy(part)  # whose weights torch.export does not see
            part.forward = _calling(name, next(iter(inspect.signature(part.forward).parameters), ""))  # type: ignore[method-assign]
        with _quietly():
            program = torch.export.export(module, (rows.clone(),), strict=False)
        return _Rewriter(module, program, rows, path).graph_and_values()
    finally:
        for name, part in leaves.items():
            part.__dict__.pop("forward", None)
            _leaves.pop(name, None)
        _calls.clear()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings and the graph that torch.export shows of code it cannot follow: moed says where and why.

    What that code itself prints and logs stays.
    """
    printing: Any = None
    with contextlib.suppress(ImportError):  # where it prints, in the versions that do
        printing = importlib.import_module("torch.export._trace")
    loggers = [logger for name, logger in logging.root.manager.loggerDict.items()
               if name.split(".")[0] == "torch" and isinstance(logger, logging.Logger)]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    for handler in handlers:
        handler.addFilter(_is_asked_for)
    if printing:
        printing.print = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_asked_for)
        if printing:
            del printing.print


def _is_asked_for(record: logging.LogRecord) -> bool:
    """By TORCH_LOGS; warnings come unasked."""
    return record.levelno < logging.WARNING


# ---- calls that stay one ----

class _Call:
    """Of a leaf: what it is given beside x. Tensors go through the operator, the rest stays here."""

    def __init__(self, name: str, args: tuple, kwargs: Dict[str, Any]):
        self.name = name
        self.given, self.spec = _pytree.tree_flatten((args, kwargs))
        self.tensors = [value for value in self.given if isinstance(value, torch.Tensor)]
        self.result: Any = None  # a tensor, or several things: with a number in place of each tensor

    def arguments(self, tensors: Sequence[Any]) -> Tuple[tuple, Dict[str, Any]]:
        """(args, kwargs) after x, with these in place of the tensors."""
        rest = iter(tensors)
        return _pytree.tree_unflatten([next(rest) if isinstance(value, torch.Tensor) else value
                                       for value in self.given], self.spec)

    def run(self, x: torch.Tensor, others: List[torch.Tensor]) -> List[torch.Tensor]:
        args, kwargs = self.arguments(others)
        self.result = _leaves[self.name](x, *args, **kwargs)
        return [value for value in _several(self.result) if isinstance(value, torch.Tensor)]

    def answer(self, tensors: List[torch.Tensor]) -> Any:
        """What the leaf gives, with these in place of the tensors: attention may give (mixed, None)."""
        rest = iter(tensors)
        answer = tuple(next(rest) if isinstance(value, torch.Tensor) else value for value in _several(self.result))
        return answer[0] if isinstance(self.result, torch.Tensor) else answer


def _several(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (tuple, list)) else (result,)


def _define() -> None:
    if _library:
        return
    library = torch.library.Library("moed", "DEF")
    library.define("leaf(Tensor x, Tensor[] others, int call) -> Tensor[]")
    library.impl("leaf", lambda x, others, call: _calls[call].run(x, others), "CompositeExplicitAutograd")
    torch.library.register_fake("moed::leaf", _shapes_of_leaf, lib=library)
    _library.append(library)


def _shapes_of_leaf(x: torch.Tensor, others: List[torch.Tensor], call: int) -> List[torch.Tensor]:
    from torch._subclasses.fake_tensor import unset_fake_temporarily
    with unset_fake_temporarily(), torch.no_grad():
        plain = [torch.zeros(tuple(tensor.shape), dtype=tensor.dtype) for tensor in (x, *others)]
        results = _calls[call].run(plain[0], plain[1:])
    return [x.new_empty(result.shape, dtype=result.dtype) for result in results]


def _calling(name: str, first: str) -> Callable:
    """A forward() that is one call of moed::leaf. `first`: what the module calls its input."""
    def forward(*args: Any, **kwargs: Any) -> Any:
        x, rest = (args[0], args[1:]) if args else (kwargs.pop(first), ())
        call = _Call(name, rest, kwargs)
        _calls.append(call)
        return call.answer(torch.ops.moed.leaf(x, call.tensors, len(_calls) - 1))
    return forward


# ---- the same graph in other words ----

class _Rewriter:
    def __init__(self, module: nn.Module, program: Any, rows: torch.Tensor, path: str):
        self.module, self.program, self.rows, self.path = module, program, rows, path
        self.graph, self.values = fx.Graph(), {}  # type: Tuple[fx.Graph, Values]
        self.new: Dict[fx.Node, Any] = {}

    def graph_and_values(self) -> Tuple[fx.Graph, Values]:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.placeholder(node)
            elif node.op == "call_function" and not ASSERTS.search(_name(node)):
                self.new[node] = self.call(node)
            elif node.op == "output":
                wanted = set(self.program.graph_signature.user_outputs)
                flat = [self.new[given] for given in node.args[0] if given.name in wanted]
                self.graph.output(_pytree.tree_unflatten(flat, self.program.call_spec.out_spec))
        return self.graph, self.values

    def placeholder(self, node: fx.Node) -> None:
        """The input, or a weight or constant, which become attributes."""
        signature = self.program.graph_signature
        for names in (signature.inputs_to_parameters, signature.inputs_to_buffers):
            if node.name in names:
                value = self.program.state_dict.get(names[node.name], self.program.constants.get(names[node.name]))
                self.new[node] = self.add(node, "get_attr", names[node.name], (), {}, value)
                return
        constants = signature.inputs_to_lifted_tensor_constants
        if node.name in constants:
            value = self.program.constants[constants[node.name]]
            self.new[node] = self.add(node, "get_attr", constants[node.name], (), {}, value)
        else:
            self.new[node] = self.add(node, "placeholder", "x", (), {}, self.rows.clone())

    def add(self, node: fx.Node, op: str, target: Any, args: Any, kwargs: Any, value: Any = None) -> fx.Node:
        created = self.graph.create_node(op, target, tuple(args), dict(kwargs), name=node.name.replace("p_", "", 1))
        created.meta["path"], created.meta["line"] = self.place(node), _line(node)
        self.values[created] = self.run(created) if value is None else value
        return created

    def run(self, node: fx.Node) -> Any:
        args, kwargs = (fx.node.map_arg(given, self.values.get) for given in (node.args, node.kwargs))
        if node.op == "call_module":
            return self.module.get_submodule(node.target)(*args, **kwargs)  # type: ignore[arg-type]
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)  # type: ignore[arg-type]
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def place(self, node: fx.Node) -> str:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        inner = stack[-1][0] if stack else ""
        return f"{self.path}.{inner}" if inner else self.path

    def call(self, node: fx.Node) -> Any:
        name = _name(node)
        args, kwargs = (fx.node.map_arg(given, self.new.get) for given in (node.args, node.kwargs))
        if name == "leaf":
            called = _calls[args[2]]
            others, named = called.arguments(args[1])
            return self.add(node, "call_module", called.name, (args[0], *others), named)
        if name == "getitem" and _name(node.args[0]) == "leaf":  # type: ignore[arg-type]
            results = self.values[args[0]]
            if isinstance(results, torch.Tensor):
                return args[0]
            place = [index for index, value in enumerate(results) if isinstance(value, torch.Tensor)][args[1]]
            return self.add(node, "call_function", node.target, (args[0], place), kwargs)
        if name == "slice":
            given: List[Any] = list(args)
            source, axis, start, end, step = given + [0, None, None, 1][len(given) - 1:]
            size = self.values[source].shape[axis]
            index = (*[slice(None)] * axis, slice(start or 0, size if end is None else min(end, size), step))
            plain = self.values[source][index].shape == self.values[source].shape
            return source if plain else self.add(node, "call_function", operator.getitem, (source, index), {})
        if name == "layer_norm":
            return self.add(node, "call_function", functional.layer_norm, args[:5], kwargs)
        if name in METHODS:
            return self.add(node, "call_method", METHODS[name], args, {key: value for key, value in kwargs.items()
                                                                       if key in ("dtype",)})
        target = FUNCTIONS.get(name) or getattr(torch, name, None) or node.target
        if name in ("softmax", "log_softmax"):  # what stands third is a dtype
            args, kwargs = args[:1], {"dim": args[1]}
        return self.add(node, "call_function", target, args, kwargs)


def _name(node: fx.Node) -> str:
    """Of the operator, without overload and in-place mark."""
    target = node.target
    packet = getattr(target, "overloadpacket", None)
    return str(getattr(packet or target, "__name__", target)).split(".")[0]


def _line(node: fx.Node) -> str:
    """Of the caller's code."""
    found = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in found if os.sep + "torch" + os.sep not in file]
    return f"{os.path.basename(own[-1][0])}:{own[-1][1]}" if own else ""
