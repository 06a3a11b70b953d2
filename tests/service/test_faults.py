"""Killed processes: their requests finish or fail with a reason, and no partial result is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeVar

import psutil
from flask.testing import FlaskClient

from tests.conftest import Servers, process_of, running_worker
from worker.store.connection import connect
from worker.store.queues import JobSize

Body = dict[str, Any]
SECONDS = 60


T = TypeVar("T")


def eventually(find: Callable[[], T]) -> T:
    """Call `find` until its result is true; return that."""
    deadline = time.monotonic() + SECONDS
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def horse(worker: psutil.Process, of: JobSize = "large") -> psutil.Process:
    """The work horse of a worker for a job size, once there is one."""
    [found] = eventually(process_of(worker, of).children)
    return found


def submit(client: FlaskClient, body: Body) -> str:
    return str(client.post("/v1/traces", json=body).get_json()["id"])


def get(client: FlaskClient, id: str, seconds: int = 0) -> Body:
    response = client.get(f"/v1/traces/{id}", headers={"Prefer": f"wait={seconds}"})
    assert response.status_code == HTTPStatus.OK
    trace: Body = response.get_json()
    return trace


def wait_for_progress(client: FlaskClient, id: str) -> None:
    eventually(lambda: get(client, id)["progress"])


def test_a_trace_whose_process_is_killed_is_retried(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body
) -> None:
    with running_worker(idle_servers) as worker:
        id = submit(idle_client, long_request_body)
        wait_for_progress(idle_client, id)
        first = horse(worker)
        first.kill()
        second = eventually(
            lambda: [child for child in process_of(worker, "large").children() if child.pid != first.pid]
        )
        assert len(second) == 1
        assert get(idle_client, id)["status"] in ("queued", "running")
        assert idle_client.get(f"/v1/traces/{id}/tensors/probs").status_code == HTTPStatus.CONFLICT
        done = get(idle_client, id, SECONDS)
        assert done["status"] == "done"
        response = idle_client.get(f"/v1/traces/{id}/tensors/probs?slice=0,-1,:3")
        assert (response.status_code, response.get_json()["shape"]) == (HTTPStatus.OK, [3])


def test_a_trace_whose_process_is_always_killed_fails_and_the_worker_continues(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body, request_body: Body
) -> None:
    with running_worker(idle_servers) as worker:
        id, killed = submit(idle_client, long_request_body), set[int]()
        while get(idle_client, id)["status"] in ("queued", "running"):
            for child in process_of(worker, "large").children():
                with suppress(psutil.NoSuchProcess):  # it has just ended
                    child.kill()
                    killed.add(child.pid)
        failed = get(idle_client, id)
        assert failed["status"] == "failed"
        assert len(killed) >= 3  # some were killed before they had a job
        assert failed["error"]["detail"] == (
            "The process that ran the job was killed on every attempt, possibly because it ran out of memory."
        )
        assert connect(idle_servers.cache_url).keys("*") == []
        assert get(idle_client, submit(idle_client, request_body), SECONDS)["status"] == "done"
        submit(idle_client, long_request_body)  # it can be submitted again
        assert get(idle_client, id, SECONDS)["status"] == "done"


def test_a_result_is_complete_after_its_first_try_was_killed_midway(
    idle_client: FlaskClient, idle_servers: Servers, streamed_request_body: Body
) -> None:
    cache = connect(idle_servers.cache_url)
    with running_worker(idle_servers) as worker:
        id = submit(idle_client, streamed_request_body)
        eventually(lambda: cache.dbsize() > 10)
        horse(worker).kill()
        assert get(idle_client, id, SECONDS)["status"] == "done"
        response = idle_client.get(f"/v1/traces/{id}/tensors/blocks.99.mlp.post?slice=0,-1,-3:")
        assert (response.status_code, response.get_json()["shape"]) == (HTTPStatus.OK, [3])
        assert {cache.ttl(key) for key in cache.keys(f"result:{id}*")} == {-1}


def test_cancelling_a_trace_whose_worker_died_leaves_nothing(
    idle_client: FlaskClient, idle_servers: Servers, streamed_request_body: Body
) -> None:
    cache = connect(idle_servers.cache_url)
    with running_worker(idle_servers) as worker:
        id = submit(idle_client, streamed_request_body)
        eventually(lambda: cache.dbsize() > 10)
        orphan = horse(worker)
        worker.kill()
        assert psutil.wait_procs([orphan], timeout=5)[1] == []
    assert idle_client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert cache.keys("*") == []


def test_killing_an_idle_process_fails_no_request(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    with running_worker(idle_servers) as worker:
        horse(worker, "small").kill()
        assert get(idle_client, submit(idle_client, request_body), SECONDS)["status"] == "done"
