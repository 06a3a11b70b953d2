"""RQ queues with priorities that lose no jobs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from redis import Redis
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.job import Job

SERIALIZER = "json"  # RQ's default is pickle, which would execute code from Redis
_POLL_INTERVAL = 0.1  # seconds between two polls of the lower-priority queues by an idle process


class PriorityQueue(Queue):
    """An RQ queue from which a worker can dequeue, together with others, without losing jobs.

    From several queues RQ dequeues with a plain pop, which loses the job if the worker is killed at that moment. This
    class dequeues from one queue after another as RQ does from a single queue: it moves the job to the intermediate
    queue, where recovery finds it.
    """

    @classmethod
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, connection: Redis, *args: Any, **kwargs: Any
    ) -> tuple[Job, Queue] | None:
        """Return the next job by the order of `queues`, and its queue; block on the first queue and poll the others."""
        first, *others = queues
        deadline = time.monotonic() + (timeout or 0)
        while True:
            for queue in (first, *others):
                dequeued = super().dequeue_any([queue], None, connection, *args, **kwargs)
                if dequeued is not None:
                    return dequeued
            if timeout is None:
                return None
            try:
                return super().dequeue_any([first], _POLL_INTERVAL, connection, *args, **kwargs)  # type: ignore[arg-type]
            except DequeueTimeout:
                if time.monotonic() > deadline:
                    raise


def open_queue(name: str, redis: Redis) -> PriorityQueue:
    """Return the queue with this name."""
    return PriorityQueue(name, connection=redis, serializer=SERIALIZER)


def fetch(id: str, redis: Redis) -> Job:
    """Return a job by its id. Raises rq.exceptions.NoSuchJobError if it does not exist."""
    return Job.fetch(id, connection=redis, serializer=SERIALIZER)
