"""What kernels/python.h offers, for float32 arrays whose last axis has no gaps; TypeError and ValueError for others."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

PANEL: int  # columns of a panel of packed weights

def linear(x: Array, add: bool, *products: tuple[Array | None, Array, int, Array | None, int, int, int, float]) -> None:
    """Products of one x with up to three matrices, each (bias, out, kind, weights, pitch, base, first, scale):
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
    """[rows, columns] -> panels of PANEL columns, one after the other, the last one padded with zeros."""

def draw(base: int, first: int, scale: float, out: Array) -> None:
    """Values `first` and on of a stream of synthetic weights -> [N]."""

def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float, mean: Array, scale: Array, out: Array) -> None: ...
def softmax(x: Array, largest: Array, total: Array, out: Array) -> None: ...
def activate(function: int, x: Array, out: Array) -> None: ...
def add(x: Array, y: Array, out: Array) -> None: ...
def attention(
    start: int,
    stop: int,
    q: Array,
    k: Array,
    v: Array,
    scores: Array,
    largest: Array,
    total: Array,
    pattern: Array,
    z: Array,
) -> None: ...
