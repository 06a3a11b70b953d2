"""With a trace store, what is too large for the cache is kept, read, never computed twice, and removed: the same over
HTTP whether the store is a folder or a bucket.
"""

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
class Keeping(Servers):
    """Servers beside which there is a trace store: all results go there but the very small."""

    trace_store: str = ""
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {"TRACE_STORE": self.trace_store, "TRACE_STORE_ABOVE": "100", "MAX_TRACE_BYTES": "200"}
        return super().environment | own | self.more

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)


@dataclass
class Place:
    """A service with a worker and a trace store."""

    servers: Keeping
    client: FlaskClient
    relay: Relay | None

    def ask(self, body: Body) -> Body:
        answer = self.client.post("/v1/traces", json=body, headers={"Prefer": "wait=60"})
        assert answer.status_code == HTTPStatus.OK, answer.text
        trace: Body = answer.get_json()
        return trace

    def names(self) -> set[str]:
        archive = Archive(self.servers.trace_store, 1)
        return {entry["path"] for page in archive.store.list() for entry in page}

    def times_begun(self, id: str) -> int:
        found = events.read(connect(self.servers.queue_url), id, "0", 0)
        return [event.name for event in found].count("started")

    def lose_the_cache(self) -> None:
        connect(self.servers.cache_url).flushdb()


@pytest.fixture(scope="module", params=["folder", "bucket"])
def place(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("store")
    with running_servers() as servers, pytest.MonkeyPatch.context() as patch:
        own = partial(Keeping, servers.queue_url, servers.cache_url)
        if request.param == "folder":
            keeping = own(trace_store=str(folder))
            with running_worker(keeping):
                yield Place(keeping, create_app(keeping.settings).test_client(), None)
            return
        with running_bucket_server() as port:
            relay = Relay(port)
            more = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}", "AWS_ALLOW_HTTP": "true"}
            for name, value in more.items():
                patch.setenv(name, value)
            keeping = own(trace_store="s3://bucket/traces", more=more)
            with running_worker(keeping):
                yield Place(keeping, create_app(keeping.settings).test_client(), relay)
            relay.close()


def answers(place: Place, trace: Body) -> list[bytes]:
    """What is read of a trace in the ways that there are."""
    url, get = f"/v1/traces/{trace['id']}", place.client.get
    asked = [
        get(f"{url}/tensors/blocks.1.attn.q?slice=0,1", headers=OCTETS),
        get(f"{url}/tensors/logits?slice=0,:,::7", headers=OCTETS),
        get(f"{url}/tensors/blocks.0.mlp.pre?max_cells=6&reduce=absmax"),
        get(f"{url}/safetensors"),
        get(f"{url}/safetensors?tensors=blocks.0.*", headers={"Range": "bytes=200-900"}),
        get(f"{url}/explain?block=blocks.0.attn.heads.1.q&cell=1,2,0"),
        get(f"{url}/lens?top=1", headers={"Prefer": "wait=60"}),
        get(trace["layout"], headers={"Accept": "application/x-safetensors"}),
    ]
    told = [(answer.status_code, answer.text[:99]) for answer in asked if answer.status_code not in (200, 206)]
    assert told == []
    lens = asked[6].get_json()
    asked_for = [answer.data for answer in asked[:6] + asked[7:]]
    return [*asked_for, json.dumps(lens["layers"]).encode()]


def test_it_is_read_as_from_the_cache_and_lies_in_the_store(
    place: Place, client: FlaskClient, request_body: Body
) -> None:
    trace = place.ask(request_body)
    alike = client.post("/v1/traces", json=request_body, headers={"Prefer": "wait=60"}).get_json()
    assert trace["id"] == alike["id"]
    assert trace["tensors"] == alike["tensors"]
    usual = Place(place.servers, client, None)
    assert answers(place, trace) == answers(usual, alike)
    picture = trace["layout"].rpartition("/")[2]
    assert {f"{id}.{kind}" for id in (trace["id"], picture) for kind in ("json", "safetensors")} <= place.names()
    assert connect(place.servers.cache_url).keys("result:*") == []


def test_what_lies_in_the_store_is_the_public_format_and_says_of_what_it_is(place: Place, request_body: Body) -> None:
    trace = place.ask(request_body)
    archive = Archive(place.servers.trace_store, 1)
    content = bytes(obstore.get(archive.store, f"{trace['id']}.safetensors").bytes())
    assert {*load(content)} == {*trace["tensors"]}
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["request"])["tokens"] == request_body["tokens"]


def test_what_the_cache_lost_is_read_from_the_store_and_not_computed_again(place: Place, request_body: Body) -> None:
    trace = place.ask(request_body)
    before = answers(place, trace)
    place.lose_the_cache()
    assert answers(place, trace) == before
    place.lose_the_cache()
    assert place.ask(request_body) == trace
    assert place.times_begun(trace["id"]) == 1


def test_what_all_but_the_store_forgot_is_still_there(place: Place, request_body: Body) -> None:
    trace = place.ask(request_body)
    before = answers(place, trace)
    connect(place.servers.queue_url).delete(f"request:{trace['id']}", f"rq:job:{trace['id']}")
    place.lose_the_cache()
    assert place.client.get(f"/v1/traces/{trace['id']}").get_json() == trace
    assert answers(place, trace) == before


def test_asked_for_again_it_is_found_by_the_worker(place: Place, request_body: Body) -> None:
    trace = place.ask(request_body)
    connect(place.servers.queue_url).delete(f"request:{trace['id']}", f"rq:job:{trace['id']}")
    place.lose_the_cache()
    assert place.ask(request_body) == trace  # the times of the first


def test_many_at_once_lie_there_too(place: Place, request_body: Body) -> None:
    wanted = [request_body | {"tokens": [n, 1, 2]} for n in range(5)]
    batch = place.client.post("/v1/batches", json={"requests": wanted}).get_json()
    place.client.get(f"/v1/batches/{batch['id']}/events").get_data()  # to their end
    ids = [one["id"] for one in place.client.get(f"/v1/batches/{batch['id']}").get_json()["traces"]]
    assert {f"{id}.json" for id in ids} <= place.names()
    place.lose_the_cache()
    again = place.client.get(f"/v1/batches/{batch['id']}").get_json()
    assert (again["done"], again["total"]) == (5, 5)


def test_deleted_it_is_nowhere(place: Place, request_body: Body) -> None:
    id = place.ask(request_body)["id"]
    assert place.client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert not [name for name in place.names() if name.startswith(id)]
    assert place.client.get(f"/v1/traces/{id}").status_code == HTTPStatus.NOT_FOUND
    assert place.client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NOT_FOUND


def test_the_store_has_a_bound_of_its_own(place: Place, request_body: Body) -> None:
    settings = Settings.from_environment(place.servers.environment | {"MAX_STORED_BYTES": "2000"})
    answer = create_app(settings).test_client().post("/v1/traces", json=request_body)
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    [said] = answer.get_json()["errors"]["capture"]
    assert "at most 2,000 are allowed here (MAX_STORED_BYTES)" in said


def test_while_the_store_is_away_reading_is_503_and_it_goes_on_afterwards(place: Place, request_body: Body) -> None:
    trace = place.ask(request_body)
    folder, url = Archive(place.servers.trace_store, 1).folder, f"/v1/traces/{trace['id']}"
    # The same place by another name, as what is open is shared.
    broken = place.servers.environment | {"TRACE_STORE": str(folder / "gone" if folder else "s3://bucket/traces/")}
    with pytest.MonkeyPatch.context() as patch:
        if folder:
            (folder / "gone").write_text("no folder")
        else:
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        away = create_app(Settings.from_environment(broken)).test_client()
        read = away.get(f"{url}/safetensors")
        place.lose_the_cache()
        unknown = away.get(url)
    for answer in (read, unknown):
        assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        assert "The trace store is unavailable" in answer.get_json()["detail"]
    if folder:
        (folder / "gone").unlink()
    assert place.client.get(f"{url}/safetensors").status_code == HTTPStatus.OK
    assert place.times_begun(trace["id"]) == 1


def test_what_cannot_be_stored_fails_with_the_reason_and_can_be_asked_for_again(
    tmp_path: Path, idle_servers: Servers, request_body: Body
) -> None:
    (tmp_path / "store").write_text("no folder")
    keeping = Keeping(idle_servers.queue_url, idle_servers.cache_url, trace_store=str(tmp_path / "store"))
    client = create_app(keeping.settings).test_client()
    with running_worker(keeping):
        asked = partial(client.post, "/v1/traces", json=request_body, headers={"Prefer": "wait=60"})
        failed = asked().get_json()
        assert failed["status"] == "failed"
        assert failed["error"]["detail"].startswith("The trace store is unavailable")
        (tmp_path / "store").unlink()
        assert asked().get_json()["status"] == "done"


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/p", "ftp://host/x", "s3:///x", "s3://bucket?x=1", "file://x"])
def test_what_is_no_store_is_said_when_it_starts_and_no_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"TRACE_STORE must be s3://bucket/prefix or a folder") as raised:
        Settings.from_environment({"TRACE_STORE": url})
    assert "secret" not in str(raised.value)
