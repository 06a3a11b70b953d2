"""Compression of responses: text and layout files."""

from __future__ import annotations

import gzip
from typing import Any

import brotli
from flask import Response, request
from flask_compress import Compress

from service.http.negotiation import CODINGS
from service.http.responses import JSON, YAML
from worker.layout.gltf import MEDIA_TYPE as GLB
from worker.store.safetensors import MEDIA_TYPE as SAFETENSORS

_TEXT_TYPES = ["text/html", "text/css", "text/javascript", "image/svg+xml"]

SETTINGS: dict[str, Any] = {
    "COMPRESS_MIMETYPES": [*_TEXT_TYPES, JSON, "application/problem+json", YAML, GLB, SAFETENSORS],
    "COMPRESS_ALGORITHM": [*CODINGS],
    "COMPRESS_BR_LEVEL": 1,
    "COMPRESS_LEVEL": 1,
}


def compress(content: bytes, coding: str) -> bytes:
    """Return content in a content coding: br, gzip or identity."""
    if coding == "br":
        return bytes(brotli.compress(content, quality=SETTINGS["COMPRESS_BR_LEVEL"]))
    return gzip.compress(content, SETTINGS["COMPRESS_LEVEL"], mtime=0) if coding == "gzip" else content


def mark(response: Response, coding: str) -> Response:
    """Mark a response whose body is compressed already, with the ETag that Flask-Compress would give it."""
    if coding != "identity" and response.status_code == 200:
        response.headers["Content-Encoding"] = coding
        response.set_etag(f"{response.get_etag()[0]}:{coding}")
    return response


class Compression(Compress):
    """Flask-Compress for everything but files of values.

    Layout files are worth compressing because layers are alike: GPT-3's shrinks to a twentieth. Values hardly shrink,
    and ranges of their files count uncompressed bytes.
    """

    def after_request(self, response: Response | None) -> Response:
        """Compress a response, unless it is a file of values."""
        if response and response.mimetype == SAFETENSORS and request.endpoint != "layouts.Layout":
            return response
        return super().after_request(response)
