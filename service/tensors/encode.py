"""Tensors as bytes: their values in another type, and what a file begins with that holds them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import worker.store.safetensors as safetensors

OCTETS = "application/octet-stream"
NPY = "application/x-npy"
SAFETENSORS = safetensors.MEDIA_TYPE
BINARY = (OCTETS, NPY, SAFETENSORS)

DTYPES = ("float32", "float16", "uint8")
_STEPS = 254  # from the byte 1 to the byte 255


class Scale(NamedTuple):
    """How bytes stand for numbers: value = scale · (byte − zero), in float64.

    The least number is 1 and the largest 255. 0 is what is no number or below all: −inf and NaN; +inf is 255.
    """

    scale: float
    zero: float

    @classmethod
    def of(cls, low: float, high: float) -> Scale:
        """The finest scale for numbers from `low` to `high`; exact where both are one."""
        scale = (high - low) / _STEPS or abs(low) or 1.0
        return cls(scale, 1 - low / scale)

    def bytes(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """The nearest byte to each value."""
        wide = values.astype(np.float64)
        with np.errstate(invalid="ignore"):
            found = np.clip(np.rint(wide / self.scale + self.zero), 1, 255)
            return np.where(wide > -inf, found, 0).astype(np.uint8)


def limits(parts: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """The least and the largest finite value; both 0 where there is none."""
    low, high = inf, -inf
    for values in parts:
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if isfinite(low) else (0.0, 0.0)


def converted(values: NDArray[Any], dtype: str, scale: Scale | None) -> NDArray[Any]:
    """`values` as `dtype`, by `scale` where there is one. What float16 cannot hold becomes infinite."""
    if scale is not None:
        return scale.bytes(values)
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)


def head(media_type: str, name: str, dtype: str, shape: tuple[int, ...], facts: dict[str, str]) -> bytes:
    """What comes before the values. `facts` go into the metadata of safetensors."""
    if media_type == SAFETENSORS:
        return safetensors.header({name: (dtype, shape)}, facts)
    if media_type == NPY:
        file = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        return file.getvalue()
    return b""
