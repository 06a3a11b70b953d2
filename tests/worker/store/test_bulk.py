"""Bulk reads from Redis, from redis-py's socket and by client calls."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis
import redis.exceptions
from redis import Redis

import worker.store.bulk as bulk
from tests.conftest import Servers
from worker.store.bulk import MissingString, StringRange, receive
from worker.store.connection import connect

CONTENT = np.random.default_rng(0).bytes(1 << 20)


@pytest.fixture(params=["socket", "client"])
def stored(cache: Redis, request: Any, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """A cache with CONTENT as "a", read from the socket and, as if redis-py had none, by client calls."""
    if request.param == "client":
        monkeypatch.setattr(bulk, "private_socket", lambda connection: None)
    cache.set("a", CONTENT)
    return cache


def buffers(*ranges: tuple[int, int]) -> tuple[bytearray, list[StringRange]]:
    """Memory for parts of "a", one after another, and the parts."""
    memory, end, wanted = bytearray(sum(high - low for low, high in ranges)), 0, []
    for low, high in ranges:
        wanted.append(StringRange("a", low, memoryview(memory)[end : end + high - low]))
        end += high - low
    return memory, wanted


# ------------------------------------------------------------------------------------------------------ redis-py


def test_redis_py_still_has_the_private_socket(cache: Redis) -> None:
    connection = cache.connection_pool.get_connection()
    try:
        found = getattr(connection, "_sock", None)
        assert isinstance(found, socket.socket), (
            f"redis-py {redis.__version__} keeps no socket in Connection._sock (found {found!r}): worker/store/bulk.py "
            "falls back to client calls, which take twice as long. Change bulk.private_socket to what replaced it."
        )
        for method in ("pack_commands", "send_packed_command", "disconnect"):
            assert callable(getattr(connection, method, None)), (
                f"redis-py {redis.__version__} has no Connection.{method}, which worker/store/bulk.py calls."
            )
    finally:
        cache.connection_pool.release(connection)


@pytest.mark.parametrize("connection", [SimpleNamespace(), SimpleNamespace(_sock=None), SimpleNamespace(_sock=7)])
def test_a_missing_or_unknown_socket_is_not_used(connection: SimpleNamespace) -> None:
    assert bulk.private_socket(connection) is None


def test_client_calls_read_the_same_bytes_as_the_socket(cache: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("a", CONTENT)
    ranges = [(start, start + 1 + start % 70_001) for start in range(0, 900_000, 23_456)]
    from_socket, wanted = buffers(*ranges)
    sizes = [len(view) for view in receive(cache, wanted)]
    monkeypatch.setattr(bulk, "private_socket", lambda connection: None)
    by_client, wanted = buffers(*ranges)
    assert [len(view) for view in receive(cache, wanted)] == sizes
    assert by_client == from_socket == b"".join(CONTENT[low:high] for low, high in ranges)


# --------------------------------------------------------------------------------------------------- either way


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 300])
def test_any_number_of_parts_is_read_in_order(stored: Redis, count: int) -> None:
    starts = np.random.default_rng(count).integers(0, len(CONTENT) - 5000, count).tolist()
    ranges = [(start, start + 1 + start % 5000) for start in starts]
    memory, wanted = buffers(*ranges)
    sizes = [len(view) for view in receive(stored, wanted)]
    assert sizes == [high - low for low, high in ranges]
    assert bytes(memory) == b"".join(CONTENT[low:high] for low, high in ranges)


def test_one_buffer_can_be_reused_for_all_parts(stored: Redis) -> None:
    window = memoryview(bytearray(1000))
    views = receive(stored, (StringRange("a", start, window) for start in range(0, 100_000, 1000)))
    assert b"".join(map(bytes, views)) == CONTENT[:100_000]


@pytest.mark.parametrize("missing", [("b", 0), ("a", len(CONTENT) - 99), ("a", 2 * len(CONTENT))])
@pytest.mark.parametrize("before", [0, 3, 8, 20])
def test_a_missing_part_raises_and_the_connection_stays_usable(
    stored: Redis, missing: tuple[str, int], before: int
) -> None:
    _, wanted = buffers(*((n, n + 100) for n in range(before + 5)))
    wanted[before] = StringRange(*missing, memoryview(bytearray(100)))
    read: list[bytes] = []
    with pytest.raises(MissingString):
        read.extend(map(bytes, receive(stored, wanted)))
    assert read == [CONTENT[n : n + 100] for n in range(before)]
    assert stored.getrange("a", 5, 9) == CONTENT[5:10]


@pytest.mark.parametrize("count", [1, 8, 29])
def test_a_reader_that_stops_early_leaves_no_replies_behind(stored: Redis, count: int) -> None:
    _, wanted = buffers(*((n, n + 1000) for n in range(30)))
    views = receive(stored, wanted)
    for _ in range(count):
        next(views)
    views.close()  # type: ignore[attr-defined]
    assert stored.getrange("a", 5, 9) == CONTENT[5:10]


def test_a_broken_connection_raises_the_clients_error(servers: Servers) -> None:
    own: Any = connect(f"{servers.cache_url}?db=5", retries=1)
    own.set("a", CONTENT)
    views = receive(own, (StringRange("a", 0, memoryview(bytearray(len(CONTENT)))) for _ in range(100)))
    next(views)
    connect(servers.cache_url).client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(redis.exceptions.ConnectionError):
        list(views)
    assert own.delete("a") == 1
