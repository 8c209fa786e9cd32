"""What each expert is worth, beside what it does: `moectl ablate` and expert by class of two shipped models.

    python3 deploy/stories/worth.py [MODEL...] [--rows N] [--save FILE.npz]

Of fashion-mnist and mnist: sends labelled test images, and prints, by class, which part of its images each expert comes
first for (include=classes), and how many percentage points of accuracy the class loses without that expert (excluded).
Checks that the two agree: a class that one expert has mostly to itself loses most without that one. Exit status 1 if
not. Seconds. --save keeps the labelled rows of one model, as `moectl ablate` takes them.

Needs a built server and moectl, Debian's dataset-fashion-mnist, and nothing but Python's standard library.
"""

import argparse
import gzip
import json
import os
import struct
import subprocess
import tempfile
import zipfile

from server import IMAGE_BYTES, Failed, Server, run

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEST_SETS = {"fashion-mnist": "/usr/share/datasets/fashion-mnist", "mnist": os.path.join(ROOT, "tests", "data", "samples")}
REQUEST_ROWS = 100
MOSTLY = 0.5


def read(directory, name, header):
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        raise Failed(f"{path} is missing. On Debian: apt-get install dataset-fashion-mnist")
    with gzip.open(path) as file:
        return file.read()[header:]


def write_npz(path, arrays):
    """{name: (shape, bytes of unsigned integers)}."""
    with zipfile.ZipFile(path, "w") as file:
        for name, (shape, data) in arrays.items():
            header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
            header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
            file.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)


def ablate(moectl, server, path):
    done = subprocess.run([moectl, "ablate", server.name, path, "--url", server.url, "--json"], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise Failed(f"moectl: {done.stderr}")
    return json.loads(done.stdout)


def print_table(study, layer, shares, names):
    experts = range(len(layer["experts"]))
    print(f"\n    {study['model']}: {study['rows']} rows, accuracy {study['accuracy']:.1%}\n")
    print(f"    {'':<12} {'first expert, share of the class':^35}    {'points lost without the expert':^35}")
    print(f"    {'class':<12} " + "".join(f"{e:>7}" for e in experts) + "    " + "".join(f"{e:>7}" for e in experts))
    for c, name in enumerate(names):
        if study["by_class"][c] is None:
            print(f"    {name:<12} none of these rows")
            continue
        lost = [100 * (study["by_class"][c] - expert["excluded"]["by_class"][c]) for expert in layer["experts"]]
        print(f"    {name:<12} " + "".join(f"{share:>7.0%}" for share in shares[c]) + "    " + "".join(f"{points:>7.1f}" for points in lost))
    lost = [100 * (study["accuracy"] - expert["excluded"]["accuracy"]) for expert in layer["experts"]]
    print(f"    {'all':<12} " + " " * 7 * len(experts) + "    " + "".join(f"{points:>7.1f}" for points in lost))


def disagreements(study, layer, shares, names):
    for c, name in enumerate(names):
        owner = max(range(len(shares[c])), key=lambda e: shares[c][e])
        right = [expert["excluded"]["by_class"][c] for expert in layer["experts"]]
        if shares[c][owner] > MOSTLY and right[owner] > min(right):
            yield f"{name} is expert {owner}'s, and loses more without expert {right.index(min(right))}"


def look(server, moectl, rows, path):
    images = read(TEST_SETS[server.name], "t10k-images-idx3-ubyte.gz", 16)[:rows * IMAGE_BYTES]
    labels = read(TEST_SETS[server.name], "t10k-labels-idx1-ubyte.gz", 8)[:rows]
    rows = len(labels)
    write_npz(path, {"image": ((rows, 1, 28, 28), images), "labels": ((rows,), labels)})
    study = ablate(moectl, server, path)
    for first in range(0, rows, REQUEST_ROWS):
        part = range(first, min(first + REQUEST_ROWS, rows))
        server.send([images[i * IMAGE_BYTES:(i + 1) * IMAGE_BYTES] for i in part], [labels[i] for i in part])
    layer = server.routing("?include=classes")["layers"][0]
    counts = list(zip(*layer["classes"]["truth"]["counts"]))
    shares = [[count / max(1, sum(column)) for count in column] for column in counts]
    names = layer["classes"]["labels"]
    print_table(study, study["layers"][0], shares, names)
    return list(disagreements(study, study["layers"][0], shares, names))


def main():
    parser = argparse.ArgumentParser(description="Prints what each expert of shipped models is worth, by class.")
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(TEST_SETS), help=f"of {', '.join(TEST_SETS)}")
    parser.add_argument("--moed", default=os.environ.get("MOED_BINARY", os.path.join(ROOT, "build", "release", "moed")))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--save", metavar="FILE.npz", help="where to keep the labelled rows of one model")
    arguments = parser.parse_args()
    if arguments.save and len(arguments.models) != 1:
        parser.error("--save: expected one MODEL")
    moectl = os.path.join(os.path.dirname(arguments.moed), "moectl")
    wrong = []
    for name in arguments.models:
        if name not in TEST_SETS:
            raise Failed(f"there is no test set for '{name}'; there is one for {', '.join(TEST_SETS)}")
        with tempfile.TemporaryDirectory(prefix="moed-worth-") as directory:
            server = Server(arguments.moed, os.path.join(ROOT, "deploy", "models", name), directory)
            try:
                wrong += look(server, moectl, arguments.rows, arguments.save or os.path.join(directory, "rows.npz"))
            finally:
                server.stop()
    print("\n    " + ("; ".join(wrong) or "the two agree: whose class it is, without that expert it loses most"))
    return 1 if wrong else 0


if __name__ == "__main__":
    run("worth", main)
