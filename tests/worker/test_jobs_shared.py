"""Small requests that share a job: each ends as if it had one of its own."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
import redis.exceptions

import worker.jobs as jobs
import worker.rq.failures as failures
import worker.store.pieces as pieces
import worker.store.requests as requests
import worker.store.shared_jobs as shared_jobs
from tests.worker.conftest import AT, Store, trace_request
from worker.compute import COMPUTE
from worker.requests import TraceRequest
from worker.rq.jobs import TRIES
from worker.store.keys import request_id


class Shared:
    """Small requests that share a job."""

    def __init__(self, store: Store, wanted: list[TraceRequest], timeout: int = 30) -> None:
        self.store = store
        self.ids = [request_id(request) for request in wanted]
        records = {
            id: requests.Record(request, AT, timeout, job="j") for id, request in zip(self.ids, wanted, strict=True)
        }
        requests.put_all(store.queue, records, 60)

    def run(self) -> list[bool]:
        """Run the job; which of them are done then."""
        jobs.run_together("j", self.ids)
        done = pieces.which_done(self.store.cache, self.ids)
        return [id in done for id in self.ids]

    @property
    def failures(self) -> dict[int, str]:
        """The reasons by the places of those that failed."""
        found = shared_jobs.get_all(self.store.queue, ["j"])["j"].failures
        return {self.ids.index(id): failure.reason for id, failure in found.items()}


def some_requests(count: int) -> list[TraceRequest]:
    return [trace_request(tokens=[n % 3, 1]) for n in range(count)]


def test_requests_that_share_a_job_have_the_results_and_the_events_of_jobs_of_their_own(store: Store) -> None:
    wanted = some_requests(3)
    found = Shared(store, wanted)
    assert found.run() == [True] * 3
    manifests = [pieces.manifest(store.cache, id) for id in found.ids]
    assert [manifest["request"] for manifest in manifests] == [request.to_json() for request in wanted]
    assert [store.events(id) for id in found.ids] == [["started", "done"]] * 3
    together = [
        pieces.read(store.cache, id, 0, manifest["size"]) for id, manifest in zip(found.ids, manifests, strict=True)
    ]
    store.cache.flushdb()
    for request, content in zip(wanted, together, strict=True):
        id, manifest = store.run(request)
        assert pieces.read(store.cache, id, 0, manifest["size"]) == content


def test_one_that_raises_fails_alone_and_is_not_tried_again(store: Store) -> None:
    wanted = some_requests(3)
    wanted[1] = replace(wanted[1], model=replace(wanted[1].model, weights="0" * 64))
    found = Shared(store, wanted)
    for _ in range(2):  # as when the process was killed later
        assert found.run() == [True, False, True]
    assert list(found.failures) == [1]
    assert "are not here any more" in found.failures[1]
    assert store.events(found.ids[1]) == ["started", "failed"]
    assert store.told(found.ids[1], b"failed") == [json.dumps({"reason": found.failures[1]}).encode()]


def test_one_that_hangs_is_ended_after_its_own_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = COMPUTE["trace"]

    def hangs(request: TraceRequest, *rest: Any) -> Any:
        if request.tokens == (1, 1):
            time.sleep(20)
        return compute(request, *rest)

    monkeypatch.setitem(COMPUTE, "trace", hangs)
    found = Shared(store, some_requests(3), timeout=1)
    before = time.monotonic()
    assert found.run() == [True, False, True]
    assert time.monotonic() - before < 10
    assert found.failures == {1: "Task exceeded maximum timeout value (1 seconds)"}


def test_one_that_is_cancelled_or_another_jobs_by_now_is_passed_over(store: Store) -> None:
    found = Shared(store, some_requests(3))
    requests.change(store.queue, found.ids[:1], cancelled=True)
    requests.change(store.queue, found.ids[1:2], job=None)
    assert found.run() == [False, False, True]
    assert [store.events(id) for id in found.ids[:2]] == [[], []]


def test_one_that_is_cancelled_while_it_is_computed_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, compute = Shared(store, some_requests(2)), COMPUTE["trace"]

    def cancelled(*given: Any) -> Any:
        requests.cancel(store.queue, found.ids[0])
        return compute(*given)

    monkeypatch.setitem(COMPUTE, "trace", cancelled)
    assert found.run() == [False, True]
    assert store.cache.keys(f"result:{found.ids[0]}*") == []
    assert store.events(found.ids[0]) == ["started"]


def test_one_whose_process_is_killed_each_time_is_given_up_and_the_others_are_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = COMPUTE["trace"]

    def killed(request: TraceRequest, *rest: Any) -> Any:
        if request.tokens == (1, 1):
            raise KeyboardInterrupt
        return compute(request, *rest)

    monkeypatch.setitem(COMPUTE, "trace", killed)
    found = Shared(store, some_requests(3))
    for _ in range(TRIES):
        with pytest.raises(KeyboardInterrupt):
            found.run()
    assert found.run() == [True, False, True]
    assert found.failures == {1: failures.KILLED}


def test_when_the_store_is_away_no_request_is_blamed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise redis.exceptions.ConnectionError

    monkeypatch.setattr(pieces.CacheWriter, "finish", away)
    found = Shared(store, some_requests(2))
    with pytest.raises(redis.exceptions.ConnectionError):
        found.run()
    assert found.failures == {}
