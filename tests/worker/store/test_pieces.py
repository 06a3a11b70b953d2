"""Results in the cache: complete or missing, whatever Redis evicts."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.exceptions
from redis import Redis
from redis.client import Pipeline

import service.up.redis_server as redis_server
import worker.store.pieces as pieces
from worker.store.connection import connect
from worker.store.pieces import PIECE, CacheFull, CacheWriter
from worker.store.stored_bytes import Missing

SIZE = 18 * PIECE + 123  # more pieces than a round trip writes, and a part of one
CONTENT = np.random.default_rng(0).bytes(SIZE)


def write(cache: Redis, content: bytes = CONTENT, id: str = "a", **manifest: Any) -> None:
    with CacheWriter(cache, id, ttl=60) as writer:
        writer.append(memoryview(content))
        writer.finish(manifest)


def is_done(cache: Redis, id: str) -> bool:
    """Return whether the result is complete."""
    try:
        pieces.manifest(cache, id)
    except Missing:
        return False
    return True


@pytest.fixture(scope="module")
def stored(servers: Any) -> Redis:
    """A cache that holds CONTENT as "a"; only for tests that read it."""
    redis = connect(f"{servers.cache_url}?db=3")
    write(redis)
    return redis


@pytest.fixture(scope="module")
def small_server() -> Iterator[str]:
    """The URL of a Redis that holds 8 MB."""
    with (
        tempfile.TemporaryDirectory(prefix="cutaway-test-") as folder,
        redis_server.start("cache", Path(folder), "8mb") as server,
    ):
        yield server.url


@pytest.fixture
def small_cache(small_server: str) -> Redis:
    """The same Redis, empty."""
    redis = connect(small_server)
    redis.flushdb()
    return redis


# ----------------------------------------------------------------------------------------------- complete results


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, SIZE),
        (0, 0),
        (5, 5),
        (PIECE, PIECE),
        (0, 1),
        (PIECE - 1, PIECE),
        (PIECE, PIECE + 1),
        (PIECE - 1, PIECE + 1),
        (0, PIECE),
        (PIECE, 2 * PIECE),
        (PIECE - 1, 3 * PIECE + 1),
        (13 * PIECE + 7, 17 * PIECE + 9),
        (18 * PIECE, SIZE),
        (SIZE - 1, SIZE),
        (SIZE, SIZE),
    ],
)
def test_any_range_can_be_read(stored: Redis, start: int, stop: int) -> None:
    assert pieces.read(stored, "a", start, stop) == CONTENT[start:stop]


def test_stream_yields_the_range_in_pieces(stored: Redis) -> None:
    found = [*pieces.stream(stored, "a", PIECE // 2, SIZE)]
    assert b"".join(found) == CONTENT[PIECE // 2 :]
    assert max(map(len, found)) == PIECE


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 16 * PIECE, 16 * PIECE + 1])
def test_results_of_any_size_are_complete(cache: Redis, size: int) -> None:
    write(cache, CONTENT[:size])
    assert pieces.manifest(cache, "a")["size"] == size
    assert is_done(cache, "a")
    assert pieces.read(cache, "a", 0, size) == CONTENT[:size]


def test_manifest_has_its_fields_and_the_size(cache: Redis) -> None:
    write(cache, b"12345", kind="trace", request={"tokens": [1]}, output="Ä")
    assert pieces.manifest(cache, "a") == {"kind": "trace", "request": {"tokens": [1]}, "output": "Ä", "size": 5}


def test_results_are_separate(cache: Redis) -> None:
    write(cache, b"one", "a")
    write(cache, b"other", "b")
    assert pieces.read(cache, "a", 0, 3) + pieces.read(cache, "b", 0, 5) == b"oneother"


# --------------------------------------------------------------------------------------------- missing results


def test_unknown_result_is_missing(cache: Redis) -> None:
    with pytest.raises(Missing):
        pieces.manifest(cache, "a")
    assert not is_done(cache, "a")


@pytest.mark.parametrize("lost", [0, 1, 17, 18])
@pytest.mark.parametrize(
    "break_piece",
    [lambda cache, key: cache.unlink(key), lambda cache, key: cache.set(key, b"short")],
    ids=["evicted", "truncated"],
)
def test_result_with_a_lost_piece_is_missing(cache: Redis, break_piece: Callable[[Redis, str], Any], lost: int) -> None:
    write(cache)
    break_piece(cache, f"result:a:{lost}")
    with pytest.raises(Missing):
        pieces.read(cache, "a", 0, SIZE)
    with pytest.raises(Missing):
        pieces.read(cache, "a", lost * PIECE + 10, lost * PIECE + 20)


def test_result_with_a_lost_piece_is_not_done(cache: Redis) -> None:
    write(cache)
    cache.unlink("result:a:3")
    assert not is_done(cache, "a")


def test_other_pieces_can_still_be_read(cache: Redis) -> None:
    write(cache)
    cache.unlink("result:a:3")
    assert pieces.read(cache, "a", 4 * PIECE, SIZE) == CONTENT[4 * PIECE :]


def test_range_past_the_end_is_missing(stored: Redis) -> None:
    with pytest.raises(Missing):
        pieces.read(stored, "a", 0, SIZE + 1)


# -------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("step", [999_983, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 17 * PIECE + 5, SIZE])
def test_result_does_not_depend_on_the_size_of_appends(cache: Redis, step: int) -> None:
    with CacheWriter(cache, "a", ttl=60) as writer:
        for start in range(0, SIZE, step):
            writer.append(memoryview(CONTENT)[start : start + step])
        writer.finish({})
    assert pieces.read(cache, "a", 0, SIZE) == CONTENT
    assert pieces.manifest(cache, "a") == {"size": SIZE}
    assert {cache.strlen(f"result:a:{n}") for n in range(18)} == {PIECE}


def test_memory_can_be_reused_after_append(cache: Redis) -> None:
    window, rest = bytearray(3 * PIECE // 2), CONTENT
    with CacheWriter(cache, "a", ttl=60) as writer:
        while rest:
            taken, rest = rest[: len(window)], rest[len(window) :]
            window[: len(taken)] = taken
            writer.append(memoryview(window)[: len(taken)])
        writer.finish({})
    assert pieces.read(cache, "a", 0, SIZE) == CONTENT


def test_full_pieces_are_sent_and_memory_is_bounded(cache: Redis) -> None:
    content, sent = memoryview(CONTENT)[: PIECE // 3], []
    tracemalloc.start()
    try:
        with CacheWriter(cache, "a", ttl=60) as writer:
            for _ in range(60):
                writer.append(content)
                sent.append(cache.dbsize())
            writer.finish({})
        assert tracemalloc.get_traced_memory()[1] < 5 * PIECE
    finally:
        tracemalloc.stop()
    assert sent == [n * (PIECE // 3) // PIECE for n in range(1, 61)]
    assert is_done(cache, "a")


def test_only_unfinished_results_expire(cache: Redis) -> None:
    keys = [f"result:a:{n}" for n in range(19)]
    with CacheWriter(cache, "a", ttl=60) as writer:
        writer.append(memoryview(CONTENT))
        assert all(0 < cache.ttl(key) <= 60 for key in keys[:18])
        writer.finish({})
    assert [cache.ttl(key) for key in ["result:a", *keys]] == [-1] * 20


def test_unfinished_result_is_missing(cache: Redis) -> None:
    write(cache)
    cache.unlink("result:a:3")  # so it is computed again: meanwhile the old manifest must not be found
    with CacheWriter(cache, "a", ttl=60) as writer:
        writer.append(memoryview(CONTENT))
        with pytest.raises(Missing):
            pieces.manifest(cache, "a")
        writer.finish({})
    assert is_done(cache, "a")


def test_writer_that_fails_leaves_nothing(cache: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    executions, execute = count(1), Pipeline.execute
    midway: list[bool] = []

    def failing(pipeline: Pipeline) -> Any:
        if next(executions) == 2:
            midway.append(bool(cache.exists("result:a:0")))
            raise ConnectionError
        return execute(pipeline)

    monkeypatch.setattr(Pipeline, "execute", failing)
    with pytest.raises(ConnectionError):
        write(cache)
    assert midway == [True]
    assert cache.dbsize() == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exception_while_writing_leaves_nothing(cache: Redis, error: type[BaseException]) -> None:
    def make() -> None:
        with CacheWriter(cache, "a", ttl=60) as writer:
            writer.append(memoryview(CONTENT))
            raise error

    with pytest.raises(error):
        make()
    assert cache.dbsize() == 0


@pytest.mark.parametrize("finished", [False, True])
def test_disconnected_writer_leaves_the_result_of_another_writer(cache: Redis, finished: bool) -> None:
    def cut_off() -> None:
        with CacheWriter(cache, "a", ttl=60) as writer:
            writer.append(memoryview(CONTENT)[: 3 * PIECE])
            another.append(memoryview(CONTENT))
            if finished:
                another.finish({})
            raise redis.exceptions.ConnectionError

    with CacheWriter(cache, "a", ttl=60) as another:
        with pytest.raises(redis.exceptions.ConnectionError):
            cut_off()
        if not finished:
            another.finish({})
    assert pieces.read(cache, "a", 0, SIZE) == CONTENT


def test_only_unfinished_results_are_dropped(cache: Redis) -> None:
    write(cache, id="b")
    CacheWriter(cache, "a", ttl=60).append(memoryview(CONTENT))
    cache.unlink("result:a:0", "result:a:7")  # as if evicted
    for id in ("a", "b", "never"):
        pieces.drop_unfinished(cache, id)
    assert cache.dbsize() == 1 + 19
    assert is_done(cache, "b")


# -------------------------------------------------------------------------------------------------- deleting


def test_deleted_result_leaves_nothing(cache: Redis) -> None:
    write(cache)
    pieces.delete(cache, "a")
    assert cache.dbsize() == 0


def test_deleting_leaves_other_results(cache: Redis) -> None:
    write(cache, b"one", "a")
    write(cache, b"other", "b")
    pieces.delete(cache, "a")
    assert pieces.read(cache, "b", 0, 5) == b"other"


def test_deleting_an_unknown_result_does_nothing(cache: Redis) -> None:
    write(cache, b"other", "b")
    pieces.delete(cache, "a")
    assert is_done(cache, "b")


# -------------------------------------------------------------------------------------------------- full caches


@pytest.mark.parametrize("size", [9 * PIECE, SIZE])
def test_result_larger_than_the_cache_is_refused_and_removed(small_cache: Redis, size: int) -> None:
    with pytest.raises(CacheFull, match=f"{size:,} bytes"):
        write(small_cache, CONTENT[:size])
    assert small_cache.dbsize() == 0


def test_result_that_evicts_itself_is_refused_early(small_cache: Redis) -> None:
    def append_without_end(writer: CacheWriter) -> None:
        with writer:
            for _ in range(1000):
                writer.append(memoryview(CONTENT)[:PIECE])

    writer = CacheWriter(small_cache, "a", ttl=60)
    with pytest.raises(CacheFull):
        append_without_end(writer)
    assert writer.size < 30 * PIECE
    assert small_cache.dbsize() == 0


def test_new_result_evicts_old_ones_and_not_itself(small_cache: Redis) -> None:
    old_ids = [f"old{n}" for n in range(60)]
    for id in old_ids:
        write(small_cache, CONTENT[:100_000], id)
    for id in 20 * old_ids:  # a policy by frequency of use would prefer them to new ones
        pieces.read(small_cache, id, 0, 100_000)
    time.sleep(2)  # the LRU clock of Redis ticks once a second
    write(small_cache, CONTENT[: 3 * PIECE], "new")
    assert pieces.read(small_cache, "new", 0, 3 * PIECE) == CONTENT[: 3 * PIECE]


def test_full_cache_without_eviction_refuses_a_result(small_cache: Redis) -> None:
    small_cache.config_set("maxmemory-policy", "noeviction")
    try:
        with pytest.raises(CacheFull):
            write(small_cache)
        assert small_cache.dbsize() == 0
    finally:
        small_cache.config_set("maxmemory-policy", "allkeys-lru")


# ------------------------------------------------------------------------------------------------- many results


def test_which_done_returns_the_complete_results(cache: Redis) -> None:
    for n in range(7):
        write(cache, CONTENT[: (0, 9, PIECE, 3 * PIECE)[n % 4]], id=f"{n}", tensors={"size": 1}, size=5)
    cache.delete("result:3:1", "result:4", "result:6:0")  # 3 and 6 have lost a piece, 4 its manifest
    ids = [f"{n}" for n in range(8)]
    assert pieces.which_done(cache, ids) == {"0", "1", "2", "5"}
    assert pieces.which_done(cache, ids) == {id for id in ids if is_done(cache, id)}
    assert pieces.which_done(cache, []) == set()


def test_which_done_takes_more_ids_than_a_round_trip(cache: Redis) -> None:
    write(cache, b"x", id="last")
    assert pieces.which_done(cache, [*(f"{n}" for n in range(3000)), "last"]) == {"last"}
