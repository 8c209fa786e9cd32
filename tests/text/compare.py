"""Compares tokenizers with the `tokenizers` library: every Unicode code point, then random strings.

    python3 -m venv build/oracles && build/oracles/bin/pip install tokenizers==0.23.3
    build/oracles/bin/python tests/text/compare.py [--strings N] [TOKENIZER.json ...]

Default: 2,000 strings for each tokenizer of tests/data/text. Without the library it says so and ends
well. The program asked is build/release/text_probe, or what MOED_TEXT_PROBE names.
"""

import argparse
import os
import random
import struct
import subprocess
import sys
import threading
import unicodedata
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXTS_AT_ONCE = 1000
ADD_SPECIAL, SKIP_SPECIAL = 1, 2
FAILED = 0xFFFFFFFF

PIECES = [
    " ", "  ", "\n", "\t", "\r\n", "'s", "'S", "'\u017f", "don't", "a", "B", "1", "12", "!", ".", "-", "_", "/",
    "\u00e9", "e\u0301", "\u0301", "\u6f22", "\u5b57", "\u3042", "\ud55c", "\U0001f642", "\U0001f468\u200d\U0001f469",
    "\u00a0", "\u3000", "ab", "The", " the", "\ufb01", "\u0130", "\u00df", "\u2167", "\u00b2", "<s>", "</s>", "<pad>", "\u2581",
]


class Probe:
    """A text_probe that is asked one text after the other."""

    def __init__(self, path):
        binary = os.environ.get("MOED_TEXT_PROBE", str(ROOT / "build/release/text_probe"))
        self.process = subprocess.Popen([binary, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def number(self):
        return struct.unpack("<I", self.process.stdout.read(4))[0]

    def text(self):
        return self.process.stdout.read(self.number()).decode()

    def write(self, questions):
        for text, flags in questions:
            data = text.encode()
            self.process.stdin.write(struct.pack("<II", flags, len(data)) + data)
        self.process.stdin.flush()

    def answer(self):
        """Ids, the text they decode to, and the same streamed."""
        count = self.number()
        if count == FAILED:
            return self.text(), None, None
        ids = list(struct.unpack(f"<{count}i", self.process.stdout.read(4 * count)))
        return ids, self.text(), self.text()

    def ask(self, questions):
        """Answers to texts with flags, which are read while the questions are written."""
        writer = threading.Thread(target=self.write, args=(questions,))
        writer.start()
        answers = [self.answer() for _ in questions]
        writer.join()
        return answers

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


def code_points(normalizers, pre_tokenizers):
    """Those that Python's Unicode has, but for what came after one of the library's tables."""
    nfc, nfkc, strip = normalizers.NFC(), normalizers.NFKC(), normalizers.StripAccents()
    bert = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    punctuation = pre_tokenizers.BertPreTokenizer()
    for point in range(0x110000):
        character = chr(point)
        category = unicodedata.category(character)
        if category in ("Cs", "Cn"):
            continue
        probe = f"a{character}\u0315{character}"
        known = (nfc.normalize_str(probe) == unicodedata.normalize("NFC", probe)
                 and nfkc.normalize_str(probe) == unicodedata.normalize("NFKC", probe)
                 and (strip.normalize_str(character) == "") == (category[0] == "M")
                 and (bert.normalize_str(character) == "") == (category in ("Mn", "Cc", "Cf", "Co") or point == 0xFFFD)
                 and (len(punctuation.pre_tokenize_str(f"a{character}b")) == 3) == (category[0] == "P"))
        if point < 0x80 or known:
            yield character


def random_string(generator, characters, added):
    parts = []
    for _ in range(generator.randint(1, 30)):
        kind = generator.random()
        if kind < 0.55:
            parts.append(generator.choice(PIECES))
        elif kind < 0.6 and added:
            parts.append(generator.choice(added))
        else:
            parts.append(generator.choice(characters[:3000] if kind < 0.9 else characters))
    return "".join(parts)


def texts(tokenizer, characters, strings):
    for character in characters:
        yield character
        yield f"a{character}b {character}"
    generator = random.Random(14)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    for _ in range(strings):
        yield random_string(generator, characters, added)


def same_decoding(text, whole):
    """The library and this project agree; a run of broken bytes is what they may differ in when streamed."""
    return text == whole or "\ufffd" in whole


def answered(probe, given):
    """Each text with its flags and the probe's answer; all flags in turn."""
    while questions := [(text, number & 3) for number, text in enumerate(islice(given, TEXTS_AT_ONCE), 1)]:
        for (text, flags), answer in zip(questions, probe.ask(questions), strict=True):
            yield text, flags, answer


def compare(path, characters, strings):
    """Prints the first differences; returns how many there are."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    probe, different, count = Probe(path), 0, 0
    for text, flags, (ids, whole, parts) in answered(probe, texts(tokenizer, characters, strings)):
        count += 1
        wanted = tokenizer.encode(text, add_special_tokens=bool(flags & ADD_SPECIAL)).ids
        decoded = tokenizer.decode(wanted, skip_special_tokens=bool(flags & SKIP_SPECIAL))
        if ids == wanted and decoded == whole and same_decoding(parts, whole):
            continue
        different += 1
        if different <= 5:
            print(f"{path.name}: {text!r}\n    library {wanted} {decoded!r}\n    moed    {ids} {whole!r} {parts!r}")
    different += probe.close() != 0
    print(f"{path.name}: {count} texts, {different} different", flush=True)
    return different


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--strings", type=int, default=2000)
    parser.add_argument("--step", type=int, default=1, help="every so many-th code point")
    parser.add_argument("paths", nargs="*", type=Path)
    arguments = parser.parse_args()
    try:
        from tokenizers import normalizers, pre_tokenizers
    except ImportError:
        print("skipped: the tokenizers library is not installed (pip install tokenizers)")
        return 0
    fixtures = sorted(ROOT.glob("tests/data/text/*.json"))
    paths = arguments.paths or [path for path in fixtures if path.suffixes == [".json"]]  # not what is expected of them
    characters = list(code_points(normalizers, pre_tokenizers))[::arguments.step]
    return min(1, sum(compare(path, characters, arguments.strings) for path in paths))


if __name__ == "__main__":
    sys.exit(main())
