"""gunicorn's lines as Cutaway's: its own, and one for each request when its answer has been sent, or was cut off."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from gunicorn import glogging

import worker.logs as logs


class Logger(glogging.Logger):
    """Tells of a request its method, its route and never its query or headers: nobody's secret is in a line."""

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
        told = (method, route or "(no route)", status, resp.sent, 1e3 * seconds)
        self.access_log.info("%s %s %d, %d bytes in %.1f ms", *told, extra={"fields": fields})
        logs.clear()  # a request that gunicorn refuses by itself has no id, and not that of the one before it
