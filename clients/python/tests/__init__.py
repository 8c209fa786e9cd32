"""Exports in tests are compared with the package's own loader; those that are about the engine say so with ENGINE."""

import os

from moed import engine

ENGINE = engine.find()
os.environ["MOED_BINARY"] = ""
