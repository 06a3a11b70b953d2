"""What a request costs that does nothing: a Flask route of its own under the settings of the API's server.

`python -m bench.bare PORT`; GET /4096 answers with as many bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from flask import Flask, Response

from service.http.event_stream import Streams
from service.server.gunicorn_app import Server


class Bare(Server):
    """The API's server with another app in it, which logs nothing."""

    def load(self) -> Callable[..., Any]:
        app = Flask("bare")
        app.extensions["streams"] = Streams(0)  # the server looks for them
        held = cache(lambda size: b"\0" * size)

        @app.get("/<int:size>")
        def get(size: int) -> Response:
            return Response(held(size), content_type="application/octet-stream")

        return app


if __name__ == "__main__":
    Bare("127.0.0.1", int(sys.argv[1]), 1, 16).run()
