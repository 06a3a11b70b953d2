"""A large checkpoint that is new blocks no list, no other model and no thread of the API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from flask.testing import FlaskClient

import service.jobs.digests
import worker.store.digests as store
import worker.weights.digests as digests
from service.app import create_app
from service.settings import Settings
from tests.checkpoints import SMALL, values, write, write_sparse
from tests.conftest import Servers
from tests.processes import eventually
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import PRESETS
from worker.store.connection import connect
from worker.store.digests import CheckpointFile, State

HUGE = Config(n_layer=4, n_head=128, n_embd=16384, n_positions=64, vocab_size=100_000)  # 58 GB
TRACE = {"tokens": [1, 2], "capture": ["probs"]}


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder with a small checkpoint and a sparse one of 58 GB."""
    write(tmp_path / "models" / "small", values(SMALL))
    write_sparse(tmp_path / "models" / "huge", HUGE)
    return tmp_path / "models"


@pytest.fixture
def client(idle_servers: Servers, models_dir: Path) -> FlaskClient:
    """A client of an API with these models, without a worker."""
    return create_app(replace(idle_servers, models_dir=str(models_dir)).settings).test_client()


@pytest.fixture
def queue(idle_servers: Servers) -> Any:
    return connect(idle_servers.queue_url)


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    """Have this process compute digests itself again, as other tests expect."""
    yield
    digests.look_elsewhere(lambda path, stamp: None)


def file_of(models_dir: Path) -> CheckpointFile:
    stamp = digests.stamp(models_dir / "huge" / "model.safetensors")
    assert stamp is not None
    return CheckpointFile("huge", "model.safetensors", stamp)


def test_a_list_has_it_as_being_read_with_its_progress(client: FlaskClient, queue: Any, models_dir: Path) -> None:
    for done in (0, 29_000_000_000):
        listed = client.get("/v1/models").get_json()
        assert [model["id"] for model in listed["models"]] == [*PRESETS, "small"]
        assert listed["problems"] == []
        [entry] = listed["reading"]
        size = (models_dir / "huge" / "model.safetensors").stat().st_size
        assert (entry["id"], entry["progress"]) == ("huge", {"done": done, "total": size, "unit": "bytes"})
        assert f"is being read to identify its weights: {done / 1e9:.1f} of 58." in entry["detail"]
        store.put(queue, file_of(models_dir), State(done=29_000_000_000))


@pytest.mark.parametrize("path", ["", "/safetensors?tensors=ln_f.bias", "/llm-viz", "/tensors/ln_f.bias"])
def test_requests_that_need_its_weights_are_503_with_a_time_to_retry(client: FlaskClient, path: str) -> None:
    response = client.get(f"/v1/models/huge{path}")
    if path == "/llm-viz":  # too large for this format
        assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        return
    assert (response.status_code, response.mimetype) == (HTTPStatus.SERVICE_UNAVAILABLE, "application/problem+json")
    assert int(response.headers["Retry-After"]) == 60
    assert "'huge' is being read to identify its weights: 0.0 of 58." in response.get_json()["detail"]


def test_traces_of_it_are_503_and_those_of_others_are_accepted(client: FlaskClient, queue: Any) -> None:
    for url, body in (
        ("/v1/traces", TRACE | {"model": "huge"}),
        ("/v1/batches", {"requests": [TRACE | {"model": "small"}, TRACE | {"model": "huge"}]}),
    ):
        response = client.post(url, json=body)
        assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert "Retry-After" in response.headers
    assert client.get("/v1/traces").get_json()["traces"] == []  # no part of the batch
    assert client.post("/v1/traces", json=TRACE | {"model": "small"}).status_code == HTTPStatus.ACCEPTED


def test_what_does_not_need_its_weights_is_served(client: FlaskClient) -> None:
    assert client.get("/v1/models/huge/tensors").status_code == HTTPStatus.OK
    assert client.get("/v1/models/huge?synthetic=3").get_json()["weights"]["source"] == "synthetic"
    assert client.post("/v1/layouts", json={"model": "huge"}).status_code == HTTPStatus.ACCEPTED


def test_it_is_requested_from_the_workers_once_and_served_when_one_has_read_it(
    client: FlaskClient, queue: Any, models_dir: Path
) -> None:
    for _ in range(3):
        client.get("/v1/models")
    assert store.take(queue, 0.1) == file_of(models_dir)
    assert client.get("/v1/models/huge").status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert store.take(queue, 0.1) is None  # it is being read
    store.put(queue, file_of(models_dir), State(sha256="ab" * 32))
    model = client.get("/v1/models/huge").get_json()
    assert model["weights"]["source"] == "checkpoint"
    queue.flushdb()  # the API remembers it
    assert client.get("/v1/models/huge").get_json() == model
    digests._known.clear()  # and so does the next process
    assert client.get("/v1/models/huge").get_json() == model


def test_a_file_whose_reader_died_is_requested_again(client: FlaskClient, queue: Any, models_dir: Path) -> None:
    client.get("/v1/models")
    assert store.take(queue, 0.1) is not None
    queue.delete(*queue.keys("digest:*"))  # what the time does
    client.get("/v1/models")
    assert store.take(queue, 0.1) == file_of(models_dir)


def test_a_trace_of_another_checkpoint_of_its_sizes_is_listed_meanwhile(
    client: FlaskClient, queue: Any, models_dir: Path
) -> None:
    store.put(queue, file_of(models_dir), State(sha256="ab" * 32))
    id = client.post("/v1/traces", json=TRACE | {"model": "huge"}).get_json()["id"]
    write_sparse(models_dir / "huge", HUGE)  # a new version
    assert client.get(f"/v1/traces/{id}").status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert [trace["id"] for trace in client.get("/v1/traces").get_json()["traces"]] == [id]


def test_without_redis_the_other_models_are_listed(models_dir: Path) -> None:
    nowhere = "unix:///nowhere/redis.sock"
    settings = Settings(queue_url=nowhere, cache_url=nowhere, models_dir=str(models_dir))
    listed = create_app(settings).test_client().get("/v1/models").get_json()
    assert [model["id"] for model in listed["models"]] == [*PRESETS, "small"]
    assert [entry["id"] for entry in listed["reading"]] == ["huge"]


def test_a_file_that_only_the_api_has_is_read_by_one_thread_of_it(
    client: FlaskClient, queue: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    continued, read = Event(), list[Path]()

    def slow(path: Path, as_of: Any, progress: Any) -> str:
        read.append(path)
        assert continued.wait(60)
        return "cd" * 32

    monkeypatch.setattr(digests, "_computed", slow)
    store.put(queue, file_of(models_dir), State(refused="not here"))
    for _ in range(3):
        assert client.get("/v1/models/huge").status_code == HTTPStatus.SERVICE_UNAVAILABLE
    eventually(lambda: read)
    assert client.get("/v1/models/gpt2").status_code == HTTPStatus.OK
    continued.set()
    eventually(lambda: client.get("/v1/models/huge").status_code == HTTPStatus.OK)
    assert read == [models_dir / "huge" / "model.safetensors"]


def test_a_file_that_nobody_can_read_is_a_problem(
    client: FlaskClient, queue: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(digests, "_computed", broken)
    store.put(queue, file_of(models_dir), State(refused="not here"))
    client.get("/v1/models")
    eventually(lambda: service.jobs.digests._refused)
    problems = {problem["id"]: problem["detail"] for problem in client.get("/v1/models").get_json()["problems"]}
    assert "Input/output error" in problems["huge"]
