"""The whole of Cutaway for a measurement: two Redis, a worker, the API, each a process of its own."""

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
    """Where the parts are."""

    queue_url: str
    cache_url: str
    port: int

    def connect(self) -> HTTPConnection:
        """A connection to the API that is kept open."""
        return HTTPConnection("127.0.0.1", self.port, timeout=60)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(**settings: str) -> Iterator[Stack]:
    """Start everything with these settings, wait until it is ready, stop it at the end."""
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cutaway-")))
        queue = stack.enter_context(redis_server.start("queue", folder))
        cache = stack.enter_context(redis_server.start("cache", folder))
        environment = os.environ | {"QUEUE_URL": queue.url, "CACHE_URL": cache.url, "PORT": str(port)} | settings
        for command in (["worker"], ["service", "api"]):
            stack.enter_context(process(command, environment))
        found = Stack(queue.url, cache.url, port)
        wait(found)
        yield found


def wait_for(port: int) -> None:
    """Wait until somebody listens at a port."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
    sys.exit("The server did not start in 30 s.")


@contextmanager
def process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a process, for a time."""
    command = [sys.executable, "-m", *command]
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # nosec B603
    try:
        yield started
    finally:
        started.terminate()
        started.wait(30)


def wait(stack: Stack) -> None:
    """Until the service is ready."""
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
            sys.exit("The service did not get ready in 30 s.")
        time.sleep(0.1)
