"""Connections to Redis' two roles, opened by whoever starts a process and never at import."""

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

_PATIENCE = 60  # tries, a second apart, until Redis is back: work that was begun waits for it
_AWAY = 0.5  # seconds between two tries where nobody waits


class CannotWrite(ConnectionError):
    """Redis refuses to write, as its disk is full: as good as away, until there is room."""


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    EXCEPTION_CLASSES = DefaultParser.EXCEPTION_CLASSES | {"MISCONF": CannotWrite}


class _Impatient(Retry):
    """Tries once more where a connection has broken. Once Redis is away, one thread at a time finds out whether it is
    back, and all others hear at once that it is not: were each to wait, none would be left to answer anything else."""

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 1, (ConnectionError,))
        self._away_until = 0.0
        self._looks: int | None = None  # the thread that finds out

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # every connection of a client shares it

    def call_with_retry(self, do: Callable[[], Any], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `do` gives. Raises ConnectionError and TimeoutError."""
        me = threading.get_ident()
        if time.monotonic() < self._away_until and self._looks != me:
            raise ConnectionError("Redis was away a moment ago")
        if self._away_until:
            self._looks, self._away_until = me, float("inf")
        until = 0.0
        try:
            return super().call_with_retry(do, fail, *args, **kwargs)
        except (ConnectionError, TimeoutError):
            until = time.monotonic() + _AWAY
            raise
        finally:
            self._looks, self._away_until = None, until


@cache
def connect(url: str, *, timeout: float = 5.0, retries: int = _PATIENCE) -> Redis:
    """The process's client of the Redis at `url` (redis://, rediss:// or unix://), connected when first used.

    A fork may go on using it: redis-py gives each process connections of its own.
    `timeout` is in seconds, for each try. Raises ValueError for another kind of URL.
    """
    return _client(url, timeout, Retry(ExponentialBackoff(cap=1.0, base=0.05), retries))


@cache
def connect_impatiently(url: str, *, timeout: float) -> Redis:
    """The same for threads that many wait for: where Redis is away, they hear so at once, or after one `timeout`."""
    return _client(url, timeout, _Impatient())


def _client(url: str, timeout: float, retry: Retry) -> Redis:
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        driver_info=None,  # what would be sent is looked up in package metadata for every connection, for 3 ms
        retry=retry,
        parser_class=_Parser,
    )
