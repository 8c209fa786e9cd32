"""The cases: small models that between them use every op, option, gate and file layout of format 1.

A layer is written as in config.json, with recipes for its tensors beside its options: functions that
draw one tensor from a random state. generate.py separates the two, once per expert.
"""

from dataclasses import dataclass, field

import numpy as np

# --- recipes -----------------------------------------------------------------------------------------


def uniform(*shape, low=-1.0, high=1.0):
    return lambda random: random.uniform(low, high, shape)


def weights(*shape):
    """Keeps the size of activations: values of variance 1/fan_in."""
    spread = (3.0 / max(1, np.prod(shape[1:]))) ** 0.5
    return uniform(*shape, low=-spread, high=spread)


def fixed(values):
    return lambda random: np.array(values, np.float64)


def times(factor, recipe):
    return lambda random: factor * recipe(random)


# --- layers ------------------------------------------------------------------------------------------


def op(name, **options):
    return {"op": name, **options}


def with_tensors(kind, name, options, tensors):
    present = {suffix: recipe for suffix, recipe in tensors.items() if recipe}
    return {"op": kind, "name": name, **options, "tensors": present}


def linear(name, inputs, outputs, bias=True, weight=None):
    tensors = {"weight": weight or weights(outputs, inputs), "bias": bias and uniform(outputs)}
    return with_tensors("linear", name, {}, tensors)


def conv(kind, name, inputs, outputs, *kernel, bias=True, **options):
    weight = weights(outputs, inputs // options.get("groups", 1), *kernel)
    return with_tensors(kind, name, options, {"weight": weight, "bias": bias and uniform(outputs)})


def conv1d(name, inputs, outputs, kernel, **options):
    return conv("conv1d", name, inputs, outputs, kernel, **options)


def conv2d(name, inputs, outputs, height, width, **options):
    return conv("conv2d", name, inputs, outputs, height, width, **options)


def batch_norm(name, channels, weight=True, bias=True, **options):
    tensors = {
        "weight": weight and uniform(channels),
        "bias": bias and uniform(channels),
        "running_mean": uniform(channels),
        "running_var": uniform(channels, low=0.1, high=3.0),
    }
    return with_tensors("batch_norm", name, options, tensors)


def layer_norm(name, *axes, bias=True, **options):
    tensors = {"weight": uniform(*axes), "bias": bias and uniform(*axes)}
    return with_tensors("layer_norm", name, options, tensors)


def rms_norm(name, *axes, **options):
    return with_tensors("rms_norm", name, options, {"weight": uniform(*axes)})


def residual(*layers):
    return {"op": "residual", "layers": list(layers)}


def gate(*layers, select_bias=None, **options):
    tensors = {"select_bias": select_bias} if select_bias else {}
    return {"layers": list(layers), **options, "tensors": tensors}


def attentive(hidden, key_layer, *layers, **options):
    inner = gate(*layers, kind="attentive", key_layer=key_layer, **options)
    for name in ("query.weight", "key.weight"):
        inner["tensors"][name] = times(2.0, weights(hidden, hidden))
    return inner


def moe(name, chooser, count, *layers):
    experts = {"count": count, "layers": list(layers)}
    return {"op": "moe", "name": name, "gate": chooser, "experts": experts}


# --- cases -------------------------------------------------------------------------------------------


@dataclass
class Case:
    name: str
    shape: list
    layers: list
    rows: int = 7
    inputs: object = lambda random, shape: random.uniform(-2.0, 2.0, shape)  # one row
    preprocess: dict = None
    config: dict = field(default_factory=dict)  # further keys of config.json
    ties: bool = False  # equal scores are the point
    dtype: object = lambda name: "F32"  # of the tensor called so
    metadata: dict = None
    shards: int = 1
    reversed_data: bool = False
    misaligned_by: int = 0  # bytes from where the tensors' data would be aligned


CASES = []


def case(name, shape, *layers, **options):
    CASES.append(Case(name, shape, list(layers), **options))


# --- dense layers ------------------------------------------------------------------------------------

# Sizes around those of vectors and tiles.
for k, n in ((1, 1), (1, 200), (200, 1), (3, 17), (17, 3), (16, 16), (33, 31), (64, 65), (127, 5)):
    case(f"linear_{k}_to_{n}", [k], linear("fc", k, n), rows=5 + k % 5)
case("linear_without_bias", [13], linear("fc", 13, 7, bias=False))
case("linear_rows_of_rank_2", [3, 5], linear("fc", 5, 9))
case("linear_rows_of_rank_3", [2, 3, 5], linear("fc", 5, 18, bias=False))
case("linear_many_rows", [7], linear("fc", 7, 5), rows=41)
# 400 vectors of 200: more than one group of rows (core/kernel.inc.h).
case("linear_more_than_a_cache_group", [80, 2], linear("a", 2, 200), linear("b", 200, 3), rows=5)
# Enough work for a team to share a batch out by rows (core/layer.c).
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

# --- convolutions ------------------------------------------------------------------------------------

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
case("conv2d_depthwise_strided", [3, 7, 6], conv2d("conv", 3, 3, 3, 3, groups=3, stride=3, padding=2))
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

# --- pools -------------------------------------------------------------------------------------------

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

# --- norms -------------------------------------------------------------------------------------------

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

# --- element-wise, softmax and axes ------------------------------------------------------------------


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

# --- residuals and preprocessing ---------------------------------------------------------------------

case("residual", [7], residual(linear("fc", 7, 7), op("relu")))
case("residual_of_one_element_wise", [5, 3], residual(op("tanh")))
case(
    "residual_nested",
    [2, 6],
    linear("a", 6, 9),
    residual(
        layer_norm("norm", 9),
        residual(linear("b", 9, 9), op("gelu"), residual(op("scale", value=0.5), linear("c", 9, 9))),
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

# --- gates -------------------------------------------------------------------------------------------


def plain_expert(width, out=None):
    return linear("fc1", width, 9), op("relu"), linear("fc2", 9, out or width)


def wide(inputs, experts):
    """A gate's linear layer whose logits lie well apart."""
    return linear("out", inputs, experts, weight=times(3.0, weights(experts, inputs)))


for score in ("softmax", "sigmoid", "none"):
    for normalize in ("none", "sum", "softmax"):
        case(
            f"gate_{score}_{normalize}",
            [6],
            *(
                moe(name, gate(wide(6, 5), score=score, normalize=normalize, **k), 5, *plain_expert(6))
                for name, k in (("dense", {}), ("top_1", {"top_k": 1}), ("top_2", {"top_k": 2}))
            ),
        )

for score, normalize, k in (("softmax", "none", 2), ("sigmoid", "sum", 3), ("none", "softmax", 1)):
    case(
        f"gate_select_bias_{score}",
        [6],
        moe(
            "moe",
            gate(
                linear("out", 6, 5),
                score=score,
                normalize=normalize,
                top_k=k,
                scale=2.5,
                select_bias=uniform(5),
            ),
            5,
            *plain_expert(6, 3),
        ),
        rows=9,
    )
case(
    "gate_select_bias_dense",
    [5],
    moe("moe", gate(wide(5, 4), select_bias=uniform(4)), 4, *plain_expert(5, 2)),
)
case("gate_scale", [5], moe("moe", gate(wide(5, 4), top_k=2, scale=-0.75), 4, *plain_expert(5, 2)))
case(
    "gate_of_many_layers",
    [2, 6, 5],
    moe(
        "moe",
        gate(
            conv2d("conv", 2, 3, 3, 3, stride=2),
            batch_norm("norm", 3),
            op("silu"),
            op("flatten"),
            residual(linear("mix", 12, 12), op("gelu")),
            wide(12, 4),
            top_k=2,
            normalize="sum",
        ),
        4,
        op("flatten"),
        linear("out", 60, 3),
    ),
)

# Ties go to the lower index: all logits equal, equal pairs, and scores that float32 cannot tell apart.
twins = fixed([[1, -1, 2], [1, -1, 2], [-2, 1, 0.5], [1, -1, 2], [-2, 1, 0.5]])
for name, options in (
    ("top_1", {"top_k": 1}),
    ("top_3", {"top_k": 3, "normalize": "sum"}),
    ("dense", {"score": "none", "normalize": "softmax"}),
    ("sigmoid", {"top_k": 4, "score": "sigmoid"}),
):
    chooser = gate(linear("out", 3, 5, bias=False, weight=twins), **options)
    case(f"ties_of_twins_{name}", [3], moe("moe", chooser, 5, *plain_expert(3)), ties=True)
nothing = linear("out", 3, 6, bias=False, weight=fixed(np.zeros((6, 3))))
for k in (1, 2, 6):
    chooser = gate(nothing, top_k=k)
    case(f"ties_of_all_top_{k}", [3], moe("moe", chooser, 6, *plain_expert(3)), ties=True)
case(
    "ties_by_select_bias",
    [3],
    moe(
        "moe",
        gate(nothing, score="sigmoid", top_k=4, select_bias=fixed([0, 0.5, -0.5, 0.5, 0.25, 0])),
        6,
        *plain_expert(3),
    ),
    ties=True,
)


def far_apart(inputs, experts):
    """Logits of some 10^4: scores of exactly 0 and 1."""
    apart = times(1e4, weights(experts, inputs))
    return linear("out", inputs, experts, bias=False, weight=apart)


for score, normalize, k in (
    ("softmax", "none", 3),
    ("softmax", "sum", 2),
    ("softmax", "softmax", 2),
    ("sigmoid", "none", 3),
    ("sigmoid", "sum", 2),
    ("none", "softmax", 5),
):
    chooser = gate(far_apart(4, 5), score=score, normalize=normalize, top_k=k)
    case(
        f"extreme_logits_{score}_{normalize}",
        [4],
        moe("moe", chooser, 5, *plain_expert(4)),
        ties=True,
    )
# Every score is 0: shares are equal.
case(
    "extreme_logits_without_any_score",
    [2],
    moe(
        "moe",
        gate(
            linear("out", 2, 3, weight=fixed(-1e4 * np.ones((3, 2)))),
            score="sigmoid",
            normalize="sum",
            top_k=2,
        ),
        3,
        *plain_expert(2),
    ),
    inputs=lambda random, shape: random.uniform(1.0, 2.0, shape),
    ties=True,
)
# Logits beyond float32, clamped to its largest: those of one sign tie.
case(
    "extreme_logits_overflow",
    [2],
    moe(
        "moe",
        gate(
            linear("out", 2, 4, weight=fixed([[3e38, 0], [-3e38, 0], [0, 3e38], [0, 1]])),
            normalize="softmax",
            top_k=2,
        ),
        4,
        *plain_expert(2),
    ),
    inputs=lambda random, shape: random.choice([-9.0, -7.0, -5.0, 5.0, 7.0, 9.0], shape),
    ties=True,
)

# --- attentive gates ---------------------------------------------------------------------------------

for name, options in (
    ("dense", {}),
    ("top_1", {"top_k": 1, "normalize": "softmax"}),
    ("top_2", {"top_k": 2, "normalize": "sum"}),
    ("sigmoid", {"top_k": 3, "score": "sigmoid", "scale": 0.5}),
    ("select_bias", {"top_k": 2, "select_bias": uniform(4)}),
):
    case(
        f"attentive_{name}",
        [6],
        moe(
            "moe",
            attentive(5, "fc1", linear("hidden", 6, 5), op("relu"), **options),
            4,
            linear("fc1", 6, 5),
            op("relu"),
            linear("fc2", 5, 3),
            op("softmax"),
        ),
        rows=9,
    )
case(
    "attentive_convolutional",
    [1, 6, 7],
    moe(
        "moe",
        attentive(
            8,
            "hidden",
            conv2d("conv", 1, 3, 3, 3, stride=2),
            op("relu"),
            op("flatten"),
            linear("hidden", 18, 8),
            top_k=2,
            normalize="sum",
        ),
        3,
        conv2d("conv", 1, 4, 3, 3),
        op("relu"),
        op("max_pool2d", kernel=2),
        op("flatten"),
        linear("hidden", 16, 8),
        op("relu"),
        linear("out", 8, 3),
        op("softmax"),
    ),
)
# The key is a feature map, and there are layers of several axes behind it.
case(
    "attentive_key_of_3_axes",
    [2, 4, 4],
    moe(
        "moe",
        attentive(12, "conv", op("flatten"), linear("hidden", 32, 12), top_k=2),
        3,
        conv2d("conv", 2, 3, 3, 3),
        op("gelu"),
        op("mean", axis=-1),
    ),
)
# Nothing is left to do for the chosen experts.
case(
    "attentive_key_is_the_output",
    [4],
    moe(
        "moe",
        attentive(6, "out", linear("hidden", 4, 6), top_k=2, normalize="softmax"),
        3,
        op("tanh"),
        linear("out", 4, 6),
    ),
)

# --- experts -----------------------------------------------------------------------------------------

case(
    "experts_convolutional",
    [2, 6, 5],
    conv2d("stem", 2, 4, 3, 3, padding=1),
    op("relu"),
    moe(
        "moe",
        gate(op("mean", axis=-1), op("mean", axis=-1), wide(4, 5), top_k=2, normalize="sum"),
        5,
        conv2d("conv", 4, 3, 3, 3, stride=2, padding=1),
        batch_norm("norm", 3),
        op("relu"),
        residual(conv2d("depthwise", 3, 3, 3, 3, padding=1, groups=3)),
    ),
    op("avg_pool2d", kernel=3),
    op("flatten"),
    linear("out", 3, 4),
)
case(
    "experts_ending_in_softmax",
    [8],
    moe(
        "moe",
        gate(wide(8, 5), top_k=2, normalize="sum"),
        5,
        linear("fc1", 8, 16),
        op("relu"),
        linear("out", 16, 10),
        op("softmax"),
    ),
)
case("experts_1", [4], moe("moe", gate(linear("out", 4, 1)), 1, *plain_expert(4, 3)))
case("experts_1_of_1_sigmoid", [4], moe("moe", gate(wide(4, 1), score="sigmoid", top_k=1), 1, op("cube")))
case(
    "experts_64_top_8",
    [7],
    moe(
        "moe",
        gate(linear("out", 7, 64), score="none", normalize="softmax", top_k=8),
        64,
        linear("out", 7, 5, bias=False),
    ),
    rows=9,
)
case(
    "experts_100_top_1",
    [4],
    moe("moe", gate(wide(4, 100), top_k=1, score="none"), 100, linear("fc", 4, 1, bias=False)),
)
case("experts_of_nothing_but_functions", [5], moe("moe", gate(wide(5, 3), top_k=2), 3, op("silu")))
case(
    "experts_of_rank_2",
    [3, 4],
    moe(
        "moe",
        gate(op("flatten"), wide(12, 4), top_k=2),
        4,
        linear("a", 4, 6),
        layer_norm("norm", 3, 6),
        op("reshape", shape=[2, 9]),
    ),
)
case(
    "experts_of_a_single_number",
    [5],
    moe("moe", gate(wide(5, 3), top_k=2), 3, linear("fc", 5, 4), op("sum", axis=0)),
)
case(
    "experts_many_rows",
    [5],
    moe("moe", gate(wide(5, 4), top_k=2, score="sigmoid"), 4, *plain_expert(5, 3)),
    rows=31,
)

# --- several MoE layers, and MoE layers inside residuals ----------------------------------------------

case(
    "moe_twice",
    [6],
    linear("in", 6, 8),
    moe("first", gate(wide(8, 4), top_k=2, normalize="sum"), 4, *plain_expert(8, 7)),
    op("tanh"),
    moe("second", gate(wide(7, 3), score="sigmoid", top_k=1), 3, *plain_expert(7, 5)),
    linear("out", 5, 3),
)
case(
    "moe_in_residuals",
    [6],
    residual(rms_norm("norm.0", 6), moe("moe.0", gate(wide(6, 4), top_k=2), 4, *plain_expert(6))),
    residual(
        layer_norm("norm.1", 6),
        residual(
            op("tanh"),
            moe("moe.1", gate(wide(6, 3), top_k=1, normalize="softmax"), 3, *plain_expert(6)),
            linear("mix", 6, 6),
        ),
    ),
    linear("out", 6, 2),
)
case(
    "moe_between_convolutions",
    [1, 8, 8],
    conv2d("stem", 1, 4, 3, 3, padding=1),
    residual(
        batch_norm("norm", 4),
        moe(
            "moe",
            gate(op("avg_pool2d", kernel=4), op("flatten"), wide(16, 3), top_k=2, normalize="sum"),
            3,
            conv2d("conv", 4, 4, 3, 3, padding=1),
            op("relu"),
        ),
    ),
    conv2d("head", 4, 5, 3, 3, stride=3),
    op("flatten"),
    op("softmax"),
)
# Gate and experts with enough work for a team to share out both by rows and by expert.
case(
    "moe_shared_by_rows_and_experts",
    [1, 16, 16],
    moe(
        "moe",
        gate(
            conv2d("a", 1, 8, 5, 5),
            conv2d("b", 8, 4, 3, 3),
            op("mean", axis=-1),
            op("mean", axis=-1),
            wide(4, 4),
            score="none",
            normalize="softmax",
            top_k=2,
        ),
        4,
        conv2d("a", 1, 8, 3, 3, padding=1),
        op("relu"),
        conv2d("b", 8, 5, 3, 3, stride=2),
        op("mean", axis=-1),
    ),
    rows=9,
)

# --- files -------------------------------------------------------------------------------------------


def stored(name, shape, *layers, **options):
    case(f"stored_{name}", shape, *layers, **options)


def small_moe(**options):
    return moe("moe", gate(wide(6, 3), top_k=2, normalize="sum"), 3, *plain_expert(6, 5))


for dtype in ("F16", "BF16"):
    for misaligned_by in (0, 1):
        name = f"{dtype.lower()}{'_misaligned' if misaligned_by else ''}"
        options = {"dtype": lambda name, dtype=dtype: dtype, "misaligned_by": misaligned_by}
        stored(f"{name}_linear", [37], linear("fc", 37, 35), layer_norm("norm", 35), **options)
        stored(f"{name}_conv", [3, 6, 6], conv2d("c", 3, 5, 3, 3), batch_norm("n", 5), **options)
        stored(f"{name}_moe", [6], small_moe(), **options)
        stored(
            f"{name}_attentive",
            [5],
            moe(
                "moe",
                attentive(7, "fc", linear("h", 5, 7), top_k=2, select_bias=uniform(3)),
                3,
                linear("fc", 5, 7),
                op("relu"),
                linear("out", 7, 2),
            ),
            **options,
        )
for misaligned_by in (1, 2, 3, 4):
    stored(
        f"f32_misaligned_by_{misaligned_by}",
        [2, 5, 5],
        conv2d("conv", 2, 3, 3, 3),
        op("flatten"),
        rms_norm("norm", 27),
        linear("fc", 27, 6),
        small_moe(),
        misaligned_by=misaligned_by,
    )


def by_turns(name):
    return ("BF16", "F32", "F16")[sum(name.encode()) % 3]


# An odd number of 16-bit numbers misaligns what follows.
stored(
    "mixed_dtypes",
    [2, 5, 5],
    conv2d("conv", 2, 3, 3, 3, bias=False),
    batch_norm("norm", 3),
    op("flatten"),
    linear("fc", 27, 6),
    small_moe(),
    dtype=by_turns,
)
# Subnormal in float16, not in float32.
stored(
    "f16_subnormals",
    [9],
    linear("fc", 9, 5, bias=False, weight=times(2.0**-15, weights(5, 9))),
    op("scale", value=2.0**15),
    dtype=lambda name: "F16",
)
stored("in_shards", [6], linear("in", 6, 6), small_moe(), shards=3)
stored("in_shards_mixed", [6], linear("in", 6, 6), small_moe(), shards=2, dtype=by_turns, misaligned_by=3)
stored("reversed", [6], linear("in", 6, 6), small_moe(), reversed_data=True)
stored("metadata", [6], linear("in", 6, 6), metadata={"format": "pt", "äöü": "\u2713 \\ \""})
stored(
    "every_key",
    [2, 3],
    op("flatten"),
    small_moe(),
    preprocess={"scale": 0.5, "mean": [0.25, -0.25], "std": [2.0, 0.5]},
    config={
        "description": "Every key there is.",
        "output": {"name": "probabilities", "labels": ["a", "b", "c", "d", "ä ✓"]},
        "routing_reference": {"moe": {"share": [0.5, 0.25, 0.25], "rows": 10000}},
    },
)
