"""The API as `cutaway api` runs it: a real gunicorn with few threads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection

import psutil
import pytest

from tests.conftest import Servers

FEW = 2  # threads for requests, for streams, and for who waits
SECONDS = 30  # for whatever a slow machine does


@dataclass(frozen=True)
class Api:
    """A running API."""

    port: int
    process: psutil.Process

    def connect(self) -> socket.socket:
        """A connection that says nothing yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def ask(self, path: str = "/healthz", method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """The status and the body of an answer, over a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body or None, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def tell(self, text: bytes) -> bytes:
        """Everything that is answered to these bytes, of which there are no more."""
        with self.connect() as client:
            try:
                client.sendall(text)
                client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it was refused before it was read
            return heard(client)


def heard(client: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    told = b""
    try:
        while piece := client.recv(65536):
            told += piece
    except ConnectionResetError:
        pass
    return told


@contextmanager
def running_api(servers: Servers, before: str = "") -> Iterator[Api]:
    """The API in processes of its own, `before` being run in them first."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = servers.environment | {"MAX_STREAMS": str(FEW), "MAX_WAITS": str(FEW)}
    source = f"{before}\nfrom service.__main__ import main\nmain(prog_name='cutaway')"
    started = subprocess.Popen(
        [sys.executable, "-c", source, "api", f"--port={port}", f"--threads={FEW}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    api = Api(port, psutil.Process(started.pid))
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                assert api.ask()[0] == 200
                break
            except OSError:
                assert started.poll() is None, "the API did not start"
                assert time.monotonic() < deadline, "the API does not answer"
                time.sleep(0.05)
        yield api
    finally:
        started.terminate()
        started.wait(SECONDS)


@pytest.fixture(scope="session")
def api(servers: Servers, worker: psutil.Process) -> Iterator[Api]:
    """The API, with a worker behind it."""
    assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") is None
    with running_api(servers) as running:
        yield running
