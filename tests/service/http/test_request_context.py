"""Responses, log lines and jobs have the id of their request."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.conftest import Servers
from worker.rq.queue import fetch
from worker.store.connection import connect


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", HTTPStatus.OK), ("/nowhere", HTTPStatus.NOT_FOUND), ("/v1/traces?x=1", HTTPStatus(422))],
)
def test_a_response_has_the_id_of_its_request(idle_client: FlaskClient, path: str, status: HTTPStatus) -> None:
    response = idle_client.get(path, headers={"X-Request-ID": "mine"})
    assert (response.status_code, response.headers.getlist("X-Request-ID")) == (status, ["mine"])
    if status >= HTTPStatus.BAD_REQUEST:
        assert response.get_json()["request_id"] == "mine"


def test_requests_without_an_id_get_a_new_one(idle_client: FlaskClient) -> None:
    assert len({idle_client.get("/healthz").headers["X-Request-ID"] for _ in range(10)}) == 10


def test_a_cached_response_has_the_id_of_the_current_request(
    client: FlaskClient, sorted_letters: dict[str, Any]
) -> None:
    path = f"/v1/traces/{sorted_letters['id']}"
    assert [client.get(path, headers={"X-Request-ID": id}).headers["X-Request-ID"] for id in "abc"] == ["a", "b", "c"]


def test_scripts_of_other_origins_may_read_the_id(idle_client: FlaskClient) -> None:
    response = idle_client.get("/healthz", headers={"Origin": "https://elsewhere.example"})
    assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"].split(", ")


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/batches"])
def test_a_job_has_the_id_of_its_request(
    idle_client: FlaskClient, idle_servers: Servers, request_body: dict[str, Any], path: str
) -> None:
    more = [request_body | {"tokens": [n]} for n in (1, 2)]
    body = request_body if path == "/v1/traces" else {"requests": more}
    response = idle_client.post(path, json=body, headers={"X-Request-ID": "mine"})
    assert response.status_code == HTTPStatus.ACCEPTED
    queue = connect(idle_servers.queue_url)
    jobs = [key.decode().removeprefix("rq:job:") for key in queue.scan_iter("rq:job:*")]
    assert jobs
    for id in jobs:
        assert fetch(id, queue).meta == {"request_id": "mine"}


def worker_log(servers: Servers, path: Path, ids: set[str]) -> list[dict[str, Any]]:
    """Run a worker until it has logged these requests; return its log lines."""
    environment, lines = servers.environment | {"LOG_FORMAT": "json"}, list[dict[str, Any]]()
    command = [sys.executable, "-m", "worker"]
    with path.open("wb") as file, subprocess.Popen(command, env=environment, stderr=file) as worker:
        try:
            deadline = time.monotonic() + 60
            while not ids <= {line.get("id") for line in lines}:
                assert time.monotonic() < deadline
                time.sleep(0.05)
                written = path.read_bytes().splitlines(keepends=True)
                lines = [json.loads(line) for line in written if line.endswith(b"\n")]
        finally:
            worker.kill()
    return lines


def test_the_log_of_each_trace_has_the_first_request_for_it_whichever_job_computes_it(
    idle_client: FlaskClient, idle_servers: Servers, request_body: dict[str, Any], tmp_path: Path
) -> None:
    bodies = [request_body | {"tokens": [n]} for n in range(5)]

    def post(client_name: str, path: str, body: dict[str, Any]) -> Any:
        traceparent = f"00-{client_name.encode().hex():0>32}-00f067aa0ba902b7-01"
        response = idle_client.post(path, json=body, headers={"X-Request-ID": client_name, "traceparent": traceparent})
        assert response.status_code == HTTPStatus.ACCEPTED
        return response.get_json()

    post("before", "/v1/traces", bodies[0])
    batch = post("ada", "/v1/batches", {"requests": bodies[:4]})
    post("bob", "/v1/batches", {"requests": bodies[2:]})
    post("after", "/v1/traces", bodies[3])  # gets a job of its own instead of waiting for the batch
    ids = [one["id"] for one in idle_client.get(f"/v1/batches/{batch['id']}").get_json()["traces"]]
    ids.append(post("after", "/v1/traces", bodies[4])["id"])
    lines = worker_log(idle_servers, tmp_path / "lines", set(ids))
    logged = {
        line["id"]: (line["request_id"], bytes.fromhex(line["trace_id"]).strip(b"\0").decode())
        for line in lines
        if "id" in line
    }
    assert [logged[id] for id in ids] == [(name, name) for name in ("before", "ada", "ada", "ada", "bob")]
