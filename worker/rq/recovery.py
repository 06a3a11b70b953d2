"""Heartbeats, and recovery of jobs whose worker died.

A worker is alive while its keys in Redis have not expired. RQ compares the clocks of the workers' machines instead:
where two differ, or one is set, it would take jobs from workers that live, or leave them with dead ones.
"""

from __future__ import annotations

import time
from typing import Any

import redis.exceptions
from rq import Queue, Worker, worker_registration
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry

from worker.rq.failures import LOST
from worker.rq.queue import SERIALIZER

HEARTBEAT = 1  # seconds between two heartbeats, and between two checks of the other workers
HEARTBEAT_TTL = 5  # seconds without a heartbeat after which a worker counts as dead
_DEQUEUE_SECONDS = 2.0  # more than a job ever stays in the intermediate queue of a worker that lives


class RecoveringWorker(Worker):
    """RQ's forking worker, which retries the jobs of workers that died, once each, and waits while Redis is down."""

    max_connection_wait_time = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.job_monitoring_interval = HEARTBEAT
        self._checked_at = -float("inf")  # when this worker last checked the others
        self._checking_since = -float("inf")  # since when it has done so without a pause
        self._dequeued: dict[str, float] = {}  # jobs in an intermediate queue, and when they were first seen there

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that an idle worker waits for a job before its next heartbeat."""
        return HEARTBEAT

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether it is time to check the other workers."""
        return time.monotonic() - self._checked_at >= 0.75 * HEARTBEAT

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds without a heartbeat after which another worker recovers the job."""
        return HEARTBEAT_TTL

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Send a heartbeat, and register again: other workers may have removed this one as dead."""
        if pipeline is None:
            with self.connection.pipeline(transaction=False) as own:
                self.heartbeat(timeout, own)
                own.execute()
            return
        super().heartbeat(HEARTBEAT_TTL, pipeline)
        pipeline.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipeline)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Send heartbeats while a job runs; a worker that is never idle checks the others here."""
        super().maintain_heartbeats(job, execution)
        if self.should_run_maintenance_tasks:
            self.recover_jobs()

    def run_maintenance_tasks(self) -> None:
        """Check the other workers between jobs, instead of what RQ does then."""
        self.recover_jobs()

    def recover_jobs(self) -> None:
        """Retry the jobs of dead workers.

        A worker that has just started, or was cut off from Redis, first leaves the others time for a heartbeat: Redis
        may have been down for all of them.
        """
        now = time.monotonic()
        if now - self._checked_at > HEARTBEAT_TTL:
            self._checking_since = now
        self._checked_at = now
        dequeued = {queue.name: queue.intermediate_queue.get_job_ids() for queue in self.queues}
        self._dequeued = {id: self._dequeued.get(id, now) for ids in dequeued.values() for id in ids}
        if now - self._checking_since < HEARTBEAT_TTL / 2:
            return
        for queue in self.queues:
            stuck = [id for id in dequeued[queue.name] if now - self._dequeued[id] >= _DEQUEUE_SECONDS]
            if self.connection.set(checked_key(queue), 1, nx=True, px=900 * HEARTBEAT):  # one worker is enough
                self._recover(queue, stuck)

    def _recover(self, queue: Queue, stuck: list[str]) -> None:
        registry = queue.started_job_registry
        started = registry.get_job_and_execution_ids(cleanup=False)
        executions = [Execution(execution, job, self.connection) for job, execution in started]
        pipeline = self.connection.pipeline(transaction=False)
        for execution in executions:
            pipeline.exists(execution.key)
        for execution, alive in zip(executions, pipeline.execute() if executions else [], strict=True):
            if not alive:
                self._retry(queue, execution.job_id, execution)
        for id in set(stuck) - {job for job, _ in started}:
            self._retry(queue, id, None)
        for ended in (FinishedJobRegistry, FailedJobRegistry):
            ended(queue.name, queue.connection, serializer=SERIALIZER).cleanup()
        worker_registration.clean_worker_registry(queue)

    def _retry(self, queue: Queue, id: str, execution: Execution | None) -> None:
        job = queue.fetch_job(id)
        if job is not None and job.get_status(refresh=False) in (JobStatus.STARTED, JobStatus.QUEUED):
            self.handle_job_failure(job, queue, exc_string=LOST, execution=execution)
        elif execution is not None:
            queue.started_job_registry.remove_execution(execution)
        queue.intermediate_queue.remove(id)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Keep the thread that receives RQ's stop commands alive when Redis is slow, as RQ does when it is down."""
        if isinstance(exc, redis.exceptions.TimeoutError):
            exc = redis.exceptions.ConnectionError(str(exc))
        super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)


def checked_key(queue: Queue) -> str:
    """Return the key that exists while no worker needs to check a queue again."""
    return f"{queue.key}:looked"
