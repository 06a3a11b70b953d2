"""The bytes of a finished result, one run of them wherever they are kept, and what can be wrong with a place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Missing(LookupError):
    """A result, or a part of it, is not there (any more)."""


class Away(Exception):
    """The trace store does not answer, or refuses. Says nothing that a stranger may not read."""


class Run(Protocol):
    """A result's bytes. All methods raise Missing, at any part of what they give."""

    @property
    def gap(self) -> int:
        """Bytes that take as long to read as asking for another part takes."""

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` in pieces, for answers too large to hold."""

    def receive(self, wanted: Iterable[tuple[int, memoryview]]) -> Iterator[memoryview]:
        """Fill one memory after another from the bytes that begin at `start`: (start, memory). Each is handed on when
        it is full, and may be that of others: it is used when they are next.
        """

    def gather(self, starts: NDArray[np.int64], size: int) -> bytes:
        """Many short parts, `size` bytes from each start, one after another."""


def read(run: Run, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a result. Raises Missing."""
    return b"".join(run.stream(start, stop))
