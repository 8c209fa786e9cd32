"""What the whole of a checkpoint's config.json may say: inputs, outputs, and what a gate's traffic is compared with."""

from typing import Any, Dict, List, NamedTuple, Optional

from moed.config_node import INT32_MAX, MOST_ELEMENTS, LoadError, Node, Shape, elements
from moed.rules import Scope, State
from moed.rules_moe import chain
from moed.words import counted

MOST_TENSORS = 1024  # inputs, and outputs
MOST_COMPUTED = 1 << 24  # categories that are used as numbers
MOST_LETTERS = 256  # bytes of a word


class Entered(NamedTuple):
    """An input, and what of it enters the model's layers."""

    name: str
    shape: Shape
    categories: int
    plain: bool  # without layers of its own
    length: Optional[str]
    out: Shape
    padded: bool


def check(config: Any, tensors: Dict[str, Any]) -> None:
    """Raises LoadError for what no server would load; `tensors` are not used up.

    The server's bounds on memory are its own, and so are models of sequences.
    """
    if not isinstance(config, dict):
        raise LoadError("config.json: expected an object")
    root = Node(config)
    root.choice("model_type", ("moed",))
    state = State(root.integer("format_version", 1, 3), tensors)
    root.text("description", "")
    if root.has("context"):
        root.since(3, state.version, "context")
        raise root.error("context", "a model of sequences, which this package does not load")
    shape, positions, padded = _joined(root, _inputs(root, state))
    scope = Scope(state, positions=positions)
    given = chain(scope._replace(padded=padded), root, shape)
    _outputs(root, scope._replace(no_moe=True, padded=given.padded), given.shape)
    unused = sorted(set(tensors) - state.used)
    if unused:
        raise LoadError(f"no layer uses the tensors {unused}")
    _references(root, state)
    root.done()


def _inputs(root: Node, state: State) -> List[Entered]:
    root.since(2, state.version, "inputs")
    found: List[Entered] = []
    nodes = root.one_or_several("input", "inputs", MOST_TENSORS)
    for node in nodes:
        entry = _input(node, state, root.has("inputs"))
        if entry.name in (other.name for other in found):
            raise node.error("name", f"two are called {entry.name!r}")
        found.append(entry)
        node.done()
    for node, entry in zip(nodes, found):
        if entry.length is not None:
            _check_length(node, entry, found)
    return found


def _input(node: Node, state: State, listed: bool) -> Entered:
    name = node.text("name", None if listed else "input")
    token = listed and state.version >= 3 and node.has("categories") and not node.has("length")
    shape = node.shape("shape", 0 if token else 1)
    if node.has("preprocess"):
        _preprocess(node.object("preprocess"), shape)
    if not listed:
        return Entered(name, shape, 0, True, None, shape, False)
    node.since(3, state.version, "length", "words", "unknown", "missing")
    length = node.text("length") if node.has("length") else None
    categories = node.integer("categories", 1, INT32_MAX, 0)
    if categories and node.has("preprocess"):
        raise node.error("preprocess", "categories are not quantities")
    _words(node, categories)
    out, padded, embeds = shape, length is not None, False
    if node.has("layers"):
        scope = Scope(state, categories=categories, no_moe=True, positions=shape[0] if padded else 0, padded=padded)
        out, padded = chain(scope, node, shape)[:2]
        embeds = node.value["layers"][0].get("op") == "embedding"
    if not embeds and categories > MOST_COMPUTED:
        raise node.error("categories", f"expected at most {MOST_COMPUTED} without an embedding: f32 holds no larger "
                                       "integers")
    return Entered(name, shape, categories, not node.has("layers"), length, out, padded)


def _preprocess(node: Node, shape: Shape) -> None:
    node.real("scale", 1)
    for key in ("mean", "std"):
        if node.has(key) and len(node.reals(key)) not in (1, shape[0] if shape else 1):
            raise node.error(key, f"expected 1 or {shape[0]} numbers, one per channel")
    if node.has("std") and any(abs(number) < 0.7e-45 for number in node.reals("std")):
        raise node.error("std", "an entry is zero")
    node.done()


def _words(node: Node, categories: int) -> None:
    if node.has("words"):
        words = node.texts("words")
        if not categories or len(words) != categories:
            raise node.error("words", f"{counted(len(words), 'word')} for "
                                      f"{counted(categories, 'category', 'categories')}")
        if len(set(words)) != len(words):
            raise node.error("words", "one is there twice")
        if any(len(word.encode()) > MOST_LETTERS for word in words):
            raise node.error("words", f"a word has more than {MOST_LETTERS} bytes")
    if node.has("unknown"):
        if not categories:
            raise node.error("unknown", 'goes with "categories" only')
        node.integer("unknown", 0, categories - 1)
    if node.has("missing"):
        node.integer("missing", 0, categories - 1) if categories else node.real("missing")


def _check_length(node: Node, entry: Entered, entered: List[Entered]) -> None:
    most = entry.shape[0] + 1
    for other in entered:
        if other.name == entry.length:
            if elements(other.shape) != 1 or not 2 <= other.categories <= most or not other.plain or (
                    other.length is not None):
                raise node.error("length", f"{other.name!r} must be one integer from 0 to {most - 1}: of shape [1], "
                                           f'with 2 to {most} "categories", without "layers" and "length"')
            return
    raise node.error("length", f"no input is called {entry.length!r}")


def _joined(root: Node, entered: List[Entered]):
    """(shape, positions of rows of different length or 0, whether they are padded) of what enters the layers."""
    lengths = {entry.length for entry in entered}
    data = [entry for entry in entered if entry.name not in lengths]
    if len(data) == 1:
        only = data[0]
        return only.out, only.shape[0] if only.length is not None else 0, only.padded
    for entry in data:
        if entry.padded:
            raise root.error("inputs", f"{entry.name!r} would be joined with its padding: let its \"layers\" reduce "
                                       "the first axis, for example by mean")
    count = sum(elements(entry.out) for entry in data)
    if count > MOST_ELEMENTS:
        raise root.error("inputs", f"join to {count} elements, more than {MOST_ELEMENTS}")
    return (count,), 0, False


def _outputs(root: Node, scope: Scope, given: Shape) -> None:
    root.since(2, scope.state.version, "outputs")
    if not root.has("outputs") and not root.has("output"):
        return
    names = set()
    for node in root.one_or_several("output", "outputs", MOST_TENSORS):
        listed, shape = root.has("outputs"), given
        name = node.text("name", None if listed else "output")
        if name in names:
            raise node.error("name", f"two are called {name!r}")
        names.add(name)
        if listed and node.has("layers"):
            shape = chain(scope, node, given).shape
        classes = shape[-1] if shape else 1
        if node.has("labels") and len(node.texts("labels")) != classes:
            raise node.error("labels", f"{counted(len(node.texts('labels')), 'label')} for "
                                       f"{counted(classes, 'class', 'classes')}")
        node.done()


def _references(root: Node, state: State) -> None:
    if not root.has("routing_reference"):
        return
    references = root.object("routing_reference")
    for name in references.value:
        if name not in state.gates:
            raise references.error(None, f"no MoE layer is called {name!r}")
        node = references.object(name)
        node.integer("rows", 1, 2 ** 63 - 1)
        for key in ("share", "weight", "probability"):
            if key == "share" or node.has(key):
                shares = node.reals(key)
                if len(shares) != state.gates[name] or min(shares) < 0 or sum(shares) <= 0:
                    raise node.error(key, f"expected {counted(state.gates[name], 'number')}, none negative and not all "
                                          "0")
        node.done()
