"""What lists of layers, residuals and MoE layers of a checkpoint may say, as the server has it (core/moe)."""

from typing import Any, Dict, List, NamedTuple, Tuple

from moed.config_node import INT32_MAX, MOST_AXES, MOST_ELEMENTS, Node, Shape, elements
from moed.rules import JOINS, KEPT, LAST_AXIS, MOST_NESTED, MOST_OPERANDS, MOST_RESULTS, OWN, RULES, Layer, Scope
from moed.words import counted

MOST_EXPERTS, MOST_GATES, MOST_GROUPS = 4096, 1024, 256
# By the format that brought them.
SCORES = {"softmax": 1, "sigmoid": 1, "none": 1, "sparsemixer": 2, "sqrt_softplus": 3}
NORMALIZATIONS = {"none": 1, "sum": 1, "softmax": 1, "lp": 2}


class Value(NamedTuple):
    shape: Shape
    padded: bool


class Chain(NamedTuple):
    """What a list of layers gives."""

    shape: Shape
    padded: bool
    outputs: List[Tuple[str, Shape]]  # of every layer: its name, its shape
    branched: bool


# --- lists ------------------------------------------------------------------------------------------------------

def chain(scope: Scope, node: Node, shape: Shape, key: str = "layers") -> Chain:
    """Checks a list of layers that is given rows of this shape."""
    if scope.depth == MOST_NESTED:
        raise node.error(key, f"layers are nested more than {MOST_NESTED} deep")
    nodes = list(node.objects(key))
    scope.state.spend(node, key, len(nodes))
    return _List(scope._replace(depth=scope.depth + 1), Value(shape, scope.padded)).run(nodes)


class _List:
    """The layers of one list so far, and the values that they named."""

    def __init__(self, scope: Scope, given: Value):
        self.scope, self.given, self.last = scope, given, given
        self.values: Dict[str, Value] = {"input": given}
        self.unread: Dict[str, Node] = {}
        self.embeds = False  # the first layer reads integers

    def run(self, nodes: List[Node]) -> Chain:
        layers: List[Tuple[Layer, Shape]] = []
        for index, node in enumerate(nodes):
            layer = self._begin(node)
            reads = self._link(layer, index)
            if index > 0 and node.has("input") and not nodes[index - 1].has("result"):
                raise nodes[index - 1].error(None, "no layer reads what this one gives: the next one has another "
                                                   '"input"')
            if self.scope.categories:
                self._integers(layer, index, reads)
            if not (layer.op == "embedding" and reads):
                layer.scope = layer.scope._replace(categories=0)
            layers.append((layer, self._shape(layer)))
            self._keep(layer, layers[-1][1])
            node.done()
        for name, node in self.unread.items():
            raise node.error("result", f"no later layer of this list reads {name!r}")
        return Chain(self.last.shape, self.last.padded, [(layer.name, shape) for layer, shape in layers],
                     any(layer.linked for layer, _ in layers))

    def _begin(self, node: Node) -> Layer:
        op, name = node.text("op"), node.name("name", 0, "")
        since = 1 if op in CONTAINERS else RULES[op].since if op in RULES else 0
        if not since:
            raise node.error("op", f"unknown op {op!r}")
        if since > self.scope.state.version:
            raise node.error("op", f'{op!r} needs "format_version": {since}')
        return Layer(self.scope, node, op, name)

    def _link(self, layer: Layer, index: int) -> bool:
        """Finds what the layer reads. Gives whether that is the list's own input."""
        node, version = layer.node, self.scope.state.version
        node.since(3, version, "input", "result")
        read, found = [], self.last
        if node.has("input"):
            read.append(node.text("input"))
            found = self._value(node, "input", read[0])
        layer.shape, layer.padded_in = found
        if layer.op in JOINS and node.has("of"):
            names = node.texts("of")
            if not 1 <= len(names) <= MOST_OPERANDS:
                raise node.error("of", f"expected 1 to {MOST_OPERANDS} names")
            self.scope.state.spend(node, "of", len(names))
            read += names
            operands = [self._value(node, "of", name) for name in names]
            layer.operands = [operand.shape for operand in operands]
            layer.padded_operands = any(operand.padded for operand in operands)
        layer.linked = bool(read)
        layer.scope = layer.scope._replace(padded=layer.padded_in)
        return index == 0 or "input" in read

    def _value(self, node: Node, key: str, name: str) -> Value:
        self.unread.pop(name, None)
        if name not in self.values:
            raise node.error(key, f"no earlier layer of this list has the result {name!r}, and it is not \"input\"")
        return self.values[name]

    def _integers(self, layer: Layer, index: int, reads: bool) -> None:
        embeds = layer.op == "embedding"
        if index == 0:
            self.embeds = embeds
        elif reads and embeds != self.embeds:
            raise layer.error(None, f"{layer.op!r} and the list's first layer cannot both read the categories")

    def _shape(self, layer: Layer) -> Shape:
        if layer.op in CONTAINERS:
            return _bounded(layer, CONTAINERS[layer.op](layer))
        rule = RULES[layer.op]
        shape = _bounded(layer, rule.shape(layer))
        if rule.padding != OWN and layer.padded_in:
            layer.padded = True
            if rule.padding != KEPT and not (rule.padding == LAST_AXIS and len(layer.shape) > 1):
                raise layer.error(None, f"{layer.op!r} would see the padding of rows of different length: reduce the "
                                        "first axis before, for example by mean")
        return shape

    def _keep(self, layer: Layer, shape: Shape) -> None:
        self.last = Value(shape, layer.padded)
        if not layer.node.has("result"):
            return
        name = layer.node.name("result", 1)
        if name in self.values:
            raise layer.error("result", f"{name!r} is there already")
        if len(self.values) > MOST_RESULTS:
            raise layer.error("result", f"the list has more than {MOST_RESULTS}")
        self.values[name] = self.last
        self.unread[name] = layer.node


def _bounded(layer: Layer, shape: Shape) -> Shape:
    if elements(shape) > MOST_ELEMENTS:
        raise layer.error(None, f"a row of shape {list(shape)} exceeds {MOST_ELEMENTS} elements")
    return tuple(shape)


def _residual(layer: Layer) -> Shape:
    """It does not appear in the names of its layers' tensors."""
    inner = chain(layer.outer._replace(padded=layer.padded_in, categories=0), layer.node, layer.shape)
    if inner.shape != layer.shape:
        raise layer.error("layers", f"map {list(layer.shape)} to {list(inner.shape)}; a residual must keep the shape")
    if inner.padded != layer.padded_in:
        raise layer.error("layers", "a residual must keep the padding of its rows")
    layer.padded = layer.padded_in
    return layer.shape


# --- MoE layers -------------------------------------------------------------------------------------------------

def _moe(layer: Layer) -> Shape:
    node = layer.node
    if layer.scope.no_moe:
        raise layer.error(None, "a MoE layer stands among the model's layers or in a residual of them")
    if not layer.name:
        raise layer.error("name", "missing; a MoE layer needs a name")
    node.since(2, layer.version, "gates", "route", "shared")
    node.since(3, layer.version, "weigh")
    positions = node.choice("route", ("rows", "positions"), "rows") == "positions"
    if positions and len(layer.shape) < 2:
        raise layer.error("route", "rows of one axis have no positions")
    item = layer.shape[-1:] if positions else layer.shape
    if layer.padded_in and not positions:
        raise layer.error("route", 'rows of different length are routed by "positions"')
    layer.padded = layer.padded_in
    layer.scope = layer.scope._replace(padded=False, no_moe=True)
    experts = _experts(layer, item, positions)
    gates = _gates(layer, item, positions, experts)
    several = node.has("gates")
    if node.choice("weigh", ("outputs", "inputs"), "outputs") == "inputs" and (several or gates == ["attentive"]):
        raise layer.error("weigh", "several gates, and an attentive one, weigh the experts' outputs")
    _shared(layer, item, experts, len(gates))
    out = (layer.shape[:-1] if positions else ()) + ((len(gates),) if several else ()) + experts[0].shape
    if len(out) > MOST_AXES:
        raise layer.error(None, f"the result would have more than {MOST_AXES} axes")
    return out


def _experts(layer: Layer, item: Shape, positions: bool) -> List[Chain]:
    node = layer.node.object("experts")
    node.since(3, layer.version, "identity")
    node.since(2, layer.version, "inputs")
    count = node.integer("count", 1, MOST_EXPERTS)
    identities = node.integer("identity", 0, count - 1, 0)
    inputs = None
    if node.has("inputs"):
        if not item or positions:
            raise node.error("inputs", "there are no entries to choose from")
        inputs = node.integers("inputs", 0, item[0] - 1)
        if len(inputs) != count:
            raise node.error("inputs", f"{counted(len(inputs), 'entry', 'entries')} for {counted(count, 'expert')}")
    given = item if inputs is None else item[1:]
    chains = [chain(layer.scope.enter(node, f"experts.{index}"), node, given) for index in range(count - identities)]
    chains += [Chain(given, False, [], False)] * identities
    for index, expert in enumerate(chains):
        if expert.shape != chains[0].shape:
            raise node.error(None, f"expert {index} gives {list(expert.shape)}, expert 0 {list(chains[0].shape)}")
    node.done()
    return chains


def _gates(layer: Layer, item: Shape, positions: bool, experts: List[Chain]) -> List[str]:
    """The kind of every gate."""
    nodes = layer.node.one_or_several("gate", "gates", MOST_GATES)
    listed = layer.node.has("gates")
    if listed and positions:
        raise layer.error("gates", "several gates do not route positions")
    return [_gate(layer, node, item, experts, listed) for node in nodes]


def _gate(layer: Layer, node: Node, item: Shape, experts: List[Chain], listed: bool) -> str:
    name, count, given = "", len(experts), item
    if listed:
        name = node.name("name", 1)
        if node.has("experts"):
            chosen = node.integers("experts", 0, count - 1)
            if any(after <= before for before, after in zip(chosen, chosen[1:])):
                raise node.error("experts", "expected indices in ascending order")
            count = len(chosen)
        if node.has("input"):
            if not item:
                raise node.error("input", "the layer's input has no axis")
            node.integer("input", 0, item[0] - 1)
            given = item[1:]
    kind = node.choice("kind", ("plain", "attentive"), "plain")
    policy = _policy(node, layer.version, count)
    if listed and kind == "attentive":
        raise node.error("kind", "one gate of several cannot be attentive")
    _add_gate(layer, node, name, count)
    scope = layer.scope.enter(node, f"gates.{name}" if listed else "gate")
    found = chain(scope, node, given).shape
    if len(found) != 1 or (kind == "plain" and found[0] != count):
        raise node.error("layers", f"give {list(found)}; expected [{count}], one logit per expert")
    _own_tensors(scope, node, count, policy)
    if kind == "attentive":
        _key_layer(scope, node, experts, found[0], layer.node.object("experts").integer("identity", 0, count, 0))
    node.done()
    return kind


def _add_gate(layer: Layer, node: Node, name: str, count: int) -> None:
    full, gates = f"{layer.name}.{name}" if name else layer.name, layer.scope.state.gates
    if full in gates:
        raise node.error("name", f"two MoE layers or gates are called {full!r}")
    if len(gates) == MOST_GATES:
        raise node.error(None, f"the model has more than {MOST_GATES} gates")
    gates[full] = count


def _own_tensors(scope: Scope, node: Node, count: int, policy: Dict[str, Any]) -> None:
    if scope.optional("select_bias", count) is not None and policy["score"] == "sparsemixer":
        raise node.error("score", "'sparsemixer' goes with no tensor select_bias")
    if scope.state.version >= 3 and scope.optional("expert_scale", count) is not None and policy["renormalize"]:
        raise node.error("capacity", '"renormalize" does not go with the tensor expert_scale')


def _key_layer(scope: Scope, node: Node, experts: List[Chain], hidden: int, identities: int) -> None:
    name = node.text("key_layer")
    if identities:
        raise node.error("key_layer", "identity experts have no layers")
    places = [index for index, (found, _) in enumerate(experts[0].outputs) if name and found == name]
    if not places:
        raise node.error("key_layer", f"no expert layer is called {name!r}")
    if experts[0].branched:
        raise node.error("key_layer", "experts whose layers read by name cannot be cut in two")
    if any(elements(expert.outputs[places[0]][1]) != hidden for expert in experts):
        raise node.error("key_layer", f"an expert's {name!r} has not the {hidden} numbers of the gate's hidden vector")
    for suffix in ("query.weight", "key.weight"):
        scope.claim(suffix, hidden, hidden)


def _policy(node: Node, version: int, count: int) -> Dict[str, Any]:
    score = node.choice("score", tuple(SCORES), "softmax")
    normalize = node.choice("normalize", tuple(NORMALIZATIONS), "none")
    for key, since in (("score", SCORES[score]), ("normalize", NORMALIZATIONS[normalize])):
        if since > version:
            raise node.error(key, f'{node.value[key]!r} needs "format_version": {since}')
    top_k = node.integer("top_k", 1, count, count)
    node.real("scale", 1)
    node.since(2, version, "groups", "capacity")
    if node.has("groups"):
        _groups(node.object("groups"), count, top_k)
    renormalize = node.has("capacity") and _capacity(node.object("capacity"), version, normalize)
    if score == "sparsemixer":
        if top_k != 2 or normalize != "none":
            raise node.error("top_k", "score 'sparsemixer' needs top_k 2 and normalize 'none'")
        node.at_least("jitter", 0, 0.01)
    if normalize == "lp":
        node.at_least("p", 1, 2)
    return {"score": score, "renormalize": renormalize}


def _groups(node: Node, experts: int, top_k: int) -> None:
    count = node.integer("count", 1, MOST_GROUPS)
    keep = node.integer("keep", 1, count)
    node.choice("by", ("top2", "max"), "top2")
    if experts % count:
        raise node.error("count", f"{counted(experts, 'expert')} cannot make {count} equal groups")
    if top_k > experts // count * keep:
        raise node.error("keep", f"{counted(keep, 'group')} hold fewer experts than top_k {top_k}")
    node.done()


def _capacity(node: Node, version: int, normalize: str) -> bool:
    """Whether weights are divided by the sum of those that were placed."""
    node.since(3, version, "places", "round", "rows", "order", "renormalize")
    if node.has("places"):
        node.integer("places", 1, INT32_MAX)
    else:
        node.above("factor")
        node.integer("minimum", 1, INT32_MAX, 1)
        node.choice("round", ("down", "up"), "down")
    node.integer("rows", 1, INT32_MAX, 0)
    node.choice("order", ("choice", "item", "score", "pair"), "choice")
    renormalize = node.flag("renormalize", False)
    if renormalize and normalize != "sum":
        raise node.error("renormalize", 'goes with normalize "sum" only')
    node.done()
    return renormalize


def _shared(layer: Layer, item: Shape, experts: List[Chain], gates: int) -> None:
    if not layer.node.has("shared"):
        return
    if gates > 1:
        raise layer.error("shared", "goes with one gate, not with several")
    node = layer.node.object("shared")
    gate = node.choice("gate", ("none", "sigmoid"), "none")
    found = chain(layer.scope.enter(node, "shared"), node, item).shape
    if found != experts[0].shape:
        raise node.error("layers", f"give {list(found)}, the experts give {list(experts[0].shape)}")
    if gate == "sigmoid":
        layer.scope.enter(node, "shared_gate").claim("weight", 1, elements(item))
    node.done()


CONTAINERS = {"residual": _residual, "moe": _moe}
