"""Limits on queued jobs, on a client's unfinished requests and on the size of one request."""

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

MakeClient = Callable[..., FlaskClient]
WAIT = {"Prefer": "wait=30"}


@pytest.fixture
def make_client(idle_servers: Servers) -> MakeClient:
    """Makes a client of a service with the given settings and without a worker."""
    return lambda **changes: create_app(replace(idle_servers.settings, **changes)).test_client()


def different_bodies(request_body: Body, count: int) -> list[Body]:
    return [request_body | {"tokens": [n % 20, n // 20]} for n in range(count)]


def submit(client: FlaskClient, body: Body, address: str = "192.0.2.1") -> TestResponse:
    return client.post("/v1/traces", json=body, environ_base={"REMOTE_ADDR": address})


def submit_batch(client: FlaskClient, bodies: list[Any]) -> TestResponse:
    return client.post("/v1/batches", json={"requests": bodies}, environ_base={"REMOTE_ADDR": "192.0.2.1"})


def rejection(response: TestResponse) -> str:
    """The detail of a 429 response."""
    assert (response.status_code, response.content_type) == (HTTPStatus.TOO_MANY_REQUESTS, "application/problem+json")
    assert int(response.headers["Retry-After"]) > 0
    return str(response.get_json()["detail"])


def queued_jobs(servers: Servers) -> int:
    return sum(int(connect(servers.queue_url).llen(f"rq:queue:{name}")) for name in NAMES)


# ------------------------------------------------------------------------------------------------------- the queues


def test_queued_jobs_are_limited(make_client: MakeClient, idle_servers: Servers, request_body: Body) -> None:
    client, bodies = make_client(max_queued=3), different_bodies(request_body, 5)
    assert [submit(client, body).status_code for body in bodies[:3]] == [HTTPStatus.ACCEPTED] * 3
    detail = rejection(submit(client, bodies[3]))
    assert detail == "At most 3 queued jobs are allowed (MAX_QUEUED): there are 3, and this request needs 1 more."
    assert submit(client, bodies[0]).status_code == HTTPStatus.ACCEPTED  # it is queued already
    with running_worker(idle_servers):
        last = client.get(f"/v1/traces/{submit(client, bodies[2]).get_json()['id']}", headers=WAIT)
        assert last.get_json()["status"] == "done"
        assert submit(client, bodies[3]).status_code == HTTPStatus.ACCEPTED


def test_a_batch_that_exceeds_the_limit_is_rejected_as_a_whole(
    make_client: MakeClient, idle_servers: Servers, request_body: Body, long_request_body: Body
) -> None:
    client = make_client(max_queued=3)
    large = [long_request_body | {"tokens": [n]} for n in range(4)]
    rejection(submit_batch(client, [*different_bodies(request_body, 5), *large]))
    assert queued_jobs(idle_servers) == 0
    assert connect(idle_servers.queue_url).keys("request:*") == []
    assert submit_batch(client, different_bodies(request_body, 200)).status_code == HTTPStatus.ACCEPTED  # share jobs
    assert queued_jobs(idle_servers) <= 3


# ------------------------------------------------------------------------------------------------------- one client


def test_unfinished_requests_are_limited_per_client(make_client: MakeClient, request_body: Body) -> None:
    client, bodies = make_client(max_concurrent=2), different_bodies(request_body, 4)
    assert [submit(client, body).status_code for body in bodies[:2]] == [HTTPStatus.ACCEPTED] * 2
    assert rejection(submit(client, bodies[2])) == (
        "At most 2 unfinished requests are allowed per client (MAX_CONCURRENT): you have 2, and this would add 1."
    )
    assert submit(client, bodies[1]).status_code == HTTPStatus.ACCEPTED  # it is counted already
    assert submit(client, bodies[2], "192.0.2.2").status_code == HTTPStatus.ACCEPTED
    assert submit(client, bodies[2]).status_code == HTTPStatus.ACCEPTED  # in progress for another client already


@pytest.mark.parametrize("end", ["done", "cancelled"])
def test_ended_requests_do_not_count(
    make_client: MakeClient, idle_servers: Servers, request_body: Body, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_RECORD_SECONDS", 0)
    client, (first, second, third) = make_client(max_concurrent=2), different_bodies(request_body, 3)
    ids = [submit(client, body).get_json()["id"] for body in (first, second)]
    rejection(submit(client, third))
    if end == "cancelled":
        client.delete(f"/v1/traces/{ids[0]}")
    else:
        with running_worker(idle_servers):
            client.get(f"/v1/traces/{ids[1]}", headers=WAIT)
    assert submit(client, third).status_code == HTTPStatus.ACCEPTED


def test_each_trace_of_a_batch_counts(make_client: MakeClient, idle_servers: Servers, request_body: Body) -> None:
    client, bodies = make_client(max_concurrent=5), different_bodies(request_body, 9)
    assert submit_batch(client, bodies[:4]).status_code == HTTPStatus.ACCEPTED
    assert "you have 4, and this would add 3" in rejection(submit_batch(client, bodies[3:7]))
    assert queued_jobs(idle_servers) == 1  # the second batch was rejected as a whole
    assert submit_batch(client, bodies[3:5]).status_code == HTTPStatus.ACCEPTED  # one is new


def test_api_processes_share_one_count(idle_servers: Servers, request_body: Body) -> None:
    bodies = [json.dumps(body).encode() for body in different_bodies(request_body, 20)]
    with running_api(idle_servers, 3, MAX_CONCURRENT="7") as url, ThreadPoolExecutor(8) as threads:
        statuses = Counter(threads.map(lambda body: post(f"{url}/v1/traces", body), bodies))
    assert statuses == {202: 7, 429: 13}


# ----------------------------------------------------------------------------- GET requests that compute


@pytest.fixture
def traces(idle_servers: Servers, request_body: Body) -> list[str]:
    """The paths of three finished traces; no worker is running any more."""
    client, queue = create_app(idle_servers.settings).test_client(), connect(idle_servers.queue_url)
    with running_worker(idle_servers):
        bodies = different_bodies(request_body, 3)
        finished = [client.post("/v1/traces", json=body, headers=WAIT).get_json() for body in bodies]
        while any(queue.zcard(key) for key in queue.scan_iter("rq:wip:*")):  # a job ends a little after its request
            time.sleep(0.01)
    assert [trace["status"] for trace in finished] == ["done"] * 3
    return [f"/v1/traces/{trace['id']}" for trace in finished]


def test_computing_a_lens_counts_towards_the_rate_limit_and_reading_it_does_not(
    make_client: MakeClient, idle_servers: Servers, traces: list[str]
) -> None:
    client = make_client(rate_limit="1/minute")
    first = client.get(f"{traces[0]}/lens")
    assert (first.status_code, first.headers["RateLimit"].partition(";t=")[0]) == (HTTPStatus.OK, '"caller";r=0')
    assert "(RATE_LIMIT)" in rejection(client.get(f"{traces[1]}/lens"))
    assert client.get(f"{traces[0]}/lens").get_json()["status"] == "queued"
    with running_worker(idle_servers):
        for _ in range(2):
            again = client.get(f"{traces[0]}/lens", headers=WAIT)
            assert (again.get_json()["status"], "RateLimit" in again.headers) == ("done", False)


@pytest.mark.parametrize(
    ("setting", "mentioned"), [("max_queued", "(MAX_QUEUED)"), ("max_concurrent", "(MAX_CONCURRENT)")]
)
def test_queued_lenses_are_limited(make_client: MakeClient, traces: list[str], setting: str, mentioned: str) -> None:
    client = make_client(**{setting: 2})
    assert [client.get(f"{path}/lens").status_code for path in traces[:2]] == [HTTPStatus.OK] * 2
    assert mentioned in rejection(client.get(f"{traces[2]}/lens"))


@pytest.mark.parametrize(
    ("changes", "mentioned"),
    [({"rate_limit": "1/minute"}, "(RATE_LIMIT)"), ({"max_queued": 1}, "(MAX_QUEUED)")],
    ids=["rate", "queue"],
)
def test_recomputing_an_evicted_result_is_limited_like_a_post(
    make_client: MakeClient, idle_servers: Servers, traces: list[str], changes: Body, mentioned: str
) -> None:
    client, cache = make_client(**changes), connect(idle_servers.cache_url)
    assert client.get(traces[0]).headers.get("RateLimit") is None
    cache.flushdb()
    assert client.get(traces[1]).get_json()["status"] == "queued"
    for suffix in ("", "/tensors", "/tensors/embed", "/safetensors", "/events", "/lens"):
        assert mentioned in rejection(client.get(f"{traces[2]}{suffix}"))
    assert queued_jobs(idle_servers) == 1
    assert client.get(traces[1]).get_json()["status"] == "queued"  # it is queued already


# ----------------------------------------------------------------------------------------------------- one request


@pytest.mark.parametrize(
    ("changes", "body", "field", "message"),
    [
        (
            {"max_prompt_bytes": 5},
            {"model": "nano-gpt", "text": "CBABBC"},
            "text",
            "Must have at most 5 bytes (MAX_PROMPT_BYTES), but has 6.",
        ),
        (
            {"max_prompt_tokens": 5},
            {"model": "nano-gpt", "text": "CBABBC"},
            "text",
            "Must have at most 5 tokens (MAX_PROMPT_TOKENS), but has 6.",
        ),
        (
            {"max_prompt_tokens": 2},
            {"model": "nano-gpt", "tokens": [0, 1, 2]},
            "tokens",
            "Must have at most 2 tokens (MAX_PROMPT_TOKENS), but has 3.",
        ),
    ],
)
def test_the_length_of_a_prompt_is_limited(
    make_client: MakeClient, changes: dict[str, int], body: Body, field: str, message: str
) -> None:
    response = submit(make_client(**changes), body)
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert response.get_json()["errors"] == {field: [message]}


def test_a_prompt_is_measured_in_bytes_of_utf8(make_client: MakeClient) -> None:
    client = make_client(max_prompt_bytes=4)
    assert submit(client, {"model": "gpt2", "text": "été"}).status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert submit(client, {"model": "gpt2", "text": "éte"}).status_code == HTTPStatus.ACCEPTED


def test_the_requests_of_a_batch_are_limited(make_client: MakeClient, request_body: Body) -> None:
    client = make_client(max_batch=2)
    response = submit_batch(client, different_bodies(request_body, 3))
    message = "A batch may have at most 2 requests (MAX_BATCH), not 3."
    assert (response.status_code, response.get_json()["errors"]) == (422, {"requests": [message]})
    assert submit_batch(client, different_bodies(request_body, 2)).status_code == HTTPStatus.ACCEPTED


def test_the_size_of_a_body_is_limited(make_client: MakeClient) -> None:
    response = submit(make_client(max_body_bytes=1000), {"model": "nano-gpt", "text": "A" * 1000})
    assert response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert "1,000 bytes" in response.get_json()["detail"]
