"""Headers of safetensors files (https://huggingface.co/docs/safetensors)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import DTypeLike

Entries = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]

MEDIA_TYPE = "application/x-safetensors"


def size(entries: Entries) -> int:
    """Return the bytes of all these arrays."""
    return sum(np.dtype(dtype).itemsize * prod(shape) for dtype, shape in entries.values())


def header(entries: Entries, metadata: Mapping[str, str]) -> bytes:
    """Return the header of a file that holds arrays of these dtypes and shapes in this order, without gaps.

    It is padded to a multiple of 8 bytes, so that all data are aligned if the widest elements come first.
    """
    described: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, (given, shape) in entries.items():
        dtype = np.dtype(given)
        end = start + dtype.itemsize * prod(shape)
        code = "BOOL" if dtype.kind == "b" else f"{dtype.kind.upper()}{8 * dtype.itemsize}"
        described[name] = {"dtype": code, "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
