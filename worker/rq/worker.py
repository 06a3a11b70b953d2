"""The worker that takes jobs, one after another, and reports how those ended that could not do so themselves."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from redis import Redis
from rq import Queue
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job

import worker.logs as logs
import worker.rq.failures as failures
import worker.store.queues as queues
from worker.rq.failures import Cause
from worker.rq.queue import SERIALIZER, PriorityQueue, fetch, open_queue
from worker.rq.recovery import RecoveringWorker
from worker.rq.standby import StandbyProcess
from worker.store.queues import JobSize

End = Literal["cancelled", "retried", "failed"]


@dataclass(frozen=True)
class EndedJob:
    """A job that failed, was stopped, or whose process died."""

    id: str
    function: str  # that it called, by its dotted name
    arguments: tuple[Any, ...]
    started_at: datetime | None
    redis: Redis


class FailureHandler(Protocol):
    """What the worker's owner does about one ended job. Made before RQ retries the job or records its end."""

    def clean_up(self) -> None:
        """Remove what a dead process wrote."""

    def count(self, end: End) -> None:
        """Count the end of a job whose process died."""

    def report(self, end: End, reason: str) -> None:
        """Tell the clients."""


class JobWorker(RecoveringWorker):
    """RQ's forking worker with a standby process; handles the end of jobs that could not report it themselves."""

    def __init__(
        self,
        *args: Any,
        prepare: Callable[[], None],
        on_failure: Callable[[EndedJob], FailureHandler],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._prepare, self._on_failure = prepare, on_failure
        self._standby: StandbyProcess | None = None

    def run_maintenance_tasks(self) -> None:
        """Check the other workers, unless asked to stop.

        RQ stops an idle worker by an exception out of the signal's handler, which is lost where the code that it
        interrupts suppresses exceptions.
        """
        if self._shutdown_requested_date is not None:
            raise StopRequested
        super().run_maintenance_tasks()

    def dequeue_job_and_maintain_ttl(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for a job, with a process ready to run it."""
        self._standby = self._standby or StandbyProcess(self._prepare, self._run_in_standby)
        return super().dequeue_job_and_maintain_ttl(*args, **kwargs)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Begin a job, and remove it from the intermediate queue, where RQ leaves jobs of several queues."""
        super().prepare_job_execution(job, remove_from_intermediate_queue=True)

    def teardown(self) -> None:
        """End the standby process, too."""
        if self._standby is not None:
            self._standby.kill()
        super().teardown()  # type: ignore[no-untyped-call]

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Run a job in the standby process, or in a new one if that was killed."""
        standby, self._standby = self._standby, None
        while standby is None or not standby.send((job.id, queue.name, *self.executions)):
            standby = StandbyProcess(self._prepare, self._run_in_standby)
        self._horse_pid = standby.pid

    def _run_in_standby(self, sent: tuple[str, str, str]) -> None:
        """Run a job, and rebuild first what RQ's own work horse has in its copy of the worker's memory."""
        job_id, queue_name, execution_id = sent
        self.execution = Execution(execution_id, job_id, self.connection, self.name)
        job = fetch(job_id, self.connection)
        logs.from_job(job.meta)
        self.main_work_horse(job, open_queue(queue_name, self.connection))

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Send heartbeats, unless this worker was cut off and another one has recovered the job."""
        if self._is_recovered(job, execution):
            self.kill_horse()
        else:
            super().maintain_heartbeats(job, execution)

    def _is_recovered(self, job: Job, execution: Execution) -> bool:
        running = job.started_job_registry.key
        return self.connection.zscore(running, execution.composite_key) is None

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Retry a job whose process died or that lost Redis; one that raised another exception would raise it again.

        The result of neither is left in part. A job that another worker has recovered is left to that worker.
        """
        logs.from_job(job.meta)
        cause = failures.cause(exc_string)
        if execution is not None and cause is not Cause.LOST and self._is_recovered(job, execution):
            return
        stopped = self._stopped_job_id == job.id
        handler = self._on_failure(_ended(job))
        if cause is not Cause.RAISED or stopped:
            handler.clean_up()  # while the job counts as started, so that no other job computes the same
        if cause is Cause.RAISED:
            job.retries_left = 0
        end: End = "cancelled" if stopped else "retried" if job.should_retry else "failed"
        reason = failures.reason(exc_string)
        super().handle_job_failure(job, queue, started_job_registry, reason, execution)  # keeps the reason as a result
        if stopped or cause.is_death:  # a job that raised an exception has counted itself
            handler.count(end)
        handler.report(end, reason)
        logs.clear()


def _ended(job: Job) -> EndedJob:
    return EndedJob(job.id, job.func_name or "", tuple(job.args), job.started_at, job.connection)


def work(
    size: JobSize,
    redis: Redis,
    prepare: Callable[[], None],
    on_failure: Callable[[EndedJob], FailureHandler],
) -> None:
    """Take jobs of a size until SIGTERM or SIGINT.

    `prepare` runs in each standby process before its job; `on_failure` gives what handles the end of a job.
    """
    JobWorker(
        [open_queue(name, redis) for name in queues.names_of(size)],
        name=f"{size}-{uuid.uuid4().hex}",
        connection=redis,
        queue_class=PriorityQueue,
        serializer=SERIALIZER,
        log_job_description=False,
        prepare=prepare,
        on_failure=on_failure,
    ).work(logging_level="WARNING")
