"""Values straight from Redis' socket: the right ones, and nothing of an answer is left for who comes next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import redis.exceptions
from redis import Redis

from tests.conftest import Servers
from worker.store.bulk import MissingString, StringRange, receive
from worker.store.connection import connect

CONTENT = np.random.default_rng(0).bytes(1 << 20)


@pytest.fixture
def stored(cache: Redis) -> Redis:
    """A cache with CONTENT as "a"."""
    cache.set("a", CONTENT)
    return cache


def room(*ranges: tuple[int, int]) -> tuple[bytearray, list[StringRange]]:
    """Memory for parts of "a" that follow each other, and what is wanted."""
    memory, end, wanted = bytearray(sum(high - low for low, high in ranges)), 0, []
    for low, high in ranges:
        wanted.append(StringRange("a", low, memoryview(memory)[end : end + high - low]))
        end += high - low
    return memory, wanted


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 300])
def test_parts_of_any_number_come_in_their_order(stored: Redis, count: int) -> None:
    starts = np.random.default_rng(count).integers(0, len(CONTENT) - 5000, count).tolist()
    ranges = [(start, start + 1 + start % 5000) for start in starts]
    memory, wanted = room(*ranges)
    sizes = [len(view) for view in receive(stored, wanted)]
    assert sizes == [high - low for low, high in ranges]
    assert bytes(memory) == b"".join(CONTENT[low:high] for low, high in ranges)


def test_memory_may_be_used_again_as_soon_as_the_next_is_asked_for(stored: Redis) -> None:
    window = memoryview(bytearray(1000))
    views = receive(stored, (StringRange("a", start, window) for start in range(0, 100_000, 1000)))
    assert b"".join(map(bytes, views)) == CONTENT[:100_000]


@pytest.mark.parametrize("lacking", [("b", 0), ("a", len(CONTENT) - 99), ("a", 2 * len(CONTENT))])
@pytest.mark.parametrize("before", [0, 3, 8, 20])
def test_what_is_not_there_is_said_and_the_connection_is_no_worse(
    stored: Redis, lacking: tuple[str, int], before: int
) -> None:
    _, wanted = room(*((n, n + 100) for n in range(before + 5)))
    wanted[before] = StringRange(*lacking, memoryview(bytearray(100)))
    seen: list[bytes] = []
    with pytest.raises(MissingString):
        seen.extend(map(bytes, receive(stored, wanted)))
    assert seen == [CONTENT[n : n + 100] for n in range(before)]
    assert stored.getrange("a", 5, 9) == CONTENT[5:10]


@pytest.mark.parametrize("read", [1, 8, 29])
def test_who_stops_reading_leaves_nothing_for_the_next(stored: Redis, read: int) -> None:
    _, wanted = room(*((n, n + 1000) for n in range(30)))
    views = receive(stored, wanted)
    for _ in range(read):
        next(views)
    views.close()  # type: ignore[attr-defined]
    assert stored.getrange("a", 5, 9) == CONTENT[5:10]


def test_a_connection_that_breaks_is_the_errors_of_the_client(servers: Servers) -> None:
    own: Any = connect(f"{servers.cache_url}?db=5", retries=1)
    own.set("a", CONTENT)
    views = receive(own, (StringRange("a", 0, memoryview(bytearray(len(CONTENT)))) for _ in range(100)))
    next(views)
    connect(servers.cache_url).client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(redis.exceptions.ConnectionError):
        list(views)
    assert own.delete("a") == 1
