"""gunicorn's log lines in Cutaway's format: its own, and one for each request when its response has ended."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from gunicorn import glogging

import worker.logs as logs


class Logger(glogging.Logger):
    """Logs a request's method and route, but never its query or headers, which may hold secrets."""

    def setup(self, cfg: Any) -> None:
        logs.configure("api")
        for log in (self.error_log, self.access_log):
            log.handlers, log.propagate = [], True
        self.cfg = cfg

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        if not self.access_log.isEnabledFor(logging.INFO):
            return
        seconds, status = request_time.total_seconds(), int(str(resp.status).split(None, 1)[0])
        method, route = environ.get("REQUEST_METHOD"), logs.context().get("route")
        fields = {"method": method, "route": route, "status": status, "seconds": seconds, "bytes": resp.sent}
        values = (method, route or "(no route)", status, resp.sent, 1e3 * seconds)
        self.access_log.info("%s %s %d, %d bytes in %.1f ms", *values, extra={"fields": fields})
        logs.clear()  # a request that gunicorn refuses has no id; it must not get that of the one before
