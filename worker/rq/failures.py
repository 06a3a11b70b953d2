"""Why a job failed, from the text that RQ records about it."""

from __future__ import annotations

from enum import Enum, auto

#: How RQ's message about a work horse that exited without a result begins.
HORSE_DIED = "Work-horse terminated unexpectedly"
#: Where the exceptions of the Redis client are defined: how the last line of their tracebacks begins.
REDIS_EXCEPTIONS = "redis.exceptions."

LOST = "The worker that computed it died each time it was tried."
KILLED = "The process that computed it was killed each time it was tried, perhaps for want of memory."
UNAVAILABLE = "The service's store was away each time that it was tried."


class Cause(Enum):
    """What ended a job."""

    RAISED = auto()  # it raised an exception, and would again
    KILLED = auto()  # its process died
    LOST = auto()  # its worker died
    UNAVAILABLE = auto()  # Redis did not answer for too long

    @property
    def is_death(self) -> bool:
        """Whether the job's own process could not report its end."""
        return self in (Cause.KILLED, Cause.LOST)


def cause(text: str) -> Cause:
    """Return what ended a job, from RQ's message or its traceback."""
    if text.startswith(HORSE_DIED):
        return Cause.KILLED
    if text.startswith(LOST):
        return Cause.LOST
    return Cause.UNAVAILABLE if _last_line(text).startswith(REDIS_EXCEPTIONS) else Cause.RAISED


def reason(text: str) -> str:
    """Return what a client may know about a failure: no traceback, only the message of the exception."""
    match cause(text):
        case Cause.KILLED:
            return KILLED
        case Cause.UNAVAILABLE:
            return UNAVAILABLE
    return message(text)


def message(traceback: str) -> str:
    """Return the message of the exception with which a traceback ends."""
    last = _last_line(traceback)
    return last.partition(": ")[2] or last or "It failed for no known reason."


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
