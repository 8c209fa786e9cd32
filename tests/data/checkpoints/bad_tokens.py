"""Bad checkpoints of format 3: models of sequences, whose rows are tokens. A case is (name, base, edits, what the error
must hold)."""

from checkpoint import drop, put, tensor
from good import graph, numbers, sentence

ATTENTION = "layers.0.layers.0"
AT = "config.json: layers[0].layers[0]"


def bad(name, *edits_and_parts):
    edits = [edit for edit in edits_and_parts if callable(edit)]
    return name, sentence, edits, [part for part in edits_and_parts if not callable(part)]


CASES = [
    bad("sequence_without_context", drop("context"), AT + ".over: a model of sequences needs a \"context\""),
    bad("sequence_context_zero", put("context", 0), "config.json: context: expected an integer from 1"),
    bad("sequence_context_huge", put("context", 2**24 + 1), "config.json: context: expected an integer from 1"),
    bad("sequence_context_in_format_2", put("format_version", 2), "config.json: context: needs \"format_version\": 3"),
    bad("sequence_over_what", put(ATTENTION + ".over", "batch"), AT + ".over: 'batch' is not one of row, sequence"),
    bad("sequence_attention_over_a_row", put(ATTENTION + ".over", "row"), AT + ": attention works on rows of [positions, size]"),
    bad("sequence_with_a_bias", tensor("attention.bias", numbers(2, 8, 8)),
        "tensor 'attention.bias' is used by no layer"),
    bad("sequence_seen_whole_and_in_parts", put("layers.1.layers.0.causal", False),
        "config.json: layers: one layer sees later positions of a sequence, and another keeps memory of earlier ones"),
    bad("sequence_in_an_output", put("outputs.0.layers", [{"op": "attention", "name": "l", "over": "sequence", "heads": 1}]),
        "config.json: outputs[0].layers[0].over: attention over a sequence stands among the model's layers"),
    bad("sequence_in_an_expert",
        put("layers.2.layers.0.experts.layers", [{"op": "attention", "name": "l", "over": "sequence", "heads": 1}]),
        "config.json: layers[2].layers[0].experts.layers[0].over: attention over a sequence stands among the model's layers"),
    bad("sequence_of_padded_tokens", put("inputs.0.length", "n"), "config.json: inputs[0].shape: expected a list of 1 to 6 sizes"),
    bad("sequence_of_numbers", drop("inputs.0.categories"), "config.json: inputs[0].shape: expected a list of 1 to 6 sizes"),
    ("attention_over_in_format_2", graph,
     [put("format_version", 2), put("layers", [{"op": "attention", "name": "l", "heads": 1, "over": "row"}])],
     ["config.json: layers[0].over: needs \"format_version\": 3"]),
]
