"""Asking for a result once however many ask, knowing how it stands, waiting for it, cancelling it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

from flask import current_app
from redis import Redis
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus

import worker.store.events as events
import worker.store.pieces as pieces
import worker.store.requests as requests
from service.settings import Settings
from worker.store.keys import Kind, request_id

Status = Literal["queued", "running", "done", "failed", "cancelled"]
UNFINISHED = ("queued", "running")
_TRIES = 3  # times that a job is tried when its process gets killed
_LOOK_AGAIN = 1.0  # seconds after which a waiting request looks for itself: a killed job tells nobody

_STATUS: dict[JobStatus, Status] = {
    JobStatus.STARTED: "running",
    JobStatus.FAILED: "failed",
    JobStatus.STOPPED: "cancelled",
    JobStatus.CANCELED: "cancelled",
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


class Desk:
    """Where requests are handed in: the queue's Redis, the cache's Redis, and RQ over the first."""

    def __init__(self, settings: Settings, queue: Redis, cache: Redis) -> None:
        self.settings, self.queue, self.cache = settings, queue, cache
        self.jobs = Queue(requests.QUEUE, connection=queue, serializer="json")

    def ask(self, kind: Kind, request: dict[str, Any], timeout: int) -> State:
        """Have a canonical request computed, unless it is done or under way; how it stands then.

        `timeout` is how long, in seconds, computing it may take.
        """
        id = request_id(kind, request)
        state = self.find(kind, id, recompute=False)
        if state is None or state.status not in ("done", *UNFINISHED):
            requests.put(self.queue, id, kind, request, _now(), timeout, self.settings.result_ttl)
            self._enqueue(id, timeout)
            state = self.find(kind, id)
        assert state is not None
        return state

    def find(self, kind: Kind, id: str, *, recompute: bool = True) -> State | None:
        """How a request stands; None when nobody asked. A result that the cache lost is asked for again."""
        manifest = self._manifest(kind, id)
        if manifest is not None:
            return manifest
        record = requests.get(self.queue, id)
        if record is None or record.kind != kind:
            return None
        state = State(id, "queued", record.request, record.created_at)
        if record.cancelled:
            return _with(state, status="cancelled")
        job = self._job(id)
        status = job.get_status(refresh=False) if job else None
        if job is None or status == JobStatus.FINISHED:
            found = self._manifest(kind, id)  # it may have been finished since we looked
            if found is None and recompute:
                self._enqueue(id, record.timeout)
            return found or (state if recompute else None)
        return self._under_way(state, job, _STATUS.get(cast(JobStatus, status), "queued"))

    def wait(self, kind: Kind, id: str, seconds: float) -> State | None:
        """The same, once it has ended or `seconds` are over."""
        deadline, seen = time.monotonic() + seconds, "0"
        while True:
            state = self.find(kind, id)
            left = deadline - time.monotonic()
            if state is None or state.status not in UNFINISHED or left <= 0:
                return state
            seen = events.wait(self.queue, id, seen, min(left, _LOOK_AGAIN))

    def cancel(self, kind: Kind, id: str) -> bool:
        """Stop what is queued or running, forget what has ended; False when nobody asked for it."""
        state = self.find(kind, id, recompute=False)
        if state is None:
            return False
        if state.status in UNFINISHED:
            requests.cancel(self.queue, id)
            self._stop(id)
            events.publish(self.queue, id, "cancelled")
        else:
            self._delete_job(id)
            requests.forget(self.queue, id, kind)
            pieces.forget(self.cache, id)
            events.forget(self.queue, id)
        return True

    def lost(self, kind: Kind, id: str) -> None:
        """A piece of a finished result is gone: make it a miss, so that the next look has it computed again."""
        pieces.forget(self.cache, id)

    def page(
        self, kind: Kind, before: int | None, limit: int, wanted: Callable[[State], bool]
    ) -> tuple[list[State], int | None]:
        """Up to `limit` requests of a kind, newest first, and the cursor of the next page if there may be one."""
        found: list[State] = []
        while records := requests.newest(self.queue, kind, before, 100):
            for id, record in records:
                before = record.number
                state = self.find(kind, id, recompute=False) or State(id, "queued", record.request, record.created_at)
                if wanted(state):
                    found.append(state)
                if len(found) == limit:
                    return found, before
        return found, None

    def _manifest(self, kind: Kind, id: str) -> State | None:
        try:
            found = pieces.manifest(self.cache, id)
        except pieces.Missing:
            return None
        if found["kind"] != kind:
            return None
        return State(id, "done", found["request"], found["created_at"], found, found["started_at"])

    def _under_way(self, state: State, job: Job, status: Status) -> State:
        if status == "queued":
            return _with(state, queue_position=job.get_position())
        started = job.started_at.isoformat().replace("+00:00", "Z") if job.started_at else None
        latest = events.latest(self.queue, state.id)
        told = latest[2] if latest and latest[1] == ("progress" if status == "running" else "failed") else {}
        reason = told.get("reason", "It ended without a word.") if status == "failed" else None
        progress = told if status == "running" and told else None
        return _with(state, status=status, started_at=started, progress=progress, reason=reason)

    def _job(self, id: str) -> Job | None:
        try:
            return Job.fetch(id, connection=self.queue, serializer="json")
        except NoSuchJobError:
            return None

    def _enqueue(self, id: str, timeout: int) -> None:
        job = self._job(id)
        if job and job.get_status(refresh=False) not in (JobStatus.QUEUED, JobStatus.STARTED):
            job.delete()  # RQ refuses a second job of an id, ended or not
        try:
            self.jobs.enqueue(
                requests.JOB,
                id,
                job_id=id,
                unique=True,
                job_timeout=timeout,
                result_ttl=self.settings.failure_ttl,
                failure_ttl=self.settings.failure_ttl,
                retry=Retry(max=_TRIES - 1),
            )
            events.publish(self.queue, id, "queued")
        except DuplicateJobError:
            pass  # somebody asked for the same at the same moment

    def _stop(self, id: str) -> None:
        job = self._job(id)
        if job is None:
            return
        if job.get_status(refresh=False) == JobStatus.STARTED:
            try:
                send_stop_job_command(self.queue, id, serializer="json")
            except InvalidJobOperation:
                pass  # it ended meanwhile
        else:
            job.cancel()

    def _delete_job(self, id: str) -> None:
        job = self._job(id)
        if job is not None:
            job.delete()


def desk() -> Desk:
    """The app's desk."""
    return cast(Desk, current_app.extensions["desk"])


def _with(state: State, **changes: Any) -> State:
    return State(**(state.__dict__ | changes))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
