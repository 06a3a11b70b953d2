"""The functions of kernels/python.h.

Arrays are float32 with a contiguous last axis; others raise TypeError or ValueError.
"""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

PANEL: int  # columns per panel of packed weights

def linear(x: Array, add: bool, *products: tuple[Array | None, Array, int, Array | None, int, int, int, float]) -> None:
    """Multiply x by up to three matrices, each (bias, out, kind, weights, pitch, base, first, scale):
    out (+)= x · weights + bias, [B, n, K], [K, N], [N] -> [B, n, N]."""

def pack(
    kind: int,
    weights: Array | None,
    pitch: int,
    base: int,
    first: int,
    scale: float,
    columns: int,
    rows: int,
    out: Array,
) -> None:
    """Pack [rows, columns] into panels of PANEL columns, the last one padded with zeros."""

def draw(base: int, first: int, scale: float, out: Array) -> None:
    """Generate the synthetic weights of a stream from `first` on -> [N]."""

def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float, mean: Array, scale: Array, out: Array) -> None: ...
def rms_norm(x: Array, weight: Array, epsilon: float, scale: Array, out: Array) -> None: ...
def rotate(x: Array, cos: Array, sin: Array, width: int, neighbours: bool, out: Array) -> None: ...
def gate(function: int, x: Array, y: Array, out: Array) -> None: ...
def softmax(x: Array, largest: Array, total: Array, out: Array) -> None: ...
def activate(function: int, x: Array, out: Array) -> None: ...
def add(x: Array, y: Array, out: Array) -> None: ...
def attention(
    start: int,
    stop: int,
    scale: float,
    window: int,
    slopes: Array | None,
    q: Array,
    k: Array,
    v: Array,
    scores: Array,
    largest: Array,
    total: Array,
    pattern: Array,
    z: Array,
) -> None: ...
