"""Cases of single layers of format 3: functions, norms, slices and pools."""

from recipes import case_3, conv1d, conv2d, group_norm, linear, op, prelu


def over_the_curve(random, shape):
    return random.uniform(-6.0, 6.0, shape)


def around_the_bend(random, shape):
    return random.uniform(-30.0, 30.0, shape)


def extreme(random, shape):
    return random.choice([-1e4, -95.0, -3.0, -1e-30, 0.0, 1e-30, 3.0, 95.0, 1e4], shape)


def positive(random, shape):
    return random.uniform(0.01, 9.0, shape)


for name in ("leaky_relu", "elu", "softplus", "mish", "hardswish", "hardsigmoid", "relu2", "relu6"):
    case_3(name, [19], op(name), inputs=over_the_curve)
    case_3(f"{name}_extreme", [11], op(name), inputs=extreme)
case_3("log_softmax", [19], op("log_softmax"), inputs=over_the_curve)
case_3("log_softmax_extreme", [2, 11], op("log_softmax"), inputs=extreme)
case_3("leaky_relu_slope", [2, 9], op("leaky_relu", slope=-0.25), inputs=over_the_curve)
case_3("elu_alpha", [2, 9], op("elu", alpha=1.75), inputs=over_the_curve)
case_3("softplus_beta", [17], op("softplus", beta=0.5, threshold=4), inputs=around_the_bend)
case_3("clamp_both", [13], op("clamp", min=-1.5, max=2), inputs=over_the_curve)
case_3("clamp_min", [13], op("clamp", min=-1.5), inputs=extreme)
case_3("clamp_max", [13], op("clamp", max=0.25), inputs=extreme)
case_3("exp", [13], op("exp"))
case_3("log", [13], op("log"), inputs=positive)
case_3("sqrt", [13], op("sqrt"), inputs=positive)
case_3("prelu_one_slope", [3, 5], prelu("act", 1), inputs=over_the_curve)
case_3("prelu_per_channel", [3, 4, 5], prelu("act", 3), inputs=over_the_curve)
case_3("prelu_of_vectors", [7], prelu("act", 7), inputs=over_the_curve)
# In the buffers between layers, in place.
case_3(
    "functions_in_a_row",
    [6, 3],
    linear("fc", 3, 4),
    op("mish"),
    prelu("act", 6),
    op("hardswish"),
    op("softplus"),
    op("log"),
    op("l2_normalize", axis=0),
    group_norm("norm", 6, 2),
    op("clamp", min=-1, max=1),
    op("log_softmax"),
)

# --- norms ----------------------------------------------------------------------------------------

case_3("group_norm", [6, 4], group_norm("norm", 6, 3))
case_3("group_norm_one_group", [4, 3, 5], group_norm("norm", 4, 1, eps=0.25))
case_3("group_norm_per_channel", [3, 4, 5], group_norm("norm", 3, 3, weight=None, bias=None))
case_3("group_norm_of_vectors", [12], group_norm("norm", 12, 4, bias=None))
case_3(
    "group_norm_far_from_zero",
    [4, 5],
    group_norm("norm", 4, 2),
    inputs=lambda random, shape: random.uniform(1000.0, 1001.0, shape),
)
case_3("l2_normalize", [3, 7], op("l2_normalize"))
case_3("l2_normalize_axis_0", [3, 7], op("l2_normalize", axis=0))
case_3("l2_normalize_axis_1", [2, 3, 4], op("l2_normalize", axis=1, eps=2.5))
case_3(
    "l2_normalize_zeros",
    [5],
    op("l2_normalize"),
    inputs=lambda random, shape: random.randint(0, 2) * random.uniform(-1e15, 1e15, shape),
)

# --- axes and pools -------------------------------------------------------------------------------

for axis in (0, 1, 2, -1, -3):
    case_3(f"max_axis_{axis}", [3, 4, 5], op("max", axis=axis), rows=5)
case_3("slice", [7], op("slice", start=2, end=5))
case_3("slice_from", [2, 7], op("slice", axis=1, start=3))
case_3("slice_to", [5, 2, 3], op("slice", end=4), linear("fc", 3, 2))
case_3("slice_middle_axis", [2, 5, 3], op("slice", axis=-2, start=1, end=4))
for height, width in ((1, 1), (2, 3), (5, 7), (7, 4), (3, 1)):
    case_3(
        f"adaptive_avg_pool2d_{height}x{width}",
        [3, 5, 7],
        op("adaptive_avg_pool2d", size=[height, width]),
    )
case_3(
    "adaptive_avg_pool2d_of_one_pixel",
    [2, 1, 1],
    op("adaptive_avg_pool2d", size=[2, 2]),
    conv2d("conv", 2, 3, 2, 2),
)

# --- convolutions ---------------------------------------------------------------------------------

case_3("conv2d_same", [2, 5, 6], conv2d("conv", 2, 3, 3, 3, padding="same"))
case_3("conv2d_same_even_kernel", [3, 5, 7], conv2d("conv", 3, 14, 4, 2, padding="same"))
case_3("conv2d_same_oblong_depthwise", [3, 4, 8], conv2d("conv", 3, 6, 2, 5, padding="same", groups=3))
case_3("conv1d_same", [2, 9], conv1d("conv", 2, 3, 4, padding="same"))
# Every product of core/layers/conv_product.c, on every kernel; weights beyond a cache: by images.
case_3("conv2d_depthwise_5x5_strided", [5, 9, 11], conv2d("conv", 5, 5, 5, 5, groups=5, stride=2, padding=2))
case_3("conv2d_depthwise_wide", [2, 9, 40], conv2d("conv", 2, 4, 3, 3, groups=2, padding=1), rows=5)
case_3("conv2d_pointwise_many_filters", [21, 4, 16], conv2d("conv", 21, 31, 1, 1), rows=5)
case_3("conv2d_many_filters", [3, 5, 16], conv2d("conv", 3, 29, 3, 3, padding=1), rows=5)
case_3("conv2d_many_filters_strided", [3, 9, 31], conv2d("conv", 3, 29, 3, 3, padding=1, stride=2), rows=5)
case_3("conv2d_many_filters_of_columns", [2, 6, 7], conv2d("conv", 2, 30, 3, 11, padding=5), rows=5)
case_3(
    "conv2d_large_weights",
    [64, 3, 3],
    conv2d("a", 64, 256, 3, 3, padding=1),
    conv2d("b", 256, 3, 3, 3),
    rows=23,
    dtype=lambda name: "BF16",
)
