"""Bad checkpoints of format 3: names that lead nowhere, values that do not go together. A case is
(name, base, edits, what the error must hold)."""

from checkpoint import drop, layers, put, tensor
from good import graph, numbers

FIRST, SECOND, THIRD = (f"config.json: layers[{i}]" for i in range(3))


def model(shape, *chain, tensors=None, version=3):
    return layers(shape, *chain, tensors=tensors, version=version)


def named(result, op="tanh", **options):
    return {"op": op, "result": result, **options}


NAMES = [
    ("result_in_format_2", graph, [put("format_version", 2)], [FIRST + ".result: needs \"format_version\": 3"]),
    ("input_in_format_2", graph, [put("format_version", 2), drop("layers.0.result")],
     ["config.json: layers[1].input: needs \"format_version\": 3"]),
    ("add_in_format_2", graph, [model([2], {"op": "add", "value": 1}, version=2)],
     [FIRST + ".op: 'add' needs \"format_version\": 3"]),
    ("input_unknown", graph, [put("layers.1.input", "y")],
     [SECOND + ".input: no earlier layer of this list has the result 'y'"]),
    ("input_of_later_layer", graph, [model([2], {"op": "relu", "input": "a"}, named("a"), {"op": "add", "of": ["a"]})],
     [FIRST + ".input: no earlier layer", "'a'"]),
    ("input_of_itself", graph, [model([2], named("a", "relu", input="a"))], [FIRST + ".input: no earlier layer"]),
    ("input_of_outer_list", graph, [model([2], named("a"), {"op": "residual", "layers": [{"op": "add", "of": ["a"]}]},
                                          {"op": "add", "of": ["a"]})],
     ["config.json: layers[1].layers[0].of: no earlier layer of this list has the result 'a'"]),
    ("input_of_inner_list", graph, [model([2], {"op": "residual", "layers": [named("a"), {"op": "add", "of": ["a"]}]},
                                          {"op": "add", "of": ["a"]})],
     [SECOND + ".of: no earlier layer of this list has the result 'a'"]),
    ("input_number", graph, [put("layers.1.input", 1)], [SECOND + ".input: expected a string"]),
    ("input_empty", graph, [put("layers.1.input", "")], [SECOND + ".input: no earlier layer"]),
    ("result_reserved", graph, [put("layers.0.result", "input")], [FIRST + ".result: \"input\" is the list's own input"]),
    ("result_twice", graph, [model([2], named("a"), named("a"), {"op": "add", "of": ["a"]})],
     [SECOND + ".result: two layers of this list have the result 'a'"]),
    ("result_empty", graph, [put("layers.0.result", "")], [FIRST + ".result: expected 1 to 64"]),
    ("result_with_slash", graph, [put("layers.0.result", "a/b")], [FIRST + ".result: expected 1 to 64"]),
    ("result_too_long", graph, [put("layers.0.result", "r" * 65)], [FIRST + ".result: expected 1 to 64"]),
    ("result_list", graph, [put("layers.0.result", ["a"])], [FIRST + ".result: expected a string"]),
    ("result_unread", graph, [model([2], named("a"), {"op": "relu"})], [FIRST + ".result: no later layer", "'a'"]),
    ("result_of_last_layer", graph, [model([2], {"op": "relu"}, named("a"))], [SECOND + ".result: no later layer", "'a'"]),
    ("value_unread", graph, [model([2], named("a"), {"op": "relu"}, {"op": "tanh", "input": "a"})],
     [SECOND + ": no layer reads what this one gives"]),
    ("results_1025", graph, [model([2], *[named(f"v{i}") for i in range(1025)],
                                   {"op": "add", "of": [f"v{i}" for i in range(200)]})],
     ["config.json: layers[1024].result: the list has more than 1024"]),
    ("key_layer_of_branched_experts", graph,
     [model([2], {"op": "moe", "name": "m",
                  "gate": {"kind": "attentive", "key_layer": "k", "layers": [{"op": "tanh"}]},
                  "experts": {"count": 2, "layers": [{"op": "linear", "name": "k"}, {"op": "add", "of": ["input"]}]}},
            tensors={f"m.experts.{e}.k.weight": numbers(2, 2) for e in range(2)})],
     [FIRST + ".gate.key_layer: experts whose layers read by name"]),
    ("categories_read_twice", graph,
     [model([2], {"op": "relu"}),
      lambda checkpoint: checkpoint.config.pop("input"),
      put("inputs", [{"name": "x", "shape": [2], "categories": 3,
                      "layers": [{"op": "embedding", "name": "e", "result": "a"}, {"op": "mean", "axis": 1},
                                 {"op": "add", "of": ["input"]}, {"op": "reshape", "shape": [2, 1]},
                                 {"op": "add", "of": ["a"]}]}]),
      tensor("e.weight", numbers(3, 2))],
     ["config.json: inputs[0].layers[2]: 'add' and the list's first layer, 'embedding', cannot both"]),
]

JOINS = [
    ("of_unknown", graph, [put("layers.2.of", ["main", "y"])], [THIRD + ".of: no earlier layer", "'y'"]),
    ("of_text", graph, [put("layers.2.of", "main")], [THIRD + ".of: expected a list of strings"]),
    ("of_number", graph, [put("layers.2.of", [1])], [THIRD + ".of: entry 0 is not a string"]),
    ("of_empty", graph, [put("layers.2.of", [])], [THIRD + ".of: expected 1 to 256 names"]),
    ("of_257", graph, [put("layers.2.of", ["main"] * 257)], [THIRD + ".of: expected 1 to 256 names"]),
    ("of_relu", graph, [model([2], named("a"), {"op": "relu", "of": ["a"]})], [SECOND + ": unknown key 'of'"]),
    ("add_nothing", graph, [model([2], {"op": "add"})], [FIRST + ": add needs \"of\""]),
    ("multiply_nothing", graph, [model([2], {"op": "multiply", "name": "m"})], [FIRST + ": multiply needs \"of\""]),
    ("add_other_size", graph, [model([2, 3], named("a"), {"op": "transpose"}, {"op": "add", "of": ["a"]})],
     [THIRD + ".of: entry 0 has shape [2, 3], which does not go with [3, 2]"]),
    ("add_other_rank", graph, [model([2, 3], named("a"), {"op": "flatten"}, {"op": "add", "of": ["a"]})],
     [THIRD + ".of: entry 0 has shape [2, 3], which does not go with [6]"]),
    ("multiply_grows_beyond_bound", graph,
     [model([1, 2**14], named("a"), {"op": "transpose"}, {"op": "multiply", "of": ["a"]})],
     [THIRD, "a row of shape [16384, 16384] exceeds"]),
    ("add_value_text", graph, [model([2], {"op": "add", "value": "1"})], [FIRST + ".value: expected a number"]),
    ("add_tensor_other_size", graph, [model([2, 3], {"op": "add", "name": "b"}, tensors={"b.weight": numbers(2)})],
     ["tensor 'b.weight': axis 0 does not go with rows of [2, 3]"]),
    ("add_tensor_of_more_axes", graph, [model([3], {"op": "add", "name": "b"}, tensors={"b.weight": numbers(1, 3)})],
     ["tensor 'b.weight' has 2 axes, the rows have 1"]),
    ("concat_nothing", graph, [model([2], {"op": "concat"})], [FIRST + ".of: missing"]),
    ("concat_scalar", graph, [model([1], {"op": "sum", "axis": 0, "result": "a"}, {"op": "concat", "of": ["a"]})],
     [SECOND + ".axis: concat needs at least one axis"]),
    ("concat_axis", graph, [model([2], named("a"), {"op": "concat", "of": ["a"], "axis": 1})],
     [SECOND + ".axis: expected an integer from -1 to 0"]),
    ("concat_other_size", graph, [model([2, 3], named("a"), {"op": "transpose"}, {"op": "concat", "of": ["a"]})],
     [THIRD + ".of: entry 0 has shape [2, 3], which cannot follow [3, 2] along axis 0"]),
    ("concat_other_rank", graph, [model([2, 3], named("a"), {"op": "flatten"}, {"op": "concat", "of": ["a"]})],
     [THIRD + ".of: entry 0 has shape [2, 3], which cannot follow [6]"]),
]

CASES = NAMES + JOINS
