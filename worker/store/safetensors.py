"""Headers of safetensors files.

The format is described at https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import DTypeLike

#: The dtype and shape of each array in a file, by its name, in the order of their data.
Entries = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]

MEDIA_TYPE = "application/x-safetensors"


def size(entries: Entries) -> int:
    """Return the size of all arrays together, in bytes."""
    return sum(np.dtype(dtype).itemsize * prod(shape) for dtype, shape in entries.values())


def header(entries: Entries, metadata: Mapping[str, str]) -> bytes:
    """Return the header of a file that holds these arrays in this order, without gaps.

    The header is padded to a multiple of 8 bytes: if the arrays with the widest elements come first, all are aligned.
    """
    fields: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, (dtype_like, shape) in entries.items():
        dtype = np.dtype(dtype_like)
        end = start + dtype.itemsize * prod(shape)
        code = "BOOL" if dtype.kind == "b" else f"{dtype.kind.upper()}{8 * dtype.itemsize}"
        fields[name] = {"dtype": code, "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
