"""Translates PyTorch layers into those of a checkpoint.

An nn.Sequential of the modules in ops.py, Residual and the mixtures is walked while an example row passes through it,
so a layer that does not fit its input is found here and named. A module of the caller's own is taken apart by
fx_trace.py.
"""

import contextlib
import re
import warnings
from collections import OrderedDict

import torch
from torch import nn

from moed.adapters import adapt, adapter_of
from moed.blocks_of_any_name import any_block, looks_like_block, marked
from moed.blocks_of_attention import Given, attention_block, is_attention
from moed.blocks_of_experts import block, is_block
from moed.blocks_of_latent import is_latent, latent_block
from moed.blocks_of_norms import norm_of
from moed.functions import AdaptiveAvgPool2d
from moed.fx_mixtures import Unplaced
from moed.fx_trace import is_ours, trace, traceable, tracer
from moed.graph import PLAIN, Graph
from moed.layers import AttentiveGate, Capacity, Gate, MoE, MultiGateMoE
from moed.modules import CheckpointSequential, FirstResult, Reshape, Residual
from moed.ops import INFERENCE_NO_OPS, OP_OF_MODULE, OPS, REQUIRED, ExportError, ExportWarning, default_of, require
from moed.places import unfit
from moed.recommenders import pooled
from moed.transformer_layers import of_pytorch
from moed.words import counted, short

VALID_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
INVALID_NAME = "{!r} is no name: at most 64 letters, digits, '_' or '-'"
MOST_AXES = 6
MIXTURES = (MoE, MultiGateMoE)
OTHER_WAY = f"; the ops are {', '.join(OPS)}, residual and moe. If it is made of these, a forward() that says so is " \
    "recorded: write it out, or say with moed.register_adapter what it is (clients/python/PORTING.md)"
STEP_BY_STEP = ", which has no state from step to step; nn.{} with batch_first=True is unrolled over its positions"
WAYS = {"LSTMCell": STEP_BY_STEP.format("LSTM"), "GRUCell": STEP_BY_STEP.format("GRU"),
        "RNNCell": STEP_BY_STEP.format("RNN"),
        "MultiheadAttention": "; in a Sequential nobody gives it keys and values: call it in a forward(), as in "
                              "self.attention(x, x, x)[0]"}


class Describer:
    """Translates layers, collecting the tensors under their checkpoint names.

    `path` is where a submodule is in the caller's model, for messages; `scope` is the prefix of its tensor names.
    """

    def __init__(self):
        self.tensors = {}  # by checkpoint name, in order of execution
        self.expert_counts = {}  # by MoE layer
        self.format = 1
        self.key_layer = None  # of the attentive gate whose experts are being described: it needs its name
        self.in_branch = False  # of an input or an output
        self.categories = None  # of the input that the next layer begins

    def need(self, version):
        self.format = max(self.format, version)

    def branch(self, layers, row, path, name, categories=None):
        """The layers of an input or an output: named after it, with no mixtures among them."""
        self.in_branch, self.categories = True, categories
        if not isinstance(layers, CheckpointSequential):
            layers = nn.Sequential(OrderedDict({re.sub(r"[^A-Za-z0-9_-]", "_", name): layers}))
        described = self.layers(layers, row, path, "")
        self.in_branch, self.categories = False, None
        return described

    def model(self, module, row, path, keys):
        """(layers, output row, [layers of each key's own]) of a module whose forward() gives several things."""
        alone = not traceable(module)
        if alone and keys == [0]:
            with contextlib.suppress(ExportError):
                return _expanded(module, row, path, True), [nn.Sequential()]
        try:
            trunk, *branches = trace(module, row, path, keys, mixtures=True)
        except Unplaced as unplaced:
            trunk, *branches = trace(module, row, path, keys)
            warnings.warn(str(unplaced), ExportWarning, stacklevel=2)
        except ExportError as error:
            require(not alone, path, "gives several things; of an MoE block the first can be exported, as in "
                                     f"output_name=['output', None]. Nor can it be recorded as it is: {error.reason}")
            raise
        return trunk, branches

    def layers(self, module, row, path, scope, prefix=""):
        """(list of layer objects, output row) of a Sequential; of a single layer, as if it were in one."""
        module = _expanded(module, row, path, self.routes(scope))
        alone = not isinstance(module, nn.Sequential)
        if alone:
            module = nn.Sequential(OrderedDict({"moe" if type(module) in MIXTURES else "0": module}))
        objects, values = [], {"input": row}
        for name, layer in module._modules.items():  # named_children() leaves out a layer that stands there twice
            own_path = path if alone else \
                isinstance(module, CheckpointSequential) and module.paths[name] or f"{path}.{name}"
            links = module.links[name] if isinstance(module, Graph) else PLAIN
            source, others = row if links.input is None else values[links.input], [values[other] for other in links.of]
            described, row = self.layer(layer, source, own_path, scope, prefix, name, others)
            given = None if links.input is None else _value_name(prefix, links.input)
            _name_input(objects, described, given, f"{prefix}{name}_input")
            if links != PLAIN:
                self.link(described, links, prefix, own_path)
                values[links.result] = row
            objects += described
        return objects, row

    def routes(self, scope):
        """Whether a MoE layer may stand here."""
        return scope == "" and not self.in_branch

    def link(self, described, links, prefix, path):
        """Adds the keys by which layers read each other; nested lists' names are joined as those of layers."""
        require(len(described) > 0, path, "does nothing, and another layer reads it by name")
        self.need(3)
        if links.input is not None:
            described[0]["input"] = _value_name(prefix, links.input)
        if links.of:
            described[0]["of"] = [_value_name(prefix, other) for other in links.of]
        if links.result is not None:
            described[-1]["result"] = _value_name(prefix, links.result)

    def layer(self, layer, row, path, scope, prefix, name, others=()):
        """(list of layer objects, output row): none of a Dropout, several of a module that is made of others.

        The format has no nesting without a meaning, so the names of nested layers are joined.
        """
        if type(layer) in INFERENCE_NO_OPS:
            return [], row
        layer = _expanded(layer, row, path, self.routes(scope))
        if isinstance(layer, nn.Sequential):
            return self.layers(layer, row, path, scope, f"{prefix}{name}_")
        require(VALID_NAME.fullmatch(name), path, INVALID_NAME.format(name))
        whole = short(prefix + name)
        if type(layer) in MIXTURES:
            described = self.mixture(layer, row, path, scope, whole)
        elif type(layer) is Residual:
            described = self.residual(layer, row, path, scope, prefix, name)
        else:
            described = self.leaf(layer, row, path, scope, whole)
        if whole == self.key_layer and described["op"] != "residual":
            described = {"op": described["op"], "name": self.key_layer, **described}
        advice = "of one number per row keep the axis: leave squeeze(-1) or view(-1) out" if self.categories is None \
            else "columns of categories are inputs of their own, each with its embedding, in a moed.nn.MultiTask"
        self.categories = None
        out = _run(layer, row, path, others)
        require(2 <= out.dim() <= 1 + MOST_AXES, path,
                f"gives rows of shape {list(out.shape[1:])}; a server's have 1 to {MOST_AXES} axes ({advice})")
        return [described], out

    def residual(self, layer, row, path, scope, prefix, name):
        """The branch's layers are named in the scope around it: a residual has no tensors, so it has no name."""
        if not isinstance(layer.layers, CheckpointSequential):
            prefix = f"{prefix}{name}_"
        objects, out = self.layers(layer.layers, row.clone(), path + ".layers", scope, prefix)
        objects = objects or [nothing(out)]
        require(out.shape == row.shape, path, f"the branch turns {list(row.shape[1:])} into {list(out.shape[1:])}; "
                                              "they cannot be added")
        return {"op": "residual", "layers": objects}

    def leaf(self, layer, row, path, scope, name):
        op_name = OP_OF_MODULE.get(type(layer))
        require(op_name is not None, path, f"{type(layer).__name__} has no op in the checkpoint format"
                                           f"{WAYS.get(type(layer).__name__, OTHER_WAY)}")
        if op_name == "embedding":
            self.check_embedding(layer, path)
        op = OPS[op_name]
        keys, tensors = op.describe(layer, row, path)
        given = {key: value for key, value in keys.items()
                 if default_of(op, key, keys) is REQUIRED or value != default_of(op, key, keys)}
        name = self.free_name(scope, name, tensors)
        self.add(tensors, path, scope + name)
        self.need(max(op.since, op.since_of(given, tensors)))
        return {"op": op_name, **({"name": name} if tensors else {}), **given}

    def free_name(self, scope, name, tensors):
        """A layer that is called again elsewhere has its tensors twice."""
        free, count = name, 1
        while any(f"{scope}{free}.{tensor}" in self.tensors for tensor in tensors):
            count += 1
            free = short(f"{name}_{count}")
        return free

    def check_embedding(self, layer, path):
        require(self.categories is not None, path,
                "an embedding looks up integers: give integers as example_inputs, as in torch.zeros(1, 3, "
                "dtype=torch.long), or make it the first layer of a moed.nn.Input with categories (moed.nn.MultiTask)")
        require(self.categories <= layer.num_embeddings, path,
                f"the table has {layer.num_embeddings} rows for {self.categories} categories")

    def add(self, tensors, path, prefix):
        for name, tensor in tensors.items():
            full_name = f"{prefix}.{name}"
            require(full_name not in self.tensors, path, f"two tensors would be named {full_name}")
            require(torch.isfinite(tensor).all(), path, f"{name} holds values that are not finite")
            self.tensors[full_name] = tensor.detach().numpy()

    # --- mixtures ---------------------------------------------------------------------------------------------

    def mixture(self, layer, row, path, scope, name):
        require(not self.in_branch, path, "a MoE layer in an input or an output; it stands in the model's layers only")
        require(scope == "", path, "a MoE layer inside a gate or an expert has no place in the format")
        require(len(layer.experts) > 0, path + ".experts", "there are no experts")
        require(layer.expert_inputs is None or row.dim() > 2, path, "expert_inputs need rows of several axes")
        if type(layer) is MultiGateMoE:
            self.need(2)
            return {"op": "moe", "name": name, "gates": self.gates(layer, row, path, name),
                    "experts": self.experts(layer, row, path + ".experts", name + ".experts.")}
        return {"op": "moe", "name": name, **self.single_gate(layer, row, path, name)}

    def single_gate(self, layer, row, path, name):
        require(layer.route == "rows" or row.dim() > 2, path, "rows of one axis have no positions to route")
        items, config = layer.items(row), {}
        if layer.route != "rows":
            config["route"] = layer.route
        config["gate"] = self.gate(layer.gate, items, path + ".gate", f"{name}.gate.", len(layer.experts))
        self.key_layer = layer.gate.key_layer if type(layer.gate) is AttentiveGate else None
        config["experts"] = self.experts(layer, items, path + ".experts", name + ".experts.")
        self.key_layer = None
        self.expert_counts[name] = len(layer.experts)
        if type(layer.gate) is AttentiveGate:
            names = [expert_layer.get("name") for expert_layer in config["experts"]["layers"]]
            require(layer.gate.key_layer in names, path + ".gate",
                    f"key_layer {layer.gate.key_layer!r} is not one layer of the experts ({names})")
        if layer.shared is not None:
            config["shared"] = self.shared(layer, items, path, name)
        if {"route", "shared"} & set(config):
            self.need(2)
        if layer.weigh != "outputs":
            self.need(3)
            config["weigh"] = layer.weigh
        return config

    def gates(self, layer, row, path, name):
        described = []
        for gate_name, gate in layer.gates.items():
            gate_path, chosen = f"{path}.gates.{gate_name}", layer.gate_experts[gate_name]
            require(VALID_NAME.fullmatch(gate_name), gate_path, INVALID_NAME.format(gate_name))
            require(type(gate) is Gate, gate_path, f"{type(gate).__name__} is not a moed Gate")
            require(layer.gate_inputs[gate_name] is None or row.dim() > 2, gate_path,
                    "gate_inputs need rows of several axes")
            config = {"name": gate_name, **self.gate(gate, layer.gate_input(gate_name, row), gate_path,
                                                     f"{name}.gates.{gate_name}.", len(chosen))}
            if len(chosen) < len(layer.experts):
                config["experts"] = chosen
            if layer.gate_inputs[gate_name] is not None:
                config["input"] = layer.gate_inputs[gate_name]
            self.expert_counts[f"{name}.{gate_name}"] = len(chosen)
            described.append(config)
        return described

    def gate(self, gate, row, path, scope, count):
        """The gate object of a gate over `count` experts."""
        require(type(gate) in (Gate, AttentiveGate), path, f"{type(gate).__name__} is not a moed Gate or AttentiveGate")
        config = {}
        if type(gate) is AttentiveGate:
            config = {"kind": "attentive", "key_layer": gate.key_layer}
        layers, out = self.layers(gate.layers, row.clone(), path + ".layers", scope)
        if gate.score == "softmax" and [layer["op"] for layer in layers[-2:]] == ["softmax", "log"]:
            layers = layers[:-2]  # softmax(log(softmax(x))) is softmax(x)
        config["layers"] = layers or [nothing(out)]
        require(out.dim() == 2, path, f"the layers give {list(out.shape[1:])} for a row; a gate needs one axis")
        require(type(gate) is AttentiveGate or out.shape[1] == count, path,
                f"{out.shape[1]} logits for {count} experts")
        require((gate.top_k or 1) <= count, path, f"top_k is {gate.top_k}, but there are {count} experts")
        config.update(self.policy(gate))
        if type(gate) is AttentiveGate:
            self.add({"query.weight": gate.query.weight, "key.weight": gate.key.weight}, path, scope[:-1])
        if gate.select_bias is not None:
            require(len(gate.select_bias) == count, path,
                    f"select_bias has {counted(len(gate.select_bias), 'number')} for {counted(count, 'expert')}")
            self.add({"select_bias": gate.select_bias}, path, scope[:-1])
        if gate.expert_scale is not None:
            require(len(gate.expert_scale) == count, path,
                    f"expert_scale has {counted(len(gate.expert_scale), 'number')} for {counted(count, 'expert')}")
            self.add({"expert_scale": gate.expert_scale}, path, scope[:-1])
            self.need(3)
        return config

    def policy(self, gate):
        config = {"score": gate.score}
        if gate.top_k is not None:
            config["top_k"] = gate.top_k
        config["normalize"] = gate.normalize
        if gate.scale is not None:
            config["scale"] = gate.scale
        newer = {"p": gate.p if gate.normalize == "lp" else None,
                 "jitter": gate.jitter if gate.score == "sparsemixer" else None,
                 "groups": gate.groups and gate.groups._asdict(),
                 "capacity": gate.capacity and self.capacity(gate.capacity)}
        newer = {key: value for key, value in newer.items() if value is not None}
        if newer:
            self.need(2)
        if gate.score == "sqrt_softplus":
            self.need(3)
        return {**config, **newer}

    def capacity(self, capacity):
        """Its keys: factor and minimum as ever, what is newer only where it is not the default."""
        given = {"places": capacity.places} if capacity.places is not None else \
            {"factor": capacity.factor, "minimum": capacity.minimum}
        newer = {key: getattr(capacity, key) for key in ("round", "rows", "order", "renormalize")
                 if getattr(capacity, key) != Capacity._field_defaults[key]}
        if newer or "places" in given:
            self.need(3)
        return {**given, **newer}

    def experts(self, layer, items, path, scope):
        first, identities = None, trailing_identities(layer.experts)
        for index, expert in enumerate(list(layer.experts)[:len(layer.experts) - identities]):
            described = self.expert(expert, layer.expert_input(index, items), f"{path}.{index}", f"{scope}{index}.")
            first = first or described
            require(described == first, f"{path}.{index}", "differs from expert 0 in layers or shapes")
        config = {"count": len(layer.experts), "layers": first[0]}
        if identities:
            self.need(3)
            config["identity"] = identities
        if layer.expert_inputs is None:
            return config
        self.need(2)
        return {**config, "inputs": layer.expert_inputs}

    def expert(self, expert, row, path, scope):
        """(layers, shapes of the tensors by name): what all experts of a layer have in common."""
        layers, out = self.layers(expert, row.clone(), path, scope)
        return layers or [nothing(out)], {name[len(scope):]: tensor.shape for name, tensor in self.tensors.items()
                        if name.startswith(scope)}

    def shared(self, layer, items, path, name):
        layers, out = self.layers(layer.shared, items.clone(), path + ".shared", name + ".shared.")
        layers = layers or [nothing(out)]
        of_expert = _run(layer.experts[0], layer.expert_input(0, items), path + ".experts.0")
        require(out.shape == of_expert.shape, path + ".shared",
                f"gives {list(out.shape[1:])}, but the experts {list(of_expert.shape[1:])}")
        if layer.shared_gate is None:
            return {"layers": layers}
        gate, path, size = layer.shared_gate, path + ".shared_gate", items[0].numel()
        require(type(gate) is nn.Linear and gate.bias is None and gate.weight.shape == (1, size), path,
                f"is not nn.Linear({size}, 1, bias=False)")
        self.add({"weight": gate.weight}, path, name + ".shared_gate")
        return {"layers": layers, "gate": "sigmoid"}


def nothing(row):
    """A layer that gives what it takes: the format has no empty lists of layers."""
    return {"op": "reshape", "shape": list(row.shape[1:])}


def _expanded(module, row, path, routes):
    """The layers that a module of the caller's own, or one of PyTorch's transformers, is made of; else the module.

    Of a class with an adapter what that makes of it; of an MoE block what can be found out, or else be recorded.
    routes: whether a MoE layer may stand here.
    """
    if type(module) is FirstResult:
        return _expanded(module.module, row, path, routes)
    given, module = module, module.module if type(module) is Given else module
    adapter = adapter_of(module)
    if adapter is not None:
        return _expanded(adapt(adapter, module, row), row, path, routes)
    if not is_ours(module) and is_block(module):
        return _block(module, row, path, routes)
    if marked(module):
        return any_block(module, row, path, tracer)
    if not is_ours(module) and is_latent(module):
        return latent_block(given, row, path)
    if not is_ours(module) and is_attention(module):
        return attention_block(given, row, path)
    require(given is module, path, "a layer has one input")
    norm = None if is_ours(module) or type(module).__module__.startswith("torch.") else norm_of(module)
    if norm is not None:
        return norm
    module = _in_our_terms(module, row, path)
    if traceable(module):
        return _recorded(module, row, path, routes)
    return of_pytorch(module, path) if type(module) in (nn.TransformerEncoder, nn.TransformerEncoderLayer) else module


def _block(module, row, path, routes):
    """An MoE block: by the names of its parts, or recorded, or by any parts."""
    try:
        return block(module, row, path)
    except ExportError as error:
        try:
            return _with_mixtures(module, row, path) if routes else trace(module, row, path)
        except ExportError as other:
            recording = other
        with contextlib.suppress(ExportError):
            return any_block(module, row, path, tracer)
        where = f" ({recording.line})" if recording.line else ""
        raise ExportError(error.path, f"{error.reason}. Nor can it be recorded as it is: {recording.reason}{where}",
                          error.line) from None


def _recorded(module, row, path, routes):
    """A module of the caller's own; one that cannot be recorded may be an MoE block."""
    try:
        return _with_mixtures(module, row, path) if routes else trace(module, row, path)
    except ExportError as error:
        if looks_like_block(module):
            with contextlib.suppress(ExportError):
                return any_block(module, row, path, tracer)
        raise error from None


def _with_mixtures(module, row, path):
    """Recorded, with MoE layers for the mixtures in its own words; a warning tells of those that cannot be."""
    try:
        return trace(module, row, path, mixtures=True)
    except Unplaced as unplaced:
        beside = [part for part in module.children() if not isinstance(part, (nn.ModuleList, nn.ModuleDict))]
        if looks_like_block(module) and len(beside) < 2:
            with contextlib.suppress(ExportError):
                return any_block(module, row, path, tracer)
        recorded = trace(module, row, path)
        warnings.warn(str(unplaced), ExportWarning, stacklevel=2)
        return recorded


def _in_our_terms(module, row, path):
    """PyTorch's modules of shapes and pools that are more general than the op of their name."""
    if type(module) is nn.EmbeddingBag:
        require(module.mode != "max" or module.padding_idx is None, path,
                "the largest of no entries: of a list of padding alone it gives 0, a checkpoint what padding is set to")
        table = nn.Embedding.from_pretrained(module.weight, freeze=False)
        table.max_norm = module.max_norm
        return pooled("bag", table, module.mode, module.padding_idx)
    flattened = type(module) is nn.Flatten and module.start_dim > 0 and \
        (module.start_dim, module.end_dim % row.dim()) != (1, row.dim() - 1)
    if flattened or type(module) is nn.Unflatten and module.dim not in (0, -row.dim()):
        return Reshape(*module(row).shape[1:])
    if type(module) is nn.AdaptiveAvgPool2d and row.dim() == 4:
        size = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,) * 2
        if size != (1, 1) or row.shape[-1] != row.shape[-2]:
            return AdaptiveAvgPool2d(tuple(own or given for own, given in zip(size, row.shape[-2:])))
    return module


def _value_name(prefix, name):
    """"input" is the list's own input, wherever it is read."""
    return name if name == "input" else short(prefix + name)


def _name_input(before, described, given, name):
    """What a nested list calls its input is `given` in the list around it, or what comes before, which gets a name."""
    readers = [layer for layer in described if "input" in (layer.get("input"), *layer.get("of", ()))]
    if not readers or not before and given is None:
        return
    if given is None:
        given = before[-1].setdefault("result", short(name))
    for layer in readers:
        if layer.get("input") == "input":
            layer["input"] = given
        if "of" in layer:
            layer["of"] = [given if other == "input" else other for other in layer["of"]]


def _run(layer, row, path, others=()):
    if type(layer) in (Residual, *MIXTURES):
        # An in-place activation is harmless in a plain chain. In a branch it also changes what the other branches
        # read, which is not what the same layers mean in a checkpoint. Of x and -x it changes one.
        for sample in (row, -row):
            require(_leaves_alone(layer, sample, path), path,
                    "a layer inside changes the shared input in place; give it inplace=False")
    return _output(layer, row, path, others)


def _leaves_alone(layer, row, path):
    given = row.clone()
    _output(layer, given, path)
    return torch.equal(given, row)


def _output(layer, row, path, others=()):
    try:
        return layer(row, *others)
    except (RuntimeError, ValueError, IndexError) as error:
        with contextlib.suppress(RuntimeError, ValueError, IndexError):  # PyTorch's norms of one number refuse one row
            return layer(*(torch.cat([value, value]) for value in (row, *others)))[:1]
        raise unfit(path, row, error) from None


def trailing_identities(experts):
    """How many of the last experts are nn.Identity, where not all are."""
    count = 0
    while count < len(experts) and type(experts[len(experts) - 1 - count]) is nn.Identity:
        count += 1
    return count if count < len(experts) else 0
