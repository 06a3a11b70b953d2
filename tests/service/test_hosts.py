"""Workers on hosts of their own, of which one is cut off: three hosts of one machine, each a network namespace.

The first has both Redis and the API, the others a worker each; nothing leaves them.
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
FAR = ("east", "west")
CABLE = ("type", "veth", "peer", "name", "eth0")
PROCESSES = 2  # of a worker, each of which registers


@dataclass(frozen=True)
class Hosts:
    """The names of the namespaces, and a way in."""

    name: str
    client: FlaskClient
    settings: Settings

    def cut(self, host: str) -> None:
        """From now on nothing comes from a worker's host, and nothing gets there: nobody is told."""
        ip("-n", f"{self.name}hub", "link", "set", "dev", host, "down")

    def mend(self, host: str) -> None:
        ip("-n", f"{self.name}hub", "link", "set", "dev", host, "up")

    def registered(self, host: str) -> set[str]:
        """The names of a host's workers."""
        queue: Any = connect(self.settings.queue_url)
        keys = [key.decode() for key in queue.scan_iter("rq:worker:*", _type="hash")]
        return {key.removeprefix("rq:worker:") for key in keys if queue.hget(key, "hostname") == host.encode()}

    def computing(self, id: str) -> list[str]:
        """The hosts whose workers run a job."""
        queue: Any = connect(self.settings.queue_url)
        names = [queue.hget(key, "worker_name").decode() for key in queue.scan_iter(f"rq:execution:{id}:*")]
        return [queue.hget(f"rq:worker:{name}", "hostname").decode() for name in names]


def ip(*arguments: str) -> None:
    ran = subprocess.run([IP, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise OSError(ran.stderr)


@contextmanager
def namespaces(name: str) -> Iterator[None]:
    """`hub`, with a bridge to which `east` and `west` are tied by a cable each. Skips where they cannot be made."""
    if not IP:
        pytest.skip("there is no `ip` here, which makes network namespaces")
    with ExitStack() as stack:
        for host in ("hub", *FAR):
            try:
                ip("netns", "add", f"{name}{host}")
            except OSError as error:
                pytest.skip(f"network namespaces cannot be made here: {error}")
            stack.callback(ip, "netns", "delete", f"{name}{host}")
        ip("-n", f"{name}hub", "link", "add", "name", "bridge", "type", "bridge")
        for n, host in enumerate(FAR, start=2):
            ip("-n", f"{name}hub", "link", "add", "name", host, *CABLE, "netns", f"{name}{host}")
            ip("-n", f"{name}hub", "link", "set", "dev", host, "master", "bridge", "up")
            ip("-n", f"{name}{host}", "address", "add", f"10.77.0.{n}/24", "dev", "eth0")
            ip("-n", f"{name}{host}", "link", "set", "dev", "eth0", "up")
        ip("-n", f"{name}hub", "address", "add", f"{HUB}/24", "dev", "bridge")
        ip("-n", f"{name}hub", "link", "set", "dev", "bridge", "up")
        yield


@contextmanager
def running(name: str, host: str, *command: str, **environment: str) -> Iterator[None]:
    """A command on a host, which has a name of its own; killed at the end."""
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
    """Both Redis on one host, a worker that is ready on each of the others."""
    name, redis = f"cutaway{os.getpid()}", str(find_binary())
    local = {role: f"unix://{tmp_path}/{role}.sock" for role in ("queue", "cache")}
    settings = Settings(queue_url=local["queue"], cache_url=local["cache"], models_dir="")
    with namespaces(name), ExitStack() as stack:
        for port, role in ((6379, "queue"), (6380, "cache")):
            served = [
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
            stack.enter_context(running(name, "hub", redis, *served, *socket))
        far = {"QUEUE_URL": f"redis://{HUB}:6379/0", "CACHE_URL": f"redis://{HUB}:6380/0", "MODELS_DIR": ""}
        for host in FAR:
            one = {**far, "OPENBLAS_NUM_THREADS": "1"}
            stack.enter_context(running(name, host, sys.executable, "-m", "worker", **one))
        found = Hosts(name, create_app(settings).test_client(), settings)
        eventually(lambda: all(len(found.registered(host)) == PROCESSES for host in FAR))
        yield found


def eventually(holds: Callable[[], Any]) -> Any:
    """What is found, once anything is."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if found := holds():
                return found
        except OSError:  # a server that has not started
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def turns(queue: Redis, id: str) -> list[str]:
    """What happened to a request, but for its progress."""
    return [event.name for event in events.read(queue, id, "0", 0) if event.name != "progress"]


def test_a_worker_that_is_cut_off_loses_its_job_to_another_and_comes_back_by_itself(
    hosts: Hosts, long_request_body: dict[str, Any], request_body: dict[str, Any]
) -> None:
    queue, client = connect(hosts.settings.queue_url), hosts.client
    id = client.post("/v1/traces", json=long_request_body).get_json()["id"]
    url = f"/v1/traces/{id}"
    eventually(lambda: client.get(url).get_json()["progress"])
    [at] = hosts.computing(id)
    [other] = {*FAR} - {at}

    hosts.cut(at)
    eventually(lambda: client.get(url).get_json()["status"] == "done")
    told = turns(queue, id)
    assert (told.count("started"), told.count("done")) == (2, 1)
    values = client.get(f"{url}/tensors/probs?slice=0,-1,:3")
    assert (values.status_code, values.get_json()["shape"]) == (HTTPStatus.OK, [3])

    hosts.mend(at)
    hosts.cut(other)
    time.sleep(0.5)  # Redis may be about to hand a job to it: it waits so long for the next
    for body in (request_body, long_request_body | {"tokens": [1]}):  # of both sizes
        done = client.post("/v1/traces", json=body, headers={"Prefer": "wait=60"}).get_json()
        assert done["status"] == "done"
    assert turns(queue, id) == told  # nothing late came of the first try
    assert client.get(f"{url}/safetensors").status_code == HTTPStatus.OK
