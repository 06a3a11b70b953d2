"""Reading the bytes of a result, in the cache or the archive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Missing(LookupError):
    """A result or a part of it does not exist."""


class Unavailable(Exception):
    """The trace store is unavailable or refused a request. The message contains nothing confidential."""


class StoredBytes(Protocol):
    """The bytes of one result. All methods raise Missing, iterators at any point."""

    @property
    def gap(self) -> int:
        """The bytes that take as long to read as one more request."""

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes `start` to `stop` in chunks, for responses too large for memory."""

    def receive(self, wanted: Iterable[tuple[int, memoryview]]) -> Iterator[memoryview]:
        """Fill each buffer in `wanted`, (start, buffer), with the bytes from `start` on, and yield it.

        Buffers may share memory: one is filled only after the one before was consumed.
        """

    def gather(self, starts: NDArray[np.int64], size: int) -> bytes:
        """Return many short parts joined together: `size` bytes from each start."""


def read(source: StoredBytes, start: int, stop: int) -> bytes:
    """Return bytes `start` to `stop` of a result. Raises Missing."""
    return b"".join(source.stream(start, stop))
