"""Repeatedly starts the server under load and sends SIGTERM at a random moment: no accepted request may be lost.

    python3 tests/soak/drain.py [--rounds 50]

tests/integration/test_drain.py does one round of this; a race that loses one request in a thousand stops needs many.
"""

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from support.http import Connection
from support.load import REQUEST, ask_on_new_connections, ask_until_told_to_leave
from support.models import Tiny
from support.server import Server
from support.threads import Background

CLIENTS = 12
LONGEST_SECONDS = 0.5
DRAIN_TIMEOUT_MS = 4000


def one_round(models):
    """Returns how many requests were answered; an exception if one was lost or the server did not stop properly."""
    with Server(models, drain_timeout_ms=DRAIN_TIMEOUT_MS) as server, contextlib.ExitStack() as slow:
        for data in (b"", REQUEST[:10], REQUEST[:40], REQUEST[:-1]):  # an unfinished request is not lost
            slow.enter_context(Connection(server.port)).send(data)
        clients = (ask_until_told_to_leave, ask_on_new_connections)
        load = Background(CLIENTS, lambda number: clients[number % 2](server.port))
        time.sleep(random.uniform(0, LONGEST_SECONDS))
        server.signal()
        server.assert_clean(server.wait())
        return sum(load.join())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    lost, answered = 0, 0
    with tempfile.TemporaryDirectory() as models:
        Tiny().write(os.path.join(models, "tiny"))
        for number in range(rounds):
            try:
                answered += one_round(models)
            except Exception as failure:
                lost += 1
                print(f"round {number}: {type(failure).__name__}: {failure}", flush=True)
    print(f"{rounds} stops under load by {CLIENTS} clients, {answered} requests answered, {lost} rounds lost any")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
