"""A valid checkpoint for every op and every other part of the format, with all of its keys written out.

CASES: {name: (config, {tensor: shape})}. Tests damage them in every way and compare what is refused.
"""


def of(shape, *layers, **more):
    """A model of one input whose rows have this shape."""
    return {"model_type": "moed", "format_version": 3, "description": "one", "input": {"name": "x", "shape": shape},
            "layers": list(layers), "output": {"name": "y"}, **more}


def op(kind, name=None, **keys):
    return {"op": kind, **({} if name is None else {"name": name}), **keys}


def _attention(name, positions=4, size=6, heads=2, kv_heads=1, head_dim=2):
    projected = (heads + 2 * kv_heads) * head_dim
    return {f"{name}.in_proj_weight": [projected, size], f"{name}.in_proj_bias": [projected],
            f"{name}.out_proj.weight": [size, heads * head_dim], f"{name}.out_proj.bias": [size]}


def _linear(name, outputs, inputs, bias=True):
    return {f"{name}.weight": [outputs, inputs], **({f"{name}.bias": [outputs]} if bias else {})}


def _experts(name, count, outputs, inputs):
    return {key: shape for index in range(count)
            for key, shape in _linear(f"{name}.experts.{index}.out", outputs, inputs).items()}


def _mixture(gate, count=4, tensors=None, layer=None, experts=None, name="moe"):
    """Of rows of 5: `gate` has the policy; four experts."""
    gate = {"layers": [op("linear", "pick")], **gate}
    experts = {"count": count, "layers": [op("linear", "out")], **(experts or {})}
    return (of([5], op("moe", name, gate=gate, experts=experts, **(layer or {}))),
            {**_linear(f"{name}.gate.pick", count, 5), **_experts(name, count, 3, 5), **(tensors or {})})


def _named(config, **more):
    return {**config, **more}


ELEMENTWISE = ("relu", "silu", "tanh", "sigmoid", "cube", "relu2", "relu6", "mish", "hardswish", "hardsigmoid", "exp",
               "log", "sqrt", "softmax", "log_softmax")
ROTARY = {"dims": 2, "interleaved": True, "factor": 1.5}
CASES = {
    **{kind: (of([3, 4], op(kind)), {}) for kind in ELEMENTWISE},
    "linear": (of([3, 4], op("linear", "a")), _linear("a", 5, 4)),
    "conv1d": (of([4, 7], op("conv1d", "a", stride=2, padding=1, groups=2)), {"a.weight": [6, 2, 3], "a.bias": [6]}),
    "conv2d": (of([4, 6, 7], op("conv2d", "a", stride=2, padding=1, groups=2)),
               {"a.weight": [6, 2, 3, 2], "a.bias": [6]}),
    "conv2d, same": (of([2, 4, 5], op("conv2d", "a", stride=1, padding="same", groups=1)), {"a.weight": [3, 2, 2, 3]}),
    "batch_norm": (of([3, 4], op("batch_norm", "a", eps=1e-3)),
                   {f"a.{name}": [3] for name in ("weight", "bias", "running_mean", "running_var")}),
    "layer_norm": (of([3, 4], op("layer_norm", "a", eps=1e-3)), {"a.weight": [4], "a.bias": [4]}),
    "layer_norm, both axes": (of([3, 4], op("layer_norm", "a")), {"a.weight": [3, 4], "a.bias": [3, 4]}),
    "rms_norm": (of([3, 4], op("rms_norm", "a", eps=1e-3)), {"a.weight": [4]}),
    "group_norm": (of([6, 4], op("group_norm", "a", groups=2, eps=1e-3)), {"a.weight": [6], "a.bias": [6]}),
    "group_norm, without weights": (of([6, 4], op("group_norm", groups=3)), {}),
    "l2_normalize": (of([3, 4], op("l2_normalize", axis=0, eps=1e-3)), {}),
    "max_pool2d": (of([2, 5, 6], op("max_pool2d", kernel=2, stride=1, padding=1)), {}),
    "avg_pool2d": (of([2, 5, 6], op("avg_pool2d", kernel=3, stride=2, padding=1)), {}),
    "adaptive_avg_pool2d": (of([2, 5, 6], op("adaptive_avg_pool2d", size=[2, 3])), {}),
    "flatten": (of([3, 4], op("flatten")), {}), "reshape": (of([3, 4], op("reshape", shape=[2, 6])), {}),
    **{kind: (of([3, 4], op(kind, axis=1)), {}) for kind in ("sum", "mean", "max")},
    "select": (of([3, 4], op("select", index=1, axis=1)), {}),
    "select, last": (of([3, 4], op("select", index="last", axis=0)), {}),
    "slice": (of([3, 4], op("slice", axis=1, start=1, end=3)), {}), "transpose": (of([2, 3, 4], op("transpose")), {}),
    "gelu": (of([4], op("gelu", approximate="tanh")), {}), "scale": (of([4], op("scale", value=0.5)), {}),
    "leaky_relu": (of([4], op("leaky_relu", slope=0.2)), {}), "elu": (of([4], op("elu", alpha=0.5)), {}),
    "softplus": (of([4], op("softplus", beta=2, threshold=10)), {}), "clamp": (of([4], op("clamp", min=-1, max=1)), {}),
    "prelu": (of([3, 4], op("prelu", "a")), {"a.weight": [3]}),
    "glu": (of([3, 4], op("glu", "a", activation="silu", limit=7, alpha=1.5, shift=1)),
            {"a.gate.weight": [5, 4], "a.gate.bias": [5], "a.up.weight": [5, 4], "a.up.bias": [5]}),
    "glu, of format 2": (_named(of([4], op("glu", "a", activation="gelu")), format_version=2),
                         {"a.gate.weight": [5, 4], "a.up.weight": [5, 4]}),
    "position_embedding": (of([3, 4], op("position_embedding", "a")), {"a.weight": [3, 4]}),
    "class_token": (of([3, 4], op("class_token", "a")), {"a.weight": [4]}),
    "attention": (of([4, 6], op("attention", "a", heads=3)), _attention("a", heads=3, kv_heads=3)),
    "attention, all of it": (
        of([4, 6], op("attention", "a", heads=2, kv_heads=1, head_dim=2, over="row", causal=True, keep=False, window=2,
                      scale=0.5, clip=3, qk_norm="head", qk_norm_late=True, eps=1e-5,
                      rotary={**ROTARY, "theta": 100, "scaling": {"type": "yarn", "factor": 2, "original": 8,
                                                                  "fast": 30, "slow": 2, "truncate": False}})),
        {**_attention("a"), "a.q_norm.weight": [2], "a.k_norm.weight": [2], "a.sinks": [2], "a.bias": [2, 4, 4]}),
    "attention, llama3": (
        of([4, 6], op("attention", "a", heads=2, kv_heads=1, head_dim=2, qk_norm="all",
                      rotary={"scaling": {"type": "llama3", "factor": 2, "original": 8, "low": 1, "high": 4}})),
        {**_attention("a"), "a.q_norm.weight": [4], "a.k_norm.weight": [2]}),
    "attention, frequencies": (of([4, 6], op("attention", "a", heads=2, kv_heads=1, head_dim=2,
                                             rotary={**ROTARY, "frequencies": [0.5]})), _attention("a")),
    "add": (of([3, 4], op("relu", result="b"), op("add", "a", input="input", of=["b", "input"], value=0.5)),
            {"a.weight": [3, 1]}),
    "multiply": (of([3, 4], op("multiply", "a", of=["input"], value=2)), {"a.weight": [4]}),
    "divide": (of([1, 4], op("divide", "a", value=2), op("divide", of=["input"])), {"a.weight": [4]}),
    "concat": (of([3, 4], op("relu", result="b"), op("concat", of=["b", "input"], axis=1)), {}),
    "residual": (of([3, 4], op("residual", "r", layers=[op("linear", "a"), op("relu", result="b"),
                                                        op("add", of=["b"])])), _linear("a", 4, 4)),
    "rows of images": (of([2, 3, 3], op("flatten"), input={"name": "x", "shape": [2, 3, 3], "preprocess": {
        "scale": 0.5, "mean": [1, 2], "std": [0.5]}}, output={"name": "y", "labels": [str(i) for i in range(18)]}), {}),
    "of format 1": ({"model_type": "moed", "format_version": 1, "input": {"name": "x", "shape": [4]},
                     "layers": [op("linear", "a"), op("softmax")], "output": {"name": "y", "labels": ["n", "y"]}},
                    _linear("a", 2, 4)),
    "moe": (_named(_mixture({"kind": "plain", "score": "softmax", "top_k": 2, "normalize": "sum", "scale": 2})[0],
                   routing_reference={"moe": {"share": [1, 2, 3, 4], "weight": [1, 1, 1, 0],
                                              "probability": [1, 0, 0, 0], "rows": 9}}),
            _mixture({}, tensors={"moe.gate.select_bias": [4], "moe.gate.expert_scale": [4]})[1]),
    "moe, groups": _mixture({"score": "sigmoid", "top_k": 2, "normalize": "lp", "p": 3,
                             "groups": {"count": 2, "keep": 1, "by": "max"}}),
    "moe, sparsemixer": _mixture({"score": "sparsemixer", "top_k": 2, "normalize": "none", "jitter": 0.1}),
    "moe, capacity": _mixture({"score": "sqrt_softplus", "top_k": 2, "normalize": "sum",
                               "capacity": {"factor": 1.5, "minimum": 2, "round": "up", "rows": 1, "order": "score",
                                            "renormalize": True}}),
    "moe, places": _mixture({"score": "none", "normalize": "softmax", "top_k": 1, "capacity": {"places": 2}}),
    "moe, attentive": (
        of([5], op("moe", "moe", gate={"kind": "attentive", "key_layer": "hidden", "layers": [op("linear", "pick")]},
                   experts={"count": 2, "layers": [op("linear", "hidden"), op("linear", "out")]})),
        {**_linear("moe.gate.pick", 3, 5), "moe.gate.query.weight": [3, 3], "moe.gate.key.weight": [3, 3],
         **{key: shape for index in range(2) for key, shape in (
             *_linear(f"moe.experts.{index}.hidden", 3, 5).items(),
             *_linear(f"moe.experts.{index}.out", 2, 3).items())}}),
    "moe, positions": (
        of([4, 5], op("moe", "moe", route="positions", weigh="inputs",
                      gate={"layers": [op("linear", "pick")], "top_k": 1},
                      experts={"count": 3, "identity": 1, "layers": [op("linear", "out")]},
                      shared={"gate": "sigmoid", "layers": [op("linear", "out")]})),
        {**_linear("moe.gate.pick", 3, 5), **_experts("moe", 2, 5, 5), **_linear("moe.shared.out", 5, 5),
         "moe.shared_gate.weight": [1, 5]}),
    "moe, several gates": (
        of([3, 5], op("moe", "moe",
                      gates=[{"name": "a", "experts": [0, 2], "input": 1, "layers": [op("linear", "pick")]},
                             {"name": "b", "layers": [op("flatten"), op("linear", "pick")], "top_k": 1}],
                      experts={"count": 3, "inputs": [0, 0, 2], "layers": [op("linear", "out")]}),
           op("select", index=0)),
        {**_linear("moe.gates.a.pick", 2, 5), **_linear("moe.gates.b.pick", 3, 15), **_experts("moe", 3, 4, 5)}),
    "several inputs and outputs": (
        {"model_type": "moed", "format_version": 3,
         "inputs": [{"name": "age", "shape": [2], "preprocess": {"scale": 2, "mean": [1, 2], "std": [3, 4]},
                     "missing": 0.5},
                    {"name": "job", "shape": [1], "categories": 3, "words": ["a", "b", "c"], "unknown": 2, "missing": 1,
                     "layers": [op("embedding", "job"), op("flatten")]},
                    {"name": "token", "shape": [], "categories": 4, "layers": [op("embedding", "token")]},
                    {"name": "films", "shape": [5], "categories": 7, "length": "watched",
                     "layers": [op("embedding", "films"), op("mean", axis=0)]},
                    {"name": "watched", "shape": [1], "categories": 6}],
         "layers": [op("linear", "a")],
         "outputs": [{"name": "p", "labels": ["n", "y"], "layers": [op("linear", "b"), op("softmax")]}, {"name": "q"}]},
        {"job.weight": [3, 2], "token.weight": [4, 2], "films.weight": [7, 3], **_linear("a", 4, 9),
         **_linear("b", 2, 4)}),
    "rows of different length": (
        {"model_type": "moed", "format_version": 3,
         "inputs": [{"name": "films", "shape": [5], "categories": 7, "length": "watched",
                     "layers": [op("embedding", "films"), op("linear", "a"), op("relu", result="b"),
                                op("layer_norm", "n"), op("add", of=["b"])]},
                    {"name": "watched", "shape": [1], "categories": 6}],
         "layers": [op("attention", "s", heads=1), op("residual", layers=[op("softmax")]),
                    op("moe", "moe", route="positions", gate={"layers": [op("linear", "pick")], "top_k": 1},
                       experts={"count": 2, "layers": [op("linear", "out")]}),
                    op("l2_normalize", axis=1), op("slice", axis=1, end=2), op("relu", result="c"),
                    op("concat", of=["c"], axis=1)],
         "outputs": [{"name": "all"}, {"name": "last", "layers": [op("select", index="last", axis=0)]},
                     {"name": "most", "layers": [op("max", axis=0)]}]},
        {"films.weight": [7, 4], **_linear("a", 4, 4), "n.weight": [4], "n.bias": [4],
         "s.in_proj_weight": [12, 4], "s.out_proj.weight": [4, 4], **_linear("moe.gate.pick", 2, 4),
         **_experts("moe", 2, 4, 4)}),
}
