"""Heartbeats, and recovery of jobs whose worker died.

A worker counts as alive until its keys in Redis expire. RQ itself compares the clocks of the workers' machines: if they
differ or are adjusted, it would retry jobs of live workers or leave those of dead workers.
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

HEARTBEAT = 1  # seconds between heartbeats, and between checks of the other workers
HEARTBEAT_TTL = 5  # seconds without a heartbeat after which a worker counts as dead
_DEQUEUE_SECONDS = 2.0  # longer than a live worker ever leaves a job in the intermediate queue


class RecoveringWorker(Worker):
    """RQ's forking worker, extended to retry the jobs of dead workers and to wait while Redis is down."""

    max_connection_wait_time = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.job_monitoring_interval = HEARTBEAT
        self._checked_at = -float("inf")  # when this worker last checked the other workers
        self._checking_since = -float("inf")  # when it started to check without a pause
        self._dequeued: dict[str, float] = {}  # jobs in an intermediate queue, and when they were first seen there

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that an idle worker blocks for a job before its next heartbeat."""
        return HEARTBEAT

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether a check of the other workers is due."""
        return time.monotonic() - self._checked_at >= 0.75 * HEARTBEAT

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Return the seconds without a heartbeat after which another worker recovers the job."""
        return HEARTBEAT_TTL

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Send a heartbeat and register again, as other workers may have removed this one as dead."""
        if pipeline is None:
            with self.connection.pipeline(transaction=False) as own:
                self.heartbeat(timeout, own)
                own.execute()
            return
        super().heartbeat(HEARTBEAT_TTL, pipeline)
        pipeline.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipeline)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Send a heartbeat during a job, and check the other workers here if this one is never idle."""
        super().maintain_heartbeats(job, execution)
        if self.should_run_maintenance_tasks:
            self.recover_jobs()

    def run_maintenance_tasks(self) -> None:
        """Check the other workers between jobs. Replaces RQ's own maintenance."""
        self.recover_jobs()

    def recover_jobs(self) -> None:
        """Retry the jobs of dead workers.

        A worker that has just started or reconnected to Redis first gives the others time for a heartbeat: Redis may
        have been down for all of them.
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
        """Keep the thread for RQ's stop commands alive when Redis times out, as RQ does when it is down."""
        if isinstance(exc, redis.exceptions.TimeoutError):
            exc = redis.exceptions.ConnectionError(str(exc))
        super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)


def checked_key(queue: Queue) -> str:
    """Return the key that exists while the last check of a queue is recent."""
    return f"{queue.key}:looked"
