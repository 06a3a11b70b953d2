"""The check by which containers are restarted."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil

from tests.conftest import Servers
from worker.rq.monitoring import hosts
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES


def check(environment: dict[str, str], *sizes: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "worker.alive", *sizes]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr


def test_a_host_is_alive_while_it_has_a_worker(servers: Servers, worker: psutil.Process) -> None:
    queue = connect(servers.queue_url)
    for size in JOB_SIZES:
        assert hosts(queue, size) == {socket.gethostname()}
    assert check(servers.environment) == (0, "")


def test_a_host_without_a_worker_says_so(idle_servers: Servers) -> None:
    said = f"no worker of {socket.gethostname()} is registered for small and large jobs\n"
    assert check(idle_servers.environment) == (1, said)
    assert check(idle_servers.environment, "large") == (1, said.replace("small and ", ""))


def test_without_redis_it_says_so(servers: Servers) -> None:
    code, said = check(servers.environment | {"QUEUE_URL": "redis://127.0.0.1:1/0"})
    assert code == 1
    assert said.startswith("the queue's Redis does not answer: ")
