"""The rate limit of clients, shared by all processes."""

from __future__ import annotations

import math
import time

import limits
from flask import g
from limits import RateLimitItem
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import Redis
from werkzeug.exceptions import TooManyRequests

HEADERS = ["RateLimit", "RateLimit-Policy"]


def parse(rate_limit: str) -> RateLimitItem:
    """Parse the setting RATE_LIMIT. Raises ValueError."""
    try:
        return limits.parse(rate_limit)
    except ValueError:
        examples = "600/minute, 10/second or 5000/day"
        raise ValueError(f"RATE_LIMIT={rate_limit!r} is invalid: use, for example, {examples}.") from None


class RateLimiter:
    """Limits each client's requests for computation in a moving window, counted in Redis."""

    def __init__(self, item: RateLimitItem, queue: Redis) -> None:
        self.item = item
        self.policy = f'"caller";q={self.item.amount};w={self.item.get_expiry()}'
        storage = RedisStorage("redis://", connection_pool=queue.connection_pool, key_prefix="rate")
        self.limiter = MovingWindowRateLimiter(storage)

    def count(self, client: str) -> None:
        """Count a request; the response's headers report how many remain. Raises TooManyRequests (429) if none does."""
        allowed = self.limiter.hit(self.item, client)
        reset, remaining = self.limiter.get_window_stats(self.item, client)
        seconds = max(1, math.ceil(reset - time.time()))
        g.rate_limit = {"RateLimit-Policy": self.policy, "RateLimit": f'"caller";r={max(0, remaining)};t={seconds}'}
        if not allowed:
            limit = f"Each client may send at most {self.item.amount:,} requests for computation"
            raise TooManyRequests(f"{limit} in {self.item.get_expiry():,} s (RATE_LIMIT).", retry_after=seconds)
