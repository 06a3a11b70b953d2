"""Connections to Redis' two roles, opened by whoever starts a process and never at import."""

from __future__ import annotations

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry


def connect(url: str, *, timeout: float = 5.0, retries: int = 3) -> Redis:
    """A client of the Redis at `url` (redis://, rediss:// or unix://), connected when first used.

    `timeout` is in seconds, for each try. Raises ValueError for another kind of URL.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), retries),
    )
