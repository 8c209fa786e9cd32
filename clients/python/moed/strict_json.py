"""JSON as the server reads it: every key once, no NaN, no NUL or half a character in texts, reals for integers beyond
64 bits."""

import json
from typing import Any, Dict, List, Tuple, Union


def parse(text: bytes, where: str) -> Any:
    """The value. Raises ValueError, beginning with `where`, for what the server refuses to read."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from None


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    for key, value in pairs:
        for text in (key, *(value if isinstance(value, list) else [value])):
            if isinstance(text, str) and ("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)):
                raise ValueError(f"{text!r} holds a NUL or half a character")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _integer(digits: str) -> Union[int, float]:
    value = int(digits)
    if -2 ** 63 <= value < 2 ** 63:
        return value
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"a number of {len(digits)} digits is too large") from None
