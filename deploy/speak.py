"""Lets a language model of a running moed server speak, and shows which experts spoke.

    python3 deploy/speak.py [--url URL] [--token TOKEN] [--tokens N] [--seed N] MODEL [PROMPT...]

Needs nothing but Python's standard library, so it doubles as an example of OpenAI's protocol with routing: the answer
comes as events, one token or a few at a time.
"""

import argparse
import collections
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

PROMPTS = ("And it came to pass, that", "Emma was", ":hacker: n.")  # one for each kind of text that tiny-lm has learned
TOKENS, SEED, TEMPERATURE = 40, 1, 0.7
MOST_EXPERTS = 4
SHADES = " ░▒▓█"
SILENCE_SECONDS = 60  # without a byte
LINE_BYTES = 64 << 20  # of a stream; a line holds one token or a few, and the experts of the whole prompt


class Failed(Exception):
    """The message is for the person at the terminal."""


def colour(text, code):
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def shown(text):
    """A model may say anything, and a terminal obeys what it is sent."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def answer_to(url, token, body=None):
    """The reply, whose lines are still to come."""
    request = urllib.request.Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json"})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # for this server only
    try:
        return urllib.request.urlopen(request, timeout=SILENCE_SECONDS)
    except urllib.error.HTTPError as error:
        text = error.read(LINE_BYTES).decode(errors="replace")
        hint = " (--token or MOED_TOKEN)" if error.code == 401 and not token else ""
        raise Failed(shown(f"{error.url} answered {error.code}: {text.rstrip()}{hint}")) from None
    except http.client.HTTPException:
        raise Failed(f"{url}: no answer of HTTP; a server with TLS is https://") from None
    except (OSError, ValueError) as error:
        raise Failed(f"{url}: {error}") from None


def line_of(reply):
    try:
        return reply.readline(LINE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"the answer broke off: {error}") from None


def events(reply):
    """The documents of a stream of events."""
    while line := line_of(reply):
        if len(line) == LINE_BYTES:
            raise Failed(f"a line of the answer has {LINE_BYTES} bytes or more")
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            document = json.loads(line[len(b"data: "):])
            if "error" in document:
                raise Failed(shown(document["error"]["message"]))
            yield document


def speak(url, model, prompt, arguments):
    """Prints the text as it comes. Returns ({layer: experts of each row}, tokens of the prompt, of the answer)."""
    body = {"model": model, "prompt": prompt, "max_tokens": arguments.tokens, "temperature": TEMPERATURE,
            "seed": arguments.seed, "stream": True, "stream_options": {"include_usage": True}, "routing": True}
    layers, usage = collections.defaultdict(list), None
    with answer_to(f"{url}/v1/completions", arguments.token, body) as reply:
        print(f"\n    {colour(prompt, 1)}", end="", flush=True)
        try:
            for event in events(reply):
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    print(shown(choice["text"]).replace("\n", "\n    "), end="", flush=True)
                    for layer in choice.get("routing", {"layers": []})["layers"]:
                        layers[layer["name"]] += layer["experts"]
        finally:
            print()
    if usage is None:
        raise Failed("the answer broke off")
    return layers, usage["prompt_tokens"], usage["completion_tokens"]


def bar(counts, experts):
    """A character for each expert: the darker, the more often it was chosen."""
    most = max(counts.values())
    return "".join(SHADES[-(-(len(SHADES) - 1) * counts[expert] // most)] for expert in range(experts))


def show_experts(url, model, token, layers, prompt_tokens):
    """Of the rows that made the answer's tokens: the last of the prompt and all that follow."""
    with answer_to(f"{url}/v2/models/{urllib.parse.quote(model, safe='')}/routing", token) as reply:
        sizes = {layer["name"]: len(layer["experts"]) for layer in json.load(reply)["layers"]}
    for name, rows in layers.items():
        counts = collections.Counter(expert for row in rows[prompt_tokens - 1:] for expert in row if expert >= 0)
        total = sum(counts.values())
        spoke = ", ".join(f"{expert} ({count / total:.0%})" for expert, count in counts.most_common(MOST_EXPERTS))
        print(f"      {shown(name):<24} |{bar(counts, sizes[name])}|  most: experts {spoke}")


def main():
    parser = argparse.ArgumentParser(description="Let a language model of a moed server speak.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--token", default=os.environ.get("MOED_TOKEN"),
                        help="sent as Authorization: Bearer; better in MOED_TOKEN, unseen by other users of this machine")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=f"at most so many (default {TOKENS})")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="the same seed says the same")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", default=PROMPTS)
    arguments = parser.parse_args()
    if not re.match(r"https?://(\[[\da-fA-F:.]+\]|[^][/?#]+)(:|/|$)", arguments.url):
        parser.error(f"--url: expected http://HOST:PORT or https://HOST:PORT, got '{arguments.url}'")
    if "@" in arguments.url:
        parser.error("--url: a name or a password in an address is not sent")
    if not (arguments.token or "").isascii() or not (arguments.token or "").isprintable():
        parser.error("--token: expected printable ASCII")
    url = arguments.url.rstrip("/")
    for prompt in arguments.prompts:
        began = time.monotonic()
        layers, prompt_tokens, tokens = speak(url, arguments.model, prompt, arguments)
        print(f"      {tokens:d} tokens in {time.monotonic() - began:.2f} s. Experts chosen for them, by layer:")
        show_experts(url, arguments.model, arguments.token, layers, prompt_tokens)


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Failed as failed:
        sys.exit(f"speak: {failed}")
    except KeyboardInterrupt:
        sys.exit(130)
