"""The whole server over HTTP under wrk, beside its own HTTP layer alone (build/bench/bench_ceiling) and beside FastAPI
with PyTorch, where these read the format too. Servers keep to one half of the CPUs, wrk to the other; only the one that
is measured has work. One model is measured a second time with the whole machine for everybody.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np

from bench import BUILD, ROOT, all_cpus, cpu_list, halves, summary
from bench_moe import write_config
from http_bodies import Bodies, numbers_of, post
from moed import safetensors

FIRST, SYNTHETIC = "fashion-mnist", "synthetic-256-experts"
SHIPPED = (FIRST, "fashion-mnist-attentive", "mnist", "mnist-attentive", "clusters", "adult-mmoe")
MODELS = (*SHIPPED, SYNTHETIC)
# To keep a run short: all connection counts and the half load only in thorough runs, never for FastAPI.
THOROUGH = (FIRST, SYNTHETIC)
CONNECTIONS, FEW_CONNECTIONS, WHOLE_CONNECTIONS = (1, 16, 64, 256), (1, 64), (16, 64)
# A run is repeated, longer, until every connection was answered at least twice; a slow server on a busy machine needs it.
RUN_SECONDS, START_SECONDS = (1, 4, 16), 30
IDLE_REQUESTS, IDLE_PAUSE = 100, 0.01
# Half load: as many connections as leave each a pause that wrk can keep, in whole milliseconds.
HALF_LOAD_CONNECTIONS, HALF_LOAD_SECONDS = 256, 4
TOLERANCE = 1e-4
BENCH = os.path.dirname(os.path.abspath(__file__))


class Server:
    """A process on some CPUs that prints its address to standard error; ends with `stack`."""

    def __init__(self, stack, cpus, command, **environment):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(["taskset", "-c", cpu_list(cpus), *command], stderr=self.log,
                                        stdout=subprocess.DEVNULL, env=dict(os.environ, **environment))
        stack.callback(self.close)
        self.url = self._wait()

    def _wait(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            self.log.seek(0)
            found = re.search(r"http://127\.0\.0\.1:\d+", self.log.read())
            if found:
                return found.group()
            time.sleep(0.05)
        self.log.seek(0)
        raise SystemExit(f"bench_http: {self.process.args} did not start:\n{self.log.read()}")

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def write_models(directory):
    """A directory to serve: the shipped models, and one whose experts' weights exceed the cache."""
    for name in SHIPPED:
        shutil.copytree(os.path.join(ROOT, "deploy", "models", name), os.path.join(directory, name))
    synthetic = os.path.join(directory, SYNTHETIC)
    os.mkdir(synthetic)
    write_config(synthetic, 784, 256, 2)
    random = np.random.default_rng(1)
    tensors = {"moe.gate.out.weight": random.standard_normal((256, 784), dtype=np.float32) / np.float32(28 * 255)}
    for i in range(256):
        tensors[f"moe.experts.{i}.fc1.weight"] = random.standard_normal((256, 784), dtype=np.float32) / np.float32(28 * 255)
        tensors[f"moe.experts.{i}.fc2.weight"] = random.standard_normal((10, 256), dtype=np.float32) / np.float32(16)
    safetensors.write(os.path.join(synthetic, "model.safetensors"), tensors)


def batch_buckets(server, model):
    """{upper bound: batches with no more rows}, cumulative, from /metrics."""
    with urllib.request.urlopen(f"{server.url}/metrics") as reply:
        page = reply.read().decode()
    pattern = rf'^moed_batch_rows_(bucket|sum|count){{model="{model}",[^}}]*?(?:le="([^"]+)")?}} (\S+)$'
    return {bound or kind: float(value) for kind, bound, value in re.findall(pattern, page, re.M)}


def wrk(cpus, url, body_file, head_length, connections, seconds, pause_ms=0):
    """The output of post.lua for one run."""
    environment = dict(os.environ, BENCH_BODY=body_file, BENCH_PAUSE_MS=str(pause_ms))
    if head_length is not None:
        environment["BENCH_JSON_LENGTH"] = str(head_length)
    output = subprocess.run(["taskset", "-c", cpu_list(cpus), "wrk", f"-t{min(len(cpus), connections)}",
                             f"-c{connections}", f"-d{seconds}s", "--timeout", f"{START_SECONDS}s", "-s",
                             os.path.join(BENCH, "post.lua"), url],
                            env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    said = json.loads(output.splitlines()[-1])
    if said["failed"]:
        raise SystemExit(f"bench_http: {url}, {connections} connections: {said['failed']} failed\n{output}")
    return said


def load(cpus, server, path, body_file, head_length, connections):
    for seconds in RUN_SECONDS:
        before = server.cpu_seconds()
        said = wrk(cpus, server.url + path, body_file, head_length, connections, seconds)
        if said["requests"] >= 2 * connections:
            return {"per_second": said["requests"] / said["seconds"], "p50_us": said["p50_us"],
                    "p99_us": said["p99_us"], "p999_us": said["p999_us"],
                    "cpu_us": 1e6 * (server.cpu_seconds() - before) / said["requests"]}
    raise SystemExit(f"bench_http: {path}: {said['requests']} answers to {connections} connections in {seconds} s")


def half_load(cpus, server, path, body_file, head_length, saturated):
    """As above, with pauses that leave a server that takes `saturated` requests a second about half of that."""
    connections = HALF_LOAD_CONNECTIONS
    pause_ms = max(1, round(1e3 * connections / (0.5 * saturated)))
    said = wrk(cpus, server.url + path, body_file, head_length, connections, HALF_LOAD_SECONDS, pause_ms)
    rate = said["requests"] / said["seconds"]
    return {"per_second": rate, "share": rate / saturated, **{key: said[key] for key in ("p50_us", "p99_us", "p999_us")}}


def read_reply(connection):
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += connection.recv(65536)
    head, _, body = reply.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: *(\d+)", head, re.I).group(1))
    while len(body) < length:
        body += connection.recv(65536)


def idle_latency(server, path, body, head_length):
    """Microseconds of single requests with pauses between: nothing to batch with, caches cold, the CPU asleep."""
    host, port = server.url[len("http://"):].split(":")
    extra = "" if head_length is None else f"Inference-Header-Content-Length: {head_length}\r\n"
    request = (f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{extra}"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    times = []
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(IDLE_REQUESTS):
            time.sleep(IDLE_PAUSE)
            begin = time.perf_counter()
            connection.sendall(request)
            read_reply(connection)
            times.append(1e6 * (time.perf_counter() - begin))
    return sorted(times)[len(times) // 2]


def start_moed(stack, cpus, models, *options):
    return Server(stack, cpus, [os.path.join(BUILD, "moed"), "serve", "--models", models, "--port", "0", "--log-level",
                                "warning", *options])


def start(stack, cpus, bodies, moed, loops=1):
    """{format: {contender: (server, path)}}; answers are compared before anything is timed."""
    environment = {"BENCH_MODEL": bodies.model_directory,
                   "PYTHONPATH": os.pathsep.join([os.path.join(ROOT, "clients", "python"), BENCH])}
    fastapi = Server(stack, cpus, [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", "0", "--no-access-log"],
                     **environment)
    plan = {}
    for name, (path, body, head_length) in bodies.of.items():
        answer, answer_head = post(moed.url + path, body, head_length)
        ceiling = Server(stack, cpus, [os.path.join(BUILD, "bench_ceiling"), str(len(answer)), str(loops)])
        plan[name] = {"moed": (moed, path), "ceiling": (ceiling, path)}
        if head_length is None:
            plan[name]["FastAPI"] = (fastapi, "/predict")
            theirs = numbers_of(*post(f"{fastapi.url}/predict", body, None))
            if np.abs(theirs - numbers_of(answer, answer_head)).max() > TOLERANCE:
                raise SystemExit(f"bench_http: {bodies.model}, {name}: moed and PyTorch disagree")
    return plan


class Measurements:
    """What was measured of one model, round by round. `cpus` are those of wrk."""

    def __init__(self, bodies, plan, cpus):
        self.bodies, self.plan, self.cpus = bodies, plan, cpus
        self.runs, self.batches, self.idle, self.half = {}, {}, {}, {}

    def requests(self, name):
        """wrk's parameters of a format."""
        return self.bodies.files[name], self.bodies.of[name][2]

    def alone(self, name):
        _, body, head_length = self.bodies.of[name]
        for contender, (server, path) in self.plan[name].items():
            self.idle.setdefault((name, contender), []).append(idle_latency(server, path, body, head_length))

    def throughput(self, name, connections, contender):
        server, path = self.plan[name][contender]
        self.runs.setdefault((name, connections, contender), []).append(
            load(self.cpus, server, path, *self.requests(name), connections))

    def throughput_and_batches(self, name, connections):
        """moed's."""
        server, _ = self.plan[name]["moed"]
        before = batch_buckets(server, self.bodies.model)
        self.throughput(name, connections, "moed")
        total = self.batches.setdefault((name, connections), {})
        for key, value in batch_buckets(server, self.bodies.model).items():
            total[key] = total.get(key, 0) + value - before.get(key, 0)

    def half_load(self, name):
        """The ceiling under the same load as moed: the part of the delay that is due to the machine and HTTP."""
        saturated = max(of[-1]["per_second"] for (of_name, _, contender), of in self.runs.items()
                        if (of_name, contender) == (name, "moed"))
        for contender in ("moed", "ceiling"):
            server, path = self.plan[name][contender]
            self.half.setdefault((name, contender), []).append(
                half_load(self.cpus, server, path, *self.requests(name), saturated))

    def lists(self):
        """By the names of the result's parts."""
        def summaries(list_of):
            return {key: summary([run_of[key] for run_of in list_of]) for key in list_of[0]}

        model = {"model": self.bodies.model}
        return {"runs": [{**model, "format": name, "connections": connections, "contender": contender, **summaries(of)}
                         for (name, connections, contender), of in self.runs.items()],
                "batches": [{**model, "format": name, "connections": connections, "buckets": total}
                            for (name, connections), total in self.batches.items()],
                "idle": [{**model, "format": name, "contender": contender, "us": summary(of)}
                         for (name, contender), of in self.idle.items()],
                "half": [{**model, "format": name, "contender": contender, **summaries(of)}
                         for (name, contender), of in self.half.items()]}


def measure(measured, rounds, connection_counts, with_half):
    for _ in range(rounds):
        for name, contenders in measured.plan.items():
            measured.alone(name)
            for connections in connection_counts:
                measured.throughput_and_batches(name, connections)
                measured.throughput(name, connections, "ceiling")
                if "FastAPI" in contenders and connections in FEW_CONNECTIONS:
                    measured.throughput(name, connections, "FastAPI")
            if with_half:
                measured.half_load(name)


def run_whole(bodies, rounds):
    """Every process may use every CPU (`taskset` with all of them); as many event loops as CPUs."""
    cpus = all_cpus()
    with contextlib.ExitStack() as stack:
        moed = start_moed(stack, cpus, os.path.dirname(bodies.model_directory), "--loops", str(len(cpus)))
        measured = Measurements(bodies, start(stack, cpus, bodies, moed, len(cpus)), cpus)
        for _ in range(rounds):
            for name, contenders in measured.plan.items():
                for connections in WHOLE_CONNECTIONS:
                    for contender in contenders:
                        measured.throughput(name, connections, contender)
    return {"cpus": cpus, "runs": measured.lists()["runs"]}


def run(rounds, quick, _machine):
    server_cpus, wrk_cpus = halves()
    result = {"server_cpus": server_cpus, "wrk_cpus": wrk_cpus, "runs": [], "batches": [], "idle": [], "half": []}
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        models = stack.enter_context(tempfile.TemporaryDirectory())
        write_models(models)
        moed = start_moed(stack, server_cpus, models)
        for model in (FIRST,) if quick else MODELS:
            bodies = Bodies(os.path.join(models, model), directory)
            thorough = model in THOROUGH
            with contextlib.ExitStack() as others:
                measured = Measurements(bodies, start(others, server_cpus, bodies, moed), wrk_cpus)
                measure(measured, rounds, CONNECTIONS if thorough and not quick else FEW_CONNECTIONS, thorough)
            for part, points in measured.lists().items():
                result[part] += points
        result["whole"] = run_whole(Bodies(os.path.join(models, FIRST), directory), rounds)
    return result
