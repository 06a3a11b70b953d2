"""Paginated indexes, newest first, stable while items are added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis import Redis
from redis.client import Pipeline

Item = TypeVar("Item")

# Atomic, as otherwise a client could read a later item first, continue from there and miss an earlier one.
_APPEND = """
for _, id in ipairs(ARGV) do
  redis.call("ZADD", KEYS[1], redis.call("INCR", KEYS[2]), id)
end
"""


def append(pipeline: Pipeline, index: str, *ids: str) -> None:
    """Add items to an index, or make them the newest again; the last one becomes the newest of all."""
    pipeline.eval(_APPEND, 2, index, f"{index}:last", *ids)


def newest(
    queue: Redis,
    index: str,
    read: Callable[[Sequence[str]], Sequence[Item | None]],
    before: int | None,
    count: int,
) -> list[tuple[int, str, Item]]:
    """Return up to `count` items numbered below `before` as (number, id, item), newest first.

    `read` returns the items with the given ids, None for one that has expired. Those are removed from the index.
    """
    highest = "+inf" if before is None else f"({before}"
    entries: Any = queue.zrange(index, highest, "-inf", desc=True, byscore=True, offset=0, num=count, withscores=True)
    if not entries:
        return []
    items = [*zip(entries, read([id.decode() for id, _ in entries]), strict=True)]
    expired = [id for (id, _), item in items if item is None]
    if expired:
        queue.zrem(index, *expired)
        return newest(queue, index, read, before, count)
    return [(int(number), id.decode(), item) for (id, number), item in items if item is not None]
