"""Logging as text or JSON lines, with the context of the HTTP request.

A request has an id and, if the client sent a traceparent (https://www.w3.org/TR/trace-context/), a span in its trace.
Jobs carry both, so that the lines of the worker have the same context as those of the service.
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

_STDERR = 2

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:@=+/-]{1,128}")
_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<parent>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_context: ContextVar[Mapping[str, Any]] = ContextVar("context", default={})  # noqa: B039 - never changed, only replaced


def begin(request_id: str | None, traceparent: str | None) -> None:
    """Set the log context of this thread for a new request. A missing or malformed id is replaced by a new one."""
    valid = request_id is not None and _REQUEST_ID.fullmatch(request_id)
    _context.set({"request_id": request_id if valid else uuid.uuid4().hex, **_child_span(traceparent or "")})


def add(**fields: Any) -> None:
    """Add fields to the log context of this thread."""
    _context.set({**_context.get(), **fields})


def context() -> Mapping[str, Any]:
    """Return the log context of this thread: `request_id`, and `trace_id`, `span_id` and so on."""
    return _context.get()


def clear() -> None:
    """Clear the log context of this thread."""
    _context.set({})


def for_job() -> dict[str, str]:
    """Return the part of the log context that a job carries, for `from_job`."""
    current = _context.get()
    carried = {"request_id": current["request_id"]} if "request_id" in current else {}
    if "trace_id" in current:
        carried["traceparent"] = f"00-{current['trace_id']}-{current['span_id']}-{current['trace_flags']}"
    return carried


def from_job(carried: Mapping[str, Any]) -> None:
    """Set the log context from that of the request that enqueued the job."""
    if "request_id" in carried:
        begin(carried["request_id"], carried.get("traceparent"))


def _child_span(traceparent: str) -> dict[str, str]:
    """Return the fields of a new span in the client's trace, none if the header is missing or malformed."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match["version"] == "00" and match["more"] is not None):
        return {}
    span = {"trace_id": match["trace"], "parent_id": match["parent"], "span_id": os.urandom(8).hex()}
    return span | {"trace_flags": match["flags"]}


class Formatter(logging.Formatter):
    """Formats the lines of one part of Cutaway. `extra={"fields": {…}}` adds fields to the JSON."""

    def __init__(self, part: str, form: str) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
        self.part, self.form = part, form

    def format(self, record: logging.LogRecord) -> str:
        if self.form == "text":
            request_id = _context.get().get("request_id")
            return super().format(record) + (f" [{request_id}]" if request_id else "")
        fields = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "part": self.part,
            "process": record.process,
            "message": record.getMessage(),
            **_context.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str).decode()


def timestamp(seconds: float) -> str:
    """Return a time since the epoch as RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def settings(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the values of LOG_FORMAT and LOG_LEVEL. Raises ValueError for an unknown value."""
    form, level = environ.get("LOG_FORMAT") or "text", environ.get("LOG_LEVEL") or "info"
    for name, value, allowed in (("LOG_FORMAT", form, FORMATS), ("LOG_LEVEL", level, LEVELS)):
        if value.lower() not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}, not {value!r}.")
    return form.lower(), level.lower()


class Handler(logging.Handler):
    """Writes each record to standard error with one system call, without a lock.

    logging.StreamHandler holds a lock while it writes. With many threads, each of which logs a line at the end of a
    request, they queued for it: half of the API's CPU time per request.
    """

    def createLock(self) -> None:
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = memoryview(self.format(record).encode(errors="backslashreplace") + b"\n")
            while line:
                line = line[os.write(_STDERR, line) :]
        except Exception:
            self.handleError(record)


def configure(part: str) -> None:
    """Configure logging to standard error by LOG_FORMAT and LOG_LEVEL. Raises ValueError for an unknown value."""
    form, level = settings()
    handler = Handler()
    handler.setFormatter(Formatter(part, form))
    logging.logThreads = logging.logMultiprocessing = False  # not in our lines, and they cost time in each record
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
