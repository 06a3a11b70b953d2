"""What is made of the level that the worker kept is what is made of all cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import worker.store.pieces as pieces
from service.tensors.detail_levels import Smaller
from service.tensors.reduce import HOW, shrink
from service.tensors.slices import View, parse_slice
from tests.service.tensors.test_slices import Held
from worker.store.arrays import StoredArray
from worker.store.connection import connect
from worker.trace.detail import Level

ARRAY = np.random.default_rng(7).standard_normal((2, 3, 41, 1100), dtype=np.float32)
BY = (2, 64)
ID = "5ma11e5" * 9 + "0"


@pytest.fixture(scope="module")
def smaller(servers: Any) -> Iterator[Smaller]:
    """The level that is kept of ARRAY, after 20 bytes of something else. ARRAY itself is nowhere."""
    level = Level(ARRAY.shape)
    assert level.by == BY
    for start, stop in level.strips(9000):
        level.add(ARRAY.reshape(-1)[start:stop])
    cache = connect(servers.cache_url)
    with pieces.CacheWriter(cache, ID, ttl=60) as writer:
        writer.append(memoryview(bytes(20) + level.content()))
        writer.finish({})
    yield Smaller.of(
        StoredArray(pieces.CachedBytes(cache, ID), ARRAY.shape, ARRAY.dtype, 0), {"by": [*BY], "offset": 20}
    )
    pieces.forget(cache, ID)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("text", ["", "1", ":,::-2", "0,1:", "...,:", ":,2,:,:"])
@pytest.mark.parametrize("by", [(2, 64), (2, 128), (4, 256), (64, 2048)])
def test_it_is_what_all_cells_give(smaller: Smaller, how: Any, text: str, by: tuple[int, int]) -> None:
    view = View(Held(ARRAY), parse_slice(text, ARRAY.shape))
    assert smaller.serves(view, by)
    np.testing.assert_allclose(smaller.shrink(view, by, how), shrink(view, by, how), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("", (4, 32)),  # finer than it
        ("...,1:", (4, 64)),  # other tiles
        ("...,::-1", (4, 64)),
        (":,:,::2", (4, 64)),
        (":,:,5", (2, 64)),  # another axis is shrunk
        ("0,0,0", (64,)),
    ],
)
def test_it_serves_no_other_tiles(smaller: Smaller, text: str, by: tuple[int, ...]) -> None:
    assert not smaller.serves(View(Held(ARRAY), parse_slice(text, ARRAY.shape)), by)
