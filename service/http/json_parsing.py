"""JSON as RFC 8259 has it, and nothing that two readers could read in two ways."""

from __future__ import annotations

import json
from typing import Any

import orjson

NAMES = 1000  # in an object: no request has use for more, and each that is not known takes time


class NotJson(ValueError):
    """What is wrong with a text, and what is allowed."""


def loads(content: bytes) -> Any:
    """The value of a text of JSON in UTF-8. Raises NotJson.

    Names that an object has twice are refused: readers differ in which of the two they take.
    """
    try:
        found = orjson.loads(content)
        json.loads(content.decode(), object_pairs_hook=_check)  # orjson takes the last, and tells nobody
    except json.JSONDecodeError as error:  # orjson's, too
        raise NotJson(str(error)) from None
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    return found


def _check(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > NAMES:
        raise NotJson(f"an object has {len(pairs):,} names, and at most {NAMES:,} are read")
    if len(dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise NotJson(f"an object has the name {twice!r} more than once, and each may be there once")
