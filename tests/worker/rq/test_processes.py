"""The worker's processes, with a real worker."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
from flask.testing import FlaskClient
from redis import Redis
from rq import Worker

import worker.store.queues as queues
from tests.conftest import Body, Servers, running_worker
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES

SECONDS = 30


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def registered(redis: Redis) -> list[str]:
    """Return the first queue of every live worker."""
    return sorted(worker.queue_names()[0] for worker in Worker.all(connection=redis))


def test_worker_has_a_process_for_each_job_size(idle_servers: Servers) -> None:
    with running_worker(idle_servers) as worker:
        assert len(worker.children()) == len(JOB_SIZES)
        expected = sorted(queues.names_of(size)[0] for size in JOB_SIZES)
        assert registered(connect(idle_servers.queue_url)) == expected


def test_small_traces_finish_while_a_large_one_runs(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body, request_body: Body
) -> None:
    with running_worker(idle_servers):
        long = idle_client.post("/v1/traces", json=long_request_body).get_json()["id"]
        eventually(lambda: idle_client.get(f"/v1/traces/{long}").get_json()["progress"])
        for n in range(5):
            body = request_body | {"tokens": [n]}
            done = idle_client.post("/v1/traces", json=body, headers={"Prefer": "wait=60"}).get_json()
            assert done["status"] == "done"
        assert idle_client.get(f"/v1/traces/{long}").get_json()["status"] == "running"


def test_dead_process_is_replaced_and_the_other_is_not(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    with running_worker(idle_servers) as worker:
        small, large = worker.children()
        small.kill()
        eventually(lambda: {small, large} != {*worker.children()} and len(worker.children()) == 2)
        assert large in worker.children()
        done = idle_client.post("/v1/traces", json=request_body, headers={"Prefer": "wait=60"}).get_json()
        assert done["status"] == "done"


def test_stopped_worker_finishes_its_jobs_first(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body
) -> None:
    with running_worker(idle_servers) as worker:
        body = long_request_body | {"generate": {"max_new_tokens": 60}}
        long = idle_client.post("/v1/traces", json=body).get_json()["id"]
        eventually(lambda: idle_client.get(f"/v1/traces/{long}").get_json()["progress"])
        processes = worker.children(recursive=True)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert psutil.wait_procs(processes, timeout=5)[1] == []
    assert idle_client.get(f"/v1/traces/{long}").get_json()["status"] == "done"


def test_processes_of_a_killed_worker_die(idle_servers: Servers) -> None:
    with running_worker(idle_servers) as worker:
        processes = worker.children(recursive=True)
        worker.kill()
        assert psutil.wait_procs(processes, timeout=SECONDS)[1] == []


def test_worker_can_be_limited_to_one_job_size(idle_servers: Servers) -> None:
    with running_worker(idle_servers, "large") as worker:
        assert len(worker.children()) == 1
        assert registered(connect(idle_servers.queue_url)) == queues.names_of("large")[:1]


def test_unknown_job_size_is_refused() -> None:
    ran = subprocess.run([sys.executable, "-m", "worker", "tiny"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "tiny: the job size must be small or large\n")
