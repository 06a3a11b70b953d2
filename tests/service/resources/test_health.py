"""Health checks: liveness and readiness."""

from __future__ import annotations

import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from shutil import rmtree

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import service.jobs.archive_probe as archive_probe
from service.app import create_app
from service.settings import Settings
from tests.conftest import Servers, running_worker
from tests.places import KEYS, running_bucket_server
from worker.store.connection import connect

NOWHERE = "unix:///nowhere/redis.sock"


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with tempfile.TemporaryDirectory(prefix="ct-") as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(Path(folder) / "silent.sock"))
        server.listen()
        yield f"unix://{folder}/silent.sock"


def ready(settings: Settings) -> TestResponse:
    client = create_app(settings).test_client()
    began = time.monotonic()
    answer = client.get("/readyz")
    assert time.monotonic() - began < 2.5
    return answer


def not_ready(settings: Settings) -> str:
    answer = ready(settings)
    assert (answer.status_code, answer.content_type) == (HTTPStatus.SERVICE_UNAVAILABLE, "application/problem+json")
    assert answer.headers["Retry-After"] == "2"
    return str(answer.get_json()["detail"])


def test_ready_with_both_redis_and_a_worker(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (HTTPStatus.OK, {"status": "ok"})


def test_not_ready_without_a_worker(idle_servers: Servers) -> None:
    assert not_ready(idle_servers.settings) == (
        "Not ready: no worker for small jobs is registered; no worker for large jobs is registered."
    )


def test_ready_once_a_worker_starts(idle_servers: Servers) -> None:
    with running_worker(idle_servers):
        assert ready(idle_servers.settings).status_code == HTTPStatus.OK


@pytest.mark.parametrize(
    ("queue", "cache", "missing"),
    [
        (NOWHERE, None, "the queue's Redis does not answer"),
        (None, NOWHERE, "the cache's Redis does not answer"),
        (NOWHERE, NOWHERE, "the queue's Redis does not answer; the cache's Redis does not answer"),
        ("redis://127.0.0.1:1/0", None, "the queue's Redis does not answer"),
    ],
)
def test_not_ready_without_a_redis_and_names_it(
    servers: Servers, queue: str | None, cache: str | None, missing: str
) -> None:
    settings = Settings(queue_url=queue or servers.queue_url, cache_url=cache or servers.cache_url)
    assert not_ready(settings) == f"Not ready: {missing}."


def test_not_ready_when_the_queue_is_full(idle_servers: Servers) -> None:
    connect(idle_servers.queue_url).config_set("maxmemory", "500kb")
    assert re.fullmatch(
        r"Not ready: the queue's Redis is full: it uses [\d,]+ of 512,000 bytes\.", not_ready(idle_servers.settings)
    )


def test_ready_when_the_cache_is_full(idle_servers: Servers) -> None:
    connect(idle_servers.cache_url).config_set("maxmemory", "500kb")
    with running_worker(idle_servers):
        assert ready(idle_servers.settings).status_code == HTTPStatus.OK


def test_errors_are_reported_by_component(idle_servers: Servers) -> None:
    settings = Settings(queue_url=idle_servers.queue_url, cache_url=NOWHERE)
    assert ready(settings).get_json()["errors"] == {"cache": ["the cache's Redis does not answer"]}
    assert list(ready(idle_servers.settings).get_json()["errors"]) == ["workers"]


def test_a_redis_that_does_not_answer_times_out(servers: Servers, silent_url: str) -> None:
    settings = Settings(queue_url=silent_url, cache_url=servers.cache_url)
    assert not_ready(settings) == "Not ready: the queue's Redis does not answer."


# ------------------------------------------------------------------------------------------------- the trace store


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], str]:
    """Return the URL of a bucket of the server at a port. Tests use different names, as open stores are shared."""

    def choose(port: int, name: str) -> str:
        for variable, value in KEYS.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        return f"s3://{name}"

    return choose


def test_ready_when_a_small_object_can_be_written_to_the_store(
    client: FlaskClient, servers: Servers, tmp_path: Path
) -> None:
    checked = create_app(replace(servers.settings, trace_store=str(tmp_path))).test_client()
    assert [checked.get("/readyz").status_code for _ in range(3)] == [HTTPStatus.OK] * 3
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("check", 1)]


def test_not_ready_while_the_store_is_missing(
    client: FlaskClient, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_probe, "_VALID_SECONDS", 0.0)
    settings = replace(servers.settings, trace_store=str(tmp_path / "store"))
    checked = create_app(settings).test_client()
    assert checked.get("/readyz").status_code == HTTPStatus.OK
    rmtree(tmp_path / "store")
    for _ in range(2):  # the check does not create it
        assert checked.get("/readyz").get_json()["errors"] == {"store": ["the trace store does not exist"]}
    (tmp_path / "store").mkdir()
    assert checked.get("/readyz").status_code == HTTPStatus.OK


def test_not_ready_when_the_store_is_not_writable(client: FlaskClient, servers: Servers, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    settings = replace(servers.settings, trace_store=str(tmp_path / "store"))
    assert not_ready(settings) == "Not ready: the trace store cannot be written to."


def test_a_bucket_is_checked(client: FlaskClient, servers: Servers, bucket: Callable[[int, str], str]) -> None:
    with running_bucket_server() as port:
        assert ready(replace(servers.settings, trace_store=bucket(port, "bucket"))).status_code == HTTPStatus.OK
        missing = replace(servers.settings, trace_store=bucket(port, "nowhere"))
        assert not_ready(missing) == "Not ready: the trace store does not exist."


def test_a_store_and_a_redis_that_hang_time_out(
    client: FlaskClient, servers: Servers, silent_url: str, bucket: Callable[[int, str], str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = replace(servers.settings, trace_store=bucket(silent.getsockname()[1], "silent"))
        message = "the trace store does not answer"
        hanging = create_app(settings).test_client()
        threads = threading.active_count()
        for _ in range(3):
            began = time.monotonic()
            assert hanging.get("/readyz").get_json()["detail"] == f"Not ready: {message}."
            assert time.monotonic() - began < 2
        assert threading.active_count() == threads + 1  # the probe's
        both = replace(settings, cache_url=silent_url)
        assert not_ready(both) == f"Not ready: the cache's Redis does not answer; {message}."


def test_alive_without_redis() -> None:
    client = create_app(Settings(queue_url=NOWHERE, cache_url=NOWHERE)).test_client()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.get_json()) == (HTTPStatus.OK, {"status": "ok"})
