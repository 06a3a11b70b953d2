"""Ids are content: the SHA-256 of the canonical request. The same question has the same id everywhere."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

#: Raised whenever a computation's result changes, so that no old answer is taken for a new one.
VERSION = 1

Kind = Literal["trace", "layout", "lens"]


def request_id(kind: Kind, request: dict[str, Any]) -> str:
    """The id (64 hex digits) of a canonical request, which holds only what decides the result."""
    text = json.dumps([kind, VERSION, request], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
