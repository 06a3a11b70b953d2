"""Which request an answer belongs to: X-Request-ID and traceparent come in, go into every line, and on to the job."""

from __future__ import annotations

from flask import Flask, Response, request

import worker.logs as logs

REQUEST_ID = "X-Request-ID"


def register(app: Flask) -> None:
    """Have an app follow its requests. First of all: what is registered later can tell of the request, too."""

    @app.before_request
    def begin() -> None:
        logs.begin(request.headers.get(REQUEST_ID), request.headers.get("traceparent"))
        logs.add(route=request.url_rule.rule if request.url_rule else None)

    @app.after_request
    def tell(response: Response) -> Response:
        response.headers[REQUEST_ID] = logs.context()["request_id"]
        return response
