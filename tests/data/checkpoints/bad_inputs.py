"""Bad checkpoints of format 2: what format 1 has not, inputs and outputs. A case is (name, base,
edits, what the error must hold)."""

from bad_layers import nested
from checkpoint import drop, layers, put, tensor
from good import encoder, numbers, small, tasks

OF_FORMAT_1 = put("format_version", 1)
IN, OUT = "config.json: inputs", "config.json: outputs"


def one(op, **options):
    return {"op": op, "name": "l", **options}


def in_format_1(name, key, value, where):
    """`small`, which is of format 1, with a key that it may not have."""
    return (f"format_1_with_{name}", small, [put(key, value)], [f"config.json: {where}: ", "\"format_version\": 2"])


GATE = {"layers": [{"op": "linear", "name": "out"}]}

VERSION = [
    ("format_1_with_inputs", tasks, [OF_FORMAT_1], ["config.json: inputs: needs", "\"format_version\": 2"]),
    ("format_1_with_outputs", small, [drop("output"), put("outputs", [{"name": "y"}])],
     ["config.json: outputs: needs", "\"format_version\": 2"]),
    ("format_1_with_a_new_op", encoder, [OF_FORMAT_1], ["config.json: layers[2].op: 'transpose' needs", "\"format_version\": 2"]),
    in_format_1("lp", "layers.0.gate.normalize", "lp", "layers[0].gate.normalize"),
    in_format_1("groups", "layers.0.gate.groups", {"count": 1, "keep": 1}, "layers[0].gate.groups"),
    in_format_1("sparsemixer", "layers.0.gate.score", "sparsemixer", "layers[0].gate.score"),
    in_format_1("capacity", "layers.0.gate.capacity", {"factor": 1}, "layers[0].gate.capacity"),
    in_format_1("route", "layers.0.route", "positions", "layers[0].route"),
    in_format_1("shared", "layers.0.shared", {"layers": [{"op": "relu"}]}, "layers[0].shared"),
    in_format_1("expert_inputs", "layers.0.experts.inputs", [0, 0], "layers[0].experts.inputs"),
    ("format_1_with_gates", small, [drop("layers.0.gate"), put("layers.0.gates", [{"name": "a", **GATE}])],
     ["config.json: layers[0].gates: needs", "\"format_version\": 2"]),
]

WORDS = ["red", "green", "blue"]
OF_FORMAT_3 = put("format_version", 3)


def worded(name, error, **keys):
    """`tasks` in format 3, its input of three categories with those keys."""
    return (f"inputs_{name}", tasks, [OF_FORMAT_3, *(put(f"inputs.1.{key}", value) for key, value in keys.items())],
            [IN + "[1]." + error])


VALUES = [
    ("format_2_with_words", tasks, [put("inputs.1.words", WORDS)], [IN + "[1].words: needs", "\"format_version\": 3"]),
    ("format_2_with_missing", tasks, [put("inputs.0.missing", 0)], [IN + "[0].missing: needs"]),
    worded("words_too_few", "words: 2 words for 3 categories", words=WORDS[:2]),
    worded("words_twice", "words: 'red' is there twice", words=["red", "green", "red"]),
    worded("words_numbers", "words", words=[1, 2, 3]),
    worded("words_long", "words: a word has more than 256 bytes", words=["red", "green", "b" * 257]),
    worded("unknown_too_large", "unknown: ", unknown=3),
    worded("unknown_negative", "unknown: ", unknown=-1),
    worded("missing_fraction", "missing: ", missing=0.5),
    worded("missing_too_large", "missing: ", missing=3),
    ("inputs_words_of_numbers", tasks, [OF_FORMAT_3, put("inputs.0.words", WORDS)],
     [IN + "[0].words: 3 words for 0 categories"]),
    ("inputs_unknown_of_numbers", tasks, [OF_FORMAT_3, put("inputs.0.unknown", 0)],
     [IN + "[0].unknown: goes with"]),
]

INPUTS = [
    ("inputs_and_input", tasks, [put("input", {"shape": [4]})], ["config.json: inputs: a model has either"]),
    ("inputs_and_no_input", tasks, [drop("inputs")], ["config.json: input: missing"]),
    ("inputs_object", tasks, [put("inputs", {})], [IN + ": expected a list"]),
    ("inputs_none", tasks, [put("inputs", [])], [IN + ": expected a list"]),
    ("inputs_entry_text", tasks, [put("inputs.1", "word")], [IN + "[1]: expected an object"]),
    ("inputs_entry_without_name", tasks, [drop("inputs.1.name")], [IN + "[1].name"]),
    ("inputs_of_one_name", tasks, [put("inputs.1.name", "numeric")], [IN + "[1].name: ", "'numeric'"]),
    ("inputs_entry_without_shape", tasks, [drop("inputs.0.shape")], [IN + "[0].shape: "]),
    ("inputs_entry_shape_zero", tasks, [put("inputs.0.shape", [0])], [IN + "[0].shape: size 0"]),
    ("inputs_entry_unknown_key", tasks, [put("inputs.1.classes", 3)], [IN + "[1]: unknown key 'classes'"]),
    ("inputs_entry_std_zero", tasks, [put("inputs.0.preprocess.std", [1, 0])], [IN + "[0].preprocess.std: entry 1"]),
    ("inputs_entry_mean_length", tasks, [put("inputs.0.preprocess.mean", [1, 2, 3])],
     [IN + "[0].preprocess.mean: expected 1 or 2 numbers"]),
    ("inputs_too_large_together", tasks,
     [put("inputs", [{"name": name, "shape": [2**26]} for name in "ab"])], ["config.json: inputs: join to 134217728"]),
    ("inputs_other_width_together", tasks, [put("inputs.0.shape", [3]), drop("inputs.0.preprocess")],
     ["safetensors: tensor 'level1.experts.0.fc.weight' has shape [3, 4], expected [3, 5]"]),
    ("input_with_categories", encoder, [put("input.categories", 3)], ["config.json: input: unknown key 'categories'"]),
    ("input_with_layers", encoder, [put("input.layers", [{"op": "relu"}])],
     ["config.json: input: unknown key 'layers'"]),
    ("categories_text", tasks, [put("inputs.1.categories", "3")], [IN + "[1].categories: expected an integer"]),
    ("categories_fraction", tasks, [put("inputs.1.categories", 3.0)], [IN + "[1].categories: expected an integer"]),
    ("categories_zero", tasks, [put("inputs.1.categories", 0)], [IN + "[1].categories: expected"]),
    ("categories_negative", tasks, [put("inputs.1.categories", -3)], [IN + "[1].categories: expected"]),
    ("categories_beyond_f32", tasks, [put("inputs.0.categories", 2**24 + 2), drop("inputs.0.preprocess")],
     [IN + "[0].categories: expected"]),
    ("categories_more_than_rows", tasks, [put("inputs.1.categories", 5)], [IN + "[1].layers[0]: 4 vectors for an input of 5 categories"]),
    ("categories_with_preprocess", tasks, [put("inputs.1.preprocess", {"scale": 2})], [IN + "[1].preprocess: "]),
    ("input_layers_object", tasks, [put("inputs.1.layers", {})], [IN + "[1].layers: expected a list"]),
    ("input_layers_unknown_op", tasks, [put("inputs.1.layers.1.op", "tan")],
     [IN + "[1].layers[1].op: unknown op 'tan'"]),
    ("input_layers_of_other_width", tasks, [put("inputs.1.layers.1", one("linear")), tensor("l.weight", numbers(2, 3))],
     ["safetensors: tensor 'l.weight' has shape [2, 3], expected [2, 2]"]),
    ("input_layers_with_moe", tasks, [put("inputs.1.layers.1", {"op": "moe", "name": "m", "gate": GATE, "experts": {
        "count": 2, "layers": [{"op": "relu"}]}})], [IN + "[1].layers[1]: ", "MoE"]),
    ("input_layers_name_of_a_layer", tasks, [put("inputs.0.layers", [one("linear")]),
                                             put("outputs.1.layers", [one("linear")]),
                                             tensor("l.weight", numbers(2, 2))], ["tensor 'l.weight'"]),
]

EMBEDDING = [
    ("embedding_without_categories", tasks, [drop("inputs.1.categories")], [IN + "[1].layers[0]", "categories"]),
    ("embedding_of_input", encoder, [layers([1], one("embedding"), tensors={"l.weight": numbers(3, 2)}, version=2)],
     ["config.json: layers[0]: an embedding"]),
    ("embedding_not_first", tasks, [put("inputs.1.layers", [{"op": "relu"}, {"op": "embedding", "name": "word"}])],
     [IN + "[1].layers[1]", "embedding"]),
    ("embedding_inside_residual", tasks, [put("inputs.1.layers", [
        {"op": "residual", "layers": [{"op": "embedding", "name": "word"}]}])], [IN + "[1].layers[0]"]),
    ("embedding_twice", tasks, [put("inputs.1.layers.1", one("embedding")), tensor("l.weight", numbers(4, 2))],
     [IN + "[1].layers[1]", "embedding"]),
    ("embedding_in_an_output", tasks, [put("outputs.1.layers", [one("embedding")]), tensor("l.weight", numbers(4, 2))],
     [OUT + "[1].layers[0]", "embedding"]),
    ("embedding_without_name", tasks, [drop("inputs.1.layers.0.name")], ["config.json: ", "'embedding'", "name"]),
    ("embedding_without_weight", tasks, [tensor("word.weight", None)], ["safetensors: tensor 'word.weight' is missing"]),
    ("embedding_rank_1", tasks, [tensor("word.weight", numbers(4))], ["tensor 'word.weight'"]),
    ("embedding_rank_3", tasks, [tensor("word.weight", numbers(4, 2, 1))], ["tensor 'word.weight'"]),
    ("embedding_with_bias", tasks, [tensor("word.bias", numbers(2))], ["safetensors: tensor 'word.bias' is used by no layer"]),
    ("embedding_to_seven_axes", tasks, [put("inputs.1.shape", [1] * 6)], [IN + "[1].layers[0]"]),
]

OUTPUTS = [
    ("outputs_and_output", tasks, [put("output", {"name": "y"})], ["config.json: outputs: a model has either"]),
    ("outputs_object", tasks, [put("outputs", {})], [OUT + ": expected a list"]),
    ("outputs_none", tasks, [put("outputs", [])], [OUT + ": expected a list"]),
    ("outputs_entry_null", tasks, [put("outputs.0", None)], [OUT + "[0]: expected an object"]),
    ("outputs_entry_without_name", tasks, [drop("outputs.1.name")], [OUT + "[1].name: missing"]),
    ("outputs_of_one_name", tasks, [put("outputs.1.name", "class")], [OUT + "[1].name: ", "'class'"]),
    ("outputs_entry_unknown_key", tasks, [put("outputs.0.label", [])], [OUT + "[0]: unknown key 'label'"]),
    ("outputs_labels_too_few", tasks, [put("outputs.0.labels", ["a"])], [OUT + "[0].labels: 1 label for 2 classes"]),
    ("outputs_labels_of_raw", tasks, [put("outputs.1.labels", ["a"])], [OUT + "[1].labels: 1 label for 3 classes"]),
    ("output_with_layers", encoder, [put("output.layers", [{"op": "relu"}])],
     ["config.json: output: unknown key 'layers'"]),
    ("output_layers_text", tasks, [put("outputs.0.layers", "relu")], [OUT + "[0].layers: expected a list"]),
    ("output_layers_with_moe", tasks, [put("outputs.1.layers", [
        {"op": "residual", "layers": [{"op": "moe", "name": "m", "gate": GATE, "experts": {
            "count": 3, "layers": [{"op": "relu"}]}}]}])], [OUT + "[1].layers[0].layers[0]: ", "MoE"]),
    ("output_layers_of_other_width", tasks, [tensor("class.weight", numbers(2, 4))],
     ["safetensors: tensor 'class.weight' has shape [2, 4], expected [2, 3]"]),
    ("output_layers_nested_17", tasks, [put("outputs.1.layers", [nested(17)])],
     [OUT + "[1].layers[0]", "nested", "16"]),
    ("reference_of_a_layer_of_gates", tasks, [put("routing_reference", {"level1": {"share": [0.5] * 3, "rows": 1}})],
     ["config.json: routing_reference: ", "'level1'"]),
    ("reference_of_all_experts", tasks, [put("routing_reference", {"level1.a": {"share": [0.5] * 3, "rows": 1}})],
     ["config.json: routing_reference.level1.a.share: 3 shares for 2 experts"]),
]

CASES = VERSION + VALUES + INPUTS + EMBEDDING + OUTPUTS
