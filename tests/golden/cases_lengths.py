"""Cases of rows of different length: what is behind a row's length is random, and shows nowhere."""

from recipes import (
    attention_3,
    batch_norm,
    case_3,
    embedding,
    gate,
    glu,
    layer_norm,
    linear,
    moe,
    op,
    output,
    plain_expert,
    position_embedding,
    reads,
    residual,
    result,
    rms_norm,
    shared,
    source,
    wide,
)


def lengths(most, name="n"):
    return source(name, [1], categories=most + 1)


def case_of_lengths(name, sources, *layers, **options):
    case_3(f"lengths_{name}", None, *layers, sources=sources, **options)


# Recommenders: histories and sets beside numbers, one of them without entries now and then.
case_of_lengths(
    "of_histories",
    [
        source("numeric", [3]),
        lengths(6, "watched_count"),
        source("watched", [6], embedding("films", 9, 4), op("mean", axis=0), categories=9, length="watched_count"),
        source("liked", [6], embedding("liked", 9, 3), op("sum", axis=0), categories=9, length="watched_count"),
        source("tags", [2], embedding("tags", 5, 3), op("max", axis=0), categories=5, length="tag_count"),
        lengths(2, "tag_count"),
    ],
    moe("moe", gate(wide(13, 3), top_k=2, normalize="sum"), 3, *plain_expert(13, 4)),
    rows=11,
)
for pool, options in (
    ("mean", {"axis": 0}),
    ("sum", {"axis": -2}),
    ("max", {"axis": 0}),
    ("select", {"index": 0}),
    ("select", {"index": "last"}),
):
    case_of_lengths(
        f"{pool}_{options.get('index', '')}".rstrip("_"),
        [source("x", [5, 3], length="n"), lengths(5)],
        linear("fc", 3, 4),
        op("tanh"),
        op(pool, **options),
        linear("out", 4, 2),
        rows=11,
    )
for name, options in (
    ("", {}),
    ("_causal", {"causal": True, "rotary": {}}),
    ("_window", {"window": 2, "sinks": True}),
    ("_bias", {"added": 6, "kv_heads": 1, "qk_norm": "head"}),
):
    case_of_lengths(
        f"attention{name}",
        [lengths(6), source("x", [6, 8], length="n")],
        residual(attention_3("a", 8, 2, bias=True, **options)),
        residual(attention_3("b", 8, 2, **options)),
        rows=9,
    )


def block(index, size, feed_forward):
    return (
        residual(rms_norm(f"norm1_{index}", size), attention_3(f"attention_{index}", size, 2)),
        residual(layer_norm(f"norm2_{index}", size), feed_forward),
    )


def sparse(name, size, **options):
    chooser = gate(wide(size, 4), top_k=2, normalize="sum", **options)
    return moe(name, chooser, 4, glu("fc", size, 5), linear("out", 5, size), route="positions")


case_of_lengths(
    "encoder",
    [source("ids", [7], embedding("words", 11, 8), position_embedding("places", 7, 8), categories=11, length="n"), lengths(7)],
    *block(0, 8, sparse("moe_0", 8)),
    *block(1, 8, sparse("moe_1", 8, score="sigmoid")),
    op("mean", axis=0),
    op("l2_normalize"),
    rows=6,
)
# Padding takes no place in an expert, and does not make a group larger.
case_of_lengths(
    "capacity",
    [source("x", [6, 4], length="n"), lengths(6)],
    residual(sparse("moe", 4, capacity={"factor": 1.0, "round": "up", "order": "score"})),
    requests=[3, 1, 4],
    rows=8,
    shows=lambda routing: all(gate.dropped for gate in routing.values()),
)
case_of_lengths(
    "of_every_position",
    [source("x", [5, 4], length="n"), lengths(5)],
    moe(
        "moe",
        gate(wide(4, 3), top_k=1),
        3,
        *plain_expert(4),
        route="positions",
        shared=shared(linear("fc", 4, 4)),
    ),
    batch_norm("norm", 5),
    outputs=[
        output("words", linear("words", 4, 3), op("softmax")),
        output("states"),
        output("row", op("mean", axis=0), linear("row", 4, 2)),
    ],
)
case_of_lengths(
    "read_by_name",
    [source("x", [4, 3], length="n"), lengths(4)],
    result("mean", op("mean", axis=0)),
    op("reshape", shape=[1, 3]),
    result("center", op("scale", value=-1)),
    reads("input", op("add", of=["center"])),
    result("normal", op("concat", of=["input"], axis=1)),
    op("select", index="last"),
    op("concat", of=["mean"]),
    result("last", op("reshape", shape=[1, 9])),
    reads("normal", linear("fc", 6, 9)),
    op("multiply", of=["last"]),
    op("sum", axis=0),
)
case_3("select_last", [4, 3], op("select", index="last"))
case_3("select_last_of_axis_1", [4, 3], op("select", index="last", axis=1))
