"""Cases of single layers: every op with its options, residuals, preprocessing."""

from recipes import (
    batch_norm,
    case,
    conv1d,
    conv2d,
    layer_norm,
    linear,
    op,
    residual,
    rms_norm,
)

# --- dense layers ---------------------------------------------------------------------------------

# Sizes near those of vectors and tiles.
for k, n in ((1, 1), (1, 200), (200, 1), (3, 17), (17, 3), (16, 16), (33, 31), (64, 65), (127, 5)):
    case(f"linear_{k}_to_{n}", [k], linear("fc", k, n), rows=5 + k % 5)
case("linear_without_bias", [13], linear("fc", 13, 7, bias=False))
case("linear_rows_of_rank_2", [3, 5], linear("fc", 5, 9))
case("linear_rows_of_rank_3", [2, 3, 5], linear("fc", 5, 18, bias=False))
case("linear_many_rows", [7], linear("fc", 7, 5), rows=41)
# 400 vectors of 200: more than one group of rows (core/dense/kernel.c).
case("linear_more_than_a_cache_group", [80, 2], linear("a", 2, 200), linear("b", 200, 3), rows=5)
# Enough work for a team to share a batch by rows (core/layers/layer.c).
case(
    "linear_shared_by_rows",
    [24, 3],
    linear("a", 3, 65),
    op("relu"),
    linear("b", 65, 40),
    residual(linear("c", 40, 40), op("tanh")),
    op("mean", axis=0),
    rows=9,
)

# --- convolutions ---------------------------------------------------------------------------------

for stride in (1, 2, 3):
    for padding in (0, 1, 2):
        case(
            f"conv2d_stride_{stride}_padding_{padding}",
            [2, 7, 9],
            conv2d("conv", 2, 3, 3, 3, stride=stride, padding=padding),
            rows=5,
        )
case("conv2d_1x1", [5, 4, 6], conv2d("conv", 5, 13, 1, 1))
case("conv2d_1x1_padded_and_strided", [3, 4, 5], conv2d("conv", 3, 7, 1, 1, padding=2, stride=2))
case("conv2d_oblong_kernel", [2, 6, 8], conv2d("conv", 2, 4, 2, 5, padding=1))
case("conv2d_even_kernel", [2, 8, 6], conv2d("conv", 2, 5, 4, 4, stride=2, padding=1))
case("conv2d_kernel_of_the_image", [3, 5, 4], conv2d("conv", 3, 7, 5, 4))
case("conv2d_without_bias", [3, 5, 5], conv2d("conv", 3, 13, 3, 3, bias=False, padding=1))
case("conv2d_one_channel", [1, 6, 6], conv2d("conv", 1, 1, 3, 3))
case("conv2d_2_groups", [4, 5, 6], conv2d("conv", 4, 6, 3, 3, groups=2, padding=1))
case("conv2d_3_groups_strided", [6, 7, 7], conv2d("conv", 6, 9, 3, 3, groups=3, stride=2))
case("conv2d_depthwise", [7, 5, 5], conv2d("conv", 7, 7, 3, 3, groups=7, padding=1))
case(
    "conv2d_depthwise_strided",
    [3, 7, 6],
    conv2d("conv", 3, 3, 3, 3, groups=3, stride=3, padding=2),
)
case("conv2d_depthwise_twice_as_wide", [3, 4, 4], conv2d("conv", 3, 6, 2, 2, groups=3, bias=False))
case("conv2d_one_pixel", [3, 1, 1], conv2d("a", 3, 7, 1, 1), conv2d("b", 7, 2, 3, 3, padding=1))
case("conv2d_2x2_image", [2, 2, 2], conv2d("conv", 2, 13, 3, 3, padding=1))
case("conv2d_wide_image", [1, 2, 70], conv2d("conv", 1, 3, 2, 3, padding=1), rows=5)
case("conv2d_tall_image", [2, 41, 1], conv2d("conv", 2, 3, 3, 1), rows=5)
case(
    "conv2d_shared_by_rows",
    [1, 14, 13],
    conv2d("a", 1, 8, 3, 3, padding=1),
    op("relu"),
    residual(conv2d("b", 8, 8, 3, 3, padding=1), batch_norm("norm", 8)),
    conv2d("c", 8, 12, 3, 3, stride=2, groups=4),
    op("max_pool2d", kernel=2),
    op("flatten"),
    rows=8,
)
case("conv1d", [3, 11], conv1d("conv", 3, 7, 3, padding=1))
case("conv1d_stride_2", [2, 12], conv1d("conv", 2, 13, 4, stride=2, padding=1))
case("conv1d_stride_3_padding_2", [2, 10], conv1d("conv", 2, 3, 5, stride=3, padding=2))
case("conv1d_1x1", [4, 5], conv1d("conv", 4, 1, 1, bias=False))
case("conv1d_groups", [4, 9], conv1d("conv", 4, 6, 3, groups=2))
case("conv1d_depthwise", [5, 9], conv1d("conv", 5, 5, 3, groups=5, padding=2))
case("conv1d_short", [2, 2], conv1d("conv", 2, 3, 2))
case("conv1d_long", [1, 150], conv1d("conv", 1, 2, 7, padding=2), rows=5)

# --- pools ----------------------------------------------------------------------------------------

for pool in ("max_pool2d", "avg_pool2d"):
    for name, shape, options in (
        ("", [2, 6, 8], {"kernel": 2}),
        ("_overlapping", [2, 5, 7], {"kernel": 2, "stride": 1}),
        ("_padded", [3, 7, 9], {"kernel": 3, "stride": 2, "padding": 1}),
        ("_same_size", [1, 5, 21], {"kernel": 3, "stride": 1, "padding": 1}),
        ("_with_rest", [2, 7, 8], {"kernel": 3}),
        ("_with_gaps", [2, 7, 9], {"kernel": 2, "stride": 3}),
        ("_much_padding", [2, 5, 6], {"kernel": 5, "stride": 4, "padding": 2}),
        ("_kernel_1", [3, 3, 4], {"kernel": 1, "stride": 2}),
        ("_whole_image", [4, 5, 5], {"kernel": 5}),
    ):
        case(pool + name, shape, op(pool, **options))

# --- norms ----------------------------------------------------------------------------------------

case("batch_norm_rank_1", [13], batch_norm("norm", 13))
case("batch_norm_rank_2", [5, 4], batch_norm("norm", 5))
case("batch_norm_rank_3", [3, 4, 5], batch_norm("norm", 3, eps=0.125))
case("batch_norm_not_affine", [3, 2, 3], batch_norm("norm", 3, weight=None, bias=None))
case("batch_norm_rank_1_not_affine", [7], batch_norm("norm", 7, weight=None, bias=None, eps=1e-3))
case("batch_norm_weight_only", [4, 3], batch_norm("norm", 4, bias=None))
case("layer_norm", [13], layer_norm("norm", 13))
case("layer_norm_1_of_3_axes", [2, 3, 7], layer_norm("norm", 7, eps=0.25))
case("layer_norm_2_of_3_axes", [2, 3, 5], layer_norm("norm", 3, 5))
case("layer_norm_all_axes", [2, 3, 2], layer_norm("norm", 2, 3, 2, bias=False))
case(
    "layer_norm_far_from_zero",
    [19],
    layer_norm("norm", 19),
    inputs=lambda random, shape: random.uniform(1000.0, 1001.0, shape),
)
case("rms_norm", [17], rms_norm("norm", 17))
case("rms_norm_1_of_2_axes", [3, 5], rms_norm("norm", 5, eps=0.5))
case("rms_norm_2_of_3_axes", [2, 3, 4], rms_norm("norm", 3, 4, eps=1e-3))

# --- element-wise, softmax and axes ---------------------------------------------------------------


def over_the_curve(random, shape):
    return random.uniform(-6.0, 6.0, shape)


def extreme(random, shape):
    return random.choice([-1e4, -95.0, -1e-30, 0.0, 1e-30, 95.0, 1e4], shape)


for name in ("relu", "gelu", "silu", "tanh", "sigmoid", "cube", "softmax"):
    case(name, [19], op(name), inputs=over_the_curve)
    case(f"{name}_extreme", [11], op(name), inputs=extreme)
case("gelu_exact", [3, 7], op("gelu", approximate="none"), inputs=over_the_curve)
case("gelu_tanh", [21], op("gelu", approximate="tanh"), inputs=over_the_curve)
case("gelu_tanh_extreme", [11], op("gelu", approximate="tanh"), inputs=extreme)
case("scale", [2, 9], op("scale", value=-0.37))
case("softmax_last_of_3_axes", [2, 3, 5], op("softmax"))
case("softmax_of_one", [4, 1], op("softmax"))
# In the buffers between layers, in place.
case(
    "element_wise_in_a_row",
    [9],
    op("tanh"),
    op("scale", value=2),
    op("silu"),
    op("cube"),
    op("sigmoid"),
    op("gelu"),
    op("relu"),
    op("softmax"),
)
case("flatten", [2, 3, 4], op("flatten"), linear("fc", 24, 3))
case("reshape", [2, 3, 4], op("reshape", shape=[4, 6]), linear("fc", 6, 2))
case("reshape_to_6_axes", [12], op("reshape", shape=[1, 2, 1, 3, 1, 2]), linear("fc", 2, 3))
for name in ("sum", "mean"):
    for axis in (0, 1, 2, -1, -2, -3):
        case(f"{name}_axis_{axis}", [3, 4, 5], op(name, axis=axis), rows=5)
    case(f"{name}_to_a_single_number", [6], op(name, axis=0))

# --- residuals and preprocessing ------------------------------------------------------------------

case("residual", [7], residual(linear("fc", 7, 7), op("relu")))
case("residual_of_one_element_wise", [5, 3], residual(op("tanh")))
case(
    "residual_nested",
    [2, 6],
    linear("a", 6, 9),
    residual(
        layer_norm("norm", 9),
        residual(
            linear("b", 9, 9),
            op("gelu"),
            residual(op("scale", value=0.5), linear("c", 9, 9)),
        ),
        linear("d", 9, 9),
    ),
    linear("e", 9, 4),
)
case(
    "residual_of_convolutions",
    [3, 5, 6],
    residual(conv2d("a", 3, 7, 3, 3, padding=1), op("relu"), conv2d("b", 7, 3, 3, 3, padding=1)),
    op("avg_pool2d", kernel=2),
)


def pixels(random, shape):
    return random.randint(0, 256, shape)


case(
    "preprocess_per_channel",
    [3, 4, 5],
    op("flatten"),
    linear("fc", 60, 7),
    preprocess={"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    inputs=pixels,
)
case(
    "preprocess_all_channels_alike",
    [2, 3, 3],
    op("relu"),
    preprocess={"scale": 1 / 255, "mean": [0.2859], "std": [0.353]},
    inputs=pixels,
)
case("preprocess_scale_only", [7], op("tanh"), preprocess={"scale": 0.25})
case("preprocess_mean_only", [3], op("cube"), preprocess={"mean": [1.0, -0.5, 0.25]})
case("preprocess_std_only", [3, 2], linear("fc", 2, 5), preprocess={"std": [0.5]})
