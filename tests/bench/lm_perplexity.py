"""What rounding weights costs: the perplexity of deploy/models/tiny-lm with each form, moed's and llama.cpp's.

    python3 tests/bench/lm_perplexity.py --data DIR [--windows N]

DIR holds the packages of recipes/public_texts.py, and this Python has torch and transformers. Builds llama.cpp as lm.py
does. The text is what tiny-lm was not trained on, in windows of 512 tokens of which the second half counts, as
llama-perplexity has it: both servers are asked about the same tokens. Keys and values are kept as F32. Each change is
against the same server's stored weights (llama.cpp's: F32, for it rounds activations to BF16 where weights are BF16).
"""

import argparse
import http.client
import json
import math
import os
import re
import subprocess
import sys

import bench
import lm_llama
import lm_load

sys.path.insert(0, os.path.join(bench.ROOT, "clients", "python"))

from recipes import public_texts, tiny_lm  # noqa: E402

WINDOW = 512
MODELS = os.path.join(bench.ROOT, "deploy", "models")
# The forms of moed, as its options say, and of llama.cpp.
OURS = {"stored": [], "int8": ["--weights", "int8"], "int8, f32 activations": ["--weights", "int8", "--activations", "f32"],
        "int4": ["--weights", "int4"],
        "int4, f32 activations": ["--weights", "int4", "--activations", "f32"]}
THEIRS = ("f32", "q8_0", "q4_0", "q4_k_m")


def held_out(directory):
    """{domain: text}"""
    return {domain: "\n".join(document.text for document in documents if tiny_lm.is_held_out(document))
            for domain, documents in public_texts.read(directory).items()}


def post(server, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=lm_load.TIMEOUT)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"lm_perplexity: {response.status}: {answer[:500]}")
    return json.loads(answer)


def windows_of(ids, count):
    return [ids[begin:begin + WINDOW] for begin in range(0, min(len(ids) - WINDOW, count * WINDOW - 1) + 1, WINDOW)]


def window_nats(server, window):
    """Of the tokens of the second half but its first, which llama-perplexity does not count."""
    body = {"model": "tiny-lm", "prompt": window, "echo": True, "logprobs": 0, "max_tokens": 0}
    answer = post(server, "/v1/completions", body)
    return -sum(answer["choices"][0]["logprobs"]["token_logprobs"][WINDOW // 2 + 1:])


def ours(options, form, texts):
    """{domain: (nats, tokens)}"""
    command = [options.moed, "serve", "--models", MODELS, "--model-control", "explicit", "--load-model", "tiny-lm", "--port",
               "0", "--kv-cache", "f32", "--log-level", "warning", *OURS[form]]
    result = {}
    with lm_load.Server(command) as server:
        for domain, text in texts.items():
            ids = post(server, "/tokenize", {"model": "tiny-lm", "content": text})["tokens"]
            windows = windows_of(ids, options.windows)
            result[domain] = sum(window_nats(server, window) for window in windows), len(windows) * (WINDOW // 2 - 1)
    return result


def llama_perplexity(options, gguf, path):
    """(nats, tokens). Its log's end is lost now and then: then it is asked again."""
    command = [lm_llama.binary(options.cache, "llama-perplexity"), "-m", gguf, "-f", path, "-c", str(WINDOW), "-b",
               str(WINDOW), "--chunks", str(options.windows), "-t", "2", "-ctk", "f32", "-ctv", "f32"]
    for _ in range(20):
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        estimate = re.search(r"Final estimate: PPL = ([\d.]+)", run.stdout + run.stderr)
        if estimate:
            tokens = int(re.search(r"over (\d+) chunks", run.stdout + run.stderr).group(1)) * (WINDOW // 2 - 1)
            return math.log(float(estimate.group(1))) * tokens, tokens
    raise SystemExit(f"lm_perplexity: {' '.join(command)}: no estimate")


def theirs(options, gguf, texts):
    result = {}
    for domain, text in texts.items():
        path = os.path.join(options.cache, f"held-out-{domain}.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        result[domain] = llama_perplexity(options, gguf, path)
    return result


def total(domains):
    """(perplexity, tokens)"""
    tokens = sum(tokens for _, tokens in domains.values())
    return math.exp(sum(nats for nats, _ in domains.values()) / tokens), tokens


def row(name, domains, base):
    perplexity, tokens = total(domains)
    change = 100 * (perplexity / total(base)[0] - 1)
    each = " | ".join(f"{math.exp(nats / count):.3f}" for nats, count in domains.values())
    print(f"| {name} | {tokens:,} | {each} | {perplexity:.3f} | {change:+.3f} % |", flush=True)


def quantized(options, kind):
    path = os.path.join(options.cache, f"tiny-lm-{kind}.gguf")
    f32 = os.path.join(options.cache, "tiny-lm-f32.gguf")
    if kind == "f32":
        lm_llama.convert(options.cache, options.python, os.path.join(MODELS, "tiny-lm"), path, kind)
    else:
        subprocess.run([lm_llama.binary(options.cache, "llama-quantize"), f32, path, kind.upper(), "2"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="where the packages of text are")
    parser.add_argument("--windows", type=int, default=50, help="of each text, at most (default 50)")
    parser.add_argument("--moed", default=os.path.join(bench.ROOT, "build", "release", "moed"))
    parser.add_argument("--python", default=sys.executable, help="one that has torch and transformers")
    parser.add_argument("--cache", default=os.path.join(bench.ROOT, "build", "lm"))
    options = parser.parse_args()
    texts = held_out(options.data)
    lm_llama.build(options.cache)
    print(f"| form | tokens | {' | '.join(texts)} | all | change |\n| --- |{' --- |' * (len(texts) + 3)}")
    base = None
    for form in OURS:
        domains = ours(options, form, texts)
        base = base or domains
        row(f"moed, {form}", domains, base)
    base = None
    for kind in THEIRS:
        domains = theirs(options, quantized(options, kind), texts)
        base = base or domains
        row(f"llama.cpp, {kind}", domains, base)


if __name__ == "__main__":
    main()
