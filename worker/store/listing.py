"""Pages of items, newest first, that stay stable while items are added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis import Redis
from redis.client import Pipeline

Item = TypeVar("Item")

# Number and entry in one step: otherwise a client could read a later item first and continue from there.
_APPEND = """
for _, id in ipairs(ARGV) do
  redis.call("ZADD", KEYS[1], redis.call("INCR", KEYS[2]), id)
end
"""


def append(pipeline: Pipeline, index: str, *ids: str) -> None:
    """Add items, or move them to the front, in this order: the last becomes the newest."""
    pipeline.eval(_APPEND, 2, index, f"{index}:last", *ids)


def newest(
    queue: Redis,
    index: str,
    read: Callable[[Sequence[str]], Sequence[Item | None]],
    before: int | None,
    count: int,
) -> list[tuple[int, str, Item]]:
    """Return up to `count` items with their numbers and ids, newest first, of those before the number `before`.

    `read` returns the items of these ids, and None for one that has expired, which is removed.
    """
    highest = "+inf" if before is None else f"({before}"
    entries: Any = queue.zrange(index, highest, "-inf", desc=True, byscore=True, offset=0, num=count, withscores=True)
    if not entries:
        return []
    found = [*zip(entries, read([id.decode() for id, _ in entries]), strict=True)]
    expired = [id for (id, _), item in found if item is None]
    if expired:
        queue.zrem(index, *expired)
        return newest(queue, index, read, before, count)
    return [(int(number), id.decode(), item) for (id, number), item in found if item is not None]
