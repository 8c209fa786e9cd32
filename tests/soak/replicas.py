"""Three replicas behind HAProxy, under load: one is killed, one drained, one upgraded. No request may be lost.

    python3 tests/soak/replicas.py [--clients 12] [--seconds 3] [--upgrade-to BINARY]

Needs Debian's haproxy, which runs deploy/proxy/haproxy.cfg as it is. Clients send rows that are different in every
request, through the proxy, which names the replica that answered. A third of them ask for a slow model, so that
requests are under way wherever a replica is killed. `seconds`: how long the load lasts before, between and
after what happens. At the end `moectl merge` adds up the replicas' statistics; they must be, to the last digit, those of
one server that was asked for the same rows. What a replica has counted since its last snapshot is lost when it is killed;
its snapshot is taken while nobody asks, so that the rows are known, and they are left out of the comparison.
With MOED_BINARY=OLD and --upgrade-to NEW the replicas run an older build, and one of them is upgraded to a newer one, which
reads what the older one kept and serves beside it (MOECTL_BINARY=... names the newer moectl, which merges both).
Exit status 1 if a request fails or the statistics differ.
"""

import argparse
import asyncio
import csv
import glob
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from clients import LATE_SECONDS, Pool, await_ready, percentile
from support.http import HOST, Client, request_bytes
from support.models import Tiny, TwoLayers, write_slow
from support.moectl import moectl
from support.server import BINARY, ROOT, Server

FAST, SLOW = "two-layers", "slow"
MODELS = {FAST: (8, TwoLayers.inputs), SLOW: (1, 4)}  # most rows of a request, numbers in a row
SLOW_SECONDS = 0.02
NAMES = ("one", "two", "three")
OPTIONS = {"drain_delay_ms": 2000, "log_level": "error", "loops": 1, "max_batch_rows": 32, "admin": "true"}
UP_SECONDS = 60


def write_models(directory):
    TwoLayers().write(os.path.join(directory, FAST))
    write_slow(os.path.join(directory, SLOW), SLOW_SECONDS)


def rows_of(model, number):
    most, width = MODELS[model]
    return np.random.default_rng(number).normal(size=(1 + number % most, width)).astype(np.float32).tolist()


def request_of(model, number):
    return request_bytes("POST", f"/v1/models/{model}:predict", json.dumps({"instances": rows_of(model, number)}).encode())


def free_port():
    with socket.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


class Replica:
    """A server with a directory, a port and a socket for administration that outlive it."""

    def __init__(self, name, directory):
        self.name, self.port = name, free_port()
        self.directory = os.path.join(directory, name)
        self.models, self.admin = os.path.join(self.directory, "models"), os.path.join(self.directory, "admin.sock")
        write_models(self.models)
        self.start()

    def start(self, binary=BINARY):
        self.server = Server(self.models, binary=binary, port=self.port, state=os.path.join(self.directory, "state"),
                             admin_listen=f"unix:{self.admin}", **OPTIONS)
        await_ready(self.port)

    def moectl(self, *arguments):
        done = moectl(*arguments, url=f"unix:{self.admin}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def snapshot(self):
        """Writes its statistics to its directory."""
        for model in MODELS:
            subprocess.run(["curl", "-sSf", "--unix-socket", self.admin, "-X", "POST", "-o", "/dev/null",
                            f"http://localhost/v2/models/{model}/routing/snapshot"], check=True)

    def kept(self):
        """The formats of what is in its directory."""
        formats = set()
        for path in glob.glob(os.path.join(self.directory, "state", "*.routing")):
            with open(path, "rb") as file:
                formats.add(file.readline().decode().strip())
        return " and ".join(sorted(formats))

    def document(self, model):
        return self.moectl("routing", model, "--json", "--include", "exact")

    def stop(self):
        """As a supervisor does; the seconds until it has ended."""
        began = time.monotonic()
        self.server.stop()
        return time.monotonic() - began


def build_of(binary):
    """Tells builds of one version apart."""
    with open(binary, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:8]


class Proxy:
    def __init__(self, replicas, directory):
        self.port, self.socket = free_port(), os.path.join(directory, "haproxy.sock")
        extra = os.path.join(directory, "socket.cfg")
        with open(extra, "w", encoding="ascii") as file:
            file.write(f"global\n    stats socket {self.socket}\n")
        files = ["-f", os.path.join(ROOT, "deploy", "proxy", "haproxy.cfg"), "-f", extra]
        environment = {f"MOED_{replica.name.upper()}": f"{HOST}:{replica.port}" for replica in replicas}
        environment = {**os.environ, "MOED_PROXY": f"{HOST}:{self.port}", **environment}
        subprocess.run(["haproxy", "-q", "-c", *files], env=environment, check=True)
        self.process = subprocess.Popen(["haproxy", "-db", *files], env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + UP_SECONDS
        while not os.path.exists(self.socket):
            assert self.process.poll() is None and time.monotonic() < deadline, "haproxy does not start"
            time.sleep(0.05)
        await_ready(self.port)

    def figures(self):
        """{server: its line of `show stat`}"""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(self.socket)
            asked.sendall(b"show stat\n")
            text = b"".join(iter(lambda: asked.recv(65536), b"")).decode()
        lines = csv.DictReader(text.removeprefix("# ").splitlines())
        return {line["svname"]: line for line in lines if line["pxname"] == "replicas"}

    def sent_again(self):
        """Connections and requests that were tried again or elsewhere."""
        return int(self.figures()["BACKEND"]["wretr"])

    def await_up(self, name, up=True):
        deadline = time.monotonic() + UP_SECONDS
        while self.figures()[name]["status"].startswith("UP") != up:
            assert time.monotonic() < deadline, f"the proxy does not take {name} {'in' if up else 'out'}"
            time.sleep(0.05)

    def close(self):
        self.process.terminate()
        self.process.wait()


class Load:
    """Clients in a thread of their own, which can be told to rest. outcomes: ((model, number), Outcome)."""

    def __init__(self, port, clients):
        self.outcomes, self.next, self.asking = [], 0, 0
        self.rest, self.ended = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run(port, clients)))
        self.thread.start()

    async def run(self, port, clients):
        pool = Pool(port)

        async def client(model):
            while not self.ended.is_set():
                if self.rest.is_set():
                    await asyncio.sleep(0.01)
                    continue
                number, self.next = self.next, self.next + 1
                self.asking += 1
                outcome = await pool.ask(request_of(model, number), len(rows_of(model, number)))
                self.asking -= 1
                self.outcomes.append(((model, number), outcome))

        await asyncio.gather(*(client(SLOW if number % 3 == 0 else FAST) for number in range(clients)))
        pool.close()

    def pause(self):
        self.rest.set()
        time.sleep(0.05)
        deadline = time.monotonic() + LATE_SECONDS
        while self.asking:
            assert time.monotonic() < deadline, "requests hang"
            time.sleep(0.01)

    def stop(self):
        self.ended.set()
        self.thread.join()


class Run:
    """The table: what happened, and what became of the requests that ended meanwhile."""

    def __init__(self, proxy, load, seconds):
        self.proxy, self.load, self.seconds, self.failed = proxy, load, seconds, 0
        print("| what happened under load | requests | lost | sent again by the proxy | p50 | slowest | |\n"
              "|---|---|---|---|---|---|---|", flush=True)

    def phase(self, what, act):
        """The load before, during and after act(), which returns a remark."""
        first, again = len(self.load.outcomes), self.proxy.sent_again()
        self.load.rest.clear()
        time.sleep(self.seconds)
        remark = act()
        time.sleep(self.seconds)
        outcomes = [outcome for _, outcome in self.load.outcomes[first:]]
        lost = [outcome.status for outcome in outcomes if outcome.status != 200]
        self.failed += len(lost)
        times = [outcome.seconds * 1e3 for outcome in outcomes]
        print(f"| {what} | {len(outcomes)} | {len(lost)} {sorted(set(lost)) if lost else ''}| {self.proxy.sent_again() - again} | "
              f"{percentile(times, .5):.1f} ms | {max(times):.0f} ms | {remark} |", flush=True)


def kill(replica, proxy):
    replica.server.process.kill()
    replica.server.process.wait()
    replica.server.kill()
    proxy.await_up(replica.name, False)
    return ""


def start_again(replica, proxy):
    replica.start()
    proxy.await_up(replica.name)
    return "on the same port, and counts on from its snapshot"


def restart(replica, proxy, **options):
    seconds = replica.stop()
    proxy.await_up(replica.name, False)
    replica.start(**options)
    proxy.await_up(replica.name)
    return f"exit status 0 after {seconds:.1f} s"


def counted(document):
    """What a document counts, without what only the time changes."""
    layers = []
    for layer in document["layers"]:
        exact = layer["exact"]
        for expert in exact["experts"]:
            expert.pop("compute_seconds", None)
        layers.append((layer["name"], layer["rows"], exact, [(e["selected"], e["top1"], e["weight"], e["probability"]) for e in layer["experts"]]))
    return document["rows"], layers


def merged(documents, directory):
    paths = []
    for number, document in enumerate(documents):
        paths.append(os.path.join(directory, f"{number}.json"))
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.write(document)
    done = moectl("merge", *paths)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def reference(requests, directory):
    """{model: its document} of one server that is asked for all of them."""
    models = os.path.join(directory, "reference")
    write_models(models)
    with Server(models, admin="true") as server, Client(server.port) as client:
        await_ready(server.port)
        for model, number in requests:
            answer = client.predict(model, rows_of(model, number))
            assert answer.status == 200, answer.body
        documents = {model: client.get(f"/v2/models/{model}/routing?include=exact").json for model in MODELS}
        server.stop()
    return documents


def compare(replicas, load, doomed, directory):
    """Whether the merged statistics are those of one server; prints how many rows."""
    answered = {request: outcome.rows for request, outcome in load.outcomes if outcome.status == 200}
    one, good = reference([request for request in answered if request not in doomed], directory), True
    print("\n| model | rows answered | gone with the killed replica, since its snapshot | in the merged statistics | |\n|---|---|---|---|---|")
    for model in MODELS:
        rows = sum(rows for request, rows in answered.items() if request[0] == model)
        gone = sum(rows for request, rows in answered.items() if request[0] == model and request in doomed)
        whole = merged([replica.document(model) for replica in replicas], directory)
        same = counted(whole) == counted(one[model])
        good = good and same and whole["rows"] == rows - gone
        print(f"| {model} | {rows} | {gone} | {whole['rows']} | {'as one server counts, to the last digit' if same else 'NOT what one server counts'} |")
    return good


def run(options, directory):
    replicas = [Replica(name, directory) for name in NAMES]
    proxy = Proxy(replicas, directory)
    load = Load(proxy.port, options.clients)
    try:
        table = Run(proxy, load, options.seconds)
        one, two, three = replicas
        table.phase("nothing", lambda: "")
        load.pause()
        one.snapshot()
        first = len(load.outcomes)

        def upgraded():
            Tiny().write(os.path.join(three.models, "tiny"))
            binary = os.path.join(directory, "moed-new")
            shutil.copy(options.upgrade_to, binary)
            three.snapshot()
            before = three.kept()
            remark = restart(three, proxy, binary=binary)
            three.snapshot()
            return (f"{remark}; build {build_of(BINARY)} is {build_of(binary)}, `{before}` is `{three.kept()}`, "
                    f"and it serves {' and '.join(three.moectl('models', '--names').split())}")

        table.phase(f"`kill -9` of replica {one.name}", lambda: kill(one, proxy))
        load.pause()
        doomed = {request for request, outcome in load.outcomes[first:] if outcome.headers.get("moed-replica") == one.name}
        table.phase(f"replica {one.name} is started again", lambda: start_again(one, proxy))
        table.phase(f"SIGTERM to replica {two.name}, and a new start", lambda: restart(two, proxy))
        table.phase(f"replica {three.name}: SIGTERM, and a start of a new binary with one more model", upgraded)
        load.pause()
        same = compare(replicas, load, doomed, directory)
    finally:
        load.stop()
        proxy.close()
        for replica in replicas:
            replica.server.kill()
    return 0 if same and not table.failed else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--upgrade-to", default=BINARY, metavar="BINARY", help="what the upgraded replica runs; default: a copy of the same")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        return run(options, directory)


if __name__ == "__main__":
    sys.exit(main())
