"""Digests in Redis: one reader for each file, small files first, and no file is lost with its reader."""

from __future__ import annotations

from typing import Any

import pytest

import worker.store.digests as store
from tests.conftest import Servers
from worker.store.connection import connect
from worker.store.digests import CheckpointFile, State
from worker.weights.digests import Stamp

DIGEST = "ab" * 32


def file(name: str = "model.safetensors", size: int = 10**11, inode: int = 7) -> CheckpointFile:
    return CheckpointFile("mine", name, Stamp(size, inode, 1_795_000_000_123_456_789, 1_795_000_000_123_456_790))


@pytest.fixture
def queue(idle_servers: Servers) -> Any:
    return connect(idle_servers.queue_url)


def test_a_requested_file_is_taken_once(queue: Any) -> None:
    for _ in range(3):
        store.request(queue, file())
    assert store.take(queue, 0.1) == file()
    assert store.take(queue, 0.1) is None


def test_small_files_are_taken_first(queue: Any) -> None:
    for name, size in (("b", 3), ("c", 10**12), ("a", 2)):
        store.request(queue, file(name, size))
    assert [found.name for found in (store.take(queue, 0.1) for _ in range(3)) if found] == ["a", "b", "c"]


def test_the_state_of_a_file_is_that_of_its_version(queue: Any) -> None:
    assert store.find(queue, file()) is None
    store.put(queue, file(), State(sha256=DIGEST))
    assert store.find(queue, file()) == State(sha256=DIGEST)
    assert store.find(queue, file(inode=8)) is None
    assert store.find(queue, file(size=1)) is None


def test_a_file_that_was_taken_is_being_read_until_its_reader_is_silent(queue: Any) -> None:
    store.request(queue, file())
    store.take(queue, 0.1)
    assert store.find(queue, file()) == State(done=0)
    [key] = queue.keys("digest:*")
    assert 0 < queue.ttl(key) <= 10
    queue.expire(key, 1)
    store.put(queue, file(), State(done=123))
    assert store.find(queue, file()) == State(done=123)
    assert queue.ttl(key) > 5
    store.put(queue, file(), State(sha256=DIGEST))
    assert queue.ttl(key) > 86400


def test_putting_a_state_returns_the_one_before(queue: Any) -> None:
    assert store.put(queue, file(), State(refused="not here")) is None
    assert store.put(queue, file(), State()) == State(refused="not here")
