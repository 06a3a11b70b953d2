"""The operations of a forward pass in plain NumPy: the reference for any faster engine, and what runs everywhere.

An engine holds a model's weights and writes its results into the arrays that it is given, all of them [B, n, …]
views of n positions. It reads weights tile by tile where they come that way, so they need not fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.weights.weights import Weights

Array = NDArray[Any]


def gelu_new(x: Array, out: Array) -> None:
    """0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), Hendrycks and Gimpel 2016 (arXiv:1606.08415)."""
    np.multiply(x, x, out=out)
    out *= 0.044715
    out += 1
    out *= x
    out *= sqrt(2 / pi)
    np.tanh(out, out=out)
    out += 1
    out *= x
    out *= 0.5


def gelu(x: Array, out: Array) -> None:
    """x·Φ(x), with the error function to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    magnitude = np.abs(x) * sqrt(0.5)
    t = 1 / (1 + 0.3275911 * magnitude)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - series * np.exp(-magnitude * magnitude), x)
    np.multiply(0.5 * x, 1 + erf, out=out)


def relu(x: Array, out: Array) -> None:
    """max(x, 0)."""
    np.maximum(x, 0, out=out)


def silu(x: Array, out: Array) -> None:
    """x·σ(x), the logistic function written with tanh so that it cannot overflow."""
    np.multiply(0.5 * x, 1 + np.tanh(0.5 * x), out=out)


ACTIVATIONS: Mapping[str, Callable[[Array, Array], None]] = {
    "gelu_new": gelu_new,
    "gelu": gelu,
    "relu": relu,
    "silu": silu,
}


class Engine:
    """NumPy over a model's weights, in whatever precision the arrays have."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def embed(self, name: str, rows: Array | slice, out: Array) -> None:
        """Rows of a table: [V, C], [B, n] -> [B, n, C]."""
        out[...] = self.weights.rows(name, rows)

    def linear(self, x: Array, name: str, *outs: Array) -> None:
        """x · weight + bias, its columns shared out among `outs` in their order: [B, n, K], [K, N] -> [B, n, N]."""
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

    def unembed(self, x: Array, name: str, out: Array) -> None:
        """x · tableᵀ: [B, n, C], [V, C] -> [B, n, V]."""
        for rows, tile in self.weights.tiles(name):
            np.matmul(x, tile.T, out=out[..., rows])

    def layer_norm(self, x: Array, name: str, epsilon: float, mean: Array, scale: Array, out: Array) -> None:
        """(x − mean) / √(variance + ε) · weight + bias over the last axis, Ba et al. 2016 (arXiv:1607.06450)."""
        part = 1 / x.shape[-1]
        np.add.reduce(x, axis=-1, keepdims=True, out=mean)  # [B, n, 1]
        mean *= part
        np.subtract(x, mean, out=out)
        np.vecdot(out, out, out=scale[..., 0])
        scale *= part
        scale += epsilon
        np.sqrt(scale, out=scale)
        out /= scale
        out *= self.weights[f"{name}.weight"]
        out += self.weights[f"{name}.bias"]

    def attention(
        self, rows: slice, q: Array, k: Array, v: Array, scores: Array, largest: Array, total: Array, pattern: Array,
        z: Array,
    ) -> None:  # fmt: skip
        """Causal attention of the positions `rows` to all up to each (Vaswani et al. 2017, arXiv:1706.03762).

        q, k, v, z [B, T, H, A]; scores, pattern [B, H, T, T]; largest, total [B, H, T]: all positions of each.
        """
        T, A = q.shape[1], q.shape[-1]
        stop = rows.stop
        q, k, v, z = (part.transpose(0, 2, 1, 3) for part in (q, k, v, z))  # [B, H, T, A]
        scores, pattern = scores[:, :, rows], pattern[:, :, rows]  # [B, H, n, T]
        np.matmul(q[:, :, rows], k[:, :, :stop].swapaxes(-1, -2), out=scores[..., :stop])
        scores[..., :stop] *= A**-0.5
        if stop - rows.start == 1:
            scores[..., stop:] = -np.inf
        else:
            future = np.arange(T) > np.arange(rows.start, stop)[:, None]  # [n, T]
            np.copyto(scores, -np.inf, where=future)
        self.softmax(scores, largest[:, :, rows], total[:, :, rows], pattern)
        np.matmul(pattern[..., :stop], v[:, :, :stop], out=z[:, :, rows])

    def softmax(self, x: Array, largest: Array, total: Array, out: Array) -> None:
        """exp(x − max) / Σ exp(x − max) over the last axis, its two statistics kept."""
        np.maximum.reduce(x, axis=-1, out=largest)
        np.subtract(x, largest[..., None], out=out)
        np.exp(out, out=out)
        np.add.reduce(out, axis=-1, out=total)
        out /= total[..., None]

    def activate(self, function: str, x: Array, out: Array) -> None:
        """One of ACTIVATIONS, element by element."""
        ACTIVATIONS[function](x, out)

    def add(self, x: Array, y: Array, out: Array) -> None:
        """x + y."""
        np.add(x, y, out=out)
