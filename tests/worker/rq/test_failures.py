"""Causes of job failures."""

from __future__ import annotations

import signal
import traceback

import pytest
from redis.exceptions import TimeoutError

import worker.rq.failures as failures
from worker.rq.failures import KILLED, LOST, SHORTENED, UNAVAILABLE, Cause

HORSE_DIED = "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); "


def raised(error: Exception) -> str:
    """Return the traceback of an exception, as RQ records it."""
    try:
        raise error
    except Exception as raised:
        return "".join(traceback.format_exception(raised))


@pytest.mark.parametrize(
    ("text", "cause", "reason"),
    [
        (HORSE_DIED, Cause.KILLED, KILLED),
        (HORSE_DIED.replace("9", str(signal.SIGBUS.value)), Cause.KILLED, SHORTENED),
        (LOST, Cause.LOST, LOST),
        (raised(TimeoutError("Timeout reading from socket")), Cause.UNAVAILABLE, UNAVAILABLE),
        (raised(ValueError("wide: too wide")), Cause.RAISED, "wide: too wide"),
        (raised(MemoryError()), Cause.RAISED, "MemoryError"),
        ("Job stopped by user, work-horse terminated.", Cause.RAISED, "Job stopped by user, work-horse terminated."),
        ("", Cause.RAISED, "The job failed for an unknown reason."),
    ],
)
def test_recorded_text_gives_the_cause_and_the_reason(text: str, cause: Cause, reason: str) -> None:
    assert (failures.cause(text), failures.reason(text)) == (cause, reason)


def test_only_killed_and_lost_jobs_are_deaths() -> None:
    assert [cause for cause in Cause if cause.is_death] == [Cause.KILLED, Cause.LOST]
