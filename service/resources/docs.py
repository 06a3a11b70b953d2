"""API documentation at /docs: Swagger UI of /openapi.yaml."""

from __future__ import annotations

from importlib.resources import files

import flask
from flask import Response

from service.http.blueprint import Blueprint
from service.http.conditional import evaluate_preconditions
from service.http.security_headers import HTML, page

#: Swagger UI's static files. The package that contains them is pinned, and none of its Python code runs.
_FILES = files("flask_swagger_ui") / "dist"
_SCRIPT = 'SwaggerUIBundle({url: "/openapi.yaml", dom_id: "#docs", deepLinking: true, defaultModelsExpandDepth: 0})'
_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cutaway's API</title>
<link rel="stylesheet" href="/docs/files/swagger-ui.css">
<link rel="icon" href="/docs/files/favicon-32x32.png">
<noscript>This page needs JavaScript; <a href="/openapi.yaml">openapi.yaml</a> has the same content.</noscript>
<div id="docs"></div>
<script src="/docs/files/swagger-ui-bundle.js"></script>
<script>{_SCRIPT}</script>
</html>
"""
blueprint = Blueprint("docs", __name__, description="The API documentation as a web page")
assets = flask.Blueprint("docs_files", __name__)


@blueprint.get("/docs")
@blueprint.response(200, {"type": "string"}, content_type=HTML)
def get() -> Response:
    """Read the documentation: every operation with an example to try.

    The browser renders it from openapi.yaml and connects to this service only.
    """
    return page(_PAGE, scripts=[_SCRIPT], img_src="'self' data:")


@assets.get("/docs/files/<path:name>")
def static(name: str) -> Response:
    """Send a file of Swagger UI."""
    return evaluate_preconditions(flask.send_from_directory(str(_FILES), name, conditional=False))
