"""Checkpoints of core/CHECKPOINT.md, interpreted in float64 with numpy alone.

What the engine's numbers are compared with, so it shares nothing with the engine, with the Python
package or with PyTorch: it is written from the format's description, one small function per op
(reference_ops.py) and per step of a gate (reference_gates.py), for reading rather than for speed.
Every expert is evaluated for every item, and the gates decide after.

    config, tensors = read_checkpoint(directory)
    outputs, routing = run(config, tensors, inputs)      # routing["moe"] is a Routing

    reference.py CHECKPOINT INPUT.f32...                 # prints the outputs and the routing
"""

import json
import math
import os
import sys

import numpy as np

from reference_gates import combine, route
from reference_ops import JOINS, OPS, REDUCTIONS, attention, over_entries, real, sigmoid

# --- safetensors ----------------------------------------------------------------------------------


def decode(raw, dtype):
    """Little-endian bytes of one tensor as float64."""
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = decode(data[begin:end], entry["dtype"]).reshape(entry["shape"])
    return tensors


def read_checkpoint(directory):
    """config.json and every tensor by name."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    index = os.path.join(directory, "model.safetensors.index.json")
    shards = ["model.safetensors"]
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            shards = sorted(set(json.load(file)["weight_map"].values()))
    tensors = {}
    for shard in shards:
        tensors.update(read_safetensors(os.path.join(directory, shard)))
    return config, tensors


# --- models ---------------------------------------------------------------------------------------


class Model:
    """Runs lists of layers; collects the decisions of every gate.

    `requests`: how many of the batch's rows belong to each request, in order.
    """

    def __init__(self, tensors, requests):
        self.tensors = tensors
        self.requests = requests
        self.routing = {}
        self.routed = None  # which items are no padding; None: all

    def chain(self, layers, prefix, x):
        """Each layer reads what the one before it gave, or a value that an earlier one named."""
        return self.padded_chain(layers, prefix, x, None)[0]

    def padded_chain(self, layers, prefix, x, lengths):
        """The same of rows whose first axis ends in padding; what comes out may have none any more."""
        values = {"input": (x, lengths)}
        for layer in layers:
            x, lengths = values[layer["input"]] if "input" in layer else (x, lengths)
            others = [values[name] for name in layer.get("of", [])]
            x, lengths = self.padded_layer(layer, prefix, x, lengths, others)
            if "result" in layer:
                values[layer["result"]] = x, lengths
        return x, lengths

    def padded_layer(self, layer, prefix, x, lengths, others):
        op, arrays = layer["op"], [other for other, _ in others]
        if lengths is None:
            left = [other_lengths for _, other_lengths in others if other_lengths is not None]
            return self.layer(layer, prefix, x, arrays), left[0] if left else None
        if op == "residual":
            return x + self.padded_chain(layer["layers"], prefix, x, lengths)[0], lengths
        if op == "moe":
            return self.moe(layer, prefix + layer["name"], x, lengths), lengths
        if op == "attention":
            name = prefix + layer["name"] + "."
            return attention(layer, lambda suffix: self.tensors.get(name + suffix), x, lengths), lengths
        if op in REDUCTIONS and layer.get("axis", 0) in (0, 1 - x.ndim):
            return over_entries(lambda entries: REDUCTIONS[op](layer, entries), x, lengths), None
        return self.layer(layer, prefix, x, arrays), lengths

    def layer(self, layer, prefix, x, others):
        if layer["op"] == "residual":
            return x + self.chain(layer["layers"], prefix, x)
        if layer["op"] == "moe":
            return self.moe(layer, prefix + layer["name"], x)
        name = prefix + layer.get("name", "") + "."
        tensor = lambda suffix: self.tensors.get(name + suffix)  # noqa: E731
        if layer["op"] in JOINS:
            return JOINS[layer["op"]](layer, tensor, [x, *others])
        return OPS[layer["op"]](layer, tensor, x)

    def moe(self, layer, name, x, lengths=None):
        if layer.get("route") != "positions":
            return self.items(layer, name, x)
        self.routed = None
        if lengths is not None:
            each = math.prod(x.shape[2:-1])
            self.routed = np.repeat(real(lengths, x.shape[1]).ravel(), each)
        y = self.items(layer, name, x.reshape(-1, x.shape[-1]))
        self.routed = None
        return y.reshape(x.shape[:-1] + y.shape[1:])

    def items(self, layer, name, x):
        """Every item of x [items, ...] through the experts its gates choose."""
        if layer.get("weigh", "outputs") == "inputs":
            return self.weighed_inputs(layer, name, x)
        experts = layer["experts"]
        split = layers_before_key(layer)
        prefixes = [f"{name}.experts.{e}." for e in range(experts["count"])]
        seen = [x[:, i] for i in experts["inputs"]] if "inputs" in experts else [x] * len(prefixes)
        hidden = [self.chain(experts["layers"][:split], p, s) for p, s in zip(prefixes, seen)]
        real = experts["count"] - experts.get("identity", 0)
        results = [self.chain(experts["layers"][split:], p, h) for p, h in zip(prefixes[:real], hidden)]
        results = np.stack(results + seen[real:], 1)
        if "gates" in layer:
            each = [self.one_of_several(gate, name, x, results) for gate in layer["gates"]]
            y = np.stack(each, 1)
        else:
            y = self.gate(layer["gate"], name, name + ".gate.", x, hidden, results)
        return y + self.shared(layer["shared"], name, x) if "shared" in layer else y

    def weighed_inputs(self, layer, name, x):
        """The weights multiply what the experts are given; every item and choice is computed by itself."""
        experts, gate = layer["experts"], {**layer["gate"]}
        zeros = np.zeros((len(x), experts["count"], 1))
        self.gate(gate, name, name + ".gate.", x, None, zeros)
        routing, y = self.routing[name], 0.0
        for slot in range(routing.chosen.shape[1]):
            results = []
            for e in range(experts["count"]):
                seen = x[:, experts["inputs"][e]] if "inputs" in experts else x
                weight = routing.weights[:, slot].reshape((-1,) + (1,) * (seen.ndim - 1))
                results.append(self.expert(experts, name, e, weight * seen))
            results = np.stack(results, 1)
            chosen = results[np.arange(len(x)), routing.chosen[:, slot]]
            placed = routing.placed[:, slot].reshape((-1,) + (1,) * (chosen.ndim - 1))
            y = y + np.where(placed, chosen, 0.0)
        return y + self.shared(layer["shared"], name, x) if "shared" in layer else y

    def expert(self, experts, name, e, x):
        if e >= experts["count"] - experts.get("identity", 0):
            return x
        return self.chain(experts["layers"], f"{name}.experts.{e}.", x)

    def one_of_several(self, gate, name, x, results):
        own = gate["name"]
        x = x[:, gate["input"]] if "input" in gate else x
        return self.gate(gate, f"{name}.{own}", f"{name}.gates.{own}.", x, None, results)

    def gate(self, gate, name, prefix, x, hidden, results):
        logits = self.chain(gate["layers"], prefix, x)
        if gate.get("kind") == "attentive":
            logits = self.attentive(prefix, logits, hidden)
        members = np.array(gate.get("experts", range(results.shape[1])))
        requests = [rows * len(x) // sum(self.requests) for rows in self.requests]
        bias, scale = (self.tensors.get(prefix + own) for own in ("select_bias", "expert_scale"))
        items_of_row = len(x) // sum(self.requests)
        if self.routed is None:
            self.routing[name] = route(gate, logits, bias, scale, members, requests, items_of_row)
        else:
            self.routing[name] = self.route_some(gate, logits, bias, scale, members, requests)
        return combine(self.routing[name], results)

    def route_some(self, gate, logits, bias, scale, members, requests):
        """Only what is no padding is routed; the rest goes nowhere."""
        ends = np.cumsum(requests)
        real_items = [int(self.routed[end - items : end].sum()) for items, end in zip(requests, ends)]
        some = route(gate, logits[self.routed], bias, scale, members, real_items, 1)
        return some.spread(self.routed)

    def attentive(self, prefix, g, hidden):
        """logits_i = (Wq g) . (Wk e_i) / sqrt(h)"""
        query = g @ self.tensors[prefix + "query.weight"].T
        keys = [e.reshape(len(g), -1) @ self.tensors[prefix + "key.weight"].T for e in hidden]
        return np.stack([(query * key).sum(1) for key in keys], 1) / math.sqrt(g.shape[1])

    def shared(self, shared, name, x):
        y = self.chain(shared["layers"], name + ".shared.", x)
        if shared.get("gate", "none") == "none":
            return y
        logit = x.reshape(len(x), -1) @ self.tensors[name + ".shared_gate.weight"].T
        return y * sigmoid(logit).reshape((-1,) + (1,) * (y.ndim - 1))


def layers_before_key(layer):
    """After how many of the experts' layers the gate reads their outputs; 0: it does not."""
    gate = layer.get("gate", {})
    if gate.get("kind") != "attentive":
        return 0
    return 1 + [inner.get("name") for inner in layer["experts"]["layers"]].index(gate["key_layer"])


def preprocess(options, x):
    def per_channel(values):
        return np.reshape(values, (-1,) + (1,) * (x.ndim - 2))

    mean, std = per_channel(options.get("mean", [0.0])), per_channel(options.get("std", [1.0]))
    return (x * options.get("scale", 1.0) - mean) / std


def join(model, entries, inputs):
    """One input as it is, with its lengths; several flattened, side by side."""
    joined = []
    given = {entry.get("name"): values for entry, values in zip(entries, inputs, strict=True)}
    of_others = {entry["length"] for entry in entries if "length" in entry}
    for entry, values in zip(entries, inputs, strict=True):
        if entry.get("name") in of_others:
            continue
        lengths = given[entry["length"]].astype(int).ravel() if "length" in entry else None
        x = values.astype(np.float64).reshape([-1] + entry["shape"])
        x = preprocess(entry.get("preprocess", {}), x)
        joined.append(model.padded_chain(entry.get("layers", []), "", x, lengths))
    if len(joined) == 1:
        return joined[0]
    return np.concatenate([x.reshape(len(x), -1) for x, _ in joined], 1), None


def run(config, tensors, inputs, requests=None):
    """Raw values, an array of rows per input -> an array per output, and a Routing per gate.

    `requests`: how many rows each request has; absent: the batch is one request.
    """
    entries = config["inputs"] if "inputs" in config else [config["input"]]
    rows = inputs[0].size // math.prod(entries[0]["shape"])
    model = Model(tensors, requests or [rows])
    x, lengths = model.padded_chain(config["layers"], "", *join(model, entries, inputs))
    outputs = []
    for output in config.get("outputs", [{}]):
        y, left = model.padded_chain(output.get("layers", []), "", x, lengths)
        if left is not None:  # padding gives 0
            y = y * real(left, y.shape[1]).reshape(y.shape[:2] + (1,) * (y.ndim - 2))
        outputs.append(y)
    return outputs, model.routing


def main():
    config, tensors = read_checkpoint(sys.argv[1])
    outputs, routing = run(config, tensors, [np.fromfile(path, "<f4") for path in sys.argv[2:]])
    for output in outputs:
        print(output)
    for name, gate in routing.items():
        print(f"{name}: experts\n{gate.experts}\nweights\n{gate.weights}")


if __name__ == "__main__":
    main()
