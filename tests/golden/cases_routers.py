"""Cases of the gates of format 2: lp, groups, sparsemixer, and known routers as a whole."""

import numpy as np

from recipes import (
    attentive,
    case,
    case_2,
    fixed,
    gate,
    glu,
    linear,
    moe,
    op,
    plain_expert,
    residual,
    rms_norm,
    shared,
    times,
    uniform,
    weights,
    wide,
)


def routed(name, width, experts, *, logits=None, rows=9, **options):
    """One MoE layer with this gate and small experts."""
    of_case = {key: options.pop(key) for key in ("inputs", "ties", "shows") if key in options}
    chooser = gate(logits or wide(width, experts), **options)
    layer = moe("moe", chooser, experts, linear("fc", width, 3, bias=False))
    case_2(name, [width], layer, rows=rows, **of_case)


def positive(random, shape):
    return random.uniform(0.5, 1.5, shape)


# --- lp -------------------------------------------------------------------------------------------

for name, options in (
    ("p_1", {"p": 1, "top_k": 3}),
    ("default", {"top_k": 3}),
    ("p_2", {"p": 2, "top_k": 4}),
    ("p_3", {"p": 3, "top_k": 2}),
    ("p_2.5", {"p": 2.5, "top_k": 3}),
    ("dense", {"p": 2, "logits": linear("out", 5, 6)}),
    ("top_1", {"p": 3, "top_k": 1}),
    ("sigmoid", {"p": 2, "top_k": 3, "score": "sigmoid"}),
    ("none_p_2", {"p": 2, "top_k": 4, "score": "none"}),
    ("none_p_3", {"p": 3, "top_k": 4, "score": "none"}),
    ("scale", {"p": 1.5, "top_k": 2, "scale": -1.25}),
    ("select_bias", {"p": 2, "top_k": 2, "select_bias": uniform(6)}),
):
    routed(f"lp_{name}", 5, 6, normalize="lp", **options)
# Powers of scores that float32 cannot hold, such as (0.1)^80; and that no format can.
flat = linear("out", 5, 11, weight=weights(11, 5))
for p in (80, 1e30):
    routed(f"lp_p_{p:.0e}", 5, 11, logits=flat, normalize="lp", p=p, top_k=5)
# With p 1, too, the magnitudes count: scores of both signs do not cancel.
routed("lp_none_p_1", 5, 6, normalize="lp", p=1, score="none", top_k=4)

# Every score is 0: shares are equal.
vanishing = linear("out", 2, 5, weight=fixed(-1e4 * np.ones((5, 2))))
routed(
    "lp_without_any_score",
    2,
    5,
    logits=vanishing,
    score="sigmoid",
    normalize="lp",
    p=2,
    top_k=3,
    inputs=positive,
    ties=True,
)

# --- groups ---------------------------------------------------------------------------------------


for by in ("top2", "max"):
    for keep in (1, 2, 3, 4):
        groups = {"count": 4, "keep": keep, "by": by}
        routed(f"groups_{by}_keep_{keep}", 6, 12, groups=groups, top_k=3)
routed("groups_by_default", 5, 8, groups={"count": 2, "keep": 1}, top_k=2, normalize="sum")
routed("groups_all_of_those_kept", 5, 8, groups={"count": 4, "keep": 2}, top_k=4)
routed("groups_dense", 5, 6, logits=linear("out", 5, 6), groups={"count": 3, "keep": 3})
routed("groups_1", 5, 6, groups={"count": 1, "keep": 1}, top_k=2)
for by in ("top2", "max"):
    groups = {"count": 6, "keep": 3, "by": by}
    routed(f"groups_of_one_{by}", 5, 6, groups=groups, top_k=2)
routed(
    "groups_softmax_of_the_selected",
    5,
    9,
    score="none",
    normalize="softmax",
    groups={"count": 3, "keep": 2},
    top_k=3,
)
# Selection values below 0, and the kept groups too small to do without the lowest of them.
for score, normalize in (("sigmoid", "sum"), ("softmax", "lp"), ("none", "softmax")):
    routed(
        f"groups_negative_select_bias_{score}",
        6,
        12,
        score=score,
        normalize=normalize,
        groups={"count": 4, "keep": 2},
        top_k=5,
        select_bias=uniform(12, low=-9.0, high=-1.5),
        rows=11,
    )
# The value of expert 3 is below any float32; that of no expert outside the kept group is.
routed(
    "groups_value_overflow",
    2,
    4,
    logits=linear(
        "out", 2, 4, bias=False, weight=fixed([[0.3, 0], [0, 0.3], [1, 1], [-1.5e38, -1.5e38]])
    ),
    select_bias=fixed([0, 0, 0, -3e38]),
    score="none",
    normalize="softmax",
    groups={"count": 2, "keep": 1, "by": "max"},
    top_k=2,
    inputs=positive,
)
nothing = linear("out", 3, 8, bias=False, weight=fixed(np.zeros((8, 3))))
for by in ("top2", "max"):
    groups = {"count": 4, "keep": 2, "by": by}
    routed(f"groups_ties_all_{by}", 3, 8, logits=nothing, groups=groups, top_k=3, ties=True)
# Groups 1 and 2 are twins, and better than 0 and 3.
twins = fixed([[0, 0], [0, 0], [1, 2], [2, 1], [1, 2], [2, 1], [0.5, 0], [0, 0.5]])
for by, k in (("top2", 2), ("max", 3)):
    routed(
        f"groups_ties_of_twins_{by}",
        2,
        8,
        logits=linear("out", 2, 8, bias=False, weight=twins),
        groups={"count": 4, "keep": 2, "by": by},
        top_k=k,
        ties=True,
        inputs=positive,
    )
# The best group by its two best is not the one with the best.
routed(
    "groups_top2_is_not_max",
    2,
    4,
    logits=linear("out", 2, 4, bias=False, weight=fixed([[3, 0], [-3, -3], [2, 0], [2, 0.5]])),
    score="none",
    normalize="softmax",
    groups={"count": 2, "keep": 1},
    top_k=1,
    inputs=positive,
    shows=lambda routing: set(routing["moe"].experts.ravel()) == {3},
)

# --- sparsemixer ----------------------------------------------------------------------------------


def mixes(routing):
    """In some items the first expert has rivals, in some the second."""
    return np.all((routing["moe"].weights < 0.99).any(0))


def sparsemixed(name, *args, **options):
    routed(f"sparsemixer_{name}", *args, score="sparsemixer", top_k=2, **options)


close = linear("out", 6, 8, weight=times(0.3, weights(8, 6)))
sparsemixed("default", 6, 8)
sparsemixed("jitter_0", 6, 8, jitter=0)
sparsemixed("jitter_0.1", 6, 8, logits=close, jitter=0.1, shows=mixes)
sparsemixed("jitter_0.5", 6, 8, jitter=0.5, shows=mixes)
sparsemixed("jitter_2", 6, 4, jitter=2)
sparsemixed("scale", 6, 5, jitter=0.5, scale=0.5)
sparsemixed("of_2", 6, 2, jitter=0.25)
sparsemixed("many_experts", 6, 40, jitter=0.3, shows=mixes)
# Only experts of kept groups are rivals.
for by in ("top2", "max"):
    sparsemixed(f"groups_{by}", 5, 6, jitter=0.2, groups={"count": 3, "keep": 1, "by": by})
sparsemixed("groups_keep_2", 5, 9, jitter=0.3, groups={"count": 3, "keep": 2}, shows=mixes)
for jitter in (0.01, 0.3):
    sparsemixed(
        f"negative_logits_jitter_{jitter}",
        6,
        5,
        logits=linear("out", 6, 5, weight=uniform(5, 6, low=-3.0, high=-1.0)),
        jitter=jitter,
        inputs=positive,
        shows=None if jitter < 0.3 else mixes,
    )
# Rivals are as good as the best: nothing is dropped at any jitter, ties go to the lower index.
rivals = fixed([[1, -1, 2], [1, -1, 2], [-2, 1, 0.5], [1, -1, 2], [-2, 1, 0.5]])
for jitter in (0, 0.5):
    sparsemixed(
        f"ties_jitter_{jitter}",
        3,
        5,
        logits=linear("out", 3, 5, bias=False, weight=rivals),
        jitter=jitter,
        ties=True,
        shows=mixes,
    )
# All logits are 0, and so is what distances are divided by.
sparsemixed("ties_at_0", 3, 8, logits=nothing, ties=True)
sparsemixed(
    "extreme_logits",
    4,
    5,
    logits=linear("out", 4, 5, bias=False, weight=times(1e4, weights(5, 4))),
    jitter=0.4,
)
# Clamped to the largest float32: their difference is none.
sparsemixed(
    "overflow",
    2,
    4,
    logits=linear("out", 2, 4, weight=fixed([[3e38, 0], [-3e38, 0], [0, 3e38], [0, 1]])),
    inputs=lambda random, shape: random.choice([-9.0, -7.0, -5.0, 5.0, 7.0, 9.0], shape),
    ties=True,
)

# --- routers as they are known --------------------------------------------------------------------


def swiglu(width, hidden):
    return glu("in", width, hidden, bias=False), linear("out", hidden, width, bias=False)


def block(name, chooser, experts, **options):
    """A decoder's feed-forward block: residual, norm, MoE."""
    inner = moe("mlp", chooser, experts, *swiglu(8, 4), **options)
    case_2(f"router_{name}", [8], residual(rms_norm("norm", 8), inner))


def unbiased(width, experts):
    return linear("out", width, experts, bias=False, weight=times(3.0, weights(experts, width)))


block("mixtral", gate(unbiased(8, 8), top_k=2, normalize="sum"), 8)
block("shazeer", gate(unbiased(8, 6), score="none", normalize="softmax", top_k=3), 6)
block("gpt_oss", gate(wide(8, 8), score="none", normalize="softmax", top_k=4), 8)
block("olmoe", gate(unbiased(8, 12), top_k=4), 12)
block(
    "qwen2",
    gate(unbiased(8, 6), top_k=3),
    6,
    shared=shared(*swiglu(8, 10), gate_width=8),
)
block(
    "deepseek_v2",
    gate(unbiased(8, 12), groups={"count": 4, "keep": 2, "by": "max"}, top_k=3, scale=16.0),
    12,
    shared=shared(*swiglu(8, 12)),
)
block(
    "deepseek_v3",
    gate(
        unbiased(8, 16),
        score="sigmoid",
        normalize="sum",
        groups={"count": 4, "keep": 2, "by": "top2"},
        top_k=4,
        scale=2.5,
        select_bias=uniform(16, low=-2.0, high=0.5),
    ),
    16,
    shared=shared(*swiglu(8, 5)),
)
block("dbrx", gate(unbiased(8, 8), normalize="lp", p=2, top_k=4), 8)
block("phi", gate(unbiased(8, 8), score="sparsemixer", top_k=2, jitter=0.01), 8)
block("llama_4", gate(unbiased(8, 4), score="sigmoid", top_k=1), 4, shared=shared(*swiglu(8, 5)))
# Routers that format 1 can express.
for name, options in (
    ("stochastic", {"normalize": "sum", "top_k": 1}),
    ("raw_logit", {"score": "none", "top_k": 1}),
    ("sigmoid", {"score": "sigmoid", "top_k": 2}),
):
    case(f"router_{name}", [8], moe("mlp", gate(wide(8, 5), **options), 5, *plain_expert(8, 2)))

# --- shared experts -------------------------------------------------------------------------------

for name, options in (("none", {}), ("sigmoid", {"gate_width": 6})):
    case_2(
        f"shared_{name}",
        [6],
        moe(
            "moe",
            gate(wide(6, 4), top_k=2, normalize="sum"),
            4,
            *plain_expert(6, 3),
            shared=shared(linear("a", 6, 11), op("gelu"), linear("b", 11, 3), **options),
        ),
    )
    case_2(
        f"shared_{name}_with_attentive",
        [6],
        moe(
            "moe",
            attentive(5, "fc1", linear("hidden", 6, 5), top_k=2),
            4,
            linear("fc1", 6, 5),
            op("relu"),
            linear("fc2", 5, 3),
            shared=shared(linear("fc1", 6, 3), **options),
        ),
    )
# An item of several axes: the shared gate sees all of its elements.
case_2(
    "shared_sigmoid_of_rank_2",
    [3, 4],
    moe(
        "moe",
        gate(op("flatten"), wide(12, 3), top_k=2),
        3,
        linear("fc", 4, 5),
        op("transpose"),
        shared=shared(linear("fc", 4, 5), op("relu"), op("transpose"), gate_width=12),
    ),
)
