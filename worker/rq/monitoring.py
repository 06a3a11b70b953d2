"""State of the queues and workers, for metrics, health checks and admission."""

from __future__ import annotations

import time

from redis import Redis
from rq import Worker
from rq.registry import StartedJobRegistry

from worker.rq.queue import SERIALIZER, open_queue
from worker.store.queues import NAMES, JobSize, name


def queue_key(queue: str, redis: Redis) -> str:
    """Return the Redis key of a queue: a list of job ids."""
    return str(open_queue(queue, redis).key)


def waiting(redis: Redis) -> dict[str, int]:
    """Return the number of waiting jobs by queue."""
    pipeline = redis.pipeline(transaction=False)
    for queue in NAMES:
        pipeline.llen(queue_key(queue, redis))
    return dict(zip(NAMES, pipeline.execute(), strict=True))


def oldest_wait(redis: Redis, queue: str) -> float:
    """Return how many seconds the next job of a queue has waited, 0 if the queue is empty."""
    jobs = open_queue(queue, redis)
    job = next((jobs.fetch_job(id) for id in jobs.get_job_ids(0, 1)), None)
    return time.time() - job.enqueued_at.timestamp() if job and job.enqueued_at else 0.0


def running(redis: Redis, queue: str) -> int:
    """Return the number of running jobs of a queue."""
    return StartedJobRegistry(queue, redis, serializer=SERIALIZER).get_job_count(cleanup=False)


def count_workers(redis: Redis, size: JobSize) -> int:
    """Return the number of live workers for a job size. RQ's registry also lists dead workers for a while."""
    keys = Worker.all_keys(queue=open_queue(name(size, "normal"), redis))
    return int(redis.exists(*keys)) if keys else 0


def hosts(redis: Redis, size: JobSize) -> set[str]:
    """Return the hostnames of the live workers for a job size."""
    return {worker.hostname or "" for worker in Worker.all(queue=open_queue(name(size, "normal"), redis))}
