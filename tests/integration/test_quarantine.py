"""Experts in quarantine: rows are routed around them, whoever asks, until they are let out; also after a restart."""

import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time

import numpy as np

from support.http import Client
from support.models import Tiny, TwoLayers
from support.prometheus import Metrics
from support.server import SHIPPED_MODELS, Server, ServerCase

PATH = "/v2/models/tiny/routing/quarantine"


class QuarantineTest(ServerCase):
    options = {"admin": "true"}
    rows = np.random.default_rng(5).normal(size=(20, 4)).astype(np.float32)

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        TwoLayers().write(os.path.join(directory, "two-layers"))

    def setUp(self):
        for expert in range(3):
            self.let_out(expert)

    def put_in(self, expert, **members):
        return self.client.post(PATH, {"layer": "moe", "expert": expert, **members}, {"X-Request-Id": "why-1"})

    def let_out(self, expert):
        return self.client.request("DELETE", PATH, json.dumps({"layer": "moe", "expert": expert}).encode())

    def ask(self, experts=None, **members):
        if experts:
            members["experts"] = experts
        answer = self.client.predict("tiny", self.rows.tolist(), routing=True, **members)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def layer(self):
        return self.client.get("/v2/models/tiny/routing").json["layers"][0]

    def quarantined(self):
        page = Metrics(self.client.get("/metrics").body.decode())
        return [expert for expert in range(3)
                if page.value("moed_expert_quarantined", model="tiny", version="1", layer="moe", expert=str(expert))]

    def test_rows_go_around_it(self):
        plain, without = self.ask(), self.ask({"moe": {"exclude": [1]}})
        self.assertEqual(self.layer()["quarantine"], [])
        answer = self.put_in(1, reason="gives NaN")
        self.assertEqual(answer.status, 200, answer.body)
        (entry,) = answer.json["quarantine"]
        self.assertEqual((entry["expert"], entry["reason"], entry["by"], entry["request_id"]),
                         (1, "gives NaN", "127.0.0.1", "why-1"))
        self.assertGreater(entry["since"], 1700000000)
        self.assertFalse(answer.json["kept"])  # there is no state directory
        before = self.layer()
        self.assertEqual(before["quarantine"], [entry])
        now = self.ask()
        self.assertEqual((now["predictions"], now["routing"]), (without["predictions"], without["routing"]))
        after = self.layer()  # it is how the model routes now, and counted as such
        self.assertEqual(after["rows"] - before["rows"], 20)
        self.assertEqual(after["intervened"], before["intervened"])
        self.assertEqual(after["experts"][1]["selected"], before["experts"][1]["selected"])
        self.assertEqual(self.quarantined(), [1])
        self.assertEqual(self.let_out(1).json["quarantine"], [])
        self.assertEqual(self.ask(), plain)
        self.assertEqual(self.quarantined(), [])

    def test_requests_that_ask_for_more(self):
        self.put_in(1)
        both = self.ask({"moe": {"silence": [0], "exclude": [1]}})
        self.assertEqual(self.ask({"moe": {"silence": [0]}})["predictions"], both["predictions"])
        answer = self.client.predict("tiny", self.rows.tolist(), experts={"moe": {"exclude": [2]}})
        self.assert_error(answer, 400, "experts, beside those in quarantine: gate 'moe': 1 of its 3 experts are left")

    def test_refused(self):
        self.assert_error(self.put_in(3), 400, "gate 'moe' has no expert 3, but 3 experts")
        self.assert_error(self.client.post(PATH, {"layer": "mow", "expert": 0}), 400, "has no gate 'mow'")
        self.assert_error(self.client.post(PATH, {"expert": 0}), 400, "'layer' is missing")
        self.assert_error(self.client.post(PATH, b"{"), 400, "malformed JSON")
        self.assert_error(self.let_out(0), 404, "expert 0 of gate 'moe' of model 'tiny' version 1 is not in quarantine")
        self.assert_error(self.client.get(PATH), 405, "takes POST, DELETE, not GET")
        self.assert_error(self.client.post("/v2/models/none/routing/quarantine", {"layer": "moe", "expert": 0}), 404)
        self.put_in(0)
        self.assert_error(self.put_in(1), 400, "1 of its 3 experts are left, fewer than top_k 2")
        self.assertEqual(self.put_in(0, reason="another").json["quarantine"][0]["reason"], "another")
        self.assertEqual(len(self.layer()["quarantine"]), 1)

    def test_while_it_is_used(self):
        """Every answer is of the one routing or of the other."""
        plain, without = self.ask(), self.ask({"moe": {"exclude": [1]}})
        answers, client = [], self.new_client()

        def use():
            for _ in range(100):
                answers.append(client.predict("tiny", self.rows.tolist()).json["predictions"])

        user = threading.Thread(target=use)
        user.start()
        while user.is_alive():
            self.put_in(1)
            self.let_out(1)
        user.join()
        for answer in answers:
            self.assertIn(answer, (plain["predictions"], without["predictions"]))


class LanguageTest(ServerCase):
    options = {"admin": "true"}

    @staticmethod
    def models(directory):
        shutil.copytree(os.path.join(SHIPPED_MODELS, "tiny-lm"), os.path.join(directory, "tiny-lm"))

    def experts(self, layer):
        answer = self.client.post("/v1/completions", {"model": "tiny-lm", "prompt": "Once upon a time " * 8, "max_tokens": 8,
                                                      "temperature": 0, "routing": True})
        self.assertEqual(answer.status, 200, answer.body)
        routing = {entry["name"]: entry["experts"] for entry in answer.json["choices"][0]["routing"]["layers"]}
        return answer.json["choices"][0]["text"], {expert for token in routing[layer] for expert in token}

    def test_tokens_go_around_it(self):
        path = "/v2/models/tiny-lm/routing"
        layer = self.client.get(path).json["layers"][0]["name"]
        text, used = self.experts(layer)
        expert = max(used)
        entry = {"layer": layer, "expert": expert}
        self.assertEqual(self.client.post(path + "/quarantine", entry).status, 200)
        self.assertNotIn(expert, self.experts(layer)[1])
        self.assertEqual(self.client.request("DELETE", path + "/quarantine", json.dumps(entry).encode()).status, 200)
        self.assertEqual(self.experts(layer), (text, used))


class KeptTest(ServerCase):
    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))

    def test_after_a_restart(self):
        with tempfile.TemporaryDirectory() as state:
            kept = os.path.join(state, "quarantine.json")
            options = {"models": self._directory.name, "state": state, "admin": "true"}
            with Server(**options) as server:
                with Client(server.port) as client:
                    answer = client.post(PATH, {"layer": "moe", "expert": 2, "reason": "dead"})
                    self.assertTrue(answer.json["kept"], answer.body)
                    (entry,) = answer.json["quarantine"]
                server.stop()
            with Server(**options) as server:
                with Client(server.port) as client:
                    layer = client.get("/v2/models/tiny/routing").json["layers"][0]
                    self.assertEqual(layer["quarantine"], [entry])
                    answer = client.predict("tiny", [[1, 2, 3, 4]], routing=True).json
                    self.assertNotIn(2, answer["routing"]["moe"]["experts"][0])
                server.stop()
            with open(kept, "w", encoding="utf-8") as file:
                file.write("{")
            with Server(**options) as server:
                self.assertIn("quarantine.json.damaged", server.log())
                with Client(server.port) as client:
                    self.assertEqual(client.get("/v2/models/tiny/routing").json["layers"][0]["quarantine"], [])
                server.stop()
            self.assertTrue(os.path.exists(kept + ".damaged"))

    def test_a_list_that_cannot_be_read(self):
        """Nobody knows which experts must not serve: no model does, until it can be read."""
        with tempfile.TemporaryDirectory() as state:
            kept = os.path.join(state, "quarantine.json")
            options = {"models": self._directory.name, "state": state, "admin": "true"}
            with Server(**options) as server:
                with Client(server.port) as client:
                    self.assertEqual(client.post(PATH, {"layer": "moe", "expert": 2}).status, 200)
                server.stop()
            with open(kept, encoding="utf-8") as file:
                newer = file.read().replace('"version":1,', '"version":2,', 1)
            os.rename(kept, kept + ".hidden")
            with socket.socket(socket.AF_UNIX) as there:  # cannot be opened, as where there is no descriptor left
                there.bind(kept)
            with Server(**options) as server, Client(server.port) as client:
                self.assertIn("it says which experts must not serve", server.log())
                self.assertEqual(client.predict("tiny", [[1, 2, 3, 4]]).status, 503)
                self.assertEqual(client.get("/v2/health/ready").status, 503)
                self.assertIn("quarantine.json: No such device", self.reason(client))
                os.rename(kept + ".hidden", kept)
                self.await_ready(client)
                answer = client.predict("tiny", [[1, 2, 3, 4]], routing=True).json
                self.assertNotIn(2, answer["routing"]["moe"]["experts"][0])
                self.assertNotIn("damaged", server.log())
                with Server(**options) as other, Client(other.port) as second:  # it may not write there, but read
                    answer = second.predict("tiny", [[1, 2, 3, 4]], routing=True).json
                    self.assertNotIn(2, answer["routing"]["moe"]["experts"][0])
                    other.stop()
                server.stop()
            with open(kept, "w", encoding="utf-8") as file:
                file.write(newer)
            with Server(**options) as server, Client(server.port) as client:
                self.assertIn("version 2, of a newer moed", self.reason(client))
                server.signal(signal.SIGHUP)
                os.remove(kept)
                self.await_ready(client)
                server.stop()

    @staticmethod
    def reason(client):
        return client.post("/v2/repository/index", b"").json[0]["reason"]

    def await_ready(self, client):
        deadline = time.monotonic() + 60
        while client.get("/v2/health/ready").status != 200:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def test_only_an_administrator(self):
        self.assertEqual(self.client.post(PATH, {"layer": "moe", "expert": 2}).status, 403)
        self.assertEqual(self.client.request("DELETE", PATH, b'{"layer":"moe","expert":2}').status, 403)
