"""Counts and durations of the API's requests, for Prometheus."""

from __future__ import annotations

import time

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, values

_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")


class RequestMetrics:
    """Metrics of the requests of one process, or of all processes of a server if they share a folder."""

    def __init__(self) -> None:
        # prometheus_client chose this class at import, when the folder may not have been set yet.
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._cached = Counter(
            "cutaway_http_kept_answers", "Requests answered from the response cache", registry=registry
        )
        self._requests = Counter(
            "cutaway_http_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "cutaway_http_request_seconds",
            "Seconds until the response started",
            ["method", "route"],
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
            registry=registry,
        )

    def count(self, method: str, route: str | None, status: int, started: float | None, cached: bool = False) -> None:
        """Count a request of a route, None if there is none, that started at a time of time.perf_counter."""
        method = method if method in _METHODS else "other"  # clients could invent any number
        route = route or "none"
        self._requests.labels(method, route, str(status)).inc()
        if cached:
            self._cached.inc()
        if started is not None:
            self._seconds.labels(method, route).observe(time.perf_counter() - started)


def register(app: Flask) -> None:
    """Count an app's requests."""
    metrics: RequestMetrics = app.extensions["metrics"]

    @app.before_request
    def start_timer() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else None
        metrics.count(request.method, route, response.status_code, g.get("started"))
        return response
