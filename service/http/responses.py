"""Responses: waiting (RFC 7240), JSON, ETags and files."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import quote

import orjson
from flask import Response, current_app, g, request
from werkzeug.http import parse_list_header

import service.http.conditional as conditional
from service.http.conditional import evaluate_preconditions, requested_range
from service.jobs.broker import R, State, broker
from service.jobs.status import UNFINISHED

JSON = "application/json"
YAML = "application/yaml"
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "public, no-cache"
_VERSION = "3"  # raised when the bytes of finished responses change: 3 has sampling_probability


def preferred_wait() -> float:
    """Return the seconds in `Prefer: wait=…`, at most the service's limit; 0 without it."""
    for preference in parse_list_header(request.headers.get("Prefer", "")):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait":  # the first counts, should there be several
            value = value.partition(";")[0].strip().strip('"')
            valid = value.isascii() and value.isdigit()
            return min(float(value), float(broker().settings.max_wait)) if valid else 0.0
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
    return evaluate_preconditions(response)


def client_has(media_type: str, *identity: str) -> bool:
    """Return whether the client has this response, so that marking an empty one turns it into a 304."""
    return conditional.client_has(_etag(media_type, *identity))


def _etag(media_type: str, *identity: str) -> str:
    return hashlib.sha256("\0".join((*identity, media_type, _VERSION)).encode()).hexdigest()[:32]


def attachment(response: Response, filename: str) -> Response:
    """Have browsers save a response under this name (RFC 6266), which may have characters beyond ASCII."""
    names = {"filename": filename}
    if not filename.isascii():
        ascii_name = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
        names = {"filename": ascii_name, "filename*": f"UTF-8''{quote(filename, safe='')}"}
    response.headers.set("Content-Disposition", "attachment", **names)
    return response


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
    requested = requested_range(length, response.headers["ETag"])
    start, stop = requested or (0, length)
    if requested:
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{length}"
    response.content_length = stop - start
    response.response = primed(read(start, stop))
    return response


def primed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the same chunks with the first read already: an error there still becomes an error response."""
    iterator = iter(chunks)
    if request.method == "HEAD":
        return iterator
    first = next(iterator, b"")
    return chain([first], iterator)
