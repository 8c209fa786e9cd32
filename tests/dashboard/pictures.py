"""The README's two pictures of the dashboard, as it is: the shipped models, labelled test images, a prompt.

    sh tests/dashboard/run.sh pictures

Three minutes. Writes clients/web/pictures; look at them.
"""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

from PIL import Image

from serve import ROOT, np, read
from support.server import Server

COLOURS, REQUEST_ROWS, PAUSE_SECONDS, HISTORY_ROWS, WINDOW_SECONDS = 128, 8, 0.05, 4000, 66


def send(url, rows):
    images, labels = read("images-idx3", 16).reshape(-1, 784), read("labels-idx1", 8)
    body = json.dumps({"instances": images[rows].tolist(), "labels": labels[rows].tolist()}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/v1/models/fashion-mnist:predict", body)).read()


def keep_busy(url, stop):
    random = np.random.default_rng(1)
    while not stop.wait(PAUSE_SECONDS):
        send(url, random.integers(0, 10000, REQUEST_ROWS))


def main():
    work, stop = sys.argv[1], threading.Event()
    with Server() as server:
        for first in range(0, HISTORY_ROWS, 500):
            send(server.url, np.arange(first, first + 500))
        traffic = threading.Thread(target=keep_busy, args=(server.url, stop))
        traffic.start()
        try:
            time.sleep(WINDOW_SECONDS)  # what came before the window is what accuracies are compared with
            status = subprocess.run(["node", os.path.join(work, "pictures.mjs"), server.url, work], check=False).returncode
        finally:
            stop.set()
            traffic.join()
        server.stop()
    for name in ("fashion-mnist", "tiny-lm") if status == 0 else ():
        with Image.open(os.path.join(work, f"{name}.png")) as picture:
            small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            small.save(os.path.join(ROOT, "clients", "web", "pictures", f"{name}.png"), optimize=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
