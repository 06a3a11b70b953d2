"""What a job does: take a request by its id, have it computed, store the result, say how it goes."""

from __future__ import annotations

import json
import logging
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime

from redis import Redis
from redis.exceptions import RedisError

import worker.describe.counts as counts
import worker.models.models as models
import worker.rq.failures as failures
import worker.rq.running as running
import worker.store.events as events
import worker.store.job_metrics as job_metrics
import worker.store.requests as requests
import worker.store.shared_jobs as shared_jobs
from worker.compute import COMPUTE, layout_request
from worker.families.config import Config
from worker.rq.jobs import TRIES
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import request_id
from worker.store.requests import Record
from worker.store.results import AlreadyThere, Results, results

log = logging.getLogger("worker")
_PROGRESS_EVERY = 0.1  # seconds between two progress events
_KILLED_AFTER = 120  # seconds over its time after which a job's process, whatever it does, is no more


def now() -> str:
    """The time as RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run(id: str) -> None:
    """Compute the request `id`: the entry point of a job of its own. What is done or cancelled is left alone."""
    settings = Settings.from_environment()
    record = requests.get(connect(settings.queue_url), id)
    if record is None or record.cancelled:
        running.discard(id)  # it was cancelled as a worker took it, too late to remove it from its queue
    elif not results(settings).which_done([id]):
        _compute(id, record, settings, set())


def run_together(job: str, ids: list[str]) -> None:
    """Compute small requests, each as if it had a job of its own: the entry point of a job that they share.

    Each has its own time, and fails alone. One that is done, cancelled or another job's by now is passed over, and so
    the job, when it is tried again after its process was killed, goes on where it was.
    """
    settings = Settings.from_environment()
    queue, placed = connect(settings.queue_url), set[str]()
    done = results(settings).which_done(ids)
    for id in ids:
        record = requests.get(queue, id)
        if record is None or record.cancelled or record.job != job or id in done:
            continue
        started_at = now()
        times = shared_jobs.begin(queue, job, id, started_at)
        if times == 0:  # it has failed
            continue
        try:
            if times > TRIES:
                raise RuntimeError(failures.KILLED)
            with running.time_limit(record.timeout):
                _compute(id, record, settings, placed)
        except RedisError:
            raise  # no fault of this one
        except Exception as error:
            told = failures.message(traceback.format_exception_only(error)[-1])
            shared_jobs.fail(queue, job, id, told, started_at)
            events.publish(queue, id, "failed", reason=told)
            log.warning("%s failed: %s", id[:12], told, extra={"fields": {"id": id}})


def _compute(id: str, record: Record, settings: Settings, placed: set[str]) -> None:
    """Compute a request and count how it went. `placed` are the layouts that this job has seen to be there."""
    queue, began, outcome = connect(settings.queue_url), time.time(), "failed"
    try:
        outcome = _store(id, record, settings, placed)
    finally:
        count(queue, record, outcome, began)


def count(queue: Redis, record: Record, outcome: str, began: float) -> None:
    """Count how computing a request that began then (seconds since the epoch) has ended, now."""
    waited = began - datetime.fromisoformat(record.created_at).timestamp()
    size = job_metrics.size(counts.total(Config(**record.request["config"])))
    job_metrics.record(queue, record.queue, record.kind, size, outcome, waited, time.time() - began)


def _store(id: str, record: Record, settings: Settings, placed: set[str]) -> str:
    """Compute a request and store its result; "done", or "cancelled" while it was computed."""
    queue, kept = connect(settings.queue_url), results(settings)
    times, begun = {"created_at": record.created_at, "started_at": now()}, time.monotonic()
    events.publish(queue, id, "started")
    about = {"id": id, "kind": record.kind, "request": json.dumps(record.request)}
    with suppress(AlreadyThere), kept.writer(id, record.timeout + _KILLED_AFTER, about) as writer:
        manifest = COMPUTE[record.kind](record.request, settings, writer.open, _Progress(queue, id))
        if record.kind == "trace":
            manifest["layout"] = _layout(queue, kept, layout_request(record.request), settings, placed)
        if record.job is not None and _cancelled(queue, id):  # whose process others need: it was not killed
            return "cancelled"
        manifest |= times | {"finished_at": now(), "kind": record.kind, "request": record.request}
        writer.finish(manifest)
    events.publish(queue, id, "done")
    seconds = time.monotonic() - begun
    told = {"id": id, "kind": record.kind, "bytes": writer.size, "seconds": round(seconds, 4)}
    log.info(
        "%s %s: %s done in %.0f ms", id[:12], record.kind, _size(writer.size), 1e3 * seconds, extra={"fields": told}
    )
    return "done"


def warm_up(settings: Settings) -> None:
    """Do once, before the fork, what every job would pay for: load weights, make clients, touch the arithmetic."""
    connect(settings.queue_url), results(settings)
    model = models.find("nano-gpt")
    asked = {"tokens": [0] * 6, "generate": {"max_new_tokens": 6}, "capture": ["*"], "dtype": "float32"}
    request = model.canonical() | asked
    COMPUTE["trace"](request, settings, lambda _: _ignore, _ignore)
    COMPUTE["layout"](layout_request(request), settings, lambda _: _ignore, _ignore)


def _cancelled(queue: Redis, id: str) -> bool:
    record = requests.get(queue, id)
    return record is None or record.cancelled


def _ignore(*_: object) -> None:
    pass


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.0f} KB"


def _layout(queue: Redis, kept: Results, request: dict[str, object], settings: Settings, placed: set[str]) -> str:
    """Return the id of a trace's layout; it is made here, as placing blocks takes less than another job."""
    id = request_id("layout", request)
    if id not in placed and not kept.which_done([id]):
        requests.put(queue, id, "layout", request, now(), settings.layout_timeout, settings.result_ttl)
        run(id)
    placed.add(id)
    return id


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
