"""Health: the process lives, and whether it can work."""

from __future__ import annotations

import re
import socket
import tempfile
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service import create_app
from service.settings import Settings
from tests.conftest import Servers, running_worker
from worker.store.connection import connect

NOWHERE = "unix:///nowhere/redis.sock"


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A server that takes connections and says nothing."""
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


def test_with_both_redis_and_a_worker_it_is_ready(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (HTTPStatus.OK, {"status": "ok"})


def test_without_a_worker_it_is_not(idle_servers: Servers) -> None:
    assert not_ready(idle_servers.settings) == (
        "Not ready: no worker for small jobs is registered; no worker for large jobs is registered."
    )


def test_a_worker_that_comes_makes_it_ready(idle_servers: Servers) -> None:
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
def test_without_a_redis_it_is_not_and_names_which(
    servers: Servers, queue: str | None, cache: str | None, missing: str
) -> None:
    settings = Settings(queue_url=queue or servers.queue_url, cache_url=cache or servers.cache_url)
    assert not_ready(settings) == f"Not ready: {missing}."


def test_a_queue_that_is_full_is_told_with_its_size(idle_servers: Servers) -> None:
    connect(idle_servers.queue_url).config_set("maxmemory", "500kb")
    assert re.fullmatch(
        r"Not ready: the queue's Redis is full: it takes [\d,]+ bytes of 512,000\.", not_ready(idle_servers.settings)
    )


def test_a_cache_that_is_full_makes_room(idle_servers: Servers) -> None:
    connect(idle_servers.cache_url).config_set("maxmemory", "500kb")
    with running_worker(idle_servers):
        assert ready(idle_servers.settings).status_code == HTTPStatus.OK


def test_what_is_missing_is_told_by_part(idle_servers: Servers) -> None:
    settings = Settings(queue_url=idle_servers.queue_url, cache_url=NOWHERE)
    assert ready(settings).get_json()["errors"] == {"cache": ["the cache's Redis does not answer"]}
    assert list(ready(idle_servers.settings).get_json()["errors"]) == ["workers"]


def test_a_redis_that_says_nothing_is_given_up_in_time(servers: Servers, silent_url: str) -> None:
    settings = Settings(queue_url=silent_url, cache_url=servers.cache_url)
    assert not_ready(settings) == "Not ready: the queue's Redis does not answer."


def test_the_process_lives_whatever_is_missing() -> None:
    client = create_app(Settings(queue_url=NOWHERE, cache_url=NOWHERE)).test_client()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.get_json()) == (HTTPStatus.OK, {"status": "ok"})
