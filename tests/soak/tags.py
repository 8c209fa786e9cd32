"""Ten million distinct tags: statistics may not grow by them, and no row is lost.

    python3 tests/soak/tags.py [--tags 10000000]

Every request has a tag of its own, as from a client that sends its request ids as tags. Requests are pipelined over a few
connections, so that the server never waits for one; all but the first `max_tags` tags must count as `other`. Exit status 0: all
rows were counted, and the server did not grow by more than GROWTH_KB after the first tenth.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from support.http import Client
from support.models import Tiny
from support.server import Server

CONNECTIONS, HALF, MAX_TAGS = 4, 250, 16
GROWTH_KB = 2048
BODY = b'{"instances":[[1,2,3,4]]}'
HEAD = f"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(BODY)}\r\nMoed-Tag: ".encode()


def send_tags(port, tags, done, index):
    """Sends a request for each number of the range and counts the answers in done[index]: the next HALF while another HALF are on
    their way, so that the server never waits for the sender."""
    with socket.create_connection(("127.0.0.1", port), timeout=3600) as connection:
        sent, rest = 0, b""
        while done[index] < len(tags):
            while sent < len(tags) and sent - done[index] <= HALF:
                some = tags[sent:sent + HALF]
                connection.sendall(b"".join([b"%st%d\r\n\r\n%s" % (HEAD, tag, BODY) for tag in some]))
                sent += len(some)
            received = connection.recv(1 << 20)
            assert received, "the server has closed the connection"
            text = rest + received
            assert b"HTTP/1.1 4" not in text and b"HTTP/1.1 5" not in text, text[:300]
            done[index] += text.count(b"HTTP/1.1 200 OK\r\n")
            rest = text[-16:]


def watch(server, threads, done, total):
    """The resident memory after the first tenth, and the most after it, in KB."""
    early = most = 0
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        if sum(done) < total / 10:
            early = server.resident_kb()
        most = max(most, server.resident_kb())
    return early, most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=10_000_000)
    total, done, began = parser.parse_args().tags, [0] * CONNECTIONS, time.monotonic()
    with tempfile.TemporaryDirectory() as models:
        Tiny().write(os.path.join(models, "tiny"))
        with Server(models, log_level="error", max_tags=MAX_TAGS) as server:
            threads = [threading.Thread(target=send_tags, args=(server.port, range(i * total // CONNECTIONS, (i + 1) * total // CONNECTIONS), done, i))
                       for i in range(CONNECTIONS)]
            for thread in threads:
                thread.start()
            early, most = watch(server, threads, done, total)
            with Client(server.port) as client:
                document = json.loads(client.get("/v2/models/tiny/routing").body)
                other = json.loads(client.get("/v2/models/tiny/routing?tag=other").body)["rows"]
                series = client.get("/metrics").body.count(b"\nmoed_tag_rows_total{")
            server.stop()
    print(f"{total} tags in {time.monotonic() - began:.0f} s: {document['rows']} rows, {other} of other tags; {len(document['tags'])} tags in the "
          f"document, {series} series; {early} KB after a tenth, at most {most} KB")
    right = (document["rows"], other, len(document["tags"]), series) == (total, total - MAX_TAGS, MAX_TAGS + 1, MAX_TAGS + 2)
    return 0 if right and most - early <= GROWTH_KB else 1


if __name__ == "__main__":
    sys.exit(main())
