"""Error responses to invalid requests, which the application never sees, in the application's format."""

from __future__ import annotations

from http import HTTPStatus

import orjson
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from werkzeug.exceptions import HTTPException

from service.http.problems import body
from service.http.security_headers import ALL_RESPONSES

LINE = 8190  # bytes of a request's first line
FIELDS = 100  # header fields
FIELD = 8190  # bytes of each


def refusal(error: BaseException) -> tuple[int, bytes]:
    """The status and the bytes of a response that closes the connection. 500 if it is not the client's fault."""
    status, detail = _described(error)
    content = orjson.dumps(body(status, detail))
    phrase = HTTPStatus(status).phrase
    headers = ALL_RESPONSES | {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(content)),
        "Cache-Control": "no-store",
        "Connection": "close",
    }
    if isinstance(error, HTTPException):
        headers |= {name: value for name, value in error.get_headers() if name == "Retry-After"}
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return status, "\r\n".join(lines).encode("ascii") + content


def _described(error: BaseException) -> tuple[int, str]:
    if isinstance(error, HTTPException):
        return error.code or 500, error.description or ""
    if isinstance(error, LimitRequestLine):
        return 414, f"The first line of the request is longer than {LINE:,} bytes."
    if isinstance(error, LimitRequestHeaders):
        return 431, f"At most {FIELDS} header fields of {FIELD:,} bytes are read here."
    if isinstance(error, ExpectationFailed):
        return 417, "Only 100-continue can be expected."
    if isinstance(error, ParseException):
        return 400, f"This is no request as HTTP/1.1 has it: {_short(str(error))}."
    return 500, "Something went wrong here; the request was not the reason."


def _short(text: str) -> str:
    """A parser's message, shortened: it may quote many bytes."""
    text = text.removesuffix(".")
    return text if len(text) <= 200 else f"{text[:200]}…"
