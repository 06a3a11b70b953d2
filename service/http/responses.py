"""Responses: waiting (RFC 7240), content negotiation, caching, ranges (RFC 9110)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import orjson
from flask import Response, current_app, g, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from service.http.problems import not_acceptable
from service.jobs.broker import R, State, broker
from service.jobs.status import UNFINISHED

JSON = "application/json"
YAML = "application/yaml"
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "public, no-cache"
_VERSION = "2"  # raised when the bytes of finished responses change: 2 has a layout's architecture
_RANGE = re.compile(r"bytes=(?=\d|-\d)(\d{0,18})-(\d{0,18})", re.ASCII)


def preferred_wait() -> float:
    """Return the seconds in `Prefer: wait=…`, at most the service's limit; 0 without it."""
    for preference in request.headers.get("Prefer", "").split(","):
        name, _, value = preference.partition("=")
        value = value.partition(";")[0].strip().strip('"')
        if name.strip().lower() == "wait" and value.isascii() and value.isdigit():
            return min(float(value), float(broker().settings.max_wait))
    return 0.0


def wait_if_preferred(state: State[R]) -> State[R]:
    """Wait until the request has ended, at most for the time in `Prefer: wait`; return its state then.

    A waiting client occupies a thread. If too many wait already, return at once: a preference need not be met.
    """
    seconds, waiters = preferred_wait(), current_app.extensions["waiters"]
    unfinished = g.unfinished = state.status in UNFINISHED
    if not seconds:
        return state
    if unfinished:
        if not waiters.acquire(blocking=False):
            return state
        try:
            state = broker().wait(type(state.request), state.id, seconds) or state
        finally:
            waiters.release()
    g.waited = seconds
    return state


def representation(*offered: str) -> str:
    """Return the media type that the client prefers, the first without Accept. 406 if it accepts none."""
    if not request.headers.get("Accept"):
        return offered[0]
    best = request.accept_mimetypes.best_match(offered)
    if best is None:
        raise not_acceptable(list(offered))
    return best


def respond(state: State[R], represent: Callable[[State[R]], dict[str, Any]], *, created: bool = False) -> Response:
    """Respond with the state of a request, after waiting as the client prefers.

    `represent` returns the fields that only requests of its kind have. `created` is for a POST: 202 until it has ended.
    """
    state = wait_if_preferred(state)
    response = json(summary(state) | represent(state))
    if created:
        response.status_code = 202 if state.status in UNFINISHED else 200
        response.headers["Location"] = f"/v1/{state.request.kind}s/{state.id}"
    if "waited" in g:
        response.headers["Preference-Applied"] = f"wait={g.waited:.0f}"
    if state.status == "done" and not created:
        return immutable(response, state, request.query_string.decode())
    response.headers["Cache-Control"] = "no-store"
    return response


def summary(state: State[Any]) -> dict[str, Any]:
    """Return the fields that requests of all kinds have."""
    fields = {
        "id": state.id,
        "status": state.status,
        "created_at": state.created_at,
        "started_at": state.started_at,
        "finished_at": state.manifest.get("finished_at"),
        "queue_position": state.queue_position,
        "progress": state.progress,
    }
    return fields | ({"error": {"detail": state.reason}} if state.reason else {})


def json(body: dict[str, Any]) -> Response:
    """Return a JSON response; infinities and NaN become null."""
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), content_type=JSON)


def immutable(response: Response, state: State[Any], *identity: str) -> Response:
    """Mark a response as immutable, with an ETag of the result's id and `identity`; 304 if the client has it."""
    response = revalidated(response, state.id, *identity)
    g.result_state = state
    response.headers["Cache-Control"] = IMMUTABLE
    return response


def revalidated(response: Response, *identity: str) -> Response:
    """Mark a response to be revalidated each time, with an ETag of `identity`; 304 if the client has it."""
    response.set_etag(_etag(response.mimetype or "", *identity))
    response.headers["Cache-Control"] = REVALIDATED
    response.vary.add("Accept")
    response.make_conditional(request)
    return response


def client_has(media_type: str, *identity: str) -> bool:
    """Return whether the client has this response, so that marking an empty one turns it into a 304."""
    return request.if_none_match.contains(_etag(media_type, *identity))


def _etag(media_type: str, *identity: str) -> str:
    return hashlib.sha256("\0".join((*identity, media_type, _VERSION)).encode()).hexdigest()[:32]


def octets(chunks: Iterable[bytes], length: int, content_type: str) -> Response:
    """Return a response that streams `length` bytes in chunks."""
    response = Response(chunks, content_type=content_type)
    response.content_length = length
    return response


def ranged(response: Response, length: int, read: Callable[[int, int], Iterable[bytes]]) -> Response:
    """Make a response with an ETag send the requested range (206), or all `length` bytes. 416 for a range outside.

    `read(start, stop)` returns the bytes in chunks.
    """
    response.headers["Accept-Ranges"] = "bytes"
    if response.status_code == 304:
        return response
    requested = _range(length, response.headers["ETag"])
    start, stop = requested or (0, length)
    if requested:
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{length}"
    response.content_length = stop - start
    response.response = primed(read(start, stop))
    return response


def _range(length: int, etag: str) -> tuple[int, int] | None:
    """Return the requested range, cut to the length (RFC 9110, section 14), or None to send everything.

    None is for a missing or malformed range, a list of ranges, HEAD, and an If-Range with another ETag.
    Raises RequestedRangeNotSatisfiable (416) for a range outside the file.
    """
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or request.method != "GET" or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, length - int(last))
    stop = min(length, int(last) + 1) if first and last else length
    if start >= stop:
        raise RequestedRangeNotSatisfiable(length)
    return start, stop


def primed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the same chunks with the first read already: an error there still becomes an error response."""
    iterator = iter(chunks)
    if request.method == "HEAD":
        return iterator
    first = next(iterator, b"")
    return chain([first], iterator)
