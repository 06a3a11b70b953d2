"""What browsers are told of every answer, and of our pages: the least that they work with."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from flask import Flask, Response

from service.settings import Settings

HTML = "text/html"

#: Every answer: its type is what it says, it is no part of another page, and a page made of it may do nothing.
ANSWER = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_FEATURES = "accelerometer camera display-capture geolocation gyroscope magnetometer microphone midi payment usb"
#: A page of ours, besides: it has no use for what a device can do, and shares nothing with who opened it.
PAGE = {
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES.split()),
    "Cross-Origin-Opener-Policy": "same-origin",
}


def register(app: Flask, settings: Settings) -> None:
    """Have every answer of an app say so; what an answer says itself goes first."""
    # Who may read by CORS is not asked for this: it is for <img>, <script> and the like, which need no CORS.
    shared = "cross-origin" if settings.cors_origins == "*" else "same-origin"
    every = ANSWER | {"Cross-Origin-Resource-Policy": shared}

    @app.after_request
    def add(response: Response) -> Response:
        for name, value in (every | PAGE if response.mimetype == HTML else every).items():
            response.headers.setdefault(name, value)
        return response


def page(html: str, *, scripts: Sequence[str] = (), **more: str) -> Response:
    """A page that gets everything from here and runs of what is written into it only these `scripts`.

    `more` are directives that differ from that: `img_src="'self' data:"`.
    """
    response = Response(html, content_type=f"{HTML}; charset=utf-8")
    response.headers["Content-Security-Policy"] = policy(scripts, **more)
    return response


def policy(scripts: Sequence[str] = (), **more: str) -> str:
    """The Content-Security-Policy of such a page. It names a script by its SHA-256."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    directives = {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *(f"'sha256-{digest}'" for digest in hashes)]),
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    directives |= {name.replace("_", "-"): sources for name, sources in more.items()}
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())
