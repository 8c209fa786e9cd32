"""Cases of several inputs and outputs, of several gates over one set of experts, and of systems built
from them: MMoE, CGC, PLE. Also published systems with a single gate."""

from recipes import (
    case,
    case_2,
    case_of_inputs,
    conv1d,
    embedding,
    gate,
    linear,
    moe,
    named,
    op,
    output,
    plain_expert,
    source,
    uniform,
    wide,
)

# --- inputs ---------------------------------------------------------------------------------------


def table():
    """A row of a table: quantities and categories, some of which have several values."""
    return [
        source("numeric", [3], preprocess={"mean": [3.6, 0.5, -1], "std": [1.7, 1, 2], "scale": 5}),
        source("occupation", [1], embedding("occupation", 15, 4), categories=15),
        source("tags", [3], embedding("tags", 7, 2), op("mean", axis=0), categories=5),
    ]


case_of_inputs("inputs_of_a_table", table(), linear("fc", 9, 4))
case_of_inputs(
    "inputs_of_a_table_routed",
    table(),
    moe("moe", gate(wide(9, 4), top_k=2), 4, linear("fc", 9, 3)),
)
case_of_inputs(
    "inputs_flattened",
    [
        source("image", [2, 3, 2], op("relu")),
        source("vector", [3]),
        source("image.2", [2, 2], linear("fc.2", 2, 3), preprocess={"scale": 0.5, "mean": [1, -1]}),
        source("number", [1], op("select", index=0)),
    ],
    linear("fc", 22, 5),
)
# One input keeps its shape.
case_of_inputs("inputs_1", [source("x", [3, 4])], op("transpose"), linear("fc", 3, 2))
case_of_inputs(
    "inputs_1_with_layers",
    [source("x", [3, 4], linear("in", 4, 5), op("tanh"), preprocess={"scale": 0.5})],
    op("transpose"),
    linear("fc", 3, 2),
)
case_of_inputs(
    "inputs_1_of_categories",
    [source("words", [6], embedding("words", 11, 4), categories=11)],
    moe("moe", gate(wide(4, 3), top_k=2), 3, linear("fc", 4, 3), route="positions"),
    op("mean", axis=0),
)
case_of_inputs(
    "inputs_of_categories_on_two_axes",
    [source("grid", [2, 3], embedding("grid", 9, 2), categories=9), source("other", [2])],
    linear("fc", 14, 3),
)
# Categories without an embedding are used as numbers.
case_of_inputs(
    "inputs_of_categories_as_they_are",
    [source("a", [2], categories=4), source("b", [1], categories=2)],
    linear("fc", 3, 2),
)

# --- outputs --------------------------------------------------------------------------------------

case_2(
    "outputs_of_one_trunk",
    [5],
    linear("trunk", 5, 6),
    op("relu"),
    outputs=[
        output("classes", linear("classes", 6, 3), op("softmax"), labels=["a", "b", "c"]),
        output("trunk"),
        output("value", linear("value", 6, 1)),
        output("pairs", op("reshape", shape=[3, 2]), op("transpose"), labels=["x", "y", "z"]),
    ],
)
case_2("outputs_1_with_layers", [5], op("tanh"), outputs=[output("y", linear("y", 5, 2))])
case_2("outputs_of_the_same", [5], op("cube"), outputs=[output("a"), output("b")])
case_of_inputs(
    "outputs_and_inputs",
    table(),
    moe("moe", gate(wide(9, 3), top_k=1), 3, *plain_expert(9, 4)),
    outputs=[output("a", linear("a", 4, 2)), output("b", linear("b", 4, 1), op("sigmoid"))],
)

# --- several gates --------------------------------------------------------------------------------


def towers(names, width):
    """Every task has its own entry of the gates' outputs, and its own head."""
    return [
        output(task, op("select", index=i), linear(task, width, i + 1), op("sigmoid"))
        for i, task in enumerate(names)
    ]


def tasks(name, width, gates, experts, *layers, **options):
    names = [chooser["name"] for chooser in gates]
    layer = moe("moe", gates, experts, *(layers or (linear("fc", width, 4), op("relu"))))
    case_2(name, [width], layer, outputs=towers(names, 4), **options)


def mild(inputs, experts):
    """Softmax scores of all experts that differ clearly."""
    return linear("out", inputs, experts)


for name, options in (("dense", {}), ("top_2", {"top_k": 2, "normalize": "sum"})):
    gates = [named(task, gate(mild(6, 5), **options)) for task in ("income", "marital")]
    tasks(f"mmoe_{name}", 6, gates, 5)
tasks(
    "mmoe_of_unlike_gates",
    6,
    [
        named("a", gate(wide(6, 4), top_k=1)),
        named("b", gate(linear("in", 6, 3), op("tanh"), wide(3, 4), score="sigmoid", top_k=3)),
        named("c", gate(wide(6, 4), score="sparsemixer", top_k=2, jitter=0.2)),
        named("d", gate(wide(6, 4), normalize="lp", select_bias=uniform(4), top_k=2, scale=0.5)),
    ],
    4,
)
only = named("only", gate(wide(5, 3), top_k=2))
case_2("gates_1", [5], moe("moe", [only], 3, linear("fc", 5, 2)))
case_2(
    "gates_to_rank_3",
    [5],
    moe(
        "moe",
        [named("a", gate(wide(5, 3), top_k=2)), named("b", gate(wide(5, 3)))],
        3,
        linear("fc", 5, 6),
        op("reshape", shape=[3, 2]),
    ),
)
case_2(
    "gates_to_a_single_number",
    [5],
    moe(
        "moe",
        [named("a", gate(wide(5, 3), top_k=2)), named("b", gate(wide(5, 3), top_k=1))],
        3,
        linear("fc", 5, 2),
        op("sum", axis=0),
    ),
)
# Rows that no gate of one sends to an expert, and rows that all of them do.
case_2(
    "gates_many_rows",
    [4],
    moe(
        "moe",
        [named(f"g{i}", gate(wide(4, 4), top_k=1 + i % 2)) for i in range(5)],
        4,
        *plain_expert(4, 2),
    ),
    rows=41,
)

# CGC: a task chooses among its own experts and the shared ones.
tasks(
    "cgc",
    6,
    [
        named("income", gate(mild(6, 4)), experts=[0, 1, 4, 5]),
        named("marital", gate(mild(6, 4)), experts=[2, 3, 4, 5]),
    ],
    6,
)
tasks(
    "cgc_top_2",
    6,
    [
        named("income", gate(wide(6, 4), top_k=2, normalize="sum"), experts=[0, 1, 4, 5]),
        named("marital", gate(wide(6, 3), top_k=2, score="sigmoid"), experts=[2, 3, 5]),
        named("third", gate(wide(6, 1)), experts=[3]),
    ],
    6,
    shows=lambda routing: {2, 3, 5} == set(routing["moe.marital"].experts.ravel()),
)
# Ties and groups are counted within a gate's own experts.
twins = linear("out", 6, 4, bias=False, weight=lambda random: uniform(1, 6)(random).repeat(4, 0))
tasks(
    "cgc_ties",
    6,
    [
        named("a", gate(twins, top_k=2), experts=[1, 2, 4, 6]),
        named("b", gate(twins, top_k=3, groups={"count": 2, "keep": 2}), experts=[0, 3, 5, 6]),
    ],
    7,
    ties=True,
)
tasks(
    "cgc_groups",
    6,
    [
        named("a", gate(wide(6, 4), top_k=2, groups={"count": 2, "keep": 1}), experts=[1, 2, 5, 7]),
        named(
            "b",
            gate(wide(6, 6), top_k=2, groups={"count": 3, "keep": 2, "by": "max"}),
            experts=[0, 2, 3, 4, 6, 7],
        ),
    ],
    8,
)
# An expert that no gate can choose is loaded and never run.
tasks(
    "cgc_an_expert_of_no_gate",
    5,
    [
        named("a", gate(wide(5, 2), top_k=1), experts=[0, 2]),
        named("b", gate(wide(5, 2)), experts=[0, 3]),
    ],
    4,
)


def ple_level(name, *, first, last, top_k=None):
    """Experts: two of task a, two of task b, two shared. A later level's see what their own gate
    of the level before combined: a's, b's and the shared one's are entries 0, 1 and 2."""
    sparse = {"top_k": top_k, "normalize": "sum"} if top_k else {}
    own = {"a": [0, 1, 4, 5], "b": [2, 3, 4, 5], "shared": [0, 1, 2, 3, 4, 5]}
    gates = []
    for entry, (task, experts) in enumerate(own.items()):
        if last and task == "shared":
            continue
        entry = {} if first else {"input": entry}
        gates.append(named(task, gate(mild(5, len(experts)), **sparse), experts=experts, **entry))
    inputs = None if first else [0, 0, 1, 1, 2, 2]
    return moe(name, gates, 6, linear("fc", 5, 5), op("relu"), inputs=inputs)


for name, top_k in (("dense", None), ("top_2", 2)):
    case_2(
        f"ple_{name}",
        [5],
        ple_level("level1", first=True, last=False, top_k=top_k),
        ple_level("level2", first=False, last=True, top_k=top_k),
        outputs=towers(["a", "b"], 5),
    )
case_2(
    "ple_three_levels",
    [5],
    ple_level("level1", first=True, last=False),
    ple_level("level2", first=False, last=False, top_k=3),
    ple_level("level3", first=False, last=True),
    outputs=towers(["a", "b"], 5),
    rows=4,
)
# One gate sees all the entries, and experts one each; entries of two axes.
case_2(
    "experts_of_one_entry_each",
    [3, 2, 4],
    moe(
        "moe",
        gate(op("flatten"), wide(24, 4), top_k=2),
        4,
        op("flatten"),
        linear("fc", 8, 3),
        inputs=[2, 0, 0, 1],
    ),
)
case_2(
    "gates_of_one_entry_each",
    [3, 4],
    moe(
        "moe",
        [
            named("whole", gate(op("flatten"), wide(12, 3), top_k=1)),
            named("last", gate(wide(4, 3), top_k=2), input=2),
            named("first", gate(wide(4, 3)), input=0),
        ],
        3,
        op("flatten"),
        linear("fc", 12, 2),
    ),
)
# Entries that are single numbers.
case_2(
    "experts_of_single_numbers",
    [3],
    moe("moe", gate(wide(3, 3), top_k=2), 3, op("tanh"), op("cube"), inputs=[1, 2, 1]),
)
case_of_inputs(
    "tasks_of_a_table",
    table(),
    moe(
        "experts",
        [named("income", gate(wide(9, 4), top_k=2)), named("marital", gate(wide(9, 4), top_k=2))],
        4,
        *plain_expert(9, 3),
    ),
    outputs=[
        output("income", op("select", index=0), linear("income", 3, 2), labels=["<=50K", ">50K"]),
        output("marital", op("select", index=1), linear("marital", 3, 3), labels=list("xyz")),
    ],
    config={
        "routing_reference": {
            "experts.income": {"share": [0.25, 0.25, 0.25, 0.25], "rows": 4},
            "experts.marital": {"share": [0.7, 0.1, 0.1, 0.1], "rows": 12},
        }
    },
)

# --- systems known by a paper ---------------------------------------------------------------------


def patches(name, nonlinear, **options):
    """Chen et al. 2022: one patch is the label's signal, another the cluster's centre; experts are
    convolutions of a patch each, summed, and so is the router. By formula the weight is the softmax
    score, in the authors' code the logit itself."""
    router = conv1d("out", 1, 4, 6, stride=6, bias=False), op("sum", axis=-1)
    expert = [conv1d("filters", 1, 6, 6, stride=6), op("sum", axis=-1)]
    if nonlinear:
        expert.insert(1, op("cube"))
    halves = op("reshape", shape=[2, 3]), op("sum", axis=-1)
    layer = moe("moe", gate(*router, top_k=1, **options), 4, *expert, *halves)
    case(name, [1, 24], layer, op("softmax"))


for name, nonlinear in (("linear", False), ("nonlinear", True)):
    patches(f"patches_{name}_by_formula", nonlinear)
    patches(f"patches_{name}_by_logit", nonlinear, score="none")
