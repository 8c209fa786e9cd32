"""Reading config.json: every getter notes the key that it was asked for, then checks presence, type and range.

What the server refuses is refused here in the same way, and a key that nobody asked for is unknown.
core/load/config.c is the other side; tests/test_refused_alike.py compares both on thousands of damaged configs.
"""

import re
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

MOST_ELEMENTS = 1 << 26  # of one activation of one row
MOST_AXES = 6
LARGEST = 3.4028234663852886e38  # of float32
NAME = re.compile(r"[A-Za-z0-9_.-]{0,64}")
INT32_MAX = 2 ** 31 - 1

Shape = Tuple[int, ...]


class LoadError(ValueError):
    """The directory is not a checkpoint of a format this reads."""


def elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


class Node:
    """An object of config.json, and where it is."""

    def __init__(self, value: Dict[str, Any], path: str = ""):
        self.value = value
        self.path = path
        self.asked: set = set()

    def error(self, key: Optional[str], message: str) -> LoadError:
        path = ".".join(part for part in (self.path, key) if part)
        return LoadError(f"config.json: {path}{': ' if path else ''}{message}")

    def _get(self, key: str) -> Any:
        self.asked.add(key)
        return self.value.get(key)

    def has(self, key: str) -> bool:
        self.asked.add(key)
        return key in self.value

    def integer(self, key: str, least: int, most: int, otherwise: Optional[int] = None) -> int:
        """Without `otherwise` the key is required."""
        if not self.has(key) and otherwise is not None:
            return otherwise
        value = self._get(key)
        if not _is_integer(value) or not least <= value <= most:
            raise self.error(key, f"expected an integer from {least} to {most}")
        return int(value)

    def real(self, key: str, otherwise: Optional[float] = None) -> float:
        if not self.has(key) and otherwise is not None:
            return otherwise
        if not _is_real(self._get(key)):
            raise self.error(key, "expected a number that f32 can hold")
        return float(self._get(key))

    def above(self, key: str, otherwise: Optional[float] = None) -> float:
        """A real above 0."""
        value = self.real(key, otherwise)
        if not value > 0:
            raise self.error(key, "expected a number above 0")
        return value

    def at_least(self, key: str, least: float, otherwise: float) -> float:
        value = self.real(key, otherwise)
        if value < least:
            raise self.error(key, f"expected a number of at least {least:g}")
        return value

    def flag(self, key: str, otherwise: bool) -> bool:
        value = self._get(key) if self.has(key) else otherwise
        if not isinstance(value, bool):
            raise self.error(key, "expected true or false")
        return value

    def text(self, key: str, otherwise: Optional[str] = None) -> str:
        if not self.has(key) and otherwise is not None:
            return otherwise
        value = self._get(key)
        if not isinstance(value, str):
            raise self.error(key, "expected a string")
        return value

    def name(self, key: str, least: int, otherwise: Optional[str] = None) -> str:
        """Of a layer, a gate or a result."""
        name = self.text(key, otherwise)
        if len(name) < least or not NAME.fullmatch(name):
            raise self.error(key, f"expected {least} to 64 letters, digits, '_', '-' or '.'")
        return name

    def choice(self, key: str, names: Sequence[str], otherwise: Optional[str] = None) -> str:
        value = self.text(key, otherwise)
        if value not in names:
            raise self.error(key, f"{value!r} is not one of {', '.join(names)}")
        return value

    def shape(self, key: str, least: int) -> Shape:
        sizes = self._get(key)
        if not isinstance(sizes, list) or not least <= len(sizes) <= MOST_AXES:
            raise self.error(key, f"expected a list of {least} to {MOST_AXES} sizes")
        if not all(_is_integer(size) and size >= 1 for size in sizes):
            raise self.error(key, "sizes are positive integers")
        if elements(sizes) > MOST_ELEMENTS:
            raise self.error(key, f"{sizes} exceeds {MOST_ELEMENTS} elements")
        return tuple(sizes)

    def integers(self, key: str, least: int, most: int) -> List[int]:
        values = self._get(key)
        if not isinstance(values, list) or not values or not all(
                _is_integer(value) and least <= value <= most for value in values):
            raise self.error(key, f"expected a list of integers from {least} to {most}")
        return values

    def reals(self, key: str) -> List[float]:
        values = self._get(key)
        if not isinstance(values, list) or not values or not all(_is_real(value) for value in values):
            raise self.error(key, "expected a list of numbers that f32 can hold")
        return values

    def texts(self, key: str) -> List[str]:
        values = self._get(key)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.error(key, "expected a list of strings")
        return values

    def object(self, key: str) -> "Node":
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.error(key, "expected an object")
        return Node(value, ".".join(part for part in (self.path, key) if part))

    def objects(self, key: str, most: int = 0) -> "Iterator[Node]":
        """The entries of a list that is not empty; `most`: bounds their number."""
        values = self._get(key)
        if not isinstance(values, list) or not values:
            raise self.error(key, "expected a list of objects")
        if most and len(values) > most:
            raise self.error(key, f"more than {most}")
        path = ".".join(part for part in (self.path, key) if part)
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                raise LoadError(f"config.json: {path}[{index}]: expected an object")
            yield Node(value, f"{path}[{index}]")

    def one_or_several(self, one: str, many: str, most: int) -> "List[Node]":
        """The entries of `many`, or the one of `one`."""
        if not self.has(many):
            return [self.object(one)]
        if self.has(one):
            raise self.error(many, f'there is either "{one}" or "{many}"')
        return list(self.objects(many, most))

    def since(self, version: int, own: int, *keys: str) -> None:
        """Refuses keys that came with format `version` in a config of format `own`."""
        for key in keys:
            if own < version and self.has(key):
                raise self.error(key, f'needs "format_version": {version}')

    def done(self) -> None:
        unknown = [key for key in self.value if key not in self.asked]
        if unknown:
            raise self.error(None, f"unknown key{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
