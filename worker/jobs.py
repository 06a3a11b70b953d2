"""Entry points of jobs: compute a request and store the result."""

from __future__ import annotations

import json
import logging
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from redis import Redis
from redis.exceptions import RedisError

import worker.describe.counts as counts
import worker.models.lookup as models
import worker.reader as reader
import worker.rq.failures as failures
import worker.rq.running as running
import worker.store.events as events
import worker.store.job_metrics as job_metrics
import worker.store.requests as requests
import worker.store.shared_jobs as shared_jobs
import worker.weights.digests as digests
from worker.compute import COMPUTE
from worker.families.registry import describe
from worker.requests import LayoutRequest, TraceRequest
from worker.rq.jobs import TRIES
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import request_id
from worker.store.requests import Record
from worker.store.results import AlreadyArchived, Results, results
from worker.trace.sampling import Sampling

log = logging.getLogger("worker")
_PROGRESS_INTERVAL = 0.1  # seconds between two progress events
_KILLED_AFTER = 120  # seconds after its timeout by which the process of a job has certainly been killed

_settings: Settings | None = None


def configure(settings: Settings) -> None:
    """Set the settings for jobs in this process and its forks, as RQ passes jobs only their arguments."""
    global _settings
    _settings = settings
    digests.look_elsewhere(partial(reader.known, settings))


def _configured() -> Settings:
    if _settings is None:
        raise RuntimeError("worker.jobs.configure() must be called before the first job")
    return _settings


def now() -> str:
    """Return the current time as RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run(id: str) -> None:
    """Compute a request unless it is done or cancelled. The entry point of a job for one request."""
    settings = _configured()
    record = requests.get(connect(settings.queue_url), id)
    if record is None or record.cancelled:
        running.discard(id)  # cancelled after a worker took the job from its queue
    elif not results(settings).which_done([id]):
        _compute(id, record, settings, set())


def run_together(job: str, ids: list[str]) -> None:
    """Compute small requests one after another. The entry point of a shared job.

    Each request has its own timeout and fails alone. Requests that are done, cancelled or moved to another job are
    skipped, so that a retry after the process was killed continues where it stopped.
    """
    settings = _configured()
    queue, placed = connect(settings.queue_url), set[str]()
    done = results(settings).which_done(ids)
    for id in ids:
        record = requests.get(queue, id)
        if record is None or record.cancelled or record.job != job or id in done:
            continue
        started_at = now()
        times = shared_jobs.begin(queue, job, id, started_at)
        if times == 0:  # it has already failed
            continue
        try:
            if times > TRIES:
                raise RuntimeError(failures.KILLED)
            with running.time_limit(record.timeout):
                _compute(id, record, settings, placed)
        except RedisError:
            raise  # a problem of Redis, not of this request
        except Exception as error:
            failure = failures.message(traceback.format_exception_only(error)[-1])
            shared_jobs.fail(queue, job, id, failure, started_at)
            events.publish(queue, id, "failed", reason=failure)
            log.warning("%s failed: %s", id[:12], failure, extra={"fields": {"id": id}})


def _compute(id: str, record: Record, settings: Settings, placed: set[str]) -> None:
    """Compute a request and count its outcome. `placed` has the ids of layouts that are known to exist."""
    queue, began, outcome = connect(settings.queue_url), time.time(), "failed"
    try:
        outcome = _store(id, record, settings, placed)
    finally:
        count(queue, record, outcome, began)


def count(queue: Redis, record: Record, outcome: str, began: float) -> None:
    """Count the outcome of a request that started at `began` (seconds since the epoch) and has just ended."""
    waited = began - datetime.fromisoformat(record.created_at).timestamp()
    size = job_metrics.size(counts.total(describe(record.request.config)))
    job_metrics.record(queue, record.queue, record.kind, size, outcome, waited, time.time() - began)


def _store(id: str, record: Record, settings: Settings, placed: set[str]) -> str:
    """Compute a request and store its result. Return "done", or "cancelled" if it was cancelled meanwhile."""
    queue, stored, request = connect(settings.queue_url), results(settings), record.request
    times, start = {"created_at": record.created_at, "started_at": now()}, time.monotonic()
    form = request.to_json()
    events.publish(queue, id, "started")
    metadata = {"id": id, "kind": record.kind, "request": json.dumps(form)}
    with suppress(AlreadyArchived), stored.writer(id, record.timeout + _KILLED_AFTER, metadata) as writer:
        manifest = COMPUTE[record.kind](request, settings, writer.open, _Progress(queue, id))
        if isinstance(request, TraceRequest):
            manifest["layout"] = _layout(queue, stored, request.layout(), settings, placed)
        if record.job is not None and _cancelled(queue, id):  # cancelling does not kill the process of a shared job
            return "cancelled"
        manifest |= times | {"finished_at": now(), "kind": record.kind, "request": form}
        writer.finish(manifest)
    events.publish(queue, id, "done")
    seconds = time.monotonic() - start
    fields = {"id": id, "kind": record.kind, "bytes": writer.size, "seconds": round(seconds, 4)}
    log.info(
        "%s %s: %s done in %.0f ms", id[:12], record.kind, _size(writer.size), 1e3 * seconds, extra={"fields": fields}
    )
    return "done"


def warm_up(settings: Settings) -> None:
    """Configure jobs and, once before forking, load weights, create clients and run all kernels."""
    configure(settings)
    connect(settings.queue_url), results(settings)
    request = TraceRequest(models.find("nano-gpt").reference, (0,) * 6, Sampling(max_new_tokens=6))
    COMPUTE["trace"](request, settings, lambda _: _ignore, _ignore)
    COMPUTE["layout"](request.layout(), settings, lambda _: _ignore, _ignore)


def _cancelled(queue: Redis, id: str) -> bool:
    record = requests.get(queue, id)
    return record is None or record.cancelled


def _ignore(*_: object) -> None:
    pass


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.0f} KB"


def _layout(queue: Redis, stored: Results, request: LayoutRequest, settings: Settings, placed: set[str]) -> str:
    """Compute the layout of a trace, which is faster in the job of the trace than in its own. Return its id."""
    id = request_id(request)
    if id not in placed and not stored.which_done([id]):
        requests.put(queue, id, request, now(), settings.layout_timeout, settings.result_ttl)
        run(id)
    placed.add(id)
    return id


class _Progress:
    """Publishes finished layers and the estimated time left, at most once every _PROGRESS_INTERVAL."""

    def __init__(self, queue: Redis, id: str) -> None:
        self.queue, self.id = queue, id
        self.started = self.published = time.monotonic()

    def __call__(self, done: int, total: int, share: float) -> None:
        now = time.monotonic()
        if now - self.published < _PROGRESS_INTERVAL:
            return
        self.published = now
        left = round((now - self.started) * (1 - share) / share, 1) if share else None
        events.publish(self.queue, self.id, "progress", done=done, total=total, unit="layers", seconds_left=left)
