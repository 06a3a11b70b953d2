"""Queues with priorities."""

from __future__ import annotations

import pytest
from rq.exceptions import DequeueTimeout

import worker.store.queues as queues
from tests.conftest import Servers
from worker.rq.queue import PriorityQueue, open_queue
from worker.store.connection import connect


@pytest.fixture
def small(idle_servers: Servers) -> list[PriorityQueue]:
    """The queues of small jobs."""
    redis = connect(idle_servers.queue_url)
    return [open_queue(name, redis) for name in queues.names_of("small")]


def test_jobs_are_taken_by_priority_and_then_in_order(small: list[PriorityQueue]) -> None:
    normal, low = small
    enqueued = [(low, "a"), (normal, "b"), (low, "c"), (normal, "d")]
    for queue, id in enqueued:
        queue.enqueue("time.time", job_id=id)
    taken = [PriorityQueue.dequeue_any(small, 1, normal.connection, serializer="json") for _ in enqueued]
    assert [(job.id, queue.name) for job, queue in filter(None, taken)] == [
        ("b", normal.name),
        ("d", normal.name),
        ("a", low.name),
        ("c", low.name),
    ]


@pytest.mark.parametrize("at", [0, 1], ids=queues.PRIORITIES)
def test_dequeued_job_is_in_the_intermediate_queue(small: list[PriorityQueue], at: int) -> None:
    small[at].enqueue("time.time", job_id="a")
    PriorityQueue.dequeue_any(small, 1, small[at].connection, serializer="json")
    assert small[at].intermediate_queue.get_job_ids() == ["a"]


def test_dequeue_of_empty_queues_ends_after_the_timeout(small: list[PriorityQueue]) -> None:
    with pytest.raises(DequeueTimeout):
        PriorityQueue.dequeue_any(small, 1, small[0].connection, serializer="json")
    assert PriorityQueue.dequeue_any(small, None, small[0].connection, serializer="json") is None
