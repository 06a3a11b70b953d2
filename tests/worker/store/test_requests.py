"""Records of requests, and their order."""

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


def trace_of(*tokens: int) -> TraceRequest:
    return TraceRequest(ModelRef(Config(), "synthetic-1-0"), tokens)


def put(queue: Redis, *ids: str, request: Request | None = None, ttl: int = 60) -> None:
    for id in ids:
        requests.put(queue, id, request or trace_of(1), AT, 30, ttl)


def listed(queue: Redis, before: int | None = None, count: int = 100, kind: RequestKind = "trace") -> list[str]:
    return [id for id, _ in requests.newest(queue, kind, before, count)]


def test_record_has_the_request(queue: Redis) -> None:
    put(queue, "a", request=trace_of(1, 2))
    assert requests.get(queue, "a") == Record(trace_of(1, 2), AT, 30)


def test_unknown_id_has_no_record(queue: Redis) -> None:
    assert requests.get(queue, "a") is None


def test_requests_are_listed_newest_first(queue: Redis) -> None:
    put(queue, "c", "a", "b")
    assert listed(queue) == ["b", "a", "c"]


def test_resubmitted_request_becomes_the_newest(queue: Redis) -> None:
    put(queue, "a", "b", "a")
    assert listed(queue) == ["a", "b"]


def test_kinds_are_listed_separately(queue: Redis) -> None:
    put(queue, "a")
    put(queue, "b", request=LayoutRequest(Config(), 7))
    assert (listed(queue), listed(queue, kind="layout")) == (["a"], ["b"])


def test_records_are_listed_with_their_ids(queue: Redis) -> None:
    for n, id in enumerate("abc"):
        put(queue, id, request=trace_of(n))
    assert [(id, record.request) for id, record in requests.newest(queue, "trace", None, 9)] == [
        ("c", trace_of(2)), ("b", trace_of(1)), ("a", trace_of(0)),
    ]  # fmt: skip


def test_pages_neither_repeat_nor_miss_requests_while_new_ones_arrive(queue: Redis) -> None:
    put(queue, *"abcdefg")
    found, before = [], None
    while page := requests.newest(queue, "trace", before, 3):
        found += [id for id, _ in page]
        before = page[-1][1].number
        put(queue, f"newer than {found[-1]}")
    assert found == [*"gfedcba"]


def test_expired_requests_are_replaced_by_others_on_the_page(queue: Redis) -> None:
    put(queue, "a", "b")
    put(queue, "short", "shorter", ttl=1)
    put(queue, "c")
    deadline = time.monotonic() + 5
    while requests.get(queue, "shorter") or requests.get(queue, "short"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert listed(queue, count=2) == ["c", "b"]
    assert listed(queue) == ["c", "b", "a"]


def test_cancelled_request_is_marked(queue: Redis) -> None:
    put(queue, "a", request=trace_of(1))
    requests.cancel(queue, "a")
    assert requests.get(queue, "a") == Record(trace_of(1), AT, 30, cancelled=True)


def test_cancelling_does_not_extend_the_ttl(queue: Redis) -> None:
    put(queue, "a", ttl=60)
    requests.cancel(queue, "a")
    assert 0 < queue.ttl("request:a") <= 60


def test_cancelling_an_unknown_request_creates_no_record(queue: Redis) -> None:
    requests.cancel(queue, "a")
    assert requests.get(queue, "a") is None


def test_resubmitting_clears_the_cancellation(queue: Redis) -> None:
    put(queue, "a")
    requests.cancel(queue, "a")
    put(queue, "a")
    found = requests.get(queue, "a")
    assert found is not None
    assert not found.cancelled


def test_deleted_request_is_not_listed(queue: Redis) -> None:
    put(queue, "a", "b")
    requests.delete(queue, "a", "trace")
    assert requests.get(queue, "a") is None
    assert listed(queue) == ["b"]


def test_many_records_keep_their_order(queue: Redis) -> None:
    records = {f"{n}": Record(trace_of(n), AT, 30, job="j", batch="b") for n in range(2500)}
    requests.put_all(queue, records, 60)
    assert requests.get_all(queue, [*records, "unknown"]) == [*records.values(), None]
    assert listed(queue, count=3) == ["2499", "2498", "2497"]


def test_change_keeps_other_fields_and_the_ttl(queue: Redis) -> None:
    put(queue, "a", "b", request=trace_of(1), ttl=50)
    requests.change(queue, ["a", "unknown"], job="j")
    assert requests.get(queue, "a") == Record(trace_of(1), AT, 30, job="j")
    assert requests.get(queue, "b") == Record(trace_of(1), AT, 30)
    assert requests.get(queue, "unknown") is None
    assert 0 < queue.ttl("request:a") <= 50


@pytest.mark.parametrize(
    "request_",
    [
        trace_of(1, 2),
        replace(trace_of(1), generate=Sampling(3, 0.5, 2, 0.9, 7), capture=("logits", "blocks.0.*"), dtype="float16"),
        LayoutRequest(Config(n_layer=2), 7, 3, "llm-viz"),
        LensRequest(ModelRef(Config(), "synthetic-1-0"), (1, 2)),
    ],
    ids=["trace", "trace with all fields", "layout", "lens"],
)
def test_request_of_any_kind_survives_storage(queue: Redis, request_: Request) -> None:
    put(queue, "a", request=request_)
    found = requests.get(queue, "a")
    assert found is not None
    assert (found.kind, found.request) == (request_.kind, request_)
