"""Cases of what format 3 adds to attention, gated linear units, experts and gates."""

from recipes import (
    attention_3,
    case_3,
    conv2d,
    gate,
    glu,
    layer_norm,
    linear,
    moe,
    named,
    op,
    plain_expert,
    residual,
    rms_norm,
    shared,
    uniform,
    wide,
)

YARN = {"type": "yarn", "factor": 4, "original": 16}

for name, options in (
    ("causal", {"causal": True}),
    ("kv_heads", {"kv_heads": 2}),
    ("one_kv_head", {"kv_heads": 1, "bias": True}),
    ("head_dim", {"head_dim": 5}),
    ("window", {"window": 3}),
    ("window_of_one", {"window": 1}),
    ("causal_window", {"causal": True, "window": 4}),
    ("scale", {"scale": 0.3}),
    ("sinks", {"sinks": True}),
    ("causal_sinks", {"causal": True, "sinks": True, "window": 2}),
    ("bias", {"added": 9}),
    ("causal_bias", {"added": 9, "causal": True, "scale": 1}),
    ("qk_norm_head", {"qk_norm": "head"}),
    ("qk_norm_all", {"qk_norm": "all", "kv_heads": 2, "eps": 0.01}),
    ("rotary", {"rotary": {}}),
    ("rotary_interleaved", {"rotary": {"interleaved": True, "theta": 100}}),
    ("rotary_partial", {"head_dim": 6, "rotary": {"dims": 4, "theta": 50}}),
    ("rotary_partial_interleaved", {"rotary": {"dims": 2, "interleaved": True, "factor": 1.25}}),
    ("rotary_frequencies", {"rotary": {"frequencies": [1.5, 0.0]}}),
    ("rotary_linear", {"rotary": {"theta": 20, "scaling": {"type": "linear", "factor": 2.5}}}),
    (
        "rotary_llama3",
        {
            "head_dim": 12,
            "rotary": {
                "theta": 500,
                "scaling": {"type": "llama3", "factor": 8, "original": 32, "low": 1, "high": 4},
            },
        },
    ),
    ("rotary_yarn", {"head_dim": 12, "rotary": {"theta": 50, "scaling": YARN, "factor": 1.14}}),
    (
        "rotary_yarn_not_truncated",
        {
            "head_dim": 12,
            "rotary": {"theta": 50, "scaling": {**YARN, "truncate": False, "slow": 0.5, "fast": 2}},
        },
    ),
):
    case_3(f"attention_{name}", [9, 16], attention_3("attention", 16, 4, **options))
case_3("attention_causal_one_position", [1, 8], attention_3("a", 8, 2, causal=True, sinks=True, rotary={}))
case_3("attention_long", [40, 8], attention_3("a", 8, 2, causal=True, rotary={}, window=9), rows=3)


def decoder_block(index, size, feed_forward, **options):
    return (
        residual(
            rms_norm(f"norm1_{index}", size),
            attention_3(f"attention_{index}", size, 4, kv_heads=2, causal=True, **options),
        ),
        residual(rms_norm(f"norm2_{index}", size), feed_forward),
    )


def sparse(name, size, **options):
    chooser = gate(wide(size, 4), top_k=2, normalize="sum")
    experts = glu("fc", size, 8, bias=False), linear("out", 8, size, bias=False)
    return moe(name, chooser, 4, *experts, route="positions", **options)


case_3(
    "decoder_qwen3",
    [10, 8],
    *decoder_block(0, 8, sparse("moe_0", 8), qk_norm="head", rotary={"theta": 1000}, head_dim=6),
    *decoder_block(1, 8, sparse("moe_1", 8), qk_norm="head", rotary={"theta": 1000}, head_dim=6),
    op("select", index=9),
    linear("head", 8, 5),
    rows=3,
)
case_3(
    "decoder_gpt_oss",
    [10, 8],
    *decoder_block(
        0,
        8,
        moe(
            "moe",
            gate(wide(8, 4), top_k=2, score="none", normalize="softmax"),
            4,
            glu("fc", 8, 8, limit=0.7, alpha=1.702, shift=1),
            linear("out", 8, 8),
            route="positions",
        ),
        sinks=True,
        window=4,
        bias=True,
        rotary={"theta": 150, "scaling": {**YARN, "truncate": False}, "factor": 1.1386},
    ),
    rows=3,
)
case_3(
    "encoder_t5",
    [7, 8],
    residual(rms_norm("norm1", 8), attention_3("attention", 8, 2, scale=1, added=7)),
    residual(layer_norm("norm2", 8), linear("wi", 8, 12), op("relu"), linear("wo", 12, 8)),
)

# --- gated linear units ---------------------------------------------------------------------------


def large(random, shape):
    return random.uniform(-9.0, 9.0, shape)


case_3("glu_limit", [9], glu("fc", 9, 7, limit=1.5), inputs=large)
case_3("glu_gpt_oss", [9], glu("fc", 9, 7, limit=2, alpha=1.702, shift=1), inputs=large)
case_3("glu_shift", [3, 5], glu("fc", 5, 4, activation="gelu", shift=-0.5), inputs=large)
case_3("glu_limit_relu", [9], glu("fc", 9, 7, activation="relu", limit=0.5), inputs=large)

# --- experts and gates ----------------------------------------------------------------------------

case_3(
    "weighed_inputs",
    [7],
    moe("moe", gate(wide(7, 5), score="sigmoid", top_k=2), 5, *plain_expert(7), weigh="inputs"),
    rows=19,
)
case_3(
    "weighed_inputs_llama_4",
    [5, 6],
    residual(
        moe(
            "moe",
            gate(wide(6, 4), score="sigmoid", top_k=1),
            4,
            glu("fc", 6, 9, bias=False),
            linear("out", 9, 6),
            route="positions",
            weigh="inputs",
            shared=shared(linear("fc", 6, 6)),
        )
    ),
)
case_3(
    "weighed_inputs_dense",
    [3, 4],
    moe("moe", gate(op("flatten"), wide(12, 3)), 3, op("tanh"), inputs=[0, 2, 1], weigh="inputs"),
)
case_3(
    "weighed_inputs_dropped",
    [5],
    moe(
        "moe",
        gate(wide(5, 4), top_k=2, capacity={"factor": 1.0}),
        4,
        *plain_expert(5),
        weigh="inputs",
    ),
    requests=[9, 1, 16],
)
case_3(
    "weighed_inputs_of_images",
    [2, 4, 5],
    moe(
        "moe",
        gate(op("flatten"), wide(40, 3), top_k=2),
        3,
        conv2d("conv", 2, 3, 3, 3),
        op("relu"),
        weigh="inputs",
    ),
)
case_3(
    "identity_experts",
    [6],
    moe("moe", gate(wide(6, 5), top_k=2, normalize="sum"), 5, *plain_expert(6), identity=2),
    rows=19,
)
case_3(
    "identity_experts_of_positions",
    [4, 6],
    moe("moe", gate(wide(6, 3), top_k=2), 3, *plain_expert(6), identity=1, route="positions"),
)
case_3(
    "expert_scale",
    [6],
    moe(
        "moe",
        gate(
            wide(6, 4),
            top_k=2,
            normalize="sum",
            scale=1.5,
            expert_scale=uniform(4, low=0.5, high=2.0),
        ),
        4,
        *plain_expert(6, 3),
    ),
    rows=11,
)
case_3(
    "expert_scale_of_several_gates",
    [6],
    moe(
        "moe",
        [
            named("a", gate(wide(6, 2), expert_scale=uniform(2)), experts=[0, 3]),
            named("b", gate(wide(6, 4), top_k=2, expert_scale=uniform(4))),
        ],
        4,
        *plain_expert(6, 3),
    ),
)
for top_k, normalize in ((1, "none"), (2, "sum"), (4, "none")):
    case_3(
        f"sqrt_softplus_top_{top_k}_{normalize}",
        [6],
        moe(
            "moe",
            gate(wide(6, 4), score="sqrt_softplus", top_k=top_k, normalize=normalize),
            4,
            *plain_expert(6, 3),
        ),
        rows=11,
    )
case_3(
    "sqrt_softplus_select_bias",
    [6],
    moe(
        "moe",
        gate(
            wide(6, 4),
            score="sqrt_softplus",
            top_k=2,
            normalize="sum",
            scale=1.5,
            select_bias=uniform(4, low=-0.3, high=0.3),
        ),
        4,
        *plain_expert(6, 3),
    ),
    rows=11,
)
