"""Bad checkpoints whose weight files are wrong: the container, an entry of its header, or the index
of shards. A case is (name, base, edits, what the error must hold)."""

import struct

import numpy as np

from checkpoint import container, entry, file, files, header, no_file, tensor, to_json
from good import every_op, image, small

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"
GATE = "moe.gate.out.weight"
TENSOR = f"{WEIGHTS}: tensor '{GATE}': "


def text(old, new):
    """Replaces bytes of the JSON header and corrects its length."""
    def edit(all_files):
        whole = all_files[WEIGHTS]
        length = struct.unpack("<Q", whole[:8])[0]
        assert old in whole[8:8 + length]
        all_files[WEIGHTS] = container(whole[8:8 + length].replace(old, new), whole[8 + length:])
    return files(edit)


def whole_header(content):
    return file(WEIGHTS, container(content, b""))


def length(value):
    return files(lambda all_files: all_files.update({WEIGHTS: struct.pack("<Q", value) + all_files[WEIGHTS][8:]}))


def bytes_at_end(extra):
    return files(lambda all_files: all_files.update({WEIGHTS: all_files[WEIGHTS] + extra}))


def index(weight_map):
    return file(INDEX, to_json({"weight_map": weight_map}))


def index_text(old, new):
    return files(lambda all_files: all_files.update({INDEX: all_files[INDEX].replace(old, new)}))


def value(name, element, number):
    def edit(checkpoint):
        checkpoint.tensors[name] = checkpoint.tensors[name].copy()
        checkpoint.tensors[name].flat[element] = number
    return edit


def shift(all_header, by):
    for value in all_header.values():
        value["data_offsets"] = [offset + by for offset in value["data_offsets"]]


FILE = [
    ("weights_missing", small, [no_file(WEIGHTS)], [WEIGHTS + ": cannot open", "No such file"]),
    ("weights_is_directory", small, [file(WEIGHTS, None)], [WEIGHTS + ": not a regular file"]),
    ("weights_empty", small, [file(WEIGHTS, b"")], [WEIGHTS + ": 0 bytes"]),
    ("weights_seven_bytes", small, [file(WEIGHTS, b"\2\0\0\0\0\0\0")], [WEIGHTS + ": 7 bytes"]),
    ("header_length_absurd", small, [length(2**63)], [WEIGHTS + ": header of 9223372036854775808 bytes"]),
    ("header_length_all_ones", small, [length(2**64 - 1)], [WEIGHTS + ": header of 18446744073709551615 bytes"]),
    ("header_length_wraps", small, [length(2**64 - 8)], [WEIGHTS + ": header of 18446744073709551608 bytes"]),
    ("header_one_byte_too_long", small, [whole_header(b"{}"), length(3)], [WEIGHTS + ": header of 3 bytes"]),
    ("header_length_zero", small, [length(0)], [WEIGHTS + ": header cannot be read"]),
    ("header_cut_short", small, [length(40)], [WEIGHTS + ": header cannot be read"]),
    ("header_not_json", small, [whole_header(b"PK\3\4")], [WEIGHTS + ": header cannot be read"]),
    ("header_is_list", small, [whole_header(b"[]")], [WEIGHTS + ": header is not a JSON object"]),
    ("header_two_documents", small, [whole_header(b"{}{}")], [WEIGHTS + ": header cannot be read"]),
    ("header_nested_deep", small, [whole_header(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}")],
     [WEIGHTS + ": header cannot be read", "depth"]),
    ("header_invalid_utf8", small, [text(b"moe.gate", b"moe.\xc3ate")], [WEIGHTS + ": header cannot be read"]),
    ("header_duplicate_tensor", small, [text(b"moe.experts.1.fc.bias", b"moe.experts.0.fc.bias")],
     [WEIGHTS + ": header cannot be read", "duplicate"]),
    ("header_escaped_nul", small, [text(b"moe.gate", b"moe\\u0000gate")],
     [WEIGHTS + ": header cannot be read", "NUL"]),
    ("header_nul_after_number", small, [text(b"[0,32]", b"[0,32\0]")],
     [WEIGHTS + ": header cannot be read at byte ", "a NUL byte"]),
    ("header_byte_order_mark", small, [whole_header(b"\xef\xbb\xbf{}")],
     [WEIGHTS + ": header cannot be read at byte 8: a byte-order mark"]),
    ("metadata_is_list", small, [header(lambda h: h.update(__metadata__=["pt"]))],
     [WEIGHTS + ": __metadata__ must be an object of strings"]),
    ("metadata_number", small, [header(lambda h: h.update(__metadata__={"format": "pt", "epoch": 3}))],
     [WEIGHTS + ": __metadata__['epoch'] must be a string"]),
    ("git_lfs_pointer", small, [file(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:"
                                     + b"0" * 64 + b"\nsize 1234\n")],
     [WEIGHTS + ": a Git LFS pointer, not the weights: run git lfs pull"]),
    ("hole_before_first", small, [header(lambda h: shift(h, 4)), bytes_at_end(b"\0" * 4)],
     [f"{WEIGHTS}: 4 unused bytes before tensor '{GATE}'"]),
    ("hole_between", small, [header(lambda h: [h[n]["data_offsets"].__setitem__(i, h[n]["data_offsets"][i] + 4)
                                               for n in list(h)[1:] for i in (0, 1)]), bytes_at_end(b"\0" * 4)],
     [f"{WEIGHTS}: 4 unused bytes before tensor 'moe.experts.0.fc.weight'"]),
    ("bytes_after_last", small, [bytes_at_end(b"\0")], [WEIGHTS + ": 1 unused byte after the last tensor"]),
    ("only_data", small, [file(WEIGHTS, container(b"{}", b"\0" * 4))], [WEIGHTS + ": 4 unused bytes after"]),
    ("same_bytes_twice", small, [entry("moe.experts.1.fc.weight", data_offsets=[32, 80])],
     [WEIGHTS + ": tensor 'moe.experts.", "overlaps tensor 'moe.experts."]),
    ("overlap_by_one_byte", small, [entry("moe.experts.0.fc.weight", data_offsets=[31, 79])],
     [f"{WEIGHTS}: tensor 'moe.experts.0.fc.weight' overlaps tensor '{GATE}'"]),
]

ENTRY = [
    ("entry_is_list", small, [header(lambda h: h.update({GATE: []}))], [TENSOR]),
    ("entry_is_null", small, [header(lambda h: h.update({GATE: None}))], [TENSOR]),
    ("entry_without_dtype", small, [entry(GATE, dtype=None)], [TENSOR]),
    ("entry_without_shape", small, [entry(GATE, shape=None)], [TENSOR]),
    ("entry_without_offsets", small, [entry(GATE, data_offsets=None)], [TENSOR]),
    ("entry_with_stride", small, [entry(GATE, stride=[4, 1])], [TENSOR]),
    ("entry_misspelt", small, [entry(GATE, dtype=None, dType="F32")], [TENSOR]),
    ("dtype_i64", small, [entry(GATE, dtype="I64")], [TENSOR + "dtype I64"]),
    ("dtype_f64", small, [entry(GATE, dtype="F64")], [TENSOR + "dtype F64"]),
    ("dtype_number", small, [entry(GATE, dtype=32)], [TENSOR + "dtype"]),
    ("dtype_empty", small, [entry(GATE, dtype="")], [TENSOR + "dtype"]),
    ("dtype_of_half_the_bytes", small, [entry(GATE, dtype="BF16")], [TENSOR, "8 x 2 bytes", "32"]),
    ("shape_is_number", small, [entry(GATE, shape=8)], [TENSOR + "shape"]),
    ("shape_is_object", small, [entry(GATE, shape={})], [TENSOR + "shape"]),
    ("shape_nine_sizes", small, [entry(GATE, shape=[2, 4] + [1] * 7)], [TENSOR + "shape", "8"]),
    ("size_negative", small, [entry(GATE, shape=[-2, -4])], [TENSOR + "shape[0]"]),
    ("size_zero", small, [entry(GATE, shape=[2, 0])], [TENSOR + "shape[1]"]),
    ("size_fraction", small, [entry(GATE, shape=[2.0, 4])], [TENSOR + "shape[0]"]),
    ("size_text", small, [entry(GATE, shape=["2", 4])], [TENSOR + "shape[0]"]),
    ("size_huge", small, [entry(GATE, shape=[2**62])], [TENSOR]),
    ("size_beyond_integers", small, [entry(GATE, shape=[2**64])], [WEIGHTS + ": header cannot be read", "integer"]),
    ("sizes_overflow", small, [entry(GATE, shape=[2**32, 2**32])], [TENSOR + "shape overflows"]),
    ("sizes_overflow_to_8", small, [entry(GATE, shape=[2**61, 8, 2**61, 8])], [TENSOR + "shape overflows"]),
    ("bytes_overflow_to_32", small, [entry(GATE, shape=[2**62 + 8])], [TENSOR]),
    ("byte_count_too_small", small, [entry(GATE, shape=[2, 5])], [TENSOR, "10 x 4 bytes", "32"]),
    ("byte_count_too_large", small, [entry(GATE, shape=[2, 3])], [TENSOR, "6 x 4 bytes", "32"]),
    ("offsets_is_number", small, [entry(GATE, data_offsets=32)], [TENSOR + "data_offsets"]),
    ("offsets_of_one", small, [entry(GATE, data_offsets=[32])], [TENSOR + "data_offsets"]),
    ("offsets_of_three", small, [entry(GATE, data_offsets=[0, 32, 64])], [TENSOR + "data_offsets"]),
    ("offsets_fraction", small, [entry(GATE, data_offsets=[0.0, 32.0])], [TENSOR + "data_offsets"]),
    ("offsets_text", small, [entry(GATE, data_offsets=["0", "32"])], [TENSOR + "data_offsets"]),
    ("offsets_negative", small, [entry(GATE, data_offsets=[-32, 0])], [TENSOR + "data_offsets [-32, 0]"]),
    ("offsets_reversed", small, [entry(GATE, data_offsets=[32, 0])], [TENSOR + "data_offsets [32, 0]"]),
    ("offsets_beyond_file", small, [entry(GATE, data_offsets=[128, 160])], [TENSOR + "data_offsets [128, 160]", "152"]),
    ("offsets_huge", small, [entry(GATE, data_offsets=[2**63 - 33, 2**63 - 1])], [TENSOR + "data_offsets"]),
    ("value_nan", small, [value("moe.experts.1.fc.weight", 5, np.nan)],
     [f"{WEIGHTS}: tensor 'moe.experts.1.fc.weight': element 5 of 12 is NaN or infinite"]),
    ("value_infinite", small, [value("moe.experts.0.fc.bias", 2, -np.inf)],
     [f"{WEIGHTS}: tensor 'moe.experts.0.fc.bias': element 2 of 3 is NaN or infinite"]),
    ("value_infinite_f16", every_op, [value("ln.weight", 7, np.inf)],
     [".safetensors: tensor 'ln.weight': element 7 of 8 is NaN or infinite"]),
    ("batch_counter_claimed", small, [header(lambda h: h.update({GATE: {**h[GATE], "dtype": "I64"}}))],
     [TENSOR + "dtype I64"]),
    ("batch_counter_of_4_bytes", image, [tensor("norm.num_batches_tracked", [1.0]),
                                         entry("norm.num_batches_tracked", dtype="I64")],
     [f"{WEIGHTS}: tensor 'norm.num_batches_tracked': shape needs 1 x 8 bytes, data_offsets give 4"]),
    ("batch_counter_of_floats", image, [tensor("norm.num_batches_tracked", [1.0])],
     [f"{WEIGHTS}: tensor 'norm.num_batches_tracked' is used by no layer"]),
    ("tensor_name_endless", small, [header(lambda h: h.update({"€" * 2000: {}}))], [WEIGHTS + ": tensor '€€€"]),
    ("tensor_name_endless_2", small, [header(lambda h: h.update({"e" + "€" * 2000: {}}))], [WEIGHTS + ": tensor 'e€€"]),
    ("tensor_name_endless_3", small, [header(lambda h: h.update({"eu" + "€" * 2000: {}}))], [WEIGHTS + ": tensor 'eu€"]),
    ("tensor_name_escape", small, [header(lambda h: h.update({"\x1b[2J\n\x9b2J": {}}))], [WEIGHTS + ": tensor '?[2J???2J'"]),
]

SHARDS = [
    ("index_is_directory", every_op, [file(INDEX, None)], [INDEX + ": not a regular file"]),
    ("index_empty", every_op, [file(INDEX, b"")], [INDEX + ": line 1"]),
    ("index_is_list", every_op, [file(INDEX, b"[]")], [INDEX + ": expected a JSON object"]),
    ("index_without_map", every_op, [file(INDEX, b"{}")], [INDEX + ": weight_map"]),
    ("index_map_is_list", every_op, [file(INDEX, b'{"weight_map":[]}')], [INDEX + ": weight_map"]),
    ("index_shard_is_number", every_op, [index({"a": 1})], [INDEX + ": weight_map['a']"]),
    ("index_shard_is_empty", every_op, [index({"a": ""})], [INDEX + ": weight_map['a']"]),
    ("index_leads_out", every_op, [index({"a": "../../good/small/model.safetensors"})],
     [INDEX + ": weight_map['a'] must be a file name"]),
    ("index_leads_to_parent", every_op, [index({"a": ".."})], [INDEX + ": weight_map['a'] must be a file name"]),
    ("index_leads_to_itself", every_op, [index({"a": "."})], ["not a regular file"]),
    ("index_absolute_path", every_op, [index({"a": "/etc/hostname"})],
     [INDEX + ": weight_map['a'] must be a file name"]),
    ("index_shard_missing", every_op, [no_file(SHARD)], [SHARD + ": cannot open"]),
    ("index_lists_too_few", every_op, [index({"conv.weight": SHARD})], [INDEX, "lists 1 tensor", "hold 8"]),
    ("index_lists_too_many", every_op, [index({"a": SHARD, **{str(i): SHARD for i in range(99)}})],
     [INDEX, "lists 100 tensors", "hold 8"]),
    ("index_misspells_tensor", every_op, [index_text(b"conv.weight", b"cnov.weight")], [INDEX, "'conv.weight'"]),
    ("index_names_other_shard", every_op, [index_text(b'"conv.weight":"model-00001', b'"conv.weight":"model-00002')],
     [INDEX, "'conv.weight'", SHARD]),
    ("index_names_no_weights", every_op, [index({"a": "config.json"})], ["config.json: header of"]),
    ("index_beside_weights", every_op,
     [files(lambda all_files: all_files.update({WEIGHTS: all_files[SHARD]}))],
     [f"both {WEIGHTS} and {INDEX} are there"]),
    ("index_tensor_missing", every_op, [tensor("conv.weight", None)], [INDEX + ": tensor 'conv.weight' is missing"]),
    ("index_shard_twice", every_op,
     [index({str(i): SHARD if i % 2 else "copy" for i in range(16)}),
      files(lambda all_files: all_files.update(copy=all_files[SHARD]))], [INDEX, "tensor '"]),
]

CASES = FILE + ENTRY + SHARDS
