"""The request context: X-Request-ID and traceparent, for logs and jobs."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request

import worker.logs as logs

REQUEST_ID = "X-Request-ID"


def begin(request_id: str | None, traceparent: str | None, **fields: Any) -> str:
    """Set the log context of a request from its headers, with more fields; return the request's id."""
    logs.begin(request_id, traceparent)
    logs.add(**fields)
    return str(logs.context()["request_id"])


def register(app: Flask) -> None:
    """Set the log context of an app's requests. Register it first, so that later hooks log with it."""

    @app.before_request
    def set_context() -> None:
        route = request.url_rule.rule if request.url_rule else None
        begin(request.headers.get(REQUEST_ID), request.headers.get("traceparent"), route=route)

    @app.after_request
    def add_header(response: Response) -> Response:
        response.headers[REQUEST_ID] = logs.context()["request_id"]
        return response
