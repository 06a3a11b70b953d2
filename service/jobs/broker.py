"""Asking for a result once however many ask, knowing how it stands, waiting for it, cancelling it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self, cast

from flask import current_app
from redis import Redis
from rq.job import Job, JobStatus

import service.jobs.rq_jobs as rq_jobs
import worker.store.events as events
import worker.store.queues as queues
import worker.store.requests as requests
import worker.store.shared as shared
from service.jobs.admission import Admission
from service.jobs.job_queues import Jobs
from service.jobs.status import UNFINISHED
from service.settings import Settings
from worker.store.connection import connect, connect_impatiently
from worker.store.keys import Kind, request_id
from worker.store.queues import Priority
from worker.store.requests import Record
from worker.store.results import results
from worker.store.runs import Missing, Run

Status = Literal["queued", "running", "done", "failed", "cancelled"]
_ID = re.compile("[0-9a-f]{64}")
_ANSWERS = 1.5  # seconds in which Redis answers, or it is away; reads that wait for events take up to _LOOK_AGAIN
_PATIENCE = 3.0  # seconds for which an answer waits for an archive that is away
_A_PAGE = 2000  # requests that are looked at for one page
_LOOK_AGAIN = 1.0  # seconds after which a waiting request looks for itself: a killed job tells nobody

_STATUS: dict[JobStatus, Status] = {
    JobStatus.STARTED: "running",
    JobStatus.FAILED: "failed",
    JobStatus.STOPPED: "cancelled",
}


@dataclass(frozen=True)
class State:
    """How a request stands. `manifest` is there when it is done."""

    id: str
    status: Status
    request: dict[str, Any]
    created_at: str
    manifest: dict[str, Any] = field(default_factory=dict)
    started_at: str | None = None
    queue_position: int | None = None
    progress: dict[str, Any] | None = None
    reason: str | None = None


class Broker:
    """Where requests are handed in: the queue's Redis, the cache's Redis, and RQ over the first."""

    def __init__(self, settings: Settings, queue: Redis, cache: Redis) -> None:
        self.settings, self.queue = settings, queue
        self.results = results(settings, cache, _PATIENCE)
        self.admission = Admission(settings, queue, self.results)
        self.jobs = Jobs(settings, queue, self.results)

    @classmethod
    def impatient(cls, settings: Settings) -> Self:
        """One for requests: where Redis is away they hear so soon."""
        queue, cache = (connect_impatiently(url, timeout=_ANSWERS) for url in (settings.queue_url, settings.cache_url))
        return cls(settings, queue, cache)

    def patient(self) -> Broker:
        """One for streams, which hold threads of their own: where Redis is away they wait for it."""
        return Broker(self.settings, connect(self.settings.queue_url), connect(self.settings.cache_url))

    def ask(
        self,
        kind: Kind,
        request: dict[str, Any],
        timeout: int,
        seconds: float = 0,
        priority: Priority = "normal",
        caller: str = "",
    ) -> State:
        """Have a canonical request computed, unless it is done or under way; how it stands then.

        `timeout` is how long, in seconds, computing it may take, and `seconds` how long it probably does. What waits
        with a lower priority is moved up. Raises Full, where there is too much to do for now.
        """
        id = request_id(kind, request)
        state = self.find(kind, id, recompute=False)
        if state is not None and state.status in ("done", *UNFINISHED):
            if state.status in UNFINISHED:
                requests.change(self.queue, [id], batch=None)  # whoever cancels a batch leaves this one alone
            if state.status == "queued" and priority == "normal" and self.jobs.hasten(id):
                return self.find(kind, id) or state
            return state
        self.admission.admit(caller, [id])
        record = Record(kind, request, now(), timeout, queue=queues.choose(seconds, priority))
        requests.put_all(self.queue, {id: record}, self.settings.result_ttl)
        self.jobs.enqueue(id, timeout, record.queue)
        return State(id, "queued", request, record.created_at)

    def find(
        self, kind: Kind, id: str, *, recompute: bool = True, admit: Callable[[str], None] | None = None
    ) -> State | None:
        """How a request stands; None when nobody asked. A result of which the cache lost any is asked for again.

        `admit` is called before that with its id, and may raise: who asks may have to wait.
        """
        if not _ID.fullmatch(id):  # the keys of a result's pieces begin with its id
            return None
        manifest = self._manifest(kind, id)
        if manifest is not None:
            return manifest
        record = requests.get(self.queue, id)
        if record is None and recompute:  # forgotten by all but the archive
            return self._manifest(kind, id, recover=True)
        if record is None or record.kind != kind:
            return None
        state = State(id, "queued", record.request, record.created_at)
        if record.cancelled:
            return _with(state, status="cancelled")
        job = self.jobs.get(record.job or id)
        status = job.get_status(refresh=False) if job else None
        if record.job is not None:
            state = self._noted(state, record.job)
            if state.status == "failed":
                return state
        if job is None or status == JobStatus.FINISHED:
            found = self._manifest(kind, id) or self._manifest(kind, id, recover=True)  # finished since we looked
            if found is None and recompute:
                if admit is not None:
                    admit(id)
                requests.change(self.queue, [id], job=None)
                self.jobs.enqueue(id, record.timeout, record.queue)
            return found or (_with(state, status="queued") if recompute else None)
        told = _STATUS.get(cast(JobStatus, status), "queued")
        if record.job is not None and told == "running":
            told = state.status  # others that share the job run before it
        return self._under_way(state, job, told)

    def wait(self, kind: Kind, id: str, seconds: float) -> State | None:
        """The same, once it has ended or `seconds` are over."""
        deadline, seen = time.monotonic() + seconds, "0"
        while True:
            seen, event = events.wait(self.queue, id, seen, max(0.0, min(deadline - time.monotonic(), _LOOK_AGAIN)))
            over = time.monotonic() >= deadline
            if over or event not in ("queued", "started", "progress"):  # it ended, or nothing was heard
                state = self.find(kind, id)
                if over or state is None or state.status not in UNFINISHED:
                    return state

    def cancel(self, kind: Kind, id: str) -> bool:
        """Stop what is queued or running, forget what has ended; False when nobody asked for it."""
        if not _ID.fullmatch(id):
            return False
        state = self.find(kind, id, recompute=False) or self._manifest(kind, id, recover=True)
        record = requests.get(self.queue, id)
        if state is None and (record is None or record.kind != kind):
            return False
        if state is not None and state.status in UNFINISHED:
            requests.cancel(self.queue, id)
            if record is None or record.job is None:  # others need a job that they share: it passes this one over
                self.jobs.stop(id)
            events.publish(self.queue, id, "cancelled")
        else:  # of what the cache lost nothing is computed again to be forgotten
            self.jobs.delete(id)
            requests.forget(self.queue, id, kind)
            self.results.forget(id)
            events.forget(self.queue, id)
        return True

    def page(
        self, kind: Kind, before: int | None, limit: int, wanted: Callable[[State], bool]
    ) -> tuple[list[State], int | None]:
        """Up to `limit` requests of a kind, newest first, and the cursor of the next page if there may be one.

        Only so many are looked at: where few are wanted, a page has few or none, and the next goes on from there.
        """
        found: list[State] = []
        looked_at = 0
        while records := requests.newest(self.queue, kind, before, 100):
            for id, record in records:
                before = record.number
                state = self.find(kind, id, recompute=False) or State(id, "queued", record.request, record.created_at)
                if wanted(state):
                    found.append(state)
                looked_at += 1
                if len(found) == limit or looked_at == _A_PAGE:
                    return found, before
        return found, None

    def run(self, state: State) -> Run:
        """The bytes of a result that is done."""
        return self.results.run(state.id, state.manifest)

    def _manifest(self, kind: Kind, id: str, *, recover: bool = False) -> State | None:
        """A request that is done, as the cache knows it, or the archive."""
        try:
            found = self.results.recover(id) if recover else self.results.manifest(id)
        except Missing:
            return None
        if found["kind"] != kind:
            return None
        return State(id, "done", found["request"], found["created_at"], found, found["started_at"])

    def _noted(self, state: State, job: str) -> State:
        """A request as the job noted that it shares with others: whether it was begun, and whether it failed."""
        notes = shared.notes(self.queue, [job])[job]
        failure = notes.failures.get(state.id)
        if failure is not None:
            return _with(state, status="failed", started_at=failure.started_at, reason=failure.reason)
        return _with(state, status="running", started_at=notes.started_at) if notes.running == state.id else state

    def _under_way(self, state: State, job: Job, status: Status) -> State:
        if status == "queued":
            return _with(state, status=status, queue_position=self.jobs.position(job))
        started = state.started_at
        if started is None and job.started_at is not None:
            started = job.started_at.isoformat().replace("+00:00", "Z")
        if status == "failed":
            return _with(state, status=status, started_at=started, reason=rq_jobs.reason(job))
        latest = events.latest(self.queue, state.id)
        progress = latest[2] if latest and latest[1] == "progress" else None
        return _with(state, status=status, started_at=started, progress=progress)


def broker() -> Broker:
    """The app's broker."""
    return cast(Broker, current_app.extensions["broker"])


def _with(state: State, **changes: Any) -> State:
    return State(**(state.__dict__ | changes))


def now() -> str:
    """The time as RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
