"""What a job may ask of RQ while it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import cast

from rq import get_current_job
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty


def time_limit(seconds: int) -> AbstractContextManager[None]:
    """Raise an exception in the body once it has run for so many seconds."""
    limit = UnixSignalDeathPenalty(seconds, JobTimeoutException)  # type: ignore[no-untyped-call]
    return cast(AbstractContextManager[None], limit)


def discard(id: str) -> None:
    """Have RQ delete the running job when it ends, if it is this one."""
    job = get_current_job()
    if job is not None and job.id == id:
        job.result_ttl = 0
