"""A running Cutaway: two Redis servers, a worker and the API."""

from __future__ import annotations

import os
import socket
import subprocess  # nosec B404
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import service.up.redis_server as redis_server


@dataclass(frozen=True)
class Stack:
    """The addresses of the processes."""

    queue_url: str
    cache_url: str
    port: int

    def connect(self) -> HTTPConnection:
        """Return a persistent connection to the API."""
        return HTTPConnection("127.0.0.1", self.port, timeout=60)


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(**settings: str) -> Iterator[Stack]:
    """Start all processes with these settings, wait until they are ready, and stop them at the end."""
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cutaway-")))
        queue = stack.enter_context(redis_server.start("queue", folder))
        cache = stack.enter_context(redis_server.start("cache", folder))
        environment = os.environ | {"QUEUE_URL": queue.url, "CACHE_URL": cache.url, "PORT": str(port)} | settings
        for command in (["worker"], ["service", "api"]):
            stack.enter_context(process(command, environment))
        addresses = Stack(queue.url, cache.url, port)
        wait_until_ready(addresses)
        yield addresses


def wait_for(port: int) -> None:
    """Wait until a server listens on a port."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
    sys.exit("The server did not start within 30 s.")


@contextmanager
def process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module as a process, and terminate it at the end."""
    command = [sys.executable, "-m", *command]
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # nosec B603
    try:
        yield started
    finally:
        started.terminate()
        started.wait(30)


def wait_until_ready(stack: Stack) -> None:
    """Wait until the service is ready."""
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = stack.connect()
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        if time.monotonic() > deadline:
            sys.exit("The service was not ready within 30 s.")
        time.sleep(0.1)
