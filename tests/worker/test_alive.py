"""The health check of a worker."""

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


def test_host_with_a_worker_is_healthy(servers: Servers, worker: psutil.Process) -> None:
    queue = connect(servers.queue_url)
    for size in JOB_SIZES:
        assert hosts(queue, size) == {socket.gethostname()}
    assert check(servers.environment) == (0, "")


def test_host_without_a_worker_is_unhealthy(idle_servers: Servers) -> None:
    message = f"host {socket.gethostname()} has no live worker for small and large jobs\n"
    assert check(idle_servers.environment) == (1, message)
    assert check(idle_servers.environment, "large") == (1, message.replace("small and ", ""))


def test_check_fails_without_redis(servers: Servers) -> None:
    code, message = check(servers.environment | {"QUEUE_URL": "redis://127.0.0.1:1/0"})
    assert code == 1
    assert message.startswith("the Redis server of the queues is unavailable: ")
