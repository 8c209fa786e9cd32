"""Faults that clients bring."""

import json
import os
import resource
import socket
import struct
import time

import numpy as np

from support.http import HOST, Closed, Connection, request_bytes
from support.prometheus import Metrics

from clients import infer_bytes
from site_of_fault import WIDTH, try_fault

PREDICT = "/v1/models/tiny:predict"
BODY = b'{"instances": [[1, 2, 3, 4]]}'
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
SECONDS = 3


def trickle(site, start, count=40):
    """Connections that send `start`, then a byte now and then, until the server has had enough of them."""
    connections = [Connection(site.port) for _ in range(count)]
    for connection in connections:
        connection.send(start)
    end, alive = time.monotonic() + SECONDS + 3, connections
    while alive and time.monotonic() < end:
        time.sleep(0.1)
        for connection in alive:
            try:
                connection.send(b"x")
            except OSError:
                pass
        alive = [connection for connection in alive if not connection.is_closed() and not readable(connection)]
    for connection in connections:
        connection.close()
    return f"{count} connections, a byte each 0.1 s", f"{len(alive)} are still open" if alive else ""


def readable(connection):
    connection.socket.setblocking(False)
    try:
        return bool(connection.socket.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
    finally:
        connection.socket.setblocking(True)


def slow_header(site):
    return trickle(site, b"GET /v2/health/live HTTP/1.1\r\nX-Slow: ")


def slow_body(site):
    return trickle(site, f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode() + BODY)


def slow_reader(site):
    data = infer_bytes("wide", 16, WIDTH).replace(b'"binary_data_output": true', b'"binary_data_output":false')
    connections = [Connection(site.port, receive_buffer=4096) for _ in range(20)]
    for connection in connections:
        connection.send(data)
    time.sleep(SECONDS)
    for connection in connections:
        connection.close()
    return "20 clients ask for 16 rows of 1664 numbers in JSON and read nothing"


def half_open(site):
    connections = [Connection(site.port) for _ in range(300)]
    for i, connection in enumerate(connections):
        connection.send((b"", b"POST ", LIVE[:-2], LIVE)[i % 4])
        connection.socket.shutdown(socket.SHUT_WR)
    answered = sum(b"200" in connection.socket.recv(64) for connection in connections[3::4])
    for connection in connections:
        connection.close()
    return "300 clients stop sending after nothing, some or all of a request", "" if answered == 75 else f"{answered} of 75 whole ones answered"


def reset_storm(site):
    data = request_bytes("POST", PREDICT, BODY)
    for i in range(3000):
        connection = Connection(site.port)
        connection.send(data[:i % (len(data) + 1)])
        connection.reset()
    return "3,000 connections reset after 0 to all bytes of a request"


def idle(site):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before, sockets = site.resident_mb(), []
    for _ in range(count):
        client = socket.socket()
        client.connect((HOST, site.port))
        sockets.append(client)
    deadline = time.monotonic() + 30
    with Connection(site.port) as connection:
        while (open_now := open_connections(connection)) < count and time.monotonic() < deadline:
            time.sleep(0.1)
    each = (site.resident_mb() - before) * 1024 / count
    for client in sockets:
        client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return f"{count} idle connections, {each:.1f} KB each", "" if open_now >= count else f"only {open_now} are open"


def open_connections(connection):
    return Metrics(connection.request("GET", "/metrics").body.decode()).sum("moed_connections")


def descriptors(site):
    """As few as are open now, and some: accept() fails."""
    used = len(os.listdir(f"/proc/{site.pid}/fd"))
    hard = resource.prlimit(site.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (used + 10, hard[1]))
    cpu = site.cpu_seconds()
    sockets = [socket.create_connection((HOST, site.port)) for _ in range(100)]
    time.sleep(SECONDS)
    burnt = site.cpu_seconds() - cpu
    for client in sockets:
        client.close()
    resource.prlimit(site.pid, resource.RLIMIT_NOFILE, hard)
    return f"100 connections where 10 can be had, for {SECONDS} s; {burnt:.1f} s of CPU", "" if burnt < SECONDS / 2 + 0.5 else "it spins"


SMUGGLED = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    b"Content-Length: +5\r\n\r\nabcde", b"Content-Length: 0x5\r\n\r\nabcde", b"Content-Length: 5, 5\r\n\r\nabcde",
    b"Content-Length : 5\r\n\r\nabcde", b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0;\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1\r\naX0\r\n\r\n", b"X: a\r\n b\r\n\r\n", b"X: a\nY: b\r\n\r\n",
    b"X\0: a\r\n\r\n", b": a\r\n\r\n", b"Host: y\r\n\r\n",
]


def smuggling(site):
    two = []
    for fields in SMUGGLED:
        with Connection(site.port, timeout=10) as connection:
            connection.send(b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: x\r\n" + fields + LIVE)
            statuses = []
            try:
                while True:
                    statuses.append(connection.answer("POST").status)
            except (Closed, OSError):
                pass
        if len(statuses) != 1 or statuses[0] < 400:
            two.append((fields, statuses))
    return f"{len(SMUGGLED)} requests with two readings, each with another behind it", str(two) if two else ""


ODD = [b"", b"{", b"[]", b"null", b'{"instances"', b'{"instances": [[1,2,3,4]]}}', b"\xef\xbb\xbf" + BODY, b'{"instances": [[1,2,3,4]],"instances": [[1,2,3,4]]}',
       b'{"instances": [[1,2,3,NaN]]}', b'{"instances": [[1,2,3,1e999]]}', b'{"instances": [[1,2,3,-]]}', b'{"instances": [[1,2,3,0x4]]}',
       b'{"instances": [[1,2,3,01]]}', b'{"instances": [[1,2,3,4.]]}', b'{"instances": [[1,2,3,"4"]]}', b'{"instances": [[1,2,3,true]]}',
       b'{"instances": [[1,2,3]]}', b'{"instances": [[1,2,3,4,5]]}', b'{"instances": []}', b'{"instances": {}}', b'{"instances": [[1,2,3,4],]}',
       b'{"instances": ' + b"[" * 100000 + b"]" * 100000 + b"}", b'{"instances": [[1,2,3,' + b"9" * 400000 + b"]]}", b'{"\\ud800": 1}', b'{"a\\u0000b": 1}',
       b'{"\xff": 1}', b"[" * 100000, b"\0" * 1000, b'{"instances": [[1,2,3,4]] \0}']


def oddities(site):
    wrong = []
    with Connection(site.port, timeout=30) as connection:
        for body in ODD:
            answer = connection.request("POST", PREDICT, body)
            if answer.status != 400 or list(json.loads(answer.body)) != ["error"]:
                wrong.append((body[:40], answer.status))
            if answer.closes:
                connection.close()
                connection.__init__(site.port, timeout=30)
    return f"{len(ODD)} bodies that are no request", str(wrong) if wrong else ""


def not_numbers(site):
    """Rows of NaN, infinities, denormals and the largest numbers, computed in the same batches as the good ones."""
    values = [np.nan, np.inf, -np.inf, 1e-42, -1e-45, 3.4e38, -3.4e38, 0.0]
    head_and_rows = infer_bytes("wide", 8, WIDTH)
    size = 8 * WIDTH * 4
    data = head_and_rows[:-size] + b"".join(struct.pack("<f", value) * WIDTH for value in values)
    wrong, end, sent = "", time.monotonic() + SECONDS, 0
    connections = [Connection(site.port) for _ in range(4)]
    while time.monotonic() < end:
        for connection in connections:
            connection.send(data)
        for connection in connections:
            answer = connection.answer("POST")
            sent += 1
            if answer.status != 200:
                wrong = f"{answer.status} {answer.body[:100]!r}"
    for connection in connections:
        connection.close()
    return f"{sent} requests of 8 such rows beside good ones", wrong


def faults(models):
    """(name, function that gives a Row)"""
    def fault(name, function, **options):
        return name, lambda: try_fault(function, models, **options)

    short = {"request_timeout_ms": 1500}
    yield fault("slow header", slow_header, **short)
    yield fault("slow body", slow_body, **short)
    yield fault("slow reader", slow_reader)
    yield fault("half-open", half_open)
    yield fault("reset storm", reset_storm)
    yield fault("idle connections", idle, grows_mb=1000, max_connections=12000)
    yield fault("descriptors exhausted", descriptors, gives_way=True)  # the longest idle connection, to a new one
    yield fault("smuggling", smuggling)
    yield fault("JSON oddities", oddities)
    yield fault("NaN, infinities, denormals", not_numbers)
