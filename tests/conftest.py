"""One real Redis pair and one real worker a test process; nothing is shared between processes that run in parallel."""

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
from threading import Thread
from typing import Any
from urllib.request import urlopen

import hypothesis
import psutil
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

import service.up.redis_server as redis_server
from service.app import create_app
from service.settings import Settings
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES, JobSize

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("cutaway", deadline=None)
hypothesis.settings.load_profile("cutaway")

gc.disable()  # until all is collected

Body = dict[str, Any]
_unused = count(1)  # seeds of synthetic weights


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: a third of the tests' time they wait for the processes that they start."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores * 3 // 2


def pytest_collection_finish() -> None:
    """What is loaded stays: looking for garbage among it took a quarter of the tests' time."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(5_000)


@dataclass(frozen=True)
class Servers:
    """The two Redis of a test process."""

    queue_url: str
    cache_url: str
    models_dir: str = ""  # the models of whoever runs the tests are no part of them

    @property
    def environment(self) -> dict[str, str]:
        own = {"QUEUE_URL": self.queue_url, "CACHE_URL": self.cache_url, "MODELS_DIR": self.models_dir}
        return os.environ | own | {"OPENBLAS_NUM_THREADS": "1"}

    @property
    def settings(self) -> Settings:
        return Settings(queue_url=self.queue_url, cache_url=self.cache_url, models_dir=self.models_dir)


@contextmanager
def running_worker(servers: Servers, *sizes: JobSize) -> Iterator[psutil.Process]:
    """A worker, registered and ready to take jobs of some sizes, or all; killed at the end."""
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
    """Where the API's own server answers, in so many processes."""
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
    """A worker's process for jobs of a size: they are forked in this order."""
    return worker.children()[JOB_SIZES.index(size)]


@contextmanager
def running_servers() -> Iterator[Servers]:
    """A pair of Redis with nothing in it."""
    with (
        tempfile.TemporaryDirectory(prefix="cutaway-test-") as folder,
        redis_server.start("queue", Path(folder)) as queue,
        redis_server.start("cache", Path(folder), "256mb") as cache,
    ):
        yield Servers(queue.url, cache.url)
        for server in (queue, cache):
            server.process.kill()  # asked to stop, each looks up from its work ten times a second


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Real Redis, started for this test process alone."""
    with running_servers() as started:
        yield started


@pytest.fixture(scope="session")
def worker(servers: Servers) -> Iterator[psutil.Process]:
    """A real worker process."""
    with running_worker(servers) as process:
        yield process


@pytest.fixture(scope="session")
def app(servers: Servers) -> Flask:
    """The service, against those Redis; no worker unless a test asks for it."""
    return create_app(replace(servers.settings, max_streams=10_000))  # a test's client closes none that it has read


@pytest.fixture(scope="session")
def client(app: Flask, worker: psutil.Process) -> FlaskClient:
    """A client of the service, with a worker behind it."""
    return app.test_client()


@pytest.fixture(scope="session")
def address(app: Flask, worker: psutil.Process) -> Iterator[str]:
    """Where the service can be asked over HTTP, with a worker behind it."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def idle_servers() -> Iterator[Servers]:
    """A pair of Redis for one test, without a worker unless it starts one: what it asks for stays queued."""
    with running_servers() as started:
        yield started


@pytest.fixture
def idle_client(idle_servers: Servers) -> FlaskClient:
    """A client of a service that has no worker."""
    return create_app(idle_servers.settings).test_client()


@pytest.fixture
def request_body() -> dict[str, Any]:
    """A small trace that nobody has asked for before."""
    config = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 64, "vocab_size": 20}
    return {"model": config, "tokens": [3, 1, 4], "weights": {"synthetic": next(_unused)}}


@pytest.fixture
def long_request_body(request_body: dict[str, Any]) -> dict[str, Any]:
    """A trace that takes some seconds and little memory, and that nobody has asked for before."""
    config = {"n_layer": 24, "n_head": 2, "n_embd": 128, "n_positions": 512, "vocab_size": 500}
    return request_body | {"model": config, "generate": {"max_new_tokens": 300}, "capture": ["probs"]}


@pytest.fixture
def streamed_request_body(request_body: dict[str, Any]) -> dict[str, Any]:
    """A trace of one pass over 100 layers, 140 MB of it, that takes some seconds."""
    config = {"n_layer": 100, "n_head": 1, "n_embd": 512, "n_inner": 4096, "n_positions": 64, "vocab_size": 20}
    return request_body | {"model": config, "tokens": [7] * 43, "capture": ["blocks.*.mlp.*"]}


@pytest.fixture(scope="session")
def sorted_letters(client: FlaskClient) -> dict[str, Any]:
    """The finished trace in which nano-gpt sorts CBABBC."""
    body = {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}
    answer = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200
    trace: dict[str, Any] = answer.get_json()
    assert trace["status"] == "done"
    return trace
