"""Contract tests for the undocumented parts of RQ that Cutaway uses.

A failure shows what a new version of RQ has changed. RQ's minor version is pinned, so that these tests run before a
change reaches a deployment.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from redis import Redis
from rq import Queue, Retry, Worker, worker_registration
from rq.command import handle_command, send_stop_job_command
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.registry import BaseRegistry, StartedJobRegistry

import worker.rq.failures as failures
import worker.rq.jobs as jobs
from tests.conftest import Servers
from worker.rq.queue import PriorityQueue, open_queue
from worker.rq.recovery import RecoveringWorker
from worker.rq.worker import JobWorker
from worker.store.connection import connect

#: The methods that our classes override, with RQ's parameters.
OVERRIDDEN: dict[tuple[type, str], str] = {
    (Worker, "dequeue_job_and_maintain_ttl"): "self timeout max_idle_time",
    (Worker, "fork_work_horse"): "self job queue",
    (Worker, "get_heartbeat_ttl"): "self job working_time",
    (Worker, "handle_job_failure"): "self job queue started_job_registry exc_string execution",
    (Worker, "heartbeat"): "self timeout pipeline",
    (Worker, "maintain_heartbeats"): "self job execution",
    (Worker, "prepare_job_execution"): "self job remove_from_intermediate_queue",
    (Worker, "run_maintenance_tasks"): "self",
    (Worker, "teardown"): "self",
    (Worker, "_pubsub_exception_handler"): "self exc pubsub pubsub_thread",
    (Queue, "dequeue_any"): "queues timeout connection job_class serializer death_penalty_class",
}

#: The undocumented functions that we call, with their parameters.
CALLED: dict[Callable[..., Any], str] = {
    Worker.main_work_horse: "self job queue",
    Worker.kill_horse: "self sig",
    Worker.serialize: "self",
    Worker.all: "connection job_class queue_class queue serializer",
    Worker.all_keys: "connection queue",
    Execution.__init__: "self id job_id connection worker_name",
    StartedJobRegistry.get_job_and_execution_ids: "self start end desc cleanup",
    StartedJobRegistry.remove_execution: "self execution job pipeline delete_job",
    BaseRegistry.get_job_count: "self cleanup",
    IntermediateQueue.get_job_ids: "self",
    IntermediateQueue.remove: "self job_id",
    worker_registration.register: "worker pipeline",
    worker_registration.clean_worker_registry: "queue",
    send_stop_job_command: "connection job_id serializer",
}

#: Attributes of RQ's worker that we read or set, with their initial values.
ATTRIBUTES: dict[str, object] = {
    "_shutdown_requested_date": None,
    "_stopped_job_id": None,
    "_horse_pid": 0,
    "executions": {},
}


@pytest.fixture
def redis(servers: Servers) -> Iterator[Redis]:
    """A database for these tests only."""
    own = connect(f"{servers.queue_url}?db=7")
    yield own
    own.flushdb()


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue("tests", connection=redis, serializer="json")


def parameters(function: Callable[..., Any]) -> str:
    return " ".join(inspect.signature(function).parameters)


# ------------------------------------------------------------------------------------------- versions and names


def test_rq_is_pinned_below_the_next_minor_version() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    major, minor = map(int, version("rq").split(".")[:2])
    assert [it for it in project["project"]["dependencies"] if it.startswith("rq")] == [
        f"rq>={major}.{minor},<{major}.{minor + 1}"
    ]


@pytest.mark.parametrize(("owner", "name"), OVERRIDDEN)
def test_overridden_methods_have_the_known_parameters(owner: type, name: str) -> None:
    assert parameters(getattr(owner, name)) == OVERRIDDEN[owner, name]


@pytest.mark.parametrize("function", CALLED, ids=lambda function: function.__qualname__)
def test_called_functions_have_the_known_parameters(function: Callable[..., Any]) -> None:
    assert parameters(function) == CALLED[function]


@pytest.mark.parametrize("name", ["dequeue_timeout", "should_run_maintenance_tasks"])
def test_overridden_properties_are_properties(name: str) -> None:
    assert isinstance(inspect.getattr_static(Worker, name), property)


def test_our_classes_override_nothing_else(queue: Queue) -> None:
    known = {name for _, name in OVERRIDDEN} | {"dequeue_timeout", "should_run_maintenance_tasks"}
    known |= {"__init__", "__module__", "__doc__", "max_connection_wait_time"}
    for ours, theirs in ((JobWorker, Worker), (RecoveringWorker, Worker), (PriorityQueue, Queue)):
        assert {name for name in vars(ours) if hasattr(theirs, name)} <= known
    plain = Worker([queue], connection=queue.connection)
    own = JobWorker([queue], connection=queue.connection, prepare=int, on_failure=int)  # type: ignore[arg-type]
    assert {*vars(plain)} <= {*vars(own)}
    for name in {*vars(own)} - {*vars(plain)}:
        assert not hasattr(plain, name)


def test_new_worker_has_the_known_attributes(queue: Queue) -> None:
    found = Worker([queue], name="a", connection=queue.connection)
    assert {name: getattr(found, name) for name in ATTRIBUTES} == ATTRIBUTES
    assert (found.key, found.queues, found.max_connection_wait_time) == ("rq:worker:a", [queue], 60.0)
    assert found.job_monitoring_interval > 0
    found.execution = Execution("e", "j", queue.connection, "a")
    assert [*found.executions] == ["e"]


# ------------------------------------------------------------------------------------------------- failures

PROGRAM = """
import sys
from redis import Redis
from rq import Queue, Worker

class Recording(Worker):
    def handle_job_failure(self, job, queue, started_job_registry=None, exc_string="", execution=None):
        print(repr((job.id, exc_string)), flush=True)
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)

redis = Redis.from_url(sys.argv[1])
Recording([Queue("tests", connection=redis, serializer="json")], connection=redis, serializer="json").work(burst=True)
"""


def test_failures_are_recorded_in_the_known_words(queue: Queue, servers: Servers) -> None:
    queue.enqueue("os._exit", 3, job_id="exits")
    queue.enqueue("signal.raise_signal", 9, job_id="killed")
    queue.enqueue("time.sleep", 20, job_id="hangs", job_timeout=1)
    queue.enqueue("int", "x", job_id="raises")
    command = [sys.executable, "-c", PROGRAM, f"{servers.queue_url}?db=7"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = dict(eval(line) for line in ran.stdout.splitlines() if line.startswith("("))  # noqa: S307 - a repr printed by PROGRAM
    assert {id: (failures.cause(text), failures.reason(text)) for id, text in found.items()} == {
        "exits": (failures.Cause.KILLED, failures.KILLED),
        "killed": (failures.Cause.KILLED, failures.KILLED),
        "hangs": (failures.Cause.RAISED, "Task exceeded maximum timeout value (1 seconds)"),
        "raises": (
            failures.Cause.RAISED,
            "invalid literal for int() with base 10: 'x'",
        ),
    }
    result = queue.fetch_job("exits").latest_result()  # type: ignore[union-attr]
    assert result is not None
    assert result.exc_string == found["exits"]
    assert {*jobs.statuses(queue.connection, [*found]).values()} == {"failed"}


def test_stopped_job_is_recorded_before_its_process_is_killed() -> None:
    recorded: list[str] = []
    worker: Any = SimpleNamespace(log=SimpleNamespace(debug=print), get_current_job_id=lambda: "a", _stopped_job_id="")
    worker.kill_horse = lambda: recorded.append(worker._stopped_job_id)
    handle_command(worker, {"command": "stop-job", "job_id": "a"})
    assert recorded == ["a"]


# ----------------------------------------------------------------------------------------------------- jobs


def test_our_statuses_are_statuses_of_rq() -> None:
    assert {*get_args(jobs.Status)} <= {status.value for status in JobStatus}


def test_second_unique_job_with_an_id_is_refused(queue: Queue) -> None:
    queue.enqueue("time.time", job_id="a", unique=True)
    with pytest.raises(DuplicateJobError):
        queue.enqueue("time.time", job_id="a", unique=True)


def test_deleted_job_raises_the_known_exceptions(queue: Queue) -> None:
    job = queue.enqueue("time.time", job_id="a")
    Job.fetch("a", connection=queue.connection, serializer="json").delete()
    with pytest.raises(InvalidJobOperation):
        job.get_status()
    with pytest.raises(NoSuchJobError):
        Job.fetch("a", connection=queue.connection, serializer="json")
    with pytest.raises(NoSuchJobError):
        send_stop_job_command(queue.connection, "a", serializer="json")


def test_waiting_job_cannot_be_stopped(queue: Queue) -> None:
    queue.enqueue("time.time", job_id="a")
    with pytest.raises(InvalidJobOperation):
        send_stop_job_command(queue.connection, "a", serializer="json")


def test_job_without_retries_left_is_not_retried(queue: Queue) -> None:
    job = queue.enqueue("time.time", retry=Retry(max=2))
    assert job.should_retry
    job.retries_left = 0
    assert not job.should_retry


# ------------------------------------------------------------------------------------------------------ keys


def test_redis_has_the_known_keys_and_fields(redis: Any, queue: Queue) -> None:
    redis.flushdb()
    queue.enqueue("time.time", job_id="a")
    assert redis.lrange("rq:queue:tests", 0, -1) == [b"a"]
    assert redis.hmget("rq:job:a", "status", "origin") == [b"queued", b"tests"]
    worker = Worker([queue], name="w", connection=redis, serializer="json")
    worker.register_birth()  # type: ignore[no-untyped-call]
    job, _ = PriorityQueue.dequeue_any([queue], None, redis, serializer="json") or (None, None)
    assert job is not None
    assert redis.lrange("rq:queue:tests:intermediate", 0, -1) == [b"a"]
    execution = worker.prepare_execution(job)
    worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
    assert redis.exists("rq:queue:tests:intermediate") == 0
    assert redis.zrange("rq:wip:tests", 0, -1) == [f"a:{execution.id}".encode()]
    assert (job.started_job_registry.key, execution.composite_key) == ("rq:wip:tests", f"a:{execution.id}")
    assert execution.key == f"rq:execution:a:{execution.id}"
    assert redis.hget(execution.key, "worker_name") == b"w"
    assert redis.hget("rq:job:a", "status") == b"started"
    state, pid, host = redis.hmget("rq:worker:w", "state", "pid", "hostname")
    assert (state, int(pid), host.decode()) == (b"busy", worker.pid, worker.hostname)
    assert redis.smembers("rq:workers:tests") == {b"rq:worker:w"}


def test_queue_without_jobs_lists_its_workers(redis: Redis, queue: Queue) -> None:
    found = Worker([queue], name="w", connection=redis)
    found.register_birth()  # type: ignore[no-untyped-call]
    assert Worker.all_keys(queue=open_queue("tests", redis)) == ["rq:worker:w"]
    assert Worker.all_keys(queue=open_queue("other", redis)) == []
