"""The dashboard's pictures of deploy/ROUTING.md: one server per story, traffic with labels, something goes wrong.

    sh tests/dashboard/run.sh stories [--pictures DIR]

Seven minutes, most of which are the five after which the server calls an expert dying. Leaves every view in
build/dashboard; --pictures writes the page's, small, into DIR. Exit status 1 if an alarm is not to be seen.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "deploy", "stories"))

from replay import DATA, DEAD, GONE, LABELS, Images, send  # noqa: E402
from server import MODEL, Server  # noqa: E402

BINARY = os.environ.get("MOED_BINARY", os.path.join(ROOT, "build", "release", "moed"))
WELL_SECONDS, WINDOW_SECONDS, DYING_SECONDS = 30, 66, 345  # a window is a minute; dying takes five
HISTORY_ROWS, REQUEST_ROWS, PAUSE_SECONDS = 4000, 20, 0.2
COLOURS = 128


def break_expert(server):
    server.replace({f"moe.experts.{DEAD}.out.weight": lambda values: [0.0] * len(values)})


def avoid_expert(server):
    server.replace({"moe.gate.out.bias": lambda values: [b - 1000.0 if i == DEAD else b for i, b in enumerate(values)]})


# name: (what goes wrong, which classes are sent then, for how long, what the page must say)
STORIES = {
    "well": (None, LABELS, WINDOW_SECONDS, "No expert is dying. None is failing."),
    "data-moves": (None, [name for name in LABELS if name not in GONE], WINDOW_SECONDS, "drift Rows"),
    "expert-fails": (break_expert, LABELS, WINDOW_SECONDS, f"failing Expert {DEAD}"),
    "expert-dies": (avoid_expert, LABELS, DYING_SECONDS, f"dying Expert {DEAD}"),
}


class Story(threading.Thread):
    """Runs one; `problem` says what is wrong with it."""

    def __init__(self, name, images, work):
        super().__init__()
        self.name, self.images, self.work, self.problem = name, images, work, None

    def traffic(self, server, classes, duration):
        rows = self.images.of(classes, 10000)
        until = time.monotonic() + duration
        while time.monotonic() < until:
            send(server, random.sample(rows, REQUEST_ROWS))
            time.sleep(PAUSE_SECONDS)

    def tell(self, server):
        happens, classes, seconds, wanted = STORIES[self.name]
        send(server, self.images.of(LABELS, HISTORY_ROWS))
        browser = subprocess.Popen(["node", os.path.join(self.work, "stories.mjs"), server.url, self.work], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with browser:
            said = [browser.stdout.readline()]
            self.traffic(server, LABELS, WELL_SECONDS)
            if happens:
                happens(server)
            self.traffic(server, classes, seconds)
            said += browser.communicate(self.name + "\n", timeout=120)[0].splitlines()
        shown = " ".join(line.strip() for line in said)
        print(f"{self.name}: {shown}", flush=True)
        if wanted not in shown or "PROBLEM" in shown or browser.returncode:
            self.problem = f"{self.name}: the page says '{shown}', not '{wanted}'"

    def run(self):
        self.problem = f"{self.name}: it did not end"
        with tempfile.TemporaryDirectory(prefix="moed-dashboard-") as directory:
            server = Server(BINARY, os.path.join(ROOT, "deploy", "models", MODEL), directory)
            try:
                self.problem = None
                self.tell(server)
            except Exception as error:  # a thread's ends nobody else
                self.problem = f"{self.name}: {error}"
            finally:
                server.stop()


def write_pictures(names, work, directory):
    """As 8-bit palettes, which these few colours need no more than."""
    for name in names:
        with Image.open(os.path.join(work, f"{name}-desk.png")) as picture:
            small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            small.save(os.path.join(directory, f"dashboard-{name}.png"), optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", help="where stories.mjs and node_modules are")
    parser.add_argument("--pictures", metavar="DIR")
    parser.add_argument("--only", choices=STORIES, help="tell this story alone")
    arguments = parser.parse_args()
    images = Images(DATA)
    stories = [Story(name, images, arguments.work) for name in STORIES if arguments.only in (None, name)]
    for story in stories:
        story.start()
    for story in stories:
        story.join()
    problems = [story.problem for story in stories if story.problem]
    print("\n".join(problems) or "every alarm is to be seen")
    if arguments.pictures:
        write_pictures([story.name for story in stories if story.name != "well"], arguments.work, arguments.pictures)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
