"""The state of queues and workers, for metrics, health checks and admission."""

from __future__ import annotations

import time

from redis import Redis
from rq import Worker
from rq.registry import StartedJobRegistry

from worker.rq.queue import SERIALIZER, open_queue
from worker.store.queues import NAMES, JobSize, name


def queue_key(queue: str, redis: Redis) -> str:
    """Return the key of the list that holds the ids of a queue's jobs."""
    return str(open_queue(queue, redis).key)


def waiting(redis: Redis) -> dict[str, int]:
    """Return how many jobs wait in each queue."""
    pipeline = redis.pipeline(transaction=False)
    for queue in NAMES:
        pipeline.llen(queue_key(queue, redis))
    return dict(zip(NAMES, pipeline.execute(), strict=True))


def oldest_wait(redis: Redis, queue: str) -> float:
    """Return for how many seconds the next job of a queue has waited; 0 without one."""
    jobs = open_queue(queue, redis)
    job = next((jobs.fetch_job(id) for id in jobs.get_job_ids(0, 1)), None)
    return time.time() - job.enqueued_at.timestamp() if job and job.enqueued_at else 0.0


def running(redis: Redis, queue: str) -> int:
    """Return how many jobs of a queue run."""
    return StartedJobRegistry(queue, redis, serializer=SERIALIZER).get_job_count(cleanup=False)


def count_workers(redis: Redis, size: JobSize) -> int:
    """Return how many workers take jobs of a size. RQ's registry also lists dead workers for a while."""
    keys = Worker.all_keys(queue=open_queue(name(size, "normal"), redis))
    return int(redis.exists(*keys)) if keys else 0


def hosts(redis: Redis, size: JobSize) -> set[str]:
    """Return the hosts of the workers that take jobs of a size and whose last heartbeat has not expired."""
    return {worker.hostname or "" for worker in Worker.all(queue=open_queue(name(size, "normal"), redis))}
