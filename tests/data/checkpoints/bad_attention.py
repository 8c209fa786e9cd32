"""Bad checkpoints of format 3: attention, gated linear units, experts and gates. A case is
(name, base, edits, what the error must hold)."""

from checkpoint import layers
from good import graph, numbers

FIRST = "config.json: layers[0]"
TENSORS = {"l.in_proj_weight": numbers(12, 4), "l.out_proj.weight": numbers(4, 4)}
GLU = {"l.gate.weight": numbers(2, 4), "l.up.weight": numbers(2, 4)}


def attention(tensors=None, version=3, **options):
    return layers([3, 4], {"op": "attention", "name": "l", "heads": 2, **options},
                  tensors={**TENSORS, **(tensors or {})}, version=version)


def glu(version=3, **options):
    return layers([4], {"op": "glu", "name": "l", **options}, tensors=GLU, version=version)


def mixture(gate=None, tensors=None, version=3, several=False, experts=None, **options):
    own = {"layers": [{"op": "linear", "name": "out"}], **(gate or {})}
    name = "gates.a" if several else "gate"
    chooser = {"gates": [{**own, "name": "a"}]} if several else {"gate": own}
    moe = {"op": "moe", "name": "m", **chooser, **options,
           "experts": {"count": 3, "layers": [{"op": "linear", "name": "fc"}], **(experts or {})}}
    weights = {f"m.experts.{e}.fc.weight": numbers(2, 2) for e in range(3)}
    return layers([2], moe, tensors={f"m.{name}.out.weight": numbers(3, 2), **weights, **(tensors or {})}, version=version)


def bad(name, edit, *parts):
    return name, graph, [edit], list(parts)


ROTARY = FIRST + ".rotary"
SCALING = ROTARY + ".scaling"


def rotary(**options):
    return attention(rotary=options)


CASES = [bad(f"attention_{key}_in_format_2", attention(version=2, **{key: value}),
             f"{FIRST}.{key}: needs \"format_version\": 3")
         for key, value in (("kv_heads", 1), ("head_dim", 2), ("causal", True), ("window", 1), ("scale", 1),
                            ("rotary", {}), ("qk_norm", "head"))] + [
    bad("attention_sinks_in_format_2", attention({"l.sinks": numbers(2)}, version=2), "tensor 'l.sinks' is used by no layer"),
    bad("attention_bias_in_format_2", attention({"l.bias": numbers(2, 3, 3)}, version=2), "tensor 'l.bias' is used by no layer"),
    bad("attention_kv_heads_do_not_divide", attention(heads=4, kv_heads=3), FIRST + ".kv_heads: 3 does not divide 4 heads"),
    bad("attention_kv_heads_over_heads", attention(kv_heads=3), FIRST + ".kv_heads: expected an integer from 1 to 2"),
    bad("attention_kv_heads_tensor", attention(kv_heads=1), "tensor 'l.in_proj_weight' has shape [12, 4], expected [8, 4]"),
    bad("attention_head_dim_zero", attention(head_dim=0), FIRST + ".head_dim: expected an integer"),
    bad("attention_head_dim_huge", attention(head_dim=2**26), FIRST + ".head_dim: expected an integer"),
    bad("attention_of_more_than_a_row", layers([2**20, 1], {"op": "attention", "name": "l", "heads": 1, "head_dim": 2**12,
                                                            "rotary": {}}, version=3),
        FIRST + ": queries, keys and values exceed"),
    bad("attention_heads_huge", attention(heads=2**26, head_dim=1), FIRST + ".head_dim: expected an integer"),
    bad("attention_head_dim_tensor", attention(head_dim=3), "tensor 'l.in_proj_weight' has shape [12, 4], expected [18, 4]"),
    bad("attention_causal_number", attention(causal=1), FIRST + ".causal: expected true or false"),
    bad("attention_window_zero", attention(window=0), FIRST + ".window: expected an integer from 1"),
    bad("attention_scale_text", attention(scale="1"), FIRST + ".scale: expected a number"),
    bad("attention_qk_norm_unknown", attention(qk_norm="rms"), FIRST + ".qk_norm: 'rms' is not one of none, head, all"),
    bad("attention_qk_norm_missing", attention(qk_norm="head"), "tensor 'l.q_norm.weight' is missing"),
    bad("attention_qk_norm_size", attention({"l.q_norm.weight": numbers(4), "l.k_norm.weight": numbers(2)}, qk_norm="head"),
        "tensor 'l.q_norm.weight' has shape [4], expected [2]"),
    bad("attention_qk_norm_eps", attention({"l.q_norm.weight": numbers(2), "l.k_norm.weight": numbers(2)}, qk_norm="head", eps=-1),
        FIRST + ".eps: expected a number of at least 0"),
    bad("attention_eps_without_norm", attention(eps=1), FIRST + ": unknown key 'eps'"),
    bad("attention_sinks_size", attention({"l.sinks": numbers(3)}), "tensor 'l.sinks' has shape [3], expected [2]"),
    bad("attention_bias_size", attention({"l.bias": numbers(2, 3, 4)}), "tensor 'l.bias' has shape [2, 3, 4], expected [2, 3, 3]"),
    bad("rotary_number", attention(rotary=1), ROTARY + ": expected an object"),
    bad("rotary_dims_odd", rotary(dims=1), ROTARY + ".dims: 1 number cannot make pairs"),
    bad("rotary_dims_over_head", rotary(dims=4), ROTARY + ".dims: expected an integer from 1 to 2"),
    bad("rotary_theta_zero", rotary(theta=0), ROTARY + ".theta: expected a number above 0"),
    bad("rotary_theta_one", rotary(theta=1), ROTARY + ".theta: expected another number than 1"),
    bad("rotary_interleaved_text", rotary(interleaved="yes"), ROTARY + ".interleaved: expected true or false"),
    bad("rotary_frequencies_count", rotary(frequencies=[1, 2]), ROTARY + ".frequencies: 2 numbers for 1 pair"),
    bad("rotary_frequencies_and_theta", rotary(frequencies=[1], theta=10), ROTARY + ": unknown key 'theta'"),
    bad("rotary_unknown_key", rotary(base=10000), ROTARY + ": unknown key 'base'"),
    bad("rotary_scaling_unknown", rotary(scaling={"type": "dynamic", "factor": 2}),
        SCALING + ".type: 'dynamic' is not one of linear, llama3, yarn"),
    bad("rotary_scaling_factor", rotary(scaling={"type": "linear"}), SCALING + ".factor: missing"),
    bad("rotary_scaling_factor_zero", rotary(scaling={"type": "linear", "factor": 0}), SCALING + ".factor: expected a number above 0"),
    bad("rotary_linear_original", rotary(scaling={"type": "linear", "factor": 2, "original": 9}), SCALING + ": unknown key 'original'"),
    bad("rotary_llama3_low", rotary(scaling={"type": "llama3", "factor": 2, "original": 9, "high": 1}), SCALING + ".low: missing"),
    bad("rotary_llama3_crossed", rotary(scaling={"type": "llama3", "factor": 2, "original": 9, "low": 4, "high": 1}),
        SCALING + ".low: expected less than \"high\""),
    bad("rotary_yarn_original", rotary(scaling={"type": "yarn", "factor": 2}), SCALING + ".original: missing"),
    bad("glu_limit_in_format_2", glu(version=2, limit=1), FIRST + ".limit: needs \"format_version\": 3"),
    bad("glu_limit_zero", glu(limit=0), FIRST + ".limit: expected a number above 0"),
    bad("glu_alpha_of_gelu", glu(activation="gelu", alpha=1.5), FIRST + ".alpha: goes with activation \"silu\" only"),
    bad("glu_shift_text", glu(shift="1"), FIRST + ".shift: expected a number"),
    bad("weigh_in_format_2", mixture(version=2, weigh="inputs"), FIRST + ".weigh: needs \"format_version\": 3"),
    bad("weigh_unknown", mixture(weigh="both"), FIRST + ".weigh: 'both' is not one of outputs, inputs"),
    bad("weigh_inputs_of_several_gates", mixture(several=True, weigh="inputs"), FIRST + ".weigh: several gates"),
    bad("identity_in_format_2", mixture(version=2, experts={"identity": 1}), FIRST + ".experts.identity: needs"),
    bad("identity_all", mixture(experts={"identity": 3}), FIRST + ".experts.identity: expected an integer from 0 to 2"),
    bad("identity_with_tensors", mixture(experts={"identity": 1}), "tensor 'm.experts.2.fc.weight' is used by no layer"),
    bad("identity_of_other_shape", layers([3], {"op": "moe", "name": "m", "gate": {"layers": [{"op": "tanh"}]},
                                               "experts": {"count": 3, "identity": 2, "layers": [{"op": "slice", "end": 2}]}},
                                          version=3), FIRST + ".experts: expert 1 gives [3], expert 0 gives [2]"),
    bad("sqrt_softplus_in_format_2", mixture({"score": "sqrt_softplus"}, version=2), FIRST + ".gate.score: 'sqrt_softplus' needs"),
    bad("expert_scale_in_format_2", mixture(tensors={"m.gate.expert_scale": numbers(3)}, version=2),
        "tensor 'm.gate.expert_scale' is used by no layer"),
    bad("expert_scale_size", mixture(tensors={"m.gate.expert_scale": numbers(2)}),
        "tensor 'm.gate.expert_scale' has shape [2], expected [3]"),
]


def capacity(version=3, gate=None, tensors=None, **options):
    return mixture({"top_k": 2, "normalize": "sum", **(gate or {}), "capacity": options}, tensors, version)


CAPACITY = FIRST + ".gate.capacity"
CASES += [bad(f"capacity_{key}_in_format_2", capacity(version=2, **{"factor": 1, key: value}),
              f"{CAPACITY}.{key}: needs \"format_version\": 3")
          for key, value in (("places", 2), ("round", "up"), ("rows", 1), ("order", "item"), ("renormalize", True))] + [
    bad("capacity_places_zero", capacity(places=0), CAPACITY + ".places: expected an integer from 1"),
    bad("capacity_places_and_factor", capacity(places=2, factor=1), CAPACITY + ": unknown key 'factor'"),
    bad("capacity_places_and_minimum", capacity(places=2, minimum=1), CAPACITY + ": unknown key 'minimum'"),
    bad("capacity_neither", capacity(order="item"), CAPACITY + ".factor: missing"),
    bad("capacity_round_unknown", capacity(factor=1, round="nearest"), CAPACITY + ".round: 'nearest' is not one of down, up"),
    bad("capacity_rows_zero", capacity(factor=1, rows=0), CAPACITY + ".rows: expected an integer from 1"),
    bad("capacity_order_unknown", capacity(factor=1, order="random"), CAPACITY + ".order: 'random' is not one of choice, item"),
    bad("capacity_renormalize_number", capacity(factor=1, renormalize=1), CAPACITY + ".renormalize: expected true or false"),
    bad("capacity_renormalize_without_sum", capacity(gate={"normalize": "none"}, factor=1, renormalize=True),
        CAPACITY + ".renormalize: goes with normalize \"sum\" only"),
    bad("capacity_renormalize_expert_scale", capacity(tensors={"m.gate.expert_scale": numbers(3)}, factor=1, renormalize=True),
        FIRST + ".gate.capacity: \"renormalize\" does not go with the tensor expert_scale"),
]
