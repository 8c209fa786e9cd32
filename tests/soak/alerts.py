"""Real traffic, a real Prometheus and the alerting rules of deploy/prometheus: silent when all is well, loud when not.

    python3 tests/soak/alerts.py [--before SECONDS]

Serves fourteen copies of fashion-mnist and sends each its own order of labelled test images. Ten stay as they are. After
a while things go wrong with the others: three of the ten classes are sent no more; the last matrix of expert 3 becomes
zero; the gate no longer chooses expert 3; the gate gives nearly everything to expert 0. Prometheus scrapes every second.
So that this takes minutes and not days, the rules are used with windows of one minute in place of five minutes and of an
hour, of 15 minutes in place of a day, and without their `for`; what the server itself calls dying still takes five
minutes. In the end nothing is sent, and all must be silent. 14 minutes.

Prints a table: which alert fired when, and what the routing document and /metrics said then. Exit status 0: those and
only those fired that were expected, and each was to be seen in all three.

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
import urllib.parse
import urllib.request

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "integration"), os.path.join(ROOT, "clients", "python")]

from moed import safetensors  # noqa: E402
from support.server import Server  # noqa: E402

MODEL = "fashion-mnist"
DATA = "/usr/share/datasets/fashion-mnist/t10k-{}-ubyte.gz"
REMOVED_CLASSES = (2, 4, 6)  # pullover, coat, shirt: what expert 2 is for
DEAD = 3
HEALTHY = 10
ROWS, ROUND_SECONDS = 16, 1.0  # to each model
WRONG_SECONDS = 420  # five minutes, and what it takes to be sure
IDLE_SECONDS = 400


def read(name, offset):
    with gzip.open(DATA.format(name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


# --- what goes wrong --------------------------------------------------------------------------------------------

def silence_expert(tensors):
    tensors[f"moe.experts.{DEAD}.out.weight"] = np.zeros_like(tensors[f"moe.experts.{DEAD}.out.weight"])


def avoid_expert(tensors):
    tensors["moe.gate.out.bias"][DEAD] -= 1000


def collapse(tensors):
    """The gate prefers experts 0 and 1 whatever it sees, and gives expert 0 nearly all the weight."""
    tensors["moe.gate.out.bias"] = np.array([200, 150, 0, 0, 0], np.float32)


class Case:
    """A model, what happens to it, and which alerts must and may follow."""

    def __init__(self, name, title, classes=range(10), edit=None, must=(), may=()):
        self.name, self.title, self.edit, self.must, self.may = name, title, edit, must, may
        self.classes = classes
        self.first = {}  # alert: (seconds after, what the document says, what /metrics says)


CASES = [
    *(Case(f"well-{i}", "all is well") for i in range(HEALTHY)),
    Case("moves", "three classes are sent no more", [c for c in range(10) if c not in REMOVED_CLASSES],
         must=["MoedRoutingDrift"]),
    Case("breaks", f"expert {DEAD}'s last matrix is zero", edit=silence_expert, must=["MoedExpertFailing"]),
    # Those who do its work now are wrong more often.
    Case("dies", f"the gate avoids expert {DEAD}", edit=avoid_expert, must=["MoedRoutingDrift", "MoedExpertDying"],
         may=["MoedExpertFailing"]),
    Case("collapses", "the gate gives expert 0 everything", edit=collapse,
         must=["MoedExpertCollapse", "MoedRoutingDrift", "MoedExpertDying"], may=["MoedExpertFailing"]),
]


def edit_model(directory, edit):
    """Puts an edited copy in the model's place; the server is to load it."""
    copy = directory + ".new"
    shutil.copytree(directory, copy)
    path = os.path.join(copy, "model.safetensors")
    tensors = {name: np.array(tensor) for name, tensor in safetensors.read(path).items()}
    edit(tensors)
    safetensors.write(path, tensors)
    os.rename(directory, os.path.join(os.path.dirname(os.path.dirname(directory)), os.path.basename(directory) + ".old"))
    os.rename(copy, directory)


# --- traffic and Prometheus -------------------------------------------------------------------------------------

class Traffic:
    """A request with ROWS labelled images to every model in each round, of the classes that its case sends now."""

    def __init__(self, url):
        self.url = url
        self.images, self.labels = read("images-idx3", 16).reshape(-1, 784), read("labels-idx1", 8)
        self.failed, self.rounds, self.wrong, self.idle = 0, 0, False, False
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def predict(self, case, random):
        classes = case.classes if self.wrong else range(10)
        rows = random.choice(np.flatnonzero(np.isin(self.labels, classes)), ROWS)
        body = json.dumps({"instances": self.images[rows].tolist(), "labels": self.labels[rows].tolist()}).encode()
        try:
            request = urllib.request.Request(f"{self.url}/v1/models/{case.name}:predict", body)
            urllib.request.urlopen(request, timeout=60).read()
        except OSError as failure:
            self.failed += 1
            print(f"    a request failed: {failure}")

    def run(self):
        randoms = [np.random.default_rng(i) for i in range(len(CASES))]
        due = time.monotonic()
        while not self.stopped.wait(max(0, due - time.monotonic())):
            due = time.monotonic() + ROUND_SECONDS
            if self.idle:
                continue
            for case, random in zip(CASES, randoms):
                self.predict(case, random)
            self.rounds += 1

    def stop(self):
        self.stopped.set()
        self.thread.join()


def fast(rules):
    """The rules with shorter windows. The server says what dies in its window of five minutes; it has no other.

    Those on the server keep their `for`: a scrape that is late on a busy machine is no server that is down.
    """
    rules = rules.replace("rate5m", "RATE").replace("5m", "1m").replace("RATE", "rate5m")
    rules = rules.replace("[1h]", "[1m]").replace("[1d]", "[15m]")
    routing, server = rules.split("  - name: moed-server\n")
    return re.sub(r"^ +for: .*\n", "", routing, flags=re.M) + "  - name: moed-server\n" + server


class Prometheus:
    """A process of Debian's prometheus, its configuration and data below `directory`."""

    def __init__(self, directory, target):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with open(os.path.join(ROOT, "deploy", "prometheus", "rules.yml"), encoding="utf-8") as file:
            rules = fast(file.read())
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

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as reply:
            return json.load(reply)["data"]

    def firing(self):
        """{(model, alert)}; the model is "" where it is about none. None: it does not answer."""
        try:
            alerts = self.get("/api/v1/alerts")["alerts"]
        except OSError:
            return None
        return {(alert["labels"].get("model", ""), alert["labels"]["alertname"]) for alert in alerts
                if alert["state"] == "firing"}

    def value(self, expression):
        """Of an expression with one result; NaN: it has none."""
        results = self.get("/api/v1/query?query=" + urllib.parse.quote(expression))["result"]
        return float(results[0]["value"][1]) if results else float("nan")

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


# --- what is to be seen -----------------------------------------------------------------------------------------

class Watch:
    """What fires, and what the routing document and /metrics say when it does so first."""

    def __init__(self, url, prometheus):
        self.url, self.prometheus, self.wrong = url, prometheus, []

    def layer(self, case, window):
        with urllib.request.urlopen(f"{self.url}/v2/models/{case.name}/routing?window={window}", timeout=30) as reply:
            return json.load(reply)["layers"][0]

    def metric(self, name, case, labels, function="max"):
        return self.prometheus.value(f'{function}({name}{{model="{case.name}",{labels}}})')

    def drift(self, case):
        seen = self.layer(case, "1m")["drift"]["reference"]
        psi, p = (self.metric(f"moed_layer_drift_{key}", case, 'window="1m"') for key in ("psi", "p_value"))
        return (f"psi {seen['psi']:.2f}, p_value {seen['p_value']:.1g}", f"psi {psi:.2f}, p_value {p:.1g}",
                min(seen["psi"], psi) > 0.1 and max(seen["p_value"], p) < 0.001)

    def dying(self, case):
        seen, count = self.layer(case, "5m")["dying"], self.metric("moed_layer_dying_experts", case, "")
        return f"dying {seen}", f"dying_experts {count:.0f}", DEAD in seen and count == len(seen)

    def failing(self, case):
        """The expert that is worst compared with the time before."""
        accuracy = [expert["accuracy"] or 0 for expert in self.layer(case, "1m")["experts"]]
        ratio = ('moed:expert_accuracy:increase1h{{model="{0}"}} / moed:expert_accuracy:increase1d{{model="{0}"}}'
                 .format(case.name))
        results = self.prometheus.get("/api/v1/query?query=" + urllib.parse.quote(f"bottomk(1, {ratio})"))["result"]
        expert = int(results[0]["metric"]["expert"])
        gauge = self.metric("moed_expert_accuracy_ratio", case, f'window="1m",expert="{expert}"')
        return (f"expert {expert}: accuracy {accuracy[expert]:.2f}", f"accuracy_ratio {gauge:.2f}",
                case.name != "breaks" or (expert == DEAD and max(accuracy[expert], gauge) < 0.7))

    def collapsed(self, case):
        share = self.layer(case, "1m")["experts"][0]["weight_share"]
        recorded = self.prometheus.value(f'max(moed:expert_weight_share:rate5m{{model="{case.name}"}})')
        return f"weight_share {share:.2f}", f"weight share {recorded:.2f}", min(share, recorded) > 0.7

    def evidence(self, case, alert):
        return {"MoedRoutingDrift": self.drift, "MoedExpertDying": self.dying, "MoedExpertFailing": self.failing,
                "MoedExpertCollapse": self.collapsed}.get(alert, lambda _: ("", "", True))(case)

    def look(self, began):
        cases = {case.name: case for case in CASES}
        for name, alert in self.prometheus.firing() or ():
            case = cases.get(name)
            if not case:
                self.note(f"{alert} fired")
            elif alert not in case.first:
                document, metrics, seen = self.evidence(case, alert)
                case.first[alert] = (time.monotonic() - began, document, metrics)
                if not seen:
                    self.note(f"{name}: {alert}, but {document}; {metrics}")

    def note(self, what):
        if what not in self.wrong:
            self.wrong.append(what)

    def run(self, seconds):
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            self.look(began)
            time.sleep(1)

    def until_quiet(self, seconds):
        """Waits until nothing fires."""
        began = time.monotonic()
        while (firing := self.prometheus.firing()) != set() and time.monotonic() < began + seconds:
            time.sleep(1)
        for name, alert in firing or ():
            self.note(f"{name}: {alert} fires on")
        if firing is None:
            self.note("Prometheus does not answer")
        return time.monotonic() - began

    def judge(self):
        for case in CASES:
            for alert in set(case.must) - set(case.first):
                self.note(f"{case.name}: {alert} did not fire")
            for alert in set(case.first) - set(case.must) - set(case.may):
                self.note(f"{case.name}: {alert} fired")

    def worst_of_well(self):
        """The furthest that the ten healthy streams ever were from silence."""
        well = 'model=~"well-.*"'
        over = {"psi": f'max(max_over_time(moed_layer_drift_psi{{{well},window="1m"}}[20m]))',
                "p": f'min(min_over_time(moed_layer_drift_p_value{{{well},window="1m"}}[20m]))',
                "dying": f"max(max_over_time(moed_layer_dying_experts{{{well}}}[20m]))"}
        worst = {key: self.prometheus.value(expression) for key, expression in over.items()}
        return f"psi at most {worst['psi']:.3f}, p_value at least {worst['p']:.2g}, dying {worst['dying']:.0f}"


def print_table(watch, worst, rounds):
    print(f"\n{rounds} requests of {ROWS} labelled rows to each of {len(CASES)} models\n")
    print(f"{'what happens':<34} {'alert':<20} {'after':>6}  {'routing document':<34} /metrics")
    print(f"{f'nothing ({HEALTHY} models)':<34} {'none':<20} {'':>6}  {'':<34} {worst}")
    for case in CASES[HEALTHY:]:
        for alert, (after, document, metrics) in sorted(case.first.items(), key=lambda item: item[1][0]):
            print(f"{case.title:<34} {alert:<20} {after:>4.0f} s  {document:<34} {metrics}")
    for wrong in watch.wrong:
        print(f"WRONG {wrong}")


# --- the run ----------------------------------------------------------------------------------------------------

def replay(watch, traffic, models, server, before):
    watch.run(before)
    if any(case.first for case in CASES):
        watch.note("something fired before anything went wrong")
    for case in CASES:
        if case.edit:
            edit_model(os.path.join(models, case.name), case.edit)
    traffic.wrong = True
    server.signal(signal.SIGHUP)
    watch.run(WRONG_SECONDS)
    watch.judge()
    worst = watch.worst_of_well()
    traffic.idle = True
    quiet = watch.until_quiet(IDLE_SECONDS)
    print_table(watch, worst, traffic.rounds)
    print(f"nothing is sent any more: silent after {quiet:.0f} s; {traffic.failed} requests failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=int, default=120, help="seconds until something goes wrong")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        models = os.path.join(directory, "models")
        for case in CASES:
            shutil.copytree(os.path.join(ROOT, "deploy", "models", MODEL), os.path.join(models, case.name))
        with Server(models) as server:
            prometheus = Prometheus(directory, server.url[7:])
            traffic = Traffic(server.url)
            watch = Watch(server.url, prometheus)
            try:
                replay(watch, traffic, models, server, options.before)
            finally:
                traffic.stop()
                prometheus.close()
            server.stop()
    return 1 if watch.wrong or traffic.failed else 0


if __name__ == "__main__":
    sys.exit(main())
