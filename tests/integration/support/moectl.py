"""Running moectl, which is built beside the server under test unless MOECTL_BINARY names another."""

import os
import subprocess
import unittest

from support.server import BINARY, SANITIZER_WORDS, environment

MOECTL = os.path.abspath(os.environ.get("MOECTL_BINARY", os.path.join(os.path.dirname(BINARY), "moectl")))
SECONDS = 120


def needs_moectl(case):
    """The C client is not built everywhere."""
    return unittest.skipUnless(os.path.exists(MOECTL), f"{MOECTL} is not there")(case)


def moectl_environment(url=None, **extra):
    return environment({"NO_PROXY": "*", "LC_ALL": "C.UTF-8", **({"MOED_URL": url} if url else {}), **extra})


def moectl(*arguments, url=None, input=None, env=None):
    """The CompletedProcess, with text in stdout and stderr; a sanitizer's word is an error."""
    done = subprocess.run([MOECTL, *map(str, arguments)], env=moectl_environment(url, **(env or {})),
                          input=input, capture_output=True, text=not isinstance(input, bytes), timeout=SECONDS,
                          check=False)
    errors = done.stderr if isinstance(done.stderr, str) else done.stderr.decode()
    if SANITIZER_WORDS.search(errors):
        raise AssertionError(errors)
    return done
