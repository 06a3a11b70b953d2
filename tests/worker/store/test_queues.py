"""Which queue work waits in, and which are taken from before."""

from __future__ import annotations

import pytest

import worker.store.queues as queues
from worker.store.queues import LANES, SMALL_SECONDS, Priority


@pytest.mark.parametrize("priority", queues.PRIORITIES)
def test_work_is_small_up_to_a_bound(priority: Priority) -> None:
    small, large = queues.choose(SMALL_SECONDS, priority), queues.choose(SMALL_SECONDS + 0.01, priority)
    assert small in queues.of_lane("small")
    assert large in queues.of_lane("large")
    assert (queues.priority(small), queues.priority(large)) == (priority, priority)


@pytest.mark.parametrize("lane", LANES)
def test_before_a_queue_those_of_its_lane_are_taken_from_that_come_before_it(lane: queues.Lane) -> None:
    names = queues.of_lane(lane)
    assert [queues.priority(name) for name in names] == ["normal", "low"]
    assert [queues.ahead(name) for name in names] == [[], names[:1]]


@pytest.mark.parametrize("name", queues.NAMES)
def test_with_another_priority_the_lane_stays(name: str) -> None:
    assert {queues.with_priority(name, priority) for priority in queues.PRIORITIES} == {*queues.ahead(name), name} | {
        other for other in queues.NAMES if name in queues.ahead(other)
    }
