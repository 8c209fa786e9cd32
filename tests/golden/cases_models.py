"""Cases of experts, of several MoE layers in one model, and of the ways to store a checkpoint."""

from recipes import (
    attentive,
    batch_norm,
    case,
    conv2d,
    gate,
    layer_norm,
    linear,
    moe,
    op,
    plain_expert,
    residual,
    rms_norm,
    times,
    uniform,
    weights,
    wide,
    with_tensors,
)

# --- experts --------------------------------------------------------------------------------------

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
case(
    "experts_1_of_1_sigmoid",
    [4],
    moe("moe", gate(wide(4, 1), score="sigmoid", top_k=1), 1, op("cube")),
)
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
# More rows for one expert than a team's task takes (core/moe/experts.c).
case(
    "experts_many_rows",
    [5],
    moe("moe", gate(wide(5, 3), top_k=2, score="sigmoid"), 3, *plain_expert(5, 3)),
    rows=61,
)
case(
    "experts_many_rows_dense",
    [3],
    moe("moe", gate(wide(3, 2), normalize="softmax"), 2, *plain_expert(3, 4)),
    rows=41,
)
case(
    "experts_many_rows_attentive",
    [3],
    moe(
        "moe",
        attentive(4, "fc", linear("hidden", 3, 4), top_k=2),
        3,
        linear("fc", 3, 4),
        op("relu"),
        linear("out", 4, 2),
    ),
    rows=47,
)

# --- several MoE layers, and MoE layers inside residuals ------------------------------------------

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
# Gate and experts have enough work for a team to share, both by rows and by expert.
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
        residual(conv2d("b", 8, 8, 3, 3, padding=1)),
        op("avg_pool2d", kernel=3, stride=1, padding=1),
        conv2d("c", 8, 5, 3, 3, stride=2),
        op("mean", axis=-1),
    ),
    rows=9,
)

# --- files ----------------------------------------------------------------------------------------


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


# An odd number of 16-bit numbers misaligns the next tensor.
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
tiny = times(2.0**-15, uniform(5))
stored(
    "f16_subnormals",
    [9],
    linear("fc", 9, 5, bias=False, weight=times(2.0**-15, weights(5, 9))),
    with_tensors("rms_norm", "norm", {"eps": 1e-12}, {"weight": tiny}),
    op("scale", value=2.0**15),
    dtype=lambda name: "F16",
)
stored("in_shards", [6], linear("in", 6, 6), small_moe(), shards=3)
stored(
    "in_shards_mixed",
    [6],
    linear("in", 6, 6),
    small_moe(),
    shards=2,
    dtype=by_turns,
    misaligned_by=3,
)
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
