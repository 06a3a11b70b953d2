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

FEW = 2  # threads for requests, streams and waiting clients each
SECONDS = 30  # time for anything on a slow machine


@dataclass(frozen=True)
class Api:
    """A running API."""

    port: int
    process: psutil.Process

    def connect(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def request(
        self, path: str = "/healthz", method: str = "GET", body: bytes = b"", **headers: str
    ) -> tuple[int, bytes]:
        """Send a request over a new connection; return the status and the body of the response."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body or None, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def send(self, text: bytes) -> bytes:
        """Send these bytes and no more; return everything that the server sends."""
        with self.connect() as client:
            try:
                client.sendall(text)
                client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the server refused it before reading all
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Return all bytes until the server closes the connection."""
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


@contextmanager
def running_api(servers: Servers, before: str = "") -> Iterator[Api]:
    """Run the API in its own processes, after the Python source `before`."""
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
                assert api.request()[0] == 200
                break
            except OSError:
                assert started.poll() is None, "the API did not start"
                assert time.monotonic() < deadline, "the API does not respond"
                time.sleep(0.05)
        yield api
    finally:
        started.terminate()
        started.wait(SECONDS)


@pytest.fixture(scope="session")
def api(servers: Servers, worker: psutil.Process) -> Iterator[Api]:
    """A running API with a worker."""
    assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") is None
    with running_api(servers) as running:
        yield running
