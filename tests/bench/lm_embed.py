"""Embeddings of 64 texts: moed beside llama.cpp and PyTorch on the same weights, by turns in one run.

    python3 tests/bench/lm_embed.py [--weights stored|bf16|int8]... [--rounds N]

Writes a model of nomic-embed-text-v2-moe's shape, with all its layers and random weights, into --cache, and builds
llama.cpp there (lm_llama.py). Texts are random token ids, 16 to 256 of each, new ones for every measurement. They come in
one request of 64 texts, and from 16 clients that send one text at a time. PyTorch computes batches of 32 texts of like
length, as sentence-transformers does, in the process that has them. --python names one with torch and transformers.
"""

import argparse
import concurrent.futures
import http.client
import json
import math
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

import bench
import lm
import lm_llama
import lm_load
import lm_models

CONFIG = {"architectures": ["NomicBertModel"], "model_type": "nomic_bert", "activation_function": "gelu", "causal": False,
          "expert_choice_router": False, "layer_norm_epsilon": 1e-5, "max_trained_positions": 2048, "mlp_fc1_bias": True,
          "mlp_fc2_bias": True, "moe_every_n_layers": 2, "moe_impl": "megablocks", "moe_normalize_expert_weights": False,
          "moe_top_k": 2, "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12, "n_positions": 2048,
          "num_experts": 8, "num_shared_experts": 0, "parallel_block": False, "prenorm": False, "qkv_proj_bias": True,
          "rotary_emb_base": 10000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
          "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "scale_attn_weights": True, "type_vocab_size": 1,
          "use_rms_norm": False, "vocab_size": 250048}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TYPES = {"stored": ("f16",), "bf16": ("bf16",), "int8": ("q8_0",)}
PARTS = ("request", "clients")
TEXTS, CLIENTS = 64, 16
SHORTEST, LONGEST = 16, 256
UBATCHES = (512,)
WARM = 8 # texts that every contender embeds first; their vectors are compared
HERE = os.path.dirname(os.path.abspath(__file__))


def tensors():
    """{name: shape}; llama.cpp's converter leaves out the experts' bias, which is zero here as all biases are."""
    size, inner, experts = CONFIG["n_embd"], CONFIG["n_inner"], CONFIG["num_experts"]
    found = {"embeddings.word_embeddings.weight": (CONFIG["vocab_size"], size),
             "embeddings.token_type_embeddings.weight": (1, size), "emb_ln.weight": (size,), "emb_ln.bias": (size,)}
    for layer in range(CONFIG["n_layer"]):
        base = f"encoder.layers.{layer}."
        linears = {"attn.Wqkv": (3 * size, size), "attn.out_proj": (size, size)}
        if layer % 2 == 0:
            linears.update({"mlp.fc1": (inner, size), "mlp.fc2": (size, inner)})
        else:
            found.update({base + "mlp.router.layer.weight": (experts, size), base + "mlp.experts.bias": (size,),
                          base + "mlp.experts.mlp.w1": (experts * inner, size),
                          base + "mlp.experts.mlp.w2": (experts * inner, size)})
        for name, shape in linears.items():
            found.update({f"{base}{name}.weight": shape, f"{base}{name}.bias": shape[:1]})
        for norm in ("norm1", "norm2"):
            found.update({f"{base}{norm}.weight": (size,), f"{base}{norm}.bias": (size,)})
    return found


def write_model(directory):
    if os.path.exists(os.path.join(directory, "config.json")):
        return
    os.makedirs(directory, exist_ok=True)
    lm_models.write_weights(os.path.join(directory, "model.safetensors"), tensors())
    with open(os.path.join(directory, "config.json"), "w", encoding="ascii") as file:
        json.dump(CONFIG, file)


def with_words(directory, model):
    """The model with a tokenizer, which llama.cpp's converter wants: a word for every token."""
    vocabulary = {word: i for i, word in enumerate(SPECIAL)}
    vocabulary.update({f"w{i}": i for i in range(len(SPECIAL), CONFIG["vocab_size"])})
    tokenizer = {"version": "1.0", "added_tokens": [
        {"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True} for i, word in enumerate(SPECIAL)],
                 "normalizer": None, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None,
                 "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
                 "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                           "max_input_chars_per_word": 100, "vocab": vocabulary}}
    names = ("pad", "unk", "cls", "sep", "mask")
    said = {"tokenizer_class": "PreTrainedTokenizerFast", **{f"{name}_token": word for name, word in zip(names, SPECIAL)}}
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", said)):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            json.dump(content, file)
    for name in ("config.json", "model.safetensors"):
        os.symlink(os.path.join(model, name), os.path.join(directory, name))


def as_gguf(options, model, kind):
    if not os.path.exists(f"{model}-bf16.gguf"):
        with tempfile.TemporaryDirectory() as directory:
            with_words(directory, os.path.abspath(model))
            lm_llama.convert(options.cache, options.python, directory, f"{model}-bf16.gguf")
    return lm_llama.as_gguf(options.cache, options.python, model, kind)


def llama_command(options, gguf, ubatch, port):
    threads = str(options.threads)
    return [lm_llama.binary(options.cache, "llama-server"), "-m", gguf, "-t", threads, "-tb", threads, "--embeddings",
            "--pooling", "mean", "-np", str(CLIENTS), "-c", "8192", "-b", "2048", "-ub", str(ubatch), "--no-cache-prompt",
            "--cache-ram", "0", "--host", "127.0.0.1", "--port", str(port), "--no-webui"]


class Torch:
    """A process that embeds the lists of token ids that it is given, one JSON line for each."""

    def __init__(self, options, model):
        self.command = [options.python, os.path.join(HERE, "lm_embed_torch.py"), model, str(options.threads)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def embed(self, texts):
        self.process.stdin.write(json.dumps(texts) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return np.array(answer["vectors"]), answer["seconds"]


def ask(server, texts):
    """(vectors, seconds) of one request."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=lm_load.TIMEOUT)
    connection.request("POST", "/v1/embeddings", json.dumps({"input": texts}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = response.read()
    seconds = time.monotonic() - begin
    connection.close()
    if response.status != 200:
        raise SystemExit(f"lm_embed: {response.status}: {body[:500]}")
    found = sorted(json.loads(body)["data"], key=lambda item: item["index"])
    return np.array([item["embedding"] for item in found]), seconds


def embed(server, texts):
    return server.embed(texts) if isinstance(server, Torch) else ask(server, texts)


def some_texts(random):
    """The same lengths each time."""
    lengths = np.linspace(SHORTEST, LONGEST, TEXTS).astype(int)
    random.shuffle(lengths)
    return [random.integers(len(SPECIAL), CONFIG["vocab_size"], length).tolist() for length in lengths]


def cpu_seconds(server):
    with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as file:
        return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def measure(server, random, parts):
    """{figure: texts a second of time, and of the processors' time, which what else runs changes less}"""
    values, texts = {}, some_texts(random)
    before = cpu_seconds(server)
    if "request" in parts:
        _, seconds = embed(server, texts)
        values = {"request": TEXTS / seconds, "request_cpu": TEXTS / (cpu_seconds(server) - before),
                  "tokens": sum(map(len, texts)) / seconds}
    if "clients" not in parts or isinstance(server, Torch):
        return values
    texts = some_texts(random)
    begin, before = time.monotonic(), cpu_seconds(server)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda text: ask(server, [text]), texts))
    seconds = time.monotonic() - begin
    return {**values, "clients": TEXTS / seconds, "clients_cpu": TEXTS / (cpu_seconds(server) - before)}


def contenders(options, model):
    """{name: a function that makes its server}"""
    servers = {}
    for weights in options.weights or TYPES:
        command = lm.moed_command(options, os.path.dirname(model), weights)
        servers[f"moed {weights}"] = lambda command=command: lm_load.Server(command)
        for kind in TYPES[weights]:
            gguf = as_gguf(options, model, kind)
            for ubatch in UBATCHES:
                def start(gguf=gguf, ubatch=ubatch):
                    port = lm_load.free_port()
                    return lm_load.Server(llama_command(options, gguf, ubatch, port), port)
                servers[f"llama.cpp {kind}, -ub {ubatch}"] = start
    if not options.no_torch:
        servers["PyTorch f32"] = lambda: Torch(options, model)
    return servers


def cosines(vectors):
    """{name: the least cosine to moed's stored weights, or the first's}"""
    first = next(iter(vectors.values()))
    return {name: float(min((a @ b) / math.sqrt((a @ a) * (b @ b)) for a, b in zip(first, of)))
            for name, of in vectors.items()}


def report(results):
    lines = ["| | one request: texts/s | tokens/s | texts per CPU-s | 16 clients: texts/s | texts per CPU-s | least cosine |",
             "|---|---|---|---|---|---|---|"]
    for name, of in results["servers"].items():
        cells = [f"{of[key]['median']:.{digits}f}" if key in of else "" for key, digits in
                 (("request", 1), ("tokens", 0), ("request_cpu", 2), ("clients", 1), ("clients_cpu", 2))]
        lines.append(f"| {name} | {' | '.join(cells)} | {results['cosines'][name]:.5f} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", choices=TYPES, action="append", help="of moed; default: all")
    parser.add_argument("--only", choices=PARTS, action="append", help="only these figures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--moed", default=os.path.join(bench.ROOT, "build", "release", "moed"))
    parser.add_argument("--python", default=sys.executable, help="one that has torch and transformers")
    parser.add_argument("--cache", default=os.path.join(bench.ROOT, "build", "lm"))
    parser.add_argument("--out", default=os.path.join(bench.ROOT, "build", "lm", "embed"))
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    lm_llama.build(options.cache)
    model = os.path.join(options.cache, "nomic", "nomic")
    write_model(model)
    rounds, vectors = {}, {}
    random = np.random.default_rng()
    same = some_texts(random)[:WARM]
    servers = contenders(options, model)
    results = {"machine": bench.machine(), "date": time.strftime("%Y-%m-%d"), "arguments": sys.argv[1:]}
    for _ in range(options.rounds):
        for name, start in servers.items():
            with start() as server:
                vectors.setdefault(name, embed(server, same)[0])
                rounds.setdefault(name, []).append(measure(server, random, options.only or PARTS))
            print(f"    {name}: {rounds[name][-1]}", flush=True)
    results["servers"] = {name: {key: bench.summary([values[key] for values in of]) for key in of[0]}
                          for name, of in rounds.items()}
    results["cosines"] = cosines(vectors)
    results["machine"]["load_after"] = bench.load_average()
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    with open(os.path.join(options.out, "results.md"), "w", encoding="utf-8") as file:
        file.write(report(results))
    print(report(results))


if __name__ == "__main__":
    main()
