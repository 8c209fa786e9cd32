"""Everything at once: what people, programs and operators do with a server, by many clients in random order.

    python3 tests/soak/mixed.py [--seconds 60] [--clients 12] [--seed N] [--seeds 1]

Rows by both protocols, texts whole and streamed, what-if, labels, statistics in all their parts, live views, metrics; and
beside them experts in quarantine, models loaded, unloaded and replaced, SIGHUP, snapshots, resets, settings of the log,
clients that leave, and what is malformed. MOED_BINARY may be a build with sanitizers.

Every answer is looked at: a status that the action may have, the bits that a quiet server gave, JSON whose figures fit
together. Afterwards the server is quiet and what it counted is what it answered, no page is in use, and a server that
starts from its state has the same counts. Exit status 1 if anything was otherwise; a seed makes the same actions again.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

from clients import await_ready, resident_mb
from support.http import Client, Closed, Connection, request_bytes
from support.language import Words
from support.models import Tiny, TwoLayers, write_slow
from support.openai import Stream, text_of
from support.prometheus import Metrics
from support.server import Server
from support.threads import Background

OVERLOADED = (429, 503)
ROUTING_PARTS = ("batches", "coverage", "pairs", "ranks", "cache", "attribution")
PROMPTS = ("once upon a time", "the quick brown fox jumps over the lazy dog and then, at last, it sleeps for a while")


def rows_of(number, width):
    """The same rows for the same number."""
    chance = random.Random(number)
    return [[round(chance.gauss(0, 1), 3) for _ in range(width)] for _ in range(1 + number % 5)]


class Site:
    """The server, its models, and what a quiet server answers."""

    def __init__(self, directory):
        self.models, self.state = os.path.join(directory, "models"), os.path.join(directory, "state")
        self.spare = os.path.join(directory, "spare")
        os.mkdir(self.models)
        os.mkdir(self.state)
        TwoLayers().write(os.path.join(self.models, "steady"))
        Tiny().write(os.path.join(self.models, "nursed"))
        Tiny().write(os.path.join(self.models, "coming"))
        for seed in (1, 2):
            Tiny(seed).write(os.path.join(self.spare, f"replaced-{seed}"))
        shutil.copytree(os.path.join(self.spare, "replaced-1"), os.path.join(self.models, "replaced"))
        Words().write(os.path.join(self.models, "words"))
        Words().write(os.path.join(self.models, "nursed-words"))
        write_slow(os.path.join(self.models, "slow"), seconds=0.02)
        with open(os.path.join(self.models, "stray"), "w", encoding="ascii") as file:
            file.write("no model")

    def start(self, **options):
        server = Server(self.models, model_control="explicit", load_model="*", admin="true", state=self.state,
                        state_interval_ms=300, log_level="error", max_tags=3, max_queue_rows=256, max_request_rows=64, threads=2,
                        max_queue_delay_us=3000, max_sequences=4, kv_cache_mb=4, **options)
        await_ready(server.port)
        return server

    def learn(self):
        """Bits of a server that nobody else uses."""
        with self.start() as server, Client(server.port) as client:
            self.steady = {n: client.predict("steady", rows_of(n, 6), routing=True).body for n in range(20)}
            self.without = {n: client.predict("steady", rows_of(n, 6), experts={"second": {"exclude": [n % 5], "top_k": 2}}).body
                            for n in range(20)}
            self.coming = {n: client.predict("coming", rows_of(n, 4)).body for n in range(20)}
            self.nursed = {n: {client.predict("nursed", rows_of(n, 4), **quarantine).body for quarantine in (
                {}, *({"experts": {"moe": {"exclude": [e]}}} for e in range(3)))} for n in range(20)}
            self.nursed = {n: {json.dumps(json.loads(body)["predictions"]) for body in bodies}
                           for n, bodies in self.nursed.items()}
            self.texts = {p: client.post("/v1/completions", completion(p)).json["choices"][0]["text"] for p in PROMPTS}
            first = {n: client.predict("replaced", rows_of(n, 4)).body for n in range(20)}
            self.replace(2)
            assert client.post("/v2/repository/models/replaced/load", b"{}").status == 200
            self.replaced = {n: {first[n], client.predict("replaced", rows_of(n, 4)).body} for n in range(20)}
            server.stop()
        shutil.rmtree(self.state)
        os.mkdir(self.state)

    def replace(self, seed):
        """As deployments do: a whole directory takes the place of the other."""
        path, new = os.path.join(self.models, "replaced"), os.path.join(self.spare, "new")
        shutil.copytree(os.path.join(self.spare, f"replaced-{seed}"), new)
        old = os.path.join(self.spare, "old")
        os.rename(path, old)
        os.rename(new, path)
        shutil.rmtree(old)


def completion(prompt, **members):
    return {"model": "words", "prompt": prompt, "max_tokens": 24, "temperature": 0, **members}


class Person:
    """One client. `answered` counts the rows of `steady` that were answered and are to be found in its statistics."""

    def __init__(self, site, server, number, seed):
        self.site, self.server, self.chance = site, server, random.Random(f"{seed} {number}")
        self.client, self.answered, self.done = Client(server.port), 0, {}

    def act(self, actions):
        action = self.chance.choices(actions, [getattr(action, "weight", 4) for action in actions])[0]
        self.done[action.__name__] = self.done.get(action.__name__, 0) + 1
        try:
            action(self)
        except Closed as closed:
            raise AssertionError(f"{action.__name__}: the connection was closed after {closed.received!r}") from None
        except Exception as failure:
            raise AssertionError(f"{action.__name__}: {type(failure).__name__}: {failure}") from failure

    def pick(self, *choices):
        return self.chance.choice(choices)

    def expect(self, answer, *statuses):
        assert answer.status in statuses, f"{answer.status} {answer.body[:300]!r}, expected {statuses}"
        assert answer.status < 400 or answer.json["error"], answer.body
        assert answer.status not in OVERLOADED or int(answer.headers["retry-after"]) > 0, answer.headers
        return answer.status == 200

    # ---- rows ----

    def rows(self):
        n = self.chance.randrange(20)
        tag = {"Moed-Tag": f"tag-{self.chance.randrange(6)}"} if self.chance.random() < .3 else {}
        answer = self.client.post("/v1/models/steady:predict", {"instances": rows_of(n, 6), "routing": True}, tag)
        if self.expect(answer, 200, *OVERLOADED):
            assert answer.body == self.site.steady[n], (answer.body, self.site.steady[n])
            self.answered += len(rows_of(n, 6))
    rows.weight = 20

    def rows_with_labels(self):
        n, name = self.chance.randrange(20), f"asked-{self.chance.getrandbits(60)}"
        rows = rows_of(n, 6)
        request = {"id": name, "inputs": [{"name": "x", "shape": [len(rows), 6], "datatype": "FP32", "data": rows}],
                   "parameters": {"feedback": True}}
        answer = self.client.infer("steady", request)
        if self.expect(answer, 200, *OVERLOADED):
            self.answered += len(rows)
            labels = [self.chance.randrange(3) for _ in rows]
            self.expect(self.client.post("/v2/models/steady/feedback", {"id": name, "labels": labels}), 200, 404, 409)
    rows_with_labels.weight = 8

    def rows_of_others(self):
        n = self.chance.randrange(20)
        answer = self.client.predict("replaced", rows_of(n, 4))
        if self.expect(answer, 200, *OVERLOADED):
            assert answer.body in self.site.replaced[n], answer.body
        answer = self.client.predict("coming", rows_of(n, 4))
        if self.expect(answer, 200, 404, *OVERLOADED):
            assert answer.body == self.site.coming[n], answer.body
        answer = self.client.predict("nursed", rows_of(n, 4))
        if self.expect(answer, 200, *OVERLOADED):
            assert json.dumps(answer.json["predictions"]) in self.site.nursed[n], answer.body
    rows_of_others.weight = 12

    def what_if(self):
        n = self.chance.randrange(20)
        answer = self.client.predict("steady", rows_of(n, 6), experts={"second": {"exclude": [n % 5], "top_k": 2}})
        if self.expect(answer, 200, *OVERLOADED):
            assert answer.body == self.site.without[n], answer.body

    def slow(self):
        """More than can be computed, and by deadlines that some do not meet."""
        request = {"inputs": [{"name": "x", "shape": [8, 4], "datatype": "FP32", "data": [0.5] * 32}],
                   "parameters": {"timeout": self.pick(1000, 50000, 10000000), "priority": self.pick(0, 1, 2)}}
        self.expect(self.client.infer("slow", request), 200, 504, *OVERLOADED)
    slow.weight = 2

    def uncounted(self):
        n = self.chance.randrange(20)
        answer = self.client.post("/v1/models/steady:predict", {"instances": rows_of(n, 6), "routing": True},
                                  {"Moed-Statistics": "off"})
        if self.expect(answer, 200, *OVERLOADED):
            assert answer.body == self.site.steady[n], answer.body

    def leaves(self):
        """Asks another model, and does not wait."""
        request = request_bytes("POST", "/v1/models/coming:predict", json.dumps({"instances": rows_of(4, 4)}).encode())
        with Connection(self.server.port) as connection:
            connection.send(request[:self.chance.randrange(1, len(request) + 1)])
            if self.chance.random() < .5:
                connection.reset()

    def malformed(self):
        path, body, status = self.pick(
            ("/v1/models/steady:predict", b'{"instances": [[1, 2]]}', 400), ("/v1/models/steady:predict", b"{", 400),
            ("/v2/models/steady/infer", b'{"inputs": []}', 400), ("/v1/models/nobody:predict", b"{}", 404),
            ("/v1/completions", b'{"model": "words", "prompt": 7}', 400), ("/v1/completions", b'{"model": "steady"}', 404),
            ("/v1/completions", b'{"model": "words", "prompt": "x", "max_tokens": 100000}', 400),
            ("/v2/models/steady/feedback", b'{"id": "x", "labels": [9]}', 404), ("/nowhere", b"", 404))
        answer = self.client.post(path, body)
        assert answer.status in (status, 400, *OVERLOADED), f"{path} {body} {answer.status} {answer.body}"

    # ---- texts ----

    def text(self):
        prompt = self.pick(*PROMPTS)
        answer = self.client.post("/v1/completions", completion(prompt))
        if self.expect(answer, 200, *OVERLOADED):
            assert answer.json["choices"][0]["text"] == self.site.texts[prompt], answer.body

    def stream(self):
        prompt, left = self.pick(*PROMPTS), self.chance.random() < .4
        with Stream(self.server.port, "/v1/completions", completion(prompt, routing=self.chance.random() < .5)) as stream:
            if stream.answer.status != 200:
                assert stream.answer.status in OVERLOADED, stream.answer.status
                return
            said = ""
            for event in stream:
                assert "error" not in event, event
                said += text_of(event["choices"][0]) if event["choices"] else ""
                if left and len(said) > 3:
                    return
            assert stream.done and said == self.site.texts[prompt], said
    stream.weight = 8

    def chat(self):
        """With a model whose experts are put into quarantine and let out: nobody knows what it says."""
        body = {"model": "nursed-words", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "seed": 1,
                "user": f"tag-{self.chance.randrange(5)}", "logprobs": True, "top_logprobs": 3}
        answer = self.client.post("/v1/chat/completions", body)
        if self.expect(answer, 200, *OVERLOADED):
            assert len(answer.json["choices"][0]["logprobs"]["content"]) == 12, answer.body
            assert answer.json["usage"]["completion_tokens"] == 12, answer.body

    def tokens(self):
        answer = self.client.post("/tokenize", {"model": "words", "prompt": "a b"})
        if self.expect(answer, 200, *OVERLOADED):
            assert len(answer.json["tokens"]) == 3, answer.body

    # ---- statistics ----

    def routing(self):
        model = self.pick("steady", "nursed", "words", "replaced", "coming")
        parts = self.chance.sample(ROUTING_PARTS, self.chance.randrange(4))
        query = self.pick("", "?window=1m", "?window=5m") if not parts else "?include=" + ",".join(parts)
        answer = self.client.get(f"/v2/models/{model}/routing{query}")
        if not self.expect(answer, 200, 400, 404, *OVERLOADED):
            return
        for layer in answer.json["layers"]:
            selected = sum(expert["selected"] for expert in layer["experts"])
            assert selected == layer["rows"] * layer["top_k"] or "gates" in layer or query.startswith("?window"), \
                (query, layer)
            shares = sum(expert["share"] or 0 for expert in layer["experts"])
            assert layer["rows"] == 0 or abs(shares - 1) < 1e-3, (query, layer)
    routing.weight = 8

    def metrics(self):
        answer = self.client.get("/metrics")
        if self.expect(answer, 200, *OVERLOADED):
            Metrics(answer.body.decode())

    def live(self):
        with Connection(self.server.port) as connection:
            connection.send(request_bytes("GET", "/v2/models/steady/routing/live"))
            time.sleep(self.chance.random())

    def documents(self):
        for path in ("/v2", "/v2/models/steady", "/v2/models/words/config", "/v2/models/stats", "/v1/models", "/openapi.json", "/",
                     "/v2/health/live", "/v2/logging", "/v2/trace/setting"):
            self.expect(self.client.get(path), 200, 404, *OVERLOADED)

    # ---- operators ----

    def quarantine(self):
        """Refused if another expert is in it already."""
        model, layer = self.pick(("nursed", "moe"), ("nursed-words", "layers.1.moe"))
        path, body = f"/v2/models/{model}/routing/quarantine", {"layer": layer, "expert": self.chance.randrange(3)}
        self.expect(self.client.post(path, {**body, "reason": "tried"}), 200, 400)
        time.sleep(self.chance.random() * .05)
        self.expect(self.client.request("DELETE", path, json.dumps(body).encode()), 200, 404)

    def comes_and_goes(self):
        self.expect(self.client.post("/v2/repository/models/coming/unload", b"{}"), 200)
        time.sleep(self.chance.random() * .05)
        self.expect(self.client.post("/v2/repository/models/coming/load", b"{}"), 200)

    def replace(self):
        self.site.replace(self.pick(1, 2))
        self.expect(self.client.post("/v2/repository/models/replaced/load", b"{}"), 200)

    def breaks(self):
        """What cannot be loaded changes nothing."""
        path = os.path.join(self.site.models, "replaced", "config.json")
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write(self.pick("{", "{}", '{"model_type": "none"}'))
        os.rename(path + ".new", path)
        self.expect(self.client.post("/v2/repository/models/replaced/load", b"{}"), 400)
        self.replace()

    def reloads_words(self):
        model = self.pick("words", "nursed-words")
        os.utime(os.path.join(self.site.models, model, "model.safetensors"), (self.chance.randrange(10 ** 9), 1))
        self.expect(self.client.post(f"/v2/repository/models/{model}/load", b"{}"), 200)

    def hangup(self):
        self.server.signal(signal.SIGHUP)

    def resets(self):
        model = self.pick("nursed", "words", "replaced")
        self.expect(self.client.post(f"/v2/models/{model}/routing/reset", b""), 200)

    def snapshots(self):
        self.expect(self.client.post("/v2/models/steady/routing/snapshot", b""), 200)

    def records(self):
        for path in ("/start_expert_distribution_record", "/stop_expert_distribution_record"):
            self.expect(self.client.post(path, b""), 200, 400)
            self.expect(self.client.post("/dump_expert_distribution_record?model=words", b""), 200, 400)

    def settings(self):
        self.expect(self.client.post("/v2/logging", {"log_info": self.pick(True, False)}), 200)
        self.expect(self.client.post("/v2/logging", {"log_info": False}), 200)

    def index(self):
        self.expect(self.client.post("/v2/repository/index", b"{}"), 200)


PEOPLE = (Person.rows, Person.rows_with_labels, Person.rows_of_others, Person.what_if, Person.slow, Person.uncounted,
          Person.leaves, Person.malformed, Person.text, Person.stream, Person.chat, Person.tokens, Person.routing,
          Person.metrics, Person.live, Person.documents)
OPERATORS = (Person.quarantine, Person.comes_and_goes, Person.hangup, Person.resets, Person.snapshots, Person.records,
             Person.settings, Person.index)
ALONE = (Person.replace, Person.breaks, Person.reloads_words)  # the first operator's


def counted(client):
    """What the statistics of the model say that nobody resets or reloads."""
    answer = client.get("/v2/models/steady/routing").json
    return [(layer["rows"], [expert["selected"] for expert in layer["experts"]]) for layer in answer["layers"]]


def await_quiet(client):
    deadline = time.monotonic() + 60
    while True:
        page = Metrics(client.get("/metrics").body.decode())
        used = page.value("moed_kv_pages_used", model="words", version="1")
        if used == 0 or time.monotonic() > deadline:
            return used
        time.sleep(0.1)


def run(site, options, seed):
    """The complaints."""
    complaints = []
    with site.start(loops=options.loops) as server, Client(server.port) as client:
        people = [Person(site, server, number, seed) for number in range(options.clients + 2)]
        deadline = time.monotonic() + options.seconds

        def live(number):
            while time.monotonic() < deadline:
                people[number].act(OPERATORS + ALONE if number == 0 else OPERATORS if number == 1 else PEOPLE)

        load = Background(len(people), live)
        try:
            load.join()
        except AssertionError as failure:
            complaints.append(str(failure))
        before = resident_mb(server)
        answered, left = sum(person.answered for person in people), await_quiet(client)
        if left != 0:
            complaints.append(f"{left} pages are in use when nobody asks")
        now = counted(client)
        if not complaints and [rows for rows, _ in now] != [answered] * len(now):
            complaints.append(f"{answered} rows were answered, {now} counted")
        server.stop()
    with site.start(loops=options.loops) as server, Client(server.port) as client:
        if counted(client) != now:
            complaints.append(f"after a restart {counted(client)} instead of {now}")
        server.stop()
    done = {}
    for person in people:
        for name, count in person.done.items():
            done[name] = done.get(name, 0) + count
    print(f"seed {seed}: {sum(done.values())} actions, {answered} rows counted, {before:.0f} MB: "
          + ", ".join(f"{name} {count}" for name, count in sorted(done.items())), flush=True)
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="of each seed")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--loops", type=int, default=2, help="event loops of the server")
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    options = parser.parse_args()
    failed = 0
    for seed in range(options.seed, options.seed + options.seeds):
        with tempfile.TemporaryDirectory() as directory:
            site = Site(directory)
            site.learn()
            for complaint in run(site, options, seed):
                failed += 1
                print(f"seed {seed}: {complaint}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
