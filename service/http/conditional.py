"""Conditional and range requests (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

from flask import Request, Response, request
from werkzeug.datastructures import ETags
from werkzeug.exceptions import PreconditionFailed, RequestedRangeNotSatisfiable
from werkzeug.http import parse_range_header

from service.http.negotiation import CODINGS


def evaluate_preconditions(response: Response, request: Request = request) -> Response:
    """Make a response with an ETag a 304 if the client has it. 412 if If-Match names another one.

    The order is that of RFC 9110, 13.2.2: If-Match, If-None-Match, then the range.
    """
    etag = response.get_etag()[0] or ""
    if "If-Match" in request.headers and not _matching(request.if_match, etag, weak=False):
        raise PreconditionFailed("The resource has another ETag than those in If-Match.")
    if request.method in ("GET", "HEAD") and (tag := _matching(request.if_none_match, etag, weak=True)):
        response.status_code = 304
        response.set_etag(tag)  # as the client stored it, perhaps of a compressed response
    return response


def client_has(etag: str) -> bool:
    """Return whether the client has the representation with this ETag."""
    return bool(_matching(request.if_none_match, etag, weak=True))


def _matching(tags: ETags, etag: str, *, weak: bool) -> str | None:
    """Return the tag that matches an ETag, with or without the suffix that compression appends; None if none does."""
    if tags.star_tag:
        return etag
    candidates = (etag, *(f"{etag.partition(':')[0]}:{coding}" for coding in CODINGS), etag.partition(":")[0])
    return next((tag for tag in candidates if (tags.contains_weak(tag) if weak else tags.contains(tag))), None)


def requested_range(length: int, etag: str) -> tuple[int, int] | None:
    """Return the range to send, `start` and `stop`, cut to the length; None to send everything.

    None is for a missing or malformed range, several ranges, HEAD, and an If-Range with another ETag. Raises
    RequestedRangeNotSatisfiable (416) for a range outside the file.
    """
    requested = parse_range_header(request.headers.get("Range"))
    if requested is None or request.method != "GET" or request.headers.get("If-Range", etag) != etag:
        return None
    if requested.units != "bytes" or len(requested.ranges) != 1:
        return None
    start, stop = requested.ranges[0]
    start, stop = start if start >= 0 else max(0, length + start), min(length, length if stop is None else stop)
    if start >= stop:
        raise RequestedRangeNotSatisfiable(length)
    return start, stop
