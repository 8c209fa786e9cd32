"""Serves models for check.mjs, keeps traffic on them, and runs it; see run.sh."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "integration"), os.path.join(ROOT, "clients", "python")]

from moed import safetensors  # noqa: E402
from support.server import BINARY, Server, run  # noqa: E402

LAYERS, EXPERTS, SIZE, TOP_K = 64, 256, 8, 8
TEST_SET = "/usr/share/datasets/fashion-mnist/t10k-{}-ubyte.gz"  # of Debian's package
IMAGES = ("fashion-mnist", "fashion-mnist-attentive")


def write_large_model(directory):
    """As many layers and experts as a large language model has."""
    os.mkdir(directory)
    random = np.random.default_rng(0)
    layers, tensors = [], {}
    for layer in range(LAYERS):
        name = f"l{layer:02d}"
        layers += [{"op": "residual", "layers": [
            {"op": "layer_norm", "name": f"{name}.norm"},
            {"op": "moe", "name": name,
             "gate": {"layers": [{"op": "linear", "name": "out"}], "score": "softmax", "top_k": TOP_K, "normalize": "sum"},
             "experts": {"count": EXPERTS, "layers": [{"op": "linear", "name": "fc"}]}}]}]
        tensors[f"{name}.norm.weight"] = np.ones(SIZE, np.float32)
        tensors[f"{name}.gate.out.weight"] = random.standard_normal((EXPERTS, SIZE), dtype=np.float32)
        for expert in range(EXPERTS):
            tensors[f"{name}.experts.{expert}.fc.weight"] = random.standard_normal((SIZE, SIZE), dtype=np.float32) / 3
    safetensors.write(os.path.join(directory, "model.safetensors"), tensors)
    config = {"model_type": "moed", "format_version": 1, "input": {"name": "x", "shape": [SIZE]}, "layers": layers,
              "output": {"name": "y"}}
    with open(os.path.join(directory, "config.json"), "w", encoding="ascii") as file:
        json.dump(config, file)


def read(name, offset):
    with gzip.open(TEST_SET.format(name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def ablate(url, work):
    """Leaves `ablation.json`: what each expert of fashion-mnist is worth on some test images."""
    images = read("images-idx3", 16).reshape(-1, 1, 28, 28)[:500].astype(np.float32)
    np.savez(os.path.join(work, "rows.npz"), image=images, labels=read("labels-idx1", 8)[:500])
    moectl = os.path.join(os.path.dirname(BINARY), "moectl")
    with open(os.path.join(work, "ablation.json"), "w", encoding="ascii") as file:
        subprocess.run([moectl, "ablate", "fashion-mnist", os.path.join(work, "rows.npz"), "--json", "--url", url],
                       stdout=file, check=True)


def keep_busy(url, stop):
    """A few dozen requests a second until `stop`."""
    random = np.random.default_rng(1)
    images, labels = read("images-idx3", 16).reshape(-1, 784), read("labels-idx1", 8)
    while not stop.wait(0.02):
        some = random.integers(0, len(images), random.integers(1, 8))
        labelled = {"instances": images[some].tolist(), "labels": labels[some].tolist()}
        for model, request in [(name, labelled) for name in IMAGES] + [("large", {"instances": random.standard_normal((4, SIZE)).tolist()})]:
            body = json.dumps(request).encode()
            urllib.request.urlopen(urllib.request.Request(f"{url}/v1/models/{model}:predict", body)).read()


def main():
    work = sys.argv[1]
    with tempfile.TemporaryDirectory() as directory:
        models = os.path.join(directory, "models")
        shutil.copytree(os.path.join(ROOT, "deploy", "models"), models)
        write_large_model(os.path.join(models, "large"))
        os.mkdir(os.path.join(models, "broken"))
        with open(os.path.join(models, "broken", "config.json"), "w", encoding="ascii") as file:
            file.write("{}")
        closed = os.path.join(directory, "closed")
        shutil.copytree(os.path.join(models, "fashion-mnist"), os.path.join(closed, "fashion-mnist"))
        token, line = run("token", "--role", "metrics,predict").stdout.split("\n")[:2]
        with open(os.path.join(directory, "tokens"), "w", encoding="ascii") as file:
            file.write(line + "\n")
        with Server(models) as server, Server(closed, tokens=os.path.join(directory, "tokens")) as guarded:
            ablate(server.url, work)
            stop = threading.Event()
            traffic = threading.Thread(target=keep_busy, args=(server.url, stop))
            traffic.start()
            try:
                status = subprocess.run(["node", os.path.join(work, "check.mjs"), server.url, work, guarded.url, token],
                                        check=False).returncode
            finally:
                stop.set()
                traffic.join()
            guarded.stop()
            server.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
