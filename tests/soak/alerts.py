"""Real traffic, a real Prometheus and the alerting rules of deploy/prometheus: silent when all is well, loud when not.

    python3 tests/soak/alerts.py [--healthy SECONDS]

Serves fashion-mnist, sends it the test images, then only seven of the ten classes, then replaces the model by one whose
gate has gone wrong and gives nearly everything to one expert, then sends nothing. Prometheus scrapes every second. So
that this takes minutes and not hours, the rules are used with windows of one minute in place of five and without their
`for`; what the server itself calls dying still takes five minutes. Prints which alert fired when. Exit status 0: those
and only those that were expected.

Needs the Debian packages prometheus, dataset-fashion-mnist and python3-numpy.
"""

import argparse
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "integration"), os.path.join(ROOT, "clients", "python")]

from moed import safetensors  # noqa: E402
from support.server import Server  # noqa: E402

MODEL = "fashion-mnist"
DATA = "/usr/share/datasets/fashion-mnist/t10k-{}-ubyte.gz"
REMOVED_CLASSES = (2, 4, 6)  # pullover, coat, shirt: what expert 2 is for
ROWS, PAUSE_SECONDS = 8, 0.05
DYING_SECONDS = 400  # five minutes, and what it takes to be sure
DRIFT_SECONDS, IDLE_SECONDS = 90, 150


def read(name, offset):
    with gzip.open(DATA.format(name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


class Traffic:
    """Rows of the test images, of the classes it is told to send; none: no requests."""

    def __init__(self, url):
        self.url = f"{url}/v1/models/{MODEL}:predict"
        self.images, self.labels = read("images-idx3", 16).reshape(-1, 784), read("labels-idx1", 8)
        self.failed, self.sent = 0, 0
        self.send(())
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def send(self, classes):
        self.rows = np.flatnonzero(np.isin(self.labels, classes))

    def run(self):
        random = np.random.default_rng(1)
        while not self.stopped.wait(PAUSE_SECONDS):
            rows = self.rows
            if len(rows) == 0:
                continue
            body = json.dumps({"instances": self.images[random.choice(rows, ROWS)].tolist()}).encode()
            try:
                urllib.request.urlopen(urllib.request.Request(self.url, body)).read()
                self.sent += 1
            except OSError as failure:
                self.failed += 1
                print(f"    a request failed: {failure}")

    def stop(self):
        self.stopped.set()
        self.thread.join()


class Prometheus:
    """A process of Debian's prometheus, its configuration and data below `directory`."""

    def __init__(self, directory, target):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with open(os.path.join(ROOT, "deploy", "prometheus", "rules.yml"), encoding="utf-8") as file:
            rules = file.read().replace("rate5m", "RATE").replace("5m", "1m").replace("RATE", "rate5m")
        # The server says what dies in its window of five minutes; it has no other.
        rules = re.sub(r"^ +for: .*\n", "", rules, flags=re.M)
        with open(os.path.join(directory, "rules.yml"), "w", encoding="utf-8") as file:
            file.write(rules)
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": ["rules.yml"],
                  "scrape_configs": [{"job_name": "moed", "static_configs": [{"targets": [target]}]}]}
        path = os.path.join(directory, "prometheus.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        self.log = open(os.path.join(directory, "log"), "w", encoding="utf-8")
        self.process = subprocess.Popen(["prometheus", f"--config.file={path}", f"--storage.tsdb.path={directory}/data",
                                         f"--web.listen-address={self.url[7:]}"], stderr=self.log, stdout=self.log)

    def firing(self):
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/alerts", timeout=5) as reply:
                alerts = json.load(reply)["data"]["alerts"]
        except OSError:
            return set()
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def break_gate(source, target):
    """A copy whose gate prefers experts 0 and 1 whatever it sees, and gives expert 0 nearly all the weight."""
    shutil.copytree(source, target)
    path = os.path.join(target, "model.safetensors")
    tensors = {name: np.array(tensor) for name, tensor in safetensors.read(path).items()}
    tensors["moe.gate.out.bias"] = np.array([200, 150, 0, 0, 0], np.float32)
    safetensors.write(path, tensors)


class Story:
    """What fired in each chapter, and whether that was expected."""

    def __init__(self, prometheus):
        self.prometheus, self.wrong = prometheus, []

    def chapter(self, name, seconds, must=(), may=()):
        """Watches for so long, or until all that must fire has; `may`: what may fire as well."""
        began, first = time.monotonic(), {}
        while time.monotonic() < began + seconds and not (must and set(must) <= set(first)):
            for alert in self.prometheus.firing():
                first.setdefault(alert, time.monotonic() - began)
            time.sleep(1)
        print(f"{name}, {time.monotonic() - began:.0f} s: "
              + (", ".join(f"{alert} after {after:.0f} s" for alert, after in first.items()) or "silent"), flush=True)
        self.wrong += [f"{name}: {alert} did not fire" for alert in must if alert not in first]
        self.wrong += [f"{name}: {alert} fired" for alert in first if alert not in (*must, *may)]

    def quiet(self, name, seconds):
        """Waits until nothing fires."""
        began = time.monotonic()
        while time.monotonic() < began + seconds and self.prometheus.firing():
            time.sleep(1)
        still = self.prometheus.firing()
        print(f"{name}: silent after {time.monotonic() - began:.0f} s" if not still else f"{name}: {still} fire on", flush=True)
        self.wrong += [f"{name}: {alert} fires on" for alert in still]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=120, help="seconds of healthy traffic")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        models = os.path.join(directory, "models")
        shutil.copytree(os.path.join(ROOT, "deploy", "models", MODEL), os.path.join(models, MODEL))
        with Server(models) as server:
            prometheus = Prometheus(directory, server.url[7:])
            traffic = Traffic(server.url)
            story = Story(prometheus)
            try:
                traffic.send(range(10))
                story.chapter("all classes", options.healthy)
                traffic.send([c for c in range(10) if c not in REMOVED_CLASSES])
                story.chapter("three classes less", DRIFT_SECONDS, must=["MoedRoutingDrift"])
                traffic.send(range(10))
                story.quiet("all classes again", IDLE_SECONDS)
                break_gate(os.path.join(models, MODEL), os.path.join(directory, "broken"))
                os.rename(os.path.join(models, MODEL), os.path.join(directory, "old"))
                os.rename(os.path.join(directory, "broken"), os.path.join(models, MODEL))
                server.signal(signal.SIGHUP)
                story.chapter("a broken gate", DYING_SECONDS, must=["MoedExpertCollapse", "MoedRoutingDrift", "MoedExpertDying"])
                traffic.send(())
                story.quiet("nothing sent", DYING_SECONDS)
            finally:
                traffic.stop()
                prometheus.close()
            print(f"{traffic.sent} requests, {traffic.failed} failed")
            server.stop()
    for wrong in story.wrong:
        print(f"WRONG {wrong}")
    return 1 if story.wrong or traffic.failed else 0


if __name__ == "__main__":
    sys.exit(main())
