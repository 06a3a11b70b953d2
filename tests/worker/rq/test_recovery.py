"""Recovery of the jobs of dead workers, with real Redis, workers that run nothing, and a clock that the tests set."""

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
    """A database of these tests' own."""
    found = connect(f"{servers.queue_url}?db=6")
    yield found
    found.flushdb()


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return open_queue("tests", redis)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Moves the monotonic clock on by some seconds."""
    passed = [0.0]
    monkeypatch.setattr(recovery, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0]))

    def wait(seconds: float) -> None:
        passed[0] += seconds

    return wait


class Pair:
    """A worker that dies, and one that checks."""

    def __init__(self, queue: Queue, passes: Clock) -> None:
        self.queue, self.passes, self.redis = queue, passes, queue.connection
        self.dead, self.alive = (RecoveringWorker([queue], connection=self.redis, serializer="json") for _ in range(2))
        for worker in (self.dead, self.alive):
            worker.register_birth()  # type: ignore[no-untyped-call]

    def ask(self, id: str = "job", tries: int = 3) -> Job:
        retry = Retry(max=tries - 1, enqueue_at_front=True)
        return self.queue.enqueue("time.time", job_id=id, retry=retry, job_timeout=60)

    def take(self) -> Job:
        """Take a job off the queue, and no more."""
        found: Any = Queue.dequeue_any([self.queue], None, self.redis, serializer="json")
        return cast(Job, found[0])

    def begin(self) -> Job:
        """Begin a job."""
        job = self.take()
        self.execution = self.dead.prepare_execution(job)
        self.dead.prepare_job_execution(job, remove_from_intermediate_queue=True)
        return job

    def falls_silent(self) -> None:
        """As Redis is after some seconds without a heartbeat."""
        for key in (*self.redis.keys("rq:execution:*"), self.dead.key):
            self.redis.delete(key)

    def look(self, times: int = 8) -> None:
        for _ in range(times):
            self.passes(HEARTBEAT)
            self.redis.delete(checked_key(self.queue))  # no time passes in Redis
            self.alive.run_maintenance_tasks()

    @property
    def waiting(self) -> list[str]:
        return [str(id) for id in self.queue.get_job_ids()]

    def running(self) -> list[str]:
        return StartedJobRegistry("tests", self.redis, serializer="json").get_job_ids(cleanup=False)


@pytest.fixture
def pair(queue: Queue, passes: Clock) -> Pair:
    return Pair(queue, passes)


def test_a_job_that_a_dead_worker_ran_waits_again_before_all_others(pair: Pair) -> None:
    pair.ask("begun")
    pair.begin()
    pair.ask("later")
    pair.falls_silent()
    pair.look()
    assert (pair.waiting, pair.running()) == (["begun", "later"], [])
    assert pair.queue.fetch_job("begun").retries_left == 1  # type: ignore[union-attr]


def test_a_job_of_a_live_worker_is_left_alone_whatever_the_clocks_say(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.ask()
    job = pair.begin()
    real = time.time
    for jump in (86400, -86400):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        pair.dead.maintain_heartbeats(job, pair.execution)
        pair.look()
        assert (pair.waiting, pair.running()) == ([], ["job"])


def test_a_job_that_was_dequeued_and_never_started_waits_again(pair: Pair) -> None:
    pair.ask()
    pair.take()
    assert pair.waiting == []
    pair.look()
    assert pair.waiting == ["job"]
    assert pair.queue.intermediate_queue.get_job_ids() == []
    pair.look()
    assert pair.waiting == ["job"]


def test_a_job_that_was_about_to_start_when_the_worker_died_waits_again_once(pair: Pair) -> None:
    pair.ask()
    pair.execution = pair.dead.prepare_execution(pair.take())
    pair.look()
    assert pair.waiting == []  # it may still begin
    pair.falls_silent()
    pair.look()
    assert (pair.waiting, pair.running()) == (["job"], [])
    assert pair.queue.intermediate_queue.get_job_ids() == []


def test_a_job_that_is_being_dequeued_is_left_alone(pair: Pair) -> None:
    pair.look()
    pair.ask()
    pair.take()
    pair.look(1)
    assert pair.waiting == []


def test_a_job_whose_worker_dies_each_time_is_given_up_with_a_reason(pair: Pair) -> None:
    pair.ask(tries=3)
    for _ in range(3):
        assert pair.waiting == ["job"]
        job = pair.begin()
        pair.falls_silent()
        pair.look()
    assert (pair.waiting, pair.running(), job.get_status()) == ([], [], JobStatus.FAILED)
    result = job.latest_result()
    assert result is not None
    assert result.exc_string == LOST


def test_a_job_that_was_cancelled_or_deleted_before_it_started_is_not_retried(pair: Pair) -> None:
    for id in ("cancelled", "forgotten"):
        pair.ask(id)
        pair.take()
    pair.queue.fetch_job("cancelled").cancel()  # type: ignore[union-attr]
    pair.redis.delete(Job.key_for("forgotten"))
    pair.look()
    assert pair.waiting == []
    assert pair.queue.intermediate_queue.get_job_ids() == []


def test_a_worker_that_was_cut_off_leaves_the_others_time_for_a_heartbeat(pair: Pair) -> None:
    pair.ask()
    job = pair.begin()
    pair.look()
    pair.passes(60)
    pair.falls_silent()  # no worker could send a heartbeat
    pair.look(1)
    pair.dead.maintain_heartbeats(job, pair.execution)
    pair.look()
    assert (pair.waiting, pair.running()) == ([], ["job"])


def test_a_worker_that_was_removed_as_dead_registers_again(pair: Pair) -> None:
    pair.falls_silent()
    pair.look()
    assert pair.dead.key not in RecoveringWorker.all_keys(queue=pair.queue)
    pair.dead.heartbeat()
    assert pair.dead.key in RecoveringWorker.all_keys(queue=pair.queue)
    [found] = [one for one in RecoveringWorker.all(connection=pair.redis) if one.name == pair.dead.name]
    assert (found.hostname, found.pid) == (pair.dead.hostname, pair.dead.pid)


def test_a_worker_is_registered_no_longer_than_it_sends_heartbeats(pair: Pair) -> None:
    pair.alive.heartbeat()
    assert 0 < pair.redis.ttl(pair.alive.key) <= HEARTBEAT_TTL


def test_a_worker_that_is_never_idle_recovers_jobs_as_well(pair: Pair, passes: Clock) -> None:
    pair.ask("begun")
    pair.begin()
    pair.falls_silent()
    pair.ask("own")
    taken: Any = Queue.dequeue_any([pair.queue], None, pair.redis, serializer="json")
    own = pair.alive.prepare_execution(taken[0])
    for _ in range(8):
        passes(HEARTBEAT)
        pair.redis.delete(checked_key(pair.queue))
        pair.alive.maintain_heartbeats(taken[0], own)
    assert pair.waiting == ["begun"]
