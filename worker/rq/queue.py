"""RQ queues that lose no job, taken from by priority."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from redis import Redis
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.job import Job

SERIALIZER = "json"  # RQ's default would run code that is in Redis: pickle
_POLL_INTERVAL = 0.1  # seconds between two looks of an idle process at the queues of a lower priority


class PriorityQueue(Queue):
    """An RQ queue that a worker takes jobs from together with others, the first of which has the highest priority.

    From several queues RQ takes with a command that loses the job if the worker is killed at that moment. This class
    takes from one after another as RQ does from a single queue: the job moves to the intermediate queue, where recovery
    finds it.
    """

    @classmethod
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, connection: Redis, *args: Any, **kwargs: Any
    ) -> tuple[Job, Queue] | None:
        """Return the first job of the first queue that has one; block on the first queue and poll the others."""
        first, *others = queues
        deadline = time.monotonic() + (timeout or 0)
        while True:
            for queue in (first, *others):
                found = super().dequeue_any([queue], None, connection, *args, **kwargs)
                if found is not None:
                    return found
            if timeout is None:
                return None
            try:
                return super().dequeue_any([first], _POLL_INTERVAL, connection, *args, **kwargs)  # type: ignore[arg-type]
            except DequeueTimeout:
                if time.monotonic() > deadline:
                    raise


def open_queue(name: str, redis: Redis) -> PriorityQueue:
    """Return the queue of this name."""
    return PriorityQueue(name, connection=redis, serializer=SERIALIZER)


def fetch(id: str, redis: Redis) -> Job:
    """Return a job by its id. Raises rq.exceptions.NoSuchJobError."""
    return Job.fetch(id, connection=redis, serializer=SERIALIZER)
