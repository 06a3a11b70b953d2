"""Requests are kept for their time, in the order they came."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from redis import Redis

import worker.store.requests as requests
from worker.families.gpt2 import GPT2Config as Config
from worker.models.reference import ModelRef
from worker.requests import LayoutRequest, LensRequest, Request, RequestKind, TraceRequest
from worker.store.requests import Record
from worker.trace.sampling import Sampling

AT = "2026-01-02T03:04:05.678Z"


def traced(*tokens: int) -> TraceRequest:
    return TraceRequest(ModelRef(Config(), "synthetic-1-0"), tokens)


def put(queue: Redis, *ids: str, request: Request | None = None, ttl: int = 60) -> None:
    for id in ids:
        requests.put(queue, id, request or traced(1), AT, 30, ttl)


def listed(queue: Redis, before: int | None = None, count: int = 100, kind: RequestKind = "trace") -> list[str]:
    return [id for id, _ in requests.newest(queue, kind, before, count)]


def test_a_record_tells_what_was_asked_for(queue: Redis) -> None:
    put(queue, "a", request=traced(1, 2))
    assert requests.get(queue, "a") == Record(traced(1, 2), AT, 30)


def test_nobody_asked_for_an_unknown_id(queue: Redis) -> None:
    assert requests.get(queue, "a") is None


def test_requests_are_listed_newest_first(queue: Redis) -> None:
    put(queue, "c", "a", "b")
    assert listed(queue) == ["b", "a", "c"]


def test_what_is_asked_for_again_is_the_newest(queue: Redis) -> None:
    put(queue, "a", "b", "a")
    assert listed(queue) == ["a", "b"]


def test_kinds_are_listed_apart(queue: Redis) -> None:
    put(queue, "a")
    put(queue, "b", request=LayoutRequest(Config(), 7))
    assert (listed(queue), listed(queue, kind="layout")) == (["a"], ["b"])


def test_listed_records_are_those_of_their_ids(queue: Redis) -> None:
    for n, id in enumerate("abc"):
        put(queue, id, request=traced(n))
    assert [(id, record.request) for id, record in requests.newest(queue, "trace", None, 9)] == [
        ("c", traced(2)), ("b", traced(1)), ("a", traced(0)),
    ]  # fmt: skip


def test_pages_neither_repeat_nor_miss_while_newer_requests_come(queue: Redis) -> None:
    put(queue, *"abcdefg")
    found, before = [], None
    while page := requests.newest(queue, "trace", before, 3):
        found += [id for id, _ in page]
        before = page[-1][1].number
        put(queue, f"newer than {found[-1]}")
    assert found == [*"gfedcba"]


def test_expired_requests_are_dropped_and_the_page_is_filled_with_others(queue: Redis) -> None:
    put(queue, "a", "b")
    put(queue, "short", "shorter", ttl=1)
    put(queue, "c")
    deadline = time.monotonic() + 5
    while requests.get(queue, "shorter") or requests.get(queue, "short"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert listed(queue, count=2) == ["c", "b"]
    assert listed(queue) == ["c", "b", "a"]


def test_a_cancelled_request_says_so(queue: Redis) -> None:
    put(queue, "a", request=traced(1))
    requests.cancel(queue, "a")
    assert requests.get(queue, "a") == Record(traced(1), AT, 30, cancelled=True)


def test_cancelling_does_not_lengthen_a_life(queue: Redis) -> None:
    put(queue, "a", ttl=60)
    requests.cancel(queue, "a")
    assert 0 < queue.ttl("request:a") <= 60


def test_cancelling_what_nobody_asked_for_makes_no_record(queue: Redis) -> None:
    requests.cancel(queue, "a")
    assert requests.get(queue, "a") is None


def test_asking_again_takes_a_cancellation_back(queue: Redis) -> None:
    put(queue, "a")
    requests.cancel(queue, "a")
    put(queue, "a")
    found = requests.get(queue, "a")
    assert found is not None
    assert not found.cancelled


def test_a_forgotten_request_is_gone(queue: Redis) -> None:
    put(queue, "a", "b")
    requests.forget(queue, "a", "trace")
    assert requests.get(queue, "a") is None
    assert listed(queue) == ["b"]


def test_many_are_put_and_got_in_their_order(queue: Redis) -> None:
    records = {f"{n}": Record(traced(n), AT, 30, job="j", batch="b") for n in range(2500)}
    requests.put_all(queue, records, 60)
    assert requests.get_all(queue, [*records, "unknown"]) == [*records.values(), None]
    assert listed(queue, count=3) == ["2499", "2498", "2497"]


def test_a_change_leaves_the_rest_of_a_record_and_its_time(queue: Redis) -> None:
    put(queue, "a", "b", request=traced(1), ttl=50)
    requests.change(queue, ["a", "unknown"], job="j")
    assert requests.get(queue, "a") == Record(traced(1), AT, 30, job="j")
    assert requests.get(queue, "b") == Record(traced(1), AT, 30)
    assert requests.get(queue, "unknown") is None
    assert 0 < queue.ttl("request:a") <= 50


@pytest.mark.parametrize(
    "request_",
    [
        traced(1, 2),
        replace(traced(1), generate=Sampling(3, 0.5, 2, 0.9, 7), capture=("logits", "blocks.0.*"), dtype="float16"),
        LayoutRequest(Config(n_layer=2), 7, 3, "llm-viz"),
        LensRequest(ModelRef(Config(), "synthetic-1-0"), (1, 2)),
    ],
    ids=["trace", "trace with all fields", "layout", "lens"],
)
def test_a_request_of_any_kind_is_read_as_it_was_written(queue: Redis, request_: Request) -> None:
    put(queue, "a", request=request_)
    found = requests.get(queue, "a")
    assert found is not None
    assert (found.kind, found.request) == (request_.kind, request_)
