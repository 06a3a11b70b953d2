"""Every answer tells to which request it belongs."""

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
def test_an_answer_has_the_id_of_its_request(idle_client: FlaskClient, path: str, status: HTTPStatus) -> None:
    answer = idle_client.get(path, headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.headers.getlist("X-Request-ID")) == (status, ["mine"])
    if status >= HTTPStatus.BAD_REQUEST:
        assert answer.get_json()["request_id"] == "mine"


def test_requests_without_one_get_one_each(idle_client: FlaskClient) -> None:
    assert len({idle_client.get("/healthz").headers["X-Request-ID"] for _ in range(10)}) == 10


def test_an_answer_that_was_kept_has_the_id_of_who_asks_now(
    client: FlaskClient, sorted_letters: dict[str, Any]
) -> None:
    path = f"/v1/traces/{sorted_letters['id']}"
    assert [client.get(path, headers={"X-Request-ID": id}).headers["X-Request-ID"] for id in "abc"] == ["a", "b", "c"]


def test_scripts_of_other_pages_may_read_it(idle_client: FlaskClient) -> None:
    answer = idle_client.get("/healthz", headers={"Origin": "https://elsewhere.example"})
    assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"].split(", ")


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/batches"])
def test_a_job_takes_the_request_with_it(
    idle_client: FlaskClient, idle_servers: Servers, request_body: dict[str, Any], path: str
) -> None:
    more = [request_body | {"tokens": [n]} for n in (1, 2)]
    body = request_body if path == "/v1/traces" else {"requests": more}
    answer = idle_client.post(path, json=body, headers={"X-Request-ID": "mine"})
    assert answer.status_code == HTTPStatus.ACCEPTED
    queue = connect(idle_servers.queue_url)
    jobs = [key.decode().removeprefix("rq:job:") for key in queue.scan_iter("rq:job:*")]
    assert jobs
    for id in jobs:
        assert fetch(id, queue).meta == {"request_id": "mine"}


def lines_of_a_worker(servers: Servers, path: Path, ids: set[str]) -> list[dict[str, Any]]:
    """The lines of a worker, which works until these requests are done."""
    environment, found = servers.environment | {"LOG_FORMAT": "json"}, list[dict[str, Any]]()
    command = [sys.executable, "-m", "worker"]
    with path.open("wb") as file, subprocess.Popen(command, env=environment, stderr=file) as it:
        try:
            deadline = time.monotonic() + 60
            while not ids <= {line.get("id") for line in found}:
                assert time.monotonic() < deadline
                time.sleep(0.05)
                written = path.read_bytes().splitlines(keepends=True)
                found = [json.loads(line) for line in written if line.endswith(b"\n")]
        finally:
            it.kill()
    return found


def test_each_trace_is_told_of_with_the_request_that_asked_first_whatever_job_computes_it(
    idle_client: FlaskClient, idle_servers: Servers, request_body: dict[str, Any], tmp_path: Path
) -> None:
    bodies = [request_body | {"tokens": [n]} for n in range(5)]

    def ask(who: str, path: str, body: dict[str, Any]) -> Any:
        traceparent = f"00-{who.encode().hex():0>32}-00f067aa0ba902b7-01"
        answer = idle_client.post(path, json=body, headers={"X-Request-ID": who, "traceparent": traceparent})
        assert answer.status_code == HTTPStatus.ACCEPTED
        return answer.get_json()

    ask("before", "/v1/traces", bodies[0])
    batch = ask("ada", "/v1/batches", {"requests": bodies[:4]})
    ask("bob", "/v1/batches", {"requests": bodies[2:]})
    ask("after", "/v1/traces", bodies[3])  # which does not wait for the batch: it gets a job of its own
    ids = [one["id"] for one in idle_client.get(f"/v1/batches/{batch['id']}").get_json()["traces"]]
    ids.append(ask("after", "/v1/traces", bodies[4])["id"])
    lines = lines_of_a_worker(idle_servers, tmp_path / "lines", set(ids))
    told = {
        line["id"]: (line["request_id"], bytes.fromhex(line["trace_id"]).strip(b"\0").decode())
        for line in lines
        if "id" in line
    }
    assert [told[id] for id in ids] == [(who, who) for who in ("before", "ada", "ada", "ada", "bob")]
