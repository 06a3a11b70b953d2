"""Batches that are cancelled and deleted."""

from __future__ import annotations

import time
from http import HTTPStatus

from flask.testing import FlaskClient

from tests.conftest import Servers, running_worker
from tests.service.http.test_event_stream import parse
from tests.service.resources.test_batches import Body, create, ended, eventually, get, several, statuses, times_started
from worker.store.connection import connect


def test_cancelling_a_batch_leaves_finished_traces_and_those_of_other_requests(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    requests = several(request_body, 5)
    with running_worker(idle_servers):
        done = idle_client.post("/v1/traces", json=requests[0], headers={"Prefer": "wait=30"})
        assert done.status_code == HTTPStatus.OK
    idle_client.post("/v1/traces", json=requests[1])  # before
    batch = create(idle_client, requests)
    idle_client.post("/v1/traces", json=requests[2])  # after
    other = create(idle_client, requests[3:4])
    assert idle_client.delete(f"/v1/batches/{batch['id']}").status_code == HTTPStatus.NO_CONTENT
    expected = ["done", "queued", "queued", "queued", "cancelled"]
    assert statuses(get(idle_client, batch["id"])) == expected
    assert statuses(get(idle_client, other["id"])) == ["queued"]
    received = parse(idle_client.get(f"/v1/traces/{batch['traces'][4]['id']}/events").text)
    assert received[-1].name == "cancelled"
    with running_worker(idle_servers):
        assert statuses(ended(idle_client, batch["id"])) == ["done"] * 4 + ["cancelled"]
    assert times_started(idle_servers, batch["traces"][4]["id"]) == 0


def test_cancelling_a_batch_stops_its_running_traces(
    client: FlaskClient, servers: Servers, long_request_body: Body, request_body: Body
) -> None:
    batch = create(client, [long_request_body | {"tokens": [n]} for n in range(3)])
    eventually(lambda: get(client, batch["id"])["running"])
    began = time.monotonic()
    client.delete(f"/v1/batches/{batch['id']}")
    assert statuses(get(client, batch["id"])) == ["cancelled"] * 3
    assert client.post("/v1/traces", json=request_body, headers={"Prefer": "wait=30"}).get_json()["status"] == "done"
    assert time.monotonic() - began < 8
    assert connect(servers.cache_url).keys(f"result:{batch['traces'][0]['id']}*") == []


def test_a_finished_batch_is_deleted_and_its_traces_stay(client: FlaskClient, request_body: Body) -> None:
    batch = ended(client, create(client, several(request_body, 2))["id"])
    assert client.delete(f"/v1/batches/{batch['id']}").status_code == HTTPStatus.NO_CONTENT
    assert client.get(f"/v1/batches/{batch['id']}").status_code == HTTPStatus.NOT_FOUND
    assert client.get(f"/v1/traces/{batch['traces'][0]['id']}").get_json()["status"] == "done"
