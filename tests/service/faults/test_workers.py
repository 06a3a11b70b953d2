"""Workers killed with -9: another one does what they did, soon and once."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import worker.store.pieces as pieces
from tests.processes import Body, Stack, busy, kill_all
from worker.rq.queue import open_queue
from worker.store.connection import connect
from worker.store.queues import name

RECOVERY = 15  # seconds from the death of a worker to the end of the trace that it computed


def told(stack: Stack, id: str) -> list[str]:
    entries: Any = connect(stack.servers.queue_url).xrange(f"events:{id}")
    return [fields[b"event"].decode() for _, fields in entries if fields[b"event"] != b"progress"]


def test_a_trace_is_done_soon_and_once_whoever_of_its_processes_is_killed_and_whenever(
    stack: Stack, seconds: Body, request_body: Body
) -> None:
    queue, cache = connect(stack.servers.queue_url), connect(stack.servers.cache_url)
    jobs = open_queue(name("small", "normal"), queue)
    assert jobs.acquire_maintenance_lock()  # RQ's own; who was killed with it would keep it for a quarter of an hour
    with stack.api() as api, stack.workers(3):
        ids = [api.trace(seconds), api.trace(seconds | {"tokens": [1]})]
        for id in ids:
            api.progressed(id)
        parent, both = (process.parent() for process in busy(stack))
        assert parent is not None
        assert both is not None
        parent.kill()  # and the kernel ends its process
        kill_all(both)
        killed = time.time()
        while True:
            id = api.trace(request_body)  # taken off the queue, as by a worker that then dies
            if queue.lmove(jobs.key, jobs.intermediate_queue.key):
                break
            request_body["weights"]["synthetic"] += 1000  # a worker was faster
        ended = [api.ended(id) for id in (*ids, id)]
    assert [trace["status"] for trace in ended] == ["done"] * 3
    took = [datetime.fromisoformat(trace["finished_at"]).timestamp() - killed for trace in ended]
    assert max(took) < RECOVERY, took
    for id in ids:
        assert told(stack, id) == ["queued", "started", "queued", "started", "done"]
        assert pieces.which_done(cache, [id])
