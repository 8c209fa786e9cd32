"""Clients that keep a server busy until it stops, and tell what became of every request."""

import json

from support.http import Connection, request_bytes

REQUEST = request_bytes("POST", "/v1/models/tiny:predict", json.dumps({"instances": [[1, 2, 3, 4]] * 4}).encode())


def ask_until_told_to_leave(port):
    """Asks on one connection until an answer says that it closes. How many were answered; a request that was not is
    an exception."""
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
    """Asks once on each connection until there is nobody to connect to."""
    answered = 0
    while True:
        try:
            connection = Connection(port)
        except (ConnectionRefusedError, ConnectionResetError):
            # Reset: the port was closed between our greeting and its answer; nothing was asked yet.
            return answered
        with connection:
            connection.send(REQUEST)
            answer = connection.answer()
            assert answer.status == 200, answer.body
            answered += 1
