"""The broker: submit requests, read their state, wait, cancel."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Generic, Literal, Self, TypeVar, cast

from flask import current_app
from redis import Redis

import worker.rq.jobs as jobs
import worker.store.events as events
import worker.store.queues as queues
import worker.store.requests as requests
import worker.store.shared_jobs as shared_jobs
from service.jobs.admission import Admission
from service.jobs.status import UNFINISHED
from service.settings import Settings
from worker.requests import Request
from worker.rq.jobs import Jobs, JobState
from worker.store.connection import connect, connect_failing_fast
from worker.store.keys import request_id
from worker.store.queues import Priority
from worker.store.requests import Record
from worker.store.results import results
from worker.store.stored_bytes import Missing, StoredBytes

Status = Literal["queued", "running", "done", "failed", "cancelled"]
R = TypeVar("R", bound=Request)
_ID = re.compile("[0-9a-f]{64}")
_REDIS_TIMEOUT = 1.5  # seconds; longer than _POLL_SECONDS, for which a read may block
_ARCHIVE_TIMEOUT = 3.0  # seconds for which a request retries an unavailable archive
_MAX_SCANNED = 2000  # requests that are read for one page
_POLL_SECONDS = 1.0  # without an event, after which the state is read: a killed job publishes nothing

_STATUS: dict[jobs.Status, Status] = {
    "queued": "queued",
    "started": "running",
    "failed": "failed",
    "stopped": "cancelled",
}


@dataclass(frozen=True)
class State(Generic[R]):
    """A request and its status; `manifest` is the manifest of its result when it is done."""

    id: str
    status: Status
    request: R
    created_at: str
    manifest: dict[str, Any] = field(default_factory=dict)
    started_at: str | None = None
    queue_position: int | None = None
    progress: dict[str, Any] | None = None
    reason: str | None = None


class Broker:
    """Requests and their results, in the queue's Redis (with RQ) and the cache's Redis."""

    def __init__(self, settings: Settings, queue: Redis, cache: Redis) -> None:
        self.settings, self.queue = settings, queue
        self.results = results(settings, cache, _ARCHIVE_TIMEOUT)
        self.admission = Admission(settings, queue, self.results)
        self.jobs = Jobs(settings, queue, self.results)

    @classmethod
    def for_requests(cls, settings: Settings) -> Self:
        """Return a broker for HTTP requests, which fail soon if Redis does not answer."""
        urls = settings.queue_url, settings.cache_url
        queue, cache = (connect_failing_fast(url, timeout=_REDIS_TIMEOUT) for url in urls)
        return cls(settings, queue, cache)

    def for_streams(self) -> Broker:
        """Return a broker for event streams, which have threads of their own and wait for an unavailable Redis."""
        return Broker(self.settings, connect(self.settings.queue_url), connect(self.settings.cache_url))

    def submit(
        self,
        request: R,
        timeout: int,
        seconds: float = 0,
        priority: Priority = "normal",
        client: str = "",
    ) -> State[R]:
        """Enqueue a request unless its result exists or is in progress; return its state.

        `timeout` is how many seconds its job may take, `seconds` the estimate. A queued request of low priority is
        moved up if it is submitted again with normal priority. Raises Full if a limit is reached.
        """
        kind, id = type(request), request_id(request)
        state = self.find(kind, id, recompute=False)
        if state is not None and state.status in ("done", *UNFINISHED):
            if state.status in UNFINISHED:
                requests.change(self.queue, [id], batch=None)  # cancelling a batch does not cancel this request
            if state.status == "queued" and priority == "normal" and self.jobs.prioritize(id):
                return self.find(kind, id) or state
            return state
        self.admission.admit(client, [id])
        record = Record(request, now(), timeout, queue=queues.choose(seconds, priority))
        requests.put_all(self.queue, {id: record}, self.settings.result_ttl)
        self.jobs.enqueue(id, timeout, record.queue)
        return State(id, "queued", request, record.created_at)

    def find(
        self, kind: type[R], id: str, *, recompute: bool = True, admit: Callable[[str], None] | None = None
    ) -> State[R] | None:
        """Return the state of a request of a kind, or None if there is no such request.

        If `recompute`, a result that the cache evicted is computed again, after a call of `admit` with its id, which
        may raise.
        """
        if not _ID.fullmatch(id):  # anything else might be the key of a piece of a result
            return None
        manifest = self._manifest(kind, id)
        if manifest is not None:
            return manifest
        record = requests.get(self.queue, id)
        if record is None and recompute:  # the archive may still have the result
            return self._manifest(kind, id, recover=True)
        if record is None or not isinstance(record.request, kind):
            return None
        state: State[R] = State(id, "queued", record.request, record.created_at)
        if record.cancelled:
            return replace(state, status="cancelled")
        job = self.jobs.get(record.job or id)
        if record.job is not None:
            state = self._shared(state, record.job)
            if state.status == "failed":
                return state
        if job is None or job.status == "finished":
            found = self._manifest(kind, id) or self._manifest(kind, id, recover=True)  # finished meanwhile
            if found is None and recompute:
                if admit is not None:
                    admit(id)
                requests.change(self.queue, [id], job=None)
                self.jobs.enqueue(id, record.timeout, record.queue)
            return found or (replace(state, status="queued") if recompute else None)
        shown = _STATUS[job.status]
        if record.job is not None and shown == "running":
            shown = state.status  # the job may be computing another of its requests
        return self._in_progress(state, job, shown)

    def wait(self, kind: type[R], id: str, seconds: float) -> State[R] | None:
        """Return the state of a request once it has ended or `seconds` have passed."""
        deadline, seen = time.monotonic() + seconds, "0"
        while True:
            seen, event = events.wait(self.queue, id, seen, max(0.0, min(deadline - time.monotonic(), _POLL_SECONDS)))
            over = time.monotonic() >= deadline
            if over or event not in ("queued", "started", "progress"):  # it ended, or there was no event
                state = self.find(kind, id)
                if over or state is None or state.status not in UNFINISHED:
                    return state

    def cancel(self, kind: type[Request], id: str) -> bool:
        """Stop an unfinished request or delete one that has ended; return False if there is no such request."""
        if not _ID.fullmatch(id):
            return False
        state = self.find(kind, id, recompute=False) or self._manifest(kind, id, recover=True)
        record = requests.get(self.queue, id)
        if state is None and (record is None or not isinstance(record.request, kind)):
            return False
        if state is not None and state.status in UNFINISHED:
            requests.cancel(self.queue, id)
            if record is None or record.job is None:  # a shared job goes on and skips this request
                self.jobs.stop(id)
            events.publish(self.queue, id, "cancelled")
        else:
            self.jobs.delete(id)
            requests.delete(self.queue, id, kind.kind)
            self.results.delete(id)
            events.delete(self.queue, id)
        return True

    def page(
        self, kind: type[R], before: int | None, limit: int, wanted: Callable[[State[R]], bool]
    ) -> tuple[list[State[R]], int | None]:
        """Return up to `limit` requests of a kind, newest first, and the cursor of the next page if there may be one.

        At most _MAX_SCANNED requests are read, so a page may be short or empty and still have a next one.
        """
        found: list[State[R]] = []
        scanned = 0
        while records := requests.newest(self.queue, kind.kind, before, 100):
            for id, record in records:
                before = record.number
                request = cast(R, record.request)  # the index holds only this kind
                state = self.find(kind, id, recompute=False) or State(id, "queued", request, record.created_at)
                if wanted(state):
                    found.append(state)
                scanned += 1
                if len(found) == limit or scanned == _MAX_SCANNED:
                    return found, before
        return found, None

    def bytes_of(self, state: State[Any]) -> StoredBytes:
        """Return the bytes of a finished result."""
        return self.results.bytes_of(state.id, state.manifest)

    def _manifest(self, kind: type[R], id: str, *, recover: bool = False) -> State[R] | None:
        """Return the state of a finished request from its manifest in the cache, or in the archive if `recover`."""
        try:
            found = self.results.recover(id) if recover else self.results.manifest(id)
        except Missing:
            return None
        if found["kind"] != kind.kind:
            return None
        request = cast(R, kind.from_json(found["request"]))
        return State(id, "done", request, found["created_at"], found, found["started_at"])

    def _shared(self, state: State[R], job: str) -> State[R]:
        """Return the state of a request in a shared job, which records what it is running and what failed."""
        shared = shared_jobs.get_all(self.queue, [job])[job]
        failure = shared.failures.get(state.id)
        if failure is not None:
            return replace(state, status="failed", started_at=failure.started_at, reason=failure.reason)
        return replace(state, status="running", started_at=shared.started_at) if shared.running == state.id else state

    def _in_progress(self, state: State[R], job: JobState, status: Status) -> State[R]:
        if status == "queued":
            return replace(state, status=status, queue_position=self.jobs.position(job))
        started = state.started_at
        if started is None and job.started_at is not None:
            started = job.started_at.isoformat().replace("+00:00", "Z")
        if status == "failed":
            return replace(state, status=status, started_at=started, reason=self.jobs.reason(job.id))
        latest = events.latest(self.queue, state.id)
        progress = latest[2] if latest and latest[1] == "progress" else None
        return replace(state, status=status, started_at=started, progress=progress)


def broker() -> Broker:
    """Return the current app's broker."""
    return cast(Broker, current_app.extensions["broker"])


def now() -> str:
    """Return the current time in UTC, as RFC 3339."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
