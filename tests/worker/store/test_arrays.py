"""Slices of arrays in the cache: their cells, and the bytes that are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

import worker.store.pieces as pieces
from worker.store.arrays import Axes, StoredArray
from worker.store.pieces import CachedBytes, CacheWriter
from worker.store.stored_bytes import Missing

SHAPE = (3, 5, 7, 11)
ARRAY = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


def store(cache: Redis, array: Any) -> StoredArray:
    """Store an array after 12 other bytes."""
    with CacheWriter(cache, "a", ttl=60) as writer:
        writer.append(memoryview(bytes(12) + array.tobytes()))
        writer.finish({})
    return StoredArray(CachedBytes(cache, "a"), array.shape, array.dtype, 12)


def ranges(size: int) -> st.SearchStrategy[range]:
    """Draw some indices of an axis, at least one."""
    steps = st.tuples(st.integers(0, size - 1), st.integers(1, size), st.integers(1, size))
    return steps.map(lambda drawn: range(drawn[0], min(drawn[0] + drawn[1], size), drawn[2]))


any_axes = st.tuples(*map(ranges, SHAPE))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_axes, min_size=1, max_size=5), st.sampled_from([0, 30, 200, 10_000]), st.sampled_from([256, 1000]))
def test_parts_have_the_cells_of_their_axes(cache: Redis, many: list[Axes], gap: int, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CachedBytes, "gap", gap)
        patch.setattr(pieces, "PIECE", piece)
        found = [part.copy() for part in store(cache, ARRAY).parts(iter(many))]
    assert len(found) == len(many)
    for part, axes in zip(found, many, strict=True):
        np.testing.assert_array_equal(part, ARRAY[np.ix_(*axes)])


@given(any_axes)
def test_cost_is_between_the_size_of_the_cells_and_that_of_the_array(axes: Axes) -> None:
    cost = StoredArray(CachedBytes(Redis(), "a"), SHAPE, np.dtype("<f4"), 0).cost(axes)
    assert 4 * np.prod([*map(len, axes)]) <= cost <= ARRAY.nbytes


def test_distant_cells_are_read_separately(cache: Redis) -> None:
    wide = StoredArray(CachedBytes(cache, "a"), (1024, 100_000), np.dtype("<f4"), 0)
    column = (range(1024), range(5, 6))
    assert wide.cost(column) == 1024 * 4 + 1023 * (3 << 10)  # instead of 400 MB
    assert wide.cost((range(7, 8), range(1024))) == 4096


def test_only_parts_of_an_evicted_piece_are_missing(cache: Redis) -> None:
    big = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)
    stored = store(cache, big)
    cache.unlink("result:a:2")
    assert next(stored.parts([(range(3, 4), range(1024))]))[0, 5] == big[3, 5]
    for columns in (range(1024), range(5, 6)):
        with pytest.raises(Missing):
            next(stored.parts([(range(1024), columns)]))


def test_parts_keep_their_order_however_they_are_read(cache: Redis) -> None:
    big = np.arange(1 << 19, dtype=np.float32).reshape(128, 4096)
    rows, columns = (range(7, 9), range(4096)), (range(128), range(3, 4096, 2000))
    many = [rows, columns, columns, rows, rows, columns]
    for part, axes in zip(store(cache, big).parts(many), many, strict=True):
        np.testing.assert_array_equal(part, big[np.ix_(*axes)])
