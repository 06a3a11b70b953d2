"""Clients of the two Redis, connected when first used and never at import."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Self

from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry

_RETRIES = 60  # a second apart: a job that runs waits until Redis is back
_OPEN_SECONDS = 0.5  # between two attempts of a client that fails fast


class CannotWrite(ConnectionError):
    """Redis refuses to write, as its disk is full: handled as a lost connection, until there is room."""


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    EXCEPTION_CLASSES = DefaultParser.EXCEPTION_CLASSES | {"MISCONF": CannotWrite}


class _CircuitBreaker(Retry):
    """Retries once after a broken connection. While Redis is down, one thread at a time tries it, and all others fail.

    If each waited for its own attempt, no thread of the API would be left to answer anything else.
    """

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 1, (ConnectionError,))
        self._open_until = 0.0
        self._probing: int | None = None  # the thread that tries

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # the connections of a client share it

    def call_with_retry(self, do: Callable[[], Any], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what `do` returns. Raises ConnectionError and TimeoutError."""
        me = threading.get_ident()
        if time.monotonic() < self._open_until and self._probing != me:
            raise ConnectionError("Redis was away a moment ago")
        if self._open_until:
            self._probing, self._open_until = me, float("inf")
        until = 0.0
        try:
            return super().call_with_retry(do, fail, *args, **kwargs)
        except (ConnectionError, TimeoutError):
            until = time.monotonic() + _OPEN_SECONDS
            raise
        finally:
            self._probing, self._open_until = None, until


@cache
def connect(url: str, *, timeout: float = 5.0, retries: int = _RETRIES) -> Redis:
    """Return the process's client of the Redis at `url` (redis://, rediss:// or unix://).

    A forked child may use it, too: redis-py gives each process connections of its own.
    `timeout` is in seconds, for each attempt. Raises ValueError for another kind of URL.
    """
    return _client(url, timeout, Retry(ExponentialBackoff(cap=1.0, base=0.05), retries))


@cache
def connect_failing_fast(url: str, *, timeout: float) -> Redis:
    """Return a client that fails at once, or after one `timeout`, while Redis is down: for threads that serve HTTP."""
    return _client(url, timeout, _CircuitBreaker())


def _client(url: str, timeout: float, retry: Retry) -> Redis:
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        driver_info=None,  # it is looked up in package metadata for every connection, which takes 3 ms
        retry=retry,
        parser_class=_Parser,
    )
