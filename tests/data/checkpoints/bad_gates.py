"""Bad checkpoints of format 2: gates, one and several. A case is (name, base, edits, what the error
must hold)."""

from checkpoint import drop, put, tensor
from good import encoder, every_op, numbers, tasks

GATE = "layers.6.layers.0.gate"
AT_GATE = "config.json: layers[6].layers[0].gate"
GATES = "layers.0.gates"
AT_GATES = "config.json: layers[0].gates"
LAST = "layers.1.gates.0"
AT_LAST = "config.json: layers[1].gates[0]"


def of_gate(key, *values):
    """One case per value of a key of the encoder's gate, which has 4 experts in 2 groups of 2."""
    cases = []
    for name, value in values:
        case = f"{key.replace('.', '_')}_{name}"
        cases.append((case, encoder, [put(f"{GATE}.{key}", value)], [f"{AT_GATE}.{key}: "]))
    return cases


GROUPS = [
    *of_gate("groups", ("number", 2), ("list", [])),
    *of_gate("groups.count", ("zero", 0), ("negative", -2), ("text", "2"), ("fraction", 2.0), ("does_not_divide", 3),
             ("over_experts", 8), ("huge", 2**40)),
    *of_gate("groups.keep", ("zero", 0), ("over_count", 3), ("negative", -1), ("fraction", 1.0), ("null", None)),
    *of_gate("groups.by", ("unknown", "top3"), ("number", 2)),
    ("groups_without_count", encoder, [drop(GATE + ".groups.count")], [AT_GATE + ".groups.count: missing"]),
    ("groups_without_keep", encoder, [drop(GATE + ".groups.keep")], [AT_GATE + ".groups.keep: missing"]),
    ("groups_unknown_key", encoder, [put(GATE + ".groups.top", 2)], [AT_GATE + ".groups: unknown key 'top'"]),
    ("groups_top_k_over_those_kept", encoder, [put(GATE + ".top_k", 3)], [AT_GATE + ".groups.keep: 2 experts in 1 group"]),
    ("groups_of_a_dense_gate", encoder, [drop(GATE + ".top_k")], [AT_GATE + ".groups.keep: 2 experts in 1 group"]),
]

CAPACITY = [
    *of_gate("capacity", ("number", 1.25), ("list", [1.25])),
    *of_gate("capacity.factor", ("zero", 0), ("negative", -1.25), ("text", "1.25"), ("null", None)),
    *of_gate("capacity.minimum", ("zero", 0), ("negative", -1), ("fraction", 2.0), ("text", "2"), ("huge", 2**63 - 1)),
    ("capacity_without_factor", encoder, [drop(GATE + ".capacity.factor")], [AT_GATE + ".capacity.factor: missing"]),
    ("capacity_unknown_key", encoder, [put(GATE + ".capacity.min", 4)], [AT_GATE + ".capacity: unknown key 'min'"]),
]

P = AT_GATES + "[1].p: "

SCORES = [
    ("p_below_1", tasks, [put(GATES + ".1.p", 0.5)], [P]),
    ("p_zero", tasks, [put(GATES + ".1.p", 0)], [P]),
    ("p_text", tasks, [put(GATES + ".1.p", "2")], [P]),
    ("p_beyond_f32", tasks, [put(GATES + ".1.p", 1e300)], [P]),
    ("p_without_lp", tasks, [put(GATES + ".1.normalize", "sum")], [AT_GATES + "[1]: unknown key 'p'"]),
    ("jitter_negative", tasks, [put(LAST + ".jitter", -0.01)], [AT_LAST + ".jitter: "]),
    ("jitter_text", tasks, [put(LAST + ".jitter", "0.01")], [AT_LAST + ".jitter: "]),
    ("jitter_beyond_f32", tasks, [put(LAST + ".jitter", 1e39)], [AT_LAST + ".jitter: "]),
    ("jitter_without_sparsemixer", tasks, [put(LAST + ".score", "softmax")], [AT_LAST + ": unknown key 'jitter'"]),
    ("sparsemixer_top_1", tasks, [put(LAST + ".top_k", 1)], [AT_LAST + ".top_k: ", "needs top_k 2"]),
    ("sparsemixer_top_3", tasks, [put(GATES + ".1.score", "sparsemixer"), put(GATES + ".1.top_k", 3),
                                  drop(GATES + ".1.normalize"), drop(GATES + ".1.p")], [AT_GATES + "[1].top_k: "]),
    ("sparsemixer_dense_of_3", tasks, [put(GATES + ".1.score", "sparsemixer"), drop(GATES + ".1.normalize"),
                                       drop(GATES + ".1.p")], [AT_GATES + "[1].top_k: "]),
    ("sparsemixer_normalized", tasks, [put(LAST + ".normalize", "sum")], [AT_LAST + ".normalize: ", "'none'"]),
    ("sparsemixer_of_one_expert", tasks, [put(GATES + ".0.experts", [1]), put(GATES + ".0.score", "sparsemixer"),
                                          drop(GATES + ".0.top_k"), drop("routing_reference"),
                                          tensor("level1.gates.a.out.weight", numbers(1, 4))], [AT_GATES + "[0].top_k: "]),
    ("sparsemixer_with_select_bias", tasks, [tensor("level2.gates.a.select_bias", numbers(2))],
     [AT_LAST + ".score: 'sparsemixer' goes with no tensor select_bias"]),
]

SEVERAL = [
    ("gates_and_gate", tasks, [put("layers.0.gate", {"layers": [{"op": "linear", "name": "out"}]})],
     ["config.json: layers[0].gates: a MoE layer has either"]),
    ("gates_and_no_gate", tasks, [drop(GATES)], ["config.json: layers[0].gate"]),
    ("gates_object", tasks, [put(GATES, {})], [AT_GATES + ": expected a list"]),
    ("gates_none", tasks, [put(GATES, [])], [AT_GATES + ": expected a list"]),
    ("gates_entry_text", tasks, [put(GATES + ".0", "a")], [AT_GATES + "[0]: expected an object"]),
    ("gates_entry_unknown_key", tasks, [put(GATES + ".0.expert", [0])], [AT_GATES + "[0]: unknown key 'expert'"]),
    ("gates_without_name", tasks, [drop(GATES + ".0.name")], [AT_GATES + "[0].name: missing"]),
    ("gates_name_number", tasks, [put(GATES + ".0.name", 0)], [AT_GATES + "[0].name: expected a string"]),
    ("gates_name_empty", tasks, [put(GATES + ".0.name", "")], [AT_GATES + "[0].name: "]),
    ("gates_name_with_slash", tasks, [put(GATES + ".0.name", "a/b")], [AT_GATES + "[0].name: "]),
    ("gates_name_too_long", tasks, [put(GATES + ".0.name", "a" * 65)], [AT_GATES + "[0].name: ", "64"]),
    ("gates_of_one_name", tasks, [put(GATES + ".1.name", "a")], [AT_GATES + "[1].name: two", "'level1.a'"]),
    # Two layers, and yet one "level1.a" in the statistics.
    ("gates_routing_of_one_name", tasks, [put("layers.1", {
        "op": "moe", "name": "level1.a", "gate": {"layers": [{"op": "flatten"}, {"op": "linear", "name": "out"}]},
        "experts": {"count": 2, "layers": [{"op": "relu"}]}})], ["config.json: layers[1].name: ", "'level1.a'"]),
    ("gates_attentive", tasks, [put(GATES + ".0.kind", "attentive"), put(GATES + ".0.key_layer", "fc")],
     [AT_GATES + "[0].kind: ", "attentive"]),
    ("gates_gives_other_count", tasks, [tensor("level1.gates.a.out.weight", numbers(3, 4))],
     [AT_GATES + "[0].layers: give [3]", "[2]"]),
    ("gates_top_k_over_its_experts", tasks, [put(GATES + ".0.top_k", 3)],
     [AT_GATES + "[0].top_k: expected an integer from 1 to 2"]),
    ("gates_select_bias_of_all", tasks, [tensor("level1.gates.a.select_bias", numbers(3))],
     ["safetensors: tensor 'level1.gates.a.select_bias' has shape [3], expected [2]"]),
    ("gates_tensor_of_no_gate", tasks, [tensor("level1.gates.b.out.weight", numbers(3, 4))],
     ["safetensors: tensor 'level1.gates.b.out.weight' is used by no layer"]),
    ("gates_with_moe", tasks, [put(GATES + ".0.layers", [
        {"op": "moe", "name": "m", "gate": {"layers": [{"op": "relu"}]},
         "experts": {"count": 4, "layers": [{"op": "relu"}]}}])], [AT_GATES + "[0].layers[0]: ", "MoE"]),
    ("gates_experts_number", tasks, [put(GATES + ".0.experts", 2)], [AT_GATES + "[0].experts: "]),
    ("gates_experts_none", tasks, [put(GATES + ".0.experts", [])], [AT_GATES + "[0].experts: "]),
    ("gates_experts_descending", tasks, [put(GATES + ".0.experts", [2, 0])], [AT_GATES + "[0].experts: ", "ascending"]),
    ("gates_experts_twice", tasks, [put(GATES + ".0.experts", [2, 2])], [AT_GATES + "[0].experts: ", "ascending"]),
    ("gates_experts_beyond", tasks, [put(GATES + ".0.experts", [0, 3])], [AT_GATES + "[0].experts: ", "entry 1"]),
    ("gates_experts_negative", tasks, [put(GATES + ".0.experts", [-1, 0])], [AT_GATES + "[0].experts: ", "entry 0"]),
    ("gates_experts_fraction", tasks, [put(GATES + ".0.experts", [0, 1.0])], [AT_GATES + "[0].experts: ", "entry 1"]),
    ("gates_experts_huge", tasks, [put(GATES + ".0.experts", [0, 2**32 + 1])], [AT_GATES + "[0].experts: ", "entry 1"]),
    ("gates_input_beyond", tasks, [put(LAST + ".input", 2)], [AT_LAST + ".input: "]),
    ("gates_input_negative", tasks, [put(LAST + ".input", -1)], [AT_LAST + ".input: "]),
    ("gates_input_list", tasks, [put(LAST + ".input", [0])], [AT_LAST + ".input: "]),
    ("gate_with_name", every_op, [put("format_version", 2), put("layers.12.gate.name", "a")],
     ["config.json: layers[12].gate: unknown key 'name'"]),
    ("gate_with_experts", every_op, [put("format_version", 2), put("layers.12.gate.experts", [0, 1, 2])],
     ["config.json: layers[12].gate: unknown key 'experts'"]),
    ("gate_with_input", every_op, [put("format_version", 2), put("layers.12.gate.input", 0)],
     ["config.json: layers[12].gate: unknown key 'input'"]),
]

INPUTS = "layers.1.experts.inputs"
AT_INPUTS = "config.json: layers[1].experts.inputs: "

EXPERT_INPUTS = [
    ("expert_inputs_number", tasks, [put(INPUTS, 1)], [AT_INPUTS]),
    ("expert_inputs_too_few", tasks, [put(INPUTS, [0])], [AT_INPUTS, "2"]),
    ("expert_inputs_too_many", tasks, [put(INPUTS, [0, 1, 0])], [AT_INPUTS, "2"]),
    ("expert_inputs_beyond", tasks, [put(INPUTS, [0, 2])], [AT_INPUTS, "entry 1"]),
    ("expert_inputs_negative", tasks, [put(INPUTS, [-1, 0])], [AT_INPUTS, "entry 0"]),
    ("expert_inputs_text", tasks, [put(INPUTS, ["0", 1])], [AT_INPUTS, "entry 0"]),
    ("expert_inputs_huge", tasks, [put(INPUTS, [2**32, 1])], [AT_INPUTS, "entry 0"]),
    # The first level sees [4], whose entries are single numbers.
    ("expert_inputs_of_single_numbers", tasks, [put("layers.0.experts.inputs", [0, 1, 2])],
     ["config.json: layers[0].experts.layers[0]"]),
]

CASES = GROUPS + CAPACITY + SCORES + SEVERAL + EXPERT_INPUTS
