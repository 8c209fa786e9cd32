"""What every program is given by main.py: where the server is, one image, and its answer as curl got it."""

import json
import os

HTTP, GRPC = os.environ["MOED_HTTP"], os.environ["MOED_GRPC"]
MODEL = "fashion-mnist"
with open(os.environ["MOED_EXPECTED"], encoding="utf-8") as file:
    IMAGE, EXPECTED = json.load(file).values()


def did(version, what):
    print(f"{version}|{what}")
