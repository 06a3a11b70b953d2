"""The worker: takes jobs and handles the failed ones."""

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
    function: str  # the dotted name of the function that it called
    arguments: tuple[Any, ...]
    started_at: datetime | None
    redis: Redis


class FailureHandler(Protocol):
    """Handles one ended job. Created before RQ retries the job or records the failure."""

    def clean_up(self) -> None:
        """Delete the unfinished result of a dead process."""

    def count(self, end: End) -> None:
        """Count a job whose process died."""

    def report(self, end: End, reason: str) -> None:
        """Report the end to the clients."""


class JobWorker(RecoveringWorker):
    """RQ's forking worker with a standby process and a handler for ended jobs."""

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
        """Check the other workers, unless a stop was requested.

        RQ stops an idle worker with an exception from the signal handler, which is lost if the interrupted code
        suppresses exceptions.
        """
        if self._shutdown_requested_date is not None:
            raise StopRequested
        super().run_maintenance_tasks()

    def dequeue_job_and_maintain_ttl(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for a job, with a standby process ready to run it."""
        self._standby = self._standby or StandbyProcess(self._prepare, self._run_in_standby)
        return super().dequeue_job_and_maintain_ttl(*args, **kwargs)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Mark a job as started and remove it from the intermediate queue, as RQ does only for a single queue."""
        super().prepare_job_execution(job, remove_from_intermediate_queue=True)

    def teardown(self) -> None:
        """Kill the standby process, too."""
        if self._standby is not None:
            self._standby.kill()
        super().teardown()  # type: ignore[no-untyped-call]

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Run a job in the standby process, or in a new one if it died."""
        standby, self._standby = self._standby, None
        while standby is None or not standby.send((job.id, queue.name, *self.executions)):
            standby = StandbyProcess(self._prepare, self._run_in_standby)
        self._horse_pid = standby.pid

    def _run_in_standby(self, sent: tuple[str, str, str]) -> None:
        """Run a job. First restore the state that RQ's own work horse inherits by forking after the job is known."""
        job_id, queue_name, execution_id = sent
        self.execution = Execution(execution_id, job_id, self.connection, self.name)
        job = fetch(job_id, self.connection)
        logs.from_job(job.meta)
        self.main_work_horse(job, open_queue(queue_name, self.connection))

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Send a heartbeat, or kill the work horse if another worker has recovered the job meanwhile."""
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
        """Retry a job whose process died or that lost Redis, and fail one that raised any other exception.

        Unfinished results of retried and stopped jobs are deleted. A job that another worker has recovered is ignored.
        """
        logs.from_job(job.meta)
        cause = failures.cause(exc_string)
        if execution is not None and cause is not Cause.LOST and self._is_recovered(job, execution):
            return
        stopped = self._stopped_job_id == job.id
        handler = self._on_failure(_ended(job))
        if cause is not Cause.RAISED or stopped:
            handler.clean_up()  # while the job still counts as started, so that no other job computes the same result
        if cause is Cause.RAISED:
            job.retries_left = 0
        end: End = "cancelled" if stopped else "retried" if job.should_retry else "failed"
        reason = failures.reason(exc_string)
        super().handle_job_failure(job, queue, started_job_registry, reason, execution)  # stores the reason as a result
        if stopped or cause.is_death:  # a job that raised an exception was counted by its own process
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
    """Run jobs of a size until SIGTERM or SIGINT.

    `prepare` runs in each standby process before its job; `on_failure` returns the handler of an ended job.
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
