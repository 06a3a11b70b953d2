"""RQ functions for the running job."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import cast

from rq import get_current_job
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty


def time_limit(seconds: int) -> AbstractContextManager[None]:
    """Return a context manager that raises an exception in its body after `seconds`."""
    limit = UnixSignalDeathPenalty(seconds, JobTimeoutException)  # type: ignore[no-untyped-call]
    return cast(AbstractContextManager[None], limit)


def discard(id: str) -> None:
    """Make RQ delete the job `id` when it ends, if it is the running job."""
    job = get_current_job()
    if job is not None and job.id == id:
        job.result_ttl = 0
