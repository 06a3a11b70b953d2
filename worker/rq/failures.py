"""Causes of job failures, parsed from the text that RQ records."""

from __future__ import annotations

import signal
from enum import Enum, auto

#: The start of RQ's message about a work horse that exited without a result.
HORSE_DIED = "Work-horse terminated unexpectedly"
#: The start of the last line in a traceback of one of redis-py's exceptions.
REDIS_EXCEPTIONS = "redis.exceptions."

_SIGBUS = f"(signal {signal.SIGBUS.value})"  # in that message
LOST = "The worker that ran the job died on every attempt."
KILLED = "The process that ran the job was killed on every attempt, possibly because it ran out of memory."
SHORTENED = "A file that the job was reading was shortened, such as a checkpoint that another program copied over."
UNAVAILABLE = "Redis was unavailable on every attempt."


class Cause(Enum):
    """Why a job ended without a result."""

    RAISED = auto()  # the job raised an exception, and would again
    KILLED = auto()  # the process of the job died
    LOST = auto()  # the worker died
    UNAVAILABLE = auto()  # Redis did not answer for too long

    @property
    def is_death(self) -> bool:
        """Whether the process of the job died before it could report the failure."""
        return self in (Cause.KILLED, Cause.LOST)


def cause(text: str) -> Cause:
    """Return the cause of a failure, from the traceback or the message that RQ recorded."""
    if text.startswith(HORSE_DIED):
        return Cause.KILLED
    if text.startswith(LOST):
        return Cause.LOST
    return Cause.UNAVAILABLE if _last_line(text).startswith(REDIS_EXCEPTIONS) else Cause.RAISED


def reason(text: str) -> str:
    """Return the reason of a failure for clients: the message of the exception, without the traceback."""
    match cause(text):
        case Cause.KILLED:
            return SHORTENED if _SIGBUS in text else KILLED
        case Cause.UNAVAILABLE:
            return UNAVAILABLE
    return message(text)


def message(traceback: str) -> str:
    """Return the message of the exception at the end of a traceback."""
    last = _last_line(traceback)
    return last.partition(": ")[2] or last or "The job failed for an unknown reason."


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
