"""An in-memory cache of responses about finished results.

Finished results never change, but they can be deleted, or lost and computed again. A cached response is therefore valid
for a second, and then for another if its result still exists and is the same. A DELETE in this process invalidates all
responses, and so does a request for an unfinished result: it may have been finished, and lost, before.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from flask import Flask, Response, g, request

from service.http.conditional import evaluate_preconditions
from service.jobs.broker import State, broker
from worker.store.stored_bytes import Missing

Key = tuple[str | None, ...]

_FRESH = 1.0  # seconds
_SHARE = 16  # one response takes at most 1/16 of the cache
_OVERHEAD = 2560  # bytes that a response takes in addition to its body and key, about
#: The parts of a request that select its response, by their WSGI names.
_KEY_PARTS = ("PATH_INFO", "QUERY_STRING", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING", "HTTP_ORIGIN", "HTTP_PREFER")


@dataclass(frozen=True)
class CachedResponse:
    """A response with its size in bytes, the id and end time of its result, and when that was last checked."""

    body: bytes
    headers: list[tuple[str, str]]
    id: str
    finished_at: str
    checked: float
    size: int


class ResponseCache:
    """A least-recently-used cache of responses, of `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._size = 0
        self._responses: OrderedDict[Key, CachedResponse] = OrderedDict()
        self._lock = threading.Lock()
        self._invalidated = 0.0  # responses checked before this time have to be checked again

    def find(self) -> Response | None:
        """Return the cached response to the request if it is valid, else None."""
        key = _key()
        cached = self._responses.get(key) if key else None
        if key is None or cached is None:
            return None
        now = time.monotonic()
        if now - cached.checked > _FRESH or cached.checked <= self._invalidated:
            cached = replace(cached, checked=now) if _exists(cached) else None
            self._put(key, cached)
        if cached is None:
            return None
        g.cached = True
        return evaluate_preconditions(Response(cached.body, headers=cached.headers))

    def store(self, response: Response) -> Response:
        """Cache a response if its result is finished and it is complete and not too large; return it."""
        if request.method == "DELETE" or g.get("unfinished"):
            self._invalidated = time.monotonic()
        state: State[Any] | None = g.get("result_state")
        key, length = _key(), response.content_length
        if state is None or key is None or response.status_code != 200 or length is None:
            return response
        size = length + _OVERHEAD + sum(len(part) for part in key if part)  # a query may be longer than the body
        if size <= self.capacity // _SHARE:
            headers = [(name, value) for name, value in response.headers if name != "Date"]
            finished_at = state.manifest["finished_at"]
            self._put(key, CachedResponse(response.get_data(), headers, state.id, finished_at, time.monotonic(), size))
        return response

    def _put(self, key: Key, response: CachedResponse | None) -> None:
        """Store a response as the most recently used, or remove it if None."""
        with self._lock:
            before = self._responses.pop(key, None)
            self._size -= before.size if before else 0
            if response is not None:
                self._responses[key] = response
                self._size += response.size
            while self._size > self.capacity:
                self._size -= self._responses.popitem(last=False)[1].size


def register(app: Flask, capacity: int) -> None:
    """Cache an app's responses in `capacity` bytes, as they are after all hooks that are registered later."""
    cache = app.extensions["response_cache"] = ResponseCache(capacity)
    app.before_request(cache.find)
    app.after_request(cache.store)


def _exists(response: CachedResponse) -> bool:
    """Return whether the response's result still exists and was not computed again."""
    try:
        return bool(broker().results.manifest(response.id)["finished_at"] == response.finished_at)
    except Missing:
        return False


def _key() -> Key | None:
    """Return the cache key of the request; None if its response is not cached."""
    environ = request.environ
    if request.method != "GET" or "HTTP_RANGE" in environ:
        return None
    return tuple(map(environ.get, _KEY_PARTS))
