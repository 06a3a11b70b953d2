"""Move and delete jobs while workers take them."""

from __future__ import annotations

import time
from contextlib import suppress

from rq import Queue
from rq.exceptions import InvalidJobOperation
from rq.job import Job, JobStatus

from worker.rq.queue import open_queue

_DELETE_ATTEMPTS = 3
_STOP_SECONDS = 2.0  # that a worker has to end a job; one that died will not

#: Move a job from one queue to the end of another, unless a worker has just taken it.
_MOVE = """
local moved = redis.call('LREM', KEYS[1], 1, ARGV[1])
if moved == 1 then
  redis.call('RPUSH', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[3], 'origin', ARGV[2])
end
return moved
"""


def move(id: str, queue: Queue, to: Queue) -> bool:
    """Move a job from a queue to the end of another. False if it has left the queue."""
    keys = (queue.key, to.key, Job.key_for(id))
    return bool(queue.connection.eval(_MOVE, len(keys), *keys, id, to.name))


def remove_from_queue(job: Job) -> bool:
    """Remove a job from its queue. False if it is not there: a worker has taken it, or it has ended."""
    return bool(open_queue(job.origin, job.connection).remove(job))


def wait_until_ended(job: Job) -> bool:
    """Wait for the end of a job that a worker has taken. False if it does not end soon: the worker may be dead."""
    deadline = time.monotonic() + _STOP_SECONDS
    with suppress(InvalidJobOperation):  # the job has been deleted
        while job.get_status() in (JobStatus.QUEUED, JobStatus.STARTED):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
    return True


def delete(job: Job) -> None:
    """Delete a job from its queue, or else after it has ended: RQ would write it again as it records the end."""
    if not remove_from_queue(job):
        wait_until_ended(job)
    with suppress(InvalidJobOperation):  # another client has deleted it
        for _ in range(_DELETE_ATTEMPTS - 1):
            with suppress(ValueError):  # RQ lists its executions, and fails if one disappears before it is read
                job.delete()
                return
        job.delete()
