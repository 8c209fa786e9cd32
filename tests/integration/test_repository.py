"""The repository API: clients load and unload models, and nobody else notices."""

import importlib.util
import os
import resource
import shutil
import signal
import threading
import time
import unittest

from support.http import Client, Connection, request_bytes
from support.models import Tiny, write_elementwise, write_table
from support.server import ServerCase
from support.threads import Background

ROW = [[1, 2, 3, 4]]


class RepositoryCase(ServerCase):
    options = {"model_control": "explicit", "load_model": "a,b", "admin": "true", "log_level": "info"}

    @staticmethod
    def models(directory):
        for seed, name in enumerate("abc"):
            Tiny(seed=seed).write(os.path.join(directory, name))

    def setUp(self):
        for name in os.listdir(self._directory.name):
            shutil.rmtree(os.path.join(self._directory.name, name))
        self.models(self._directory.name)
        self.server = self.start()
        self.addCleanup(self.server.stop)
        self.client = self.new_client()

    def path(self, *parts):
        return os.path.join(self._directory.name, *parts)

    def change(self, model, what, client=None, body=b""):
        return (client or self.client).request("POST", f"/v2/repository/models/{model}/{what}", body)

    def load(self, model, client=None):
        answer = self.change(model, "load", client)
        self.assertEqual((answer.status, answer.json), (200, {}))

    def unload(self, model, client=None):
        answer = self.change(model, "unload", client)
        self.assertEqual((answer.status, answer.json), (200, {}))

    def states(self):
        return {entry["name"]: entry["state"] for entry in self.client.post("/v2/repository/index", {}).json}

    def status(self, model):
        return self.client.predict(model, ROW).status


class ChangesTest(RepositoryCase):
    def test_models_are_loaded_and_unloaded(self):
        self.assertEqual(self.states(), {"a": "READY", "b": "READY", "c": "UNAVAILABLE"})
        self.assertEqual(self.status("c"), 404)
        self.load("c")
        self.assertEqual((self.status("c"), self.states()["c"]), (200, "READY"))
        self.unload("a")
        self.assertEqual(self.status("a"), 404)
        self.assertIn(self.states()["a"], ("UNLOADING", "UNAVAILABLE"))
        self.unload("a")
        self.load("a")
        self.assertEqual(self.status("a"), 200)
        Tiny(seed=9).write(self.path("d"))
        self.load("d")
        self.assertEqual(self.status("d"), 200)

    def test_no_model_hides_behind_the_statistics_of_all(self):
        """/v2/models/stats is a path of its own: a model of that name would answer for them, or they for it."""
        Tiny().write(self.path("stats"))
        answer = self.change("stats", "load")
        self.assertEqual(answer.status, 400, answer.body)
        self.assertIn("/v2/models/stats are the statistics of all models; rename the directory", answer.json["error"])
        reasons = {entry["name"]: entry.get("reason") for entry in self.client.post("/v2/repository/index", {}).json}
        self.assertIn("cannot be called so", reasons["stats"])
        self.assertEqual(len(self.client.get("/v2/models/stats").json["model_stats"]), 2)
        self.assertEqual(self.client.get("/v2/models/%73tats").status, 503)

    def test_a_look_leaves_unloaded_what_is_unloaded(self):
        self.unload("a")
        shutil.rmtree(self.path("b"))
        Tiny(seed=77).write(self.path("b"))
        before = self.client.predict("b", ROW).json
        self.server.signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while self.client.predict("b", ROW).json == before:
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual((self.status("a"), self.status("b"), self.status("c")), (404, 200, 404))

    def test_what_fails_leaves_what_was_served(self):
        before = self.client.predict("a", ROW).json
        with open(self.path("a", "config.json"), "w", encoding="utf-8") as file:
            file.write("{")
        answer = self.change("a", "load")
        self.assert_error(answer, 400, "failed to load 'a'", "a/config.json", "is served")
        self.assertEqual(self.client.predict("a", ROW).json, before)
        (entry,) = [entry for entry in self.client.post("/v2/repository/index", {}).json if entry["name"] == "a"]
        self.assertEqual(entry["state"], "READY")
        self.assertIn("a/config.json", entry["reason"])
        for model in ("nobody", "%2e%2e", "x%2Fy", ".hidden"):
            self.assert_error(self.change(model, "load"), 404, "there is no model")
            self.assert_error(self.change(model, "unload"), 404, "there is no model")
        self.assert_error(self.change("a", "load", body=b'{"parameters": {"config": "{}"}}'), 400, "config")
        self.assert_error(self.change("a", "load", body=b"["), 400, "malformed JSON")
        self.assertEqual(self.client.get("/v2/repository/models/a/load").status, 405)

    def test_who_lacks_descriptors_may_ask_again(self):
        before = self.client.predict("a", ROW).json
        shutil.rmtree(self.path("a"))
        Tiny(seed=9).write(self.path("a"))
        server = self.server.process.pid
        limits = resource.prlimit(server, resource.RLIMIT_NOFILE)
        resource.prlimit(server, resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            answer = self.change("a", "load")
        finally:
            resource.prlimit(server, resource.RLIMIT_NOFILE, limits)
        self.assert_error(answer, 503, "failed to load 'a'", "Too many open files")
        self.assertEqual(self.client.predict("a", ROW).json, before)
        self.load("a")
        self.assertNotEqual(self.client.predict("a", ROW).json, before)

    def test_an_unload_answers_what_was_accepted(self):
        write_elementwise(self.path("slow"), layers=400)
        self.load("slow")
        with Connection(self.server.port) as connection:
            connection.send(request_bytes("POST", "/v1/models/slow:predict", b'{"instances": [[%s]]}' %
                                          b",".join([b"1"] * 20000)))
            deadline = time.monotonic() + 60
            while "slow" not in self.client.get("/metrics").body.decode():
                self.assertLess(time.monotonic(), deadline)
            self.unload("slow")
            self.assertEqual(self.status("slow"), 404)
            self.assertIn(connection.answer().status, (200, 404))  # 404: it came after
        deadline = time.monotonic() + 60
        while "event=model_freed message=\"slow version 1\"" not in self.server.log():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        self.assertEqual(self.states()["slow"], "UNAVAILABLE")

    def test_a_load_holds_nobody_and_a_stop_does_not_wait_for_it(self):
        server = self.start()
        self.addCleanup(server.kill)
        write_elementwise(self.path("long"), layers=20000)
        with Connection(server.port) as loading, Client(server.port) as client:
            loading.send(request_bytes("POST", "/v2/repository/models/long/load"))
            deadline = time.monotonic() + 60
            while "LOADING" not in client.post("/v2/repository/index", {}).body.decode():
                self.assertLess(time.monotonic(), deadline)
            self.assertEqual(client.predict("a", ROW).status, 200)
            self.assert_error(client.predict("long", ROW), 503, "is being loaded")
            server.signal()
            self.assert_error(loading.answer(), 503, "the server is stopping")
        self.assertEqual(server.wait(), 0)

    @unittest.skipUnless(importlib.util.find_spec("tritonclient"), "tritonclient is not installed")
    def test_tritonclient(self):
        import tritonclient.http
        client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{self.server.port}")
        client.load_model("c")
        self.assertTrue(client.is_model_ready("c"))
        client.unload_model("c")
        self.assertFalse(client.is_model_ready("c"))
        self.assertEqual({entry["name"] for entry in client.get_model_repository_index()}, {"a", "b", "c"})
        (statistics,) = client.get_inference_statistics("a")["model_stats"]
        self.assertEqual(statistics["inference_count"], 0)
        self.assertTrue(client.get_log_settings()["log_info"])
        client.close()


class OtherModesTest(ServerCase):
    options = {"admin": "true"}

    def test_changes_are_refused(self):
        answer = self.client.post("/v2/repository/models/mnist/unload", {})
        self.assert_error(answer, 400, "--model-control explicit", "none")
        self.assertEqual(self.client.get("/v2/models/mnist/ready").status, 200)


class PollTest(RepositoryCase):
    options = {"model_control": "poll", "model_poll_ms": 20}

    def test_what_is_copied_appears(self):
        Tiny(seed=5).write(self.path("new"))
        os.makedirs(self.path("half", "1"))
        shutil.rmtree(self.path("a"))
        deadline = time.monotonic() + 60
        while (self.status("new"), self.status("a")) != (200, 404):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        self.assertEqual(self.status("b"), 200)


class TruncatedTest(RepositoryCase):
    """Files that are truncated, or written anew, under a model that is being served."""

    options = {"log_level": "info"}

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "a"))
        write_table(os.path.join(directory, "table"))

    def ask(self, category=60000):
        return self.client.infer("table", {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT32",
                                                       "data": [category]}]})

    def test_a_truncated_file_costs_its_model_only(self):
        before = self.ask().json
        copy = self.path("..", os.path.basename(self._directory.name) + ".copy")
        self.addCleanup(os.remove, copy)
        shutil.copy(self.path("table", "model.safetensors"), copy)
        os.truncate(self.path("table", "model.safetensors"), 5000)
        self.assert_error(self.ask(), 503, "'table'")
        deadline = time.monotonic() + 60
        while self.states()["table"] != "UNAVAILABLE":
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(self.status("a"), 200)
        self.assert_error(self.ask(), 503, "cannot be served")
        self.assertEqual(self.client.get("/v2/models/table/ready").status, 503)
        self.assertRegex(self.server.log(), "level=error event=model_failed message=.table version 1: .* truncated")
        shutil.copy(copy, self.path("table", "model.safetensors"))  # in place, as cp does it
        self.server.signal(signal.SIGHUP)
        while (answer := self.ask()).status != 200:
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(answer.json, before)

    def test_a_copy_does_not_mind(self):
        server = self.start(load="copy")
        self.addCleanup(server.stop)
        self.client = Client(server.port)
        self.addCleanup(self.client.close)
        before = self.ask().json
        with open(f"/proc/{server.process.pid}/maps", encoding="utf-8") as maps:
            self.assertNotIn("safetensors", maps.read())
        os.truncate(self.path("table", "model.safetensors"), 0)
        self.assertEqual(self.ask().json, before)


class UnderLoadTest(RepositoryCase):
    options = {**RepositoryCase.options, "loops": 3}
    changes = 150

    def test_loads_and_unloads_lose_nothing(self):
        """`a` is asked for all the time and never changes, `b` comes and goes: whatever is answered is an answer."""
        ended = threading.Event()

        def ask(number):
            seen, model = set(), "ab"[number % 2]
            with Client(self.server.port) as client:
                while not ended.is_set():
                    seen.add(client.predict(model, ROW * (1 + number * 20)).status)
            return model, seen

        load = Background(6, ask)
        try:
            with Client(self.server.port) as client:
                for _ in range(self.changes):
                    self.unload("b", client)
                    with Client(self.server.port) as other:  # of whatever loop
                        self.assertEqual(other.predict("b", ROW).status, 404)
                    self.load("b", client)
                    with Client(self.server.port) as other:
                        self.assertEqual(other.predict("b", ROW).status, 200)
        finally:
            ended.set()
        for model, seen in load.join():
            self.assertIn(seen, [{200}] if model == "a" else [{200}, {200, 404}, {200, 404, 503}])


if __name__ == "__main__":
    unittest.main()
