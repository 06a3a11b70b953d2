"""Names and order of the queues."""

from __future__ import annotations

import pytest

import worker.store.queues as queues
from worker.store.queues import JOB_SIZES, SMALL_SECONDS, JobSize, Priority


@pytest.mark.parametrize("priority", queues.PRIORITIES)
def test_job_is_small_up_to_a_limit(priority: Priority) -> None:
    small, large = queues.choose(SMALL_SECONDS, priority), queues.choose(SMALL_SECONDS + 0.01, priority)
    assert small in queues.names_of("small")
    assert large in queues.names_of("large")
    assert (queues.priority(small), queues.priority(large)) == (priority, priority)


@pytest.mark.parametrize("size", JOB_SIZES)
def test_queues_of_the_same_size_and_a_higher_priority_are_ahead(size: JobSize) -> None:
    names = queues.names_of(size)
    assert [queues.priority(name) for name in names] == ["normal", "low"]
    assert [queues.ahead(name) for name in names] == [[], names[:1]]


@pytest.mark.parametrize("name", queues.NAMES)
def test_changing_the_priority_keeps_the_size(name: str) -> None:
    assert {queues.with_priority(name, priority) for priority in queues.PRIORITIES} == {*queues.ahead(name), name} | {
        other for other in queues.NAMES if name in queues.ahead(other)
    }
