"""Bad checkpoints of format 3: options and tensors of functions, norms, slices and pools. A case is
(name, base, edits, what the error must hold)."""

from checkpoint import layers
from good import graph, numbers

FIRST = "config.json: layers[0]"


def model(shape, op, tensors=None, version=3, **options):
    """A model of one layer."""
    return layers(shape, {"op": op, "name": "l", **options}, tensors=tensors, version=version)


def scalar(op, **options):
    """The layer after one that leaves a row without axes."""
    return layers([1], {"op": "sum", "axis": 0}, {"op": op, "name": "l", **options}, version=3)


def bad(name, edit, *parts):
    return name, graph, [edit], list(parts)


NEW = ("leaky_relu", "elu", "prelu", "softplus", "mish", "hardswish", "hardsigmoid", "relu2", "relu6", "clamp", "exp",
       "log", "sqrt", "log_softmax", "group_norm", "l2_normalize", "max", "slice", "adaptive_avg_pool2d", "multiply",
       "divide", "concat")

CASES = [bad(f"{op}_in_format_2", model([2], op, version=2), f"{FIRST}.op: '{op}' needs \"format_version\": 3")
         for op in NEW] + [
    bad("leaky_relu_slope_text", model([2], "leaky_relu", slope="0.1"), FIRST + ".slope: expected a number"),
    bad("leaky_relu_negative_slope", model([2], "leaky_relu", negative_slope=0.1), FIRST + ": unknown key 'negative_slope'"),
    bad("elu_alpha_infinite", model([2], "elu", alpha=1e39), FIRST + ".alpha: expected a number that f32 can hold"),
    bad("softplus_beta_zero", model([2], "softplus", beta=0), FIRST + ".beta: expected a number above 0"),
    bad("softplus_beta_below_f32", model([2], "softplus", beta=1e-60), FIRST + ".beta: expected a number above 0"),
    bad("clamp_without_bounds", model([2], "clamp"), FIRST + ": clamp needs \"min\" or \"max\""),
    bad("clamp_crossed", model([2], "clamp", min=2, max=1), FIRST + ".min: is larger than \"max\""),
    bad("prelu_other_size", model([3, 2], "prelu", {"l.weight": numbers(2)}), "tensor 'l.weight' has shape [2], expected [3]"),
    bad("prelu_without_tensor", model([3], "prelu"), "tensor 'l.weight' is missing"),
    bad("prelu_of_scalar", scalar("prelu"), "config.json: layers[1]: prelu needs at least one axis"),
    bad("log_softmax_of_scalar", scalar("log_softmax"), "config.json: layers[1]: log_softmax needs at least one axis"),
    bad("group_norm_groups_missing", model([4], "group_norm"), FIRST + ".groups: missing"),
    bad("group_norm_groups_do_not_divide", model([4], "group_norm", groups=3), FIRST + ".groups: 4 channels", "3 equal groups"),
    bad("group_norm_groups_over_channels", model([4], "group_norm", groups=5), FIRST + ".groups: expected an integer from 1 to 4"),
    bad("group_norm_weight_size", model([4, 2], "group_norm", {"l.weight": numbers(2)}, groups=2),
        "tensor 'l.weight' has shape [2], expected [4]"),
    bad("group_norm_eps_negative", model([4], "group_norm", groups=1, eps=-1), FIRST + ".eps: expected"),
    bad("group_norm_of_scalar", scalar("group_norm", groups=1), "config.json: layers[1]: group_norm needs"),
    bad("l2_normalize_axis", model([4], "l2_normalize", axis=1), FIRST + ".axis: expected an integer from -1 to 0"),
    bad("l2_normalize_eps_zero", model([4], "l2_normalize", eps=0), FIRST + ".eps: expected a number above 0"),
    bad("l2_normalize_eps_below_f32", model([4], "l2_normalize", eps=1e-60), FIRST + ".eps: expected a number above 0"),
    bad("l2_normalize_of_scalar", scalar("l2_normalize"), "config.json: layers[1].axis: l2_normalize needs"),
    bad("max_axis_missing", model([4], "max"), FIRST + ".axis: missing"),
    bad("slice_axis", model([4], "slice", axis=-2), FIRST + ".axis: expected an integer from -1 to 0"),
    bad("slice_start_at_end", model([4], "slice", start=4), FIRST + ".start: expected an integer from 0 to 3"),
    bad("slice_start_negative", model([4], "slice", start=-1), FIRST + ".start: expected an integer from 0 to 3"),
    bad("slice_empty", model([4], "slice", start=2, end=2), FIRST + ".end: expected an integer from 3 to 4"),
    bad("slice_end_beyond", model([4], "slice", end=5), FIRST + ".end: expected an integer from 1 to 4"),
    bad("slice_of_scalar", scalar("slice"), "config.json: layers[1].axis: slice needs"),
    bad("adaptive_avg_pool2d_of_vector", model([4], "adaptive_avg_pool2d", size=[1, 1]),
        FIRST + ": adaptive_avg_pool2d needs rows of 3 axes, got shape [4]"),
    bad("adaptive_avg_pool2d_without_size", model([1, 4, 4], "adaptive_avg_pool2d"), FIRST + ".size: expected a list"),
    bad("adaptive_avg_pool2d_one_size", model([1, 4, 4], "adaptive_avg_pool2d", size=[2]), FIRST + ".size: expected two sizes"),
    bad("adaptive_avg_pool2d_size_zero", model([1, 4, 4], "adaptive_avg_pool2d", size=[0, 1]), FIRST + ".size: size 0 must"),
    bad("adaptive_avg_pool2d_huge", model([1, 4, 4], "adaptive_avg_pool2d", size=[2**62, 4]), "exceeds"),
]

CONV = {"l.weight": numbers(1, 1, 3, 3)}
CASES += [
    bad("padding_same_in_format_2", model([1, 4, 4], "conv2d", CONV, version=2, padding="same"),
        FIRST + ".padding: needs \"format_version\": 3"),
    bad("padding_same_with_stride", model([1, 4, 4], "conv2d", CONV, padding="same", stride=2),
        FIRST + ".padding: \"same\" goes with stride 1 only"),
    bad("padding_valid", model([1, 4, 4], "conv2d", CONV, padding="valid"), FIRST + ".padding: 'valid' is not one of same"),
]
