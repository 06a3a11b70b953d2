"""Events of requests, and the log of all requests."""

from __future__ import annotations

import threading
import time

import pytest
from redis import Redis

import worker.store.events as events


def test_latest_event_is_the_last_published(queue: Redis) -> None:
    events.publish(queue, "a", "started")
    events.publish(queue, "a", "progress", done=3, total=12, unit="layers")
    found = events.latest(queue, "a")
    assert found is not None
    assert found[1:] == ("progress", {"done": 3, "total": 12, "unit": "layers"})


def test_unknown_request_has_no_events(queue: Redis) -> None:
    assert events.latest(queue, "a") is None


def test_requests_have_separate_streams(queue: Redis) -> None:
    events.publish(queue, "a", "done")
    assert events.latest(queue, "b") is None
    assert events.wait(queue, "b", "0", 0.01) == ("0", None)


def test_wait_returns_past_events_at_once(queue: Redis) -> None:
    events.publish(queue, "a", "started")
    events.publish(queue, "a", "done")
    before = time.monotonic()
    seen, event = events.wait(queue, "a", "0", 3)
    assert time.monotonic() - before < 1
    assert event == "done"
    assert seen == (events.latest(queue, "a") or ("",))[0]


def test_seen_events_are_not_returned_again(queue: Redis) -> None:
    events.publish(queue, "a", "started")
    seen, _ = events.wait(queue, "a", "0", 0.01)
    assert events.wait(queue, "a", seen, 0.01) == (seen, None)


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_wait_ends_after_the_timeout(queue: Redis, timeout: float) -> None:
    before = time.monotonic()
    assert events.wait(queue, "a", "0", timeout) == ("0", None)
    assert timeout - 0.01 <= time.monotonic() - before < timeout + 1


def test_event_ends_the_wait(queue: Redis) -> None:
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


def test_deleted_stream_leaves_no_key(queue: Redis) -> None:
    events.publish(queue, "a", "done")
    events.delete(queue, "a")
    assert events.latest(queue, "a") is None
    assert queue.keys("events:*") == []


def test_stream_is_bounded_and_expires(queue: Redis) -> None:
    for n in range(1300):
        events.publish(queue, "a", "progress", done=n)
    [key] = queue.keys("*")
    assert queue.xlen(key) < 1200
    assert 0 < queue.ttl(key) <= 86400


def test_current_run_starts_after_the_end_of_the_previous_one(queue: Redis) -> None:
    assert events.before_current_run(queue, "a") == "0"
    for event in ("queued", "cancelled", "cancelled"):  # published by the worker and by the service
        last = events.publish(queue, "a", event)
    assert events.before_current_run(queue, "a") == "0"
    events.publish(queue, "a", "queued")
    assert events.before_current_run(queue, "a") == last
    events.publish(queue, "a", "done")
    assert events.before_current_run(queue, "a") == last


def test_log_has_the_events_of_all_requests_except_progress(queue: Redis) -> None:
    before = events.log_end(queue)
    for id, event in (("a", "queued"), ("b", "queued"), ("a", "progress"), ("a", "done")):
        events.publish(queue, id, event)
    entries = events.log(queue, before, 0.01)
    assert [entry[1:] for entry in entries] == [("a", "queued"), ("b", "queued"), ("a", "done")]
    assert events.log(queue, entries[0][0], 0.01) == entries[1:]
    assert events.log_end(queue) == entries[-1][0]
    assert [events.logged_request(queue, entry) for entry, _, _ in entries] == ["a", "b", "a"]
    assert events.logged_request(queue, "1-1") is None


def test_event_of_many_requests_is_in_each_stream(queue: Redis) -> None:
    last = events.publish_all(queue, ["a", "b"], "failed", reason="why")
    for id in "ab":
        found = events.latest(queue, id)
        assert found is not None
        assert found[1:] == ("failed", {"reason": "why"})
    assert last == (events.latest(queue, "b") or ("",))[0]
