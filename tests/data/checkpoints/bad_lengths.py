"""Bad checkpoints of format 3: rows of different length whose padding would be seen. A case is
(name, base, edits, what the error must hold)."""

import numpy as np

from checkpoint import drop, put
from good import histories, numbers


def bad(name, edits, *parts):
    return name, histories, edits, list(parts)


def after(*chain, tensors=None):
    """These layers in place of the input's own."""
    def edit(checkpoint):
        checkpoint.config["inputs"][1]["layers"] = [{"op": "embedding", "name": "films"}, *chain]
        checkpoint.tensors.update({name: np.asarray(values, np.float32) for name, values in (tensors or {}).items()})
    return edit


LENGTH = "config.json: inputs[1].length"
SECOND = "config.json: inputs[1].layers[1]"
SEEN = [
    ("flatten", {"op": "flatten"}, "'flatten' would see the padding"),
    ("reshape", {"op": "reshape", "shape": [2, 4]}, "'reshape' would see the padding"),
    ("transpose", {"op": "transpose"}, "'transpose' would see the padding"),
    ("group_norm", {"op": "group_norm", "groups": 2}, "'group_norm' would see the padding"),
    ("conv1d", {"op": "conv1d", "name": "c"}, ""),
    ("layer_norm", {"op": "layer_norm", "name": "norm"}, "layer_norm of all axes would see padding"),
    ("select", {"op": "select", "index": 1}, ".index: may be padding"),
    ("slice", {"op": "slice", "end": 2}, ".axis: the first axis ends in padding"),
    ("l2_normalize", {"op": "l2_normalize", "axis": 0}, ".axis: the first axis ends in padding"),
    ("concat", {"op": "concat", "of": ["input"]}, ""),
    ("residual", {"op": "residual", "layers": [{"op": "mean", "axis": 0}, {"op": "reshape", "shape": [4, 2]}]}, ""),
]

CASES = [bad(f"length_seen_by_{name}", [after(layer, tensors={"norm.weight": numbers(4, 2)} if name == "layer_norm" else
                                              {"c.weight": numbers(4, 4, 1)} if name == "conv1d" else None)],
             SECOND + part if part.startswith(".") else SECOND, part)
         for name, layer, part in SEEN] + [
    bad("length_in_format_2", [put("format_version", 2)], LENGTH + ": needs \"format_version\": 3"),
    bad("length_unknown", [put("inputs.1.length", "m")], LENGTH + ": no input is called 'm'"),
    bad("length_of_itself", [put("inputs.1.length", "films")], LENGTH + ": 'films' must be one integer from 0 to 4"),
    bad("length_number", [put("inputs.1.length", 4)], LENGTH + ": expected a string"),
    bad("length_of_quantities", [put("inputs.1.length", "numeric")], LENGTH + ": 'numeric' must be one integer"),
    bad("length_of_more", [put("inputs.2.categories", 6)], LENGTH + ": 'n' must be one integer from 0 to 4"),
    bad("length_of_one", [put("inputs.2.categories", 1)], LENGTH + ": 'n' must be one integer from 0 to 4"),
    bad("length_without_categories", [drop("inputs.2.categories")], LENGTH + ": 'n' must be one integer"),
    bad("length_of_two", [put("inputs.2.shape", [2])], LENGTH + ": 'n' must be one integer"),
    bad("length_with_layers", [put("inputs.2.layers", [{"op": "tanh"}])], LENGTH + ": 'n' must be one integer"),
    bad("length_joined", [after({"op": "tanh"})], "config.json: inputs: 'films' would be joined with its padding"),
    bad("length_routed_by_rows",
        [lambda checkpoint: checkpoint.config["inputs"].pop(0), lambda checkpoint: checkpoint.config["inputs"][0].pop("layers"),
         drop("inputs.0.categories"), put("inputs.0.shape", [4, 2]),
         lambda checkpoint: checkpoint.tensors.pop("films.weight")],
        "config.json: layers[0].route: rows of different length are routed by \"positions\""),
    bad("select_last_in_format_2", [put("format_version", 2), drop("inputs.1.length"), drop("inputs.2"),
                                    after({"op": "select", "index": "last"})],
        SECOND + ".index: needs \"format_version\": 3"),
    bad("select_first", [after({"op": "select", "index": "first"})], SECOND + ".index: 'first' is not one of last"),
]
