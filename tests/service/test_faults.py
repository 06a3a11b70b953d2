"""Real processes killed with -9: what they computed is done, or has failed with a reason, and is never half there."""

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
    """What is found, once anything is."""
    deadline = time.monotonic() + SECONDS
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def horse(worker: psutil.Process, of: JobSize = "large") -> psutil.Process:
    """The process that computes a job of a size, once there is one."""
    [found] = eventually(process_of(worker, of).children)
    return found


def ask(client: FlaskClient, body: Body) -> str:
    return str(client.post("/v1/traces", json=body).get_json()["id"])


def get(client: FlaskClient, id: str, seconds: int = 0) -> Body:
    answer = client.get(f"/v1/traces/{id}", headers={"Prefer": f"wait={seconds}"})
    assert answer.status_code == HTTPStatus.OK
    trace: Body = answer.get_json()
    return trace


def await_progress(client: FlaskClient, id: str) -> None:
    eventually(lambda: get(client, id)["progress"])


def test_a_trace_whose_process_was_killed_is_tried_again_and_done(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body
) -> None:
    with running_worker(idle_servers) as worker:
        id = ask(idle_client, long_request_body)
        await_progress(idle_client, id)
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
        answer = idle_client.get(f"/v1/traces/{id}/tensors/probs?slice=0,-1,:3")
        assert (answer.status_code, answer.get_json()["shape"]) == (HTTPStatus.OK, [3])


def test_a_trace_whose_process_is_killed_each_time_fails_with_a_reason_and_the_worker_goes_on(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body, request_body: Body
) -> None:
    with running_worker(idle_servers) as worker:
        id, killed = ask(idle_client, long_request_body), set[int]()
        while get(idle_client, id)["status"] in ("queued", "running"):
            for child in process_of(worker, "large").children():
                with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                    child.kill()
                    killed.add(child.pid)
        failed = get(idle_client, id)
        assert failed["status"] == "failed"
        assert len(killed) >= 3  # some were killed before they had a job
        assert failed["error"]["detail"] == (
            "The process that ran the job was killed on every attempt, possibly because it ran out of memory."
        )
        assert connect(idle_servers.cache_url).keys("*") == []
        assert get(idle_client, ask(idle_client, request_body), SECONDS)["status"] == "done"
        ask(idle_client, long_request_body)  # and it can be asked for again
        assert get(idle_client, id, SECONDS)["status"] == "done"


def test_a_trace_whose_process_was_killed_midway_is_tried_again_and_whole(
    idle_client: FlaskClient, idle_servers: Servers, streamed_request_body: Body
) -> None:
    cache = connect(idle_servers.cache_url)
    with running_worker(idle_servers) as worker:
        id = ask(idle_client, streamed_request_body)
        eventually(lambda: cache.dbsize() > 10)
        horse(worker).kill()
        assert get(idle_client, id, SECONDS)["status"] == "done"
        answer = idle_client.get(f"/v1/traces/{id}/tensors/blocks.99.mlp.post?slice=0,-1,-3:")
        assert (answer.status_code, answer.get_json()["shape"]) == (HTTPStatus.OK, [3])
        assert {cache.ttl(key) for key in cache.keys(f"result:{id}*")} == {-1}


def test_a_trace_whose_worker_died_midway_is_cancelled_and_nothing_stays(
    idle_client: FlaskClient, idle_servers: Servers, streamed_request_body: Body
) -> None:
    cache = connect(idle_servers.cache_url)
    with running_worker(idle_servers) as worker:
        id = ask(idle_client, streamed_request_body)
        eventually(lambda: cache.dbsize() > 10)
        orphan = horse(worker)
        worker.kill()
        assert psutil.wait_procs([orphan], timeout=5)[1] == []
    assert idle_client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert cache.keys("*") == []


def test_a_process_that_is_killed_before_it_has_a_job_fails_nothing(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    with running_worker(idle_servers) as worker:
        horse(worker, "small").kill()
        assert get(idle_client, ask(idle_client, request_body), SECONDS)["status"] == "done"
