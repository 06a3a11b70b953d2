"""Each kernel against the same operation in NumPy."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.engine.compiled import CompiledEngine
from worker.engine.numpy_engine import Engine
from worker.weights.base import CachedWeights

pytest.importorskip("worker.engine._kernels", reason="no compiler built the kernels here")
Array = NDArray[Any]


def drawn(*shape: int) -> Array:
    """Return the same random numbers each time."""
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def empty(*shape: int) -> Array:
    return np.full(shape, np.nan, np.float32)


WEIGHTS = CachedWeights({"wide.weight": drawn(70), "head.weight": drawn(37)})
ENGINES = Engine(WEIGHTS), CompiledEngine(WEIGHTS)


def assert_alike(wanted: tuple[Array, ...], found: tuple[Array, ...]) -> None:
    for one, other in zip(wanted, found, strict=True):
        finite = np.isfinite(one)
        np.testing.assert_array_equal(np.isfinite(other), finite)
        np.testing.assert_allclose(other[finite], one[finite], rtol=0, atol=3e-6 * max(1.0, np.abs(one[finite]).max()))


@pytest.mark.parametrize("offset", [None, 1.0])
def test_an_rms_norm_matches_numpy(offset: float | None) -> None:
    results = []
    for engine in ENGINES:
        scale, out = empty(2, 13, 1), empty(2, 13, 70)
        engine.rms_norm(drawn(2, 13, 70), "wide", 1e-5, scale, out, offset)
        results.append((scale, out))
    assert_alike(*results)


def test_an_rms_norm_of_each_head_matches_numpy_at_some_positions() -> None:
    results = []
    for engine in ENGINES:
        scale, out = empty(2, 20, 3, 1), empty(2, 20, 3, 37)
        engine.rms_norm(drawn(2, 20, 3, 37)[:, 3:11], "head", 1e-5, scale[:, 3:11], out[:, 3:11])
        assert np.isnan(out[:, :3]).all()
        assert np.isnan(out[:, 11:]).all()
        results.append((scale[:, 3:11], out[:, 3:11]))
    assert_alike(*results)


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@pytest.mark.parametrize("width", [None, 2, 8, 36])
def test_a_rotation_matches_numpy_at_some_positions(pairs: str, width: int | None) -> None:
    results = []
    for engine in ENGINES:
        out, rows = empty(2, 9, 3, 40), slice(2, 7)
        engine.rotate(
            drawn(2, 9, 3, 40)[:, rows], drawn(1, 9, 40)[:, rows], drawn(1, 8, 40)[:, 1:6], out[:, rows], pairs, width
        )
        assert np.isnan(out[:, :2]).all()
        assert np.isnan(out[:, 7:]).all()
        results.append((out[:, rows],))
    assert_alike(*results)


@pytest.mark.parametrize("function", ["gelu_new", "gelu", "relu", "silu"])
def test_a_gate_matches_numpy(function: str) -> None:
    results = []
    for engine in ENGINES:
        out = empty(2, 5, 301)
        engine.gate(function, drawn(2, 5, 301), drawn(1, 5, 301).repeat(2, 0), out)
        results.append((out,))
    assert_alike(*results)


@pytest.mark.parametrize(
    ("length", "window"), [*product([1, 5, 41], [None, 1, 3, 40, 1000]), (270, 40)], ids=lambda value: str(value)
)
def test_attention_matches_numpy(length: int, window: int | None) -> None:
    for heads, kv_heads, has_slopes in ((6, 2, False), (4, 4, True), (3, 1, True)):
        q, k, v = drawn(2, length, heads, 37), drawn(2, length, kv_heads, 37), drawn(2, length, kv_heads, 37)[::-1]
        slopes = np.linspace(0.1, 1, heads, dtype=np.float32) if has_slopes else None
        square, statistic = (2, heads, length, length), (2, heads, length)
        for first in {0, length - 1, min(130, length)}:  # in one pass, then in two
            results = []
            for engine in ENGINES:
                values = empty(*square), empty(*statistic), empty(*statistic), empty(*square), empty(*q.shape)
                for rows in (slice(0, first), slice(first, length)):
                    if rows.start < rows.stop:
                        engine.attention(rows, q, k, v, *values, slopes, scale=0.3, window=window)
                results.append(values)
            assert_alike(*results)


def test_a_kernel_refuses_shapes_that_do_not_fit() -> None:
    engine = ENGINES[1]
    with pytest.raises(ValueError, match="shapes"):
        engine.rotate(drawn(1, 4, 2, 8), drawn(1, 3, 8), drawn(1, 3, 8), empty(1, 4, 2, 8))
    with pytest.raises(ValueError, match="shapes"):
        engine.rms_norm(drawn(1, 4, 8), "wide", 1e-5, empty(1, 4, 1), empty(1, 4, 8))
    with pytest.raises(ValueError, match="shapes"):  # 3 heads cannot share 2 of keys
        engine.attention(
            slice(0, 4), drawn(1, 4, 3, 8), drawn(1, 4, 2, 8), drawn(1, 4, 2, 8), empty(1, 3, 4, 4), empty(1, 3, 4),
            empty(1, 3, 4), empty(1, 3, 4, 4), empty(1, 4, 3, 8),
        )  # fmt: skip
