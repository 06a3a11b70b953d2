"""Read and check the headers of GGUF files.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package's reader is not used: it checks
no bounds, and takes seconds and 200 MB for a vocabulary. Everything is checked before anything is computed with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from struct import Struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from worker.weights.folder import LFS_POINTER, FileError, shortened

MAX_HEADER = 64 << 20  # bytes: a vocabulary of 262,144 tokens takes 10 MB
MAX_STRINGS = 2_000_000  # of all lists together
MAX_TENSORS = 200_000  # those of 10,000 layers
MAX_KEYS = 10_000
_SHORT = 16_384  # elements of a list that is read with the header: one for every layer
_MAX_NAME = 65_535  # bytes
_MAX_AXES = 4
_MAX_SIZE = 2**63
_PIECE = 1 << 20  # bytes read at a time
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_U32, _U64 = Struct("<I"), Struct("<Q")
_FLOAT32, _STRING, _LIST = 6, 8, 9
#: The numbers of a header, by the code of their type.
_NUMBERS: Mapping[int, Struct] = {
    code: Struct(f"<{format}") for code, format in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_TYPES: Mapping[int, GGMLQuantizationType] = {kind.value: kind for kind in GGMLQuantizationType}


class StoredList(NamedTuple):
    """A list that is not read with the header: the code of its elements' type, its length, and where it begins."""

    code: int
    length: int
    start: int


class GgufEntry(NamedTuple):
    """A tensor in a file: type, shape with the slowest axis first, and the range of its bytes in the file."""

    type: str
    shape: tuple[int, ...]
    start: int
    stop: int


class GgufHeader(NamedTuple):
    """The metadata and the tensors of a file, by name. A float32 in the metadata is the shortest decimal for it."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufEntry]


def read_gguf_header(file: BinaryIO) -> GgufHeader:
    """Return the header of a file. Raises FileError if it is not a valid GGUF file; the message lacks its name."""
    reader = _Reader(file)
    magic = reader.start()
    if magic != _MAGIC:
        if magic == LFS_POINTER[:4] and reader.take(len(LFS_POINTER) - 4) == LFS_POINTER[4:]:
            raise FileError("is a Git LFS pointer, not the weights: run git lfs pull")
        raise FileError("is not a GGUF file: it does not begin with GGUF")
    version = reader.number(_U32)
    if version not in _VERSIONS:
        if version & 0xFFFF == 0 and version:
            raise FileError("is big-endian, and only little-endian GGUF files are supported")
        raise FileError(f"is a GGUF file of version {version}, and only 2 and 3 are supported")
    counts = []
    for what, most in (("tensors", MAX_TENSORS), ("keys", MAX_KEYS)):
        count = reader.number(_U64)
        if count > most:
            raise FileError(f"has {count:,} {what}: at most {most:,} are read")
        counts.append(count)
    metadata: dict[str, Any] = {}
    for _ in range(counts[1]):
        key = reader.name()
        if key in metadata:
            raise FileError(f"has an invalid header: it has the key {shortened(key)} twice")
        metadata[key] = reader.value(shortened(key))
    infos: dict[str, tuple[GGMLQuantizationType, tuple[int, ...], int]] = {}
    for _ in range(counts[0]):
        name = reader.name()
        if name in infos:
            raise FileError(f"has an invalid header: it has the tensor {shortened(name)} twice")
        infos[name] = reader.info(shortened(name))
    return GgufHeader(metadata, _placed(infos, _alignment(metadata), reader.at, reader.size))


def read_list(file: BinaryIO, found: StoredList) -> list[Any]:
    """Return the elements of a list of a valid header, strings as bytes. Raises FileError if the file has changed."""
    reader = _Reader(file, found.start)
    if found.code == _STRING:
        return [reader.take(reader.number(_U64)) for _ in range(found.length)]
    number = _NUMBERS[found.code]
    return [value for (value,) in number.iter_unpack(reader.take(found.length * number.size))]


class _Reader:
    """Reads a header from byte `at` on, and never beyond the file or the limits."""

    def __init__(self, file: BinaryIO, at: int = 0) -> None:
        self._file, self.size, self.at = file, os.fstat(file.fileno()).st_size, at
        self._content, self._first, self._strings = bytearray(), at, 0
        file.seek(at)

    def start(self) -> bytes:
        """Return the first four bytes, or fewer of a shorter file."""
        return self.take(min(4, self.size))

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        start = self._ready(count)
        return bytes(self._content[start : start + count])

    def skip(self, count: int) -> None:
        self._ready(count)

    def number(self, number: Struct) -> Any:
        return number.unpack_from(self._content, self._ready(number.size))[0]

    def _ready(self, count: int) -> int:
        """Make the next bytes available, and pass them; return where they begin in the content."""
        start, self.at = self.at - self._first, self.at + count
        end = start + count
        if end > len(self._content):
            if self.at > self.size:
                raise FileError(f"is truncated: its header does not end within its {self.size:,} bytes")
            if self.at > MAX_HEADER:
                raise FileError(f"has a header of more than {MAX_HEADER:,} bytes, the limit")
            self._content += self._file.read(max(end - len(self._content), _PIECE))
            if end > len(self._content):
                raise FileError("changed while it was read: it is shorter")
        return start

    def name(self) -> str:
        """Return the name of a key or a tensor."""
        length = self.number(_U64)
        if not 0 < length <= _MAX_NAME:
            raise FileError(f"has an invalid header: a name of {length:,} bytes must have from 1 to {_MAX_NAME:,}")
        return self._text("a name", length)

    def _text(self, what: str, length: int) -> str:
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise FileError(f"has an invalid header: {what} is not UTF-8") from None

    def value(self, key: str) -> Any:
        """Return the value of a key; a long list is skipped."""
        code = self.number(_U32)
        if code == _STRING:
            return self._text(f"the text of {key}", self.number(_U64))
        if code in _NUMBERS:
            return _decimal(code, self.number(_NUMBERS[code]))
        if code != _LIST:
            raise FileError(f"has an invalid header: the key {key} has a value of the unknown type {code}")
        code, count, start = self.number(_U32), self.number(_U64), self.at
        if code == _STRING:
            self._skip_strings(key, count)
        elif code not in _NUMBERS:
            raise FileError(f"has an invalid header: the list {key} has elements of the unsupported type {code}")
        elif count <= _SHORT:
            return [_decimal(code, self.number(_NUMBERS[code])) for _ in range(count)]
        else:
            self.skip(count * _NUMBERS[code].size)
        return StoredList(code, count, start)

    def _skip_strings(self, key: str, count: int) -> None:
        self._strings += count
        if self._strings > MAX_STRINGS:
            raise FileError(f"has more than {MAX_STRINGS:,} texts in lists up to {key}, the limit")
        length, content = _U64.unpack_from, self._content
        for _ in range(count):
            start = self.at - self._first  # as number and skip, three times as fast
            if start + 8 > len(content):
                self._ready(8)
                self.at -= 8
            self.at += 8 + length(content, start)[0]
            if self.at - self._first > len(content):
                self._ready(0)

    def info(self, name: str) -> tuple[GGMLQuantizationType, tuple[int, ...], int]:
        """Return the type, the shape and the offset of a tensor."""
        axes = self.number(_U32)
        if not 0 < axes <= _MAX_AXES:
            raise FileError(f"has an invalid header: the tensor {name} has {axes:,} axes, and from 1 to 4 are allowed")
        shape = tuple(self.number(_U64) for _ in range(axes))[::-1]
        code, offset = self.number(_U32), self.number(_U64)
        if not all(0 < size < _MAX_SIZE for size in shape) or prod(shape) >= _MAX_SIZE:
            raise FileError(f"has an invalid header: the tensor {name} has the shape {list(shape)}")
        if code not in _TYPES:
            raise FileError(f"has an invalid header: the tensor {name} is of the unknown type {code}")
        kind = _TYPES[code]
        values, _ = GGML_QUANT_SIZES[kind]
        if shape[-1] % values:
            reason = f"rows of {shape[-1]:,} values, which is no multiple of {values}, a block of {kind.name}"
            raise FileError(f"has an invalid header: the tensor {name} has {reason}")
        return kind, shape, offset


def _decimal(code: int, value: Any) -> Any:
    """Return a number of a header; of a float32, the shortest decimal that stands for it."""
    return float(str(np.float32(value))) if code == _FLOAT32 else value


def _alignment(metadata: Mapping[str, Any]) -> int:
    found = metadata.get("general.alignment", 32)
    if type(found) is not int or found <= 0 or found & (found - 1):
        raise FileError("has an invalid header: general.alignment must be a power of two")
    return found


def _placed(
    infos: Mapping[str, tuple[GGMLQuantizationType, tuple[int, ...], int]], alignment: int, header: int, size: int
) -> dict[str, GgufEntry]:
    """Return the tensors of a file of `size` bytes with this header.

    They follow each other without gaps or overlaps, each from a multiple of the alignment on.
    """
    entries, data = {}, -(-header // alignment) * alignment
    end = data
    for name, (kind, shape, offset) in sorted(infos.items(), key=lambda item: item[1][2]):
        start, shown = data + offset, shortened(name)
        if start != end:
            wrong = "overlaps the one before it" if start < end else f"leaves {start - end:,} bytes unused"
            raise FileError(f"has an invalid header: the tensor {shown} {wrong}")
        values, nbytes = GGML_QUANT_SIZES[kind]
        stop = start + prod(shape) // values * nbytes
        if stop > size:
            raise FileError(f"is truncated: the tensor {shown} ends at byte {stop:,} of {size:,}")
        entries[name] = GgufEntry(kind.name, shape, start, stop)
        end = -(-stop // alignment) * alignment
    return entries
