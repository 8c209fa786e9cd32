"""Shows a running moed server at work on Fashion-MNIST: predictions, and which experts made them.

    python3 deploy/classify.py [--url URL] [--token TOKEN] [--first N] MODEL...

Needs nothing but Python's standard library, so it doubles as an example of both protocols: a few images go as
KServe V1 JSON, many as one binary request of the Open Inference Protocol.
"""

import argparse
import gzip
import http.client
import json
import os
import re
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SIDE = 28
IMAGE_BYTES = SIDE * SIDE
IMAGES_HEADER_BYTES, LABELS_HEADER_BYTES = 16, 8
FEW, MANY = 10, 1000
BAR_COLUMNS = 30
ERROR_BYTES = 64 << 10  # of a refusal


class Failed(Exception):
    """The message is for the person at the terminal."""


def test_set(directory):
    """(bytes of all test images, their labels)."""
    def content(name):
        path = os.path.join(directory, name)
        if not os.path.exists(path):
            raise Failed(f"{path} is missing. On Debian: apt-get install dataset-fashion-mnist")
        with gzip.open(path) as file:
            return file.read()

    return (content("t10k-images-idx3-ubyte.gz")[IMAGES_HEADER_BYTES:],
            content("t10k-labels-idx1-ubyte.gz")[LABELS_HEADER_BYTES:])


def shown(text):
    """A server may send anything, and a terminal obeys what it is sent."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def exchange(url, token, body=None, headers=None):
    """(headers, body) of a 200 answer."""
    request = urllib.request.Request(url, body, headers or {})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # for this server only
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        text = error.read(ERROR_BYTES).decode(errors="replace")
        hint = " (--token or MOED_TOKEN)" if error.code == 401 and not token else ""
        raise Failed(shown(f"{url} answered {error.code}: {text.rstrip()}{hint}")) from None
    except http.client.HTTPException:
        raise Failed(f"{url}: no answer of HTTP; a server with TLS is https://") from None
    except (OSError, ValueError) as error:
        raise Failed(f"{url}: {error}") from None


def quoted(model):
    return urllib.parse.quote(model, safe="")


def rows_of(image):
    return [list(image[at:at + SIDE]) for at in range(0, IMAGE_BYTES, SIDE)]


def predict(url, token, model, images):
    """KServe V1: nested lists in, probabilities and routing out."""
    body = json.dumps({"instances": [[rows_of(image)] for image in images], "routing": True}).encode()
    _, answer = exchange(f"{url}/v1/models/{quoted(model)}:predict", token, body)
    return json.loads(answer)


def infer(url, token, model, images):
    """Open Inference Protocol with binary tensors: the probabilities of many images, flat."""
    data = b"".join(images)
    request = json.dumps({
        "inputs": [{"name": "image", "shape": [len(images), 1, SIDE, SIDE], "datatype": "UINT8",
                    "parameters": {"binary_data_size": len(data)}}],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}).encode()
    headers, answer = exchange(f"{url}/v2/models/{quoted(model)}/infer", token, request + data,
                               {"Inference-Header-Content-Length": str(len(request))})
    tensor = answer[int(headers["Inference-Header-Content-Length"]):]
    return struct.unpack(f"<{len(tensor) // 4}f", tensor)


def best(probabilities):
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def colour(text, code):
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def show_few(url, token, model, first, images, labels):
    answer = predict(url, token, model, images)
    ((layer, routing),) = answer["routing"].items()
    print(f"    {'image':>5}  {'is':<12} {'predicted':<12} {'with':>7}        "
          f"served by experts (weight) of layer '{shown(layer)}'")
    for i, probabilities in enumerate(answer["predictions"]):
        guess = best(probabilities)
        mark = colour("right", 32) if guess == labels[i] else colour("wrong", 31)
        experts = "  ".join(f"{expert:d} ({weight:.2f})"
                            for expert, weight in zip(routing["experts"][i], routing["weights"][i]))
        print(f"    {first + i:>5}  {LABELS[labels[i]]:<12} {LABELS[guess]:<12} {probabilities[guess]:>7.1%} {mark}  "
              f"{experts}")


def show_many(url, token, model, images, labels):
    began = time.monotonic()
    probabilities = infer(url, token, model, images)
    seconds = time.monotonic() - began
    right = sum(best(probabilities[i * len(LABELS):(i + 1) * len(LABELS)]) == label for i, label in enumerate(labels))
    print(f"    {len(images)} more in one request: {right / len(images):.1%} right, {seconds:.2f} s")


def show_utilisation(url, token, model):
    statistics = json.loads(exchange(f"{url}/v2/models/{quoted(model)}/routing", token)[1])
    for layer in statistics["layers"]:
        print(f"    layer '{shown(layer['name'])}' after {layer['rows']} rows:\n"
              "    expert  rows served  first choice  weight")
        for expert in layer["experts"]:
            weight = expert["weight"] / layer["rows"]
            print(f"    {expert['index']:>6d} {expert['selected']:>12d} {expert['top1']:>13d} {weight:>7.1%} "
                  f"{'#' * round(BAR_COLUMNS * weight)}".rstrip())


def show(url, token, model, first, images, labels):
    print(f"\n    {colour(model, 1)}")
    show_few(url, token, model, first, images[:FEW], labels)
    show_many(url, token, model, images[FEW:], labels[FEW:])
    show_utilisation(url, token, model)


def main():
    parser = argparse.ArgumentParser(description="Classify Fashion-MNIST test images with a moed server.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--token", default=os.environ.get("MOED_TOKEN"),
                        help="sent as Authorization: Bearer; better in MOED_TOKEN, unseen by other users of this machine")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first image (of 10000) to show")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", metavar="DIR")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    arguments = parser.parse_args()
    if not re.match(r"https?://(\[[\da-fA-F:.]+\]|[^][/?#]+)(:|/|$)", arguments.url):
        parser.error(f"--url: expected http://HOST:PORT or https://HOST:PORT, got '{arguments.url}'")
    if "@" in arguments.url:
        parser.error("--url: a name or a password in an address is not sent")
    if not (arguments.token or "").isascii() or not (arguments.token or "").isprintable():
        parser.error("--token: expected printable ASCII")
    pixels, labels = test_set(arguments.data)
    last = len(labels) - FEW - MANY
    if not 0 <= arguments.first <= last:
        raise Failed(f"--first is {arguments.first}, expected a number from 0 to {last}")
    chosen = range(arguments.first, arguments.first + FEW + MANY)
    images = [pixels[i * IMAGE_BYTES:(i + 1) * IMAGE_BYTES] for i in chosen]
    url = arguments.url.rstrip("/")
    for model in arguments.models:
        show(url, arguments.token, model, arguments.first, images, [labels[i] for i in chosen])


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Failed as failed:
        sys.exit(f"classify: {failed}")
    except KeyboardInterrupt:
        sys.exit(130)
