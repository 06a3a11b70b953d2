"""The worker process: `python -m worker`. Loads what jobs share before it forks them, then takes job after job."""

from __future__ import annotations

import gc
import logging
import os
import signal
from typing import Any

from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job

import worker.jobs
import worker.store.events as events
from worker.process import die_with_parent
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.requests import QUEUE

_KILLED = "Work-horse terminated unexpectedly"
_HEARTBEAT = 5  # seconds between two signs of life
log = logging.getLogger("worker")


class CutawayWorker(Worker):
    """RQ's forking worker; says on the request's stream how a job ended when the job itself could not."""

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds without a sign of life after which another worker takes the job over."""
        return 3 * _HEARTBEAT

    def run_maintenance_tasks(self) -> None:
        """Tidy up every few seconds, unless asked to stop: RQ's way of stopping an idle worker, an exception out of
        the signal's handler, is lost where the code it interrupts suppresses exceptions."""
        if self._shutdown_requested_date is not None:
            raise StopRequested
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Run a job in the forked process, which must not outlive its worker."""
        die_with_parent(signal.SIGKILL)
        super().main_work_horse(job, queue)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Retry a job whose process was killed; one that raised would raise again."""
        killed, stopped = exc_string.startswith(_KILLED), self._stopped_job_id == job.id
        if not killed:
            job.retries_left = 0
        retried = job.should_retry and not stopped
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)
        if stopped:
            self._tell(job, "cancelled", "It was cancelled.")
        elif retried:
            self._tell(job, "queued", "Its process was killed: it is tried again.")
        else:
            self._tell(job, "failed", _reason(exc_string))

    def _tell(self, job: Job, event: str, reason: str) -> None:
        log.warning("%s %s: %s", job.id[:12], event, reason)
        events.publish(self.connection, job.id, event, reason=reason)


def _reason(exc_string: str) -> str:
    """What a client may know of a failure: the exception's last line, and no trace."""
    if exc_string.startswith(_KILLED):
        return "The process that computed it was killed each time it was tried, perhaps for want of memory."
    last = exc_string.strip().rpartition("\n")[2]
    return last.partition(": ")[2] or last or "It failed for no known reason."


def main() -> None:
    """Work until SIGTERM or SIGINT; the running job is finished first."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("rq").setLevel(logging.WARNING)  # it has five lines to say of every job
    settings = Settings.from_environment()
    worker.jobs.warm_up(settings)
    gc.freeze()  # what is shared with the jobs stays shared: a collection in one would copy all it looks at
    queue = connect(settings.queue_url)
    log.info("ready for jobs (process %d)", os.getpid())
    CutawayWorker(
        [Queue(QUEUE, connection=queue, serializer="json")],
        connection=queue,
        serializer="json",
        worker_ttl=6 * _HEARTBEAT,
        job_monitoring_interval=_HEARTBEAT,
        maintenance_interval=_HEARTBEAT,
        log_job_description=False,
    ).work(logging_level="WARNING")
    log.info("stopped")


if __name__ == "__main__":
    main()
