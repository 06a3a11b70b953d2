"""Read and check the headers of safetensors files.

The rules are those of the safetensors library: the tensors cover the data without gaps or overlaps. See
https://huggingface.co/docs/safetensors. Everything is checked before anything is computed with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from typing import Any, BinaryIO, NamedTuple

import orjson

from worker.weights.folder import LFS_POINTER, FileError, shortened

MAX_HEADER = 16 << 20  # bytes: the names of 120,000 tensors, those of 10,000 layers, take 13 MB
_MAX_TENSORS = 1 << 17  # more than 10,000 layers have
_MAX_AXES = 64  # as in NumPy
_LENGTH = 8  # bytes of the header's length

#: The bits of an element, by dtype.
_BITS: Mapping[str, int] = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


_INT = frozenset([int])  # bool is another type


class Entry(NamedTuple):
    """A tensor in a file: dtype, shape, and the range of its bytes, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(file: BinaryIO) -> tuple[dict[str, Entry], int]:
    """Return the tensors by name, and where their data begin in the file.

    Raises FileError if the file is not a valid safetensors file; the message lacks its name.
    """
    size = os.fstat(file.fileno()).st_size
    first = file.read(_LENGTH)
    if LFS_POINTER.startswith(first) and (first + file.read(len(LFS_POINTER) - _LENGTH)) == LFS_POINTER:
        raise FileError("is a Git LFS pointer, not the weights: run git lfs pull")
    length = int.from_bytes(first, "little")
    if size < _LENGTH or length > size - _LENGTH:
        raise FileError(f"is truncated or not a safetensors file: it has {size:,} bytes, less than its header")
    if length > MAX_HEADER:
        raise FileError(f"has a header of {length:,} bytes: at most {MAX_HEADER:,} are read")
    data = _LENGTH + length
    return _entries(file.read(length), size - data), data


def _entries(header: bytes, nbytes: int) -> dict[str, Entry]:
    """Return the tensors of a header that `nbytes` of data follow."""
    count = header.count(b'"data_offsets"')  # before they are parsed, which takes seconds for as many as fit
    if count > _MAX_TENSORS:
        raise FileError(f"has {count:,} tensors: at most {_MAX_TENSORS:,} are read")
    try:
        content = orjson.loads(header)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise FileError("is not a safetensors file: its header is not a JSON object")
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise FileError("has an invalid header: __metadata__ must map names to strings")
    entries = {name: _entry(shortened(name), fields) for name, fields in content.items()}
    _check_cover(entries, nbytes)
    return entries


def _entry(name: str, fields: Any) -> Entry:
    try:
        dtype, shape, (start, stop) = fields["dtype"], fields["shape"], fields["data_offsets"]
        bits = _BITS.get(dtype)
    except (KeyError, TypeError, ValueError):
        bits = shape = None
    if type(shape) is not list or type(dtype) is not str:
        raise FileError(f"has an invalid header: the tensor {name} must have a dtype, a shape and data_offsets")
    if bits is None:
        raise FileError(f"has an invalid header: the dtype of the tensor {name} must be one of {', '.join(_BITS)}")
    if len(shape) > _MAX_AXES:
        raise FileError(f"has an invalid header: the tensor {name} has {len(shape):,} axes, more than {_MAX_AXES}")
    numbers = (*shape, start, stop)
    if not _INT.issuperset(map(type, numbers)) or min(numbers) < 0:
        raise FileError(
            f"has an invalid header: the shape and data_offsets of the tensor {name} must be whole numbers from 0"
        )
    if 8 * (stop - start) != prod(shape) * bits:
        raise FileError(
            f"has an invalid header: the tensor {name} has {stop - start:,} bytes, which is not the size of its shape"
        )
    return Entry(dtype, tuple(shape), start, stop)


def _check_cover(entries: Mapping[str, Entry], nbytes: int) -> None:
    """Raise FileError unless the tensors cover the data from its first byte to its last, without gaps or overlaps."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != end:
            wrong = "overlaps the one before it" if entry.start < end else f"leaves {entry.start - end:,} bytes unused"
            raise FileError(f"has an invalid header: the tensor {shortened(name)} {wrong}")
        end = entry.stop
    if end > nbytes:
        raise FileError(f"is truncated: its tensors have {end:,} bytes, but only {nbytes:,} follow the header")
    if end < nbytes:
        raise FileError(f"has {nbytes - end:,} bytes after its last tensor: the file must end there")
