"""Recovery of jobs, with workers that run nothing and a clock that the tests set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry

import worker.rq.recovery as recovery
from tests.conftest import Servers
from worker.rq.failures import LOST
from worker.rq.queue import open_queue
from worker.rq.recovery import HEARTBEAT, HEARTBEAT_TTL, RecoveringWorker, checked_key
from worker.store.connection import connect

Clock = Callable[[float], None]


@pytest.fixture
def redis(servers: Servers) -> Iterator[Redis]:
    """A database for these tests only."""
    own = connect(f"{servers.queue_url}?db=6")
    yield own
    own.flushdb()


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return open_queue("tests", redis)


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a function that advances the monotonic clock by some seconds."""
    elapsed = [0.0]
    monkeypatch.setattr(recovery, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + elapsed[0]))

    def advance(seconds: float) -> None:
        elapsed[0] += seconds

    return advance


class Pair:
    """A worker that dies, and a worker that recovers its jobs."""

    def __init__(self, queue: Queue, advance: Clock) -> None:
        self.queue, self.advance, self.redis = queue, advance, queue.connection
        self.dead, self.alive = (RecoveringWorker([queue], connection=self.redis, serializer="json") for _ in range(2))
        for worker in (self.dead, self.alive):
            worker.register_birth()  # type: ignore[no-untyped-call]

    def enqueue(self, id: str = "job", tries: int = 3) -> Job:
        retry = Retry(max=tries - 1, enqueue_at_front=True)
        return self.queue.enqueue("time.time", job_id=id, retry=retry, job_timeout=60)

    def take(self) -> Job:
        """Dequeue a job without starting it."""
        dequeued: Any = Queue.dequeue_any([self.queue], None, self.redis, serializer="json")
        return cast(Job, dequeued[0])

    def start(self) -> Job:
        """Start a job on the worker that dies."""
        job = self.take()
        self.execution = self.dead.prepare_execution(job)
        self.dead.prepare_job_execution(job, remove_from_intermediate_queue=True)
        return job

    def expire(self) -> None:
        """Delete the keys that expire without heartbeats."""
        for key in (*self.redis.keys("rq:execution:*"), self.dead.key):
            self.redis.delete(key)

    def check(self, times: int = 8) -> None:
        for _ in range(times):
            self.advance(HEARTBEAT)
            self.redis.delete(checked_key(self.queue))  # the clock of Redis does not advance
            self.alive.run_maintenance_tasks()

    @property
    def waiting(self) -> list[str]:
        return [str(id) for id in self.queue.get_job_ids()]

    def running(self) -> list[str]:
        return StartedJobRegistry("tests", self.redis, serializer="json").get_job_ids(cleanup=False)


@pytest.fixture
def pair(queue: Queue, advance: Clock) -> Pair:
    return Pair(queue, advance)


def test_job_of_a_dead_worker_is_enqueued_at_the_front(pair: Pair) -> None:
    pair.enqueue("started")
    pair.start()
    pair.enqueue("later")
    pair.expire()
    pair.check()
    assert (pair.waiting, pair.running()) == (["started", "later"], [])
    assert pair.queue.fetch_job("started").retries_left == 1  # type: ignore[union-attr]


def test_job_of_a_live_worker_is_not_recovered_whatever_the_clocks_show(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.enqueue()
    job = pair.start()
    real = time.time
    for jump in (86400, -86400):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        pair.dead.maintain_heartbeats(job, pair.execution)
        pair.check()
        assert (pair.waiting, pair.running()) == ([], ["job"])


def test_job_that_was_dequeued_and_never_started_is_enqueued_again(pair: Pair) -> None:
    pair.enqueue()
    pair.take()
    assert pair.waiting == []
    pair.check()
    assert pair.waiting == ["job"]
    assert pair.queue.intermediate_queue.get_job_ids() == []
    pair.check()
    assert pair.waiting == ["job"]


def test_job_that_was_about_to_start_is_enqueued_again_once(pair: Pair) -> None:
    pair.enqueue()
    pair.execution = pair.dead.prepare_execution(pair.take())
    pair.check()
    assert pair.waiting == []  # it may still start
    pair.expire()
    pair.check()
    assert (pair.waiting, pair.running()) == (["job"], [])
    assert pair.queue.intermediate_queue.get_job_ids() == []


def test_job_that_is_being_dequeued_is_not_recovered(pair: Pair) -> None:
    pair.check()
    pair.enqueue()
    pair.take()
    pair.check(1)
    assert pair.waiting == []


def test_job_fails_after_its_worker_died_on_every_attempt(pair: Pair) -> None:
    pair.enqueue(tries=3)
    for _ in range(3):
        assert pair.waiting == ["job"]
        job = pair.start()
        pair.expire()
        pair.check()
    assert (pair.waiting, pair.running(), job.get_status()) == ([], [], JobStatus.FAILED)
    result = job.latest_result()
    assert result is not None
    assert result.exc_string == LOST


def test_job_that_was_cancelled_or_deleted_before_it_started_is_not_retried(pair: Pair) -> None:
    for id in ("cancelled", "deleted"):
        pair.enqueue(id)
        pair.take()
    pair.queue.fetch_job("cancelled").cancel()  # type: ignore[union-attr]
    pair.redis.delete(Job.key_for("deleted"))
    pair.check()
    assert pair.waiting == []
    assert pair.queue.intermediate_queue.get_job_ids() == []


def test_reconnected_worker_gives_the_others_time_for_a_heartbeat(pair: Pair) -> None:
    pair.enqueue()
    job = pair.start()
    pair.check()
    pair.advance(60)
    pair.expire()  # no worker could send a heartbeat
    pair.check(1)
    pair.dead.maintain_heartbeats(job, pair.execution)
    pair.check()
    assert (pair.waiting, pair.running()) == ([], ["job"])


def test_worker_that_was_removed_as_dead_registers_again(pair: Pair) -> None:
    pair.expire()
    pair.check()
    assert pair.dead.key not in RecoveringWorker.all_keys(queue=pair.queue)
    pair.dead.heartbeat()
    assert pair.dead.key in RecoveringWorker.all_keys(queue=pair.queue)
    [found] = [one for one in RecoveringWorker.all(connection=pair.redis) if one.name == pair.dead.name]
    assert (found.hostname, found.pid) == (pair.dead.hostname, pair.dead.pid)


def test_registration_expires_without_heartbeats(pair: Pair) -> None:
    pair.alive.heartbeat()
    assert 0 < pair.redis.ttl(pair.alive.key) <= HEARTBEAT_TTL


def test_worker_that_is_never_idle_recovers_jobs(pair: Pair, advance: Clock) -> None:
    pair.enqueue("started")
    pair.start()
    pair.expire()
    pair.enqueue("own")
    taken: Any = Queue.dequeue_any([pair.queue], None, pair.redis, serializer="json")
    own = pair.alive.prepare_execution(taken[0])
    for _ in range(8):
        advance(HEARTBEAT)
        pair.redis.delete(checked_key(pair.queue))
        pair.alive.maintain_heartbeats(taken[0], own)
    assert pair.waiting == ["started"]
