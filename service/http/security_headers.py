"""Security headers of responses and pages."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from flask import Flask, Response

from service.settings import Settings

HTML = "text/html"

#: Of all responses: no content sniffing, no framing, no scripts.
ALL_RESPONSES = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_FEATURES = "accelerometer camera display-capture geolocation gyroscope magnetometer microphone midi payment usb"
#: Of HTML pages, too: no device features, and no access by the page that opened them.
PAGES = {
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES.split()),
    "Cross-Origin-Opener-Policy": "same-origin",
}


def register(app: Flask, settings: Settings) -> None:
    """Add these headers to all responses of an app; a header that a response has already is left."""
    # This does not affect CORS: it is for <img>, <script> and the like, which load without it.
    resource_policy = "cross-origin" if settings.cors_origins in ("", "*") else "same-origin"
    headers = ALL_RESPONSES | {"Cross-Origin-Resource-Policy": resource_policy}

    @app.after_request
    def add(response: Response) -> Response:
        for name, value in (headers | PAGES if response.mimetype == HTML else headers).items():
            response.headers.setdefault(name, value)
        return response


def page(html: str, *, scripts: Sequence[str] = (), **more: str) -> Response:
    """Return a page that loads only from this origin, and whose only inline scripts are `scripts`.

    `more` overrides or adds directives: `img_src="'self' data:"`.
    """
    response = Response(html, content_type=f"{HTML}; charset=utf-8")
    response.headers["Content-Security-Policy"] = policy(scripts, **more)
    return response


def policy(scripts: Sequence[str] = (), **more: str) -> str:
    """Return the Content-Security-Policy of such a page; it allows each script by its SHA-256."""
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
