"""Cases of the gate: scores, normalisations, selection, ties, extreme logits, attention."""

import numpy as np

from recipes import (
    attentive,
    batch_norm,
    case,
    conv2d,
    fixed,
    gate,
    linear,
    moe,
    op,
    plain_expert,
    residual,
    times,
    uniform,
    weights,
    wide,
)

# --- gates ----------------------------------------------------------------------------------------


def scored(name, score, normalize, **top_k):
    chooser = gate(wide(6, 5), score=score, normalize=normalize, **top_k)
    return moe(name, chooser, 5, *plain_expert(6))


for score in ("softmax", "sigmoid", "none"):
    for normalize in ("none", "sum", "softmax"):
        case(
            f"gate_{score}_{normalize}",
            [6],
            scored("dense", score, normalize),
            scored("top_1", score, normalize, top_k=1),
            scored("top_2", score, normalize, top_k=2),
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

# Ties go to the lower index: some experts are twins, or all logits are equal.
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
    """Logits of about 10^4: scores are exactly 0 and 1."""
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
# Logits beyond float32 are clamped to its largest: those of one sign tie.
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

# --- attentive gates ------------------------------------------------------------------------------

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
# The key is a feature map, followed by layers of several axes.
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
# Memory of a row: mostly hidden vectors and the experts' first layers, then mostly the gate's own layers.
case(
    "attentive_many_experts",
    [2],
    moe(
        "moe",
        attentive(7, "c", linear("hidden", 2, 7), top_k=1, score="none", normalize="softmax"),
        13,
        linear("a", 2, 7),
        linear("b", 7, 7),
        linear("c", 7, 7),
        op("relu"),
        linear("out", 7, 1),
    ),
    rows=9,
)
case(
    "attentive_wide_gate",
    [2],
    moe(
        "moe",
        attentive(
            7,
            "fc",
            linear("a", 2, 40),
            linear("b", 40, 40, bias=False),
            linear("hidden", 40, 7),
            normalize="sum",
        ),
        3,
        linear("fc", 2, 7),
        linear("out", 7, 1),
    ),
)
# No layers are left for the chosen experts.
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
