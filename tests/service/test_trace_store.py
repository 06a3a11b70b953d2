"""The trace store over HTTP, in a folder and in a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import obstore
import pytest
from flask.testing import FlaskClient
from safetensors.numpy import load

import worker.store.events as events
from service.app import create_app
from service.settings import Settings
from tests.conftest import Servers, running_servers, running_worker
from tests.places import KEYS, Relay, running_bucket_server
from worker.store.archive import Archive
from worker.store.connection import connect

Body = dict[str, Any]
OCTETS = {"Accept": "application/octet-stream"}


@dataclass(frozen=True)
class StoreServers(Servers):
    """Servers with a trace store for all results but very small ones."""

    trace_store: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {"TRACE_STORE": self.trace_store, "TRACE_STORE_ABOVE": "100", "MAX_TRACE_BYTES": "200"}
        return super().environment | own | self.variables

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)


@dataclass
class Deployment:
    """A service with a worker and a trace store; `relay` is between them and a bucket."""

    servers: StoreServers
    client: FlaskClient
    relay: Relay | None

    def compute(self, body: Body) -> Body:
        response = self.client.post("/v1/traces", json=body, headers={"Prefer": "wait=60"})
        assert response.status_code == HTTPStatus.OK, response.text
        trace: Body = response.get_json()
        return trace

    def stored_names(self) -> set[str]:
        archive = Archive(self.servers.trace_store, 1)
        return {entry["path"] for page in archive.store.list() for entry in page}

    def times_started(self, id: str) -> int:
        read = events.read(connect(self.servers.queue_url), id, "0", 0)
        return [event.name for event in read].count("started")

    def flush_cache(self) -> None:
        connect(self.servers.cache_url).flushdb()


@pytest.fixture(scope="module", params=["folder", "bucket"])
def deployment(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("store")
    with running_servers() as redis_servers, pytest.MonkeyPatch.context() as patch:
        store_servers = partial(StoreServers, redis_servers.queue_url, redis_servers.cache_url)
        if request.param == "folder":
            servers = store_servers(trace_store=str(folder))
            with running_worker(servers):
                yield Deployment(servers, create_app(servers.settings).test_client(), None)
            return
        with running_bucket_server() as port:
            relay = Relay(port)
            variables = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}", "AWS_ALLOW_HTTP": "true"}
            for name, value in variables.items():
                patch.setenv(name, value)
            servers = store_servers(trace_store="s3://bucket/traces", variables=variables)
            with running_worker(servers):
                yield Deployment(servers, create_app(servers.settings).test_client(), relay)
            relay.close()


def read_everything(deployment: Deployment, trace: Body) -> list[bytes]:
    """Read a trace in every way that there is."""
    url, get = f"/v1/traces/{trace['id']}", deployment.client.get
    responses = [
        get(f"{url}/tensors/blocks.1.attn.q?slice=0,1", headers=OCTETS),
        get(f"{url}/tensors/logits?slice=0,:,::7", headers=OCTETS),
        get(f"{url}/tensors/blocks.0.mlp.pre?max_cells=6&reduce=absmax"),
        get(f"{url}/safetensors"),
        get(f"{url}/safetensors?tensors=blocks.0.*", headers={"Range": "bytes=200-900"}),
        get(f"{url}/explain?block=blocks.0.attn.heads.1.q&cell=1,2,0"),
        get(f"{url}/lens?top=1", headers={"Prefer": "wait=60"}),
        get(trace["layout"], headers={"Accept": "application/x-safetensors"}),
    ]
    errors = [(each.status_code, each.text[:99]) for each in responses if each.status_code not in (200, 206)]
    assert errors == []
    lens = responses.pop(6).get_json()
    return [*(response.data for response in responses), json.dumps(lens["layers"]).encode()]


def test_results_are_in_the_store_and_read_as_from_the_cache(
    deployment: Deployment, client: FlaskClient, request_body: Body
) -> None:
    trace = deployment.compute(request_body)
    cached = client.post("/v1/traces", json=request_body, headers={"Prefer": "wait=60"}).get_json()
    assert trace["id"] == cached["id"]
    assert trace["tensors"] == cached["tensors"]
    without_store = Deployment(deployment.servers, client, None)
    assert read_everything(deployment, trace) == read_everything(without_store, cached)
    ids = trace["id"], trace["layout"].rpartition("/")[2]
    assert {f"{id}.{kind}" for id in ids for kind in ("json", "safetensors")} <= deployment.stored_names()
    assert connect(deployment.servers.cache_url).keys("result:*") == []


def test_a_stored_result_is_a_safetensors_file_with_its_request_as_metadata(
    deployment: Deployment, request_body: Body
) -> None:
    trace = deployment.compute(request_body)
    archive = Archive(deployment.servers.trace_store, 1)
    content = bytes(obstore.get(archive.store, f"{trace['id']}.safetensors").bytes())
    assert {*load(content)} == {*trace["tensors"]}
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["request"])["tokens"] == request_body["tokens"]


def test_results_lost_from_the_cache_are_read_from_the_store(deployment: Deployment, request_body: Body) -> None:
    trace = deployment.compute(request_body)
    before = read_everything(deployment, trace)
    deployment.flush_cache()
    assert read_everything(deployment, trace) == before
    deployment.flush_cache()
    assert deployment.compute(request_body) == trace
    assert deployment.times_started(trace["id"]) == 1


def test_a_result_is_found_if_only_the_store_has_it(deployment: Deployment, request_body: Body) -> None:
    trace = deployment.compute(request_body)
    before = read_everything(deployment, trace)
    connect(deployment.servers.queue_url).delete(f"request:{trace['id']}", f"rq:job:{trace['id']}")
    deployment.flush_cache()
    assert deployment.client.get(f"/v1/traces/{trace['id']}").get_json() == trace
    assert read_everything(deployment, trace) == before


def test_a_worker_finds_a_stored_result_that_is_submitted_again(deployment: Deployment, request_body: Body) -> None:
    trace = deployment.compute(request_body)
    connect(deployment.servers.queue_url).delete(f"request:{trace['id']}", f"rq:job:{trace['id']}")
    deployment.flush_cache()
    assert deployment.compute(request_body) == trace  # including the times of the first computation


def test_results_of_a_batch_are_stored(deployment: Deployment, request_body: Body) -> None:
    bodies = [request_body | {"tokens": [n, 1, 2]} for n in range(5)]
    batch = deployment.client.post("/v1/batches", json={"requests": bodies}).get_json()
    deployment.client.get(f"/v1/batches/{batch['id']}/events").get_data()  # until the batch has ended
    ids = [trace["id"] for trace in deployment.client.get(f"/v1/batches/{batch['id']}").get_json()["traces"]]
    assert {f"{id}.json" for id in ids} <= deployment.stored_names()
    deployment.flush_cache()
    again = deployment.client.get(f"/v1/batches/{batch['id']}").get_json()
    assert (again["done"], again["total"]) == (5, 5)


def test_deleting_a_trace_deletes_it_from_the_store(deployment: Deployment, request_body: Body) -> None:
    id = deployment.compute(request_body)["id"]
    assert deployment.client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert not [name for name in deployment.stored_names() if name.startswith(id)]
    assert deployment.client.get(f"/v1/traces/{id}").status_code == HTTPStatus.NOT_FOUND
    assert deployment.client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NOT_FOUND


def test_the_store_has_a_size_limit_of_its_own(deployment: Deployment, request_body: Body) -> None:
    settings = Settings.from_environment(deployment.servers.environment | {"MAX_STORED_BYTES": "2000"})
    response = create_app(settings).test_client().post("/v1/traces", json=request_body)
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    [message] = response.get_json()["errors"]["capture"]
    assert "at most 2,000 are allowed (MAX_STORED_BYTES)" in message


def test_reading_is_503_while_the_store_is_unavailable(deployment: Deployment, request_body: Body) -> None:
    trace = deployment.compute(request_body)
    folder, url = Archive(deployment.servers.trace_store, 1).folder, f"/v1/traces/{trace['id']}"
    # Another name for the same store, because open stores are shared within a process.
    broken = deployment.servers.environment | {"TRACE_STORE": str(folder / "gone" if folder else "s3://bucket/traces/")}
    with pytest.MonkeyPatch.context() as patch:
        if folder:
            (folder / "gone").write_text("not a folder")
        else:
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        unavailable = create_app(Settings.from_environment(broken)).test_client()
        read = unavailable.get(f"{url}/safetensors")
        deployment.flush_cache()
        unknown = unavailable.get(url)
    for response in (read, unknown):
        assert (response.status_code, response.content_type) == (503, "application/problem+json")
        assert int(response.headers["Retry-After"]) > 0
        assert "The trace store is unavailable" in response.get_json()["detail"]
    if folder:
        (folder / "gone").unlink()
    assert deployment.client.get(f"{url}/safetensors").status_code == HTTPStatus.OK
    assert deployment.times_started(trace["id"]) == 1


def test_a_trace_that_cannot_be_stored_fails_and_can_be_submitted_again(
    tmp_path: Path, idle_servers: Servers, request_body: Body
) -> None:
    (tmp_path / "store").write_text("not a folder")
    servers = StoreServers(idle_servers.queue_url, idle_servers.cache_url, trace_store=str(tmp_path / "store"))
    client = create_app(servers.settings).test_client()
    with running_worker(servers):
        submit = partial(client.post, "/v1/traces", json=request_body, headers={"Prefer": "wait=60"})
        failed = submit().get_json()
        assert failed["status"] == "failed"
        assert failed["error"]["detail"].startswith("The trace store is unavailable")
        (tmp_path / "store").unlink()
        assert submit().get_json()["status"] == "done"


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/p", "ftp://host/x", "s3:///x", "s3://bucket?x=1", "file://x"])
def test_an_invalid_store_url_is_reported_at_startup_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"TRACE_STORE must be s3://bucket/prefix or a folder") as raised:
        Settings.from_environment({"TRACE_STORE": url})
    assert "secret" not in str(raised.value)
