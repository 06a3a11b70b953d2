"""Compression of responses: text and layout files."""

from __future__ import annotations

from flask import Response, request
from flask_compress import Compress

from service.http.negotiation import CODINGS
from service.http.responses import JSON, YAML
from worker.layout.gltf import MEDIA_TYPE as GLB
from worker.store.safetensors import MEDIA_TYPE as SAFETENSORS

_TEXT_TYPES = ["text/html", "text/css", "text/javascript", "image/svg+xml"]

SETTINGS = {
    "COMPRESS_MIMETYPES": [*_TEXT_TYPES, JSON, "application/problem+json", YAML, GLB, SAFETENSORS],
    "COMPRESS_ALGORITHM": [*CODINGS],
    "COMPRESS_BR_LEVEL": 1,
    "COMPRESS_LEVEL": 1,
}


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
