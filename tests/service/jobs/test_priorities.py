"""The order in which queued requests are computed, by priority and size."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.conftest import Body, Servers, running_worker
from tests.service.http.test_event_stream import parse

LOW, NORMAL = {"priority": "low"}, {"priority": "normal"}


def different_bodies(request_body: Body, count: int) -> list[Body]:
    return [request_body | {"tokens": [n]} for n in range(count)]


def submit(client: FlaskClient, body: Body) -> Body:
    response = client.post("/v1/traces", json=body)
    assert response.status_code == HTTPStatus.ACCEPTED, response.text
    trace: Body = response.get_json()
    return trace


def submit_batch(client: FlaskClient, bodies: list[Body]) -> Body:
    batch: Body = client.post("/v1/batches", json={"requests": bodies}).get_json()
    return batch


def positions(client: FlaskClient, traces: list[Body]) -> list[int]:
    return [client.get(f"/v1/traces/{trace['id']}").get_json()["queue_position"] for trace in traces]


def start_order(client: FlaskClient, traces: list[Body]) -> list[int]:
    """The indices of the traces, in the order in which they were started."""
    ended = [client.get(f"/v1/traces/{trace['id']}", headers={"Prefer": "wait=60"}).get_json() for trace in traces]
    assert [trace["status"] for trace in ended] == ["done"] * len(ended)
    return sorted(range(len(ended)), key=lambda n: ended[n]["started_at"])


def test_queue_position_is_the_number_of_jobs_that_start_before(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    bodies = different_bodies(request_body, 5)
    priorities: list[Body] = [LOW, {}, LOW, NORMAL, {}]
    traces = [submit(idle_client, body | priority) for body, priority in zip(bodies, priorities, strict=True)]
    assert positions(idle_client, traces) == [3, 0, 4, 1, 2]
    with running_worker(idle_servers):
        assert start_order(idle_client, traces) == [1, 3, 4, 0, 2]


def test_small_and_large_jobs_have_separate_queues(
    idle_client: FlaskClient, request_body: Body, long_request_body: Body
) -> None:
    bodies = [long_request_body, long_request_body | {"tokens": [1]}, request_body]
    assert positions(idle_client, [submit(idle_client, body) for body in bodies]) == [0, 1, 0]


def test_priority_does_not_change_the_id(idle_client: FlaskClient, request_body: Body) -> None:
    assert len({submit(idle_client, request_body | priority)["id"] for priority in ({}, LOW, NORMAL)}) == 1


def test_submitting_a_request_again_may_raise_its_priority_but_never_lowers_it(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    bodies = different_bodies(request_body, 3)
    traces = [submit(idle_client, body | LOW) for body in bodies]
    again = submit(idle_client, bodies[2])
    assert (again["id"], again["queue_position"]) == (traces[2]["id"], 0)
    assert submit(idle_client, bodies[2] | LOW)["queue_position"] == 0
    assert positions(idle_client, traces) == [1, 2, 0]
    with running_worker(idle_servers):
        assert start_order(idle_client, traces) == [2, 0, 1]


def test_a_single_request_starts_before_an_earlier_batch(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    *many, one = different_bodies(request_body, 9)
    batch = submit_batch(idle_client, many)
    single = submit(idle_client, one)
    assert positions(idle_client, [*batch["traces"], single]) == [1] * 8 + [0]
    with running_worker(idle_servers):
        assert start_order(idle_client, [*batch["traces"], single])[0] == 8


def test_requests_of_a_batch_may_have_normal_priority(idle_client: FlaskClient, request_body: Body) -> None:
    bodies = [body | (NORMAL if n > 1 else {}) for n, body in enumerate(different_bodies(request_body, 4))]
    batch = submit_batch(idle_client, bodies)
    assert positions(idle_client, batch["traces"]) == [1, 1, 0, 0]
    submit_batch(idle_client, [body | NORMAL for body in bodies[:2]])
    assert positions(idle_client, batch["traces"])[2:] == [0, 0]


def test_a_trace_of_a_batch_that_is_submitted_alone_starts_first_and_is_computed_once(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    bodies = different_bodies(request_body, 4)
    batch = submit_batch(idle_client, bodies)
    single = submit(idle_client, bodies[3])
    assert single["queue_position"] == 0
    assert positions(idle_client, batch["traces"]) == [1, 1, 1, 0]
    with running_worker(idle_servers):
        assert start_order(idle_client, batch["traces"])[0] == 3
    events: list[Any] = parse(idle_client.get(f"/v1/traces/{single['id']}/events").text)
    assert [event.name for event in events].count("started") == 1


@pytest.mark.parametrize("priority", ["high", "", 1, ["low"]])
def test_an_unknown_priority_is_rejected(idle_client: FlaskClient, request_body: Body, priority: Any) -> None:
    response = idle_client.post("/v1/traces", json=request_body | {"priority": priority})
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert [*response.get_json()["errors"]] == ["priority"]
