"""Encode tensors as bytes: type conversion, quantization, file headers."""

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
    """Affine quantization to bytes: value = scale · (byte − zero), in float64.

    The smallest number becomes 1 and the largest 255, as does +inf. 0 stands for −inf and NaN.
    """

    scale: float
    zero: float

    @classmethod
    def of(cls, low: float, high: float) -> Scale:
        """Return the finest scale for numbers from `low` to `high`; it is exact if they are equal."""
        scale = (high - low) / _STEPS or abs(low) or 1.0
        return cls(scale, 1 - low / scale)

    def bytes(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the byte nearest to each value."""
        wide = values.astype(np.float64)
        with np.errstate(invalid="ignore"):
            nearest = np.clip(np.rint(wide / self.scale + self.zero), 1, 255)
            return np.where(wide > -inf, nearest, 0).astype(np.uint8)


def finite_range(parts: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return the smallest and the largest finite value; (0, 0) if there is none."""
    low, high = inf, -inf
    for values in parts:
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if isfinite(low) else (0.0, 0.0)


def convert(values: NDArray[Any], dtype: str, scale: Scale | None) -> NDArray[Any]:
    """Return the values as `dtype`, or as bytes of `scale` if given. Values beyond float16's range become infinite."""
    if scale is not None:
        return scale.bytes(values)
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)


def header(media_type: str, name: str, dtype: str, shape: tuple[int, ...], metadata: dict[str, str]) -> bytes:
    """Return the bytes of a file before the values. `metadata` is stored in safetensors only."""
    if media_type == SAFETENSORS:
        return safetensors.header({name: (dtype, shape)}, metadata)
    if media_type == NPY:
        file = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        return file.getvalue()
    return b""
