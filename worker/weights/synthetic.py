"""Synthetic weights: a pure function of seed, name and index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.weights.base import Key, Weights
from worker.weights.catalogue import Catalogue

try:
    from worker.engine._kernels import draw
except ImportError:  # see engine/compiled.py
    draw = None  # type: ignore[assignment]

SYNTHETIC_VERSION = 1
_GAMMA = 0x9E3779B97F4A7C15  # the odd increment of SplitMix64, 2⁶⁴ divided by the golden ratio
_RUN = 1 << 14  # words generated at a time
_TILE = 1 << 20  # values per tile
_FEW = 64  # from this many columns on, a contiguous run is faster than single values


class Initial(NamedTuple):
    """The distribution that a weight is initialised from; with deviation 0, all values are the mean."""

    mean: float
    deviation: float


class SyntheticWeights(Weights):
    """Weights of any model from a seed; each value is independent of the others, and equal on every machine.

    The value at index i (in C order) is uniform with the mean and deviation of the family's initialisation. It is lane
    `i mod 4` (int16) of the SplitMix64 output (Steele et al. 2014, doi:10.1145/2714064.2660195) at position `i div 4`
    of the stream that the seed and the tensor's name select.
    """

    def __init__(self, shapes: Catalogue, initial: Callable[[str], Initial], seed: int) -> None:
        self._shapes, self._initial, self.seed = shapes, initial, seed

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.read(name, ())

    def read(self, name: str, key: Key) -> NDArray[Any]:
        name, shape = self._shapes.source(name), self._shapes[name]
        mean, deviation = self._initial(name)
        if deviation == 0:
            return np.full(self._picked(shape, key), mean, dtype=np.float32)
        first = key[0] if key else slice(None)
        if len(key) <= 1 and isinstance(first, slice) and first.step in (None, 1):
            rows, pitch = range(*first.indices(shape[0])), prod(shape[1:])
            return self._run(name, rows.start * pitch, len(rows) * pitch).reshape(len(rows), *shape[1:])
        axes = [*key, *(slice(None),) * (len(shape) - len(key))]
        last = axes[-1]
        if len(shape) == 2 and isinstance(first, slice) and isinstance(last, slice):
            rows, columns = (range(*axis.indices(size)) for axis, size in zip((first, last), shape, strict=True))
            if columns.step == 1 and len(columns) >= _FEW:
                return self._rows(name, rows, columns)
        index = np.zeros((), dtype=np.uint64)
        for size, axis in zip(shape, axes, strict=True):
            positions = np.arange(*axis.indices(size)) if isinstance(axis, slice) else np.array(range(size)[axis])
            index = np.add.outer(index * np.uint64(size), positions.astype(np.uint64))
        lanes = self._values((index // np.uint64(4)).ravel(), *self.stream(name)).reshape(-1, 4)
        return np.take_along_axis(lanes, (index % np.uint64(4)).astype(np.intp).reshape(-1, 1), 1).reshape(index.shape)

    def rows(self, name: str, index: NDArray[Any] | slice) -> NDArray[Any]:
        if isinstance(index, slice):
            return self.read(name, (index,))
        width = self._shapes[self._shapes.source(name)][1]
        return self._rows(name, index.ravel().tolist(), range(width)).reshape(*index.shape, width)

    def tiles(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        count, width = self._shapes[self._shapes.source(name)]
        step = max(1, _TILE // width)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, self.read(name, (rows,))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a weight."""
        return self._shapes[name]

    def stream(self, name: str) -> tuple[int, float]:
        """Return the base of a matrix's stream, and the scale from a lane plus 0.5 to a value."""
        name = self._shapes.source(name)
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "little"), self._initial(name).deviation * sqrt(12) / 2**16

    def _rows(self, name: str, rows: Sequence[int], columns: range) -> NDArray[np.float32]:
        """Return contiguous columns of some rows of a matrix."""
        table = np.empty((len(rows), len(columns)), dtype=np.float32)
        base, scale = self.stream(name)
        width = self._shapes[self._shapes.source(name)][1]
        for row, out in zip(rows, table, strict=True):
            self._fill(out, base, scale, row * width + columns.start)
        return table

    def _run(self, name: str, first: int, count: int) -> NDArray[np.float32]:
        """Return `count` contiguous values from `first` on."""
        values = np.empty(count, dtype=np.float32)
        self._fill(values, *self.stream(name), first)
        return values

    def _fill(self, out: NDArray[np.float32], base: int, scale: float, first: int) -> None:
        """Fill `out` [N] with the values from `first` on; in NumPy, in runs that fit into the processor's cache."""
        if draw is not None:
            draw(base, first, scale, out)
            return
        start, stop = first // 4, -(-(first + len(out)) // 4)
        for word in range(start, stop, _RUN):
            values = self._values(np.arange(word, min(word + _RUN, stop), dtype=np.uint64), base, scale)
            skip = max(first - 4 * word, 0)
            at = 4 * word + skip - first
            out[at : at + len(values) - skip] = values[skip : skip + len(out) - at]

    @staticmethod
    def _picked(shape: tuple[int, ...], key: Key) -> tuple[int, ...]:
        return np.broadcast_to(np.empty(()), shape)[key].shape

    @staticmethod
    def _values(words: NDArray[np.uint64], base: int, scale: float) -> NDArray[np.float32]:
        """Return the four values of each word: float32 [4 · len(words)]."""
        z = words * np.uint64(_GAMMA)
        z += np.uint64(base)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        values = z.astype("<u8", copy=False).view("<i2").astype(np.float32)
        values += 0.5  # the mean of int16 is −1/2
        values *= scale
        return values


def synthetic_digest(seed: int) -> str:
    """Return the identifier used as the digest of synthetic weights; with the configuration, it determines them."""
    return f"synthetic-{SYNTHETIC_VERSION}-{seed}"
