"""The bytes of a finished result, wherever they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Missing(LookupError):
    """A result, or a part of it, does not exist (any more)."""


class Unavailable(Exception):
    """The trace store does not answer, or refuses. The message holds nothing confidential."""


class StoredBytes(Protocol):
    """The bytes of one result. All methods raise Missing, at any part of what they return."""

    @property
    def gap(self) -> int:
        """How many bytes take as long to read as one more request takes."""

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes `start` to `stop` in pieces, for answers too large for memory."""

    def receive(self, wanted: Iterable[tuple[int, memoryview]]) -> Iterator[memoryview]:
        """Fill one buffer after another from the bytes that begin at `start`: (start, buffer).

        Each is yielded when it is full. Several may share memory: one is filled only after the last was consumed.
        """

    def gather(self, starts: NDArray[np.int64], size: int) -> bytes:
        """Return many short parts, `size` bytes from each start, one after another."""


def read(source: StoredBytes, start: int, stop: int) -> bytes:
    """Return bytes `start` to `stop` of a result. Raises Missing."""
    return b"".join(source.stream(start, stop))
