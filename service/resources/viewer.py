"""The viewer at /: a page built from viewer/, from here alone and under a strict policy."""

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
<h1>The viewer was not built yet</h1>
<p>It takes <a href="https://nodejs.org">Node.js</a> 20.19 or later. With it installed, run <code>make viewer</code> in
the checkout and load this page again; <code>make run</code> builds it by itself.</p>
<p>Everything that it shows is in the API: <a href="/docs">the documentation</a> works without it.</p>
</html>
"""

blueprint = flask.Blueprint("viewer", __name__)


@blueprint.get("/")
def get() -> Response:
    """The page; where it was not built, what has to be done."""
    page = FILES / "index.html"
    text = page.read_text("utf-8") if page.is_file() else NOT_BUILT
    response = Response(text, content_type=HTML, headers={"Content-Security-Policy": POLICY})
    return revalidated(response, "viewer", text)


@blueprint.get("/viewer/assets/<path:name>")
def asset(name: str) -> Response:
    """A file of the page. Its name has a hash of what is in it, so it never changes."""
    response = evaluate_preconditions(flask.send_from_directory(FILES / "assets", name, conditional=False))
    response.headers["Cache-Control"] = IMMUTABLE
    return response
