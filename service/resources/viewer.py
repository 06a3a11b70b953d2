"""The viewer at /, built from viewer/."""

from __future__ import annotations

from pathlib import Path

import flask
from flask import Response

from service.http.conditional import evaluate_preconditions
from service.http.responses import IMMUTABLE, revalidated
from service.http.security_headers import policy

HTML = "text/html; charset=utf-8"
FILES = Path(__file__).parents[1] / "viewer"
POLICY = policy(img_src="'self' data: blob:")
NOT_BUILT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cutaway</title>
<h1>The viewer is not built yet</h1>
<p>Building it needs <a href="https://nodejs.org">Node.js</a> 20.19 or later. Run <code>make viewer</code> in the
checkout and reload this page; <code>make run</code> also builds it.</p>
<p>All that the viewer shows is in the API, which needs no build: see <a href="/docs">its documentation</a>.</p>
</html>
"""

blueprint = flask.Blueprint("viewer", __name__)


@blueprint.get("/")
def get() -> Response:
    """Return the viewer's page, or how to build it."""
    page = FILES / "index.html"
    text = page.read_text("utf-8") if page.is_file() else NOT_BUILT
    response = Response(text, content_type=HTML, headers={"Content-Security-Policy": POLICY})
    return revalidated(response, "viewer", text)


@blueprint.get("/viewer/assets/<path:name>")
def asset(name: str) -> Response:
    """Return a file of the page. It never changes, as its name has a hash of its content."""
    response = evaluate_preconditions(flask.send_from_directory(FILES / "assets", name, conditional=False))
    response.headers["Cache-Control"] = IMMUTABLE
    return response
