"""Why jobs failed, from the texts that RQ records."""

from __future__ import annotations

import traceback

import pytest
from redis.exceptions import TimeoutError

import worker.rq.failures as failures
from worker.rq.failures import KILLED, LOST, UNAVAILABLE, Cause

DEATH = "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); "


def raised(error: Exception) -> str:
    """The traceback of an exception, as RQ records it."""
    try:
        raise error
    except Exception as raised:
        return "".join(traceback.format_exception(raised))


@pytest.mark.parametrize(
    ("text", "cause", "reason"),
    [
        (DEATH, Cause.KILLED, KILLED),
        (LOST, Cause.LOST, LOST),
        (raised(TimeoutError("Timeout reading from socket")), Cause.UNAVAILABLE, UNAVAILABLE),
        (raised(ValueError("wide: too wide")), Cause.RAISED, "wide: too wide"),
        (raised(MemoryError()), Cause.RAISED, "MemoryError"),
        ("Job stopped by user, work-horse terminated.", Cause.RAISED, "Job stopped by user, work-horse terminated."),
        ("", Cause.RAISED, "It failed for no known reason."),
    ],
)
def test_a_text_gives_the_cause_and_what_a_client_may_know(text: str, cause: Cause, reason: str) -> None:
    assert (failures.cause(text), failures.reason(text)) == (cause, reason)


def test_only_a_process_that_died_could_not_report_its_end() -> None:
    assert [cause for cause in Cause if cause.is_death] == [Cause.KILLED, Cause.LOST]
