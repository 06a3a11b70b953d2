"""Slices: which cells they take, whatever the strips that they are read in, and what is no slice."""

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
    """What NumPy's basic indexing takes of a shape, but new axes."""
    found: st.SearchStrategy[Any] = basic_indices(shape, allow_ellipsis=True)
    return found.map(lambda key: key if isinstance(key, tuple) else (key,))


def texts(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[tuple[Index, ...], str]]:
    separators = st.sampled_from([",", ", ", " ,"])
    return st.tuples(keys(shape), separators).map(lambda drawn: (drawn[0], drawn[1].join(map(as_text, drawn[0]))))


shapes_and_texts = array_shapes(max_dims=4, max_side=6).flatmap(lambda shape: st.tuples(st.just(shape), texts(shape)))


def cells(shape: tuple[int, ...], dtype: str = "float32") -> NDArray[Any]:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


class Held:
    """An array as a source: a strip costs as much as the bytes of its cells."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def cost(self, axes: Axes) -> int:
        return int(np.prod([*map(len, axes)])) * self.dtype.itemsize

    def parts(self, many: Any) -> Any:
        for axes in many:
            assert all(axis.step > 0 for axis in axes)
            yield self.array[np.ix_(*axes)]


@given(shapes_and_texts)
def test_a_slice_means_what_it_means_in_numpy(drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]]) -> None:
    shape, (key, text) = drawn
    array, parsed = cells(shape), parse_slice(text, shape)
    np.testing.assert_array_equal(array[parsed], array[key])
    assert View(Held(array), parsed).shape == array[key].shape


@given(shapes_and_texts, st.sampled_from([4, 20, 1000]))
def test_the_strips_of_a_slice_are_its_cells_in_their_order_and_none_is_large(
    drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]], most: int
) -> None:
    shape, (key, text) = drawn
    array = cells(shape)
    view = View(Held(array), parse_slice(text, shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "_STRIP", most)
        parts = [*view.parts()]
    assert b"".join(values.tobytes() for _, values in parts) == np.ascontiguousarray(array[key]).tobytes()
    assert max((values.nbytes for _, values in parts), default=0) <= most
    whole = np.full(view.lengths, np.nan, np.float32)
    for position, values in parts:
        whole[position] = values
    np.testing.assert_array_equal(whole.reshape(view.shape), array[key])


@given(shapes_and_texts)
def test_a_run_is_the_cells_between_two_and_no_other_order(
    drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]],
) -> None:
    shape, (key, text) = drawn
    array = cells(shape, "int64")
    taken, run = array[key].ravel(), View(Held(array), parse_slice(text, shape)).run
    one_after_another = np.array_equal(taken, np.arange(taken.size) + (taken[0] if taken.size else 0))
    assert (run is not None) == one_after_another
    if run is not None:
        np.testing.assert_array_equal(np.arange(*run), taken)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0,0,0", "the tensor has 2 axes"),
        ("...,0,...", "the tensor has 2 axes"),
        ("...,0,0,0", "the tensor has 2 axes"),
        ("3", "3 is outside an axis of 3"),
        ("-4", "-4 is outside an axis of 3"),
        ("0,999999999999999999", "999999999999999999 is outside an axis of 4"),
        ("::0", "a step of 0 goes nowhere"),
        ("a", "'a' is neither a number nor start:stop:step nor ..."),
        (",", "'' is neither"),
        ("0,", "'' is neither"),
        ("1.0", "'1.0' is neither"),
        ("+1", "'+1' is neither"),
        ("1:2:3:4", "'1:2:3:4' is neither"),
        ("None", "'None' is neither"),
        ("[0]", "'[0]' is neither"),
        ("٣", "'٣' is neither"),
        ("9" * 30, "is neither"),
        ("....", "'....' is neither"),
    ],
)
def test_what_is_no_slice_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_slice(text, (3, 4))
    [[message]] = refused.value.errors.values()
    assert message.startswith(f"{text!r}: ")
    assert why in message
    assert "Basic NumPy slicing of shape [3, 4] is allowed" in message
