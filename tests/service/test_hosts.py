"""A worker that loses its network connection.

Three network namespaces of this machine stand for hosts: one runs Redis and the API, the others a worker each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

import worker.store.events as events
from service.app import create_app
from service.settings import Settings
from service.up.redis_server import find_binary
from worker.store.connection import connect

IP = shutil.which("ip") or ""
HUB = "10.77.0.1"
SECONDS = 120
WORKER_HOSTS = ("east", "west")
CABLE = ("type", "veth", "peer", "name", "eth0")
PROCESSES = 2  # of a worker; each registers with RQ


@dataclass(frozen=True)
class Hosts:
    """The hosts, which are namespaces whose names begin with `name`, and a client of the API."""

    name: str
    client: FlaskClient
    settings: Settings

    def disconnect(self, host: str) -> None:
        """Disconnect a worker's host from the network. Open connections are not closed: packets are lost."""
        ip("-n", f"{self.name}hub", "link", "set", "dev", host, "down")

    def reconnect(self, host: str) -> None:
        ip("-n", f"{self.name}hub", "link", "set", "dev", host, "up")

    def registered(self, host: str) -> set[str]:
        """Return the RQ names of a host's workers."""
        queue: Any = connect(self.settings.queue_url)
        keys = [key.decode() for key in queue.scan_iter("rq:worker:*", _type="hash")]
        return {key.removeprefix("rq:worker:") for key in keys if queue.hget(key, "hostname") == host.encode()}

    def running(self, id: str) -> list[str]:
        """Return the hosts whose workers are running a job."""
        queue: Any = connect(self.settings.queue_url)
        names = [queue.hget(key, "worker_name").decode() for key in queue.scan_iter(f"rq:execution:{id}:*")]
        return [queue.hget(f"rq:worker:{name}", "hostname").decode() for name in names]


def ip(*arguments: str) -> None:
    process = subprocess.run([IP, *arguments], capture_output=True, text=True, check=False)
    if process.returncode:
        raise OSError(process.stderr)


@contextmanager
def namespaces(name: str) -> Iterator[None]:
    """Create `hub`, with a bridge that connects `east` and `west`. Skips the test if namespaces cannot be created."""
    if not IP:
        pytest.skip("network namespaces need the program `ip`")
    with ExitStack() as stack:
        for host in ("hub", *WORKER_HOSTS):
            try:
                ip("netns", "add", f"{name}{host}")
            except OSError as error:
                pytest.skip(f"network namespaces cannot be created: {error}")
            stack.callback(ip, "netns", "delete", f"{name}{host}")
        ip("-n", f"{name}hub", "link", "add", "name", "bridge", "type", "bridge")
        for n, host in enumerate(WORKER_HOSTS, start=2):
            ip("-n", f"{name}hub", "link", "add", "name", host, *CABLE, "netns", f"{name}{host}")
            ip("-n", f"{name}hub", "link", "set", "dev", host, "master", "bridge", "up")
            ip("-n", f"{name}{host}", "address", "add", f"10.77.0.{n}/24", "dev", "eth0")
            ip("-n", f"{name}{host}", "link", "set", "dev", "eth0", "up")
        ip("-n", f"{name}hub", "address", "add", f"{HUB}/24", "dev", "bridge")
        ip("-n", f"{name}hub", "link", "set", "dev", "bridge", "up")
        yield


@contextmanager
def running(name: str, host: str, *command: str, **environment: str) -> Iterator[None]:
    """Run a command on a host, under the host's name; kill it at the end of the block."""
    inside = [IP, "netns", "exec", name + host, "unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]
    process = subprocess.Popen(
        [*inside, *command], env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """Redis on one host, and a registered worker on each of the others."""
    name, redis = f"cutaway{os.getpid()}", str(find_binary())
    local = {role: f"unix://{tmp_path}/{role}.sock" for role in ("queue", "cache")}
    settings = Settings(queue_url=local["queue"], cache_url=local["cache"], models_dir="")
    with namespaces(name), ExitStack() as stack:
        for port, role in ((6379, "queue"), (6380, "cache")):
            options = [
                "--port",
                str(port),
                "--bind",
                HUB,
                "--protected-mode",
                "no",
                "--save",
                "",
                "--dir",
                str(tmp_path),
            ]
            socket = ["--unixsocket", local[role].removeprefix("unix://")]
            stack.enter_context(running(name, "hub", redis, *options, *socket))
        environment = {"QUEUE_URL": f"redis://{HUB}:6379/0", "CACHE_URL": f"redis://{HUB}:6380/0", "MODELS_DIR": ""}
        for host in WORKER_HOSTS:
            variables = {**environment, "OPENBLAS_NUM_THREADS": "1"}
            stack.enter_context(running(name, host, sys.executable, "-m", "worker", **variables))
        hosts = Hosts(name, create_app(settings).test_client(), settings)
        eventually(lambda: all(len(hosts.registered(host)) == PROCESSES for host in WORKER_HOSTS))
        yield hosts


def eventually(find: Callable[[], Any]) -> Any:
    """Call `find` until its result is true; return that."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if found := find():
                return found
        except OSError:  # a server has not started yet
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def event_names(queue: Redis, id: str) -> list[str]:
    """The names of a request's events, without progress."""
    return [event.name for event in events.read(queue, id, "0", 0) if event.name != "progress"]


def test_the_job_of_a_disconnected_worker_is_taken_over_and_the_worker_recovers(
    hosts: Hosts, long_request_body: dict[str, Any], request_body: dict[str, Any]
) -> None:
    queue, client = connect(hosts.settings.queue_url), hosts.client
    id = client.post("/v1/traces", json=long_request_body).get_json()["id"]
    url = f"/v1/traces/{id}"
    eventually(lambda: client.get(url).get_json()["progress"])
    [host] = hosts.running(id)
    [other] = {*WORKER_HOSTS} - {host}

    hosts.disconnect(host)
    eventually(lambda: client.get(url).get_json()["status"] == "done")
    names = event_names(queue, id)
    assert (names.count("started"), names.count("done")) == (2, 1)
    values = client.get(f"{url}/tensors/probs?slice=0,-1,:3")
    assert (values.status_code, values.get_json()["shape"]) == (HTTPStatus.OK, [3])

    hosts.reconnect(host)
    hosts.disconnect(other)
    time.sleep(0.5)  # until its blocking read ends, to which Redis could still give a job
    for body in (request_body, long_request_body | {"tokens": [1]}):  # of both sizes
        done = client.post("/v1/traces", json=body, headers={"Prefer": "wait=60"}).get_json()
        assert done["status"] == "done"
    assert event_names(queue, id) == names  # the first try published nothing late
    assert client.get(f"{url}/safetensors").status_code == HTTPStatus.OK
