"""The worker: `python -m worker`. Loads what jobs share before it forks them, then takes job after job in each lane."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from contextlib import suppress
from datetime import datetime
from typing import Any

from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job

import worker.jobs
import worker.logs as logs
import worker.store.events as events
import worker.store.queues as queues
import worker.store.requests as requests
import worker.store.shared as shared
from worker.engine.compiled import COMPILED
from worker.lanes import InTurn, Lanes
from worker.process import loading
from worker.settings import Settings
from worker.spare import Spare
from worker.store.connection import connect
from worker.store.queues import LANES, Lane
from worker.store.requests import JOB
from worker.store.results import results
from worker.takeover import LOST, LastingWorker

_KILLED = "Work-horse terminated unexpectedly"
_AWAY = "redis.exceptions."
log = logging.getLogger("worker")


class CutawayWorker(LastingWorker):
    """RQ's forking worker; says on the request's stream how a job ended when the job itself could not."""

    _spare: Spare | None = None

    def run_maintenance_tasks(self) -> None:
        """Look around every few seconds, unless asked to stop: RQ's way of stopping an idle worker, an exception out of
        the signal's handler, is lost where the code it interrupts suppresses exceptions."""
        if self._shutdown_requested_date is not None:
            raise StopRequested
        super().run_maintenance_tasks()

    def dequeue_job_and_maintain_ttl(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for a job, with a process ready to run it."""
        self._spare = self._spare or Spare(_prepare, self._carry_out)
        return super().dequeue_job_and_maintain_ttl(*args, **kwargs)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Begin a job: it need not be found again where it was put as it was taken, from whichever queue."""
        super().prepare_job_execution(job, remove_from_intermediate_queue=True)

    def teardown(self) -> None:
        """Leave nothing behind."""
        if self._spare is not None:
            self._spare.dismiss()
        super().teardown()  # type: ignore[no-untyped-call]

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Have the spare process run a job; a new one where somebody killed it."""
        spare, self._spare = self._spare, None
        while spare is None or not spare.order((job.id, queue.name, *self.executions)):
            spare = Spare(_prepare, self._carry_out)
        self._horse_pid = spare.pid

    def _carry_out(self, order: tuple[str, str, str]) -> None:
        """In the spare process: what RQ's own would have found in its copy of the worker's memory."""
        job_id, queue_name, execution_id = order
        self.execution = Execution(execution_id, job_id, self.connection, self.name)
        job = Job.fetch(job_id, connection=self.connection, serializer="json")
        logs.resume(job.meta)
        self.main_work_horse(job, Queue(queue_name, connection=self.connection, serializer="json"))

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Tell that a job is worked on, unless another worker has taken it over from this one, which was cut off."""
        if self._was_taken_over(job, execution):
            self.kill_horse()
        else:
            super().maintain_heartbeats(job, execution)

    def _was_taken_over(self, job: Job, execution: Execution) -> bool:
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
        """Retry a job whose process was killed, or for which Redis was away too long; any other that raised would
        raise again. Nothing is left of either. What another worker has taken over is that one's to end.
        """
        logs.resume(job.meta)
        if execution is not None and not exc_string.startswith(LOST) and self._was_taken_over(job, execution):
            return
        stopped = self._stopped_job_id == job.id
        killed = exc_string.startswith((_KILLED, LOST)) or _last_line(exc_string).startswith(_AWAY)
        begun = _begun(job)
        if killed or stopped:
            _tidy_up(begun)  # while the job counts as started: nobody begins the same anew
        if not killed:
            job.retries_left = 0
        retried, reason = job.should_retry and not stopped, _reason(exc_string)
        super().handle_job_failure(job, queue, started_job_registry, reason, execution)  # kept as the job's result
        if stopped or exc_string.startswith((_KILLED, LOST)):  # any other has counted itself
            _count(job, begun, "cancelled" if stopped else "retried" if retried else "failed")
        if stopped:
            self._tell(_left(job), "cancelled", "It was cancelled.")
        elif retried:
            self._tell([begun], "queued", "Its process was killed: it is tried again.")
        else:
            self._tell(_left(job), "failed", reason)
        logs.end()

    def _tell(self, ids: list[str], event: str, reason: str) -> None:
        for id in ids:
            log.warning("%s %s: %s", id[:12], event, reason, extra={"fields": {"id": id}})
        events.publish_all(self.connection, ids, event, reason=reason)


def _reason(exc_string: str) -> str:
    if exc_string.startswith(_KILLED):
        return worker.jobs.KILLED
    return worker.jobs.AWAY if _last_line(exc_string).startswith(_AWAY) else worker.jobs.reason(exc_string)


def _last_line(exc_string: str) -> str:
    return exc_string.strip().rpartition("\n")[2]


def _begun(job: Job) -> str:
    """The request that a job was computing."""
    if job.func_name == JOB:
        return job.id
    return shared.notes(job.connection, [job.id])[job.id].running or job.args[1][0]


def _count(job: Job, id: str, outcome: str) -> None:
    """Count the end of a process that was killed as it computed a request."""
    record = requests.get(job.connection, id)
    noted = None if job.func_name == JOB else shared.notes(job.connection, [job.id])[job.id].started_at
    began = datetime.fromisoformat(noted) if noted else job.started_at
    if record is not None and began is not None:
        worker.jobs.count(job.connection, record, outcome, began.timestamp())


def _left(job: Job) -> list[str]:
    """The requests that end with a job: of those that share it, the ones that have not ended before."""
    if job.func_name == JOB:
        return [job.id]
    ids, failed = job.args[1], shared.notes(job.connection, [job.id])[job.id].failures
    done = results(Settings.from_environment()).which_done(ids)
    records = zip(ids, requests.get_all(job.connection, ids), strict=True)
    return [id for id, it in records if it and it.job == job.id and not it.cancelled and id not in {*done, *failed}]


def _tidy_up(id: str) -> None:
    """Remove what a process that was killed had written of its result; it could not do so itself."""
    with suppress(RedisError):  # then it expires
        results(Settings.from_environment()).drop_unfinished(id)


def _prepare() -> None:
    """What the first job of a forked process would pay for."""
    settings = Settings.from_environment()
    worker.jobs.warm_up(settings)
    with suppress(RedisError):  # the job will say so, if it lasts
        for url in (settings.queue_url, settings.cache_url):
            connect(url).ping()


def main(lanes: list[str]) -> None:
    """Work in these lanes, all by default, until SIGTERM or SIGINT; jobs that run are finished first."""
    logs.configure("worker")
    logging.getLogger("rq").setLevel(logging.WARNING)  # it has five lines to say of every job
    if not {*lanes} <= {*LANES}:
        sys.exit(f"{' '.join(lanes)}: what a worker can be told to work on is {' or '.join(LANES)}")
    with loading():  # what is shared with the jobs stays shared
        worker.jobs.warm_up(Settings.from_environment())
    Lanes([lane for lane in LANES if not lanes or lane in lanes], _work).run()
    log.info("stopped")


def _work(lane: Lane) -> None:
    """Take the jobs of a lane, one after another."""
    queue = connect(Settings.from_environment().queue_url)
    how = "compiled kernels" if COMPILED else "NumPy alone: no compiler built the kernels"
    log.info("ready for %s jobs (process %d, %s)", lane, os.getpid(), how)
    CutawayWorker(
        [InTurn(name, connection=queue, serializer="json") for name in queues.of_lane(lane)],
        name=f"{lane}-{uuid.uuid4().hex}",
        connection=queue,
        queue_class=InTurn,
        serializer="json",
        log_job_description=False,
    ).work(logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1:])
