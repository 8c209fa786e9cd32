"""Bad checkpoints whose layers are wrong: unknown, misspelt, out of range, or at odds with the shape
of their input or of their tensors. A case is (name, base, edits, what the error must hold)."""

from functools import reduce

from checkpoint import drop, layers, put, tensor
from good import every_op, image, numbers, small

FIRST = "config.json: layers[0]"
ATTENTIVE = "layers.12.gate"


def nested(depth):
    return reduce(lambda inner, _: {"op": "residual", "layers": [inner]}, range(depth), {"op": "relu"})


LISTS = [
    ("layers_missing", small, [drop("layers")], ["config.json: layers: missing"]),
    ("layers_object", small, [put("layers", {})], ["config.json: layers: expected a list"]),
    ("layers_empty", small, [put("layers", [])], ["config.json: layers: expected a list"]),
    ("layer_is_text", small, [put("layers.0", "relu")], [FIRST + ": expected an object"]),
    ("layer_without_op", small, [drop("layers.0.op")], [FIRST + ".op: missing"]),
    ("op_unknown", small, [put("layers.0.op", "lstm")], [FIRST + ".op: unknown op 'lstm'"]),
    ("op_endless", small, [put("layers.0.op", "€" * 2000)], [FIRST + ".op: unknown op '€€€"]),
    ("op_number", small, [put("layers.0.op", 1)], [FIRST + ".op: expected a string"]),
    ("layer_unknown_key", image, [put("layers.2.inplace", True)], ["config.json: layers[2]: unknown key 'inplace'"]),
    ("name_number", small, [put("layers.0.name", 1)], [FIRST + ".name: expected a string"]),
    ("name_with_slash", small, [put("layers.0.name", "a/b")], [FIRST + ".name: "]),
    ("name_with_newline", small, [put("layers.0.name", "moe\n")], [FIRST + ".name: "]),
    ("name_not_ascii", small, [put("layers.0.name", "größe")], [FIRST + ".name: "]),
    ("name_too_long", small, [put("layers.0.name", "m" * 65)], [FIRST + ".name: ", "64"]),
    ("linear_without_name", small, [drop("layers.0.experts.layers.0.name")], ["config.json: ", "'linear'", "name"]),
    ("two_layers_of_one_name", small, [layers([2], *[{"op": "linear", "name": "l"}] * 2,
                                              tensors={"l.weight": numbers(2, 2)})],
     ["tensor 'l.weight'", "two layers"]),
    ("nested_17", small, [layers([4], nested(17))], ["config.json: layers[0].layers[0]", "nested", "16"]),
    ("nested_1000", small, [layers([4], nested(1000))], ["config.json: layers[0].layers[0]", "nested", "16"]),
    ("residual_without_layers", image, [drop("layers.4.layers")], ["config.json: layers[4].layers: missing"]),
    ("residual_other_shape", image, [drop("layers.4.layers.0.padding")],
     ["config.json: layers[4].layers: map [2, 3, 3] to [2, 1, 1]"]),
    ("residual_other_rank", small, [layers([2, 2], {"op": "residual", "layers": [{"op": "flatten"}]})],
     [FIRST + ".layers: map [2, 2] to [4]"]),
]

OPTIONS = [
    ("stride_zero", image, [put("layers.0.stride", 0)], [FIRST + ".stride: expected"]),
    ("stride_huge", image, [put("layers.0.stride", 2**40)], [FIRST + ".stride: expected"]),
    ("stride_list", image, [put("layers.0.stride", [1, 1])], [FIRST + ".stride: expected"]),
    ("padding_negative", image, [put("layers.0.padding", -1)], [FIRST + ".padding: expected"]),
    ("padding_huge", image, [put("layers.0.padding", 2**62)], [FIRST + ".padding: expected"]),
    ("padding_fraction", image, [put("layers.0.padding", 0.5)], [FIRST + ".padding: expected an integer"]),
    ("groups_zero", image, [put("layers.0.groups", 0)], [FIRST + ".groups: expected"]),
    ("groups_odd", image, [put("layers.0.groups", 2)], ["tensor 'stem.weight'", "2 groups"]),
    ("groups_of_odd_input", small, [layers([3, 4, 4], {"op": "conv2d", "name": "c", "groups": 2},
                                           tensors={"c.weight": numbers(2, 1, 1, 1)})], ["tensor 'c.weight'", "2 groups"]),
    ("groups_of_odd_output", small, [layers([2, 4, 4], {"op": "conv2d", "name": "c", "groups": 2},
                                            tensors={"c.weight": numbers(3, 1, 1, 1)})], ["tensor 'c.weight'", "2 groups"]),
    ("kernel_missing", image, [drop("layers.3.kernel")], ["config.json: layers[3].kernel: missing"]),
    ("kernel_zero", image, [put("layers.3.kernel", 0)], ["config.json: layers[3].kernel: expected"]),
    ("kernel_beyond_input", image, [put("layers.3.kernel", 7)], ["config.json: layers[3].kernel: larger", "[2, 6, 6]"]),
    ("kernel_huge", image, [put("layers.3.kernel", 2**63 - 1)], ["config.json: layers[3].kernel: expected"]),
    ("pool_stride_zero", image, [put("layers.3.stride", 0)], ["config.json: layers[3].stride: expected"]),
    ("pool_padding_over_half", image, [put("layers.3.padding", 2)], ["config.json: layers[3].padding: expected", "to 1"]),
    ("pool_padding_negative", image, [put("layers.3.padding", -1)], ["config.json: layers[3].padding: expected"]),
    ("pool_of_vector", small, [layers([4], {"op": "avg_pool2d", "kernel": 1})], [FIRST + ": avg_pool2d", "[4]"]),
    ("conv2d_of_vector", image, [put("input.shape", [36])], [FIRST + ": conv2d", "[36]"]),
    ("conv1d_of_image", image, [put("layers.0.op", "conv1d")], [FIRST + ": conv1d", "[1, 6, 6]"]),
    ("reshape_without_shape", every_op, [drop("layers.4.shape")], ["config.json: layers[4].shape: "]),
    ("reshape_other_size", every_op, [put("layers.4.shape", [4, 24])],
     ["config.json: layers[4].shape: [4, 24]", "[4, 5, 5]"]),
    ("reshape_minus_one", every_op, [put("layers.4.shape", [4, -1])], ["config.json: layers[4].shape: size 1"]),
    ("reshape_overflow", every_op, [put("layers.4.shape", [2**32, 2**32, 100])], ["config.json: layers[4]", "exceeds"]),
    ("reshape_overflow_to_100", every_op, [put("layers.4.shape", [4, 2**62 + 25])], ["config.json: layers[4]", "exceeds"]),
    ("axis_missing", every_op, [drop("layers.9.axis")], ["config.json: layers[9].axis: missing"]),
    ("axis_beyond_rank", every_op, [put("layers.9.axis", 2)], ["config.json: layers[9].axis: expected", "-2 to 1"]),
    ("axis_before_first", every_op, [put("layers.9.axis", -3)], ["config.json: layers[9].axis: expected", "-2 to 1"]),
    ("sum_of_scalar", small, [layers([1], {"op": "sum", "axis": 0}, {"op": "sum", "axis": 0})],
     ["config.json: layers[1].axis: "]),
    ("softmax_of_scalar", small, [layers([1], {"op": "sum", "axis": 0}, {"op": "softmax"})], ["config.json: layers[1]"]),
    ("linear_of_scalar", small, [layers([1], {"op": "sum", "axis": 0}, {"op": "linear", "name": "l"},
                                        tensors={"l.weight": [[1.0]]})], ["config.json: layers[1]"]),
    ("layer_norm_of_scalar", small, [layers([1], {"op": "sum", "axis": 0}, {"op": "layer_norm", "name": "l"},
                                            tensors={"l.weight": [1.0]})], ["config.json: layers[1]: layer_norm", "axis"]),
    ("batch_norm_of_scalar", small, [layers([1], {"op": "sum", "axis": 0}, {"op": "batch_norm", "name": "b"},
                                            tensors={"b.running_var": [1.0], "b.running_mean": [1.0]})],
     ["config.json: layers[1]"]),
    ("eps_negative", every_op, [put("layers.6.eps", -1e-5)], ["config.json: layers[6].eps: "]),
    ("scale_without_value", every_op, [drop("layers.2.value")], ["config.json: layers[2].value: missing"]),
    ("scale_value_null", every_op, [put("layers.2.value", None)], ["config.json: layers[2].value: expected a number"]),
    ("gelu_unknown", every_op, [put("layers.7.approximate", True)], ["config.json: layers[7].approximate: "]),
    ("key_layer_missing", every_op, [drop(ATTENTIVE + ".key_layer")], ["config.json: layers[12].gate.key_layer: missing"]),
    ("key_layer_unknown", every_op, [put(ATTENTIVE + ".key_layer", "keys")],
     ["config.json: layers[12].gate.key_layer: no expert layer is called 'keys'"]),
    ("key_layer_unnamed", every_op, [put(ATTENTIVE + ".key_layer", "")],
     ["config.json: layers[12].gate.key_layer: no expert layer is called ''"]),
    ("key_layer_other_size", every_op, [put(ATTENTIVE + ".key_layer", "out")],
     ["config.json: layers[12].gate.key_layer: expert 0's 'out' gives 4 numbers", "5"]),
    ("key_layer_of_plain_gate", every_op, [drop(ATTENTIVE + ".kind")], ["config.json: layers[12].gate"]),
]

# Activations and workspaces that the weights do not bound: one pixel, padded to 8193 x 8193.
SIZES = [
    ("activation_too_large", small, [layers([1, 1, 1], {"op": "conv2d", "name": "c", "padding": 4096},
                                            tensors={"c.weight": [[[[1.0]]]]})], [FIRST, "exceeds"]),
    ("workspace_too_large", small, [layers([1, 1, 1], {"op": "conv2d", "name": "c", "padding": 4000},
                                           tensors={"c.weight": [[[[1.0]]]]})], [FIRST, "workspace"]),
]

TENSORS = [
    ("tensor_missing", small, [tensor("moe.experts.1.fc.weight", None)], ["safetensors: tensor 'moe.experts.1.fc.weight' is missing"]),
    ("tensor_unused", small, [tensor("moe.experts.2.fc.weight", numbers(3, 4))],
     ["safetensors: tensor 'moe.experts.2.fc.weight' is used by no layer"]),
    ("tensor_with_empty_name", small, [tensor("", [1.0])], ["safetensors: tensor '' is used by no layer"]),
    ("linear_other_width", small, [tensor("moe.experts.0.fc.weight", numbers(3, 5))],
     ["safetensors: tensor 'moe.experts.0.fc.weight' has shape [3, 5], expected [3, 4]"]),
    ("linear_rank_1", small, [tensor("moe.gate.out.weight", numbers(8))], ["safetensors: tensor 'moe.gate.out.weight' has shape [8]"]),
    ("linear_rank_0", small, [tensor("moe.gate.out.weight", 1.0)], ["safetensors: tensor 'moe.gate.out.weight' has shape []"]),
    ("linear_rank_8", small, [tensor("moe.gate.out.weight", numbers(2, 4, 1, 1, 1, 1, 1, 1))],
     ["tensor 'moe.gate.out.weight' has 8 axes"]),
    ("bias_other_length", small, [tensor("moe.experts.1.fc.bias", numbers(2))],
     ["safetensors: tensor 'moe.experts.1.fc.bias' has shape [2], expected [3]"]),
    ("bias_rank_2", small, [tensor("moe.experts.1.fc.bias", numbers(3, 1))], ["safetensors: tensor 'moe.experts.1.fc.bias' has shape [3, 1]"]),
    ("conv_rank_2", image, [tensor("stem.weight", numbers(2, 9))], ["safetensors: tensor 'stem.weight' has 2 axes, expected 4"]),
    ("conv_other_channels", image, [tensor("mix.weight", numbers(2, 3, 3, 3))], ["tensor 'mix.weight'", "2 input channels"]),
    ("conv_bias_length", image, [tensor("stem.bias", numbers(3))], ["safetensors: tensor 'stem.bias' has shape [3], expected [2]"]),
    ("conv_kernel_beyond_input", image, [tensor("stem.weight", numbers(2, 1, 9, 3))], [FIRST, "kernel", "[1, 6, 6]"]),
    ("batch_norm_length", image, [tensor("norm.running_mean", numbers(3))],
     ["safetensors: tensor 'norm.running_mean' has shape [3], expected [2]"]),
    ("batch_norm_without_mean", image, [tensor("norm.running_mean", None)], ["safetensors: tensor 'norm.running_mean' is missing"]),
    ("batch_norm_negative_var", image, [tensor("norm.running_var", [1, -1])], ["tensor 'norm.running_var': entry 1"]),
    ("batch_norm_nan_var", image, [tensor("norm.running_var", [float("nan"), 1])], ["tensor 'norm.running_var': element 0 of 2 is NaN"]),
    ("layer_norm_width", every_op, [tensor("ln.weight", numbers(7))], ["safetensors: tensor 'ln.weight' has shape [7], expected [8]"]),
    ("layer_norm_rank_3", every_op, [tensor("ln.weight", numbers(1, 3, 8))], ["safetensors: tensor 'ln.weight' has shape [1, 3, 8]"]),
    ("rms_norm_with_bias", every_op, [tensor("rms.bias", numbers(8))], ["safetensors: tensor 'rms.bias' is used by no layer"]),
    ("gate_gives_other_count", small, [tensor("moe.gate.out.weight", numbers(3, 4))],
     ["config.json: layers[0].gate.layers: give [3]", "[2]"]),
    ("select_bias_length", every_op, [tensor("attentive.gate.select_bias", numbers(2))],
     ["safetensors: tensor 'attentive.gate.select_bias' has shape [2], expected [3]"]),
    ("query_not_square", every_op, [tensor("attentive.gate.query.weight", numbers(5, 8))],
     ["safetensors: tensor 'attentive.gate.query.weight' has shape [5, 8], expected [5, 5]"]),
    ("key_missing", every_op, [tensor("attentive.gate.key.weight", None)], ["index.json: tensor 'attentive.gate.key.weight' is missing"]),
    ("query_without_attention", small, [tensor("moe.gate.query.weight", numbers(2, 2))],
     ["safetensors: tensor 'moe.gate.query.weight' is used by no layer"]),
    ("experts_of_other_output", small, [tensor("moe.experts.1.fc.weight", numbers(2, 4)),
                                        tensor("moe.experts.1.fc.bias", numbers(2))],
     ["config.json: layers[0].experts: expert 1 gives [2], expert 0 gives [3]"]),
    ("expert_key_of_other_size", every_op, [tensor("attentive.experts.1.key.weight", numbers(6, 8)),
                                            tensor("attentive.experts.1.out.weight", numbers(4, 6))],
     ["config.json: layers[12].gate.key_layer: expert 1's 'key' gives 6 numbers"]),
]

CASES = LISTS + OPTIONS + SIZES + TENSORS
