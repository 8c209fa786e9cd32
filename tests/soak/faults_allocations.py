"""The n-th allocation fails, for every n of a script of all routes, and of gRPC. faults.c is preloaded for it.

What each request allocates is counted first. Then its first allocation fails, its second, and so on, each in a request of
its own: the server answers on, or says that it has no memory and aborts, and is started again. Under AddressSanitizer a
report is a fault of its own, and a leak that is found at the end."""

import collections
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

from support.http import HOST, request_bytes
from support.language import NAME, Words
from support.models import Tiny
from support.server import BINARY, GRPC_LISTENING, LISTENING, ROOT, SANITIZER_WORDS, environment

from site_of_fault import PATIENCE_SECONDS, Row

LAST_WORDS = "out of memory"
HANGS_SECONDS = 20
ENCODER = os.path.join(ROOT, "tests", "data", "families", "nomic_bert")
DATA, HEADERS, SETTINGS, END_STREAM, END_HEADERS = 0, 1, 4, 1, 4
# Asked again, these say the same.
FIXED = (":predict", "/infer", "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize", "/apply-template")


def write_repository(directory):
    Tiny().write(os.path.join(directory, "tiny"))
    Words().write(os.path.join(directory, NAME))
    shutil.copytree(ENCODER, os.path.join(directory, "encoder"), ignore=shutil.ignore_patterns("expected"))


# ---- requests -------------------------------------------------------------------------------------------------------

class Http:
    """One request on a connection of its own; its answer is what comes until the server closes."""

    def __init__(self, method, path, body=b"", endless=False, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.name, self.endless = f"{method} {path}", endless
        self.is_fixed = path.endswith(FIXED) and b'"stream": true' not in body
        self.data = request_bytes(method, path, body, {"Connection": "close", **names})

    def ask(self, bare):
        """The status; 0: none has come."""
        self.answer = answer = exchange(bare.port, self.data, lambda text: self.endless and b"\n\n" in text)
        return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") and b"\r\n\r\n" in answer else 0


    def said(self):
        """What does not depend on when it is asked; None: nothing."""
        return re.sub(rb'"(id|created)": ?("[^"]*"|\d+)', b"", self.answer.partition(b"\r\n\r\n")[2]) if self.is_fixed else None


class Grpc:
    """One call by hand: a literal header block, one message."""

    def __init__(self, method, message=b"", service="inference.GRPCInferenceService"):
        fields = {":method": "POST", ":scheme": "http", ":path": f"/{service}/{method}", ":authority": "localhost",
                  "content-type": "application/grpc", "te": "trailers"}
        block = b"".join(b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
                         for name, value in fields.items())
        self.name = f"gRPC {method}"
        self.data = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, block) +
                     frame(DATA, END_STREAM, 1, b"\0" + struct.pack(">I", len(message)) + message))

    def said(self):
        return None

    def ask(self, bare):
        """1: a message, 2: a status without one; 0: nothing has come."""
        kinds = frames_of(exchange(bare.grpc_port, self.data, lambda data: any(end for _, end in frames_of(data))))
        return 1 if (DATA, False) in kinds else 2 if any(end for _, end in kinds) else 0


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def frames_of(data):
    """[(kind, whether it ends a stream)] of whole frames."""
    found = []
    while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
        found.append((data[3], data[3] in (DATA, HEADERS) and bool(data[4] & END_STREAM)))
        data = data[9 + length:]
    return found


def exchange(port, data, is_all):
    """What comes until the server closes, or it is all. TimeoutError: nothing does."""
    with socket.create_connection((HOST, port), timeout=HANGS_SECONDS) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while not is_all(answer) and (piece := connection.recv(65536)):
                answer += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


def text(number, value):
    """A field of protobuf: bytes, text or a message."""
    value = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(value)]) + value


def infer_message(raw):
    tensor = text(1, "x") + text(2, "FP32") + text(3, b"\1\4")
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    request = text(1, "tiny") + text(3, "an id")
    return request + (text(5, tensor) + text(7, numbers) if raw else text(5, tensor + text(5, text(6, numbers))))


class Step:
    """A request, and those that must have been answered before."""

    def __init__(self, request, *before):
        self.request, self.before, self.said = request, before, None


def script():
    """All routes."""
    rows = [[1, 2, 3, 4], [5, 6, 7, 8]]
    oip = {"id": "a", "parameters": {"tag": "me", "priority": 1, "experts": json.dumps({"moe": {"exclude": [1]}})},
           "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4], "parameters": {}}],
           "outputs": [{"name": "y", "parameters": {"classification": 1}}, {"name": "routing.moe.experts"}]}
    binary = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
                         "parameters": {"binary_data_output": True}}).encode()
    words = {"model": NAME, "max_tokens": 3, "seed": 1}
    chat = {**words, "messages": [{"role": "user", "content": "a b"}]}
    for path in ("/", "/v2", "/v2/health/live", "/v2/health/ready", "/readyz", "/v2/models/tiny", "/v2/models/tiny/versions/1",
                 "/v2/models/tiny/config", "/v2/models/tiny/ready", "/metrics", "/v2/models/stats", "/v2/models/tiny/stats",
                 "/v2/models/tiny/routing", "/v2/models/tiny/routing?window=1m&include=ranks,pairs,classes,exact,batches,margins,cache",
                 f"/v2/models/{NAME}/routing", "/v1/models", "/v1/models/tiny", f"/v1/models/{NAME}", "/v2/nothing",
                 "/v2/logging", "/v2/trace/setting", "/openapi.json", "/ui/app.js"):
        yield Step(Http("GET", path))
    yield Step(Http("GET", "/", Accept="text/html"))
    yield Step(Http("GET", "/metrics", Accept_Encoding="gzip"))
    yield Step(Http("GET", "/v2/models/tiny/routing/live", endless=True))
    yield Step(Http("POST", "/v1/models/tiny:predict", {"instances": rows, "routing": True, "labels": [0, 1]}, Moed_Tag="us", X_Request_Id="one"))
    yield Step(Http("POST", "/v1/models/tiny:predict", b'{"instances": [[1, 2, 3'))
    yield Step(Http("POST", "/v1/models/tiny:predict", {"instances": [{"x": row} for row in rows]}))
    infer = Http("POST", "/v2/models/tiny/infer", oip)
    yield Step(infer)
    yield Step(Http("POST", "/v2/models/tiny/infer", binary + struct.pack("<4f", 1, 2, 3, 4), Inference_Header_Content_Length=len(binary)))
    yield Step(Http("POST", "/v2/models/tiny/feedback", {"id": "b", "labels": [1]}),
               Http("POST", "/v2/models/tiny/infer", {"id": "b", "inputs": oip["inputs"]}))
    yield Step(Http("POST", "/v2/models/tiny/routing/snapshot"))
    tired = Http("POST", "/v2/models/tiny/routing/quarantine", {"layer": "moe", "expert": 1, "reason": "tired"})
    rested = Http("DELETE", "/v2/models/tiny/routing/quarantine", {"layer": "moe", "expert": 1})
    yield Step(tired, tired, rested)
    yield Step(rested, tired)
    yield Step(Http("POST", "/v2/models/tiny/routing/reset"))
    yield Step(Http("POST", "/v2/repository/index", b"{}"))
    yield Step(Http("POST", "/v2/logging", {"log_verbose_level": 0}))
    yield Step(Http("POST", "/v2/trace/setting", {"trace_rate": "0"}))
    yield Step(Http("POST", "/start_expert_distribution_record"))
    yield Step(Http("POST", "/v1/completions", {**words, "prompt": "a b", "logprobs": 2, "echo": True, "routing": True}))
    yield Step(Http("POST", "/v1/completions", {**words, "prompt": ["a", "b"], "stream": True, "stop": ["zz"]}))
    yield Step(Http("POST", "/v1/chat/completions", {**chat, "logprobs": True, "top_logprobs": 2}))
    yield Step(Http("POST", "/v1/chat/completions", {**chat, "stream": True, "stream_options": {"include_usage": True}, "logit_bias": {"97": 1}}))
    yield Step(Http("POST", "/v1/embeddings", {"model": "encoder", "input": [[1, 2, 3], [4, 5]]}))
    yield Step(Http("POST", "/tokenize", {"model": NAME, "content": "a b"}))
    yield Step(Http("POST", "/detokenize", {"model": NAME, "tokens": [97, 98]}))
    yield Step(Http("POST", "/apply-template", {"model": NAME, "messages": chat["messages"]}))
    yield Step(Http("POST", "/stop_expert_distribution_record"))
    yield Step(Http("POST", "/dump_expert_distribution_record?model=tiny"))
    for method in ("ServerLive", "ServerReady", "ServerMetadata", "ModelStatistics", "RepositoryIndex"):
        yield Step(Grpc(method))
    for method in ("ModelReady", "ModelMetadata", "ModelConfig"):
        yield Step(Grpc(method, text(1, "tiny")))
    yield Step(Grpc("ModelInfer", infer_message(raw=True)))
    yield Step(Grpc("ModelInfer", infer_message(raw=False)))
    yield Step(Grpc("ModelInfer", text(1, "nothing")))
    yield Step(Grpc("Check", service="grpc.health.v1.Health"))
    load, unload = (Http("POST", f"/v2/repository/models/tiny/{what}load", b"{}") for what in ("", "un"))
    yield Step(load)
    yield Step(Http("POST", f"/v2/repository/models/{NAME}/load", b"{}"))
    yield Step(unload, load)
    yield Step(load, unload)
    yield Step(Http("GET", "/livez"), load)


# ---- a server -------------------------------------------------------------------------------------------------------

class Bare:
    """A server without a good client: every allocation is the script's."""

    def __init__(self, models, preload, directory):
        self.models, self.preload = models, preload
        preload.set()
        self.log = open(os.path.join(directory, "bare.log"), "w+", encoding="utf-8")
        options = {"models": models, "port": "0", "grpc-port": "0", "threads": "1", "log-level": "info", "admin": "true", "model-control": "explicit",
                   "load-model": "*", "state": os.path.join(directory, "state"), "trace-endpoint": f"http://{HOST}:9", "trace-rate": "0"}
        flags = [part for name, value in options.items() for part in ("--" + name, value)]
        self.process = subprocess.Popen([BINARY, "serve", *flags], env=environment(preload.env), stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not all(found := [pattern.search(self.text()) for pattern in (LISTENING, GRPC_LISTENING)]):
            assert self.process.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.01)
        self.port, self.grpc_port = int(found[0][2]), int(found[1][1])
        self.await_ready()

    def await_ready(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while Http("GET", "/v2/health/ready").ask(self) != 200:
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    def text(self):
        return os.pread(self.log.fileno(), 1 << 22, 0).decode(errors="replace")

    def ask(self, request):
        """Each load finds changed files."""
        if request.name.endswith("/load"):
            now = time.time()
            for path, _, names in os.walk(self.models):
                for name in names:
                    os.utime(os.path.join(path, name), (now, now))
        return request.ask(self)

    def count(self, step):
        """(what it answers, how much it allocates)"""
        for request in step.before:
            self.ask(request)
        self.settle()
        before = self.preload.allocated
        status = self.ask(step.request)
        self.settle()
        return status, self.preload.allocated - before

    def settle(self):
        """Until nothing is done behind an answer any more."""
        before = None
        while before != (before := self.preload.allocated):
            time.sleep(0.01)

    def lives(self):
        try:
            return Http("GET", "/livez").ask(self) == 200
        except OSError:
            return False

    def stop(self):
        """What is wrong with its end; a leak is."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE_SECONDS)
        report = SANITIZER_WORDS.search(self.text())
        return f"stopped with status {status}: {self.text()[report.start() if report else -300:][:3000]}" if status or report else ""

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


class Tally:
    """What became of the allocations that failed."""

    def __init__(self):
        self.same = self.ended = self.unreached = 0
        self.other, self.wrong = collections.Counter(), []

    def row(self, total, tried):
        others = ", ".join(f"{count} with {'no answer' if status == 0 else status}" for status, count in sorted(self.other.items()))
        served = self.same + sum(self.other.values())
        unreached = f", {self.unreached} of them did not happen again" if self.unreached else ""
        return Row("", f"{tried} of the {total} allocations of a script of all routes fail, one at a time{unreached}",
                   lost=f"{served} times it serves on ({self.same} with the same answer, {others}), {self.ended} times it says '{LAST_WORDS}' and aborts",
                   wrong="; ".join(self.wrong[:5]))


def try_one(bare, step, n, expected, tally):
    """The n-th allocation of the step's request fails. Whether the server lives on."""
    where = f"{step.request.name}, allocation {n}"
    for request in step.before:
        bare.ask(request)
    bare.preload.set(fails_in=n)
    try:
        status = bare.ask(step.request)
    except TimeoutError:
        tally.wrong.append(f"{where}: no answer in {HANGS_SECONDS} s")
        status = 0
    except OSError:
        status = 0
    if bare.preload.pending > 0:
        time.sleep(0.005)  # some allocations come behind the answer
    unreached = bare.preload.pending > 0
    bare.preload.set()
    if not bare.lives():
        try:
            ended = bare.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            ended = "nothing: it neither serves nor ends"
        if ended == -signal.SIGABRT and LAST_WORDS in bare.text() and not SANITIZER_WORDS.search(bare.text()):
            tally.ended += 1
        else:
            tally.wrong.append(f"{where}: ended with {ended}: {bare.text()[-3000:]}")
        return False
    if unreached:
        tally.unreached += 1
    elif status == expected:
        tally.same += 1
        if status == 200 and step.request.said() != step.said:
            tally.wrong.append(f"{where}: answers {step.request.said()[-300:]}, expected {step.said[-300:]}")
    else:
        tally.other[status] += 1
        if 400 <= status < 500:
            tally.wrong.append(f"{where}: blames the client: {step.request.answer[-200:]}")
    return True


def allocations(models, preload, directory, count):
    """Each of `count` of the script's allocations fails in turn; 0: of all."""
    write_repository(models)
    bare = Bare(models, preload, directory)
    steps, tally, number = list(script()), Tally(), 0
    for step in steps:  # what is allocated once and for all
        bare.count(step)
        step.said = step.request.said()
    counted = [bare.count(step) for step in steps]
    total = sum(allocated for _, allocated in counted)
    count = min(count or total, total)
    chosen = {1 + i * total // count for i in range(count)}
    for step, (expected, allocated) in zip(steps, counted):
        for n in range(1, allocated + 1):
            number += 1
            if number in chosen and not try_one(bare, step, n, expected, tally):
                bare.close()
                bare = Bare(models, preload, directory)
    for step, (expected, _) in zip(steps, counted):
        if (status := bare.count(step)[0]) != expected:
            tally.wrong.append(f"afterwards {step.request.name} is answered {status}, before {expected}")
    if fault := bare.stop():
        tally.wrong.append(fault)
    bare.close()
    return tally.row(total, count)
