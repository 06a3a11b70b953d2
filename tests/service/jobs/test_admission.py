"""How much may wait in all, and how much of it may be one caller's."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import service.jobs.admission as admission
from service.app import create_app
from tests.conftest import Body, Servers, running_api, running_worker
from tests.service.http.test_auth import post
from worker.store.connection import connect
from worker.store.queues import NAMES

Client = Callable[..., FlaskClient]
WAIT = {"Prefer": "wait=30"}


@pytest.fixture
def served(idle_servers: Servers) -> Client:
    """A client of a service with these settings and no worker."""
    return lambda **changes: create_app(replace(idle_servers.settings, **changes)).test_client()


def several(request_body: Body, count: int) -> list[Body]:
    return [request_body | {"tokens": [n % 20, n // 20]} for n in range(count)]


def ask(client: FlaskClient, body: Body, address: str = "192.0.2.1") -> TestResponse:
    return client.post("/v1/traces", json=body, environ_base={"REMOTE_ADDR": address})


def ask_together(client: FlaskClient, bodies: list[Any]) -> TestResponse:
    return client.post("/v1/batches", json={"requests": bodies}, environ_base={"REMOTE_ADDR": "192.0.2.1"})


def refused(answer: TestResponse) -> str:
    assert (answer.status_code, answer.content_type) == (HTTPStatus.TOO_MANY_REQUESTS, "application/problem+json")
    assert int(answer.headers["Retry-After"]) > 0
    return str(answer.get_json()["detail"])


def waiting(servers: Servers) -> int:
    return sum(int(connect(servers.queue_url).llen(f"rq:queue:{name}")) for name in NAMES)


# -------------------------------------------------------------------------------------------------------- the queue


def test_no_more_jobs_wait_than_may(served: Client, idle_servers: Servers, request_body: Body) -> None:
    client, bodies = served(max_queued=3), several(request_body, 5)
    assert [ask(client, body).status_code for body in bodies[:3]] == [HTTPStatus.ACCEPTED] * 3
    told = refused(ask(client, bodies[3]))
    assert told == "3 jobs wait here, and at most 3 may (MAX_QUEUED): the 1 that this takes do not fit now."
    assert ask(client, bodies[0]).status_code == HTTPStatus.ACCEPTED  # it waits already
    with running_worker(idle_servers):
        last = client.get(f"/v1/traces/{ask(client, bodies[2]).get_json()['id']}", headers={"Prefer": "wait=30"})
        assert last.get_json()["status"] == "done"
        assert ask(client, bodies[3]).status_code == HTTPStatus.ACCEPTED


def test_a_batch_that_does_not_fit_is_refused_whole(
    served: Client, idle_servers: Servers, request_body: Body, long_request_body: Body
) -> None:
    client = served(max_queued=3)
    large = [long_request_body | {"tokens": [n]} for n in range(4)]
    refused(ask_together(client, [*several(request_body, 5), *large]))
    assert waiting(idle_servers) == 0
    assert connect(idle_servers.queue_url).keys("request:*") == []
    assert ask_together(client, several(request_body, 200)).status_code == HTTPStatus.ACCEPTED  # they share jobs
    assert waiting(idle_servers) <= 3


# ------------------------------------------------------------------------------------------------------- one caller


def test_a_caller_has_no_more_under_way_than_may_be_and_others_are_not_held_up(
    served: Client, request_body: Body
) -> None:
    client, bodies = served(max_concurrent=2), several(request_body, 4)
    assert [ask(client, body).status_code for body in bodies[:2]] == [HTTPStatus.ACCEPTED] * 2
    assert refused(ask(client, bodies[2])) == (
        "At most 2 unfinished requests are allowed for each caller (MAX_CONCURRENT): "
        "you have 2, and these would be 1 more."
    )
    assert ask(client, bodies[1]).status_code == HTTPStatus.ACCEPTED  # it is counted already
    assert ask(client, bodies[2], "192.0.2.2").status_code == HTTPStatus.ACCEPTED
    assert ask(client, bodies[2]).status_code == HTTPStatus.ACCEPTED  # another's work is no work more


@pytest.mark.parametrize("end", ["done", "cancelled"])
def test_what_has_ended_does_not_count(
    served: Client, idle_servers: Servers, request_body: Body, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_SETTLED", 0)
    client, (first, second, third) = served(max_concurrent=2), several(request_body, 3)
    ids = [ask(client, body).get_json()["id"] for body in (first, second)]
    refused(ask(client, third))
    if end == "cancelled":
        client.delete(f"/v1/traces/{ids[0]}")
    else:
        with running_worker(idle_servers):
            client.get(f"/v1/traces/{ids[1]}", headers={"Prefer": "wait=30"})
    assert ask(client, third).status_code == HTTPStatus.ACCEPTED


def test_each_trace_of_a_batch_counts_and_too_many_are_refused_whole(
    served: Client, idle_servers: Servers, request_body: Body
) -> None:
    client, bodies = served(max_concurrent=5), several(request_body, 9)
    assert ask_together(client, bodies[:4]).status_code == HTTPStatus.ACCEPTED
    assert "you have 4, and these would be 3 more" in refused(ask_together(client, bodies[3:7]))
    assert waiting(idle_servers) == 1
    assert ask_together(client, bodies[3:5]).status_code == HTTPStatus.ACCEPTED  # one is new


def test_several_processes_count_together(idle_servers: Servers, request_body: Body) -> None:
    bodies = [json.dumps(body).encode() for body in several(request_body, 20)]
    with running_api(idle_servers, 3, MAX_CONCURRENT="7") as url, ThreadPoolExecutor(8) as threads:
        statuses = Counter(threads.map(lambda body: post(f"{url}/v1/traces", body), bodies))
    assert statuses == {202: 7, 429: 13}


# ---------------------------------------------------------------------------------- what is computed as it is read


@pytest.fixture
def traces(idle_servers: Servers, request_body: Body) -> list[str]:
    """Where three finished traces are, of a service that has no worker any more."""
    client, queue = create_app(idle_servers.settings).test_client(), connect(idle_servers.queue_url)
    with running_worker(idle_servers):
        asked = [client.post("/v1/traces", json=one, headers=WAIT).get_json() for one in several(request_body, 3)]
        while any(queue.zcard(key) for key in queue.scan_iter("rq:wip:*")):  # a job ends after what it computed
            time.sleep(0.01)
    assert [one["status"] for one in asked] == ["done"] * 3
    return [f"/v1/traces/{one['id']}" for one in asked]


def test_a_lens_is_let_in_as_a_post_is_and_read_for_nothing(
    served: Client, idle_servers: Servers, traces: list[str]
) -> None:
    client = served(rate_limit="1/minute")
    first = client.get(f"{traces[0]}/lens")
    assert (first.status_code, first.headers["RateLimit"].partition(";t=")[0]) == (HTTPStatus.OK, '"caller";r=0')
    assert "(RATE_LIMIT)" in refused(client.get(f"{traces[1]}/lens"))
    assert client.get(f"{traces[0]}/lens").get_json()["status"] == "queued"
    with running_worker(idle_servers):
        for _ in range(2):
            again = client.get(f"{traces[0]}/lens", headers=WAIT)
            assert (again.get_json()["status"], "RateLimit" in again.headers) == ("done", False)


@pytest.mark.parametrize(("bound", "told"), [("max_queued", "(MAX_QUEUED)"), ("max_concurrent", "(MAX_CONCURRENT)")])
def test_no_more_lenses_wait_than_may(served: Client, traces: list[str], bound: str, told: str) -> None:
    client = served(**{bound: 2})
    assert [client.get(f"{at}/lens").status_code for at in traces[:2]] == [HTTPStatus.OK] * 2
    assert told in refused(client.get(f"{traces[2]}/lens"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"rate_limit": "1/minute"}, "(RATE_LIMIT)"), ({"max_queued": 1}, "(MAX_QUEUED)")],
    ids=["rate", "queue"],
)
def test_what_the_cache_lost_is_let_in_as_a_post_is(
    served: Client, idle_servers: Servers, traces: list[str], changes: Body, told: str
) -> None:
    client, cache = served(**changes), connect(idle_servers.cache_url)
    assert client.get(traces[0]).headers.get("RateLimit") is None
    cache.flushdb()
    assert client.get(traces[1]).get_json()["status"] == "queued"
    for what in ("", "/tensors", "/tensors/embed", "/safetensors", "/events", "/lens"):
        assert told in refused(client.get(f"{traces[2]}{what}"))
    assert waiting(idle_servers) == 1
    assert client.get(traces[1]).get_json()["status"] == "queued"  # it waits already


# ----------------------------------------------------------------------------------------------------- one request


@pytest.mark.parametrize(
    ("changes", "body", "field", "told"),
    [
        (
            {"max_prompt_bytes": 5},
            {"model": "nano-gpt", "text": "CBABBC"},
            "text",
            "It has 6 bytes, and at most 5 are read here (MAX_PROMPT_BYTES).",
        ),
        (
            {"max_prompt_tokens": 5},
            {"model": "nano-gpt", "text": "CBABBC"},
            "text",
            "It has 6 tokens, and at most 5 are read here (MAX_PROMPT_TOKENS).",
        ),
        (
            {"max_prompt_tokens": 2},
            {"model": "nano-gpt", "tokens": [0, 1, 2]},
            "tokens",
            "It has 3 tokens, and at most 2 are read here (MAX_PROMPT_TOKENS).",
        ),
    ],
)
def test_a_prompt_that_is_too_long_is_told_what_is_allowed(
    served: Client, changes: dict[str, int], body: Body, field: str, told: str
) -> None:
    answer = ask(served(**changes), body)
    assert (answer.status_code, answer.get_json()["errors"]) == (HTTPStatus.UNPROCESSABLE_ENTITY, {field: [told]})


def test_a_prompt_is_measured_in_bytes_of_utf8(served: Client) -> None:
    client = served(max_prompt_bytes=4)
    assert ask(client, {"model": "gpt2", "text": "été"}).status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert ask(client, {"model": "gpt2", "text": "éte"}).status_code == HTTPStatus.ACCEPTED


def test_a_batch_of_too_many_is_told_how_many_may_be(served: Client, request_body: Body) -> None:
    client = served(max_batch=2)
    answer = ask_together(client, several(request_body, 3))
    told = "These are 3, and at most 2 are taken at once here (MAX_BATCH)."
    assert (answer.status_code, answer.get_json()["errors"]) == (422, {"requests": [told]})
    assert ask_together(client, several(request_body, 2)).status_code == HTTPStatus.ACCEPTED


def test_a_body_that_is_too_large_is_told_how_large_it_may_be(served: Client) -> None:
    answer = ask(served(max_body_bytes=1000), {"model": "nano-gpt", "text": "A" * 1000})
    assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert "1,000 bytes" in answer.get_json()["detail"]
