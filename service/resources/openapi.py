"""The OpenAPI document at /openapi.yaml."""

from __future__ import annotations

from flask import Response, current_app

import service.openapi.document as document
from service.http.blueprint import Blueprint
from service.http.responses import YAML

blueprint = Blueprint("openapi", __name__, description="The OpenAPI description")


@blueprint.get("/openapi.yaml")
@blueprint.response(200, {"type": "object"}, content_type=YAML)
def get() -> Response:
    """Read the description of the API.

    It is OpenAPI 3.1; clients and types can be generated from it.
    """
    extensions = current_app.extensions
    if "openapi" not in extensions:  # generating it takes half a second
        extensions["openapi"] = document.text(current_app)
    return Response(extensions["openapi"], content_type=YAML)
