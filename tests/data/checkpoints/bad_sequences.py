"""Bad checkpoints of format 2: the ops of sequences, and layers that route positions. A case is
(name, base, edits, what the error must hold)."""

from checkpoint import drop, layers, put, tensor
from good import encoder, numbers

FIRST = "config.json: layers[0]"
MOE = "layers.6.layers.0"
AT_MOE = "config.json: layers[6].layers[0]"


def model(shape, op, tensors=None, **options):
    """A model of one layer."""
    return layers(shape, {"op": op, "name": "l", **options}, tensors=tensors, version=2)


def scalar(op, tensors=None, **options):
    """The layer after one that leaves a row without axes."""
    return layers([1], {"op": "sum", "axis": 0}, {"op": op, "name": "l", **options}, tensors=tensors, version=2)


ATTENTION = {"l.in_proj_weight": numbers(12, 4), "l.out_proj.weight": numbers(4, 4)}

OPS = [
    ("attention_heads_missing", encoder, [drop("layers.5.layers.0.heads")],
     ["config.json: layers[5].layers[0].heads: missing"]),
    ("attention_heads_zero", encoder, [put("layers.5.layers.0.heads", 0)],
     ["config.json: layers[5].layers[0].heads: expected"]),
    ("attention_heads_text", encoder, [put("layers.5.layers.0.heads", "2")],
     ["config.json: layers[5].layers[0].heads: expected"]),
    ("attention_heads_do_not_divide", encoder, [model([3, 4], "attention", ATTENTION, heads=3)], [FIRST + ".heads: 3 does not divide"]),
    ("attention_heads_over_size", encoder, [put("layers.5.layers.0.heads", 4)],
     ["config.json: layers[5].layers[0].heads: "]),
    ("attention_of_vector", encoder, [model([4], "attention", ATTENTION, heads=2)], [FIRST + ": attention works on rows of [positions, size]"]),
    ("attention_of_rank_3", encoder, [model([2, 3, 4], "attention", ATTENTION, heads=2)],
     [FIRST + ": attention works on rows of [positions, size]"]),
    ("attention_in_proj_missing", encoder, [tensor("attention.in_proj_weight", None)],
     ["safetensors: tensor 'attention.in_proj_weight' is missing"]),
    ("attention_in_proj_of_two", encoder, [tensor("attention.in_proj_weight", numbers(4, 2))],
     ["safetensors: tensor 'attention.in_proj_weight' has shape [4, 2], expected [6, 2]"]),
    ("attention_in_proj_bias_length", encoder, [tensor("attention.in_proj_bias", numbers(2))],
     ["safetensors: tensor 'attention.in_proj_bias' has shape [2], expected [6]"]),
    ("attention_out_proj_missing", encoder, [tensor("attention.out_proj.weight", None)],
     ["safetensors: tensor 'attention.out_proj.weight' is missing"]),
    ("attention_out_proj_not_square", encoder, [tensor("attention.out_proj.weight", numbers(3, 2))],
     ["safetensors: tensor 'attention.out_proj.weight' has shape [3, 2], expected [2, 2]"]),
    ("attention_bias_k", encoder, [tensor("attention.bias_k", numbers(2))],
     ["safetensors: tensor 'attention.bias_k' is used by no layer"]),
    ("attention_without_name", encoder, [drop("layers.5.layers.0.name")], ["config.json: ", "'attention'", "name"]),
    ("class_token_of_vector", encoder, [model([4], "class_token", {"l.weight": numbers(4)})],
     [FIRST + ": class_token works on rows of [positions, size]"]),
    ("class_token_of_rank_3", encoder, [model([2, 2, 4], "class_token", {"l.weight": numbers(4)})],
     [FIRST + ": class_token works on rows of [positions, size]"]),
    ("class_token_length", encoder, [tensor("token.weight", numbers(3))],
     ["safetensors: tensor 'token.weight' has shape [3], expected [2]"]),
    ("class_token_rank_3", encoder, [tensor("token.weight", numbers(1, 1, 2))],
     ["safetensors: tensor 'token.weight' has shape [1, 1, 2], expected [2]"]),
    ("position_embedding_without_token", encoder, [tensor("positions.weight", numbers(4, 2))],
     ["safetensors: tensor 'positions.weight' has shape [4, 2], expected [5, 2]"]),
    ("position_embedding_missing", encoder, [tensor("positions.weight", None)],
     ["safetensors: tensor 'positions.weight' is missing"]),
    ("glu_activation_unknown", encoder, [put(MOE + ".shared.layers.0.activation", "tanh")],
     [AT_MOE + ".shared.layers[0].activation: 'tanh'", "silu"]),
    ("glu_activation_number", encoder, [put(MOE + ".shared.layers.0.activation", 1)],
     [AT_MOE + ".shared.layers[0].activation: "]),
    ("glu_without_up", encoder, [tensor("moe.shared.fc.up.weight", None)],
     ["safetensors: tensor 'moe.shared.fc.up.weight' is missing"]),
    ("glu_up_of_other_output", encoder, [tensor("moe.shared.fc.up.weight", numbers(3, 2))],
     ["safetensors: tensor 'moe.shared.fc.up.weight' has shape [3, 2], expected [2, 2]"]),
    ("glu_gate_of_other_width", encoder, [tensor("moe.shared.fc.gate.weight", numbers(2, 3))],
     ["safetensors: tensor 'moe.shared.fc.gate.weight' has shape [2, 3], expected [2, 2]"]),
    ("glu_bias_length", encoder, [tensor("moe.shared.fc.up.bias", numbers(3)),
                                  tensor("moe.shared.fc.gate.bias", numbers(2))],
     ["safetensors: tensor 'moe.shared.fc.up.bias' has shape [3], expected [2]"]),
    ("glu_with_weight", encoder, [tensor("moe.shared.fc.weight", numbers(2, 2))],
     ["safetensors: tensor 'moe.shared.fc.weight' is used by no layer"]),
    ("glu_of_scalar", encoder, [scalar("glu", {"l.gate.weight": [[1.0]], "l.up.weight": [[1.0]]})],
     ["config.json: layers[1]"]),
    ("select_index_missing", encoder, [drop("layers.7.index")], ["config.json: layers[7].index: missing"]),
    ("select_index_beyond", encoder, [put("layers.7.index", 5)], ["config.json: layers[7].index: expected", "4"]),
    ("select_index_negative", encoder, [put("layers.7.index", -1)], ["config.json: layers[7].index: expected"]),
    ("select_index_huge", encoder, [put("layers.7.index", 2**62)], ["config.json: layers[7].index: expected"]),
    ("select_index_fraction", encoder, [put("layers.7.index", 0.0)], ["config.json: layers[7].index: expected"]),
    ("select_index_beyond_axis_1", encoder, [put("layers.7.axis", 1), put("layers.7.index", 2)],
     ["config.json: layers[7].index: expected", "1"]),
    ("select_axis_beyond", encoder, [put("layers.7.axis", 2)], ["config.json: layers[7].axis: expected", "-2 to 1"]),
    ("select_axis_before_first", encoder, [put("layers.7.axis", -3)], ["config.json: layers[7].axis: expected"]),
    ("select_of_scalar", encoder, [scalar("select", index=0)], ["config.json: layers[1]"]),
    ("transpose_of_vector", encoder, [layers([4], {"op": "transpose"}, version=2)],
     [FIRST + ": transpose needs at least two axes"]),
    ("transpose_of_scalar", encoder, [layers([1], {"op": "sum", "axis": 0}, {"op": "transpose"}, version=2)],
     ["config.json: layers[1]"]),
    ("transpose_with_axes", encoder, [put("layers.2.axes", [0, 1])], ["config.json: layers[2]: unknown key 'axes'"]),
]

POSITIONS = [
    ("route_unknown", encoder, [put(MOE + ".route", "tokens")], [AT_MOE + ".route: 'tokens'", "positions"]),
    ("route_flag", encoder, [put(MOE + ".route", True)], [AT_MOE + ".route: "]),
    ("route_of_scalar", encoder, [layers(
        [1], {"op": "sum", "axis": 0},
        {"op": "moe", "name": "m", "route": "positions", "gate": {"layers": [{"op": "reshape", "shape": [1]}]},
         "experts": {"count": 1, "layers": [{"op": "relu"}]}}, version=2)], ["config.json: layers[1].route: "]),
    ("route_of_vector", encoder, [layers(
        [4], {"op": "moe", "name": "m", "route": "positions", "gate": {"layers": [{"op": "relu"}]},
              "experts": {"count": 4, "layers": [{"op": "relu"}]}}, version=2)], [FIRST + ".route: "]),
    ("route_with_expert_inputs", encoder, [put(MOE + ".experts.inputs", [0, 0, 1, 1])], [AT_MOE + ".experts.inputs"]),
    ("route_with_gates", encoder, [drop(MOE + ".gate"), put(MOE + ".gates", [
        {"name": "a", "layers": [{"op": "linear", "name": "out"}]}])], [AT_MOE + ".gates: "]),
    ("route_to_seven_axes", encoder, [layers(
        [1, 1, 1, 1, 1, 2],
        {"op": "moe", "name": "m", "route": "positions",
         "gate": {"layers": [{"op": "relu"}]},
         "experts": {"count": 2, "layers": [{"op": "reshape", "shape": [1, 2]}]}}, version=2)], [FIRST]),
    ("route_experts_of_the_whole_row", encoder, [put(MOE + ".experts.layers.0", {"op": "transpose"})],
     [AT_MOE + ".experts.layers[0]: transpose needs at least two axes"]),
    ("route_gate_of_the_whole_row", encoder, [tensor("moe.gate.out.weight", numbers(4, 10))],
     ["safetensors: tensor 'moe.gate.out.weight' has shape [4, 10], expected [4, 2]"]),
    ("shared_text", encoder, [put(MOE + ".shared", "fc")], [AT_MOE + ".shared: expected an object"]),
    ("shared_without_layers", encoder, [drop(MOE + ".shared.layers")], [AT_MOE + ".shared.layers: missing"]),
    ("shared_layers_empty", encoder, [put(MOE + ".shared.layers", [])], [AT_MOE + ".shared.layers: expected a list"]),
    ("shared_unknown_key", encoder, [put(MOE + ".shared.count", 2)], [AT_MOE + ".shared: unknown key 'count'"]),
    ("shared_gate_unknown", encoder, [put(MOE + ".shared.gate", "softmax")],
     [AT_MOE + ".shared.gate: 'softmax'", "sigmoid"]),
    ("shared_gate_object", encoder, [put(MOE + ".shared.gate", {"layers": []})], [AT_MOE + ".shared.gate: "]),
    ("shared_gate_missing", encoder, [tensor("moe.shared_gate.weight", None)],
     ["safetensors: tensor 'moe.shared_gate.weight' is missing"]),
    ("shared_gate_of_other_width", encoder, [tensor("moe.shared_gate.weight", numbers(1, 10))],
     ["safetensors: tensor 'moe.shared_gate.weight' has shape [1, 10], expected [1, 2]"]),
    ("shared_gate_of_two", encoder, [tensor("moe.shared_gate.weight", numbers(2, 2))],
     ["safetensors: tensor 'moe.shared_gate.weight' has shape [2, 2], expected [1, 2]"]),
    ("shared_gate_of_none", encoder, [drop(MOE + ".shared.gate")],
     ["safetensors: tensor 'moe.shared_gate.weight' is used by no layer"]),
    ("shared_gate_with_bias", encoder, [tensor("moe.shared_gate.bias", numbers(1))],
     ["safetensors: tensor 'moe.shared_gate.bias' is used by no layer"]),
    ("shared_of_other_output", encoder, [tensor("moe.shared.fc.gate.weight", numbers(3, 2)),
                                         tensor("moe.shared.fc.up.weight", numbers(3, 2))],
     [AT_MOE + ".shared.layers: give [3]", "[2]"]),
    ("shared_with_moe", encoder, [put(MOE + ".shared.layers", [
        {"op": "moe", "name": "m", "gate": {"layers": [{"op": "relu"}]},
         "experts": {"count": 2, "layers": [{"op": "relu"}]}}])], [AT_MOE + ".shared.layers[0]: ", "MoE"]),
]

CASES = OPS + POSITIONS
