"""Slices of tensors: basic NumPy slicing as text, and reading one a bit at a time."""

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

Position = tuple[slice, ...]  # a part of a slice, axis by axis

_STRIP = 4 << 20  # bytes that are read at a time
_NUMBER = r"-?\d{1,18}"
_AXIS = re.compile(
    rf"\s*(?:(?P<at>{_NUMBER})|(?P<start>{_NUMBER})?:(?P<stop>{_NUMBER})?(?::(?P<step>{_NUMBER})?)?)\s*", re.ASCII
)


class Source(Protocol):
    """Where a tensor's values are read from."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def cost(self, axes: Axes) -> int:
        """The bytes that reading a part takes."""

    def parts(self, many: Iterable[Axes]) -> Iterator[NDArray[Any]]:
        """One part after another, each with all axes."""


@dataclass(frozen=True)
class View:
    """`source[key]`: a basic slice of a tensor, of which nothing is read yet."""

    source: Source
    key: Key = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many indices of every axis it takes, those included of which it takes one and drops the axis."""
        return tuple(map(len, self._ranges()))

    @property
    def kept(self) -> list[int]:
        """The axes that it has of the tensor's."""
        return [n for n in range(len(self.source.shape)) if n >= len(self.key) or isinstance(self.key[n], slice)]

    @property
    def shape(self) -> tuple[int, ...]:
        lengths = self.lengths
        return tuple(lengths[n] for n in self.kept)

    def is_whole(self, axis: int) -> bool:
        """Whether it takes all of an axis, in its order."""
        return self._ranges()[axis] == range(self.source.shape[axis])

    @property
    def run(self) -> tuple[int, int] | None:
        """From which cell of the tensor to before which it is, in C order, where it is all of those in their order."""
        ranges = self._ranges()
        if not all(ranges):
            return 0, 0
        first = last = 0
        begun = False  # whether an axis has been taken of which there is more than one index
        for axis, size in zip(ranges, self.source.shape, strict=True):
            if (len(axis) > 1 and axis.step != 1) or (begun and len(axis) < size):
                return None
            begun = begun or len(axis) > 1
            first, last = first * size + axis[0], last * size + axis[-1]
        return first, last + 1

    def parts(self) -> Iterator[tuple[Position, NDArray[Any]]]:
        """The values in C order, a strip with all axes at a time, and where in the slice each is."""
        ranges = self._ranges()
        if not all(ranges):
            return
        counting_up = [axis if axis.step > 0 else axis[::-1] for axis in ranges]
        turn = tuple(slice(None, None, 1 if axis.step > 0 else -1) for axis in ranges)

        def axes(position: Position) -> Axes:
            return tuple(
                up[at] if axis.step > 0 else up[len(axis) - at.stop : len(axis) - at.start]
                for up, axis, at in zip(counting_up, ranges, position, strict=True)
            )

        whole = tuple(slice(0, len(axis)) for axis in ranges)
        positions = [*_strips(whole, lambda position: self.source.cost(axes(position)) <= _STRIP)]
        for position, values in zip(positions, self.source.parts(map(axes, positions)), strict=True):
            yield position, values[turn]

    def _ranges(self) -> list[range]:
        every = [*self.key, *(slice(None),) * (len(self.source.shape) - len(self.key))]
        return [
            range(*k.indices(size)) if isinstance(k, slice) else range(k % size, k % size + 1)
            for k, size in zip(every, self.source.shape, strict=True)
        ]


def _strips(position: Position, fits: Callable[[Position], bool]) -> Iterator[Position]:
    """A part in parts that fit, in C order: what does not is halved along its first axis that can be."""
    axis = next((n for n, at in enumerate(position) if at.stop - at.start > 1), None)
    if axis is None or fits(position):
        yield position
        return
    at = position[axis]
    middle = (at.start + at.stop) // 2
    for half in (slice(at.start, middle), slice(middle, at.stop)):
        yield from _strips((*position[:axis], half, *position[axis + 1 :]), fits)


def parse_slice(text: str, shape: tuple[int, ...]) -> Key:
    """Basic NumPy slicing as text ("0,:,5", "...,::2") of an array of `shape`. 422 with the reason where it is none."""
    axes = text.split(",") if text.strip() else []
    if [axis.strip() for axis in axes].count("...") > 1 or len([a for a in axes if a.strip() != "..."]) > len(shape):
        raise _bad(text, shape, f"the tensor has {len(shape)} axes")
    if "..." in (stripped := [axis.strip() for axis in axes]):
        at = stripped.index("...")
        axes[at : at + 1] = [":"] * (len(shape) - len(axes) + 1)
    return tuple(_axis(axis, size, text, shape) for axis, size in zip(axes, shape, strict=False))


def _axis(axis: str, size: int, text: str, shape: tuple[int, ...]) -> int | slice:
    match = _AXIS.fullmatch(axis)
    if match is None:
        raise _bad(text, shape, f"{axis.strip()!r} is neither a number nor start:stop:step nor ...")
    if match["at"] is not None:
        at = int(match["at"])
        if not -size <= at < size:
            raise _bad(text, shape, f"{at} is outside an axis of {size}")
        return at
    start, stop, step = (None if match[part] is None else int(match[part]) for part in ("start", "stop", "step"))
    if step == 0:
        raise _bad(text, shape, "a step of 0 goes nowhere")
    return slice(start, stop, step)


def _bad(text: str, shape: tuple[int, ...], why: str) -> Invalid:
    return Invalid({"slice": [f"{text!r}: {why}. Basic NumPy slicing of shape {list(shape)} is allowed, as in 0,:,5."]})
