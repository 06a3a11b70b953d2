"""What is cancelled takes no memory any more: not in Redis, not in a worker."""

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
    with stack.api() as found:
        yield found


def kept(redis: Redis, ids: list[str]) -> list[str]:
    """The keys that name any of these."""
    names = [key.decode() for key in redis.scan_iter("*")]
    return [name for name in names if any(id in name for id in ids)]


def most(worker: psutil.Process) -> int:
    """What that process of a worker takes that takes most, in bytes: how many there are, varies."""
    taken = [0]
    for one in [worker, *worker.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            memory = one.memory_info()
            taken.append(memory.rss - memory.shared)
    return max(taken)


def stop(api: Api, path: str) -> None:
    assert api.ask("DELETE", path).status == 204


def test_cancelled_and_forgotten_nothing_is_left_of_what_waited_ran_or_was_done(
    api: Api, stack: Stack, streamed_request_body: Body, request_body: Body
) -> None:
    queue, cache = connect(stack.servers.queue_url), connect(stack.servers.cache_url)
    with stack.workers(1) as [worker]:
        done = api.trace(request_body)
        api.ended(done)
        before = most(worker)
        running = api.trace(streamed_request_body)
        eventually(lambda: cache.dbsize() > 10)
        waiting = api.trace(streamed_request_body | {"tokens": [7] * 42})
        batch = api.ask(
            "POST", "/v1/batches", {"requests": [streamed_request_body | {"tokens": [n] * 41} for n in (1, 2)]}
        )
        traces = [trace["id"] for trace in batch.body["traces"]]
        stop(api, f"/v1/batches/{batch.body['id']}")
        for id in (waiting, running, done):
            stop(api, f"/v1/traces/{id}")
        ids = [running, waiting, *traces]
        assert kept(cache, [done, *ids]) == []
        for id in ids:
            assert api.ended(id)["status"] == "cancelled"
            stop(api, f"/v1/traces/{id}")
        stop(api, f"/v1/batches/{batch.body['id']}")
        eventually(lambda: kept(queue, [done, *ids, batch.body["id"]]) == [])
        assert kept(cache, ids) == []
        eventually(lambda: most(worker) < before + 3e6)
