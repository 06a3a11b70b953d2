"""A cache of computed bytes that computes each only once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import cast

from flask import current_app
from werkzeug.exceptions import TooManyRequests

Key = tuple[str, ...]


class SharedBytes:
    """A least-recently-used cache of `capacity` bytes. Requests for bytes that are being computed wait for them.

    A waiting request occupies a thread, so each needs one of `waiters`.
    """

    def __init__(self, capacity: int, waiters: threading.Semaphore) -> None:
        self._capacity = capacity
        self._waiters = waiters
        self._size = 0
        self._cached: OrderedDict[Key, bytes] = OrderedDict()
        self._running: dict[Key, Future[bytes]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key, compute: Callable[[], bytes]) -> bytes:
        """Return the bytes of a key, computed if they are neither cached nor being computed.

        Raises what `compute` raises, and TooManyRequests (429) if too many requests wait.
        """
        with self._lock:
            if key in self._cached:
                self._cached.move_to_end(key)
                return self._cached[key]
            running = self._running.get(key)
            if running is None:
                future = self._running[key] = Future[bytes]()
        if running is not None:
            return self._wait(running)
        try:
            content = compute()
        except BaseException as error:
            with self._lock:
                del self._running[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._store(key, content)
        future.set_result(content)
        return content

    def _wait(self, running: Future[bytes]) -> bytes:
        if not self._waiters.acquire(blocking=False):
            raise TooManyRequests("Too many requests wait for this file (MAX_WAITS); try again.", retry_after=2)
        try:
            return running.result()
        finally:
            self._waiters.release()

    def _store(self, key: Key, content: bytes) -> None:
        if len(content) > self._capacity // 2:
            return
        self._cached[key] = content
        self._size += len(content)
        while self._size > self._capacity:
            self._size -= len(self._cached.popitem(last=False)[1])


def shared_bytes() -> SharedBytes:
    """Return the current app's shared bytes."""
    return cast(SharedBytes, current_app.extensions["shared_bytes"])
