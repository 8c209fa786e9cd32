"""A moed server of its own on a free port, and its requests. Python's standard library only."""

import http.client
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

MODEL = "fashion-mnist"
IMAGE_BYTES = 784
START_SECONDS = 60


class Failed(Exception):
    """The message is for the person at the terminal."""


def run(name, main):
    """Ends the program with main()'s status, and without a traceback for who reads no more, as `head`, or has enough.

    However it ends, it leaves no server behind.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        status = main()
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Failed as failed:
        sys.exit(f"{name}: {failed}")
    except KeyboardInterrupt:
        sys.exit(130)


class Server:
    """Serves a copy of a shipped model below `directory`, which may be changed and loaded again."""

    def __init__(self, binary, source, directory):
        if not os.access(binary, os.X_OK):
            raise Failed(f"{binary} is missing: build the server first, or name it with --moed")
        self.name = os.path.basename(source)
        self.model = os.path.join(directory, "models", self.name)
        shutil.copytree(source, self.model)
        self.path = os.path.join(directory, "log")
        settings = {name: value for name, value in os.environ.items() if not name.startswith("MOED_")}
        with open(self.path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([binary, "serve", "--models", os.path.dirname(self.model), "--port", "0",
                                             "--admin", "true"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=settings)
        try:
            self.url = self._wait(r"^listening on (http://\S+)$")[0]
        except BaseException:
            self.stop()
            raise

    def _log(self):
        with open(self.path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def _wait(self, pattern, count=1):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.findall(pattern, self._log(), re.M)
            if len(found) >= count:
                return found
            time.sleep(0.02)
        raise Failed(f"the server did not come up:\n{self._log()[-2000:]}")

    def replace(self, changes):
        """Loads the model again with other numbers, {tensor: function of its list}, by renaming a new file into place.
        """
        path = os.path.join(self.model, "model.safetensors")
        with open(path, "rb") as file:
            content = bytearray(file.read())
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8:8 + length])
        for name, change in changes.items():
            if header[name]["dtype"] != "F16":
                raise Failed(f"{name} is {header[name]['dtype']}, not F16")
            begin, end = (8 + length + at for at in header[name]["data_offsets"])
            layout = f"<{(end - begin) // 2}e"
            content[begin:end] = struct.pack(layout, *change(list(struct.unpack(layout, content[begin:end]))))
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.rename(path + ".new", path)
        loads = len(re.findall("event=model_loaded", self._log()))
        self.process.send_signal(signal.SIGHUP)
        self._wait("event=model_loaded", loads + 1)
        self._wait("event=reloaded")

    def exchange(self, path, body=None, headers=None):
        try:
            request = urllib.request.Request(self.url + path, body, headers or {})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise Failed(f"{path} answered {error.code}: {error.read().decode(errors='replace')}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{self.url}{path}: {error}") from None

    def send(self, images, labels, tag=None):
        """One request with what the images truly are."""
        data = b"".join(images)
        parameters = {"labels": labels, **({"tag": tag} if tag else {})}
        request = json.dumps({"parameters": parameters, "inputs": [
            {"name": "image", "shape": [len(images), 1, 28, 28], "datatype": "UINT8",
             "parameters": {"binary_data_size": len(data)}}]}).encode()
        self.exchange(f"/v2/models/{self.name}/infer", request + data,
                      {"Inference-Header-Content-Length": str(len(request))})

    def routing(self, query=""):
        return self.exchange(f"/v2/models/{self.name}/routing{query}")

    def reset(self):
        self.exchange(f"/v2/models/{self.name}/routing/reset", b"")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
