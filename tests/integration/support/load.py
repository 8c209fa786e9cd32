"""Clients that keep a server busy until it stops, and report the outcome of every request."""

import json

from support.http import Connection, request_bytes

REQUEST = request_bytes("POST", "/v1/models/tiny:predict", json.dumps({"instances": [[1, 2, 3, 4]] * 4}).encode())


def ask_until_told_to_leave(port):
    """Sends requests on one connection until an answer closes it. Returns how many were answered; a lost one is an
    exception."""
    with Connection(port) as connection:
        answered = 0
        while True:
            connection.send(REQUEST)
            answer = connection.answer()
            assert answer.status == 200, answer.body
            answered += 1
            if answer.closes:
                return answered


def ask_on_new_connections(port):
    """Sends one request on each connection until nobody accepts any more."""
    answered = 0
    while True:
        try:
            connection = Connection(port)
        except (ConnectionRefusedError, ConnectionResetError):
            # Reset: the port was closed during the handshake, before any request was sent.
            return answered
        with connection:
            connection.send(REQUEST)
            answer = connection.answer()
            assert answer.status == 200, answer.body
            answered += 1
