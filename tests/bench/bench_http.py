"""The whole server over HTTP under wrk, beside its own HTTP layer alone (build/bench/bench_ceiling) and beside FastAPI
with PyTorch. Servers keep to one half of the CPUs, wrk to the other; only the one that is measured has work.
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

from bench import BUILD, ROOT, cpu_list, halves, summary
from bench_moe import write_config
from moed import safetensors

SHIPPED, SYNTHETIC = ("fashion-mnist", "fashion-mnist-attentive"), "synthetic-256-experts"
MODELS = (*SHIPPED, SYNTHETIC)
CONNECTIONS, QUICK_CONNECTIONS = (1, 16, 64, 256), (1, 64)
# A run is repeated, longer, until every connection was answered at least twice; a slow server on a busy machine needs it.
RUN_SECONDS, START_SECONDS = (1, 4, 16), 30
IDLE_REQUESTS, IDLE_PAUSE = 100, 0.01
# Half load: as many connections as leave each a pause that wrk can keep, in whole milliseconds.
HALF_LOAD_CONNECTIONS, HALF_LOAD_SECONDS = 256, 4
TOLERANCE = 1e-4
BENCH = os.path.dirname(os.path.abspath(__file__))


class Server:
    """A process that says where it listens on standard error; ends with `stack`."""

    def __init__(self, stack, command, **environment):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(["taskset", "-c", cpu_list(halves()[0]), *command], stderr=self.log,
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
    """A directory to serve: the shipped models, and one with so many experts that their weights are beyond the cache."""
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


def formats(model):
    """{name: (path, body, length of its JSON head or None)}: one image, an ankle boot, in every form."""
    tensor, shape = ("x", [1, 784]) if model == SYNTHETIC else ("image", [1, 1, 28, 28])

    with open(os.path.join(ROOT, "deploy", "example.json"), encoding="ascii") as file:
        pixels = np.array(json.load(file)["instances"], dtype=np.uint8).reshape(784)
    noisy = pixels + np.random.default_rng(1).random(784, dtype=np.float32)

    def v1(numbers):
        return f"/v1/models/{model}:predict", json.dumps({"instances": [numbers]}, separators=(",", ":")).encode(), None

    def oip(values, datatype):
        data = values.tobytes()
        head = json.dumps({"inputs": [{"name": tensor, "shape": shape, "datatype": datatype,
                                       "parameters": {"binary_data_size": len(data)}}],
                           "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
        return f"/v2/models/{model}/infer", head + data, len(head)

    return {"V1 JSON floats": v1([float(f"{x:.9g}") for x in noisy]), "V1 JSON integers": v1(pixels.tolist()),
            "OIP binary FP32": oip(noisy, "FP32"), "OIP binary UINT8": oip(pixels, "UINT8")}


def post(url, body, head_length):
    """(answer, its head's length or None)"""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    if head_length is not None:
        request.add_header("Inference-Header-Content-Length", str(head_length))
    with urllib.request.urlopen(request) as reply:
        length = reply.headers.get("Inference-Header-Content-Length")
        return reply.read(), int(length) if length else None


def probabilities(answer, head_length):
    if head_length is None:
        return np.array(json.loads(answer)["predictions"]).reshape(-1)
    return np.frombuffer(answer[head_length:], dtype="<f4")


def batch_buckets(server, model):
    """{upper bound: batches with no more rows}, cumulative, from /metrics."""
    with urllib.request.urlopen(f"{server.url}/metrics") as reply:
        page = reply.read().decode()
    pattern = rf'^moed_batch_rows_(bucket|sum|count){{model="{model}",[^}}]*?(?:le="([^"]+)")?}} (\S+)$'
    return {bound or kind: float(value) for kind, bound, value in re.findall(pattern, page, re.M)}


def wrk(url, body_file, head_length, connections, seconds, pause_ms=0):
    """What post.lua says of one run."""
    environment = dict(os.environ, BENCH_BODY=body_file, BENCH_PAUSE_MS=str(pause_ms))
    if head_length is not None:
        environment["BENCH_JSON_LENGTH"] = str(head_length)
    cpus = halves()[1]
    output = subprocess.run(["taskset", "-c", cpu_list(cpus), "wrk", f"-t{min(len(cpus), connections)}",
                             f"-c{connections}", f"-d{seconds}s", "--timeout", f"{START_SECONDS}s", "-s",
                             os.path.join(BENCH, "post.lua"), url],
                            env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    said = json.loads(output.splitlines()[-1])
    if said["failed"]:
        raise SystemExit(f"bench_http: {url}, {connections} connections: {said['failed']} failed\n{output}")
    return said


def load(server, path, body_file, head_length, connections):
    for seconds in RUN_SECONDS:
        before = server.cpu_seconds()
        said = wrk(server.url + path, body_file, head_length, connections, seconds)
        if said["requests"] >= 2 * connections:
            return {"per_second": said["requests"] / said["seconds"], "p50_us": said["p50_us"],
                    "p99_us": said["p99_us"], "p999_us": said["p999_us"],
                    "cpu_us": 1e6 * (server.cpu_seconds() - before) / said["requests"]}
    raise SystemExit(f"bench_http: {path}: {said['requests']} answers to {connections} connections in {seconds} s")


def half_load(server, path, body_file, head_length, saturated):
    """As above, with pauses that leave a server that takes `saturated` requests a second about half of that."""
    connections = HALF_LOAD_CONNECTIONS
    pause_ms = max(1, round(1e3 * connections / (0.5 * saturated)))
    said = wrk(server.url + path, body_file, head_length, connections, HALF_LOAD_SECONDS, pause_ms)
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


class Bodies:
    """The request bodies of a model as files, and the answers they get."""

    def __init__(self, model, directory):
        self.model, self.of = model, formats(model)
        self.files = {}
        for index, (name, (_, body, _)) in enumerate(self.of.items()):
            self.files[name] = os.path.join(directory, f"{model}-{index}")
            with open(self.files[name], "wb") as file:
                file.write(body)


def start(stack, bodies, models, moed, with_ceiling):
    """{format: {contender: (server, path)}}; answers are compared before anything is timed."""
    environment = {"BENCH_MODEL": os.path.join(models, bodies.model),
                   "PYTHONPATH": os.pathsep.join([os.path.join(ROOT, "clients", "python"), BENCH])}
    fastapi = Server(stack, [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", "0", "--no-access-log"],
                     **environment)
    plan = {}
    for name, (path, body, head_length) in bodies.of.items():
        answer, answer_head = post(moed.url + path, body, head_length)
        plan[name] = {"moed": (moed, path)}
        if with_ceiling:
            plan[name]["ceiling"] = (Server(stack, [os.path.join(BUILD, "bench_ceiling"), str(len(answer))]), path)
        if head_length is None:
            plan[name]["FastAPI"] = (fastapi, "/predict")
            theirs = probabilities(*post(f"{fastapi.url}/predict", body, None))
            if np.abs(theirs - probabilities(answer, answer_head)).max() > TOLERANCE:
                raise SystemExit(f"bench_http: {bodies.model}, {name}: moed and PyTorch disagree")
    return plan


def measure(bodies, plan, rounds, connection_counts):
    runs, batches, idle, half = {}, {}, {}, {}
    for _ in range(rounds):
        for name, contenders in plan.items():
            _, body, head_length = bodies.of[name]
            for contender, (server, path) in contenders.items():
                idle.setdefault((name, contender), []).append(idle_latency(server, path, body, head_length))
            for connections in connection_counts:
                for contender, (server, path) in contenders.items():
                    before = batch_buckets(server, bodies.model) if contender == "moed" else {}
                    run_of = load(server, path, bodies.files[name], head_length, connections)
                    runs.setdefault((name, connections, contender), []).append(run_of)
                    if contender == "moed":
                        total = batches.setdefault((name, connections), {})
                        for key, value in batch_buckets(server, bodies.model).items():
                            total[key] = total.get(key, 0) + value - before.get(key, 0)
            saturated = max(runs[name, connections, "moed"][-1]["per_second"] for connections in connection_counts)
            for contender in ("moed", "ceiling"):  # the ceiling under the same load: what is the machine's and HTTP's
                if contender in contenders:
                    server, path = contenders[contender]
                    half.setdefault((name, contender), []).append(
                        half_load(server, path, bodies.files[name], head_length, saturated))
    return ([{"model": bodies.model, "format": name, "connections": connections, "contender": contender,
              **{key: summary([run_of[key] for run_of in list_of]) for key in list_of[0]}}
             for (name, connections, contender), list_of in runs.items()],
            [{"model": bodies.model, "format": name, "connections": connections, "buckets": total}
             for (name, connections), total in batches.items()],
            [{"model": bodies.model, "format": name, "contender": contender, "us": summary(list_of)}
             for (name, contender), list_of in idle.items()],
            [{"model": bodies.model, "format": name, "contender": contender,
              **{key: summary([run_of[key] for run_of in list_of]) for key in list_of[0]}}
             for (name, contender), list_of in half.items()])


def run(rounds, quick, _machine):
    parts = ("runs", "batches", "idle", "half")
    result = {"server_cpus": halves()[0], "wrk_cpus": halves()[1], **{part: [] for part in parts}}
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        models = stack.enter_context(tempfile.TemporaryDirectory())
        write_models(models)
        moed = Server(stack, [os.path.join(BUILD, "moed"), "serve", "--models", models, "--port", "0", "--log-level",
                              "warning"])
        for model in MODELS[:1] if quick else MODELS:
            bodies = Bodies(model, directory)
            with contextlib.ExitStack() as others:
                plan = start(others, bodies, models, moed, with_ceiling=model == MODELS[0])
                measured = measure(bodies, plan, rounds, QUICK_CONNECTIONS if quick else CONNECTIONS)
            for key, part in zip(parts, measured):
                result[key] += part
    return result
