"""Killed workers: another worker finishes their jobs soon, and once."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import worker.store.pieces as pieces
from tests.processes import Body, Stack, busy, kill_all
from worker.rq.queue import open_queue
from worker.store.connection import connect
from worker.store.queues import name

RECOVERY = 15  # seconds from the death of a worker to the end of the trace that it was computing


def events_of(stack: Stack, id: str) -> list[str]:
    """The names of a request's events, without progress."""
    entries: Any = connect(stack.servers.queue_url).xrange(f"events:{id}")
    return [fields[b"event"].decode() for _, fields in entries if fields[b"event"] != b"progress"]


def test_a_trace_is_done_soon_and_once_whichever_process_of_a_worker_is_killed_and_when(
    stack: Stack, slow_body: Body, request_body: Body
) -> None:
    queue, cache = connect(stack.servers.queue_url), connect(stack.servers.cache_url)
    jobs = open_queue(name("small", "normal"), queue)
    assert jobs.acquire_maintenance_lock()  # RQ's own: a killed worker that held it would keep it for 15 minutes
    with stack.api() as api, stack.workers(3):
        ids = [api.submit(slow_body), api.submit(slow_body | {"tokens": [1]})]
        for id in ids:
            api.wait_for_progress(id)
        parent, process = (process.parent() for process in busy(stack))
        assert parent is not None
        assert process is not None
        parent.kill()  # and the kernel ends its child
        kill_all(process)
        killed = time.time()
        while True:
            id = api.submit(request_body)  # taken off the queue, as by a worker that then dies
            if queue.lmove(jobs.key, jobs.intermediate_queue.key):
                break
            request_body["weights"]["synthetic"] += 1000  # a worker was faster
        ended = [api.wait(id) for id in (*ids, id)]
    assert [trace["status"] for trace in ended] == ["done"] * 3
    durations = [datetime.fromisoformat(trace["finished_at"]).timestamp() - killed for trace in ended]
    assert max(durations) < RECOVERY, durations
    for id in ids:
        assert events_of(stack, id) == ["queued", "started", "queued", "started", "done"]
        assert pieces.which_done(cache, [id])
