"""Who waits for whom: a low priority for a normal one, a batch for a person, each for those before it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.conftest import Body, Servers, running_worker
from tests.service.http.test_event_stream import parse

LOW, NORMAL = {"priority": "low"}, {"priority": "normal"}


def several(request_body: Body, count: int) -> list[Body]:
    return [request_body | {"tokens": [n]} for n in range(count)]


def ask(client: FlaskClient, body: Body) -> Body:
    answer = client.post("/v1/traces", json=body)
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    trace: Body = answer.get_json()
    return trace


def positions(client: FlaskClient, traces: list[Body]) -> list[int]:
    return [client.get(f"/v1/traces/{trace['id']}").get_json()["queue_position"] for trace in traces]


def begun(client: FlaskClient, traces: list[Body]) -> list[int]:
    """Their places by the time at which they were begun."""
    told = [client.get(f"/v1/traces/{trace['id']}", headers={"Prefer": "wait=60"}).get_json() for trace in traces]
    assert [trace["status"] for trace in told] == ["done"] * len(told)
    return sorted(range(len(told)), key=lambda n: told[n]["started_at"])


def test_the_position_is_how_many_are_begun_before(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    wanted = several(request_body, 5)
    priorities: list[Body] = [LOW, {}, LOW, NORMAL, {}]
    traces = [ask(idle_client, one | priority) for one, priority in zip(wanted, priorities, strict=True)]
    assert positions(idle_client, traces) == [3, 0, 4, 1, 2]
    with running_worker(idle_servers):
        assert begun(idle_client, traces) == [1, 3, 4, 0, 2]


def test_small_and_large_ones_do_not_wait_for_each_other(
    idle_client: FlaskClient, request_body: Body, long_request_body: Body
) -> None:
    bodies = [long_request_body, long_request_body | {"tokens": [1]}, request_body]
    assert positions(idle_client, [ask(idle_client, body) for body in bodies]) == [0, 1, 0]


def test_the_priority_is_no_part_of_the_id(idle_client: FlaskClient, request_body: Body) -> None:
    assert len({ask(idle_client, request_body | priority)["id"] for priority in ({}, LOW, NORMAL)}) == 1


def test_what_is_asked_for_again_is_moved_up_and_never_down(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    wanted = several(request_body, 3)
    traces = [ask(idle_client, one | LOW) for one in wanted]
    again = ask(idle_client, wanted[2])
    assert (again["id"], again["queue_position"]) == (traces[2]["id"], 0)
    assert ask(idle_client, wanted[2] | LOW)["queue_position"] == 0
    assert positions(idle_client, traces) == [1, 2, 0]
    with running_worker(idle_servers):
        assert begun(idle_client, traces) == [2, 0, 1]


def test_a_batch_waits_for_who_comes_later_alone(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    *many, one = several(request_body, 9)
    batch: Body = idle_client.post("/v1/batches", json={"requests": many}).get_json()
    alone = ask(idle_client, one)
    assert positions(idle_client, [*batch["traces"], alone]) == [1] * 8 + [0]
    with running_worker(idle_servers):
        assert begun(idle_client, [*batch["traces"], alone])[0] == 8


def test_requests_of_a_batch_may_ask_for_a_normal_priority(idle_client: FlaskClient, request_body: Body) -> None:
    wanted = [one | (NORMAL if n > 1 else {}) for n, one in enumerate(several(request_body, 4))]
    batch = idle_client.post("/v1/batches", json={"requests": wanted}).get_json()
    assert positions(idle_client, batch["traces"]) == [1, 1, 0, 0]
    again = [one | NORMAL for one in wanted[:2]]
    idle_client.post("/v1/batches", json={"requests": again})
    assert positions(idle_client, batch["traces"])[2:] == [0, 0]


def test_who_asks_for_one_of_a_batch_has_it_before_the_others_and_it_is_computed_once(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    wanted = several(request_body, 4)
    batch = idle_client.post("/v1/batches", json={"requests": wanted}).get_json()
    alone = ask(idle_client, wanted[3])
    assert alone["queue_position"] == 0
    assert positions(idle_client, batch["traces"]) == [1, 1, 1, 0]
    with running_worker(idle_servers):
        assert begun(idle_client, batch["traces"])[0] == 3
    told: list[Any] = parse(idle_client.get(f"/v1/traces/{alone['id']}/events").text)
    assert [event.name for event in told].count("started") == 1


@pytest.mark.parametrize("priority", ["high", "", 1, ["low"]])
def test_another_priority_is_refused(idle_client: FlaskClient, request_body: Body, priority: Any) -> None:
    answer = idle_client.post("/v1/traces", json=request_body | {"priority": priority})
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert [*answer.get_json()["errors"]] == ["priority"]
