"""Cases of experts with a capacity. Every batch has several requests: what one of them drops must not
depend on the others."""

import numpy as np

from recipes import (
    attentive,
    case_2,
    case_3,
    fixed,
    gate,
    layer_norm,
    linear,
    moe,
    named,
    op,
    residual,
    shared,
    times,
    uniform,
    weights,
    wide,
)


def drops(routing):
    """Every gate drops something, and not everything."""
    return all(0 < gate.dropped < gate.placed.size for gate in routing.values())


def drops_first_choices(routing):
    """Drops an item's best expert, too, while its second one has room."""
    return any((~gate.placed[:, 0] & gate.placed[:, 1]).any() for gate in routing.values())


def limited(name, width, experts, capacity, requests, *, shows=drops, logits=None, **options):
    chooser = gate(logits or wide(width, experts), capacity=capacity, **options)
    layer = moe("moe", chooser, experts, linear("fc", width, 3, bias=False))
    case_2(name, [width], layer, requests=requests, shows=shows)


SIZES = [9, 1, 16, 4]

for name, factor, options in (
    ("top_1", 1.0, {"top_k": 1}),
    ("top_1_sum", 0.75, {"top_k": 1, "normalize": "sum"}),
    ("top_2", 1.25, {"top_k": 2}),
    ("top_2_sum", 1.0, {"top_k": 2, "normalize": "sum", "shows": drops_first_choices}),
    ("top_3_softmax", 1.5, {"top_k": 3, "score": "none", "normalize": "softmax"}),
    ("scale", 0.8, {"top_k": 2, "scale": 1.75}),
    ("lp", 1, {"top_k": 2, "normalize": "lp"}),
    ("dense", 1.5, {}),
    ("sparsemixer", 1.0, {"top_k": 2, "score": "sparsemixer", "jitter": 0.3}),
    ("select_bias", 1.0, {"top_k": 2, "score": "sigmoid", "select_bias": uniform(4)}),
):
    limited(f"capacity_{name}", 5, 4, {"factor": factor}, SIZES, **options)
limited(
    "capacity_groups",
    5,
    8,
    {"factor": 1.5, "minimum": 2},
    SIZES,
    score="sigmoid",
    normalize="sum",
    groups={"count": 4, "keep": 2},
    top_k=3,
)
# At least `minimum`, which may exceed the number of items.
limited("capacity_minimum", 5, 6, {"factor": 0.5, "minimum": 2}, SIZES, top_k=2)
limited("capacity_minimum_4", 5, 6, {"factor": 0.01, "minimum": 4}, [3, 30], top_k=1)
# Never more than a request's items, so that nothing is dropped.
limited(
    "capacity_factor_of_experts",
    5,
    4,
    {"factor": 4.0},
    SIZES,
    top_k=2,
    shows=lambda routing: routing["moe"].dropped == 0,
)
limited(
    "capacity_factor_huge",
    5,
    4,
    {"factor": 1e30},
    SIZES,
    top_k=2,
    shows=lambda routing: routing["moe"].dropped == 0,
)
# 0.7 is a little less as float32, and floor(20 * 0.7 / 7) would be 1.
limited("capacity_factor_0.7", 5, 7, {"factor": 0.7}, [20, 7], top_k=1)
# Every item's first choice is expert 1, its second expert 3, so the order of placing shows.
steered = linear("out", 2, 4, weight=fixed([[0, 0], [0.1, 0], [0, 0], [0, 0.1]]))
steered["tensors"]["bias"] = fixed([0, 3, -1, 1])
for k in (1, 2, 3):
    name = f"capacity_all_choose_alike_top_{k}"
    limited(name, 2, 4, {"factor": 1.0}, [10, 5, 8], top_k=k, logits=steered)
case_2(
    "capacity_attentive",
    [5],
    moe(
        "moe",
        attentive(4, "fc", linear("hidden", 5, 4), top_k=2, capacity={"factor": 1.0}),
        4,
        linear("fc", 5, 4),
        op("relu"),
        linear("out", 4, 2),
    ),
    requests=[8, 3, 5],
    shows=drops,
)
case_2(
    "capacity_ties",
    [3],
    moe(
        "moe",
        gate(
            linear("out", 3, 4, bias=False, weight=fixed(np.zeros((4, 3)))),
            top_k=2,
            capacity={"factor": 1.5},
        ),
        4,
        linear("fc", 3, 2),
    ),
    requests=[6, 3, 8],
    ties=True,
    shows=drops,
)
# Each gate has its own capacity, for the experts that it chooses among.
case_2(
    "capacity_of_several_gates",
    [4],
    moe(
        "moe",
        [
            named("a", gate(wide(4, 3), top_k=1, capacity={"factor": 1.0}), experts=[0, 2, 3]),
            named("b", gate(wide(4, 4), top_k=2, capacity={"factor": 0.5, "minimum": 2})),
            named("c", gate(wide(4, 2), top_k=1, capacity={"factor": 1.2}), experts=[1, 3]),
        ],
        4,
        linear("fc", 4, 3, bias=False),
    ),
    requests=[7, 2, 11],
    shows=drops,
)

# --- the residual carries what is dropped ---------------------------------------------------------


def switch_layer(name, norm, **options):
    """Switch: dropped items bypass the experts."""
    chooser = gate(
        linear("out", 4, 3, bias=False, weight=times(4.0, weights(3, 4))),
        top_k=1,
        capacity={"factor": 1.25},
    )
    experts = linear("wi", 4, 5, bias=False), op("relu"), linear("wo", 5, 4, bias=False)
    return residual(layer_norm(norm, 4), moe(name, chooser, 3, *experts, **options))


case_2("capacity_switch_block", [4], switch_layer("mlp", "norm"), requests=[8, 2, 12], shows=drops)
case_2(
    "capacity_switch_blocks",
    [4],
    switch_layer("mlp.0", "norm.0"),
    linear("between", 4, 4),
    switch_layer("mlp.1", "norm.1"),
    linear("head", 4, 2),
    requests=[6, 1, 9],
    shows=drops,
)
# GShard: the shared expert also serves dropped items.
case_2(
    "capacity_with_shared",
    [4],
    moe(
        "moe",
        gate(wide(4, 3), top_k=2, normalize="sum", capacity={"factor": 1.0}),
        3,
        linear("fc", 4, 4),
        shared=shared(linear("fc", 4, 4), op("tanh"), gate_width=4),
    ),
    requests=[8, 2, 12],
    shows=drops,
)
# A request's items are the positions of all of its rows.
case_2(
    "capacity_positions",
    [5, 4],
    switch_layer("mlp", "norm", route="positions"),
    op("mean", axis=0),
    requests=[3, 1, 2],
    shows=drops,
)
case_2(
    "capacity_positions_of_rank_3",
    [2, 3, 4],
    moe(
        "moe",
        gate(wide(4, 4), top_k=2, normalize="sum", capacity={"factor": 1.0}),
        4,
        linear("fc", 4, 3),
        route="positions",
    ),
    requests=[2, 1, 3],
    shows=drops_first_choices,
)
case_2(
    "capacity_one_request",
    [4],
    switch_layer("mlp", "norm"),
    requests=[23],
    shows=drops,
)

# --- format 3 -------------------------------------------------------------------------------------


def limited_3(name, capacity, *, experts=4, width=5, requests=SIZES, shows=drops, **options):
    chooser = gate(wide(width, experts), capacity=capacity, **options)
    layer = moe("moe", chooser, experts, linear("fc", width, 3, bias=False))
    case_3(f"capacity_{name}", [width], layer, requests=requests, shows=shows)


limited_3("places", {"places": 3}, top_k=2)
limited_3("rounded_up", {"factor": 0.9, "round": "up"}, top_k=1)
limited_3("rounded_up_minimum", {"factor": 0.3, "round": "up", "minimum": 2}, top_k=2)
limited_3("group_of_rows", {"factor": 1.0, "rows": 4}, top_k=2)
limited_3("by_item", {"factor": 1.0, "order": "item"}, top_k=2)
limited_3("by_score", {"factor": 1.0, "order": "score"}, top_k=2, requests=[9, 1, 8, 4])
limited_3("by_pair", {"factor": 0.75, "order": "pair"}, top_k=2, requests=[6, 1, 5, 4])
limited_3("by_score_of_sigmoid", {"places": 2, "order": "score"}, top_k=1, score="sigmoid")
for top_k in (2, 3):
    limited_3(
        f"renormalized_top_{top_k}",
        {"factor": 1.0, "renormalize": True},
        top_k=top_k,
        normalize="sum",
        scale=1.5,
    )
# Switch and V-MoE: each image or sequence is a group of its own, also among others of a request.
case_3(
    "capacity_per_row",
    [8, 4],
    moe("moe", gate(wide(4, 3), top_k=1, capacity={"places": 2, "rows": 1}), 3, linear("fc", 4, 4), route="positions"),
    requests=[3, 1, 2],
    shows=drops,
)
case_3(
    "capacity_v_moe_by_priority",
    [6, 4],
    moe(
        "moe",
        gate(
            wide(4, 3),
            top_k=2,
            capacity={"factor": 1.5, "round": "up", "rows": 2, "order": "score"},
        ),
        3,
        linear("fc", 4, 4),
        route="positions",
    ),
    requests=[3, 1, 2],
    shows=drops,
)
# NLLB and DeepSpeed's top 2: the weights of what found a place sum to 1 again.
case_3(
    "capacity_nllb",
    [7, 4],
    residual(
        layer_norm("norm", 4),
        moe(
            "moe",
            gate(wide(4, 3), top_k=2, normalize="sum", capacity={"factor": 1.0, "round": "up", "renormalize": True}),
            3,
            linear("fc1", 4, 5),
            op("relu"),
            linear("fc2", 5, 4),
            route="positions",
        ),
    ),
    requests=[2, 1],
    shows=drops,
)
