"""Fixtures with real Redis servers and workers, separate for each test process."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import hypothesis
import psutil
import pytest
from flask import Flask
from flask.testing import FlaskClient

import service.up.redis_server as redis_server
from service.app import create_app
from service.settings import Settings
from tests.serving import served
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES, JobSize

# No deadline: an example's duration depends on the machine.
hypothesis.settings.register_profile("cutaway", deadline=None)
hypothesis.settings.load_profile("cutaway")

gc.disable()  # during collection

Body = dict[str, Any]
_unused = count(1)  # seeds of synthetic weights


def pytest_xdist_auto_num_workers() -> int:
    """Return 1.5 times the number of cores: tests wait a third of their time for the processes they start."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores * 3 // 2


def pytest_xdist_setupnodes() -> None:
    """Have each test process compute on one thread: threads of several processes wait for each other by spinning."""
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")


def pytest_collection_finish() -> None:
    """Exempt loaded modules from garbage collection, which took a quarter of the tests' time."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(5_000)


@dataclass(frozen=True)
class Servers:
    """The two Redis servers of a test process."""

    queue_url: str
    cache_url: str
    models_dir: str = ""  # not the developer's models

    @property
    def environment(self) -> dict[str, str]:
        own = {"QUEUE_URL": self.queue_url, "CACHE_URL": self.cache_url, "MODELS_DIR": self.models_dir}
        own["ALLOWED_HOSTS"] = "a,cutaway"  # the hosts in the bytes of raw requests
        return os.environ | own | {"OPENBLAS_NUM_THREADS": "1"}

    @property
    def settings(self) -> Settings:
        return Settings(queue_url=self.queue_url, cache_url=self.cache_url, models_dir=self.models_dir)


@contextmanager
def running_worker(servers: Servers, *sizes: JobSize) -> Iterator[psutil.Process]:
    """Run a worker for jobs of these sizes, by default all; it is registered with RQ, and killed at the end."""
    started = subprocess.Popen(
        [sys.executable, "-m", "worker", *sizes],
        env=servers.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        queue, process = connect(servers.queue_url), psutil.Process(started.pid)
        deadline = time.monotonic() + 30
        while True:
            registered = {queue.hget(key, "pid") for key in queue.scan_iter("rq:worker:*", _type="hash")}
            ready = [child for child in process.children() if b"%d" % child.pid in registered]
            if len(ready) == len(sizes or JOB_SIZES):
                break
            assert started.poll() is None, "the worker did not start"
            assert time.monotonic() < deadline, "the worker did not register"
            time.sleep(0.02)
        yield process
    finally:
        started.kill()
        started.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def running_api(servers: Servers, processes: int, **variables: str) -> Iterator[str]:
    """Run the API in its own server with this many processes; yield its URL."""
    port = free_port()
    command = [sys.executable, "-m", "service", "api", "--port", str(port), "--processes", str(processes)]
    environment = servers.environment | variables
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 30
            while server.poll() is None:
                with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
                    break
                assert time.monotonic() < deadline, "the API did not start"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def process_of(worker: psutil.Process, size: JobSize) -> psutil.Process:
    """Return a worker's process for jobs of a size; the processes are forked in the order of JOB_SIZES."""
    return worker.children()[JOB_SIZES.index(size)]


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Run a pair of empty Redis servers."""
    with (
        tempfile.TemporaryDirectory(prefix="cutaway-test-") as folder,
        redis_server.start("queue", Path(folder)) as queue,
        redis_server.start("cache", Path(folder), "256mb") as cache,
    ):
        yield Servers(queue.url, cache.url)
        for server in (queue, cache):
            server.process.kill()  # faster than a shutdown, which Redis checks for ten times a second


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Redis servers of this test process."""
    with running_servers() as started:
        yield started


@pytest.fixture(scope="session")
def worker(servers: Servers) -> Iterator[psutil.Process]:
    """A worker process."""
    with running_worker(servers) as process:
        yield process


@pytest.fixture(scope="session")
def app(servers: Servers) -> Flask:
    """The service, without a worker unless a test requests that fixture."""
    return create_app(replace(servers.settings, max_streams=10_000))  # test clients do not close their streams


@pytest.fixture(scope="session")
def client(app: Flask, worker: psutil.Process) -> FlaskClient:
    """A client of the service, with a worker."""
    return app.test_client()


@pytest.fixture(scope="session")
def address(app: Flask, worker: psutil.Process) -> Iterator[str]:
    """The URL of the service over HTTP, with a worker."""
    with served(app) as url:
        yield url


@pytest.fixture
def idle_servers() -> Iterator[Servers]:
    """Redis servers for one test, without a worker unless it starts one: its jobs stay queued."""
    with running_servers() as started:
        yield started


@pytest.fixture
def idle_client(idle_servers: Servers) -> FlaskClient:
    """A client of a service without a worker."""
    return create_app(idle_servers.settings).test_client()


@pytest.fixture
def request_body() -> dict[str, Any]:
    """A request for a small trace, different each time."""
    config = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 64, "vocab_size": 20}
    return {"model": config, "tokens": [3, 1, 4], "weights": {"synthetic": next(_unused)}}


@pytest.fixture
def long_request_body(request_body: dict[str, Any]) -> dict[str, Any]:
    """A request for a trace that takes some seconds and little memory, different each time."""
    config = {"n_layer": 24, "n_head": 2, "n_embd": 128, "n_positions": 512, "vocab_size": 500}
    return request_body | {"model": config, "generate": {"max_new_tokens": 300}, "capture": ["probs"]}


@pytest.fixture
def streamed_request_body(request_body: dict[str, Any]) -> dict[str, Any]:
    """A request for a trace of one pass over 100 layers: 140 MB, some seconds."""
    config = {"n_layer": 100, "n_head": 1, "n_embd": 512, "n_inner": 4096, "n_positions": 64, "vocab_size": 20}
    return request_body | {"model": config, "tokens": [7] * 43, "capture": ["blocks.*.mlp.*"]}


@pytest.fixture(scope="session")
def sorted_letters(client: FlaskClient) -> dict[str, Any]:
    """The finished trace in which nano-gpt sorts CBABBC."""
    body = {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}
    response = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"})
    assert response.status_code == 200
    trace: dict[str, Any] = response.get_json()
    assert trace["status"] == "done"
    return trace
