"""Connections to Redis' two roles, opened by whoever starts a process and never at import."""

from __future__ import annotations

from functools import cache

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry


@cache
def connect(url: str, *, timeout: float = 5.0, retries: int = 3) -> Redis:
    """The process's client of the Redis at `url` (redis://, rediss:// or unix://), connected when first used.

    A fork may go on using it: redis-py gives each process connections of its own.
    `timeout` is in seconds, for each try. Raises ValueError for another kind of URL.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        driver_info=None,  # what would be sent is looked up in package metadata for every connection, for 3 ms
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), retries),
    )
