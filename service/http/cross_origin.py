"""Cross-origin resource sharing (CORS): what pages of other origins may do."""

from __future__ import annotations

from flask import Flask, request
from flask_cors import CORS
from werkzeug.exceptions import Forbidden

import service.http.rate_limit as rate_limit
import service.http.request_context as request_context
import service.http.tensor_responses as tensor_responses
from service.settings import Settings

#: Response headers that scripts of other origins may read, in addition to those that CORS always exposes.
EXPOSED = [
    "Location",
    "ETag",
    "Preference-Applied",
    "Retry-After",
    "Allow",
    *tensor_responses.HEADERS,
    *rate_limit.HEADERS,
    request_context.REQUEST_ID,
    "Accept-Ranges",
    "Content-Range",
    "Content-Disposition",
]
#: What any page may send if CORS_ORIGINS is not set: it reads, and does not act as the user or with a key.
READING = ("GET", "HEAD", "OPTIONS")
READING_HEADERS = (
    *("Accept", "Prefer", "Range", "If-Range", "If-None-Match", "If-Modified-Since", "Last-Event-ID"),
    *(request_context.REQUEST_ID, "traceparent", "tracestate"),
)


def register(app: Flask, settings: Settings) -> None:
    """Let the pages of CORS_ORIGINS do everything, or without that setting let all pages read."""
    if settings.cors_origins:
        origins = [origin.strip() for origin in settings.cors_origins.split(",")]
        CORS(app, origins=origins, expose_headers=EXPOSED, send_wildcard=True)
        return
    CORS(app, origins="*", methods=READING, allow_headers=READING_HEADERS, expose_headers=EXPOSED, send_wildcard=True)

    known = {name.lower() for name in READING_HEADERS}

    @app.before_request
    def explain_refused_preflight() -> None:
        method = request.headers.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or method is None:
            return
        named = request.headers.get("Access-Control-Request-Headers", "").lower().split(",")
        if method not in READING or not known.issuperset(name.strip() for name in named if name.strip()):
            raise Forbidden(
                f"Pages of other origins may only read: {', '.join(READING)}, with the headers "
                f"{', '.join(READING_HEADERS)}. The setting CORS_ORIGINS allows the pages that it lists everything."
            )
