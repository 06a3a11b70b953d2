"""Log lines of real processes: JSON, one for each request, linked to those of its job."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Servers, running_servers

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {
    "X-Request-ID": "the-one",
    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
    "Authorization": "Bearer s3cret",
}
SECONDS = 60  # time for anything on a slow machine


class Running:
    """The API and a worker, with their log files."""

    def __init__(self, port: int, written: list[Path]) -> None:
        self.port, self.written = port, written

    def request(
        self, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str]]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)) as connection:
            sent = {"Content-Type": "application/json", **(headers or {})}
            connection.request("GET" if body is None else "POST", path, json.dumps(body) if body else None, sent)
            response = connection.getresponse()
            response.read()
            return response.status, dict(response.headers)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for file in self.written for line in file.read_text().splitlines()]

    def wait_for(self, **fields: object) -> dict[str, Any]:
        """Wait for a line with these fields and return it."""
        deadline = time.monotonic() + SECONDS
        while True:
            for line in self.lines():
                if fields.items() <= line.items():
                    return line
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.02)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("lines")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ExitStack() as stack:
        servers: Servers = stack.enter_context(running_servers())
        environment = servers.environment | {"LOG_FORMAT": "json", "LOG_LEVEL": "info"}
        for part in (["worker"], ["service", "api", f"--port={port}"]):
            output = stack.enter_context((folder / part[0]).open("wb"))
            process = subprocess.Popen([sys.executable, "-m", *part], env=environment, stdout=output, stderr=output)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        found = Running(port, [folder / "worker", folder / "service"])
        deadline = time.monotonic() + SECONDS
        while True:
            with suppress(OSError):
                if found.request("/readyz")[0] == 200:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield found


def test_a_request_and_its_job_log_the_same_trace_id(running: Running) -> None:
    body = {"model": "nano-gpt", "text": "CBABBC"}
    status, headers = running.request("/v1/traces", body, HEADERS | {"Prefer": "wait=30"})
    assert (status, headers["X-Request-ID"]) == (200, "the-one")
    request = running.wait_for(request_id="the-one", part="api")
    done = running.wait_for(request_id="the-one", part="worker", kind="trace")
    assert (request["method"], request["route"], request["status"]) == ("POST", "/v1/traces", 200)
    assert request["bytes"] == int(headers["Content-Length"])
    assert 0 < done["seconds"] < request["seconds"]
    assert request["trace_id"] == done["trace_id"] == TRACE
    assert (request["parent_id"], done["parent_id"]) == ("00f067aa0ba902b7", request["span_id"])


def test_a_request_is_one_line_and_gets_an_id_if_it_has_none(running: Running) -> None:
    _, headers = running.request("/v1/models/nano-gpt?x=1")
    id = headers["X-Request-ID"]
    assert running.wait_for(request_id=id)["route"] == "/v1/models/<model_id>"
    assert [line["request_id"] for line in running.lines() if line.get("request_id") == id] == [id]


def test_logs_contain_no_secrets_and_no_queries(running: Running) -> None:
    status, headers = running.request("/v1/traces?token=s3cret", headers=HEADERS | {"X-Request-ID": "with-secrets"})
    assert (status, headers["X-Request-ID"]) == (422, "with-secrets")
    running.wait_for(request_id="with-secrets", status=422)
    assert not any("s3cret" in file.read_text() for file in running.written)


def test_invalid_http_is_not_logged_with_the_id_of_the_request_before(running: Running) -> None:
    running.request("/healthz", headers={"X-Request-ID": "before"})
    running.wait_for(request_id="before")  # a request's line follows its response
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert "request_id" not in running.wait_for(status=400)
    assert len([line for line in running.lines() if line.get("request_id") == "before"]) == 1


def test_every_line_is_json_with_the_part_that_wrote_it(running: Running) -> None:
    lines = running.lines()  # parsed by json.loads
    assert {line["part"] for line in lines} == {"api", "worker"}
    assert any("Listening at" in line["message"] for line in lines)
    assert all(line.keys() >= {"time", "level", "process", "message"} for line in lines)
