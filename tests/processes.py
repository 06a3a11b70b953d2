"""Real processes for tests to kill and restart: Redis servers, workers, the API."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TypeVar

import psutil

import service.up.redis_server as redis_server
from service.up.redis_server import Role, RunningRedis
from tests.conftest import Servers, running_worker
from worker.store.connection import connect

SECONDS = 60  # a timeout for everything, far longer than it takes unless the machine is busy
UNFINISHED = ("queued", "running")

Body = dict[str, Any]
T = TypeVar("T")


def eventually(find: Callable[[], T], seconds: float = SECONDS) -> T:
    """Call `find` until its result is true; return that."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class Response:
    """A response of the API, and how long it took. Status 0 means that the connection failed."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    seconds: float = 0.0

    @property
    def body(self) -> Body:
        body: Body = json.loads(self.content)
        return body


@dataclass(frozen=True)
class Api:
    """A client of a running API."""

    process: psutil.Process
    port: int

    def request(self, method: str, path: str, body: Body | None = None, **headers: str) -> Response:
        """Send a request on a connection of its own."""
        connection, started = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS), time.monotonic()
        sent = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, sent, {"Content-Type": "application/json"} | headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException):
            return Response(0)
        finally:
            connection.close()
        return Response(response.status, dict(response.headers), content, time.monotonic() - started)

    def submit(self, body: Body) -> str:
        """Submit a trace, which must be accepted; return its id."""
        response = self.request("POST", "/v1/traces", body)
        assert response.status in (200, 202), response
        return str(response.body["id"])

    def wait(self, id: str) -> Body:
        """Return a trace once it has ended."""

        def ended() -> Body | None:
            response = self.request("GET", f"/v1/traces/{id}", Prefer="wait=5")
            return response.body if response.status == 200 and response.body["status"] not in UNFINISHED else None

        trace = eventually(ended)
        assert trace is not None
        return trace

    def wait_for_progress(self, id: str) -> None:
        """Wait until a trace is being computed."""
        eventually(lambda: self.request("GET", f"/v1/traces/{id}").body["progress"])


class Stack:
    """Two Redis servers, and the workers and APIs that a test starts."""

    def __init__(self, folder: Path, cache_memory: str = "256mb") -> None:
        self.folder, self.cache_memory, self.running = folder, cache_memory, dict[Role, RunningRedis]()
        self.start("queue", "cache")
        self.servers = Servers(self.running["queue"].url, self.running["cache"].url)

    def start(self, *roles: Role) -> None:
        """Start Redis servers with the data on their disk."""
        for role in roles:
            self.running[role] = redis_server.start(role, self.folder, self.cache_memory)

    def kill(self, role: Role, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a Redis server, and wait until it has ended."""
        self.running[role].process.send_signal(number)
        self.running[role].process.wait(SECONDS)

    @contextmanager
    def unresponsive(self, *roles: Role) -> Iterator[None]:
        """Have Redis servers accept connections without answering for the duration of the block."""
        with suspended(*(psutil.Process(self.running[role].process.pid) for role in roles)):
            yield

    @contextmanager
    def workers(self, count: int) -> Iterator[list[psutil.Process]]:
        """Run `count` workers."""
        with ExitStack() as stack:
            yield [stack.enter_context(running_worker(self.servers)) for _ in range(count)]

    @contextmanager
    def api(self, **variables: str) -> Iterator[Api]:
        """Run the API; `variables` are added to its environment."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = self.servers.environment | {"PORT": str(port), **variables}
        # Its log is not captured, so that it is shown if a test fails.
        process = subprocess.Popen([sys.executable, "-m", "service", "api"], env=environment)
        running = Api(psutil.Process(process.pid), port)
        try:
            eventually(lambda: running.request("GET", "/healthz").status == 200)
            yield running
        finally:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """Kill the Redis servers."""
        for server in self.running.values():
            server.process.kill()
            server.process.wait()


@contextmanager
def stack(cache_memory: str = "256mb") -> Iterator[Stack]:
    """Run two empty Redis servers."""
    with tempfile.TemporaryDirectory(prefix="cutaway-test-") as folder:
        running = Stack(Path(folder), cache_memory)
        try:
            yield running
        finally:
            running.stop()


def kill_all(process: psutil.Process) -> None:
    """Kill a process and all its descendants."""
    for one in [*process.children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


@contextmanager
def suspended(*processes: psutil.Process) -> Iterator[None]:
    """Suspend processes for the duration of the block."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def busy(stack: Stack) -> list[psutil.Process]:
    """Return the worker processes that are running a job."""
    queue: Any = connect(stack.servers.queue_url)
    found = [queue.hmget(key, "state", "pid") for key in queue.scan_iter("rq:worker:*", _type="hash")]
    return [psutil.Process(int(pid)) for state, pid in found if state == b"busy"]
