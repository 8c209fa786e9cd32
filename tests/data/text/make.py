"""Makes the tokenizers of this directory and what the `tokenizers` library does with some texts:

    pip install tokenizers==0.23.3      (in a virtual environment)
    python make.py [--train]

Each NAME.json is a small trained tokenizer built as a published family builds its own; each
NAME.golden.json holds texts, their ids and what the ids decode to. Only
--train makes the tokenizers anew: equal counts are ordered by chance, so it never makes the same twice.
"""

import base64
import json
import random
import struct
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

HERE = Path(__file__).parent

CORPUS = """The gate sends each token to two experts of sixteen, and the combine weights add up to one.
It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in
want of a wife. In the beginning God created the heaven and the earth. And the earth was without form,
and void; and darkness was upon the face of the deep. Don't say we'll never know what they've done.
for (size_t i = 0; i < count; i++) { sum += values[i]; }  // 1234567890 times 3.14159
def forward(self, hidden_states):\n        return self.down_proj(self.act_fn(x))\n
Caf\u00e9 na\u00efve \u00fcber Stra\u00dfe \u0160koda \u0141\u00f3d\u017a; \u041c\u043e\u0441\u043a\u0432\u0430 \u0438 \u041f\u0435\u0442\u0435\u0440\u0431\u0443\u0440\u0433; \u0391\u03b8\u03ae\u03bd\u03b1;
\u6f22\u5b57\u3068\u3072\u3089\u304c\u306a\u3068\u30ab\u30bf\u30ab\u30ca; \ud55c\uad6d\uc5b4; \u05e9\u05dc\u05d5\u05dd; \u0645\u0631\u062d\u0628\u0627; \u0928\u092e\u0938\u094d\u0924\u0947; \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35
\U0001f642 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f 100% of $5 & more... e.g. x^2 <b>bold</b> `code` ~/.profile a_b-c/d
""".split("\n") * 4

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + END
QWEN35 = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + END)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
         rf"{CONTRACTIONS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|" + END)
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
          r"\s*[\r\n]|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
            " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
DEEPSEEK_CODER = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5]+", r"\p{N}"]
ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def split(*patterns):
    stages = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    stages.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(stages)


def byte_level(pre_tokenizer, normalizer=None, ignore_merges=False, added=(), size=400):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(ALPHABET), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *added])
    return tokenizer


def template(tokenizer, single):
    specials = [(word, tokenizer.token_to_id(word)) for word in single.split() if not word.startswith("$")]
    return processors.TemplateProcessing(single=single, pair=None, special_tokens=specials)


def gpt2():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def gpt2_space():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), normalizers.NFC())


def llama3():
    tokenizer = byte_level(split(LLAMA3), ignore_merges=True, added=["<|begin_of_text|>"])
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(tokenizer, "<|begin_of_text|> $A")])
    return tokenizer


def glm4():
    tokenizer = byte_level(split(LLAMA3), added=["[gMASK]", "<sop>"])
    tokenizer.post_processor = template(tokenizer, "[gMASK] <sop> $A")
    return tokenizer


def granite():
    return byte_level(pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]))


def digits():
    return byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(),
        pre_tokenizers.ByteLevel(add_prefix_space=False)]))


def added_flags():
    """Added tokens with every flag, before and behind a normalizer that changes text."""
    tokenizer = byte_level(split(QWEN2), normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents(), normalizers.Strip(True, False)]))
    tokenizer.add_tokens([
        AddedToken("[LEFT]", lstrip=True, normalized=False), AddedToken("[RIGHT]", rstrip=True, normalized=False),
        AddedToken("[BOTH]", lstrip=True, rstrip=True, normalized=True),
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("Caf\u00c9", normalized=True), AddedToken("Caf\u00c9s", single_word=True, normalized=True),
        AddedToken("<t", normalized=False), AddedToken("<tool>", normalized=False)])
    return tokenizer


def mixtral(**metaspace):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    mark = "\u2581"
    tokenizer.normalizer = normalizers.Replace(" ", mark)
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=specials, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(mark), normalizers.Replace(" ", mark)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = template(tokenizer, "<s> $A")
    made = json.loads(tokenizer.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(made))


def metaspace_first():
    """As newer Llama files: the pre-tokenizer prepends, and only at the start of the input."""
    tokenizer = mixtral()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="first"), decoders.ByteFallback(),
                                           decoders.Fuse()])
    return tokenizer


def gemma():
    tokenizer = mixtral()
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def charsmap(rules):
    """SentencePiece's table: a double array of the keys, then the texts they become."""
    texts, offsets = b"", {}
    for key, text in rules.items():
        offsets[key.encode()] = len(texts)
        texts += text.encode() + b"\0"
    units, used = {0: 0}, {0}

    def build(index, prefix):
        nexts = sorted({key[len(prefix)] for key in offsets if key.startswith(prefix) and len(key) > len(prefix)})
        leaf = prefix in offsets
        slots = nexts + ([0] if leaf else [])
        base = next(base for base in range(1, 1 << 20) if all(base ^ slot not in used for slot in slots))
        used.update(base ^ slot for slot in slots)
        units[index] = units.get(index, 0) | (index ^ base) << 10 | leaf << 8
        if leaf:
            units[base] = offsets[prefix] | 1 << 31
        for label in nexts:
            units[base ^ label] = label
            build(base ^ label, prefix + bytes([label]))

    build(0, b"")
    table = [units.get(i, 0) for i in range(max(units) + 257)]
    return struct.pack(f"<I{len(table)}I", 4 * len(table), *table) + texts


RULES = {"\uff21": "A", "\ufb01": "fi", "\u2460": "1", "\u3000": " ", "\t": " ", "\n": " ", "\u00a0": " ",
         "e\u0301": "\u00e9", "\u304b\u3099": "\u304c", "\u2126": "\u03a9", "\u200b": "", "\u2026": "...", "\ufdfa": "salla"}


def xlm_roberta():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(charsmap(RULES)), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", show_progress=False,
                                      special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = template(tokenizer, "<s> $A </s>")
    return tokenizer


def unigram_bytes():
    tokenizer = xlm_roberta()
    made = json.loads(tokenizer.to_str())
    vocab = made["model"]["vocab"]
    last = [token["content"] for token in made["added_tokens"]].index("<mask>")
    vocab += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    made["model"]["byte_fallback"] = True
    made["added_tokens"][last]["id"] = len(vocab)
    made["pre_tokenizer"]["prepend_scheme"] = "first"
    made["decoder"] = json.loads(mixtral().to_str())["decoder"]
    return Tokenizer.from_str(json.dumps(made))


def bert(lowercase=True):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.WordPiece()
    ids = [(word, tokenizer.token_to_id(word)) for word in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ids)
    return tokenizer


def words():
    """Whitespace, no decoder, RoBERTa's post-processor."""
    tokenizer = bert(lowercase=False)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.NFKD()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = None
    ids = [(word, tokenizer.token_to_id(word)) for word in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.RobertaProcessing(*ids)
    return tokenizer


TOKENIZERS = {
    "gpt2": gpt2, "gpt2-space": gpt2_space, "llama3": llama3, "glm4": glm4,
    "qwen2": lambda: byte_level(split(QWEN2), normalizers.NFC()),
    "qwen3_5": lambda: byte_level(split(QWEN35), normalizers.NFC()),
    "o200k": lambda: byte_level(split(O200K), ignore_merges=True), "cl100k": lambda: byte_level(split(CL100K)),
    "deepseek": lambda: byte_level(split(*DEEPSEEK)), "deepseek-coder": lambda: byte_level(split(*DEEPSEEK_CODER)),
    "granite": granite, "digits": digits, "added": added_flags, "mixtral": mixtral,
    "metaspace-first": metaspace_first, "gemma": gemma, "xlm-roberta": xlm_roberta,
    "unigram-bytes": unigram_bytes, "bert": bert, "words": words,
}

# What tokenizers disagree about: white space, case, marks, digits, specials, the unknown.
PIECES = [
    " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "'s", "'S", "'LL", "'\u017f", "don't",
    "I'Ve", "The", " the", "THE", "iPhone", "X", "\u00e9", "e\u0301", "\u0301", "a\u0327\u0301", "a\u0301\u0327", "\u0130",
    "\u00df", "\ufb01", "\u2460", "\u00b2", "\u2167", "1", "12", "1234", "3.14", "\u0663", "!", "...", "?!", "\u3002", "\u2026",
    "$5", "+", "^", "`", "_", "-", "/", "//", "/*", "#include", "\u6f22\u5b57", "\u3072\u3089", "\u30ab\u30bf", "\u304b\u3099",
    "\ud55c\uad6d", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u05e9\u05dc\u05d5\u05dd", "\U0001f642",
    "\U0001f468\u200d\U0001f469", "\u2764\ufe0f", "\u200b", "\u2581", "\u2581\u2581", "\ufffd", "\u0000", "\u0007", "\u00ad",
    "\U00020000", "\uff21", "\ufdfa", "\u212a", "\u2126", "<s>", "</s>", "<unk>", "<mask>", " <mask>", "[MASK]", "[CLS]",
    "<|endoftext|>", "<|im_start|>", "<0x41>", "[LEFT]", "[RIGHT]", "[BOTH]", "word", "words", "Caf\u00c9", "CAFE\u0301s",
    "<t", "<tool>", "acknowledged", "universally", "heaven", "a" * 40,
]


def texts():
    generator = random.Random(14)
    yield from ["", *PIECES]
    for _ in range(60):
        yield "".join(generator.choice(PIECES) for _ in range(generator.randint(2, 9)))


def golden(tokenizer):
    for number, text in enumerate(texts()):
        special, skip = bool(number & 1), bool(number & 2)
        ids = tokenizer.encode(text, add_special_tokens=special).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=skip)
        yield {"text": text, "add_special": special, "skip_special": skip, "ids": ids, "decoded": decoded}


def main():
    for name, build in TOKENIZERS.items():
        path = HERE / f"{name}.json"
        if "--train" in sys.argv:
            made = json.loads(build().to_str())
            path.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n")
        tokenizer = Tokenizer.from_file(str(path))
        lines = [json.dumps(case, separators=(",", ":")) for case in golden(tokenizer)]
        (HERE / f"{name}.golden.json").write_text("[" + ",\n".join(lines) + "]\n")


if __name__ == "__main__":
    main()
