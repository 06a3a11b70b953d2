"""Things in the order in which they came: each has a number, and a page goes on from one, whatever comes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis import Redis
from redis.client import Pipeline

Thing = TypeVar("Thing")

# The number and the entry in one step: nobody reads a later one first, and goes on from there.
_APPEND = """
for _, id in ipairs(ARGV) do
  redis.call("ZADD", KEYS[1], redis.call("INCR", KEYS[2]), id)
end
"""


def append(pipeline: Pipeline, index: str, *ids: str) -> None:
    """Note that these came, or came again, in their order: the last is the newest then."""
    pipeline.eval(_APPEND, 2, index, f"{index}:last", *ids)


def newest(
    queue: Redis,
    index: str,
    read: Callable[[Sequence[str]], Sequence[Thing | None]],
    before: int | None,
    count: int,
) -> list[tuple[int, str, Thing]]:
    """Up to `count` things with their numbers and ids, newest first, of those that came before number `before`.

    `read` gives them by their ids, and None for one that has expired, which is dropped.
    """
    highest = "+inf" if before is None else f"({before}"
    entries: Any = queue.zrange(index, highest, "-inf", desc=True, byscore=True, offset=0, num=count, withscores=True)
    if not entries:
        return []
    found = [*zip(entries, read([id.decode() for id, _ in entries]), strict=True)]
    expired = [id for (id, _), thing in found if thing is None]
    if expired:
        queue.zrem(index, *expired)
        return newest(queue, index, read, before, count)
    return [(int(number), id.decode(), thing) for (id, number), thing in found if thing is not None]
