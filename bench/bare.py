"""A bare Flask route on the API's server, as the baseline of a request.

Run it with `python -m bench.bare PORT`. GET /4096 returns 4,096 bytes.
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
    """The API's server with a minimal app, which logs nothing."""

    def load(self) -> Callable[..., Any]:
        app = Flask("bare")
        app.extensions["streams"] = Streams(0)  # the server expects it
        body = cache(lambda size: b"\0" * size)

        @app.get("/<int:size>")
        def get(size: int) -> Response:
            return Response(body(size), content_type="application/octet-stream")

        return app


if __name__ == "__main__":
    Bare("127.0.0.1", int(sys.argv[1]), 1, 16).run()
