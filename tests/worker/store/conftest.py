"""Empty Redis databases for each test, on shared servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from worker.store.connection import connect


def _empty_database(url: str) -> Iterator[Redis]:
    redis = connect(f"{url}?db=1")
    redis.flushdb()
    yield redis
    redis.flushdb()


@pytest.fixture
def queue(servers: Any) -> Iterator[Redis]:
    """An empty database of the Redis that never evicts."""
    yield from _empty_database(servers.queue_url)


@pytest.fixture
def cache(servers: Any) -> Iterator[Redis]:
    """An empty database of the Redis that may evict."""
    yield from _empty_database(servers.cache_url)
