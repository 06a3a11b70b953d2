"""The queues of jobs: what is soon done never waits for what takes long, and what has a low priority waits for others.

A queue is a lane and a priority. A worker has a process for each lane, which takes jobs from that lane's queues, of a
low priority only while there are no others.
"""

from __future__ import annotations

from typing import Literal, get_args

Lane = Literal["small", "large"]
Priority = Literal["normal", "low"]
LANES: tuple[Lane, ...] = get_args(Lane)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)  # as they are taken
SMALL_SECONDS = 2.0  # of estimated work: long beside a job's beginning, short for who waits behind it


def name(lane: Lane, priority: Priority) -> str:
    """RQ's name of a queue."""
    return f"cutaway-{lane}-{priority}"


def of_lane(lane: Lane) -> list[str]:
    """The names of a lane's queues, in the order in which they are taken from."""
    return [name(lane, priority) for priority in PRIORITIES]


NAMES = [name for lane in LANES for name in of_lane(lane)]


def choose(seconds: float, priority: Priority) -> str:
    """The queue of work that takes about so many seconds on a slow machine."""
    return name("small" if seconds <= SMALL_SECONDS else "large", priority)


def priority(queue: str) -> Priority:
    """The priority of a queue by its name."""
    return next(priority for priority in PRIORITIES if queue.endswith(priority))


def with_priority(queue: str, priority: Priority) -> str:
    """The queue of the same lane with another priority."""
    return name(_lane(queue), priority)


def ahead(queue: str) -> list[str]:
    """The queues from which jobs are taken before those of this one."""
    names = of_lane(_lane(queue))
    return names[: names.index(queue)]


def _lane(queue: str) -> Lane:
    return next(lane for lane in LANES if queue in of_lane(lane))
