"""The sign of life that containers are watched by."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil

from tests.conftest import Servers
from worker.alive import alive
from worker.store.connection import connect
from worker.store.queues import LANES


def check(environment: dict[str, str], *lanes: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "worker.alive", *lanes]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr


def test_a_host_is_alive_while_it_has_a_worker(servers: Servers, worker: psutil.Process) -> None:
    queue = connect(servers.queue_url)
    for lane in LANES:
        assert alive(queue, socket.gethostname(), lane)
        assert not alive(queue, "another-host", lane)
    assert check(servers.environment) == (0, "")


def test_a_host_without_a_worker_says_so(idle_servers: Servers) -> None:
    said = f"no worker of {socket.gethostname()} is registered for small and large jobs\n"
    assert check(idle_servers.environment) == (1, said)
    assert check(idle_servers.environment, "large") == (1, said.replace("small and ", ""))


def test_without_redis_it_says_so(servers: Servers) -> None:
    code, said = check(servers.environment | {"QUEUE_URL": "redis://127.0.0.1:1/0"})
    assert code == 1
    assert said.startswith("the queue's Redis does not answer: ")
