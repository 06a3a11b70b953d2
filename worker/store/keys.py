"""Request ids: the SHA-256 of the canonical request."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

#: To be raised whenever a computation's result changes, so that no old result is served for a new request.
VERSION = 1

RequestKind = Literal["trace", "layout", "lens"]


def request_id(kind: RequestKind, request: dict[str, Any]) -> str:
    """Return the id (64 hex digits) of a canonical request, which holds only what determines the result."""
    text = json.dumps([kind, VERSION, request], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
