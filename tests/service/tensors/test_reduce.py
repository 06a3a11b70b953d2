"""Levels of detail: what a cell of a shrunk tensor is, however the tensor is cut into strips."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from numpy.typing import NDArray

import service.tensors.slices as slices
from service.errors import Invalid
from service.tensors.reduce import HOW, cells, factors, shrink
from service.tensors.slices import View
from tests.service.tensors.test_slices import Held

Array = NDArray[Any]
HOW_PLAINLY: dict[str, Callable[[Array], Any]] = {
    "mean": np.mean, "max": np.max, "min": np.min, "absmax": lambda tile: np.abs(tile).max(),
}  # fmt: skip


def plainly(array: Array, by: tuple[int, ...], how: str) -> Array:
    """Tile by tile, as the words have it."""
    every = (1,) * (array.ndim - len(by)) + by
    result = np.empty([-(-size // factor) for size, factor in zip(array.shape, every, strict=True)])
    for at in np.ndindex(*result.shape):
        tile = array[tuple(slice(n * f, n * f + f) for n, f in zip(at, every, strict=True))].astype(np.float64)
        seen = tile[~np.isneginf(tile)]
        result[at] = HOW_PLAINLY[how](seen) if seen.size else -np.inf
    return result


@given(array_shapes(min_dims=3, max_dims=4, max_side=40), st.integers(1, 200))
def test_where_it_cannot_fit_it_is_said_why(shape: tuple[int, ...], max_cells: int) -> None:
    outer = int(np.prod(shape[:-2]))
    if outer > max_cells:
        with pytest.raises(Invalid, match=f"{max_cells:,} are too few: {outer:,} cells are left"):
            factors(shape, max_cells)
    else:
        factors(shape, max_cells)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("shape", "by"), [((7,), (3,)), ((6, 9), (2, 3)), ((2, 3, 7, 11), (3, 4)), ((5, 4), (1, 9))])
@pytest.mark.parametrize("most", [4, 40, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_a_cell_is_what_its_tile_is(
    how: Any, shape: tuple[int, ...], by: tuple[int, ...], most: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "_STRIP", most)
    array = (100 * np.random.default_rng(3).standard_normal(shape)).astype(dtype)
    np.testing.assert_allclose(shrink(View(Held(array)), by, how), plainly(array, by, how), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("most", [4, 24, 10_000])
@pytest.mark.parametrize("by", [(2, 3), (4, 4), (1, 1), (13, 13)])
def test_what_is_masked_counts_for_nothing(
    how: Any, by: tuple[int, ...], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "_STRIP", most)
    values = np.random.default_rng(4).standard_normal((2, 13, 13), dtype=np.float32)
    array = np.where(np.tri(13, dtype=bool), values, np.float32(-np.inf))
    found = shrink(View(Held(array)), by, how)
    np.testing.assert_allclose(found, plainly(array, by, how), rtol=1e-5, atol=1e-6)
    assert np.isneginf(found[:, 0, -1]).all() == (by != (13, 13))


@pytest.mark.parametrize(("how", "odd"), [*product(HOW, [np.nan, np.inf])])
def test_what_is_no_number_stays_so_beside_what_is_masked(how: Any, odd: float) -> None:
    array = np.array([[1, -2, 3, 4], [odd, -np.inf, -np.inf, 5]], np.float32)
    plain = {"mean": 4, "max": 5, "min": 3, "absmax": 5}[how]
    least = {"mean": odd, "max": odd, "min": odd if np.isnan(odd) else -2, "absmax": odd}[how]
    np.testing.assert_array_equal(shrink(View(Held(array)), (2, 2), how), [[least, plain]])


@pytest.mark.parametrize("how", HOW)
def test_a_slice_is_shrunk_along_the_axes_that_it_has(how: Any) -> None:
    array = np.random.default_rng(5).standard_normal((6, 5, 8, 7))
    key = (slice(None, None, -2), 3, slice(1, 8), 2)
    np.testing.assert_allclose(shrink(View(Held(array), key), (2, 3), how), plainly(array[key], (2, 3), how))
    assert shrink(View(Held(array), (1, 2, 3, 4)), (), how).shape == ()


def test_the_cells_that_one_stands_for_are_counted() -> None:
    view = View(Held(np.zeros((6, 5, 8, 7))), (slice(None, None, -2), 3, slice(1, 8), 2))
    np.testing.assert_array_equal(cells(view, (2, 3)), [[6, 6, 2], [3, 3, 1]])


def test_the_mean_of_millions_is_exact_to_float32() -> None:
    array = np.random.default_rng(6).standard_normal((3000, 700), dtype=np.float32) + np.float32(1000)
    [[found]] = shrink(View(Held(array)), (3000, 700), "mean")
    assert found == pytest.approx(array.mean(dtype=np.float64), rel=1e-6)
