"""Compressed bodies, both ways."""

import gzip
import json
import os
import zlib

from support.models import Tiny
from support.server import ServerCase

BODY = json.dumps({"instances": [[1, 2, 3, 4]] * 3}).encode()
LIMIT = 1 << 20


def raw_deflate(body):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


class CodingTest(ServerCase):
    options = {"threads": 1, "max-body-bytes": LIMIT}

    @staticmethod
    def models(directory):
        Tiny(seed=1).write(os.path.join(directory, "tiny"))

    def predict(self, body, coding=None, **headers):
        headers = {"Content-Encoding": coding, **headers} if coding else headers
        return self.client.post("/v1/models/tiny:predict", body, headers=headers)

    def test_requests(self):
        plain = self.predict(BODY)
        self.assertEqual(plain.status, 200, plain.body)
        for coding, body in (("gzip", gzip.compress(BODY)), ("x-gzip", gzip.compress(BODY)), ("GZIP", gzip.compress(BODY)),
                             ("deflate", zlib.compress(BODY)), ("deflate", raw_deflate(BODY)), ("identity", BODY)):
            with self.subTest(coding):
                answer = self.predict(body, coding)
                self.assertEqual((answer.status, answer.body), (200, plain.body))

    def test_what_is_refused(self):
        packed = gzip.compress(BODY)
        for coding, body, status, message in (
                ("br", BODY, 415, "Content-Encoding 'br' is not supported, expected gzip, deflate or none"),
                ("gzip, gzip", packed, 415, "is not supported"),
                ("gzip", BODY, 400, "the compressed body is damaged, or no such format"),
                ("gzip", packed[:-1], 400, "the compressed body ends too early"),
                ("gzip", packed[:20], 400, "the compressed body ends too early"),
                ("gzip", b"", 400, "the compressed body ends too early"),
                ("gzip", packed + b"x", 400, "the compressed body is followed by other bytes"),
                ("gzip", packed[:-8] + bytes(8), 400, "the compressed body is damaged"),
                ("gzip", gzip.compress(b"{"), 400, "malformed JSON")):
            with self.subTest(coding, message=message):
                answer = self.predict(body, coding)
                self.assertEqual(answer.status, status, answer.body)
                self.assertIn(message, answer.json["error"])

    def test_the_limit_is_that_of_plain_bodies(self):
        for size, status in ((LIMIT, 200), (LIMIT + 1, 413), (200 << 20, 413)):
            with self.subTest(size):
                body = BODY.replace(b"]]}", b" " * (size - len(BODY)) + b"]]}")
                answer = self.predict(gzip.compress(body, 1), "gzip")
                self.assertEqual(answer.status, status, answer.body)
        self.assertIn(f"stands for more than {LIMIT} bytes", answer.json["error"])

    def test_answers(self):
        rows = json.dumps({"instances": [[0.1, 0.2, 0.3, 0.4]] * 200}).encode()
        plain = self.predict(rows)
        self.assertEqual(plain.headers["vary"], "Accept-Encoding")
        for accepted in ("gzip", "deflate, gzip;q=0.5", "br , GZIP"):
            answer = self.predict(rows, **{"Accept-Encoding": accepted})
            self.assertEqual(answer.headers["content-encoding"], "gzip")
            self.assertEqual(gzip.decompress(answer.body), plain.body)
        for accepted in ("br", "gzip;q=0", "gzip; q=0.00", "gzippy", ""):
            answer = self.predict(rows, **{"Accept-Encoding": accepted})
            self.assertNotIn("content-encoding", answer.headers)
            self.assertEqual(answer.body, plain.body)

    def test_small_answers_are_left_alone(self):
        answer = self.predict(BODY, **{"Accept-Encoding": "gzip"})
        self.assertNotIn("content-encoding", answer.headers)

    def test_documents_and_head(self):
        answer = self.client.get("/metrics", headers={"Accept-Encoding": "gzip"})
        self.assertIn(b"moed_", gzip.decompress(answer.body))
        head = self.client.request("HEAD", "/openapi.json", headers={"Accept-Encoding": "gzip"})
        full = self.client.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
        self.assertEqual(head.headers["content-length"], full.headers["content-length"])
