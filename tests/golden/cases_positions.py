"""Cases of rows that are sequences: their ops, MoE layers that route positions, and encoders."""

from recipes import (
    attention,
    case_2,
    class_token,
    conv2d,
    gate,
    glu,
    layer_norm,
    linear,
    moe,
    op,
    plain_expert,
    position_embedding,
    residual,
    shared,
    wide,
)

# --- ops ------------------------------------------------------------------------------------------

for activation in ("silu", "gelu", "gelu_tanh", "sigmoid", "relu"):
    for bias in (False, True):
        case_2(
            f"glu_{activation}{'_bias' if bias else ''}",
            [9],
            glu("glu", 9, 18, bias=bias, activation=activation),
        )
for bias in ("gate", "up"):
    case_2(f"glu_{bias}_bias_alone", [4], glu("glu", 4, 3, bias=bias))
case_2("glu_by_default", [5], glu("glu", 5, 3))
case_2("glu_of_one", [1], glu("glu", 1, 1))
case_2("glu_rows_of_rank_3", [2, 3, 5], glu("glu", 5, 17, bias=False))
case_2("glu_wide", [65], glu("glu", 65, 33), rows=5)

for heads in (1, 2, 3, 6):
    case_2(f"attention_{heads}_heads", [5, 6], attention("att", 6, heads))
case_2("attention_without_bias", [4, 8], attention("att", 8, 2, bias=False))
for bias in ("in_proj", "out_proj"):
    case_2(f"attention_{bias}_bias_alone", [4, 6], attention("att", 6, 3, bias=bias))
case_2("attention_of_one_position", [1, 6], attention("att", 6, 2))
case_2("attention_of_one_number", [3, 1], attention("att", 1, 1))
case_2("attention_of_many_positions", [37, 4], attention("att", 4, 2), rows=5)
case_2("attention_of_wide_heads", [3, 34], attention("att", 34, 2), rows=3)
# Scores far apart: softmax of 0 and 1.
case_2(
    "attention_decided",
    [6, 4],
    op("scale", value=40),
    attention("att", 4, 2),
    op("scale", value=0.025),
)
# Enough work for a team to share a batch.
case_2(
    "attention_shared_by_rows",
    [40, 16],
    attention("a", 16, 4, bias=False),
    residual(attention("b", 16, 2, bias=False)),
    op("mean", axis=0),
    rows=9,
)

case_2("class_token", [4, 3], class_token("token", 3))
case_2("class_token_of_one_position", [1, 5], class_token("token", 5), linear("fc", 5, 2))
case_2("position_embedding", [4, 3], position_embedding("positions", 4, 3))
case_2("position_embedding_of_rank_1", [7], position_embedding("positions", 7))
case_2("position_embedding_of_rank_3", [2, 3, 2], position_embedding("positions", 2, 3, 2))
for axis, last in ((0, 2), (1, 3), (2, 4), (-1, 4), (-2, 3), (-3, 2)):
    for index in (0, last):
        chosen = op("select", index=index, axis=axis)
        case_2(f"select_{index}_axis_{axis}", [3, 4, 5], chosen, rows=3)
case_2("select_by_default", [3, 4], op("select", index=1), linear("fc", 4, 2))
case_2("select_a_single_number", [6], op("select", index=4))
case_2("transpose", [3, 5], op("transpose"), linear("fc", 3, 2))
case_2("transpose_of_rank_3", [2, 3, 4], op("transpose"))
case_2("transpose_of_rank_4_twice", [2, 2, 3, 4], op("transpose"), op("tanh"), op("transpose"))
case_2("transpose_of_one", [1, 5], op("transpose"), linear("fc", 1, 3))
# In place if possible, else out of place.
case_2(
    "sequence_ops_in_a_row",
    [6, 4],
    op("transpose"),
    op("transpose"),
    class_token("token", 4),
    position_embedding("positions", 7, 4),
    op("relu"),
    op("transpose"),
    op("select", index=2, axis=-1),
    position_embedding("bias", 4),
    op("softmax"),
)

# --- routed positions -----------------------------------------------------------------------------


def of_positions(name, shape, chooser, experts, *layers, rows=5, **options):
    layer = moe("moe", chooser, experts, *layers, route="positions", **options)
    case_2(name, shape, layer, rows=rows)


of_positions("positions", [5, 4], gate(wide(4, 4), top_k=2), 4, *plain_expert(4, 3))
of_positions("positions_dense", [3, 4], gate(wide(4, 3)), 3, *plain_expert(4, 3))
of_positions("positions_of_rank_3", [2, 3, 4], gate(wide(4, 4), top_k=1), 4, *plain_expert(4, 6))
of_positions("positions_of_rank_4", [2, 1, 2, 3], gate(wide(3, 3), top_k=2), 3, linear("fc", 3, 2))
of_positions("positions_one", [1, 4], gate(wide(4, 3), top_k=2), 3, linear("fc", 4, 2))
of_positions(
    "positions_to_a_single_number",
    [5, 4],
    gate(wide(4, 3), top_k=2),
    3,
    linear("fc", 4, 2),
    op("sum", axis=0),
)
of_positions(
    "positions_to_rank_2",
    [2, 4],
    gate(wide(4, 3), top_k=2),
    3,
    linear("fc", 4, 6),
    op("reshape", shape=[3, 2]),
)
of_positions("positions_many", [40, 3], gate(wide(3, 3), top_k=2), 3, linear("fc", 3, 2), rows=3)
for name, width in (("none", None), ("sigmoid", 4)):
    of_positions(
        f"positions_shared_{name}",
        [3, 4],
        gate(wide(4, 3), top_k=2, normalize="sum"),
        3,
        linear("fc", 4, 5),
        shared=shared(glu("in", 4, 3), linear("out", 3, 5), gate_width=width),
    )
of_positions(
    "positions_swiglu",
    [4, 6],
    gate(wide(6, 4), top_k=2, normalize="sum"),
    4,
    glu("in", 6, 5, bias=False),
    linear("out", 5, 6, bias=False),
)
of_positions(
    "positions_sparsemixer",
    [4, 5],
    gate(wide(5, 4), score="sparsemixer", top_k=2, jitter=0.2),
    4,
    linear("fc", 5, 3, bias=False),
)
of_positions(
    "positions_groups",
    [4, 5],
    gate(wide(5, 6), score="sigmoid", normalize="sum", groups={"count": 3, "keep": 2}, top_k=2),
    6,
    linear("fc", 5, 3, bias=False),
)
case_2(
    "positions_twice",
    [3, 4],
    moe("a", gate(wide(4, 3), top_k=2), 3, linear("fc", 4, 5), route="positions"),
    op("transpose"),
    moe("b", gate(wide(3, 3), top_k=1), 3, linear("fc", 3, 3), route="positions"),
    moe("rows", gate(op("flatten"), wide(15, 3), top_k=1), 3, linear("fc", 3, 2)),
    rows=5,
)

# --- encoders -------------------------------------------------------------------------------------


def encoder_layer(size, heads, hidden, norm_first, activation="relu"):
    """nn.TransformerEncoderLayer, whose tensors have the names below."""
    attend = attention("self_attn", size, heads)
    feed = linear("linear1", size, hidden), op(activation), linear("linear2", hidden, size)
    norm1, norm2 = layer_norm("norm1", size), layer_norm("norm2", size)
    if norm_first:
        return residual(norm1, attend), residual(norm2, *feed)
    return residual(attend), norm1, residual(*feed), norm2


for name, norm_first in (("pre_norm", True), ("post_norm", False)):
    for activation in ("relu", "gelu"):
        case_2(
            f"encoder_{name}_{activation}",
            [5, 6],
            *encoder_layer(6, 2, 7, norm_first, activation),
            rows=5,
        )
    # Experts that are transformer layers over the positions of the rows they are given.
    case_2(
        f"experts_of_encoder_layers_{name}",
        [4, 6],
        moe(
            "moe",
            gate(op("mean", axis=0), wide(6, 3), top_k=2, normalize="sum"),
            3,
            *encoder_layer(6, 3, 5, norm_first),
        ),
        op("mean", axis=0),
        linear("out", 6, 2),
        rows=7,
    )
case_2(
    "experts_of_attention_and_a_shared_one",
    [3, 4],
    class_token("token", 4),
    moe(
        "moe",
        gate(op("select", index=0), wide(4, 3), top_k=1),
        3,
        attention("att", 4, 2, bias=False),
        op("select", index=0),
        shared=shared(op("mean", axis=0)),
    ),
)


def sparse_mlp(name, size, experts, **options):
    chooser = gate(wide(size, experts), top_k=2, normalize="sum", **options)
    feed = linear("fc1", size, 5), op("gelu"), linear("fc2", 5, size)
    return moe(name, chooser, experts, *feed, route="positions")


def vision(*sparse):
    """V-MoE: patches, a class token, an encoder layer with a sparse MLP, and its first position."""
    return (
        conv2d("patches", 2, 6, 2, 2, stride=2),
        op("reshape", shape=[6, 6]),
        op("transpose"),
        class_token("token", 6),
        position_embedding("positions", 7, 6),
        residual(layer_norm("norm1", 6), attention("self_attn", 6, 2)),
        residual(layer_norm("norm2", 6), *sparse),
        layer_norm("norm", 6),
        op("select", index=0),
        linear("head", 6, 3),
        op("softmax"),
    )


case_2("vision_encoder", [2, 4, 6], *vision(sparse_mlp("moe", 6, 4)), rows=4)
case_2(
    "vision_encoder_with_capacity",
    [2, 4, 6],
    *vision(sparse_mlp("moe", 6, 4, capacity={"factor": 1.05})),
    requests=[2, 1, 3],
    shows=lambda routing: routing["moe"].dropped > 0,
)
