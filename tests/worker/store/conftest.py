"""Redis databases of a test's own: other tests of the process use the same servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from worker.store.connection import connect


def _emptied(url: str) -> Iterator[Redis]:
    redis = connect(f"{url}?db=1")
    redis.flushdb()
    yield redis
    redis.flushdb()


@pytest.fixture
def queue(servers: Any) -> Iterator[Redis]:
    """An empty database of the Redis that never evicts."""
    yield from _emptied(servers.queue_url)


@pytest.fixture
def cache(servers: Any) -> Iterator[Redis]:
    """An empty database of the Redis that may evict."""
    yield from _emptied(servers.cache_url)
