"""Clients of the two Redis servers, connected when first used."""

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

_RETRIES = 60  # about a second apart, so that a running job survives a restart of Redis
_OPEN_SECONDS = 0.5  # during which an open circuit breaker makes no attempt


class CannotWrite(ConnectionError):
    """Redis refuses writes because it cannot save to disk (MISCONF): retried like a lost connection."""


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    EXCEPTION_CLASSES = DefaultParser.EXCEPTION_CLASSES | {"MISCONF": CannotWrite}


class _CircuitBreaker(Retry):
    """Retries once after a broken connection; while Redis is down, lets one thread at a time try and fails the others.

    If every thread waited for its own attempt, none would be left to serve other requests.
    """

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 1, (ConnectionError,))
        self._open_until = 0.0
        self._probing: int | None = None  # the thread that is trying

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # the connections of a client share it

    def call_with_retry(self, do: Callable[[], Any], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `do` and return its result. Raises ConnectionError and TimeoutError."""
        me = threading.get_ident()
        if time.monotonic() < self._open_until and self._probing != me:
            raise ConnectionError("Redis was unavailable a moment ago")
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
    """Return the shared client of the Redis server at `url` (redis://, rediss:// or unix://).

    `timeout` is in seconds and applies to each attempt. The client may be used after a fork: redis-py gives each
    process its own connections. Raises ValueError for another kind of URL.
    """
    return _client(url, timeout, Retry(ExponentialBackoff(cap=1.0, base=0.05), retries))


@cache
def connect_failing_fast(url: str, *, timeout: float) -> Redis:
    """Return a client for threads that serve HTTP: while Redis is down, calls fail at once or after one `timeout`."""
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
