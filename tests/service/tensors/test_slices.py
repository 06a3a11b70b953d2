"""Slices against NumPy's own indexing, and texts that are not slices."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices
from numpy.typing import NDArray

import service.tensors.slices as slices
from service.errors import Invalid
from service.tensors.slices import View, parse_slice
from worker.store.arrays import Axes

Index = int | slice | EllipsisType


def as_text(index: Index) -> str:
    if isinstance(index, slice):
        start, stop, step = ("" if part is None else str(part) for part in (index.start, index.stop, index.step))
        return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"
    return "..." if index is Ellipsis else str(index)


def keys(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[Index, ...]]:
    """Keys of NumPy's basic indexing, except new axes."""
    indices: st.SearchStrategy[Any] = basic_indices(shape, allow_ellipsis=True)
    return indices.map(lambda key: key if isinstance(key, tuple) else (key,))


def texts(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[tuple[Index, ...], str]]:
    separators = st.sampled_from([",", ", ", " ,"])
    return st.tuples(keys(shape), separators).map(lambda drawn: (drawn[0], drawn[1].join(map(as_text, drawn[0]))))


shapes_and_texts = array_shapes(max_dims=4, max_side=6).flatmap(lambda shape: st.tuples(st.just(shape), texts(shape)))


def cells(shape: tuple[int, ...], dtype: str = "float32") -> NDArray[Any]:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


class ArraySource:
    """An array as a source. The cost of a part is the bytes of its cells."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def cost(self, axes: Axes) -> int:
        return int(np.prod([*map(len, axes)])) * self.dtype.itemsize

    def parts(self, many: Any) -> Any:
        for axes in many:
            assert all(axis.step > 0 for axis in axes)
            yield self.array[np.ix_(*axes)]


@given(shapes_and_texts)
def test_a_slice_is_the_same_as_in_numpy(drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]]) -> None:
    shape, (key, text) = drawn
    array, parsed = cells(shape), parse_slice(text, shape)
    np.testing.assert_array_equal(array[parsed], array[key])
    assert View(ArraySource(array), parsed).shape == array[key].shape


@given(shapes_and_texts, st.sampled_from([4, 20, 1000]))
def test_strips_have_the_cells_of_the_slice_in_order_and_are_small(
    drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]], strip: int
) -> None:
    shape, (key, text) = drawn
    array = cells(shape)
    view = View(ArraySource(array), parse_slice(text, shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "_STRIP", strip)
        parts = [*view.parts()]
    assert b"".join(values.tobytes() for _, values in parts) == np.ascontiguousarray(array[key]).tobytes()
    assert max((values.nbytes for _, values in parts), default=0) <= strip
    whole = np.full(view.lengths, np.nan, np.float32)
    for position, values in parts:
        whole[position] = values
    np.testing.assert_array_equal(whole.reshape(view.shape), array[key])


@given(shapes_and_texts)
def test_a_contiguous_range_is_found_exactly_if_the_cells_follow_each_other(
    drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]],
) -> None:
    shape, (key, text) = drawn
    array = cells(shape, "int64")
    taken, found = array[key].ravel(), View(ArraySource(array), parse_slice(text, shape)).contiguous_range
    contiguous = np.array_equal(taken, np.arange(taken.size) + (taken[0] if taken.size else 0))
    assert (found is not None) == contiguous
    if found is not None:
        np.testing.assert_array_equal(np.arange(*found), taken)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0,0,0", "at most 2 axes and one ... are allowed"),
        ("...,0,...", "at most 2 axes and one ... are allowed"),
        ("...,0,0,0", "at most 2 axes and one ... are allowed"),
        ("3", "index 3 is out of bounds for an axis of size 3"),
        ("-4", "index -4 is out of bounds for an axis of size 3"),
        ("0,999999999999999999", "index 999999999999999999 is out of bounds for an axis of size 4"),
        ("::0", "step must not be 0"),
        ("a", "'a' must be an integer, start:stop:step or ..."),
        (",", "'' must be an integer"),
        ("0,", "'' must be an integer"),
        ("1.0", "'1.0' must be an integer"),
        ("+1", "'+1' must be an integer"),
        ("1:2:3:4", "'1:2:3:4' must be an integer"),
        ("None", "'None' must be an integer"),
        ("[0]", "'[0]' must be an integer"),
        ("٣", "'٣' must be an integer"),
        ("9" * 30, "must be an integer"),
        ("....", "'....' must be an integer"),
    ],
)
def test_an_invalid_slice_is_rejected_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_slice(text, (3, 4))
    [[message]] = raised.value.errors.values()
    assert message.startswith(f"{text!r}: ")
    assert why in message
    assert "Use basic NumPy slicing of shape [3, 4]" in message
