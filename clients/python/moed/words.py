"""Numbers and errors in messages, and names."""

import zlib


def counted(count: int, noun: str, plural: str = "") -> str:
    """1 row, 2 rows."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def first_line(error: BaseException) -> str:
    """What an error says, on one line; an assert may say nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


MOST_LETTERS = 64  # of a layer's name in a checkpoint


def short(name: str) -> str:
    """The name, or its end and what tells it from others with that end."""
    return name if len(name) <= MOST_LETTERS else f"{name[-(MOST_LETTERS - 9):]}_{zlib.crc32(name.encode()):08x}"
