"""The request context: X-Request-ID and traceparent, for logs and jobs."""

from __future__ import annotations

from flask import Flask, Response, request

import worker.logs as logs

REQUEST_ID = "X-Request-ID"


def register(app: Flask) -> None:
    """Set the log context of an app's requests. Register it first, so that later hooks log with it."""

    @app.before_request
    def begin() -> None:
        logs.begin(request.headers.get(REQUEST_ID), request.headers.get("traceparent"))
        logs.add(route=request.url_rule.rule if request.url_rule else None)

    @app.after_request
    def add_header(response: Response) -> Response:
        response.headers[REQUEST_ID] = logs.context()["request_id"]
        return response
