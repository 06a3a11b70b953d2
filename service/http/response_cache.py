"""An in-memory cache of responses about finished results, in front of the Flask application.

Finished results never change, but they can be deleted, or lost and computed again. A cached response is therefore valid
for a second, and then for another if its result still exists and is the same. A DELETE in this process invalidates all
responses, and so does a request for an unfinished result: it may have been finished, and lost, before.

The cache is WSGI middleware, because a request costs Flask and its hooks ten times what it costs the cache. It stores
responses as they leave Flask, by all parts of a request that the hooks decide by, keys and hosts among them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import PreconditionFailed

import worker.logs as logs
from service.http.conditional import evaluate_preconditions
from service.http.negotiation import content_coding
from service.http.request_context import REQUEST_ID, begin
from service.http.request_metrics import RequestMetrics
from worker.store.stored_bytes import Missing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from service.jobs.broker import State

Key = tuple[str | None, ...]

_FRESH = 1.0  # seconds
_SHARE = 16  # one response takes at most 1/16 of the cache
_OVERHEAD = 2560  # bytes that a response takes in addition to its body and key, about
#: The parts of a request that select its response, by their WSGI names, in addition to the content coding.
_KEY_PARTS = (
    "PATH_INFO",
    "QUERY_STRING",
    "HTTP_ACCEPT",
    "HTTP_ORIGIN",
    "HTTP_PREFER",
    "HTTP_HOST",
    "HTTP_AUTHORIZATION",
    "HTTP_X_API_KEY",
)
_CONDITIONAL = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
_PER_REQUEST = {"Date", REQUEST_ID}  # headers


@dataclass(frozen=True)
class CachedResponse:
    """A response with its log context and its size in bytes, and the result that it is about.

    `id` and `finished_at` are those of the result, `checked` is when it was last seen.
    """

    body: bytes
    headers: list[tuple[str, str]]
    log: dict[str, Any]
    id: str
    finished_at: str
    checked: float
    size: int


class ResponseCache:
    """A least-recently-used cache of an app's responses, of `capacity` bytes."""

    def __init__(self, app: Flask, capacity: int, metrics: RequestMetrics) -> None:
        self.capacity = capacity
        self._wsgi_app: WSGIApplication = app.wsgi_app
        self._extensions = app.extensions
        self._metrics = metrics
        self._size = 0
        self._responses: OrderedDict[Key, CachedResponse] = OrderedDict()
        self._lock = threading.Lock()
        self._invalidated = 0.0  # responses checked before this time have to be checked again

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond from the cache if it has a valid response, else with the app's."""
        started = time.perf_counter()
        cached = self._find(environ)
        if cached is None:
            return self._wsgi_app(environ, start_response)
        response = None
        if any(name in environ for name in _CONDITIONAL):
            try:
                response = evaluate_preconditions(Response(cached.body, headers=cached.headers), Request(environ))
            except PreconditionFailed:  # the app describes it
                return self._wsgi_app(environ, start_response)
        request_id = begin(environ.get("HTTP_X_REQUEST_ID"), environ.get("HTTP_TRACEPARENT"), **cached.log)
        status = response.status_code if response else 200
        self._metrics.count("GET", cached.log["route"], status, started, cached=True)
        if response is not None:
            response.headers[REQUEST_ID] = request_id
            return response(environ, start_response)
        start_response("200 OK", [*cached.headers, (REQUEST_ID, request_id)])
        return [cached.body]

    def store(self, response: Response) -> Response:
        """Cache a response if its result is finished and it is complete and not too large; return it."""
        if request.method == "DELETE" or g.get("unfinished"):
            self._invalidated = time.monotonic()
        state: State[Any] | None = g.get("result_state")
        key, length = _key(request.environ), response.content_length
        if state is None or key is None or response.status_code != 200 or length is None:
            return response
        size = length + _OVERHEAD + sum(len(part) for part in key if part)  # a query may be longer than the body
        if size <= self.capacity // _SHARE:
            headers = [(name, value) for name, value in response.headers if name not in _PER_REQUEST]
            log = {name: value for name, value in logs.context().items() if name in ("route", "caller")}
            finished_at = state.manifest["finished_at"]
            cached = CachedResponse(
                response.get_data(), headers, log, state.id, finished_at, time.monotonic(), size
            )  # fmt: skip
            self._put(key, cached)
        return response

    def _find(self, environ: WSGIEnvironment) -> CachedResponse | None:
        """Return the cached response to a request if it is valid, else None."""
        key = _key(environ)
        cached = self._responses.get(key) if key else None
        if key is None or cached is None:
            return None
        now = time.monotonic()
        if now - cached.checked > _FRESH or cached.checked <= self._invalidated:
            cached = replace(cached, checked=now) if self._exists(cached) else None
            self._put(key, cached)
        return cached

    def _exists(self, response: CachedResponse) -> bool:
        """Return whether the response's result still exists and was not computed again."""
        try:
            manifest = self._extensions["broker"].results.manifest(response.id)
        except Missing:
            return False
        return bool(manifest["finished_at"] == response.finished_at)

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


def register(app: Flask, capacity: int, metrics: RequestMetrics) -> None:
    """Cache an app's responses in `capacity` bytes, as they are after all hooks that are registered later."""
    cache = app.extensions["response_cache"] = ResponseCache(app, capacity, metrics)
    app.wsgi_app = cache  # type: ignore[method-assign]
    app.after_request(cache.store)


def _key(environ: WSGIEnvironment) -> Key | None:
    """Return the cache key of a request; None if its response is not cached."""
    if environ["REQUEST_METHOD"] != "GET" or "HTTP_RANGE" in environ:
        return None
    return content_coding(environ.get("HTTP_ACCEPT_ENCODING", "")), *map(environ.get, _KEY_PARTS)
