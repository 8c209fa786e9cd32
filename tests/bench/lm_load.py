"""What a client of /v1/completions sees of a server: of moed's and of llama-server's by the same code.

Prompts are random token ids, new ones each time. Tokens are drawn from the 40 likeliest, since the greedy ones of a
random model soon go in circles, and a circle's experts stay in the cache. Rates of decoding are differences between long
and short answers to as many clients, so that prompts and HTTP are not in them.
"""

import concurrent.futures
import http.client
import json
import random
import re
import socket
import subprocess
import tempfile
import threading
import time

DECODED = {1: 48, 4: 32, 16: 24} # tokens of each sequence
PROMPT = 16
SHORT, LONG = 32, 2000
TIMEOUT = 300


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that serves one model; ready when it is entered."""

    def __init__(self, command, port=0):
        self.command, self.port = command, port

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        begin = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=self.log)
        try:
            while not self._ready():
                if self.process.poll() is not None:
                    self.log.seek(0)
                    raise Refused(self.log.read()[-2000:].strip())
                if time.monotonic() - begin > TIMEOUT:
                    raise SystemExit(f"lm: {' '.join(self.command)}: not ready after {TIMEOUT} s")
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        self.load_s = time.monotonic() - begin
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def _ready(self):
        if not self.port:
            self.log.seek(0)
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log.read())
            self.port = int(found.group(1)) if found else 0
            return bool(found)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def resident(self):
        """Resident bytes: in all, and of those what is no file."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return [1024 * int(fields[key].split()[0]) for key in ("VmRSS", "RssAnon")]


class Refused(Exception):
    """A server that ended instead of serving, with what it said."""


def prompt(count):
    return [random.randrange(100, 2000) for _ in range(count)]


def request(server, tokens, max_tokens, **more):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    body = {"prompt": tokens, "max_tokens": max_tokens, "temperature": 1.0, "top_k": 40, "ignore_eos": True, **more}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"lm: {response.status}: {response.read()[:500]}")
    return response


def complete(server, tokens, max_tokens, **more):
    """(answer, seconds)"""
    begin = time.monotonic()
    answer = json.loads(request(server, tokens, max_tokens, **more).read())
    seconds = time.monotonic() - begin
    if answer["usage"]["completion_tokens"] != max_tokens:
        raise SystemExit(f"lm: {answer['usage']} where {max_tokens} tokens were asked for")
    return answer, seconds


def likeliest(server, tokens):
    """{text: log probability} of the likeliest next tokens."""
    answer, _ = complete(server, tokens, 1, temperature=0, logprobs=10)
    logprobs = answer["choices"][0]["logprobs"]
    if "content" in logprobs: # as llama-server says it
        return {of["token"]: of["logprob"] for of in logprobs["content"][0]["top_logprobs"]}
    return logprobs["top_logprobs"][0]


def together(server, clients, max_tokens):
    """Seconds until every one of some clients has its answer."""
    prompts = [prompt(PROMPT) for _ in range(clients)]
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda tokens: complete(server, tokens, max_tokens), prompts))
    return time.monotonic() - begin


def decode_rate(server, clients):
    """Tokens a second of all sequences."""
    few = together(server, clients, 1)
    many = together(server, clients, 1 + DECODED[clients])
    return clients * DECODED[clients] / (many - few)


def prefill_rate(server, count):
    return count / complete(server, prompt(count), 1)[1]


def mixed_load(server):
    """Beside a running stream a long prompt comes, then a short one: seconds to the short one's first token, and the
    longest that the stream stood still meanwhile."""
    times, stop = [], threading.Event()

    def read():
        response = request(server, prompt(PROMPT), 1500, stream=True)
        for line in response:
            if line.startswith(b"data: "):
                times.append(time.monotonic())
            if stop.is_set():
                return

    reader = threading.Thread(target=read)
    reader.start()
    while len(times) < 3 and reader.is_alive():
        time.sleep(0.01)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        long = pool.submit(complete, server, prompt(LONG), 1)
        time.sleep(0.1)
        begin = time.monotonic()
        _, first = complete(server, prompt(SHORT), 1)
        long.result()
    end = time.monotonic()
    stop.set()
    reader.join()
    seen = [begin] + [at for at in times if begin < at < end] + [end]
    return {"first_s": first, "pause_s": max(b - a for a, b in zip(seen, seen[1:]))}


def measurements(parts):
    """Functions of a server, each of some seconds, that give {figure: value}."""
    if "decode" in parts:
        for clients in DECODED:
            yield lambda server, clients=clients: {f"decode_{clients}": decode_rate(server, clients)}
    if "prefill" in parts:
        for count in (512, 2048):
            yield lambda server, count=count: {f"prefill_{count}": prefill_rate(server, count)}
    if "mixed" in parts:
        yield mixed_load
    yield lambda server: {"load_s": server.load_s, **dict(zip(("rss", "anonymous"), server.resident()))}


def take_turns(servers, parts):
    """One round: {name: {figure: value}}. Figure by figure, since on a shared machine a minute differs from the next."""
    values = {name: {} for name in servers}
    for measurement in measurements(parts):
        for name, server in servers.items():
            together(server, 1, 4) # wakes it, and touches what loading has not
            values[name].update(measurement(server))
    return values
