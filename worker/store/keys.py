"""A request's id: the SHA-256 of its canonical form. Equal requests have equal ids everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from worker.requests import Request, RequestKind

#: Raised whenever a computation's result changes, so that an old result is never taken for a new one.
VERSION = 1


def request_id(request: Request) -> str:
    """The id of a request, 64 hexadecimal digits."""
    return content_id(request.kind, request.to_json())


def content_id(kind: RequestKind, form: Mapping[str, Any]) -> str:
    """The id of a request of a kind in canonical form; the order of keys does not matter."""
    text = json.dumps([kind, VERSION, form], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
