"""Reads JSON that has one meaning: no key is there twice. And shows what it says without harm to a terminal."""

import json


def parse_json(text: bytes) -> object:
    """Raises ValueError, with what is wrong, for what is no such JSON."""
    try:
        tree: object = json.loads(text, object_pairs_hook=_once)
    except _Twice:
        raise
    except (ValueError, RecursionError):
        raise ValueError("it cannot be read") from None
    return tree


def printable(text: str) -> str:
    """As it is, or with escapes for what would move a terminal's cursor, or cannot be written at all."""
    return text if text.isprintable() else ascii(text)[1:-1]


class _Twice(ValueError):
    """A key that is there twice: which of its values counts depends on the reader."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"{next(name for name in names if names.count(name) > 1)!a} is there twice")
    return found
