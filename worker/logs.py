"""Log lines as text or as JSON (one object a line), and the request that they are about.

A request has an id, and a place in a trace of W3C Trace Context where who asked sent one. Both go with its job, so that
the worker's lines tell of the same: https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:@=+/-]{1,128}")
_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<parent>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_about: ContextVar[Mapping[str, Any]] = ContextVar("about", default={})  # noqa: B039 - never changed, only replaced


def begin(request_id: str | None, traceparent: str | None) -> None:
    """From now on this thread's lines are about another request; one without a sane id gets a new one."""
    sane = request_id is not None and _REQUEST_ID.fullmatch(request_id)
    _about.set({"request_id": request_id if sane else uuid.uuid4().hex, **_continued(traceparent or "")})


def note(**fields: Any) -> None:
    """Tell more of the request in this thread's lines."""
    _about.set({**_about.get(), **fields})


def about() -> Mapping[str, Any]:
    """What is known of the request that this thread works on: `request_id`, and `trace_id`, `span_id` and so on."""
    return _about.get()


def end() -> None:
    """From now on this thread's lines are about no request."""
    _about.set({})


def carried() -> dict[str, str]:
    """What a job takes with it of the request that asks for it: what `resume` reads."""
    known = _about.get()
    taken = {"request_id": known["request_id"]} if "request_id" in known else {}
    if "trace_id" in known:
        taken["traceparent"] = f"00-{known['trace_id']}-{known['span_id']}-{known['trace_flags']}"
    return taken


def resume(carried: Mapping[str, Any]) -> None:
    """Go on, in another process, with what the request was that asked for a job."""
    if "request_id" in carried:
        begin(carried["request_id"], carried.get("traceparent"))


def _continued(traceparent: str) -> dict[str, str]:
    """A span of our own in somebody's trace; nothing where the header is not as it has to be."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match["version"] == "00" and match["more"] is not None):
        return {}
    span = {"trace_id": match["trace"], "parent_id": match["parent"], "span_id": os.urandom(8).hex()}
    return span | {"trace_flags": match["flags"]}


class Formatter(logging.Formatter):
    """Lines of one part of Cutaway. `extra={"fields": {…}}` of a call adds to what JSON tells."""

    def __init__(self, part: str, form: str) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
        self.part, self.form = part, form

    def format(self, record: logging.LogRecord) -> str:
        if self.form == "text":
            about = _about.get().get("request_id")
            return super().format(record) + (f" [{about}]" if about else "")
        told = {
            "time": moment(record.created),
            "level": record.levelname.lower(),
            "part": self.part,
            "process": record.process,
            "message": record.getMessage(),
            **_about.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(told, default=str).decode()


def moment(seconds: float) -> str:
    """A time since the epoch as RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def chosen(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """LOG_FORMAT and LOG_LEVEL. Raises ValueError for what is neither."""
    form, level = environ.get("LOG_FORMAT") or "text", environ.get("LOG_LEVEL") or "info"
    for name, value, allowed in (("LOG_FORMAT", form, FORMATS), ("LOG_LEVEL", level, LEVELS)):
        if value.lower() not in allowed:
            raise ValueError(f"{name}={value!r}: {' or '.join(allowed)} is expected.")
    return form.lower(), level.lower()


def configure(part: str) -> None:
    """Have a process write its lines, to standard error, as LOG_FORMAT and LOG_LEVEL say. Raises ValueError."""
    form, level = chosen()
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(part, form))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
