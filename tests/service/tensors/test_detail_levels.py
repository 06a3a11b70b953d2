"""Shrinking from the stored level gives the same values as shrinking all cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import worker.store.pieces as pieces
from service.tensors.detail_levels import DetailLevel
from service.tensors.reduce import REDUCTIONS, shrink
from service.tensors.slices import View, parse_slice
from tests.service.tensors.test_slices import ArraySource
from worker.store.arrays import StoredArray
from worker.store.connection import connect
from worker.trace.detail import Level

ARRAY = np.random.default_rng(7).standard_normal((2, 3, 41, 1100), dtype=np.float32)
BY = (2, 64)
ID = "5ma11e5" * 9 + "0"


@pytest.fixture(scope="module")
def level(servers: Any) -> Iterator[DetailLevel]:
    """The stored level of ARRAY, after 20 other bytes. ARRAY itself is not stored."""
    built = Level(ARRAY.shape)
    assert built.by == BY
    for start, stop in built.strips(9000):
        built.add(ARRAY.reshape(-1)[start:stop])
    cache = connect(servers.cache_url)
    with pieces.CacheWriter(cache, ID, ttl=60) as writer:
        writer.append(memoryview(bytes(20) + built.content()))
        writer.finish({})
    yield DetailLevel.of(
        StoredArray(pieces.CachedBytes(cache, ID), ARRAY.shape, ARRAY.dtype, 0), {"by": [*BY], "offset": 20}
    )
    pieces.delete(cache, ID)


@pytest.mark.parametrize("how", REDUCTIONS)
@pytest.mark.parametrize("text", ["", "1", ":,::-2", "0,1:", "...,:", ":,2,:,:"])
@pytest.mark.parametrize("by", [(2, 64), (2, 128), (4, 256), (64, 2048)])
def test_the_level_gives_the_same_values_as_all_cells(
    level: DetailLevel, how: Any, text: str, by: tuple[int, int]
) -> None:
    view = View(ArraySource(ARRAY), parse_slice(text, ARRAY.shape))
    assert level.serves(view, by)
    np.testing.assert_allclose(level.shrink(view, by, how), shrink(view, by, how), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("", (4, 32)),  # finer than the level
        ("...,1:", (4, 64)),  # other tiles
        ("...,::-1", (4, 64)),
        (":,:,::2", (4, 64)),
        (":,:,5", (2, 64)),  # other axes are shrunk
        ("0,0,0", (64,)),
    ],
)
def test_views_that_need_other_tiles_are_not_served(level: DetailLevel, text: str, by: tuple[int, ...]) -> None:
    assert not level.serves(View(ArraySource(ARRAY), parse_slice(text, ARRAY.shape)), by)
