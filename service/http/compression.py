"""Which answers are compressed, where the client reads that: texts, and the files of layouts."""

from __future__ import annotations

from flask import Response, request
from flask_compress import Compress

from service.http.responses import JSON, YAML
from worker.layout.gltf import MEDIA_TYPE as GLB
from worker.store.safetensors import MEDIA_TYPE as SAFETENSORS

_TEXTS = ["text/html", "text/css", "text/javascript", "image/svg+xml"]
#: The endpoints whose streams are texts.
_STREAMED = ["exports.model", "exports.trace", "docs_files.static", "viewer.asset"]

SETTINGS = {
    "COMPRESS_MIMETYPES": [*_TEXTS, JSON, "application/problem+json", YAML, GLB, SAFETENSORS],
    "COMPRESS_ALGORITHM": ["br", "gzip"],
    "COMPRESS_BR_LEVEL": 1,
    "COMPRESS_LEVEL": 1,
    "COMPRESS_EVALUATE_CONDITIONAL_REQUEST": True,
    "COMPRESS_STREAMING_ENDPOINT_CONDITIONAL": _STREAMED,
}


class Compression(Compress):
    """Flask-Compress. Of numbers only layouts' are worth it, whose layers are alike: GPT-3's shrink to a twentieth.

    Values do not; and their files are read by ranges, which are those of the bytes as they are.
    """

    def after_request(self, response: Response | None) -> Response:
        """Compress an answer, unless it is a file of values."""
        if response and response.mimetype == SAFETENSORS and request.endpoint != "layouts.Layout":
            return response
        return super().after_request(response)
