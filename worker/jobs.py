"""What a job does: take a request by its id, have it computed, put the result in the cache, say how it goes."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from redis import Redis

import worker.gpt.models as models
import worker.store.events as events
import worker.store.pieces as pieces
import worker.store.requests as requests
from worker.compute import COMPUTE, layout_request
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import request_id

log = logging.getLogger("worker")
_PROGRESS_EVERY = 0.1  # seconds between two progress events
_KILLED_AFTER = 120  # seconds over its time after which a job's process, whatever it does, is no more


def now() -> str:
    """The time as RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run(id: str) -> None:
    """Compute the request `id` (the one entry point that jobs name). What is done or cancelled is left alone."""
    settings = Settings.from_environment()
    queue, cache = connect(settings.queue_url), connect(settings.cache_url)
    record = requests.get(queue, id)
    if record is None or record.cancelled or pieces.is_done(cache, id):
        return
    times, begun = {"created_at": record.created_at, "started_at": now()}, time.monotonic()
    events.publish(queue, id, "started")
    with pieces.Writer(cache, id, record.timeout + _KILLED_AFTER) as writer:
        manifest = COMPUTE[record.kind](record.request, settings, writer.append, _Progress(queue, id))
        if record.kind == "trace":
            manifest["layout"] = _picture(queue, cache, layout_request(record.request), settings)
        manifest |= times | {"finished_at": now(), "kind": record.kind, "request": record.request}
        writer.finish(manifest)
    events.publish(queue, id, "done")
    log.info("%s %s: %s done in %.0f ms", id[:12], record.kind, _size(writer.size), 1e3 * (time.monotonic() - begun))


def warm_up(settings: Settings) -> None:
    """Do once, before the fork, what every job would pay for: load weights, make clients, touch the arithmetic."""
    connect(settings.queue_url), connect(settings.cache_url)
    model = models.find("nano-gpt")
    asked = {"tokens": [0] * 6, "generate": {"max_new_tokens": 6}, "capture": ["*"], "dtype": "float32"}
    request = model.canonical() | asked
    COMPUTE["trace"](request, settings, _ignore, _ignore)
    COMPUTE["layout"](layout_request(request), settings, _ignore, _ignore)


def _ignore(*_: object) -> None:
    pass


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.0f} KB"


def _picture(queue: Redis, cache: Redis, request: dict[str, object], settings: Settings) -> str:
    """Where the layout of a trace is; it is made here, as placing blocks takes less than asking another job."""
    id = request_id("layout", request)
    if not pieces.is_done(cache, id):
        requests.put(queue, id, "layout", request, now(), settings.layout_timeout, settings.result_ttl)
        run(id)
    return f"/v1/layouts/{id}"


class _Progress:
    """Reports layers as they end and how long the rest may take, seldom enough to cost nothing."""

    def __init__(self, queue: Redis, id: str) -> None:
        self.queue, self.id = queue, id
        self.begun = self.reported = time.monotonic()

    def __call__(self, done: int, total: int, share: float) -> None:
        now = time.monotonic()
        if now - self.reported < _PROGRESS_EVERY:
            return
        self.reported = now
        left = round((now - self.begun) * (1 - share) / share, 1) if share else None
        events.publish(self.queue, self.id, "progress", done=done, total=total, unit="layers", seconds_left=left)
