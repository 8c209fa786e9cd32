"""Which rows are counted, and for whom: tags, what is left out, recordings; and what a query may ask."""

import json
import unittest

import numpy as np

from support.http import Connection, request_bytes
from support.prometheus import Metrics
from support.routing import RoutingCase


class RecorderTest(RoutingCase):
    """SGLang's three routes: what they answer is read as SGLang does, torch.tensor(record["logical_count"])."""

    def ask(self, what, query="", method="POST"):
        path = f"/{what}_expert_distribution_record{query}"
        return self.client.get(path) if method == "GET" else self.client.post(path, b"")

    def counts(self):
        answer = self.ask("dump", "?model=tiny")
        self.assertEqual((answer.status, list(answer.json)), (200, ["logical_count"]), answer.body)
        counts = np.array(answer.json["logical_count"])
        self.assertEqual((counts.shape, counts.dtype), ((1, 3), np.int64))
        return counts[0].tolist()

    def send(self, rows, **members):
        answer = self.client.predict("tiny", rows.tolist(), routing=True, **members).json
        return np.bincount(np.array(answer["routing"]["moe"]["experts"]).ravel(), minlength=3).tolist()

    def test_a_recording(self):
        rows = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)
        self.send(rows)
        for method in ("GET", "POST"):
            self.assertEqual(self.ask("start", method=method).body, b"Start recording the expert distribution.\n")
        first, second = self.send(rows[:10]), self.send(rows[10:15], tag="a")
        self.assertEqual(self.counts(), np.add(first, second).tolist())
        third = self.send(rows[15:])  # a dump begins anew
        self.assertEqual(self.ask("stop").body, b"Stop recording the expert distribution.\n")
        self.send(rows)
        self.assertEqual(self.counts(), third)
        answer = self.ask("dump", "?model=tiny")
        self.assertEqual(answer.status, 400)
        self.assertIn("nothing of 'tiny' is recorded: begin with /start_expert", answer.json["error"])

    def test_what_is_no_matrix(self):
        self.ask("start")
        for query, status, message in (("", 400, "models are served: name one, as in ?model="),
                                       ("?model=two-layers", 400, "layer 'first' has 4 experts and 'second' 5"),
                                       ("?model=none", 404, "none"),
                                       ("?window=1m", 400, "unknown query parameter 'window', expected model")):
            answer = self.ask("dump", query, "GET")
            self.assertEqual(answer.status, status, answer.body)
            self.assertIn(message, answer.json["error"])


class TagTest(RoutingCase):
    options = {"max_tags": 2}
    row = [[1, 2, 3, 4]]

    def rows_of(self, tag):
        return self.get(f"/v2/models/tiny/routing?tag={tag}")["rows"]

    def test_header_and_body(self):
        request = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        for status, answer in (
                (200, self.client.predict("tiny", self.row)),
                (200, self.client.predict("tiny", self.row * 2, tag="a")),
                (200, self.client.infer("tiny", {**request, "parameters": {"tag": "a"}})),
                (200, self.client.post("/v1/models/tiny:predict", {"instances": self.row}, {"Moed-Tag": "b-1"})),
                (200, self.client.post("/v1/models/tiny:predict", {"instances": self.row, "tag": "a"},
                                       {"Moed-Tag": "b-1"})),
                (400, self.client.predict("tiny", self.row, tag="")),
                (400, self.client.predict("tiny", self.row, tag=7)),
                (400, self.client.infer("tiny", {**request, "parameters": {"tag": "a b"}})),
                (400, self.client.post("/v1/models/tiny:predict", {"instances": self.row}, {"Moed-Tag": "x" * 65}))):
            self.assertEqual(answer.status, status, answer.body)
        self.assertEqual((self.rows_of("a"), self.rows_of("b-1")), (4, 1))
        document = self.get("/v2/models/tiny/routing")
        self.assertEqual((document["rows"], document["tags"]), (6, ["a", "b-1"]))
        self.assertEqual(document["layers"][0]["rows"], 6)
        page = Metrics(self.client.get("/metrics").body.decode())
        for tag, rows in (("", 1), ("a", 4), ("b-1", 1), ("other", 0)):
            self.assertEqual(page.value("moed_tag_rows_total", model="tiny", version="10", tag=tag), rows)
        self.assertEqual(page.value("moed_layer_rows_total", model="tiny", version="10", layer="moe"), 6)

    def test_many_tags_are_one(self):
        for i in range(300):
            self.client.post("/v1/models/tiny:predict", {"instances": self.row}, {"Moed-Tag": f"tag{i}"})
        document = self.get("/v2/models/tiny/routing")
        self.assertEqual((document["rows"], document["tags"]), (300, ["tag0", "tag1", "other"]))
        self.assertEqual((self.rows_of("tag0"), self.rows_of("other")), (1, 298))
        answer = self.client.get("/v2/models/tiny/routing?tag=tag2")
        self.assertEqual((answer.status, answer.json["error"]), (400, "tag is 'tag2', and no request with it was counted"))

    def test_what_is_refused_takes_no_place(self):
        for i in range(5):
            tagged = {"Moed-Tag": f"bad{i}"}
            self.assertEqual(self.client.post("/v1/models/tiny:predict", {"instances": [[1, 2, 3]]}, tagged).status, 400)
            self.assertEqual(self.client.post("/v1/models/tiny:predict", b'{"instances": [[1,2,3,x]]}', tagged).status, 400)
        self.client.predict("tiny", self.row, tag="good")
        self.assertEqual(self.get("/v2/models/tiny/routing")["tags"], ["good"])

    def test_rows_of_one_batch_count_apart(self):
        """Requests of three kinds, sent together."""
        kinds = [{"Moed-Tag": "a"}, {"Moed-Statistics": "off"}, {}]
        with Connection(self.server.port) as connection:
            body = json.dumps({"instances": self.row * 3}).encode()
            connection.send(b"".join(request_bytes("POST", "/v1/models/tiny:predict", body, kinds[i % 3])
                                     for i in range(60)))
            for _ in range(60):
                self.assertEqual(connection.answer().status, 200)
        self.assertEqual((self.get("/v2/models/tiny/routing")["rows"], self.rows_of("a")), (120, 60))

    def test_off(self):
        def ask(word):
            return self.client.post("/v1/models/tiny:predict", {"instances": self.row, "tag": "a"},
                                    {"Moed-Statistics": word})
        self.assertEqual([ask(word).status for word in ("off", "OFF", "on", "no")], [200, 200, 200, 400])
        document = self.get("/v2/models/tiny/routing")
        self.assertEqual((document["rows"], document["tags"], document["layers"][0]["rows"]), (1, ["a"], 1))
        page = Metrics(self.client.get("/metrics").body.decode())
        self.assertEqual(page.value("moed_rows_total", model="tiny", version="10"), 3)

    def test_looking_changes_nothing(self):
        """Counted or not, under a tag or not, looked at or not: the same bytes."""
        rows = np.random.default_rng(3).normal(size=(20, 6)).tolist()
        body = json.dumps({"instances": rows, "routing": True}).encode()
        answers = set()
        for headers in ({}, {"Moed-Statistics": "off"}, {"Moed-Tag": "a"}, {}):
            answers.add(self.client.post("/v1/models/two-layers:predict", body, headers).body)
            self.get("/v2/models/two-layers/routing?window=1m")
        self.assertEqual(len(answers), 1)


class QueryTest(RoutingCase):
    def test_one_layer(self):
        (layer,) = self.get("/v2/models/two-layers/routing?layer=second")["layers"]
        self.assertEqual((layer["name"], len(layer["experts"])), ("second", 5))

    def test_what_does_not_exist(self):
        for query, message in (("window=2m", "window is '2m', expected 1m, 5m, 1h or all"),
                               ("window=", "window is '', expected 1m, 5m, 1h or all"),
                               ("window=" + "1" * 100, "window"),
                               ("window=%zz", "window"),
                               ("include=ranks,rank", "include has 'rank', expected ranks, pairs, lifts, "),
                               ("include=,", "include has ','"),
                               ("tag=nobody", "tag is 'nobody', and no request with it was counted"),
                               ("layer=third", "layer is 'third', and no gate of the model is called so"),
                               ("window=1m&windows=5m", "unknown query parameter 'windows', expected window, layer, "
                                                        "tag or include"),
                               ("window=1m&window=5m", "query parameter window is given twice"),
                               ("window&window", "query parameter window is given twice"),
                               ("=1", "unknown query parameter ''")):
            answer = self.client.get(f"/v2/models/two-layers/routing?{query}")
            self.assertEqual(answer.status, 400, answer.body)
            self.assertIn(message, answer.json["error"])
        answer = self.client.get("/v2/models/two-layers/routing/live?tag=a")
        self.assertEqual((answer.status, answer.json["error"]), (400, "unknown query parameter 'tag', expected window"))
        answer = self.client.post("/v2/models/two-layers/routing/reset?tag=a", b"")
        self.assertEqual((answer.status, answer.json["error"]), (400, "unknown query parameter 'tag', expected none"))
        self.get("/v2/models/two-layers/routing?&window=1m&")


if __name__ == "__main__":
    unittest.main()
