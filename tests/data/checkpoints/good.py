"""The good checkpoints, which the bad ones are made from; see make.py."""

import numpy as np

from checkpoint import Checkpoint


def numbers(*shape, seed=0):
    """Small and the same in every run; f16 holds them exactly."""
    count = int(np.prod(shape))
    return ((np.arange(count) * 7 + 3 * seed) % 11 - 5).reshape(shape) / 8


def small():
    """As few bytes as a MoE with preprocessing, labels and a reference can have: the tests damage
    every one of them."""
    config = {
        "model_type": "moed", "format_version": 1,
        "input": {"name": "x", "shape": [4], "preprocess": {"scale": 0.5, "mean": [0.25], "std": [2, 1, 2, 1]}},
        "layers": [{"op": "moe", "name": "moe",
                    "gate": {"layers": [{"op": "linear", "name": "out"}], "top_k": 1, "normalize": "sum"},
                    "experts": {"count": 2, "layers": [{"op": "linear", "name": "fc"}, {"op": "softmax"}]}}],
        "output": {"name": "y", "labels": ["a", "b", "c"]},
        "routing_reference": {"moe": {"share": [0.5, 0.5], "rows": 10}},
    }
    tensors = {"moe.gate.out.weight": numbers(2, 4),
               "moe.experts.0.fc.weight": numbers(3, 4, seed=1), "moe.experts.0.fc.bias": numbers(3),
               "moe.experts.1.fc.weight": numbers(3, 4, seed=2), "moe.experts.1.fc.bias": numbers(3, seed=3)}
    return Checkpoint(config, tensors)


def image():
    """A small image classifier: what the shipped models are made of."""
    config = {
        "model_type": "moed", "format_version": 1, "description": "damaged in every way by the tests",
        "input": {"name": "image", "shape": [1, 6, 6]},
        "layers": [{"op": "conv2d", "name": "stem", "padding": 1},
                   {"op": "batch_norm", "name": "norm"},
                   {"op": "relu"},
                   {"op": "max_pool2d", "kernel": 2},
                   {"op": "residual", "layers": [{"op": "conv2d", "name": "mix", "padding": 1}]},
                   {"op": "moe", "name": "moe",
                    "gate": {"layers": [{"op": "flatten"}, {"op": "linear", "name": "out"}], "top_k": 2},
                    "experts": {"count": 3, "layers": [{"op": "flatten"}, {"op": "linear", "name": "fc"}]}}],
    }
    tensors = {"stem.weight": numbers(2, 1, 3, 3), "stem.bias": numbers(2),
               "norm.weight": numbers(2, seed=1), "norm.bias": numbers(2),
               "norm.running_mean": numbers(2), "norm.running_var": [0.5, 2],
               "mix.weight": numbers(2, 2, 3, 3, seed=2),
               "moe.gate.out.weight": numbers(3, 18), "moe.gate.out.bias": numbers(3)}
    tensors.update({f"moe.experts.{e}.fc.weight": numbers(2, 18, seed=e) for e in range(3)})
    return Checkpoint(config, tensors)


def every_op():
    """Every op that `image` has not, an attentive gate, f16 and two shards."""
    config = {
        "model_type": "moed", "format_version": 1,
        "input": {"shape": [2, 8, 8]},
        "layers": [{"op": "conv2d", "name": "conv", "stride": 2, "padding": 1, "groups": 2},
                   {"op": "avg_pool2d", "kernel": 2, "stride": 1, "padding": 1},
                   {"op": "scale", "value": 0.5}, {"op": "tanh"},
                   {"op": "reshape", "shape": [4, 25]},
                   {"op": "conv1d", "name": "line", "stride": 3},
                   {"op": "layer_norm", "name": "ln"},
                   {"op": "gelu", "approximate": "tanh"},
                   {"op": "residual", "layers": [{"op": "rms_norm", "name": "rms", "eps": 1e-6},
                                                 {"op": "linear", "name": "mix"}, {"op": "silu"}]},
                   {"op": "mean", "axis": 0},
                   {"op": "cube"}, {"op": "sigmoid"},
                   {"op": "moe", "name": "attentive",
                    "gate": {"kind": "attentive", "layers": [{"op": "linear", "name": "hidden"}],
                             "key_layer": "key", "score": "none", "top_k": 2, "normalize": "softmax", "scale": 2},
                    "experts": {"count": 3, "layers": [{"op": "linear", "name": "key"}, {"op": "relu"},
                                                       {"op": "linear", "name": "out"}]}},
                   {"op": "reshape", "shape": [2, 2]}, {"op": "sum", "axis": -1},
                   {"op": "gelu"}, {"op": "softmax"}],
        "output": {"labels": ["no", "yes"]},
        "routing_reference": {"attentive": {"share": [0.5, 0.25, 0.25], "rows": 1000}},
    }
    tensors = {"conv.weight": numbers(4, 1, 3, 3), "line.weight": numbers(3, 4, 2), "line.bias": numbers(3),
               "ln.weight": numbers(8), "ln.bias": numbers(8, seed=1), "rms.weight": numbers(8, seed=2),
               "mix.weight": numbers(8, 8),
               "attentive.gate.hidden.weight": numbers(5, 8), "attentive.gate.select_bias": numbers(3),
               "attentive.gate.query.weight": numbers(5, 5), "attentive.gate.key.weight": numbers(5, 5, seed=1)}
    for e in range(3):
        tensors[f"attentive.experts.{e}.key.weight"] = numbers(5, 8, seed=e)
        tensors[f"attentive.experts.{e}.out.weight"] = numbers(4, 5, seed=e)
    return Checkpoint(config, tensors, dtype="F16", shards=2)


def tasks():
    """Several inputs, experts of tasks on two levels, several outputs."""
    level = {"op": "moe", "name": "level1",
             "gates": [{"name": "a", "layers": [{"op": "linear", "name": "out"}], "experts": [0, 2], "top_k": 1},
                       {"name": "both", "layers": [{"op": "linear", "name": "out"}], "normalize": "lp", "p": 3}],
             "experts": {"count": 3, "layers": [{"op": "linear", "name": "fc"}]}}
    last = {"op": "moe", "name": "level2",
            "gates": [{"name": "a", "layers": [{"op": "linear", "name": "out"}], "input": 0,
                       "score": "sparsemixer", "top_k": 2, "jitter": 0.1}],
            "experts": {"count": 2, "inputs": [0, 1], "layers": [{"op": "linear", "name": "fc"}]}}
    config = {
        "model_type": "moed", "format_version": 2,
        "inputs": [{"name": "numeric", "shape": [2], "preprocess": {"mean": [1, 2], "std": [2, 2]}},
                   {"name": "word", "shape": [1], "categories": 3,
                    "layers": [{"op": "embedding", "name": "word"}, {"op": "tanh"}]}],
        "layers": [level, last],
        "outputs": [{"name": "class", "labels": ["no", "yes"],
                     "layers": [{"op": "select", "index": 0}, {"op": "linear", "name": "class"}]},
                    {"name": "raw"}],
        "routing_reference": {"level1.a": {"share": [0.5, 0.5], "rows": 10}},
    }
    tensors = {"word.weight": numbers(4, 2), "class.weight": numbers(2, 3),
               "level1.gates.a.out.weight": numbers(2, 4), "level1.gates.both.out.weight": numbers(3, 4),
               "level2.gates.a.out.weight": numbers(2, 3)}
    tensors.update({f"level1.experts.{e}.fc.weight": numbers(3, 4, seed=e) for e in range(3)})
    tensors.update({f"level2.experts.{e}.fc.weight": numbers(3, 3, seed=e) for e in range(2)})
    return Checkpoint(config, tensors)


def encoder():
    """An image as a sequence of patches, whose positions are routed."""
    sparse = {"op": "moe", "name": "moe", "route": "positions",
              "gate": {"layers": [{"op": "linear", "name": "out"}], "score": "sigmoid", "normalize": "sum",
                       "top_k": 2, "groups": {"count": 2, "keep": 1, "by": "top2"},
                       "capacity": {"factor": 1.5, "minimum": 2}},
              "experts": {"count": 4, "layers": [{"op": "glu", "name": "fc", "activation": "gelu"}]},
              "shared": {"layers": [{"op": "glu", "name": "fc"}], "gate": "sigmoid"}}
    config = {
        "model_type": "moed", "format_version": 2,
        "input": {"name": "image", "shape": [1, 4, 4]},
        "layers": [{"op": "conv2d", "name": "patches", "stride": 2},
                   {"op": "reshape", "shape": [2, 4]},
                   {"op": "transpose"},
                   {"op": "class_token", "name": "token"},
                   {"op": "position_embedding", "name": "positions"},
                   {"op": "residual", "layers": [{"op": "attention", "name": "attention", "heads": 2}]},
                   {"op": "residual", "layers": [sparse]},
                   {"op": "select", "index": 0, "axis": 0}],
        "output": {"name": "y"},
    }
    tensors = {"patches.weight": numbers(2, 1, 2, 2), "token.weight": numbers(2), "positions.weight": numbers(5, 2),
               "attention.in_proj_weight": numbers(6, 2), "attention.in_proj_bias": numbers(6),
               "attention.out_proj.weight": numbers(2, 2), "attention.out_proj.bias": numbers(2, seed=1),
               "moe.gate.out.weight": numbers(4, 2), "moe.gate.select_bias": numbers(4, seed=2),
               "moe.shared_gate.weight": numbers(1, 2)}
    for part in ["shared", *(f"experts.{e}" for e in range(4))]:
        for seed, name in enumerate(("gate.weight", "up.weight")):
            tensors[f"moe.{part}.fc.{name}"] = numbers(2, 2, seed=seed + len(part))
    return Checkpoint(config, tensors)


def graph():
    """Layers that read each other's values by name."""
    config = {
        "model_type": "moed", "format_version": 3,
        "input": {"name": "x", "shape": [2, 3]},
        "layers": [{"op": "linear", "name": "a", "result": "main"},
                   {"op": "linear", "name": "b", "input": "input"},
                   {"op": "add", "name": "sum", "of": ["main"], "value": 0.5, "result": "both"},
                   {"op": "mean", "axis": 1},
                   {"op": "reshape", "shape": [2, 1]},
                   {"op": "multiply", "of": ["both"]},
                   {"op": "concat", "of": ["main", "input"], "axis": 1},
                   {"op": "moe", "name": "moe", "route": "positions",
                    "gate": {"layers": [{"op": "linear", "name": "out"}], "top_k": 1},
                    "experts": {"count": 2, "layers": [{"op": "linear", "name": "fc", "result": "y"},
                                                       {"op": "sigmoid"}, {"op": "multiply", "of": ["y"]}]}}],
    }
    tensors = {"a.weight": numbers(3, 3), "b.weight": numbers(3, 3, seed=1), "sum.weight": numbers(3),
               "moe.gate.out.weight": numbers(2, 9)}
    tensors.update({f"moe.experts.{e}.fc.weight": numbers(2, 9, seed=e) for e in range(2)})
    return Checkpoint(config, tensors)


def functions():
    """Every function, norm and pool of format 3."""
    config = {
        "model_type": "moed", "format_version": 3,
        "input": {"name": "x", "shape": [4, 5, 6]},
        "layers": [{"op": "adaptive_avg_pool2d", "size": [2, 3]},
                   {"op": "group_norm", "name": "norm", "groups": 2},
                   {"op": "prelu", "name": "slopes"},
                   {"op": "slice", "axis": 1, "start": 1, "end": 2},
                   {"op": "leaky_relu", "slope": 0.1}, {"op": "elu"}, {"op": "mish"}, {"op": "hardswish"},
                   {"op": "hardsigmoid"}, {"op": "relu2"}, {"op": "relu6"}, {"op": "softplus", "beta": 2},
                   {"op": "l2_normalize", "axis": 0},
                   {"op": "clamp", "min": 0.125, "max": 1}, {"op": "exp"}, {"op": "log"}, {"op": "sqrt"},
                   {"op": "max", "axis": 1},
                   {"op": "log_softmax"},
                   {"op": "moe", "name": "moe", "gate": {"layers": [{"op": "flatten"}, {"op": "linear", "name": "out"}]},
                    "experts": {"count": 2, "layers": [{"op": "softplus"}]}}],
    }
    tensors = {"norm.weight": numbers(4), "norm.bias": numbers(4, seed=1), "slopes.weight": numbers(4, seed=2),
               "moe.gate.out.weight": numbers(2, 12)}
    return Checkpoint(config, tensors)


def decoder():
    """What format 3 adds to attention, gated linear units, experts and gates."""
    attention = {"op": "attention", "name": "attention", "heads": 2, "kv_heads": 1, "head_dim": 4, "causal": True,
                 "window": 3, "scale": 0.5, "qk_norm": "head", "eps": 1e-5,
                 "rotary": {"theta": 100, "dims": 2, "interleaved": True, "factor": 1.5,
                            "scaling": {"type": "yarn", "factor": 4, "original": 8, "truncate": False}}}
    full = {"op": "attention", "name": "full", "heads": 1, "qk_norm": "all",
            "rotary": {"frequencies": [1, 0.5]}}
    sparse = {"op": "moe", "name": "moe", "route": "positions", "weigh": "inputs",
              "gate": {"layers": [{"op": "linear", "name": "out"}], "score": "sqrt_softplus", "top_k": 2,
                       "capacity": {"factor": 1.25, "round": "up", "minimum": 2, "rows": 2, "order": "score"}},
              "experts": {"count": 3, "identity": 1,
                          "layers": [{"op": "glu", "name": "fc", "limit": 2, "alpha": 1.5, "shift": 1}]}}
    config = {
        "model_type": "moed", "format_version": 3,
        "input": {"name": "x", "shape": [5, 4]},
        "layers": [{"op": "residual", "layers": [attention]}, {"op": "residual", "layers": [full]},
                   {"op": "residual", "layers": [sparse]}],
    }
    tensors = {"attention.in_proj_weight": numbers(16, 4), "attention.out_proj.weight": numbers(4, 8),
               "attention.q_norm.weight": numbers(4, seed=1), "attention.k_norm.weight": numbers(4, seed=2),
               "attention.sinks": numbers(2), "full.in_proj_weight": numbers(12, 4), "full.out_proj.weight": numbers(4, 4),
               "full.q_norm.weight": numbers(4, seed=1), "full.k_norm.weight": numbers(4, seed=2),
               "full.bias": numbers(1, 5, 5), "moe.gate.out.weight": numbers(3, 4), "moe.gate.expert_scale": numbers(3)}
    for e in range(2):
        for seed, name in enumerate(("gate.weight", "up.weight")):
            tensors[f"moe.experts.{e}.fc.{name}"] = numbers(4, 4, seed=seed + e)
    return Checkpoint(config, tensors)


def histories():
    """Rows of different length beside numbers."""
    config = {
        "model_type": "moed", "format_version": 3,
        "inputs": [{"name": "numeric", "shape": [2]},
                   {"name": "films", "shape": [4], "categories": 5, "length": "n",
                    "layers": [{"op": "embedding", "name": "films"}, {"op": "mean", "axis": 0}]},
                   {"name": "n", "shape": [1], "categories": 5}],
        "layers": [{"op": "moe", "name": "moe", "gate": {"layers": [{"op": "linear", "name": "out"}], "top_k": 1},
                    "experts": {"count": 2, "layers": [{"op": "linear", "name": "fc"}]}}],
    }
    tensors = {"films.weight": numbers(5, 2), "moe.gate.out.weight": numbers(2, 4)}
    tensors.update({f"moe.experts.{e}.fc.weight": numbers(2, 4, seed=e) for e in range(2)})
    return Checkpoint(config, tensors)


def scorer():
    """A causal model of sequences of different length, whose positions are routed."""
    attention = {"op": "attention", "name": "attention", "heads": 1, "causal": True, "rotary": {}}
    sparse = {"op": "moe", "name": "moe", "route": "positions",
              "gate": {"layers": [{"op": "linear", "name": "out"}], "top_k": 2,
                       "capacity": {"factor": 1, "order": "pair", "rows": 1}},
              "experts": {"count": 3, "layers": [{"op": "linear", "name": "fc"}]}}
    config = {
        "model_type": "moed", "format_version": 3,
        "inputs": [{"name": "n", "shape": [1], "categories": 6},
                   {"name": "x", "shape": [5, 2], "length": "n"}],
        "layers": [{"op": "residual", "layers": [attention]}, {"op": "residual", "layers": [sparse]}],
        "outputs": [{"name": "states"}, {"name": "score", "layers": [{"op": "select", "index": "last"}]}],
    }
    tensors = {"attention.in_proj_weight": numbers(6, 2), "attention.out_proj.weight": numbers(2, 2),
               "moe.gate.out.weight": numbers(3, 2)}
    tensors.update({f"moe.experts.{e}.fc.weight": numbers(2, 2, seed=e) for e in range(3)})
    return Checkpoint(config, tensors)


def sentence(causal=True):
    """A model of sequences: a row is a token, and attention sees earlier ones."""
    attention = {"op": "attention", "name": "attention", "over": "sequence", "heads": 2, "kv_heads": 1, "head_dim": 4,
                 "causal": causal, "window": 3, "qk_norm": "head", "rotary": {"theta": 100}}
    whole = {"op": "attention", "name": "whole", "over": "sequence", "causal": causal, "heads": 1}
    sparse = {"op": "moe", "name": "moe", "gate": {"layers": [{"op": "linear", "name": "out"}], "top_k": 2},
              "experts": {"count": 3, "layers": [{"op": "linear", "name": "fc"}]}}
    config = {
        "model_type": "moed", "format_version": 3, "context": 8,
        "inputs": [{"name": "tokens", "shape": [], "categories": 5, "layers": [{"op": "embedding", "name": "embed"}]}],
        "layers": [{"op": "residual", "layers": [attention]}, {"op": "residual", "layers": [whole]},
                   {"op": "residual", "layers": [sparse]}],
        "outputs": [{"name": "logits", "layers": [{"op": "linear", "name": "head"}]}],
    }
    tensors = {"embed.weight": numbers(5, 4), "attention.in_proj_weight": numbers(16, 4),
               "attention.out_proj.weight": numbers(4, 8), "attention.q_norm.weight": numbers(4, seed=1),
               "attention.k_norm.weight": numbers(4, seed=2), "attention.sinks": numbers(2),
               "whole.in_proj_weight": numbers(12, 4), "whole.out_proj.weight": numbers(4, 4),
               "moe.gate.out.weight": numbers(3, 4), "head.weight": numbers(5, 4)}
    tensors.update({f"moe.experts.{e}.fc.weight": numbers(4, 4, seed=e) for e in range(3)})
    return Checkpoint(config, tensors)


def text():
    """The same, of texts that are given at once: attention sees all of their tokens."""
    return sentence(causal=False)
