"""deploy/nginx: nginx caches finished responses only, and does not buffer events."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.service.resources.test_metrics import metrics

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx" / "cutaway.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""

pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is not installed (apt-get install nginx-light)")


@pytest.fixture(scope="session")
def port(address: str) -> Iterator[int]:
    """The port of an nginx in front of the service, with the configuration except for its addresses and folders."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ct-nginx-") as folder:
        configuration = CONFIGURATION.read_text()
        for original, replacement in {
            "/var/cache/nginx/cutaway": f"{folder}/cache",
            "server 127.0.0.1:8000;": f"server {address.removeprefix('http://')};",
            "listen 127.0.0.1:8080;": f"listen 127.0.0.1:{port};",
        }.items():
            assert configuration.count(original) == 1
            configuration = configuration.replace(original, replacement)
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{name}_temp_path {folder}/{name};" for name in temporary)
        user = "user root;" if os.getuid() == 0 else ""
        file = Path(folder) / "nginx.conf"
        file.write_text(f"{user} pid {folder}/pid; events {{}} http {{ access_log off; {paths}\n{configuration}\n}}")
        command = [NGINX, "-c", str(file), "-e", f"{folder}/errors", "-g", "daemon off;"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                _wait(port, process, Path(folder) / "errors")
                yield port
            finally:
                process.terminate()


def _wait(port: int, process: subprocess.Popen[bytes], errors: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline, "nginx did not start"
            time.sleep(0.02)


def send(port: int, path: str, method: str = "GET", body: object = None, **headers: str) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        return response, response.read()


def responses(client: FlaskClient, route: str) -> float:
    """Return how many responses with status 200 the API has sent for a route."""
    return metrics(client).get(("cutaway_http_requests_total", "GET", route, "200"), 0)


@pytest.mark.parametrize("accept", ["application/json", "application/octet-stream"])
@pytest.mark.parametrize("query", ["", "?slice=0,0"])
def test_a_finished_response_is_cached(
    port: int, client: FlaskClient, sorted_letters: dict[str, Any], accept: str, query: str
) -> None:
    path, route = f"/v1/traces/{sorted_letters['id']}/tensors/logits{query}", "/v1/traces/<trace_id>/tensors/<name>"
    before = responses(client, route)
    (first, body), (again, same) = (send(port, path, Accept=accept) for _ in range(2))
    assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("MISS", "HIT")
    assert responses(client, route) == before + 1
    assert same == body
    assert first.headers["Content-Type"] == again.headers["Content-Type"] == accept
    assert first.headers["X-Request-ID"] != again.headers["X-Request-ID"]


def test_a_conditional_request_gets_304_from_the_cache(
    port: int, client: FlaskClient, sorted_letters: dict[str, Any]
) -> None:
    path = f"/v1/traces/{sorted_letters['id']}"
    etag = send(port, path)[0].headers["ETag"]
    before = metrics(client)
    response, body = send(port, path, If_None_Match=etag)
    assert (response.status, body, response.headers["X-Cache"]) == (304, b"", "HIT")
    name = ("cutaway_http_requests_total", "GET", "/v1/traces/<trace_id>", "304")
    assert metrics(client).get(name, 0) == before.get(name, 0)


def test_range_requests_bypass_the_cache(port: int, sorted_letters: dict[str, Any]) -> None:
    path = f"/v1/traces/{sorted_letters['id']}/safetensors?tensors=embed"
    whole = send(port, path)[1]
    response, part = send(port, path, Range="bytes=8-15")
    assert (response.status, part) == (206, whole[8:16])
    assert send(port, path)[1] == whole


def test_a_head_request_is_not_cached_as_a_get(port: int, sorted_letters: dict[str, Any]) -> None:
    path = f"/v1/traces/{sorted_letters['id']}/tensors/probs"
    assert send(port, path, "HEAD")[1] == b""
    assert send(port, path)[1] != b""


def test_unfinished_traces_are_not_cached_and_events_not_buffered(port: int, long_request_body: dict[str, Any]) -> None:
    response, body = send(port, "/v1/traces", "POST", long_request_body)
    path = f"/v1/traces/{json.loads(body)['id']}"
    assert (response.status, response.headers["Location"]) == (202, path)
    for _ in range(2):
        response, body = send(port, path)
        assert response.headers["X-Cache"] == "MISS"
        assert json.loads(body)["status"] in ("queued", "running")
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", f"{path}/events")
        events = connection.getresponse()
        assert [events.readline() for _ in range(4)][3] == b"event: queued\n"  # buffered, it would arrive at the end
        assert json.loads(send(port, path)[1])["status"] in ("queued", "running")
        assert send(port, path, "DELETE")[0].status == 204
        assert b"event: cancelled\n" in events.read()
    assert json.loads(send(port, path)[1])["status"] == "cancelled"


def test_the_request_id_of_the_client_is_returned(port: int, sorted_letters: dict[str, Any]) -> None:
    path = f"/v1/traces/{sorted_letters['id']}/tensors"
    for id in ("one", "two"):
        assert send(port, path, X_Request_ID=id)[0].headers.get_all("X-Request-ID") == [id]
