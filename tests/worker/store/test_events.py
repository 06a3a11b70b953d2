"""Events come in order, are waited for, and are told to those who come late."""

from __future__ import annotations

import threading
import time

import pytest
from redis import Redis

import worker.store.events as events


def test_the_latest_event_is_the_last_published(queue: Redis) -> None:
    events.publish(queue, "a", "started")
    events.publish(queue, "a", "progress", done=3, total=12, unit="layers")
    found = events.latest(queue, "a")
    assert found is not None
    assert found[1:] == ("progress", {"done": 3, "total": 12, "unit": "layers"})


def test_nothing_has_happened_to_an_unknown_request(queue: Redis) -> None:
    assert events.latest(queue, "a") is None


def test_requests_do_not_hear_of_each_other(queue: Redis) -> None:
    events.publish(queue, "a", "done")
    assert events.latest(queue, "b") is None
    assert events.wait(queue, "b", "0", 0.01) == ("0", None)


def test_who_comes_late_hears_of_the_last_event_at_once(queue: Redis) -> None:
    events.publish(queue, "a", "started")
    events.publish(queue, "a", "done")
    before = time.monotonic()
    seen, event = events.wait(queue, "a", "0", 3)
    assert time.monotonic() - before < 1
    assert event == "done"
    assert seen == (events.latest(queue, "a") or ("",))[0]


def test_what_was_seen_is_not_told_again(queue: Redis) -> None:
    events.publish(queue, "a", "started")
    seen, _ = events.wait(queue, "a", "0", 0.01)
    assert events.wait(queue, "a", seen, 0.01) == (seen, None)


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_waiting_ends_with_the_time(queue: Redis, timeout: float) -> None:
    before = time.monotonic()
    assert events.wait(queue, "a", "0", timeout) == ("0", None)
    assert timeout - 0.01 <= time.monotonic() - before < timeout + 1


def test_an_event_wakes_who_waits(queue: Redis) -> None:
    events.publish(queue, "a", "queued")
    seen, _ = events.wait(queue, "a", "0", 0.01)
    later = threading.Timer(0.1, events.publish, (queue, "a", "done"))
    before = time.monotonic()
    later.start()
    try:
        assert events.wait(queue, "a", seen, 3)[1] == "done"
        assert 0.09 < time.monotonic() - before < 2
    finally:
        later.join()


def test_a_forgotten_stream_is_gone(queue: Redis) -> None:
    events.publish(queue, "a", "done")
    events.forget(queue, "a")
    assert events.latest(queue, "a") is None
    assert queue.keys("events:*") == []


def test_a_stream_is_bounded_and_expires(queue: Redis) -> None:
    for n in range(1300):
        events.publish(queue, "a", "progress", done=n)
    [key] = queue.keys("*")
    assert queue.xlen(key) < 1200
    assert 0 < queue.ttl(key) <= 86400


def test_a_story_begins_after_the_end_of_the_one_before(queue: Redis) -> None:
    assert events.begin(queue, "a") == "0"
    for event in ("queued", "cancelled", "cancelled"):  # the worker says so, and who cancelled it
        last = events.publish(queue, "a", event)
    assert events.begin(queue, "a") == "0"
    events.publish(queue, "a", "queued")
    assert events.begin(queue, "a") == last
    events.publish(queue, "a", "done")
    assert events.begin(queue, "a") == last


def test_the_log_tells_what_happened_to_any_request_but_for_progress(queue: Redis) -> None:
    before = events.log_end(queue)
    for id, event in (("a", "queued"), ("b", "queued"), ("a", "progress"), ("a", "done")):
        events.publish(queue, id, event)
    told = events.log(queue, before, 0.01)
    assert [entry[1:] for entry in told] == [("a", "queued"), ("b", "queued"), ("a", "done")]
    assert events.log(queue, told[0][0], 0.01) == told[1:]
    assert events.log_end(queue) == told[-1][0]
    assert [events.logged(queue, place) for place, _, _ in told] == ["a", "b", "a"]
    assert events.logged(queue, "1-1") is None


def test_an_event_of_many_is_told_to_each(queue: Redis) -> None:
    place = events.publish_all(queue, ["a", "b"], "failed", reason="why")
    for id in "ab":
        found = events.latest(queue, id)
        assert found is not None
        assert found[1:] == ("failed", {"reason": "why"})
    assert place == (events.latest(queue, "b") or ("",))[0]
