"""Strict JSON (RFC 8259), without ambiguous documents."""

from __future__ import annotations

import json
from typing import Any

import orjson

_MAX_NAMES = 1000  # of an object; no request needs more, and every unknown one takes time


class InvalidJson(ValueError):
    """A text is not JSON, or is ambiguous; the message says why."""


def loads(content: bytes) -> Any:
    """Parse JSON in UTF-8. Raises InvalidJson.

    Duplicate names in an object are errors: parsers differ in which one they use.
    """
    try:
        value = orjson.loads(content)
        json.loads(content.decode(), object_pairs_hook=_check)  # orjson silently uses the last of duplicate names
    except json.JSONDecodeError as error:  # of either library
        raise InvalidJson(str(error)) from None
    except RecursionError:
        raise InvalidJson("it is nested too deeply") from None
    return value


def _check(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > _MAX_NAMES:
        raise InvalidJson(f"an object may have at most {_MAX_NAMES:,} names, not {len(pairs):,}")
    if len(dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for n, name in enumerate(names) if name in names[:n])
        raise InvalidJson(f"an object has the name {duplicate!r} more than once")
