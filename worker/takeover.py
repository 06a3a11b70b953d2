"""A worker that outlives others, and Redis: signs of life, and what becomes of the jobs of one that is no more.

Redis' own expiry tells who is alive. RQ compares the clocks of the workers' machines: where two differ, or one is set,
it would take jobs from workers that live, or leave them with dead ones.
"""

from __future__ import annotations

import time
from typing import Any

import redis.exceptions
from rq import Queue, Worker, worker_registration
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry

HEARTBEAT = 1  # seconds between two signs of life, and two looks for those of others
SILENCE = 5  # seconds without one after which a worker counts as dead
LOST = "The worker that computed it died each time it was tried."
_ON_THE_WAY = 2.0  # seconds, more than a job ever takes from the queue to its execution


class LastingWorker(Worker):
    """RQ's forking worker; soon takes over, once, what a worker ran that died, and waits for a Redis that is away."""

    max_connection_wait_time = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.job_monitoring_interval = HEARTBEAT
        self._looked = self._began = -float("inf")  # when this worker last looked for the dead, and since when it does
        self._taken: dict[str, float] = {}  # the jobs that were last seen between queue and execution, and since when

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that an idle worker waits for a job before it gives a sign of life."""
        return HEARTBEAT

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether it is time to look for the dead."""
        return time.monotonic() - self._looked >= 0.75 * HEARTBEAT

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds without a sign of life after which another worker takes the job over."""
        return SILENCE

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Give a sign of life; others may have taken this worker for dead before."""
        if pipeline is None:
            with self.connection.pipeline(transaction=False) as own:
                self.heartbeat(timeout, own)
                own.execute()
            return
        super().heartbeat(SILENCE, pipeline)
        pipeline.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipeline)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """The same while a job runs; who works all day sees the dead, too."""
        super().maintain_heartbeats(job, execution)
        if self.should_run_maintenance_tasks:
            self.look_for_the_dead()

    def run_maintenance_tasks(self) -> None:
        """What RQ does between jobs."""
        self.look_for_the_dead()

    def look_for_the_dead(self) -> None:
        """Have jobs tried again whose workers died. Who has just come, or come back, gives others the time to do so:
        perhaps Redis was away from all."""
        now = time.monotonic()
        if now - self._looked > SILENCE:
            self._began = now
        self._looked = now
        on_the_way = {queue.name: queue.intermediate_queue.get_job_ids() for queue in self.queues}
        self._taken = {id: self._taken.get(id, now) for ids in on_the_way.values() for id in ids}
        if now - self._began < SILENCE / 2:
            return
        for queue in self.queues:
            lost = [id for id in on_the_way[queue.name] if now - self._taken[id] >= _ON_THE_WAY]
            if self.connection.set(f"{queue.key}:looked", 1, nx=True, px=900 * HEARTBEAT):  # one worker is enough
                self._take_over(queue, lost)

    def _take_over(self, queue: Queue, lost: list[str]) -> None:
        registry = queue.started_job_registry
        begun = registry.get_job_and_execution_ids(cleanup=False)
        executions = [Execution(execution, job, self.connection) for job, execution in begun]
        alive = self.connection.pipeline(transaction=False)
        for execution in executions:
            alive.exists(execution.key)
        for execution, lives in zip(executions, alive.execute() if executions else [], strict=True):
            if not lives:
                self._try_again(queue, execution.job_id, execution)
        for id in set(lost) - {job for job, _ in begun}:
            self._try_again(queue, id, None)
        for kept in (FinishedJobRegistry, FailedJobRegistry):
            kept(queue.name, queue.connection, serializer="json").cleanup()
        worker_registration.clean_worker_registry(queue)

    def _try_again(self, queue: Queue, id: str, execution: Execution | None) -> None:
        job = queue.fetch_job(id)
        if job is not None and job.get_status(refresh=False) in (JobStatus.STARTED, JobStatus.QUEUED):
            self.handle_job_failure(job, queue, exc_string=LOST, execution=execution)
        elif execution is not None:
            queue.started_job_registry.remove_execution(execution)
        queue.intermediate_queue.remove(id)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """A Redis that is slow to come back is away as well: without this thread no job could be stopped any more."""
        if isinstance(exc, redis.exceptions.TimeoutError):
            exc = redis.exceptions.ConnectionError(str(exc))
        super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)
