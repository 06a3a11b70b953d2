"""Ids of requests: the SHA-256 of their canonical form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from worker.requests import Request, RequestKind

#: Increment it when a change of the code changes results, so that stored results are not reused.
VERSION = 1


def request_id(request: Request) -> str:
    """Return the id of a request, 64 hexadecimal digits. Equal requests have equal ids."""
    return content_id(request.kind, request.to_json())


def content_id(kind: RequestKind, form: Mapping[str, Any]) -> str:
    """Return the id of a request from its kind and canonical form, in which the order of keys does not matter.

    Raises ValueError for a number that JSON does not have, such as NaN.
    """
    text = json.dumps([kind, VERSION, form], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
