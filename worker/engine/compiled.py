"""The compiled engine (kernels/), and the choice of engine.

A short trace consists of products of few rows with large matrices: here they run at memory bandwidth, in NumPy at a
quarter of it. Synthetic weights are generated inside the product and never stored.
"""

from __future__ import annotations

from itertools import accumulate
from typing import cast

import numpy as np

from worker.engine.memory import aligned
from worker.engine.numpy_engine import Array, Engine, split
from worker.weights.base import CachedWeights, Weights
from worker.weights.synthetic import SyntheticWeights

try:
    import worker.engine._kernels as kernels
except ImportError:  # installed without a compiler, or an old processor
    COMPILED = False
else:
    COMPILED = True

# A matrix, for the kernels: kind, array, pitch, base of the stream, index of its first value, scale.
_Source = tuple[int, Array | None, int, int, int, float]

_ROWS, _TABLE, _PACKED, _DRAWN, _DRAWN_TABLE = range(5)  # kinds of weights, as in kernels.c
_AT_ONCE = 3  # products of one call
_FUNCTIONS = {"gelu_new": 0, "gelu": 1, "relu": 2, "silu": 3}


def engine(weights: Weights, *, cache_weights: bool = False) -> Engine:
    """Return the fastest available engine for float32 arrays.

    `cache_weights`: keep the weights in memory, packed for speed. For weights that fit and are used more than once.
    """
    if COMPILED:
        return CompiledEngine(weights, cache_weights=cache_weights)
    return Engine(CachedWeights(weights) if cache_weights else weights)


class CompiledEngine(Engine):
    """Engine for float32 only, on all cores (OPENBLAS_NUM_THREADS limits them)."""

    def __init__(self, weights: Weights, *, cache_weights: bool = False) -> None:
        super().__init__(weights)
        self._caches = cache_weights
        self._vectors: dict[str, Array] = {}
        self._packed: dict[tuple[str, int], Array] = {}
        self._products: dict[str, list[tuple[Array, _Source]]] = {}

    def linear(self, x: Array, name: str, *outs: Array) -> None:
        if self._caches or isinstance(self.weights, SyntheticWeights):
            products = self._products.get(name) or self._prepare(name, x.shape[-1], [out.shape[-1] for out in outs])
            kernels.linear(
                x, False, *[(bias, out, *source) for (bias, source), out in zip(products, outs, strict=True)]
            )
            return
        bias, parts = self._vector(f"{name}.bias"), _parts([out.shape[-1] for out in outs])
        for rows, tile in self.weights.tiles(f"{name}.weight"):
            add = rows.start > 0
            tiles = [
                (None if add else bias[part], out, _ROWS, tile[:, part], 0, 0, 0, 0.0)
                for part, out in zip(parts, outs, strict=True)
            ]
            kernels.linear(x[..., rows], add, *tiles)

    def project(self, x: Array, name: str, *outs: Array, bias: bool = False) -> None:
        vector, weight, depth = self._vector(f"{name}.bias") if bias else None, f"{name}.weight", x.shape[-1]
        if self._caches or isinstance(self.weights, SyntheticWeights):
            parts = _parts([out.shape[-1] for out in outs])
            _multiply(x, [
                (None if vector is None else vector[part], out, *self._whole(weight, part, depth, table=True))
                for part, out in zip(parts, outs, strict=True)
            ])  # fmt: skip
            return
        for rows, tile in self.weights.tiles(weight):
            _multiply(x, [
                (None if vector is None else vector[rows][part], out, _TABLE, tile[part], 0, 0, 0, 0.0)
                for part, out in split(rows, outs)
            ])  # fmt: skip

    def layer_norm(self, x: Array, name: str | None, epsilon: float, mean: Array, scale: Array, out: Array) -> None:
        width = x.shape[-1]
        weight = np.ones(width, np.float32) if name is None else self._vector(f"{name}.weight")
        bias = np.zeros(width, np.float32) if name is None else self._vector(f"{name}.bias")
        kernels.layer_norm(x, weight, bias, epsilon, mean, scale, out)

    def attention(
        self, rows: slice, q: Array, k: Array, v: Array, scores: Array, largest: Array, total: Array, pattern: Array,
        z: Array, slopes: Array | None = None, *, scale: float | None = None, window: int | None = None,
        cap: float | None = None, uncapped: Array | None = None,
    ) -> None:  # fmt: skip
        if cap is not None:  # the kernel caps no scores
            super().attention(
                rows, q, k, v, scores, largest, total, pattern, z, slopes,
                scale=scale, window=window, cap=cap, uncapped=uncapped,
            )  # fmt: skip
            return
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        slopes = None if slopes is None else slopes.astype(np.float32, copy=False)
        kernels.attention(
            rows.start, rows.stop, factor, window or rows.stop + 1, slopes,
            q, k, v, scores, largest, total, pattern, z,
        )  # fmt: skip

    def rms_norm(
        self, x: Array, name: str, epsilon: float, scale: Array, out: Array, offset: float | None = None
    ) -> None:
        gain = self._vector(f"{name}.weight")
        if x.ndim == 4:  # of each head
            x, scale, out = (one.reshape(len(one), -1, one.shape[-1], copy=False) for one in (x, scale, out))
        kernels.rms_norm(x, gain if offset is None else gain + np.float32(offset), epsilon, scale, out)

    def rotate(
        self, x: Array, cos: Array, sin: Array, out: Array, pairs: str = "halves", width: int | None = None
    ) -> None:
        kernels.rotate(x, cos, sin, width or x.shape[-1], pairs == "neighbours", out)

    def gate(self, function: str, x: Array, y: Array, out: Array) -> None:
        kernels.gate(_FUNCTIONS[function], x, y, out)

    def softmax(self, x: Array, largest: Array, total: Array, out: Array) -> None:
        kernels.softmax(x, largest[..., None], total[..., None], out)

    def activate(self, function: str, x: Array, out: Array) -> None:
        kernels.activate(_FUNCTIONS[function], x, out)

    def add(self, x: Array, y: Array, out: Array) -> None:
        kernels.add(x, y, out)

    def _vector(self, name: str) -> Array:
        found = self._vectors.get(name)
        if found is None:
            found = self.weights[name]
            if self._caches:
                self._vectors[name] = found
        return found

    def _prepare(self, name: str, depth: int, widths: list[int]) -> list[tuple[Array, _Source]]:
        """Return the biases and matrices of a linear layer's products."""
        bias, weight = self._vector(f"{name}.bias"), f"{name}.weight"
        products = [(bias[part], self._whole(weight, part, depth, table=False)) for part in _parts(widths)]
        if self._caches:
            self._products[name] = products
        return products

    def _whole(self, name: str, part: slice, depth: int, *, table: bool) -> _Source:
        """Return a whole matrix [depth, part] (of a table, its transpose), packed or generated."""
        if self._caches:
            return _PACKED, self._pack(name, part, depth, table), 0, 0, 0, 0.0
        return self._generated(name, part, depth, table)

    def _generated(self, name: str, part: slice, depth: int, table: bool) -> _Source:
        weights = cast(SyntheticWeights, self.weights)
        base, scale = weights.stream(name)
        if table:
            return _DRAWN_TABLE, None, depth, base, depth * part.start, scale
        return _DRAWN, None, weights.shape(name)[1], base, part.start, scale

    def _pack(self, name: str, part: slice, depth: int, table: bool) -> Array:
        """Return the packed matrix, from the cache if possible."""
        packed = self._packed.get((name, part.start))
        if packed is None:
            count = part.stop - part.start
            packed = aligned(4 * -(-count // kernels.PANEL) * kernels.PANEL * depth).view(np.float32)
            if isinstance(self.weights, SyntheticWeights):
                source = self._generated(name, part, depth, table)
            else:
                whole = np.ascontiguousarray(self.weights[name])
                source = (_TABLE if table else _ROWS, whole[part] if table else whole[:, part], 0, 0, 0, 0.0)
            kernels.pack(*source, count, depth, packed)
            self._packed[name, part.start] = packed
        return packed


def _multiply(x: Array, products: list[tuple[Array | None, Array, int, Array | None, int, int, int, float]]) -> None:
    """Multiply x by any number of matrices, with the arguments of the kernel."""
    for first in range(0, len(products), _AT_ONCE):
        kernels.linear(x, False, *products[first : first + _AT_ONCE])


def _parts(widths: list[int]) -> list[slice]:
    """Return the columns of a matrix that belong to each output."""
    ends = list(accumulate(widths))
    return [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]
