"""--state: routing statistics survive the end of the process, and nothing about the directory harms serving."""

import json
import os
import resource
import shutil
import signal
import socket
import tempfile
import time
import unittest

import numpy as np

from support.http import Client, Connection, request_bytes
from support.language import NAME, Words
from support.models import Tiny, TwoLayers, write_slow
from support.moectl import moectl, needs_moectl
from support.prometheus import Metrics
from support.server import Server

ROWS = np.random.default_rng(6).normal(size=(60, 6)).astype(np.float32)
EVERYTHING = "ranks,pairs,lifts,classes,margins,entropies,coverage,batches,exact,cache,phases"


class StateCase(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="moed-state-")
        self.addCleanup(directory.cleanup)
        self.models, self.state = (os.path.join(directory.name, name) for name in ("models", "state"))
        self.file = os.path.join(self.state, "two-layers.1.routing")
        TwoLayers().write(os.path.join(self.models, "two-layers"))

    def start(self, **options):
        server = Server(self.models, **{"state": self.state, "log_level": "info", "admin": "true", **options})
        self.addCleanup(server.kill)
        client = Client(server.port)
        self.addCleanup(client.close)
        return server, client

    def send(self, client, rows=ROWS, **members):
        labels = np.arange(len(rows)) % 3
        answer = client.predict("two-layers", rows.tolist(), labels=labels.tolist(), **members)
        self.assertEqual(answer.status, 200, answer.body)

    def document(self, client, query=""):
        answer = client.get(f"/v2/models/two-layers/routing{query}")
        self.assertEqual(answer.status, 200, answer.body)
        return timeless(answer.json)

    def value(self, client, name, **labels):
        return Metrics(client.get("/metrics").body.decode()).value(name, **labels)

    def await_value(self, client, name, least, **labels):
        deadline = time.monotonic() + 60
        while self.value(client, name, **labels) < least:
            self.assertLess(time.monotonic(), deadline, name)
            time.sleep(0.02)


def timeless(document):
    """Without what only the time changes."""
    document = dict(document, seconds=None)
    for layer in document["layers"]:
        for expert in layer["experts"]:
            expert["idle_seconds"] = expert["idle_seconds"] is not None
    return document


def lifted(layer):
    """The pairs and their lifts, whatever their order."""
    return sorted((*pair, round(lift, 12)) for pair, lift in zip(layer.get("pairs") or [], layer.get("lifts") or [], strict=True))


def take_times(document):
    """Takes out what the experts took, which no two servers have the same; returns it, in units of 2^-32 s."""
    units = []
    for layer in document["layers"]:
        for expert, exact in zip(layer["experts"], layer["exact"]["experts"]):
            units.append(int(exact.pop("compute_seconds")))
            assert expert.pop("compute_seconds") == units[-1] / 2 ** 32
    return units


class RestartTest(StateCase):
    def test_a_restart(self):
        server, client = self.start(loops=2)
        self.send(client, tag="a")
        self.send(client, ROWS[:20])
        self.assertEqual(client.post("/v2/models/two-layers/routing/reset", b"").status, 200)
        self.send(client, ROWS[20:40], tag="b")
        self.send(client, ROWS[:30])
        queries = [f"?window={window}&include={EVERYTHING}" for window in ("1m", "5m", "1h", "all")] + ["?tag=b"]
        before = [self.document(client, query) for query in queries]
        server.stop()
        server, client = self.start()
        for query, document in zip(queries, before):
            self.assertEqual(self.document(client, query), document, query)
        self.assertEqual(before[3]["rows"], 50)
        self.assertEqual(self.document(client)["tags"], ["a", "b"])
        layer = {"model": "two-layers", "version": "1", "layer": "first"}
        self.assertEqual(self.value(client, "moed_layer_rows_total", **layer), 0)
        self.assertEqual(self.value(client, "moed_layer_usage_entropy_bits", window="1h", **layer),
                         before[2]["layers"][0]["usage_entropy_bits"])
        self.send(client, tag="b")
        self.assertEqual(self.document(client)["rows"], 110)
        self.assertEqual(self.document(client, "?tag=b")["rows"], 80)
        server.stop()

    def test_kill(self):
        """At most what one interval has counted is lost."""
        server, client = self.start(state_interval_ms=250)
        sent, at, deadline = 0, [], time.monotonic() + 1.5
        while time.monotonic() < deadline:
            self.send(client, ROWS[:2])
            sent += 2
            at.append((time.monotonic(), sent))
        killed = time.monotonic()
        server.signal(signal.SIGKILL)
        server.wait()
        server, client = self.start()
        rows = self.document(client)["rows"]
        self.assertLessEqual(rows, sent)
        # a snapshot every 250 ms, begun at most so long before the end, and some time for a busy machine's disk
        self.assertGreaterEqual(rows, max([count for when, count in at if when < killed - 0.75]))
        server.stop()

    def test_a_snapshot_on_demand(self):
        server, client = self.start(log_level="warning")
        self.send(client)
        answer = client.post("/v2/models/two-layers/routing/snapshot", b"")
        self.assertEqual(answer.status, 200, answer.body)
        document = timeless(answer.json)
        self.assertEqual(document, self.document(client, f"?include={EVERYTHING}"))
        self.assertEqual(self.value(client, "moed_state_written_total"), 1)
        server.signal(signal.SIGKILL)
        server.wait()
        server, client = self.start()
        again = timeless(client.post("/v2/models/two-layers/versions/1/routing/snapshot", b"").json)
        self.assertEqual(again, document)
        self.assertEqual(client.post("/v2/models/two-layers/routing/snapshot?window=1m", b"").status, 400)
        self.assertEqual(client.get("/v2/models/two-layers/routing/snapshot").status, 405)
        server.stop()

    def test_without_a_directory(self):
        server, client = self.start(state=None)
        self.send(client)
        document = timeless(client.post("/v2/models/two-layers/routing/snapshot", b"").json)
        self.assertEqual(document, self.document(client, f"?include={EVERYTHING}"))
        self.assertNotIn(b"moed_state_", client.get("/metrics").body)
        server.stop()

    def test_other_gates(self):
        server, client = self.start()
        self.send(client)
        server.stop()
        shutil.rmtree(os.path.join(self.models, "two-layers"))
        Tiny().write(os.path.join(self.models, "two-layers"))
        server, client = self.start()
        self.assertIn("of other gates or classes; counting begins anew", server.log())
        self.assertEqual(self.document(client)["rows"], 0)
        self.assertEqual(self.value(client, "moed_state_damaged_total"), 0)
        server.stop()


class UnloadTest(StateCase):
    """A version that goes takes nothing with it: whoever loads it again finds all that it counted."""

    EXPLICIT = {"model_control": "explicit", "load_model": "*", "state_interval_ms": 3600000}

    def change(self, client, what, model="two-layers"):
        answer = client.post(f"/v2/repository/models/{model}/{what}", b"")
        self.assertEqual((answer.status, answer.json), (200, {}))

    def test_unloaded_and_loaded(self):
        server, client = self.start(**self.EXPLICIT)
        for _ in range(3):
            self.send(client, tag="a")
            before = self.document(client, f"?include={EVERYTHING}")
            self.change(client, "unload")
            self.change(client, "load")
            self.assertEqual(self.document(client, f"?include={EVERYTHING}"), before)
        self.assertEqual(before["rows"], 180)
        self.change(client, "unload")
        server.stop()
        server, client = self.start()
        self.assertEqual(self.document(client, f"?include={EVERYTHING}"), before)
        server.stop()

    def test_gone_from_the_repository(self):
        server, client = self.start(**self.EXPLICIT | {"model_control": "none", "load_model": None})
        Tiny().write(os.path.join(self.models, "other"))
        self.send(client)
        before = self.document(client, f"?include={EVERYTHING}")
        away = self.models + ".away"
        for source, target, status in ((self.models + "/two-layers", away, 404), (away, self.models + "/two-layers", 200)):
            os.rename(source, target)
            server.signal(signal.SIGHUP)
            deadline = time.monotonic() + 60
            while client.get("/v2/models/two-layers/ready").status != status:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
        self.assertEqual(self.document(client, f"?include={EVERYTHING}"), before)
        server.stop()

    def test_while_requests_still_use_it(self):
        write_slow(os.path.join(self.models, "slow"), seconds=3)
        server, client = self.start(**self.EXPLICIT, max_batch_rows=1)
        one, other = Connection(server.port), Connection(server.port)
        with one, other:
            for asking in (one, other):
                asking.send(request_bytes("POST", "/v1/models/slow:predict", b'{"instances": [[1, 2, 3, 4]]}'))
            self.await_value(client, "moed_queue_rows", 1, model="slow", version="1")
            self.change(client, "unload", "slow")
            self.change(client, "load", "slow")
            self.assertEqual([asking.answer().status for asking in (one, other)], [200, 200])
        self.assertEqual(client.get("/v2/models/slow/routing").json["rows"], 2)
        server.stop()


class PhasesTest(StateCase):
    """Prompts and generated tokens of a language model apart."""

    PROMPTS = ("once upon", "a time", "0123456789")

    def speak(self, client, prompts):
        for prompt in prompts:
            seed = self.PROMPTS.index(prompt)
            answer = client.post("/v1/completions", {"prompt": prompt, "max_tokens": 9 + seed, "seed": seed})
            self.assertEqual(answer.status, 200, answer.body)

    def phases(self, client):
        document = client.get(f"/v2/models/{NAME}/routing?include=phases,cache,batches").json
        return document["memory"], [[layer[key] for key in ("phases", "cache", "batches")] for layer in document["layers"]]

    def replica(self, prompts):
        server, client = self.start(state=None)
        self.speak(client, prompts)
        path = os.path.join(self.models, f"{server.port}.json")
        with open(path, "wb") as file:
            file.write(client.post(f"/v2/models/{NAME}/routing/snapshot", b"").body)
        server.stop()
        return path

    def test_a_restart(self):
        Words().write(os.path.join(self.models, NAME))
        server, client = self.start()
        self.speak(client, self.PROMPTS)
        before = self.phases(client)
        self.assertEqual(before[1][0][0]["generated"]["count"], sum(range(8, 11)))
        server.stop()
        for _ in range(2):
            server, client = self.start()
            self.assertEqual(self.phases(client), before)
            server.stop()
        server, client = self.start()
        self.speak(client, self.PROMPTS[:1])
        (phases, _, _), _ = self.phases(client)[1]
        self.assertEqual(phases["generated"]["count"], sum(range(8, 11)) + 8)
        self.assertEqual(phases["prompt"]["count"], 4)
        server.stop()

    @needs_moectl
    def test_replicas_merge_exactly(self):
        Words().write(os.path.join(self.models, NAME))
        whole, *parts = (self.replica(prompts) for prompts in (self.PROMPTS, self.PROMPTS[:1], self.PROMPTS[1:]))
        done = moectl("merge", *parts)
        self.assertEqual(done.returncode, 0, done.stderr)
        merged = json.loads(done.stdout)
        with open(whole, encoding="utf-8") as file:
            expected = json.load(file)
        self.assertEqual(merged["memory"], expected["memory"])
        for layer, other in zip(merged["layers"], expected["layers"], strict=True):
            self.assertEqual(layer["batches"], other["batches"])
            for phase in ("prompt", "generated"):
                one, two = layer["phases"][phase], other["phases"][phase]
                for steps in (one, two):  # every replica's cache is its own
                    steps["cache"] = [(size["size"], size["uses"]) for size in steps["cache"]]
                self.assertEqual(one, two, phase)


class DirectoryTest(StateCase):
    def test_a_damaged_file_is_set_aside(self):
        server, client = self.start()
        self.send(client)
        server.stop()
        with open(self.file, "rb") as file:
            kept = file.read()
        for damaged in (kept[:-1], kept[:50] + bytes([kept[50] ^ 1]) + kept[51:], b"{}"):
            with open(self.file, "wb") as file:
                file.write(damaged)
            server, client = self.start()
            self.assertIn("counting begins anew", server.log())
            self.assertEqual(self.document(client)["rows"], 0)
            self.assertEqual(self.value(client, "moed_state_damaged_total"), 1)
            with open(self.file + ".damaged", "rb") as file:
                self.assertEqual(file.read(), damaged)
            server.stop()
        self.assertEqual(sorted(os.listdir(self.state)),
                         [".lock", "two-layers.1.routing", "two-layers.1.routing.damaged"])

    def hide(self):
        """The file cannot be opened, as where there is no descriptor left, or a disk that fails; returns where it is."""
        os.rename(self.file, self.file + ".hidden")
        with socket.socket(socket.AF_UNIX) as there:
            there.bind(self.file)
        return self.file + ".hidden"

    def test_what_cannot_be_read_now_is_kept(self):
        server, client = self.start()
        self.send(client, tag="a")
        self.send(client, ROWS[:10], tag="b")
        self.assertEqual(client.post("/v2/models/two-layers/routing/reset", b"").status, 200)
        self.send(client, ROWS[:40], tag="b")
        before = self.document(client, f"?include={EVERYTHING}")
        server.stop()
        hidden = self.hide()
        server, client = self.start(state_interval_ms=100)
        self.assertIn("counting begins anew, and is not kept", server.log())
        self.await_value(client, "moed_state_failures_total", 2)
        self.assertEqual(client.post("/v2/models/two-layers/routing/snapshot", b"").status, 503)
        self.send(client, ROWS[40:], tag="b")
        self.assertEqual(self.document(client)["rows"], 20)
        os.rename(hidden, self.file)
        self.await_value(client, "moed_state_written_total", 1)
        self.assertEqual(self.value(client, "moed_state_damaged_total"), 0)
        self.assertEqual(os.listdir(self.state).count("two-layers.1.routing.damaged"), 0)
        self.assertEqual(self.document(client)["tags"], ["b", "a"])
        self.assertEqual(self.document(client, "?tag=b")["rows"], 60)
        after = self.document(client, f"?include={EVERYTHING}")
        self.assertEqual(after["rows"], 60)
        server.stop()
        server, client = self.start()
        self.assertEqual(self.document(client, f"?include={EVERYTHING}"), after)
        self.assertEqual(after["layers"][0]["batches"]["count"], before["layers"][0]["batches"]["count"] + 1)
        server.stop()

    def test_a_newer_version_finds_its_file_again(self):
        server, client = self.start()
        self.send(client)
        server.stop()
        with open(self.file, "rb") as file:
            kept = file.read()
        for number in (b"9", b"10"):
            newer = b"moed routing " + number + kept[kept.index(b"\n"):]
            with open(self.file, "wb") as file:
                file.write(newer)
            server, client = self.start(state_interval_ms=100)
            self.assertIn(f"of version {number.decode()}, of a newer moed", server.log())
            self.send(client)
            self.await_value(client, "moed_state_failures_total", 2)
            self.assertEqual(self.value(client, "moed_state_damaged_total"), 0)
            server.stop()
            with open(self.file, "rb") as file:
                self.assertEqual(file.read(), newer)
        os.remove(self.file)
        server, client = self.start()
        self.send(client)
        server.stop()
        self.assertTrue(os.path.exists(self.file))

    def test_what_is_no_file(self):
        os.makedirs(self.file)
        server, client = self.start()
        self.assertEqual(self.value(client, "moed_state_damaged_total"), 1)
        self.send(client)
        server.stop()
        self.assertTrue(os.path.isfile(self.file))

    def test_a_directory_that_cannot_be(self):
        for state in ("/dev/null/state", os.path.join(self.models, "two-layers", "config.json")):
            server, client = self.start(state=state, state_interval_ms=100)
            self.assertIn("statistics begin anew and are not kept", server.log())
            self.send(client)
            self.await_value(client, "moed_state_failures_total", 2)
            self.assertEqual(self.value(client, "moed_state_written_total"), 0)
            self.assertEqual(client.post("/v2/models/two-layers/routing/snapshot", b"").status, 503)
            server.stop()

    def test_a_full_disk(self):
        server, client = self.start(state_interval_ms=100)
        self.send(client)
        self.await_value(client, "moed_state_written_total", 1)
        os.rename(self.state, self.state + "-gone")
        self.await_value(client, "moed_state_failures_total", 3)
        self.send(client)
        self.assertEqual(server.log().count("counting goes on without it"), 1, server.log())
        os.rename(self.state + "-gone", self.state)
        written = self.value(client, "moed_state_written_total")
        self.await_value(client, "moed_state_written_total", written + 1)
        with open(self.file, "rb") as file:
            kept = file.read()
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        failures = self.value(client, "moed_state_failures_total")
        self.await_value(client, "moed_state_failures_total", failures + 2)
        with open(self.file, "rb") as file:  # not half of another
            self.assertEqual(len(file.read()), len(kept))
        self.assertEqual(sorted(os.listdir(self.state)), [".lock", "two-layers.1.routing"])
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.send(client)
        server.stop()
        server, client = self.start()
        self.assertEqual(self.document(client)["rows"], 180)
        server.stop()

    def test_one_server_at_a_time(self):
        first, client = self.start(state_interval_ms=100)
        self.send(client)
        second, other = self.start(state_interval_ms=100)
        self.assertIn(f"another server uses {self.state}", second.log())
        self.assertEqual(self.document(other)["rows"], 0)
        second.stop()
        first.stop()
        first, client = self.start()
        self.assertEqual(self.document(client)["rows"], 60)
        first.stop()


@needs_moectl
class MergeTest(StateCase):
    def test_replicas_merge_exactly(self):
        """Two replicas' snapshots add up to what one server says of all traffic, to the last digit."""
        snapshots = []
        for parts in ([ROWS[:17], ROWS[40:]], [ROWS[17:40]], np.split(ROWS, [17, 40])):
            server, client = self.start(state=None, max_batch_rows=8, loops=3)
            for part in parts:
                self.send(client, part)
            answer = client.post("/v2/models/two-layers/routing/snapshot", b"")
            snapshots.append(timeless(json.loads(answer.body)))
            path = os.path.join(self.models, f"{len(snapshots)}.json")
            with open(path, "wb") as file:
                file.write(answer.body)
            server.stop()
        done = moectl("merge", os.path.join(self.models, "1.json"), os.path.join(self.models, "2.json"))
        self.assertEqual(done.returncode, 0, done.stderr)
        merged, whole = timeless(json.loads(done.stdout)), snapshots[2]
        self.assertEqual(merged["rows"], 60)
        times = [take_times(snapshot) for snapshot in snapshots]
        self.assertEqual(take_times(merged), [a + b for a, b in zip(*times[:2])])
        self.assertGreater(min(times[2]), 0)
        for layer, other in zip(merged["layers"], whole["layers"]):
            self.assertEqual(layer["exact"], other["exact"])
            for key in ("rows", "ranks", "margins", "entropies", "gate_entropy_bits", "margin", "unused"):
                self.assertEqual(layer[key], other[key], key)
            self.assertEqual(lifted(layer), lifted(other))
            for table, same in ((layer["classes"], other["classes"]), (layer["classes"]["truth"], other["classes"]["truth"])):
                self.assertEqual(table["counts"], same["counts"])
                for key in ("correct", "log_loss", "ece"):
                    self.assertEqual(table.get(key), same.get(key), key)
                for key in ("mi_bits", "dispatch_entropy_bits"):
                    self.assertAlmostEqual(table[key], same[key], delta=1e-12)
            self.assertEqual(layer["batches"], other["batches"])
            self.assertEqual([size["uses"] for size in layer["cache"]], [size["uses"] for size in other["cache"]])
            for expert, same in zip(layer["experts"], other["experts"]):
                self.assertEqual(expert, same)
            for key in ("usage_entropy_bits", "imbalance", "weight_imbalance", "balancedness", "cv", "jain",
                        "effective_experts"):
                self.assertAlmostEqual(layer[key], other[key], delta=1e-12, msg=key)


if __name__ == "__main__":
    unittest.main()
