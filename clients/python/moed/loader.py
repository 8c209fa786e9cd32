"""Loads a checkpoint directory back as a PyTorch module: the reference the server is compared with.

Weights come as they are stored, so a model kept in F16 is measured with the rounding its users get. What the server
refuses is refused first, by the rules of rules_model.py; here only what passed is built.
"""

from torch import nn

from moed import checkpoint, rules_model
from moed.config_node import LoadError
from moed.graph import PLAIN, Graph, Links
from moed.layers import AttentiveGate, Gate, MoE, MultiGateMoE
from moed.modules import CheckpointSequential, Residual
from moed.multitask import Input, MultiTask, Output, preprocess
from moed.ops import OPS, default_of
from moed.rules import JOINS

__all__ = ["LoadError", "LoadedModel", "load", "preprocess"]

class LoadedModel(MultiTask):
    """A checkpoint with its preprocessing; `config` is its config.json. Takes the raw rows clients send.

    One tensor goes in if there is one input, else a dict by name. A dict comes out if config.json has `outputs`.
    """

    def __init__(self, config, inputs, layers, outputs):
        super().__init__(inputs, layers, outputs)
        self.config = config

    def forward(self, rows):
        answers = super().forward(rows)
        return answers if "outputs" in self.config else answers[self.output_names[0]]


def load(directory):
    """The checkpoint as a module in evaluation mode, float32.

    Args:
        directory: as export() writes it.

    Returns:
        LoadedModel, which takes raw rows, a tensor or {input: tensor}, and gives what the server gives.

    Raises:
        LoadError: what the format does not define.
        OSError, safetensors.FormatError: files that are missing or damaged.
    """
    return build(*checkpoint.read(directory), directory)


def build(config, tensors, directory):
    """The same of config.json and tensors by name, which are used up; `directory` is for messages."""
    try:
        rules_model.check(config, tensors)
    except LoadError as error:
        raise LoadError(f"{directory}: {error}") from None
    reader = _Reader(tensors, config["format_version"])
    inputs = {entry.get("name", "input"): reader.input(entry) for entry in _one_or_several(config, "input")}
    layers = reader.layers(config["layers"], "")
    outputs = {entry.get("name", "output"): reader.output(entry)
               for entry in _one_or_several(config, "output", {})}
    try:
        return LoadedModel(config, inputs, layers, outputs).eval()
    except ValueError as error:
        raise LoadError(f"{directory}: {error}") from None


def _one_or_several(config, key, default=None):
    """The entries of `inputs`, or the one of `input`; the same of outputs."""
    return config[key + "s"] if key + "s" in config else [config.get(key, default)]


class _Reader:
    """Builds layers, taking each tensor it uses out of `tensors`, so that what is left over is unused."""

    def __init__(self, tensors, version):
        self.tensors = tensors
        self.version = version

    def input(self, keys):
        layers = self.layers(keys["layers"], "") if "layers" in keys else None
        return Input(keys["shape"], keys.get("categories"), keys.get("preprocess"), layers, words=keys.get("words"),
                     unknown=keys.get("unknown"), missing=keys.get("missing"), length=keys.get("length"))

    def output(self, keys):
        return Output(self.layers(keys["layers"], "") if "layers" in keys else None, keys.get("labels"))

    def layers(self, objects, scope):
        objects = [dict(layer) for layer in objects]
        links = [self.links(layer) for layer in objects]
        # PyTorch's names have no dots.
        steps = [((layer.get("name") or f"{layer['op']}_{index}").replace(".", "_"), self.layer(layer, scope), None)
                 for index, layer in enumerate(objects)]
        return CheckpointSequential(steps) if all(link == PLAIN for link in links) else Graph(steps, links)

    def links(self, keys):
        """Takes the keys that name values out of a layer's."""
        others = tuple(keys.pop("of", ())) if keys["op"] in JOINS else ()
        return Links(keys.pop("input", None), others, keys.pop("result", None))

    def layer(self, keys, scope):
        op, name = keys.pop("op"), keys.pop("name", None)
        if op == "moe":
            return self.moe(keys, f"{scope}{name}.")
        if op == "residual":
            return Residual(self.layers(keys["layers"], scope))
        return self.leaf(OPS[op], keys, f"{scope}{name or op}")

    def leaf(self, op, keys, path):
        for key in op.keys:
            keys.setdefault(key, default_of(op, key, keys))
        tensors = self.take(path + ".", op.dotted)
        try:
            module = op.build(keys, tensors)
            left_out = module.load_state_dict(tensors, strict=False)
        except (KeyError, ValueError, RuntimeError) as error:
            raise LoadError(f"{path}: {error}") from None
        # A norm may do without weight and bias (build raises where an op may not), and PyTorch's batch counter is of no
        # use after training.
        missing = set(left_out.missing_keys) - {"weight", "bias", "num_batches_tracked"}
        if missing or left_out.unexpected_keys:
            raise LoadError(f"{path}: missing tensors {sorted(missing)}, unused {left_out.unexpected_keys}")
        return module

    def take(self, prefix, dotted=()):
        """Tensors whose name is the prefix and one word more, or one of `dotted`, by what comes after the prefix."""
        names = [name for name in self.tensors if name.startswith(prefix)
                 and ("." not in name[len(prefix):] or name[len(prefix):] in dotted)]
        return {name[len(prefix):]: self.tensors.pop(name) for name in names}

    def moe(self, keys, scope):
        experts = keys["experts"]
        identities = experts.get("identity", 0)
        modules = [self.layers(experts["layers"], f"{scope}experts.{index}.")
                   for index in range(experts["count"] - identities)] + [nn.Identity() for _ in range(identities)]
        try:
            if "gates" in keys:
                return self.several_gates(keys["gates"], modules, scope, experts.get("inputs"))
            return MoE(modules, self.gate(dict(keys["gate"]), scope + "gate."), keys.get("route", "rows"),
                       expert_inputs=experts.get("inputs"), weigh=keys.get("weigh", "outputs"),
                       **self.shared(keys.get("shared"), scope))
        except KeyError as error:
            raise LoadError(f"{scope[:-1]}: {error} is missing, or no name in PyTorch") from None

    def several_gates(self, gates, experts, scope, expert_inputs):
        names = [gate["name"].replace(".", "_") for gate in gates]
        modules = {name: self.gate({key: gate[key] for key in gate if key not in ("name", "experts", "input")},
                                   f"{scope}gates.{gate['name']}.") for name, gate in zip(names, gates)}
        chosen = {name: gate["experts"] for name, gate in zip(names, gates) if "experts" in gate}
        seen = {name: gate["input"] for name, gate in zip(names, gates) if "input" in gate}
        return MultiGateMoE(experts, modules, chosen, seen, expert_inputs)

    def shared(self, shared, scope):
        if shared is None:
            return {}
        layers = self.layers(shared["layers"], scope + "shared.")
        if shared.get("gate", "none") == "none":
            return {"shared": layers}
        weight = self.tensors.pop(scope + "shared_gate.weight")
        gate = nn.Linear(weight.shape[1], 1, bias=False)
        gate.load_state_dict({"weight": weight})
        return {"shared": layers, "shared_gate": gate}

    def gate(self, keys, scope):
        kind, key_layer = keys.pop("kind", "plain"), keys.pop("key_layer", "").replace(".", "_")
        layers = self.layers(keys.pop("layers"), scope)
        keys["select_bias"] = self.tensors.pop(scope + "select_bias", None)
        keys["expert_scale"] = self.tensors.pop(scope + "expert_scale", None) if self.version >= 3 else None
        if kind == "plain":
            return Gate(layers, **keys)
        query, key = self.tensors.pop(scope + "query.weight"), self.tensors.pop(scope + "key.weight")
        gate = AttentiveGate(layers, query.shape[0], key_layer, **keys)
        gate.load_state_dict({"query.weight": query, "key.weight": key}, strict=False)
        return gate
