"""What a checkpoint's layers may say: the shape that each op gives, and what it refuses, as the server's (core/layers).

A row of RULES takes a Layer and returns the shape of its result; MoE layers are in rules_moe.py. Nothing is built here:
loader.py builds what passed.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from moed.config_node import LARGEST, MOST_AXES, MOST_ELEMENTS, LoadError, Node, Shape, elements
from moed.words import counted

MOST_NESTED = 16  # lists of layers
MOST_LAYERS = 1 << 18  # those of every expert, and every name in an `of`
MOST_RESULTS, MOST_OPERANDS = 1024, 256
MOST_STEP = 4096  # strides, paddings, kernels of pools
MOST_PREFIX = 255  # of a tensor's name
GLU_KEYS = ("limit", "alpha", "shift")
ATTENTION_KEYS = ("kv_heads", "head_dim", "causal", "window", "scale", "rotary", "qk_norm", "over", "qk_norm_late",
                  "clip", "keep")
# What happens to padding along the first axis: a list of rules for ops, see Layer.pad.
KEPT, LAST_AXIS, OWN, MIXED = "kept", "last axis", "own", "mixed"


class State:
    """What all parts of a model share while it is checked."""

    def __init__(self, version: int, tensors: Dict[str, Any]):
        self.version = version
        self.tensors = tensors
        self.used: set = set()
        self.gates: Dict[str, int] = {}  # experts of each, by name
        self.layers_left = MOST_LAYERS

    def spend(self, node: Node, key: str, count: int) -> None:
        if count > self.layers_left:
            raise node.error(key, f"the model has more than {MOST_LAYERS} layers and joined values")
        self.layers_left -= count


class Scope(NamedTuple):
    """Where a list of layers stands."""

    state: State
    prefix: str = ""  # of tensors' names
    depth: int = 0
    categories: int = 0  # of the integers that its first layer may read
    no_moe: bool = False
    positions: int = 0  # of rows of different length
    padded: bool = False  # what the list reads ends in padding

    def enter(self, node: Node, part: str, **changes: Any) -> "Scope":
        prefix = f"{self.prefix}{part}."
        if len(prefix) > MOST_PREFIX:
            raise node.error(None, "tensor names would be too long")
        return self._replace(prefix=prefix, **changes)

    def peek(self, suffix: str) -> Optional[Shape]:
        tensor = self.state.tensors.get(self.prefix + suffix)
        return None if tensor is None else tuple(tensor.shape)

    def claim(self, suffix: str, *shape: Optional[int]) -> Shape:
        """Takes the tensor; a size of None may be any."""
        name, found = self.prefix + suffix, self.peek(suffix)
        if found is None:
            raise LoadError(f"tensor {name!r} is missing")
        if name in self.state.used:
            raise LoadError(f"tensor {name!r} is claimed by two layers of that name")
        if len(found) != len(shape) or any(size not in (None, own) for size, own in zip(shape, found)):
            raise LoadError(f"tensor {name!r} has shape {list(found)}, expected {list(shape)}")
        self.state.used.add(name)
        return found

    def optional(self, suffix: str, *shape: Optional[int]) -> Optional[Shape]:
        return None if self.peek(suffix) is None else self.claim(suffix, *shape)


class Layer:
    """One layer of a list, and what it reads."""

    def __init__(self, scope: Scope, node: Node, op: str, name: str):
        self.node, self.op, self.name = node, op, name
        self.outer = scope
        self.scope = scope.enter(node, name)
        self.version = scope.state.version
        self.shape: Shape = ()
        self.operands: List[Shape] = []
        self.linked = False  # reads a value by name
        self.padded_in = self.padded_operands = self.padded = False

    def error(self, key: Optional[str], message: str) -> LoadError:
        return self.node.error(key, message)

    def axes(self, count: Optional[int] = None) -> None:
        """Rows of so many axes, or of at least one."""
        if len(self.shape) != count if count else not self.shape:
            raise self.error(None, f"{self.op} needs rows of {count or 'at least one'} axes, got {list(self.shape)}")

    def claim(self, suffix: str, *shape: Optional[int]) -> Shape:
        self._named(suffix)
        return self.scope.claim(suffix, *shape)

    def optional(self, suffix: str, *shape: Optional[int]) -> Optional[Shape]:
        return None if self.scope.peek(suffix) is None else self.claim(suffix, *shape)

    def _named(self, suffix: str) -> None:
        if not self.name:
            raise self.error(None, f"a layer {self.op!r} needs a name for its tensor {suffix!r}")

    def axis(self, otherwise: Optional[int] = None) -> int:
        self.axes()
        rank = len(self.shape)
        return self.node.integer("axis", -rank, rank - 1, otherwise) % rank

    def first_padded(self, axis: int) -> None:
        if self.padded_in and axis == 0:
            raise self.error("axis", "the first axis ends in padding")
        self.padded = self.padded_in


# --- linear, convolutions, pools --------------------------------------------------------------------------------

def _linear(layer: Layer) -> Shape:
    layer.axes()
    out = layer.claim("weight", None, layer.shape[-1])[0]
    layer.optional("bias", out)
    return (*layer.shape[:-1], out)


def _conv(axes: int) -> Callable[[Layer], Shape]:
    def rule(layer: Layer) -> Shape:
        layer.axes(axes + 1)
        node, channels = layer.node, layer.shape[0]
        stride, groups = node.integer("stride", 1, MOST_STEP, 1), node.integer("groups", 1, MOST_ELEMENTS, 1)
        outputs, of_group, *kernel = layer.claim("weight", *[None] * (axes + 2))
        if channels % groups or outputs % groups or of_group != channels // groups:
            raise layer.error("groups", f"{outputs} x {of_group} channels do not fit {channels} in {groups} groups")
        layer.optional("bias", outputs)
        sizes = [size + _padding(layer, stride, width) for size, width in zip(layer.shape[1:], kernel)]
        if any(size < width for size, width in zip(sizes, kernel)):
            raise layer.error(None, f"kernel is larger than the padded input {list(layer.shape)}")
        return (outputs, *((size - width) // stride + 1 for size, width in zip(sizes, kernel)))
    return rule


def _padding(layer: Layer, stride: int, width: int) -> int:
    """Of both ends of an axis together."""
    node = layer.node
    if not isinstance(node.value.get("padding"), str):
        return 2 * node.integer("padding", 0, MOST_STEP, 0)
    node.since(3, layer.version, "padding")
    node.choice("padding", ("same",))
    if stride != 1:
        raise layer.error("padding", '"same" goes with stride 1 only')
    return width - 1


def _pool(layer: Layer) -> Shape:
    layer.axes(3)
    node = layer.node
    kernel = node.integer("kernel", 1, MOST_STEP)
    stride, padding = node.integer("stride", 1, MOST_STEP, kernel), node.integer("padding", 0, kernel // 2, 0)
    channels, *sizes = layer.shape
    if any(size + 2 * padding < kernel for size in sizes):
        raise layer.error("kernel", f"larger than the padded input {list(layer.shape)}")
    return (channels, *((size + 2 * padding - kernel) // stride + 1 for size in sizes))


def _adaptive(layer: Layer) -> Shape:
    layer.axes(3)
    size = layer.node.shape("size", 1)
    if len(size) != 2:
        raise layer.error("size", "expected two sizes, height and width")
    return (layer.shape[0], *size)


# --- norms ------------------------------------------------------------------------------------------------------

def _batch_norm(layer: Layer) -> Shape:
    layer.axes()
    eps, channels = layer.node.at_least("eps", 0, 1e-5), layer.shape[0]
    for suffix in ("weight", "bias"):
        layer.optional(suffix, channels)
    for suffix in ("running_mean", "running_var"):
        layer.claim(suffix, channels)
    if not bool((layer.scope.state.tensors[layer.scope.prefix + "running_var"].double() + eps > 0).all()):
        raise layer.error(None, "an entry of running_var is not positive")
    return layer.shape


def _trailing_norm(layer: Layer) -> Shape:
    layer.axes()
    layer.node.at_least("eps", 0, 1e-5)
    rank = len(layer.scope.peek("weight") or ())
    rank = rank if 0 < rank <= len(layer.shape) else 1
    sizes = layer.shape[-rank:]
    layer.claim("weight", *sizes)
    if layer.op == "layer_norm":
        layer.optional("bias", *sizes)
    if layer.padded_in and rank == len(layer.shape):
        raise layer.error(None, f"{layer.op} of all axes would see padding")
    layer.padded = layer.padded_in
    return layer.shape


def _group_norm(layer: Layer) -> Shape:
    layer.axes()
    channels = layer.shape[0]
    layer.node.at_least("eps", 0, 1e-5)
    groups = layer.node.integer("groups", 1, channels)
    if channels % groups:
        raise layer.error("groups", f"{counted(channels, 'channel')} cannot make {groups} equal groups")
    for suffix in ("weight", "bias"):
        layer.optional(suffix, channels)
    return layer.shape


def _l2_normalize(layer: Layer) -> Shape:
    axis = layer.axis(-1)
    if layer.node.above("eps", 1e-12) < 0.7e-45:
        raise layer.error("eps", "expected a number above 0 that f32 can hold")
    layer.first_padded(axis)
    return layer.shape


# --- axes -------------------------------------------------------------------------------------------------------

def _reshape(layer: Layer) -> Shape:
    shape = layer.node.shape("shape", 1)
    if elements(shape) != elements(layer.shape):
        raise layer.error("shape", f"{list(shape)} has another number of elements than {list(layer.shape)}")
    return shape


def _reduced(layer: Layer, axis: int) -> Shape:
    layer.padded = layer.padded_in and axis != 0
    return layer.shape[:axis] + layer.shape[axis + 1:]


def _reduction(layer: Layer) -> Shape:
    return _reduced(layer, layer.axis())


def _select(layer: Layer) -> Shape:
    axis, node = layer.axis(0), layer.node
    if isinstance(node.value.get("index"), str):
        node.since(3, layer.version, "index")
        node.choice("index", ("last",))
    elif node.integer("index", 0, layer.shape[axis] - 1) > 0 and layer.padded_in and axis == 0:
        raise layer.error("index", 'may be padding: expected 0 or "last"')
    return _reduced(layer, axis)


def _slice(layer: Layer) -> Shape:
    axis, node = layer.axis(0), layer.node
    size = layer.shape[axis]
    start = node.integer("start", 0, size - 1, 0)
    end = node.integer("end", start + 1, size, size)
    layer.first_padded(axis)
    return (*layer.shape[:axis], end - start, *layer.shape[axis + 1:])


def _transpose(layer: Layer) -> Shape:
    if len(layer.shape) < 2:
        raise layer.error(None, "transpose needs at least two axes")
    return (*layer.shape[:-2], layer.shape[-1], layer.shape[-2])


# --- functions --------------------------------------------------------------------------------------------------

def _same(*read: Callable[[Layer], Any]) -> Callable[[Layer], Shape]:
    """Of every number by itself; `read` takes the keys."""
    def rule(layer: Layer) -> Shape:
        for key in read:
            key(layer)
        return layer.shape
    return rule


def _clamp(layer: Layer) -> Shape:
    node = layer.node
    if not (node.has("min") | node.has("max")):
        raise layer.error(None, 'clamp needs "min" or "max"')
    if node.real("min", -LARGEST) > node.real("max", LARGEST):
        raise layer.error("min", 'is larger than "max"')
    return layer.shape


def _prelu(layer: Layer) -> Shape:
    layer.axes()
    found = layer.scope.peek("weight")
    layer.claim("weight", 1 if found is not None and elements(found) == 1 else layer.shape[0])
    return layer.shape


def _glu(layer: Layer) -> Shape:
    layer.axes()
    node = layer.node
    activation = node.choice("activation", ("silu", "gelu", "gelu_tanh", "sigmoid", "relu"), "silu")
    node.since(3, layer.version, *GLU_KEYS)
    if node.has("limit"):
        node.above("limit")
    node.real("alpha", 1), node.real("shift", 0)
    if node.has("alpha") and activation != "silu":
        raise layer.error("alpha", 'goes with activation "silu" only')
    out = layer.claim("gate.weight", None, layer.shape[-1])[0]
    layer.claim("up.weight", out, layer.shape[-1])
    for suffix in ("gate.bias", "up.bias"):
        layer.optional(suffix, out)
    return (*layer.shape[:-1], out)


# --- embeddings and attention -----------------------------------------------------------------------------------

def _embedding(layer: Layer) -> Shape:
    categories = layer.scope.categories
    if categories == 0:
        raise layer.error(None, 'an embedding is the first layer of an input with "categories"')
    if len(layer.shape) == MOST_AXES:
        raise layer.error(None, f"the result would have more than {MOST_AXES} axes")
    count, size = layer.claim("weight", None, None)
    if categories > count:
        raise layer.error(None, f"{counted(count, 'vector')} for {counted(categories, 'category', 'categories')}")
    return (*layer.shape, size)


def _position_embedding(layer: Layer) -> Shape:
    layer.claim("weight", *layer.shape)
    return layer.shape


def _class_token(layer: Layer) -> Shape:
    layer.axes(2)
    layer.claim("weight", layer.shape[1])
    return (layer.shape[0] + 1, layer.shape[1])


def _attention(layer: Layer) -> Shape:
    node = layer.node
    node.since(3, layer.version, *ATTENTION_KEYS)
    if node.choice("over", ("row", "sequence"), "row") == "sequence":
        raise layer.error("over", 'a model of sequences needs a "context"')
    layer.axes(2)
    positions, size = layer.shape
    heads, kv_heads, head_dim = _heads(layer, size)
    if positions * (heads + 2 * kv_heads) * head_dim > MOST_ELEMENTS:
        raise layer.error(None, f"queries, keys and values exceed {MOST_ELEMENTS} elements a row")
    node.flag("causal", False)
    if node.flag("keep", False):
        raise layer.error("keep", "only causal attention over a sequence can keep")
    node.integer("window", 1, MOST_ELEMENTS, 0)
    node.real("scale", 0), node.at_least("clip", 0, 0)
    if node.has("rotary"):
        _rotary(node.object("rotary"), head_dim)
    kind = node.choice("qk_norm", ("none", "head", "all"), "none")
    node.flag("qk_norm_late", False)
    if kind != "none":
        node.at_least("eps", 0, 1e-6)
        for suffix, count in (("q_norm.weight", heads), ("k_norm.weight", kv_heads)):
            layer.claim(suffix, head_dim * (count if kind == "all" else 1))
    projected = (heads + 2 * kv_heads) * head_dim
    layer.claim("in_proj_weight", projected, size)
    layer.optional("in_proj_bias", projected)
    layer.claim("out_proj.weight", size, heads * head_dim)
    layer.optional("out_proj.bias", size)
    if layer.version >= 3:
        layer.optional("sinks", heads)
        layer.optional("bias", heads, positions, positions)
    return layer.shape


def _heads(layer: Layer, size: int) -> Tuple[int, int, int]:
    node = layer.node
    heads = node.integer("heads", 1, MOST_ELEMENTS if node.has("head_dim") else size)
    kv_heads = node.integer("kv_heads", 1, heads, heads)
    if not node.has("head_dim") and size % heads:
        raise layer.error("heads", f"{heads} does not divide the size {size}")
    head_dim = node.integer("head_dim", 1, MOST_ELEMENTS // (3 * heads), size // heads)
    if heads % kv_heads:
        raise layer.error("kv_heads", f"{kv_heads} does not divide {counted(heads, 'head')}")
    return heads, kv_heads, head_dim


def _rotary(node: Node, head_dim: int) -> None:
    dims = node.integer("dims", 1, head_dim, head_dim)
    node.flag("interleaved", False), node.real("factor", 1)
    if dims % 2:
        raise node.error("dims", f"{counted(dims, 'number')} cannot make pairs")
    if node.has("frequencies"):
        if len(node.reals("frequencies")) != dims // 2:
            raise node.error("frequencies", f"expected {dims // 2}, one for each pair")
    else:
        if node.above("theta", 10000) == 1:
            raise node.error("theta", "expected another number than 1")
        if node.has("scaling"):
            _scaling(node.object("scaling"))
    node.done()


def _scaling(node: Node) -> None:
    kind = node.choice("type", ("linear", "llama3", "yarn"))
    node.above("factor")
    if kind != "linear":
        node.above("original")
    if kind == "llama3" and node.above("low") >= node.above("high"):
        raise node.error("low", 'expected less than "high"')
    if kind == "yarn":
        node.above("slow", 1), node.above("fast", 32), node.flag("truncate", True)
    node.done()


# --- joining values ---------------------------------------------------------------------------------------------

def _join(layer: Layer) -> Shape:
    node, out = layer.node, list(layer.shape)
    for operand in layer.operands:
        if len(operand) != len(out) or any(a != b and 1 not in (a, b) for a, b in zip(operand, out)):
            raise layer.error("of", f"{list(operand)} does not go with {out}: axes are equal or 1")
        out = [max(sizes) for sizes in zip(operand, out)]
    layer.padded = layer.padded_in or layer.padded_operands
    if layer.padded and (not out or out[0] != layer.scope.positions):
        raise layer.error(None, f"the result would have other entries than the {layer.scope.positions} that may be "
                                "padding")
    found = layer.scope.peek("weight")
    if found is not None:
        fits = len(found) <= len(out) and all(own in (1, size) for own, size in zip(found[::-1], out[::-1]))
        layer.claim("weight", *(found if fits else out))
    if node.has("value"):
        node.real("value")
    elif not layer.operands and found is None:
        raise layer.error(None, f'{layer.op} needs "of", the tensor \'weight\' or "value"')
    return tuple(out)


def _concat(layer: Layer) -> Shape:
    axis, out = layer.axis(0), list(layer.shape)
    if not layer.operands:
        raise layer.error("of", "missing; expected a list of names")
    layer.padded = layer.padded_in or layer.padded_operands
    if layer.padded and axis == 0:
        raise layer.error("axis", "the first axis ends in padding")
    for operand in layer.operands:
        rest = [size for index, size in enumerate(operand) if index != axis]
        if len(operand) != len(out) or rest != [size for index, size in enumerate(layer.shape) if index != axis]:
            raise layer.error("of", f"{list(operand)} cannot follow {list(layer.shape)} along axis {axis}")
        out[axis] += operand[axis]
    return tuple(out)


class Rule(NamedTuple):
    shape: Callable[[Layer], Shape]
    padding: str = MIXED
    since: int = 1


def _number(key: str, otherwise: Optional[float] = None) -> Callable[[Layer], Any]:
    return lambda layer: layer.node.real(key, otherwise)


def _needs_axis(layer: Layer) -> None:
    layer.axes()


RULES: Dict[str, Rule] = {
    "linear": Rule(_linear, LAST_AXIS), "conv1d": Rule(_conv(1)), "conv2d": Rule(_conv(2)),
    "batch_norm": Rule(_batch_norm, KEPT), "layer_norm": Rule(_trailing_norm, OWN),
    "rms_norm": Rule(_trailing_norm, OWN), "group_norm": Rule(_group_norm, since=3),
    "l2_normalize": Rule(_l2_normalize, OWN, 3), "max_pool2d": Rule(_pool), "avg_pool2d": Rule(_pool),
    "adaptive_avg_pool2d": Rule(_adaptive, since=3), "flatten": Rule(lambda layer: (elements(layer.shape),)),
    "reshape": Rule(_reshape), "sum": Rule(_reduction, OWN), "mean": Rule(_reduction, OWN),
    "max": Rule(_reduction, OWN, 3), "select": Rule(_select, OWN, 2), "slice": Rule(_slice, OWN, 3),
    "transpose": Rule(_transpose, since=2), "softmax": Rule(_same(_needs_axis), LAST_AXIS),
    "log_softmax": Rule(_same(_needs_axis), LAST_AXIS, 3), "scale": Rule(_same(_number("value")), KEPT),
    "gelu": Rule(_same(lambda layer: layer.node.choice("approximate", ("none", "tanh"), "none")), KEPT),
    "leaky_relu": Rule(_same(_number("slope", 0.01)), KEPT, 3), "elu": Rule(_same(_number("alpha", 1)), KEPT, 3),
    "softplus": Rule(_same(lambda layer: layer.node.above("beta", 1), _number("threshold", 20)), KEPT, 3),
    "clamp": Rule(_clamp, KEPT, 3), "prelu": Rule(_prelu, KEPT, 3), "glu": Rule(_glu, LAST_AXIS, 2),
    "embedding": Rule(_embedding, KEPT, 2), "position_embedding": Rule(_position_embedding, KEPT, 2),
    "class_token": Rule(_class_token, since=2), "attention": Rule(_attention, KEPT, 2),
    "add": Rule(_join, OWN, 3), "multiply": Rule(_join, OWN, 3), "divide": Rule(_join, OWN, 3),
    "concat": Rule(_concat, OWN, 3),
    **{name: Rule(_same(), KEPT) for name in ("relu", "silu", "tanh", "sigmoid", "cube")},
    **{name: Rule(_same(), KEPT, 3) for name in ("relu2", "relu6", "mish", "hardswish", "hardsigmoid", "exp", "log",
                                                 "sqrt")},
}
JOINS = ("add", "multiply", "divide", "concat")
