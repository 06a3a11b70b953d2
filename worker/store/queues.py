"""Queue names: one queue for each job size and priority.

A worker runs one process for small jobs and one for large jobs, so that small jobs never wait for large ones. Each
process takes low-priority jobs only while the normal queue of its size is empty.
"""

from __future__ import annotations

from typing import Literal, get_args

JobSize = Literal["small", "large"]
Priority = Literal["normal", "low"]
JOB_SIZES: tuple[JobSize, ...] = get_args(JobSize)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)  # the highest first
SMALL_SECONDS = 2.0  # the longest small job by estimate: long compared with starting it, short for the jobs behind it


def name(size: JobSize, priority: Priority) -> str:
    """Return the name of a queue."""
    return f"cutaway-{size}-{priority}"


def names_of(size: JobSize) -> list[str]:
    """Return the queue names for a job size, highest priority first."""
    return [name(size, priority) for priority in PRIORITIES]


NAMES = [name for size in JOB_SIZES for name in names_of(size)]


def choose(seconds: float, priority: Priority) -> str:
    """Return the queue for a job that takes about `seconds` on a slow machine."""
    return name("small" if seconds <= SMALL_SECONDS else "large", priority)


def priority(queue: str) -> Priority:
    """Return the priority of a queue."""
    return next(priority for priority in PRIORITIES if queue.endswith(priority))


def with_priority(queue: str, priority: Priority) -> str:
    """Return the queue of the same size with another priority."""
    return name(_size(queue), priority)


def ahead(queue: str) -> list[str]:
    """Return the queues of the same size with a higher priority."""
    names = names_of(_size(queue))
    return names[: names.index(queue)]


def _size(queue: str) -> JobSize:
    return next(size for size in JOB_SIZES if queue in names_of(size))
