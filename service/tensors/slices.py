"""Parse basic NumPy slices, and read a slice part by part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import Invalid
from worker.store.arrays import Axes
from worker.weights.base import Key

Position = tuple[slice, ...]  # of a part within a slice: a slice of each axis

_STRIP = 4 << 20  # bytes read at a time
_NUMBER = r"-?\d{1,18}"
_AXIS = re.compile(
    rf"\s*(?:(?P<at>{_NUMBER})|(?P<start>{_NUMBER})?:(?P<stop>{_NUMBER})?(?::(?P<step>{_NUMBER})?)?)\s*", re.ASCII
)
_RANGE = re.compile(r"(\d{0,9}):(\d{0,9})", re.ASCII)


class Source(Protocol):
    """A tensor whose values can be read in parts."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def cost(self, axes: Axes) -> int:
        """Return how many bytes reading a part takes."""

    def parts(self, many: Iterable[Axes]) -> Iterator[NDArray[Any]]:
        """Yield the values of each part, with all axes."""


@dataclass(frozen=True)
class View:
    """`source[key]`: a basic slice of a tensor, whose values are not read yet."""

    source: Source
    key: Key = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of indices of every axis of the source; 1 for an axis that an integer index drops."""
        return tuple(map(len, self._ranges()))

    @property
    def axes(self) -> list[int]:
        """The axes of the source that are axes of the slice."""
        return [n for n in range(len(self.source.shape)) if n >= len(self.key) or isinstance(self.key[n], slice)]

    @property
    def shape(self) -> tuple[int, ...]:
        lengths = self.lengths
        return tuple(lengths[n] for n in self.axes)

    def is_whole(self, axis: int) -> bool:
        """Return whether the slice has every index of an axis, in order."""
        return self._ranges()[axis] == range(self.source.shape[axis])

    @property
    def contiguous_range(self) -> tuple[int, int] | None:
        """The first cell of the slice and the one after its last, in the source's C order; None if not contiguous."""
        ranges = self._ranges()
        if not all(ranges):
            return 0, 0
        first = last = 0
        begun = False  # whether an axis before this one has more than one index
        for axis, size in zip(ranges, self.source.shape, strict=True):
            if (len(axis) > 1 and axis.step != 1) or (begun and len(axis) < size):
                return None
            begun = begun or len(axis) > 1
            first, last = first * size + axis[0], last * size + axis[-1]
        return first, last + 1

    def parts(self) -> Iterator[tuple[Position, NDArray[Any]]]:
        """Yield strips of the values in C order, with all axes of the source, each after its position in the slice."""
        ranges = self._ranges()
        if not all(ranges):
            return
        ascending = [axis if axis.step > 0 else axis[::-1] for axis in ranges]
        direction = tuple(slice(None, None, 1 if axis.step > 0 else -1) for axis in ranges)

        def indices(position: Position) -> Axes:
            return tuple(
                up[at] if axis.step > 0 else up[len(axis) - at.stop : len(axis) - at.start]
                for up, axis, at in zip(ascending, ranges, position, strict=True)
            )

        whole = tuple(slice(0, len(axis)) for axis in ranges)
        positions = [*_strips(whole, lambda position: self.source.cost(indices(position)) <= _STRIP)]
        for position, values in zip(positions, self.source.parts(map(indices, positions)), strict=True):
            yield position, values[direction]

    def _ranges(self) -> list[range]:
        """Return the indices of every axis of the source."""
        every = [*self.key, *(slice(None),) * (len(self.source.shape) - len(self.key))]
        return [
            range(*k.indices(size)) if isinstance(k, slice) else range(k % size, k % size + 1)
            for k, size in zip(every, self.source.shape, strict=True)
        ]


def _strips(position: Position, fits: Callable[[Position], bool]) -> Iterator[Position]:
    """Yield parts that fit, in C order, by halving the first axis that has more than one index."""
    axis = next((n for n, at in enumerate(position) if at.stop - at.start > 1), None)
    if axis is None or fits(position):
        yield position
        return
    at = position[axis]
    middle = (at.start + at.stop) // 2
    for half in (slice(at.start, middle), slice(middle, at.stop)):
        yield from _strips((*position[:axis], half, *position[axis + 1 :]), fits)


def parse_slice(text: str, shape: tuple[int, ...]) -> Key:
    """Return the key that a text in the syntax of basic NumPy slicing ("0,:,5", "...,::2") means for `shape`.

    Raises Invalid (422) if it is not valid for this shape.
    """
    axes = text.split(",") if text.strip() else []
    if [axis.strip() for axis in axes].count("...") > 1 or len([a for a in axes if a.strip() != "..."]) > len(shape):
        raise _invalid(text, shape, f"at most {len(shape)} axes and one ... are allowed")
    if "..." in (stripped := [axis.strip() for axis in axes]):
        at = stripped.index("...")
        axes[at : at + 1] = [":"] * (len(shape) - len(axes) + 1)
    return tuple(_axis(axis, size, text, shape) for axis, size in zip(axes, shape, strict=False))


def _axis(axis: str, size: int, text: str, shape: tuple[int, ...]) -> int | slice:
    match = _AXIS.fullmatch(axis)
    if match is None:
        raise _invalid(text, shape, f"{axis.strip()!r} must be an integer, start:stop:step or ...")
    if match["at"] is not None:
        at = int(match["at"])
        if not -size <= at < size:
            raise _invalid(text, shape, f"index {at} is out of bounds for an axis of size {size}")
        return at
    start, stop, step = (None if match[part] is None else int(match[part]) for part in ("start", "stop", "step"))
    if step == 0:
        raise _invalid(text, shape, "step must not be 0")
    return slice(start, stop, step)


def _invalid(text: str, shape: tuple[int, ...], why: str) -> Invalid:
    return Invalid({"slice": [f"{text!r}: {why}. Use basic NumPy slicing of shape {list(shape)}, such as 0,:,5."]})


def parse_range(name: str, text: str, count: int) -> range:
    """Return the range of a query such as `0:4`, `:4` or `:`. Raises Invalid (422) for the field `name`."""
    match = _RANGE.fullmatch(text)
    if match:
        start, stop = int(match[1] or 0), int(match[2] or count)
        if start < stop <= count:
            return range(start, stop)
    raise Invalid({name: [f"{text!r} is not allowed: must be a non-empty range start:stop within 0:{count}."]})
