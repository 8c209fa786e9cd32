"""The C engine as a judge: `moed` checks a checkpoint as a server does, and answers rows of it over HTTP."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from typing import Dict, Optional

import numpy as np

from moed.client import Client

# A whole line: the reason why a model is refused may hold the words.
LISTENING = re.compile(r"^listening on (http://\S+)\n", re.M)
START_SECONDS = 120


class EngineError(Exception):
    """What the engine said when it refused a checkpoint or could not run."""


def find() -> Optional[str]:
    """The program: $MOED_BINARY (empty: none), the PATH's, or the build of the checkout this package is in."""
    named = os.environ.get("MOED_BINARY")
    if named is not None:
        return named or None
    checkout = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../build/release/moed")
    return shutil.which("moed") or (os.path.normpath(checkout) if os.access(checkout, os.X_OK) else None)


def _environment() -> Dict[str, str]:
    """This process's, without options of servers."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MOED_")}


def inspect(binary: str, directory: str) -> None:
    """Raises EngineError with the server's words if it would refuse the checkpoint."""
    try:
        done = subprocess.run([binary, "inspect", "--check", directory], capture_output=True, text=True,
                              timeout=START_SECONDS, env=_environment())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{binary} inspect: {error}") from None
    if done.returncode != 0:
        raise EngineError(done.stderr.strip().replace(f"{directory}/", "").replace(f"{directory}: ", ""))


class Engine:
    """A server of one model repository, on a free port of this machine, while the `with` block lasts."""

    def __init__(self, binary: str, models: str):
        self.models = models
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [binary, "serve", "--models", models, "--port", "0", "--threads", "1", "--queue-timeout-ms", "60000"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log,
            env=_environment())
        try:
            self.client = Client(self._address(), timeout=START_SECONDS)
        except BaseException:
            self.close()
            raise

    def _address(self) -> str:
        until = time.monotonic() + START_SECONDS
        while True:
            ended = self._process.poll() is not None
            self._log.seek(0)
            said = self._log.read()
            found = LISTENING.search(said)
            if found:
                return found.group(1)
            if ended or time.monotonic() > until:
                raise EngineError("the server did not start: " + " ".join(said.splitlines()[-3:]))
            time.sleep(0.01)

    def answers(self, model: str, rows: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Every output, routing included, for rows by input name."""
        names = [output["name"] for output in self.client.metadata(model)["outputs"]]
        return self.client.infer(model, rows, outputs=names)

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
