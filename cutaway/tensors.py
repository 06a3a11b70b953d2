"""Tensors of a trace or a model, read as NumPy arrays when they are used."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from numpy.typing import NDArray

from cutaway.remote import Remote

NPY = "application/x-npy"
Index = int | slice | EllipsisType | tuple[int | slice | EllipsisType, ...]


class Cache:
    """Arrays by the address they were read from, up to `max_bytes` in all; the least recently used go first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._arrays: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, path: str) -> NDArray[Any] | None:
        """Return the array that was read from this address, if it is still there."""
        with self._lock:
            if path in self._arrays:
                self._arrays.move_to_end(path)
            return self._arrays.get(path)

    def put(self, path: str, array: NDArray[Any]) -> None:
        """Keep an array, unless it alone is larger than the cache."""
        if array.nbytes > self.max_bytes:
            return
        with self._lock:
            replaced = self._arrays.pop(path, None)
            self._bytes += array.nbytes - (replaced.nbytes if replaced is not None else 0)
            self._arrays[path] = array
            while self._bytes > self.max_bytes:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes


@dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet. `tensor[0, :, 5]` reads that slice; `numpy.asarray(tensor)` reads it all.

    The arrays are read-only, because they are cached: copy one to change it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str  # as stored; reading returns float32 unless `read` is asked for float16
    path: str
    remote: Remote
    cache: Cache

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Read a basic slice: integers, slices and one `...`. Raises IndexError or RemoteError."""
        return self.read(index)

    def read(
        self,
        index: Index = ...,
        *,
        dtype: str | None = None,
        max_cells: int | None = None,
        reduce: str | None = None,
    ) -> NDArray[Any]:
        """Read a slice as `dtype` (float32, float16).

        With `max_cells`, the two last axes are shrunk by whole factors until it fits, each cell being the `reduce`
        (mean, max, min or absmax) of a tile. Raises IndexError if the tensor has no such slice, or RemoteError.
        """
        chosen = {"slice": _as_text(index, self.shape), "dtype": dtype, "max_cells": max_cells, "reduce": reduce}
        query = urlencode({name: value for name, value in chosen.items() if value not in (None, "")}, safe=":,")
        path = f"{self.path}?{query}" if query else self.path
        array = self.cache.get(path)
        if array is None:
            array = np.load(io.BytesIO(self.remote.read(path, NPY)), allow_pickle=False)
            array.setflags(write=False)
            self.cache.put(path, array)
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.read(), dtype=dtype, copy=copy)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]


class Tensors(Mapping[str, Tensor]):
    """The tensors at a path by name, as Tensor objects; TransformerLens's hook names are found, too."""

    def __init__(self, path: str, entries: Mapping[str, Mapping[str, Any]], remote: Remote, cache: Cache) -> None:
        self._path, self._entries, self._remote, self._cache = path, entries, remote, cache

    def __getitem__(self, name: str) -> Tensor:
        found = name if name in self._entries else name.replace("hook_", "")
        if found not in self._entries:
            raise KeyError(name)
        entry = self._entries[found]
        path = f"{self._path}/{quote(found, safe='')}"
        return Tensor(found, tuple(entry["shape"]), entry["dtype"], path, self._remote, self._cache)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _as_text(index: Index, shape: tuple[int, ...]) -> str:
    """Return an index as the service writes it, "0,:,5", and "" for all. Raises IndexError."""
    parts = index if isinstance(index, tuple) else (index,)
    given = sum(part is not Ellipsis for part in parts)
    if given > len(shape) or len(parts) - given > 1:
        raise IndexError(f"{index!r} does not fit the shape {shape}: an index for each axis and at most one ...")
    all_axes = (slice(None),) * (len(shape) - given)
    expanded = [axis for part in parts for axis in (all_axes if isinstance(part, EllipsisType) else (part,))]
    texts = [_axis_as_text(part, shape[n]) for n, part in enumerate(expanded)]
    while texts and texts[-1] == ":":
        texts.pop()
    return ",".join(texts)


def _axis_as_text(part: Any, length: int) -> str:
    if isinstance(part, slice):
        ends = ":".join("" if end is None else str(int(end)) for end in (part.start, part.stop))
        return ends if part.step in (None, 1) else f"{ends}:{int(part.step)}"
    if isinstance(part, bool) or not hasattr(part, "__index__"):
        raise IndexError(f"{part!r} is not a basic index: must be an integer, a slice or ...")
    if not -length <= part < length:
        raise IndexError(f"index {part} is out of bounds for an axis of {length}")
    return str(int(part))
