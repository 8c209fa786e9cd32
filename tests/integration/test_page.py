"""The dashboard as bytes, and the event stream behind it. tests/dashboard opens it in a browser."""

import json
import os
import re
import shutil
import subprocess
import time
import unittest

from support.http import Closed, Connection, request_bytes
from support.server import ServerCase


class PageTest(ServerCase):
    def get(self, path, accept="text/html,application/xhtml+xml"):
        return self.client.get(path, {"Accept": accept})

    def test_browsers_get_the_page_and_probes_what_they_expect(self):
        page = self.get("/")
        self.assertEqual((page.status, page.headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(b"<title>moed</title>", page.body)
        self.assertEqual(self.get("/", "*/*").json, {"status": "alive"})

    def test_everything_it_loads_is_there_and_from_here(self):
        page = self.get("/").body.decode()
        found = set(re.findall(r'(?:src|href)="([^"#]+)"', page)) - {"data:,"}
        self.assertTrue(found)
        while found:
            path = found.pop()
            self.assertTrue(path.startswith("/ui/"), path)
            asset = self.get(path, "*/*")
            self.assertEqual(asset.status, 200, path)
            self.assertNotIn(b"http://", asset.body.replace(b"http://www.w3.org/2000/svg", b""))
            if path.endswith(".js"):
                found |= set(re.findall(r'from "([^"]+)"', asset.body.decode()))
        self.assertEqual(self.get("/ui/none.js").status, 404)

    @unittest.skipUnless(shutil.which("node"), "there is no node")
    def test_what_can_be_tried_is_seen_without_scrolling(self):
        page = self.get("/").body.decode()
        self.assertLess(page.index('id="tryit"'), page.index('id="routing"'))

    def test_an_address_and_a_token_may_be_anything(self):
        asset = self.get("/ui/given.js", "*/*").body.decode()
        script = asset + r"""
            const hashes = ["", "#", "#mnist", "#a%2Fb", "#%", "#%zz", "#%E0%A4", "#constructor"];
            const tokens = ["", "moed_x", "a b", "a\n", "\u2013", "\u00e9", "\u{1F600}"];
            console.log(JSON.stringify([hashes.map(modelIn), tokens.map(isToken)]));"""
        done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
        self.assertEqual(json.loads(done.stdout), [["", "", "mnist", "a/b", "%", "%zz", "%E0%A4", "constructor"],
                                                   [False, True, False, False, False, False, False]])
        self.assertNotIn(b"decodeURIComponent", self.get("/ui/app.js", "*/*").body)

    @unittest.skipUnless(shutil.which("node"), "there is no node")
    def test_not_every_number_below_one_is_a_probability(self):
        script = self.get("/ui/charts.js", "*/*").body.decode() + r"""
            const cases = [[[0.25, 0.75], false], [[0.9, 0.8], true], [[0.9, 0.8], false], [[0.7], false], [[0.7], true],
                           [[0, 0, 0], true], [[-0.1, 1.1], true], [[NaN, 0.5], true]];
            console.log(JSON.stringify(cases.map(([values, labelled]) => areProbabilities(values, labelled))));"""
        done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
        self.assertEqual(json.loads(done.stdout), [True, True, False, False, True, False, False, False])

    def test_policy(self):
        for path in ("/", "/ui/app.js"):
            headers = self.get(path).headers
            self.assertIn("default-src 'none'", headers["content-security-policy"])
            self.assertNotIn("unsafe", headers["content-security-policy"])
            self.assertEqual(headers["x-content-type-options"], "nosniff")


class OtherOriginTest(ServerCase):
    options = {"cors_origin": "https://a.example"}

    def test_the_page_has_room_for_every_header(self):
        answer = self.client.get("/", {"Accept": "text/html", "Origin": "https://a.example", "X-Request-Id": "7"})
        self.assertEqual((answer.status, answer.headers["x-request-id"]), (200, "7"))
        self.assertEqual(answer.headers["access-control-allow-origin"], "https://a.example")
        self.assertIn("default-src", answer.headers["content-security-policy"])


class Stream:
    """Events of GET .../routing/live."""

    def __init__(self, port, path):
        self.connection = Connection(port)
        self.connection.send(request_bytes("GET", path))
        self.bytes = b""

    def event(self):
        while b"\n\n" not in self.bytes.partition(b"data: ")[2]:
            received = self.connection.socket.recv(65536)
            if not received:
                raise EOFError(self.bytes)
            self.bytes += received
        text, _, self.bytes = self.bytes.partition(b"data: ")[2].partition(b"\n\n")
        return json.loads(text)


class LiveTest(ServerCase):
    MODEL = "clusters"

    def stream(self, query=""):
        stream = Stream(self.server.port, f"/v2/models/{self.MODEL}/routing/live{query}")
        self.addCleanup(stream.connection.close)
        return stream

    def test_it_says_what_the_document_says(self):
        event = self.stream("?window=all").event()
        [layer] = self.client.get(f"/v2/models/{self.MODEL}/routing").json["layers"]
        [live] = event["layers"]
        self.assertEqual((live["name"], live["top_k"], len(live["share"])), (layer["name"], layer["top_k"], len(layer["experts"])))
        self.assertEqual((event["window"], event["layers_left_out"]), ("all", 0))

    def test_rows_appear_while_it_is_open(self):
        stream = self.stream()
        before = stream.event()["rows"]
        shape = self.client.get(f"/v2/models/{self.MODEL}").json["inputs"][0]["shape"]
        size = 1
        for axis in shape[1:]:
            size *= axis
        self.assertEqual(self.client.predict(self.MODEL, [[0.5] * size] * 3).status, 200)
        for _ in range(60):
            event = stream.event()
            if event["rows"] > before:
                break
        self.assertEqual(event["rows"], before + 3)
        self.assertAlmostEqual(sum(event["layers"][0]["share"]), 1, places=3)

    def test_wrong_window(self):
        self.assert_error(self.client.get(f"/v2/models/{self.MODEL}/routing/live?window=2m"), 400, "1m, 5m, 1h or all")

    def test_head_has_no_body(self):
        """Also none of chunks, whose end a client would take for the beginning of the next answer."""
        with Connection(self.server.port) as connection:
            answer = connection.request("HEAD", f"/v2/models/{self.MODEL}/routing/live")
            self.assertEqual((answer.status, answer.headers["content-type"]), (200, "text/event-stream"))
            self.assertEqual(answer.headers.get("connection"), "close")
            with self.assertRaises(Closed) as caught:
                connection.answer()
            self.assertEqual(caught.exception.received, b"")

    def test_who_stops_watching_is_no_failure(self):
        server = self.start(log_slow_ms=1, log_level="info")
        self.addCleanup(server.stop)
        stream = Stream(server.port, f"/v2/models/{self.MODEL}/routing/live")
        stream.event()
        stream.connection.close()
        deadline = time.monotonic() + 60
        while not (line := re.search(r".* event=request .*/routing/live .*", server.log())) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertRegex(line[0], r"level=info .* status=200 ")
        self.assertNotRegex(line[0], "slow=|error=")

    def test_a_stop_ends_it(self):
        server = self.start()
        stream = Stream(server.port, f"/v2/models/{self.MODEL}/routing/live")
        stream.event()
        server.stop()
        stream.connection.close()

    def test_a_short_drain_does_not_wait_for_who_only_watches(self):
        server = self.start(drain_timeout_ms=500)
        streams = [Stream(server.port, f"/v2/models/{self.MODEL}/routing/live") for _ in range(3)]
        for stream in streams:
            stream.event()
        server.stop()
        for stream in streams:
            stream.connection.close()

    def test_streams_are_bounded(self):
        """64 for each loop."""
        server = self.start()
        self.addCleanup(server.stop)
        most = 64 * int(os.environ.get("MOED_TEST_LOOPS") or 1)
        path = f"/v2/models/{self.MODEL}/routing/live"
        streams = [Stream(server.port, path) for _ in range(most + 1)]
        self.assertIn(b"HTTP/1.1 429", [stream.connection.socket.recv(12) for stream in streams])
        for stream in streams:
            stream.connection.close()
        deadline = time.monotonic() + 60
        while True:
            self.assertLess(time.monotonic(), deadline, "closed streams keep their places")
            with Connection(server.port) as connection:
                connection.send(request_bytes("GET", path))
                if connection.socket.recv(12) == b"HTTP/1.1 200":
                    break


if __name__ == "__main__":
    unittest.main()
