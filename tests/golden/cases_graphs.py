"""Cases of lists whose layers read each other's values by name."""

from recipes import (
    batch_norm,
    case_3,
    constant,
    conv2d,
    gate,
    glu,
    layer_norm,
    linear,
    moe,
    op,
    plain_expert,
    reads,
    residual,
    result,
    wide,
)


def basic_block(name, inputs, outputs, stride):
    """ResNet's, with a projection shortcut: two paths from "input"."""
    return (
        conv2d(f"{name}.conv1", inputs, outputs, 3, 3, stride=stride, padding=1, bias=False),
        batch_norm(f"{name}.bn1", outputs),
        op("relu"),
        conv2d(f"{name}.conv2", outputs, outputs, 3, 3, padding=1, bias=False),
        result("main", batch_norm(f"{name}.bn2", outputs)),
        reads("input", conv2d(f"{name}.down", inputs, outputs, 1, 1, stride=stride, bias=False)),
        batch_norm(f"{name}.bn3", outputs),
        op("add", of=["main"]),
        op("relu"),
    )


case_3("graph_projection_shortcut", [3, 8, 6], *basic_block("block", 3, 5, 2))
case_3(
    "graph_experts_of_resnet_blocks",
    [2, 6, 6],
    moe(
        "moe",
        gate(op("flatten"), wide(72, 4), top_k=2, normalize="sum"),
        4,
        *basic_block("block", 2, 3, 2),
        op("flatten"),
        linear("out", 27, 3),
    ),
)
case_3(
    "graph_inverted_residual",
    [4, 6, 5],
    result("x", conv2d("expand", 4, 12, 1, 1)),
    op("relu"),
    conv2d("depthwise", 12, 12, 3, 3, padding=1, groups=12),
    op("add", of=["x"]),
    conv2d("project", 12, 4, 1, 1),
    op("add", of=["input"]),
)
case_3(
    "graph_squeeze_and_excite",
    [6, 4, 5],
    result("x", conv2d("conv", 6, 8, 3, 3, padding=1)),
    op("mean", axis=2),
    op("mean", axis=1),
    linear("down", 8, 3),
    op("relu"),
    linear("up", 3, 8),
    op("sigmoid"),
    op("reshape", shape=[8, 1, 1]),
    op("multiply", of=["x"]),
)
case_3(
    "graph_parallel_attention_and_mlp",
    [5, 6],
    result("normal", layer_norm("norm", 6)),
    result("mlp", glu("fc", 6, 6)),
    reads("normal", linear("mix", 6, 6)),
    op("tanh"),
    op("add", of=["mlp", "input"]),
)
case_3(
    "graph_dense_beside_sparse",
    [4, 6],
    result("dense", linear("dense", 6, 6)),
    reads(
        "input",
        moe(
            "moe",
            gate(wide(6, 4), top_k=2, normalize="sum"),
            4,
            *plain_expert(6),
            route="positions",
        ),
    ),
    op("add", of=["dense", "input"]),
    rows=9,
)
# Named values that live across MoE layers, which every thread shares.
case_3(
    "graph_values_across_mixtures",
    [7],
    result("a", linear("a", 7, 7)),
    result("b", moe("m", gate(wide(7, 3), top_k=1), 3, *plain_expert(7))),
    op("tanh"),
    result("c", moe("n", gate(wide(7, 3), top_k=2), 3, *plain_expert(7, 4))),
    reads("b", linear("d", 7, 4)),
    op("multiply", of=["c"]),
    result("e", op("add", of=["c"], value=0.5)),
    reads("a", linear("f", 7, 4)),
    op("concat", of=["e", "input"]),
    residual(linear("g", 15, 15), op("relu")),
    rows=11,
)
case_3(
    "graph_two_towers",
    [9],
    result("user", linear("user", 9, 4)),
    reads("input", linear("item", 9, 4)),
    op("multiply", of=["user"]),
    op("sum", axis=0),
    op("sigmoid"),
)
case_3(
    "graph_gated_pooling",
    [5, 6],
    linear("score", 6, 1),
    op("transpose"),
    op("softmax"),
    op("transpose"),
    op("multiply", of=["input"]),
    op("sum", axis=0),
)
case_3(
    "graph_names_inside_a_residual",
    [6],
    result("x", linear("a", 6, 6)),
    residual(result("x", linear("b", 6, 6)), op("tanh"), op("add", of=["x", "input"])),
    op("multiply", of=["x", "x"]),
)
case_3(
    "graph_join_in_order",
    [3, 4],
    result("a", op("tanh")),
    result("b", reads("input", op("relu"))),
    reads("a", op("concat", of=["b", "input", "a"], axis=1)),
    linear("fc", 16, 5),
)
for axis in (0, 1, 2, -1, -3):
    case_3(
        f"concat_axis_{axis}",
        [2, 3, 4],
        result("a", op("tanh")),
        op("concat", of=["input", "a"], axis=axis),
    )
case_3(
    "add_repeats_axes",
    [3, 1, 4],
    result("a", linear("a", 4, 1)),
    op("reshape", shape=[1, 3, 1]),
    op("add", of=["input", "a"]),
)
case_3(
    "multiply_repeats_axes",
    [1, 5],
    result("row", op("tanh")),
    op("transpose"),
    result("column", linear("c", 1, 1)),
    op("multiply", of=["row"], value=-0.75),
    op("multiply", of=["column"]),
)
case_3(
    "divide_repeats_axes",
    [4, 5],
    op("mean", axis=1),
    op("exp"),
    result("column", op("reshape", shape=[4, 1])),
    reads("input", op("mean", axis=0)),
    op("exp"),
    result("row", op("reshape", shape=[1, 5])),
    reads("input", op("divide", of=["column", "row"], value=-1.5)),
)
case_3("divide_value", [2, 3], op("divide", value=-0.37))
case_3("divide_per_channel", [3, 4, 5], constant("divide", "scale", 3, 1, 1, value=2))
case_3("add_value", [7], op("add", value=-1.25), op("add", value=0))
case_3("multiply_value", [2, 3], op("multiply", value=-0.37))
case_3("multiply_layer_scale", [3, 5], constant("multiply", "scale", 5))
case_3("multiply_per_channel", [3, 4, 5], constant("multiply", "scale", 3, 1, 1, value=2))
case_3("add_tensor", [2, 3, 4], constant("add", "shift", 3, 1))
case_3("add_numbers", [6], result("x", op("sum", axis=0)), reads("input", op("mean", axis=0)), op("add", of=["x"]))
