"""The operations of a forward pass in NumPy: the reference engine.

An engine has a model's weights, and writes its results into given arrays, all of them [B, n, …] views of n positions.
It reads large weights tile by tile, so they need not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.functions import FUNCTIONS
from worker.weights.base import Weights

Array = NDArray[Any]


class Engine:
    """Engine in NumPy, in the precision of the arrays."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def embed(self, name: str, rows: Array | slice, out: Array, scale: float | None = None) -> None:
        """Rows of a table, times `scale`: [V, C], [B, n] -> [B, n, C]."""
        out[...] = self.weights.rows(name, rows)
        if scale is not None:
            out *= scale

    def linear(self, x: Array, name: str, *outs: Array) -> None:
        """x · weight + bias, its columns split among `outs` in order: [B, n, K], [K, N] -> [B, n, N]."""
        bias = self.weights[f"{name}.bias"]
        for rows, tile in self.weights.tiles(f"{name}.weight"):
            start = 0
            for out in outs:
                columns = slice(start, start := start + out.shape[-1])
                if rows.start == 0:
                    np.matmul(x[..., rows], tile[:, columns], out=out)
                    out += bias[columns]
                else:
                    out += x[..., rows] @ tile[:, columns]

    def project(self, x: Array, name: str, *outs: Array, bias: bool = False) -> None:
        """x · weightᵀ + bias, as torch.nn.Linear stores them, its columns split among `outs` in order:
        [B, n, K], [N, K] -> [B, n, N].
        """
        for rows, tile in self.weights.tiles(f"{name}.weight"):
            for part, out in split(rows, outs):
                np.matmul(x, tile[part].T, out=out)
        if bias:
            vector = self.weights[f"{name}.bias"]
            for part, out in split(slice(0, len(vector)), outs):
                out += vector[part]

    def rms_norm(
        self, x: Array, name: str, epsilon: float, scale: Array, out: Array, offset: float | None = None
    ) -> None:
        """x / √(mean of squares + ε) · (offset + weight) over the last axis (Zhang and Sennrich 2019,
        arXiv:1910.07467).
        """
        np.vecdot(x, x, out=scale[..., 0])  # [B, n, 1]
        scale /= x.shape[-1]
        scale += epsilon
        np.sqrt(scale, out=scale)
        np.divide(x, scale, out=out)
        gain = self.weights[f"{name}.weight"]
        out *= gain if offset is None else gain + offset

    def rotate(
        self, x: Array, cos: Array, sin: Array, out: Array, pairs: str = "halves", width: int | None = None
    ) -> None:
        """Rotate pairs of the first `width` channels (default: all) of x [B, n, H, A] by the angles whose cos and sin
        are [1, n, A]; the others have the angle 0 (Su et al. 2021, arXiv:2104.09864).

        `pairs`: "halves" are the channels (i, i + width/2), "neighbours" (2i, 2i + 1).
        """
        width = width or x.shape[-1]
        half = width // 2
        halves, neighbours = (slice(0, half), slice(half, width)), (slice(0, width, 2), slice(1, width, 2))
        first, second = halves if pairs == "halves" else neighbours
        cos, sin = cos[:, :, None], sin[:, :, None]  # [1, n, 1, A]
        np.multiply(x, cos, out=out)
        out[..., first] -= x[..., second] * sin[..., first]
        out[..., second] += x[..., first] * sin[..., second]

    def gate(self, function: str, x: Array, y: Array, out: Array) -> None:
        """function(x) · y (Shazeer 2020, arXiv:2002.05202)."""
        self.activate(function, x, out)
        out *= y

    def layer_norm(self, x: Array, name: str | None, epsilon: float, mean: Array, scale: Array, out: Array) -> None:
        """(x − mean) / √(variance + ε) · weight + bias over the last axis (Ba et al. 2016, arXiv:1607.06450).

        Without a name, it has no weight and bias.
        """
        part = 1 / x.shape[-1]
        np.add.reduce(x, axis=-1, keepdims=True, out=mean)  # [B, n, 1]
        mean *= part
        np.subtract(x, mean, out=out)
        np.vecdot(out, out, out=scale[..., 0])
        scale *= part
        scale += epsilon
        np.sqrt(scale, out=scale)
        out /= scale
        if name is not None:
            out *= self.weights[f"{name}.weight"]
            out += self.weights[f"{name}.bias"]

    def attention(
        self, rows: slice, q: Array, k: Array, v: Array, scores: Array, largest: Array, total: Array, pattern: Array,
        z: Array, slopes: Array | None = None, *, scale: float | None = None, window: int | None = None,
        cap: float | None = None, uncapped: Array | None = None,
    ) -> None:  # fmt: skip
        """Causal attention of the positions `rows` (Vaswani et al. 2017, arXiv:1706.03762).

        q, z [B, T, H, A]; k, v [B, T, G, A], each read by H/G heads (Ainslie et al. 2023, arXiv:2305.13245);
        scores, pattern [B, H, T, T]; largest, total [B, H, T]. The arrays have all positions, not only `rows`.

        `scale` of the products (default: 1/√A). `slopes` [H]: less the distance between query and key times the head's
        slope (Press et al. 2022, arXiv:2108.12409). `window`: only the last so many keys, up to the query's position
        (Beltagy et al. 2020, arXiv:2004.05150). `cap`: scores, in `uncapped` [B, H, T, T], become cap · tanh(s / cap).
        """
        A = q.shape[-1]
        stop = rows.stop
        q, k, v, z = (part.transpose(0, 2, 1, 3) for part in (q, k, v, z))  # [B, H, T, A]
        scores, pattern = scores[:, :, rows], pattern[:, :, rows]  # [B, H, n, T]
        shared = q.shape[1] // k.shape[1]
        _matmul(q[:, :, rows], k[:, :, :stop].swapaxes(-1, -2), scores[..., :stop], shared)
        scores[..., :stop] *= A**-0.5 if scale is None else scale
        if slopes is not None:
            scores[..., :stop] += slopes[:, None, None] * (np.arange(stop) - np.arange(rows.start, stop)[:, None])
        if cap is not None and uncapped is not None:
            uncapped[:, :, rows, :stop] = scores[..., :stop]
            self.softcap(scores[..., :stop], cap, scores[..., :stop])
            _mask(uncapped[:, :, rows], rows, window)
        _mask(scores, rows, window)
        _softmax(scores, largest[:, :, rows], total[:, :, rows], pattern)
        _matmul(pattern[..., :stop], v[:, :, :stop], z[:, :, rows], shared)

    def softcap(self, x: Array, cap: float, out: Array) -> None:
        """cap · tanh(x / cap)."""
        np.divide(x, cap, out=out)
        np.tanh(out, out=out)
        out *= cap

    def softmax(self, x: Array, largest: Array, total: Array, out: Array) -> None:
        """exp(x − max) / Σ exp(x − max) over the last axis, with max in `largest` and the sum in `total`."""
        _softmax(x, largest, total, out)

    def activate(self, function: str, x: Array, out: Array) -> None:
        """One of FUNCTIONS, elementwise."""
        FUNCTIONS[function].apply(x, out)

    def add(self, x: Array, y: Array, out: Array) -> None:
        """x + y."""
        np.add(x, y, out=out)


def split(rows: slice, outs: tuple[Array, ...]) -> Iterator[tuple[slice, Array]]:
    """Yield each part of a tile, which has these rows of a matrix, and the part of an output [B, n, …] that they give;
    the outputs belong to the rows in order.
    """
    start = 0
    for out in outs:
        stop = start + out.shape[-1]
        first, last = max(start, rows.start), min(stop, rows.stop)
        if first < last:
            yield slice(first - rows.start, last - rows.start), out[..., first - start : last - start]
        start = stop


def _mask(scores: Array, rows: slice, window: int | None) -> None:
    """Set to −∞ the scores [B, H, n, T] of keys after each query, and of those out of its window."""
    T, stop = scores.shape[-1], rows.stop
    if stop - rows.start == 1:
        scores[..., stop:] = -np.inf
    else:
        np.copyto(scores, -np.inf, where=np.arange(T) > np.arange(rows.start, stop)[:, None])  # [n, T]
    if window is not None and window < stop:
        np.copyto(scores, -np.inf, where=np.arange(T) <= np.arange(rows.start, stop)[:, None] - window)


def _matmul(x: Array, y: Array, out: Array, shared: int) -> None:
    """[B, H, n, K], [B, G, K, N] -> [B, H, n, N], where `shared` = H/G heads of x share one of y."""
    if shared == 1:
        np.matmul(x, y, out=out)
        return
    for first in range(shared):
        np.matmul(x[:, first::shared], y, out=out[:, first::shared])


def _softmax(x: Array, largest: Array, total: Array, out: Array) -> None:
    np.maximum.reduce(x, axis=-1, out=largest)
    np.subtract(x, largest[..., None], out=out)
    np.exp(out, out=out)
    np.add.reduce(out, axis=-1, out=total)
    out /= total[..., None]
