"""Move and delete jobs that workers may be taking."""

from __future__ import annotations

import time
from contextlib import suppress

from rq import Queue
from rq.exceptions import InvalidJobOperation
from rq.job import Job, JobStatus

from worker.rq.queue import open_queue

_DELETE_ATTEMPTS = 3
_STOP_SECONDS = 2.0  # time for a worker to end a job

#: Move a job to the end of another queue, unless a worker has taken it.
_MOVE = """
local moved = redis.call('LREM', KEYS[1], 1, ARGV[1])
if moved == 1 then
  redis.call('RPUSH', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[3], 'origin', ARGV[2])
end
return moved
"""


def move(id: str, queue: Queue, to: Queue) -> bool:
    """Move a job to the end of another queue. Return False if it has left its queue."""
    keys = (queue.key, to.key, Job.key_for(id))
    return bool(queue.connection.eval(_MOVE, len(keys), *keys, id, to.name))


def remove_from_queue(job: Job) -> bool:
    """Remove a job from its queue. Return False if a worker has taken it or it has ended."""
    return bool(open_queue(job.origin, job.connection).remove(job))


def wait_until_ended(job: Job) -> bool:
    """Wait for a job that a worker has taken. Return False if it does not end soon: the worker may be dead."""
    deadline = time.monotonic() + _STOP_SECONDS
    with suppress(InvalidJobOperation):  # the job was deleted
        while job.get_status() in (JobStatus.QUEUED, JobStatus.STARTED):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
    return True


def delete(job: Job) -> None:
    """Delete a job. If a worker has taken it, wait for its end first, as RQ writes the job again then."""
    if not remove_from_queue(job):
        wait_until_ended(job)
    with suppress(InvalidJobOperation):  # another client deleted it
        for _ in range(_DELETE_ATTEMPTS - 1):
            with suppress(ValueError):  # RQ raises it if an execution disappears between listing and reading
                job.delete()
                return
        job.delete()
