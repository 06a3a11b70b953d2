"""Traces that are cancelled, deleted, or lost and recomputed."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

import pytest
from flask.testing import FlaskClient
from redis import Redis

from tests.conftest import Servers, running_worker
from tests.service.resources.test_traces import (
    OCTETS,
    WAIT,
    Body,
    create,
    create_and_wait,
    eventually,
    get,
    status,
    times_started,
)
from worker.rq.queue import fetch
from worker.rq.removal import wait_until_ended
from worker.store.connection import connect

# ---------------------------------------------------------------------------------------- cancelling, deleting


def test_a_cancelled_trace_leaves_the_queue_and_is_computed_on_the_next_post(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    id = create(idle_client, request_body).get_json()["id"]
    assert idle_client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert status(idle_client, id) == "cancelled"
    with running_worker(idle_servers):
        other = create_and_wait(idle_client, request_body | {"tokens": [1]})["id"]  # the cancelled one did not delay it
        assert (times_started(idle_servers, other), times_started(idle_servers, id)) == (1, 0)
        assert status(idle_client, id) == "cancelled"
        assert create_and_wait(idle_client, request_body)["id"] == id


def test_a_running_trace_is_cancelled_and_computed_on_the_next_post(
    client: FlaskClient, long_request_body: Body
) -> None:
    id = create(client, long_request_body).get_json()["id"]
    eventually(lambda: status(client, id) == "running")
    assert client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert status(client, id) == "cancelled"
    assert client.get(f"/v1/traces/{id}/tensors").status_code == HTTPStatus.CONFLICT
    assert create(client, long_request_body).get_json()["status"] == "queued"
    assert get(client, id, **WAIT).get_json()["status"] == "done"


def test_a_trace_cancelled_while_it_is_written_leaves_nothing(
    client: FlaskClient, servers: Servers, streamed_request_body: Body
) -> None:
    cache = connect(servers.cache_url)
    id = create(client, streamed_request_body).get_json()["id"]
    eventually(lambda: len(cache.keys(f"*{id}*")) > 10)
    assert status(client, id) == "running"
    assert client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert status(client, id) == "cancelled"
    assert len(cache.keys(f"*{id}*")) <= 1  # what the killed process was writing expires
    assert all(cache.ttl(key) > 0 for key in cache.keys(f"*{id}*"))


def test_a_trace_can_be_deleted_as_soon_as_it_is_done(client: FlaskClient, request_body: Body) -> None:
    """RQ may still be finishing the job then."""
    for _ in range(30):
        trace = client.post("/v1/traces", json=request_body, headers={"Prefer": "wait=30"}).get_json()
        assert trace["status"] == "done"
        assert client.delete(f"/v1/traces/{trace['id']}").status_code == HTTPStatus.NO_CONTENT


def test_a_finished_trace_is_deleted_with_all_its_data(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    id = create_and_wait(client, request_body)["id"]
    queue, cache = connect(servers.queue_url), connect(servers.cache_url)
    assert cache.keys(f"*{id}*") != []
    assert client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert get(client, id).status_code == HTTPStatus.NOT_FOUND
    assert client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NOT_FOUND
    assert (cache.keys(f"*{id}*"), queue.keys(f"*{id}*")) == ([], [])
    assert id not in [trace["id"] for trace in client.get("/v1/traces?limit=500").get_json()["traces"]]
    assert create_and_wait(client, request_body)["id"] == id


# ------------------------------------------------------------------------------------------------------- loss


def lose_a_piece(cache: Redis, id: str) -> None:
    assert cache.delete(f"result:{id}:0") == 1


def lose_the_manifest(cache: Redis, id: str) -> None:
    assert cache.delete(f"result:{id}") == 1


@pytest.mark.parametrize("lose", [lose_a_piece, lose_the_manifest])
def test_a_result_that_the_cache_lost_is_computed_again(
    client: FlaskClient, servers: Servers, request_body: Body, lose: Callable[[Redis, str], None]
) -> None:
    before = create_and_wait(client, request_body)
    id, url = before["id"], f"/v1/traces/{before['id']}/tensors/probs"
    whole = client.get(url, headers=OCTETS).data

    lose(connect(servers.cache_url), id)

    lost = client.get(url, headers=OCTETS)
    if lost.status_code == HTTPStatus.CONFLICT:
        message = "This trace has no tensors: it is (queued|running). Wait for it with Prefer: wait."
        assert re.fullmatch(message, lost.get_json()["detail"])
    else:
        assert (lost.status_code, lost.data) == (HTTPStatus.OK, whole)  # recomputed meanwhile
    again = client.get(url, headers=OCTETS | WAIT)
    assert (again.status_code, again.data) == (HTTPStatus.OK, whole)
    recomputed = get(client, id).get_json()
    assert recomputed["tensors"] == before["tensors"]
    assert times_started(servers, id) == 2


def test_a_tensor_with_a_lost_piece_is_never_returned_in_part(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    config = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 8, "vocab_size": 1_000_000}
    trace = create_and_wait(client, request_body | {"model": config, "tokens": [1, 2, 3, 4, 5], "capture": ["logits"]})
    url = f"/v1/traces/{trace['id']}/tensors/logits"
    whole = client.get(url, headers=OCTETS).data
    assert len(whole) == 20_000_000

    assert connect(servers.cache_url).delete(f"result:{trace['id']}:19") == 1

    lost = client.get(url, headers=OCTETS)
    assert lost.status_code == HTTPStatus.CONFLICT or lost.data == whole
    assert client.get(url, headers=OCTETS | WAIT).data == whole


def test_a_lost_result_can_be_deleted(client: FlaskClient, servers: Servers, request_body: Body) -> None:
    id = create_and_wait(client, request_body)["id"]
    assert wait_until_ended(fetch(id, connect(servers.queue_url)))  # or it would seem to run
    lose_the_manifest(connect(servers.cache_url), id)
    assert client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NO_CONTENT
    assert get(client, id).status_code == HTTPStatus.NOT_FOUND
    assert times_started(servers, id) == 0  # its events are deleted, and it was not computed again
