"""Shrunk tensors against a plain reference, whatever strips they are read in."""

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
from service.tensors.reduce import REDUCTIONS, cells, factors, shrink
from service.tensors.slices import View
from tests.service.tensors.test_slices import ArraySource

Array = NDArray[Any]
REFERENCE: dict[str, Callable[[Array], Any]] = {
    "mean": np.mean, "max": np.max, "min": np.min, "absmax": lambda tile: np.abs(tile).max(),
}  # fmt: skip


def reference(array: Array, by: tuple[int, ...], how: str) -> Array:
    """Reduce tile by tile."""
    every = (1,) * (array.ndim - len(by)) + by
    result = np.empty([-(-size // factor) for size, factor in zip(array.shape, every, strict=True)])
    for at in np.ndindex(*result.shape):
        tile = array[tuple(slice(n * f, n * f + f) for n, f in zip(at, every, strict=True))].astype(np.float64)
        unmasked = tile[~np.isneginf(tile)]
        result[at] = REFERENCE[how](unmasked) if unmasked.size else -np.inf
    return result


@given(array_shapes(min_dims=3, max_dims=4, max_side=40), st.integers(1, 200))
def test_too_many_cells_before_the_last_axes_are_invalid(shape: tuple[int, ...], max_cells: int) -> None:
    outer = int(np.prod(shape[:-2]))
    if outer > max_cells:
        with pytest.raises(Invalid, match=f"to {max_cells:,} cells: the axes before the last two alone have {outer:,}"):
            factors(shape, max_cells)
    else:
        factors(shape, max_cells)


@pytest.mark.parametrize("how", REDUCTIONS)
@pytest.mark.parametrize(("shape", "by"), [((7,), (3,)), ((6, 9), (2, 3)), ((2, 3, 7, 11), (3, 4)), ((5, 4), (1, 9))])
@pytest.mark.parametrize("strip", [4, 40, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_a_cell_is_the_reduction_of_its_tile(
    how: Any, shape: tuple[int, ...], by: tuple[int, ...], strip: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "_STRIP", strip)
    array = (100 * np.random.default_rng(3).standard_normal(shape)).astype(dtype)
    np.testing.assert_allclose(
        shrink(View(ArraySource(array)), by, how), reference(array, by, how), rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("how", REDUCTIONS)
@pytest.mark.parametrize("strip", [4, 24, 10_000])
@pytest.mark.parametrize("by", [(2, 3), (4, 4), (1, 1), (13, 13)])
def test_masked_cells_are_ignored(how: Any, by: tuple[int, ...], strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_STRIP", strip)
    values = np.random.default_rng(4).standard_normal((2, 13, 13), dtype=np.float32)
    array = np.where(np.tri(13, dtype=bool), values, np.float32(-np.inf))
    found = shrink(View(ArraySource(array)), by, how)
    np.testing.assert_allclose(found, reference(array, by, how), rtol=1e-5, atol=1e-6)
    assert np.isneginf(found[:, 0, -1]).all() == (by != (13, 13))


@pytest.mark.parametrize(("how", "odd"), [*product(REDUCTIONS, [np.nan, np.inf])])
def test_nan_and_infinity_survive_beside_masked_cells(how: Any, odd: float) -> None:
    array = np.array([[1, -2, 3, 4], [odd, -np.inf, -np.inf, 5]], np.float32)
    plain = {"mean": 4, "max": 5, "min": 3, "absmax": 5}[how]
    least = {"mean": odd, "max": odd, "min": odd if np.isnan(odd) else -2, "absmax": odd}[how]
    np.testing.assert_array_equal(shrink(View(ArraySource(array)), (2, 2), how), [[least, plain]])


@pytest.mark.parametrize("how", REDUCTIONS)
def test_a_slice_is_shrunk_along_its_own_axes(how: Any) -> None:
    array = np.random.default_rng(5).standard_normal((6, 5, 8, 7))
    key = (slice(None, None, -2), 3, slice(1, 8), 2)
    np.testing.assert_allclose(shrink(View(ArraySource(array), key), (2, 3), how), reference(array[key], (2, 3), how))
    assert shrink(View(ArraySource(array), (1, 2, 3, 4)), (), how).shape == ()


def test_cells_of_each_tile_are_counted() -> None:
    view = View(ArraySource(np.zeros((6, 5, 8, 7))), (slice(None, None, -2), 3, slice(1, 8), 2))
    np.testing.assert_array_equal(cells(view, (2, 3)), [[6, 6, 2], [3, 3, 1]])


def test_the_mean_of_millions_is_exact_to_float32() -> None:
    array = np.random.default_rng(6).standard_normal((3000, 700), dtype=np.float32) + np.float32(1000)
    [[found]] = shrink(View(ArraySource(array)), (3000, 700), "mean")
    assert found == pytest.approx(array.mean(dtype=np.float64), rel=1e-6)
