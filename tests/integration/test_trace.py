"""Traces as a collector of OpenTelemetry gets them."""

import http.server
import json
import os
import queue
import threading
import time
import unittest

from support.http import HOST
from support.models import Tiny
from support.prometheus import Metrics
from support.server import ServerCase

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROWS = [[1, 2, 3, 4]] * 3


class Collector(http.server.BaseHTTPRequestHandler):
    """Answers what it is told to, and keeps the spans that it gets."""

    protocol_version = "HTTP/1.1"
    spans, paths, status = queue.Queue(), set(), 200

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.paths.add((self.path, self.headers["content-type"]))
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        if self.status == 200:
            for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]:
                self.spans.put(span)

    def log_message(self, *_):
        pass


def attributes(span):
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


class TraceTest(ServerCase):
    collector = http.server.ThreadingHTTPServer((HOST, 0), Collector)
    options = {"trace_endpoint": f"http://{HOST}:{collector.server_port}", "trace_rate": 0, "admin": "true"}

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))

    @classmethod
    def setUpClass(cls):
        threading.Thread(target=cls.collector.serve_forever, daemon=True).start()
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        cls.collector.shutdown()
        cls.collector.server_close()
        super().tearDownClass()

    def trace(self, flags="01", **headers):
        return self.client.post("/v1/models/tiny:predict", {"instances": ROWS},
                                {"traceparent": f"00-{TRACE}-{PARENT}-{flags}", **headers})

    def lost(self):
        return Metrics(self.client.get("/metrics").body.decode()).sum("moed_trace_spans_lost_total")

    def spans(self, count):
        return [Collector.spans.get(timeout=30) for _ in range(count)]

    def test_a_request_that_is_traced(self):
        began = time.time_ns()
        self.assertEqual(self.trace("00").status, 200)
        self.assertEqual(self.client.get("/v2/health/live", {"traceparent": f"00-{TRACE}-{PARENT}-01"}).status, 200)
        self.assertEqual(self.trace(**{"X-Request-Id": "mine"}).status, 200)
        request = self.spans(1)[0]
        self.assertEqual((request["traceId"], request["parentSpanId"], request["name"], request["kind"]),
                         (TRACE, PARENT, "POST /v1/models/{model}:predict", 2))
        found = attributes(request)
        self.assertEqual({**found, "client.address": HOST},
                         {"http.request.method": "POST", "http.route": "/v1/models/{model}:predict", "url.path": "/v1/models/tiny:predict",
                          "http.response.status_code": "200", "client.address": HOST, "moed.request_id": "mine",
                          "moed.model": "tiny", "moed.version": found["moed.version"], "moed.rows": "3"})
        start, end = int(request["startTimeUnixNano"]), int(request["endTimeUnixNano"])
        self.assertTrue(began - 10**9 < start < end < time.time_ns() + 10**9)
        names = []
        while len(names) < 5 and "encode" not in names:
            span = self.spans(1)[0]
            self.assertEqual((span["traceId"], span["parentSpanId"], span["kind"]), (TRACE, request["spanId"], 1))
            names.append(span["name"])
        order = ["receive", "admit", "queue", "compute", "encode"]
        self.assertEqual(names, [name for name in order if name in names])
        self.assertLessEqual({"compute", "encode"}, set(names))
        self.assertEqual(Collector.paths, {("/v1/traces", "application/json")})

    def test_settings(self):
        settings = self.client.get("/v2/trace/setting").json
        self.assertEqual((settings["trace_level"], settings["trace_rate"]), (["OFF"], "0"))
        changed = self.client.post("/v2/trace/setting", {"trace_rate": "2"})
        self.assertEqual((changed.status, changed.json["trace_level"], changed.json["trace_rate"]),
                         (200, ["TIMESTAMPS"], "2"))
        for _ in range(4):
            self.assertEqual(self.client.predict("tiny", ROWS).status, 200)
        self.assertEqual(self.client.post("/v2/trace/setting", {"trace_level": ["OFF"]}).status, 200)
        requests = [span for span in self.spans(4) if span["kind"] == 2]
        deadline = time.monotonic() + 30
        while len(requests) < 2 and time.monotonic() < deadline:
            requests += [span for span in self.spans(1) if span["kind"] == 2]
        self.assertEqual(len({span["traceId"] for span in requests}), 2)
        time.sleep(0.1)
        while not Collector.spans.empty():
            self.assertEqual(Collector.spans.get()["kind"], 1)

    def test_what_a_collector_does_not_take_is_counted(self):
        lost = self.lost()
        Collector.status = 500
        self.addCleanup(setattr, Collector, "status", 200)
        self.assertEqual(self.trace().status, 200)
        deadline = time.monotonic() + 30
        while self.lost() < lost + 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(self.lost(), lost + 1)
        self.assertIn("it answered 'HTTP/1.1 500 Internal Server Error', expected status 200", self.server.log())


if __name__ == "__main__":
    unittest.main()
