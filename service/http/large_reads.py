"""A limit on the large reads that a process serves at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import cast

from flask import Response, current_app
from werkzeug.exceptions import TooManyRequests

LIMIT = 8  # in each API process, which has as many threads for them


class LargeReads:
    """The GETs of this process that compute or send much, limited because each occupies a thread and memory."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._free = threading.Semaphore(limit)

    def take(self) -> ExitStack:
        """Return a place that is free again when the stack is closed. Raises TooManyRequests (429) if none is free."""
        if not self._free.acquire(blocking=False):
            limit = f"At most {self._limit:,} large reads are served at once in a process"
            raise TooManyRequests(f"{limit}; retry, or read a smaller part.", retry_after=2)
        place = ExitStack()
        place.callback(self._free.release)
        return place

    def respond(self, make: Callable[[], Response]) -> Response:
        """Return the response that `make` returns. A streamed one occupies its place until it ends or is closed.

        Raises TooManyRequests (429).
        """
        with self.take() as place:
            response = make()
            if response.is_streamed:
                kept = place.pop_all()
                response.response = _until_end(cast("Iterable[bytes]", response.response), kept)
                response.call_on_close(kept.close)  # if it ends before its first chunk
        return response


def large_reads() -> LargeReads:
    """Return the current app's large reads."""
    return cast(LargeReads, current_app.extensions["large_reads"])


def _until_end(chunks: Iterable[bytes], place: ExitStack) -> Iterator[bytes]:
    with place:
        yield from chunks
