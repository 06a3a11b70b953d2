"""deploy/nginx: nginx keeps what is finished and nothing else, and passes events on as they come."""

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
    """Where nginx listens, before the service: with the configuration as it is, but for addresses and folders."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ct-nginx-") as folder:
        ours = CONFIGURATION.read_text()
        for said, here in {
            "/var/cache/nginx/cutaway": f"{folder}/cache",
            "server 127.0.0.1:8000;": f"server {address.removeprefix('http://')};",
            "listen 127.0.0.1:8080;": f"listen 127.0.0.1:{port};",
        }.items():
            assert ours.count(said) == 1
            ours = ours.replace(said, here)
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{name}_temp_path {folder}/{name};" for name in temporary)
        user = "user root;" if os.getuid() == 0 else ""
        file = Path(folder) / "nginx.conf"
        file.write_text(f"{user} pid {folder}/pid; events {{}} http {{ access_log off; {paths}\n{ours}\n}}")
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


def asked(port: int, path: str, method: str = "GET", body: object = None, **headers: str) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        return answer, answer.read()


def answered(client: FlaskClient, route: str) -> float:
    """How many requests the API has answered with 200 at a route."""
    return metrics(client).get(("cutaway_http_requests_total", "GET", route, "200"), 0)


@pytest.mark.parametrize("accept", ["application/json", "application/octet-stream"])
@pytest.mark.parametrize("query", ["", "?slice=0,0"])
def test_what_is_finished_is_asked_for_once(
    port: int, client: FlaskClient, sorted_letters: dict[str, Any], accept: str, query: str
) -> None:
    path, route = f"/v1/traces/{sorted_letters['id']}/tensors/logits{query}", "/v1/traces/<trace_id>/tensors/<name>"
    before = answered(client, route)
    (first, body), (again, same) = (asked(port, path, Accept=accept) for _ in range(2))
    assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("MISS", "HIT")
    assert answered(client, route) == before + 1
    assert same == body
    assert first.headers["Content-Type"] == again.headers["Content-Type"] == accept
    assert first.headers["X-Request-ID"] != again.headers["X-Request-ID"]


def test_who_has_it_is_told_so_without_the_api(port: int, client: FlaskClient, sorted_letters: dict[str, Any]) -> None:
    path = f"/v1/traces/{sorted_letters['id']}"
    etag = asked(port, path)[0].headers["ETag"]
    before = metrics(client)
    answer, body = asked(port, path, If_None_Match=etag)
    assert (answer.status, body, answer.headers["X-Cache"]) == (304, b"", "HIT")
    name = ("cutaway_http_requests_total", "GET", "/v1/traces/<trace_id>", "304")
    assert metrics(client).get(name, 0) == before.get(name, 0)


def test_a_range_of_a_file_is_the_range(port: int, sorted_letters: dict[str, Any]) -> None:
    path = f"/v1/traces/{sorted_letters['id']}/safetensors?tensors=embed"
    whole = asked(port, path)[1]
    answer, part = asked(port, path, Range="bytes=8-15")
    assert (answer.status, part) == (206, whole[8:16])
    assert asked(port, path)[1] == whole


def test_a_head_has_no_body_and_a_get_after_it_has(port: int, sorted_letters: dict[str, Any]) -> None:
    path = f"/v1/traces/{sorted_letters['id']}/tensors/probs"
    assert asked(port, path, "HEAD")[1] == b""
    assert asked(port, path)[1] != b""


def test_what_is_unfinished_is_never_kept_and_its_events_come_as_they_are(
    port: int, long_request_body: dict[str, Any]
) -> None:
    answer, body = asked(port, "/v1/traces", "POST", long_request_body)
    path = f"/v1/traces/{json.loads(body)['id']}"
    assert (answer.status, answer.headers["Location"]) == (202, path)
    for _ in range(2):
        answer, body = asked(port, path)
        assert answer.headers["X-Cache"] == "MISS"
        assert json.loads(body)["status"] in ("queued", "running")
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", f"{path}/events")
        events = connection.getresponse()
        assert [events.readline() for _ in range(4)][3] == b"event: queued\n"  # held back, it would come with the end
        assert json.loads(asked(port, path)[1])["status"] in ("queued", "running")
        assert asked(port, path, "DELETE")[0].status == 204
        assert b"event: cancelled\n" in events.read()
    assert json.loads(asked(port, path)[1])["status"] == "cancelled"


def test_the_id_of_who_asks_goes_through(port: int, sorted_letters: dict[str, Any]) -> None:
    path = f"/v1/traces/{sorted_letters['id']}/tensors"
    for id in ("one", "two"):
        assert asked(port, path, X_Request_ID=id)[0].headers.get_all("X-Request-ID") == [id]
