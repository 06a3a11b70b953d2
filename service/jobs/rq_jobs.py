"""RQ's jobs, where RQ leaves something to be done."""

from __future__ import annotations

import time
from contextlib import suppress

from rq import Queue
from rq.exceptions import InvalidJobOperation
from rq.job import Job, JobStatus

TRIES = 3  # times that a job is tried when its process gets killed
_STOPPING = 2.0  # seconds that a worker has to end a job; one that died will not

#: A job from one queue to the end of another, unless a worker has just taken it.
_MOVE = """
local moved = redis.call('LREM', KEYS[1], 1, ARGV[1])
if moved == 1 then
  redis.call('RPUSH', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[3], 'origin', ARGV[2])
end
return moved
"""


def move(id: str, queue: Queue, to: Queue) -> bool:
    """Move a job from a queue to the end of another; False where it is not there any more."""
    keys = (queue.key, to.key, Job.key_for(id))
    return bool(queue.connection.eval(_MOVE, len(keys), *keys, id, to.name))


def reason(job: Job) -> str:
    """Why a job failed, as a worker wrote it with the failure."""
    result = job.latest_result()
    return (result and result.exc_string) or "It ended without a word."


def take_out(job: Job) -> bool:
    """Take a job out of its queue; False where it is not there: a worker has taken it, or it has ended."""
    return bool(Queue(job.origin, connection=job.connection, serializer="json").remove(job))


def ends(job: Job) -> bool:
    """Whether a job that a worker has taken ends soon: the worker may be dead."""
    deadline = time.monotonic() + _STOPPING
    with suppress(InvalidJobOperation):  # there is no such job any more
        while job.get_status() in (JobStatus.QUEUED, JobStatus.STARTED):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
    return True


def delete(job: Job) -> None:
    """Delete a job that waits, or else once RQ has put it away, which would write of the job again."""
    if not take_out(job):
        ends(job)
    with suppress(InvalidJobOperation):  # somebody else has deleted it
        for _ in range(TRIES - 1):
            with suppress(ValueError):  # RQ lists its executions, and fails where one has gone when it looks
                job.delete()
                return
        job.delete()
