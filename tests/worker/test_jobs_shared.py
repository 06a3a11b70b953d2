"""Jobs that several small requests share."""

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
    """Stored requests that share a job."""

    def __init__(self, store: Store, wanted: list[TraceRequest], timeout: int = 30) -> None:
        self.store = store
        self.ids = [request_id(request) for request in wanted]
        records = {
            id: requests.Record(request, AT, timeout, job="j") for id, request in zip(self.ids, wanted, strict=True)
        }
        requests.put_all(store.queue, records, 60)

    def run(self) -> list[bool]:
        """Run the job; return which requests are done."""
        jobs.run_together("j", self.ids)
        done = pieces.which_done(self.store.cache, self.ids)
        return [id in done for id in self.ids]

    @property
    def failures(self) -> dict[int, str]:
        """The reasons of failed requests, by their index."""
        failed = shared_jobs.get_all(self.store.queue, ["j"])["j"].failures
        return {self.ids.index(id): failure.reason for id, failure in failed.items()}


def some_requests(count: int) -> list[TraceRequest]:
    return [trace_request(tokens=[n % 3, 1]) for n in range(count)]


def test_shared_job_gives_the_same_results_and_events_as_separate_jobs(store: Store) -> None:
    wanted = some_requests(3)
    job = Shared(store, wanted)
    assert job.run() == [True] * 3
    manifests = [pieces.manifest(store.cache, id) for id in job.ids]
    assert [manifest["request"] for manifest in manifests] == [request.to_json() for request in wanted]
    assert [store.events(id) for id in job.ids] == [["started", "done"]] * 3
    shared = [
        pieces.read(store.cache, id, 0, manifest["size"]) for id, manifest in zip(job.ids, manifests, strict=True)
    ]
    store.cache.flushdb()
    for request, content in zip(wanted, shared, strict=True):
        id, manifest = store.run(request)
        assert pieces.read(store.cache, id, 0, manifest["size"]) == content


def test_request_that_raises_fails_alone_and_is_not_retried(store: Store) -> None:
    wanted = some_requests(3)
    wanted[1] = replace(wanted[1], model=replace(wanted[1].model, weights="0" * 64))
    job = Shared(store, wanted)
    for _ in range(2):  # a retry, as if the process was killed later
        assert job.run() == [True, False, True]
    assert list(job.failures) == [1]
    assert "no longer exist" in job.failures[1]
    assert store.events(job.ids[1]) == ["started", "failed"]
    assert store.event_data(job.ids[1], b"failed") == [json.dumps({"reason": job.failures[1]}).encode()]


def test_request_that_hangs_fails_after_its_own_timeout(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = COMPUTE["trace"]

    def hangs(request: TraceRequest, *rest: Any) -> Any:
        if request.tokens == (1, 1):
            time.sleep(20)
        return compute(request, *rest)

    monkeypatch.setitem(COMPUTE, "trace", hangs)
    job = Shared(store, some_requests(3), timeout=1)
    before = time.monotonic()
    assert job.run() == [True, False, True]
    assert time.monotonic() - before < 10
    assert job.failures == {1: "Task exceeded maximum timeout value (1 seconds)"}


def test_request_that_was_cancelled_or_moved_is_skipped(store: Store) -> None:
    job = Shared(store, some_requests(3))
    requests.change(store.queue, job.ids[:1], cancelled=True)
    requests.change(store.queue, job.ids[1:2], job=None)
    assert job.run() == [False, False, True]
    assert [store.events(id) for id in job.ids[:2]] == [[], []]


def test_request_that_is_cancelled_while_it_runs_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job, compute = Shared(store, some_requests(2)), COMPUTE["trace"]

    def cancelled(*given: Any) -> Any:
        requests.cancel(store.queue, job.ids[0])
        return compute(*given)

    monkeypatch.setitem(COMPUTE, "trace", cancelled)
    assert job.run() == [False, True]
    assert store.cache.keys(f"result:{job.ids[0]}*") == []
    assert store.events(job.ids[0]) == ["started"]


def test_request_whose_process_is_killed_on_every_attempt_fails_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = COMPUTE["trace"]

    def killed(request: TraceRequest, *rest: Any) -> Any:
        if request.tokens == (1, 1):
            raise KeyboardInterrupt
        return compute(request, *rest)

    monkeypatch.setitem(COMPUTE, "trace", killed)
    job = Shared(store, some_requests(3))
    for _ in range(TRIES):
        with pytest.raises(KeyboardInterrupt):
            job.run()
    assert job.run() == [True, False, True]
    assert job.failures == {1: failures.KILLED}


def test_no_request_fails_when_redis_is_unavailable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> None:
        raise redis.exceptions.ConnectionError

    monkeypatch.setattr(pieces.CacheWriter, "finish", unavailable)
    job = Shared(store, some_requests(2))
    with pytest.raises(redis.exceptions.ConnectionError):
        job.run()
    assert job.failures == {}
