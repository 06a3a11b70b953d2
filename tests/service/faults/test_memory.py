"""Cancelled requests free their memory in Redis and in the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from redis import Redis

from tests.processes import Api, Body, Stack, eventually
from worker.store.connection import connect


@pytest.fixture
def api(stack: Stack) -> Iterator[Api]:
    with stack.api() as running:
        yield running


def keys_of(redis: Redis, ids: list[str]) -> list[str]:
    """The keys that contain any of these ids."""
    names = [key.decode() for key in redis.scan_iter("*")]
    return [name for name in names if any(id in name for id in ids)]


def largest_memory(worker: psutil.Process) -> int:
    """The private memory, in bytes, of the largest process of a worker; the number of processes varies."""
    sizes = [0]
    for process in [worker, *worker.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            memory = process.memory_info()
            sizes.append(memory.rss - memory.shared)
    return max(sizes)


def delete(api: Api, path: str) -> None:
    assert api.request("DELETE", path).status == 204


def test_nothing_is_left_of_cancelled_and_deleted_requests(
    api: Api, stack: Stack, streamed_request_body: Body, request_body: Body
) -> None:
    queue, cache = connect(stack.servers.queue_url), connect(stack.servers.cache_url)
    with stack.workers(1) as [worker]:
        done = api.submit(request_body)
        api.wait(done)
        before = largest_memory(worker)
        running = api.submit(streamed_request_body)
        eventually(lambda: cache.dbsize() > 10)
        queued = api.submit(streamed_request_body | {"tokens": [7] * 42})
        batch = api.request(
            "POST", "/v1/batches", {"requests": [streamed_request_body | {"tokens": [n] * 41} for n in (1, 2)]}
        ).body
        traces = [trace["id"] for trace in batch["traces"]]
        delete(api, f"/v1/batches/{batch['id']}")
        for id in (queued, running, done):
            delete(api, f"/v1/traces/{id}")
        cancelled = [running, queued, *traces]
        assert keys_of(cache, [done, *cancelled]) == []
        for id in cancelled:
            assert api.wait(id)["status"] == "cancelled"
            delete(api, f"/v1/traces/{id}")
        delete(api, f"/v1/batches/{batch['id']}")
        eventually(lambda: keys_of(queue, [done, *cancelled, batch["id"]]) == [])
        assert keys_of(cache, cancelled) == []
        eventually(lambda: largest_memory(worker) < before + 3e6)
