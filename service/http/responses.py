"""How answers are given: waiting (RFC 7240), choosing a representation, caching what never changes (RFC 9110)."""

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
_FORM = "2"  # raised when the bytes of finished answers change: 2 has a layout's architecture
_RANGE = re.compile(r"bytes=(?=\d|-\d)(\d{0,18})-(\d{0,18})", re.ASCII)


def preferred_wait() -> float:
    """Seconds that `Prefer: wait=…` asks to be held, within the service's limit; 0 without one."""
    for preference in request.headers.get("Prefer", "").split(","):
        name, _, value = preference.partition("=")
        value = value.partition(";")[0].strip().strip('"')
        if name.strip().lower() == "wait" and value.isascii() and value.isdigit():
            return min(float(value), float(broker().settings.max_wait))
    return 0.0


def waited(state: State[R]) -> State[R]:
    """A request once it has ended, or the time is over that the client would wait.

    Who waits holds a thread. Where as many do as may, the answer comes at once: a preference need not be met.
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
    """The media type that the client likes best; the first where it does not say. 406 where it likes none."""
    if not request.headers.get("Accept"):
        return offered[0]
    best = request.accept_mimetypes.best_match(offered)
    if best is None:
        raise not_acceptable(list(offered))
    return best


def answer(state: State[R], represent: Callable[[State[R]], dict[str, Any]], *, created: bool = False) -> Response:
    """A trace or a layout as it stands, once it has ended or the time that the client would wait is over.

    `represent` gives what is its kind's own. `created`: in answer to a POST, with 202 while it is under way.
    """
    state = waited(state)
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
    """What is told of every request, whatever its kind."""
    told = {
        "id": state.id,
        "status": state.status,
        "created_at": state.created_at,
        "started_at": state.started_at,
        "finished_at": state.manifest.get("finished_at"),
        "queue_position": state.queue_position,
        "progress": state.progress,
    }
    return told | ({"error": {"detail": state.reason}} if state.reason else {})


def json(body: dict[str, Any]) -> Response:
    """A body as JSON; what JSON has no number for is null."""
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), content_type=JSON)


def immutable(response: Response, state: State[Any], *identity: str) -> Response:
    """Mark an answer that never changes: a strong ETag from the finished result that it is made of and what of that it
    is, and 304 to who has it."""
    response = revalidated(response, state.id, *identity)
    g.made_of = state
    response.headers["Cache-Control"] = IMMUTABLE
    return response


def revalidated(response: Response, *identity: str) -> Response:
    """Mark an answer that is another one when what it tells of changes: the same, but asked for again each time."""
    response.set_etag(_etag(response.mimetype or "", *identity))
    response.headers["Cache-Control"] = REVALIDATED
    response.vary.add("Accept")
    response.make_conditional(request)
    return response


def has_already(media_type: str, *identity: str) -> bool:
    """Whether the client has the answer of this identity, so that marking an empty one makes it a 304."""
    return request.if_none_match.contains(_etag(media_type, *identity))


def _etag(media_type: str, *identity: str) -> str:
    return hashlib.sha256("\0".join((*identity, media_type, _FORM)).encode()).hexdigest()[:32]


def octets(chunks: Iterable[bytes], length: int, content_type: str) -> Response:
    """Bytes in the chunks that they come in."""
    response = Response(chunks, content_type=content_type)
    response.content_length = length
    return response


def ranged(response: Response, length: int, read: Callable[[int, int], Iterable[bytes]]) -> Response:
    """Answer a request for a range of an immutable response's `length` bytes: 206, 416, or all of them.

    `read` gives the bytes from one to before another.
    """
    response.headers["Accept-Ranges"] = "bytes"
    if response.status_code == 304:
        return response
    found = _range(length, response.headers["ETag"])
    start, stop = found or (0, length)
    if found:
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{length}"
    response.content_length = stop - start
    response.response = primed(read(start, stop))
    return response


def _range(length: int, etag: str) -> tuple[int, int] | None:
    """The one range that is asked for, cut to what there is (RFC 9110, 14). None where all is to be answered:

    without a range that means anything here, to a list of them, to a HEAD, and where If-Range is of another file.
    Raises RequestedRangeNotSatisfiable (416) where there is nothing at it.
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
    """The same chunks, the first read at once: what goes wrong there can still be an honest error."""
    iterator = iter(chunks)
    if request.method == "HEAD":
        return iterator
    first = next(iterator, b"")
    return chain([first], iterator)
