"""Bad checkpoints whose config.json is wrong as a file, as JSON, or in what it says outside the
layers. A case is (name, base, edits, what the error must hold)."""

import json

from checkpoint import drop, file, files, layers, no_file, put
from good import image, small

GATE = "layers.0.gate"
EXPERTS = "layers.0.experts"


def config_text(old, new):
    """Replaces bytes of config.json: for what json.dumps does not write."""
    def edit(all_files):
        assert old in all_files["config.json"]
        all_files["config.json"] = all_files["config.json"].replace(old, new)
    return files(edit)


FILE = [
    ("config_missing", small, [no_file("config.json")], ["config.json", "No such file"]),
    ("config_is_directory", small, [file("config.json", None)], ["config.json: not a regular file"]),
    ("config_empty", small, [file("config.json", b"")], ["config.json: line 1"]),
    ("config_not_json", small, [file("config.json", b"model_type: moed\n")], ["config.json: line 1"]),
    ("config_is_list", small, [file("config.json", b"[]")], ["config.json: expected a JSON object"]),
    ("config_is_null", small, [file("config.json", b"null")], ["config.json"]),
    ("config_cut_off", small, [config_text(b'],"output"', b"")], ["config.json: line 1"]),
    ("config_trailing_text", small, [config_text(b"}}}", b"}}}}")], ["config.json: line 1", "end of file expected"]),
    ("config_duplicate_key", small, [config_text(b'"top_k":1', b'"top_k":1,"top_k":2')],
     ["config.json: line 1", "duplicate"]),
    ("config_invalid_utf8", small, [config_text(b'"a"', b'"\xff\xfe"')], ["config.json: line 1", "0xff"]),
    ("config_nul_byte", small, [config_text(b'"a"', b'"\x00"')], ["config.json: line 1"]),
    ("config_nul_after_number", small, [config_text(b'"top_k":1', b'"top_k":1\0')],
     ["config.json: line 1, column ", "a NUL byte"]),
    ("config_nul_after_end", small, [config_text(b"}}}", b"}}}\0")], ["config.json: line 1, column ", "a NUL byte"]),
    ("config_byte_order_mark", small, [config_text(b'{"model_type"', b'\xef\xbb\xbf{"model_type"')],
     ["config.json: line 1, column 1: a byte-order mark (EF BB BF)"]),
    ("config_escaped_nul", small, [config_text(b'"a"', b'"\\u0000"')], ["config.json: line 1", "\\u0000"]),
    ("config_nested_deep", small, [file("config.json", b'{"layers":' + b"[" * 5000 + b"]" * 5000 + b"}")],
     ["config.json: line 1", "depth"]),
    ("config_1e999", small, [config_text(b"0.25", b"1e999")], ["config.json: line 1", "overflow"]),
    ("config_nan", small, [config_text(b"0.25", b"NaN")], ["config.json: line 1"]),
    ("config_infinity", small, [config_text(b"0.25", b"-Infinity")], ["config.json: line 1"]),
    ("config_integer_too_big", small, [config_text(b'"top_k":1', b'"top_k":18446744073709551617')],
     ["config.json: layers[0].gate.top_k: expected an integer from 1 to 2"]),
]

HEAD = [
    ("model_type_missing", small, [drop("model_type")], ["config.json: model_type: missing"]),
    ("model_type_other", small, [put("model_type", "bert")], ['config.json: model_type "bert" is not known']),
    ("model_type_number", small, [put("model_type", 1)], ["config.json: model_type: expected a string"]),
    ("format_version_missing", small, [drop("format_version")], ["config.json: format_version: missing"]),
    ("format_version_0", small, [put("format_version", 0)], ["config.json: format_version: expected"]),
    ("format_version_4", small, [put("format_version", 4)], ["config.json: format_version: expected"]),
    ("format_version_text", small, [put("format_version", "1")], ["config.json: format_version: expected an integer"]),
    ("description_list", small, [put("description", [])], ["config.json: description: expected a string"]),
    ("unknown_key_root", small, [put("Description", "")], ["config.json: unknown key 'Description'"]),
    ("unknown_key_escape", small, [put("\x1b[2J\n", "")], ["config.json: unknown key '?[2J?'"]),
    ("unknown_key_endless", small, [put("k" + "€" * 2000, "")], ["config.json: unknown key 'k€€€"]),
]

INPUT = [
    ("input_missing", small, [drop("input")], ["config.json: input: missing"]),
    ("input_list", small, [put("input", [])], ["config.json: input: expected an object"]),
    ("input_unknown_key", small, [put("input.dtype", "F32")], ["config.json: input: unknown key 'dtype'"]),
    ("input_name_number", small, [put("input.name", 3)], ["config.json: input.name: expected a string"]),
    ("shape_missing", small, [drop("input.shape")], ["config.json: input.shape: "]),
    ("shape_empty", small, [put("input.shape", [])], ["config.json: input.shape: expected a list of 1 to 6"]),
    ("shape_seven_axes", small, [put("input.shape", [1] * 7)], ["config.json: input.shape: expected a list of 1 to 6"]),
    ("shape_zero", small, [put("input.shape", [4, 0])], ["config.json: input.shape: size 1"]),
    ("shape_negative", small, [put("input.shape", [-4])], ["config.json: input.shape: size 0"]),
    ("shape_fraction", small, [put("input.shape", [4.0])], ["config.json: input.shape: size 0"]),
    ("shape_too_large", small, [put("input.shape", [2**26 + 1])], ["config.json: input.shape: ", "exceeds"]),
    ("shape_overflow", small, [put("input.shape", [2**32, 2**32])], ["config.json: input.shape: ", "exceeds"]),
    ("shape_overflow_to_4", small, [put("input.shape", [4, 2**62 + 1])], ["config.json: input.shape: ", "exceeds"]),
    ("preprocess_number", small, [put("input.preprocess", 1)], ["config.json: input.preprocess: expected an object"]),
    ("preprocess_unknown_key", small, [put("input.preprocess.means", [1])],
     ["config.json: input.preprocess: unknown key 'means'"]),
    ("scale_text", small, [put("input.preprocess.scale", "1")], ["config.json: input.preprocess.scale: expected a number"]),
    ("scale_beyond_f32", small, [put("input.preprocess.scale", 1e39)], ["config.json: input.preprocess.scale: ", "f32"]),
    ("mean_number", small, [put("input.preprocess.mean", 1)], ["config.json: input.preprocess.mean: expected a list"]),
    ("mean_entry_text", small, [put("input.preprocess.mean", [1, "2", 3, 4])],
     ["config.json: input.preprocess.mean: entry 1"]),
    ("mean_beyond_f32", small, [put("input.preprocess.mean", [-1e300])],
     ["config.json: input.preprocess.mean: entry 0", "f32"]),
    ("mean_length", small, [put("input.preprocess.mean", [1, 2, 3])],
     ["config.json: input.preprocess.mean: expected 1 or 4 numbers"]),
    ("std_length", small, [put("input.preprocess.std", [1] * 5)],
     ["config.json: input.preprocess.std: expected 1 or 4 numbers"]),
    ("std_empty", small, [put("input.preprocess.std", [])], ["config.json: input.preprocess.std: expected a list"]),
    ("std_zero", small, [put("input.preprocess.std", [1, 0, 1, 1])], ["config.json: input.preprocess.std: entry 1"]),
    ("std_zero_as_f32", small, [put("input.preprocess.std", [1e-60])], ["config.json: input.preprocess.std: entry 0"]),
    ("std_minus_zero", small, [put("input.preprocess.std", [-0.0])], ["config.json: input.preprocess.std: entry 0"]),
]

OUTPUT = [
    ("output_text", small, [put("output", "y")], ["config.json: output: expected an object"]),
    ("output_unknown_key", small, [put("output.label", [])], ["config.json: output: unknown key 'label'"]),
    ("output_name_list", small, [put("output.name", ["y"])], ["config.json: output.name: expected a string"]),
    ("labels_object", small, [put("output.labels", {})], ["config.json: output.labels: expected a list"]),
    ("labels_number", small, [put("output.labels", ["a", 1, "c"])], ["config.json: output.labels: entry 1"]),
    ("labels_too_few", small, [put("output.labels", ["a"])], ["config.json: output.labels: 1 label for 3 classes"]),
    ("labels_too_many", small, [put("output.labels", list("abcd"))],
     ["config.json: output.labels: 4 labels for 3 classes"]),
    ("labels_none", small, [put("output.labels", [])], ["config.json: output.labels: 0 labels for 3 classes"]),
    ("reference_list", small, [put("routing_reference", [])], ["config.json: routing_reference: expected an object"]),
    ("reference_of_no_layer", small, [put("routing_reference.other", {})],
     ["config.json: routing_reference: ", "'other'"]),
    ("reference_number", small, [put("routing_reference.moe", 1)],
     ["config.json: routing_reference.moe: expected an object"]),
    ("reference_length", small, [put("routing_reference.moe.share", [1])],
     ["config.json: routing_reference.moe.share: 1 share for 2 experts"]),
    ("reference_without_share", small, [drop("routing_reference.moe.share")],
     ["config.json: routing_reference.moe.share: "]),
    ("reference_without_rows", small, [drop("routing_reference.moe.rows")],
     ["config.json: routing_reference.moe.rows: missing"]),
    ("reference_no_rows", small, [put("routing_reference.moe.rows", 0)],
     ["config.json: routing_reference.moe.rows: expected"]),
    ("reference_unknown_key", small, [put("routing_reference.moe.row", 1)],
     ["config.json: routing_reference.moe: unknown key 'row'"]),
]

MOE = [
    ("gate_missing", small, [drop(GATE)], ["config.json: layers[0].gate: missing"]),
    ("gate_unknown_key", small, [put(GATE + ".topk", 1)], ["config.json: layers[0].gate: unknown key 'topk'"]),
    ("gate_without_layers", small, [drop(GATE + ".layers")], ["config.json: layers[0].gate.layers: missing"]),
    ("top_k_zero", small, [put(GATE + ".top_k", 0)], ["config.json: layers[0].gate.top_k: expected an integer from 1 to 2"]),
    ("top_k_negative", small, [put(GATE + ".top_k", -1)], ["config.json: layers[0].gate.top_k: "]),
    ("top_k_over_experts", small, [put(GATE + ".top_k", 3)],
     ["config.json: layers[0].gate.top_k: expected an integer from 1 to 2"]),
    ("top_k_text", small, [put(GATE + ".top_k", "1")], ["config.json: layers[0].gate.top_k: "]),
    ("top_k_fraction", small, [put(GATE + ".top_k", 1.0)], ["config.json: layers[0].gate.top_k: "]),
    ("score_unknown", small, [put(GATE + ".score", "relu")], ["config.json: layers[0].gate.score: 'relu'", "sigmoid"]),
    ("normalize_unknown", small, [put(GATE + ".normalize", "max")], ["config.json: layers[0].gate.normalize: 'max'"]),
    ("kind_unknown", small, [put(GATE + ".kind", "")], ["config.json: layers[0].gate.kind: ''"]),
    ("gate_scale_text", small, [put(GATE + ".scale", "2")], ["config.json: layers[0].gate.scale: "]),
    ("experts_missing", small, [drop(EXPERTS)], ["config.json: layers[0].experts: missing"]),
    ("experts_unknown_key", small, [put(EXPERTS + ".shared", 1)], ["config.json: layers[0].experts: unknown key 'shared'"]),
    ("experts_count_missing", small, [drop(EXPERTS + ".count")], ["config.json: layers[0].experts.count: missing"]),
    ("experts_count_zero", small, [put(EXPERTS + ".count", 0)], ["config.json: layers[0].experts.count: "]),
    ("experts_count_negative", small, [put(EXPERTS + ".count", -(2**63))], ["config.json: layers[0].experts.count: "]),
    ("experts_count_1e9", small, [put(EXPERTS + ".count", 10**9)], ["config.json: layers[0].experts.count: ", "to 4096"]),
    ("experts_more_than_stored", small, [put(EXPERTS + ".count", 3)], ["safetensors: tensor 'moe.experts.2.fc.weight' is missing"]),
    ("moe_without_name", small, [drop("layers.0.name")], ["config.json: layers[0].name: missing"]),
    ("moe_inside_experts", small, [lambda c: put(EXPERTS + ".layers", [c.config["layers"][0]])(c)],
     ["config.json: layers[0].experts.layers[0]: ", "MoE"]),
    ("moe_inside_gate", small, [lambda c: put(GATE + ".layers", [c.config["layers"][0]])(c)],
     ["config.json: layers[0].gate.layers[0]: ", "MoE"]),
    ("moe_unknown_key", image, [put("layers.5.top_k", 2)], ["config.json: layers[5]: unknown key 'top_k'"]),
    ("two_moe_of_one_name", small,
     [layers([2], *[{"op": "moe", "name": "moe", "gate": {"layers": [{"op": "relu"}]},
                     "experts": {"count": 2, "layers": [{"op": "relu"}]}}] * 2)],
     ["config.json: layers[1].name: ", "'moe'"]),
]

CASES = FILE + HEAD + INPUT + OUTPUT + MOE
