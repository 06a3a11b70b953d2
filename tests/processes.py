"""Real processes that a test may kill, stop and start again: both Redis, workers, the API under its server."""

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

SECONDS = 60  # for whatever a busy machine does; nothing here waits that long on a good day
UNFINISHED = ("queued", "running")

Body = dict[str, Any]
T = TypeVar("T")


def eventually(find: Callable[[], T], seconds: float = SECONDS) -> T:
    """What is found, once anything is."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class Answer:
    """What the API answered, and after how many seconds. Status 0 stands for an API that is not there."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    took: float = 0.0

    @property
    def body(self) -> Body:
        found: Body = json.loads(self.content)
        return found


@dataclass(frozen=True)
class Api:
    """The API as its clients see it."""

    process: psutil.Process
    port: int

    def ask(self, method: str, path: str, body: Body | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection, began = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS), time.monotonic()
        sent = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, sent, {"Content-Type": "application/json"} | headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException):
            return Answer(0)
        finally:
            connection.close()
        return Answer(answer.status, dict(answer.headers), content, time.monotonic() - began)

    def trace(self, body: Body) -> str:
        """The id of a trace that is accepted."""
        answer = self.ask("POST", "/v1/traces", body)
        assert answer.status in (200, 202), answer
        return str(answer.body["id"])

    def ended(self, id: str) -> Body:
        """A trace once it has ended."""

        def look() -> Body | None:
            answer = self.ask("GET", f"/v1/traces/{id}", Prefer="wait=5")
            return answer.body if answer.status == 200 and answer.body["status"] not in UNFINISHED else None

        found = eventually(look)
        assert found is not None
        return found

    def progressed(self, id: str) -> None:
        """Wait until a trace is being computed."""
        eventually(lambda: self.ask("GET", f"/v1/traces/{id}").body["progress"])


class Stack:
    """Both Redis, and what a test starts beside them."""

    def __init__(self, folder: Path, cache_memory: str = "256mb") -> None:
        self.folder, self.cache_memory, self.running = folder, cache_memory, dict[Role, RunningRedis]()
        self.start("queue", "cache")
        self.servers = Servers(self.running["queue"].url, self.running["cache"].url)

    def start(self, *roles: Role) -> None:
        """Start a Redis with what its disk holds."""
        for role in roles:
            self.running[role] = redis_server.start(role, self.folder, self.cache_memory)

    def kill(self, role: Role, number: signal.Signals = signal.SIGKILL) -> None:
        """End a Redis."""
        self.running[role].process.send_signal(number)
        self.running[role].process.wait(SECONDS)

    @contextmanager
    def away(self, *roles: Role) -> Iterator[None]:
        """For a time, these Redis take connections and never answer."""
        with suspended(*(psutil.Process(self.running[role].process.pid) for role in roles)):
            yield

    @contextmanager
    def workers(self, count: int) -> Iterator[list[psutil.Process]]:
        """So many workers."""
        with ExitStack() as stack:
            yield [stack.enter_context(running_worker(self.servers)) for _ in range(count)]

    @contextmanager
    def api(self, **variables: str) -> Iterator[Api]:
        """The API under its server."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = self.servers.environment | {"PORT": str(port), **variables}
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "api"], env=environment
        )  # its log: if a test fails
        found = Api(psutil.Process(process.pid), port)
        try:
            eventually(lambda: found.ask("GET", "/healthz").status == 200)
            yield found
        finally:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End what runs."""
        for server in self.running.values():
            server.process.kill()
            server.process.wait()


@contextmanager
def stack(cache_memory: str = "256mb") -> Iterator[Stack]:
    """Both Redis with nothing in them."""
    with tempfile.TemporaryDirectory(prefix="cutaway-test-") as folder:
        found = Stack(Path(folder), cache_memory)
        try:
            yield found
        finally:
            found.stop()


def kill_all(process: psutil.Process) -> None:
    """Kill a process with all that it started, at once."""
    for one in [*process.children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


@contextmanager
def suspended(*processes: psutil.Process) -> Iterator[None]:
    """For a time, processes do nothing."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def busy(stack: Stack) -> list[psutil.Process]:
    """The processes of workers, one of each job size, that have a job."""
    queue: Any = connect(stack.servers.queue_url)
    found = [queue.hmget(key, "state", "pid") for key in queue.scan_iter("rq:worker:*", _type="hash")]
    return [psutil.Process(int(pid)) for state, pid in found if state == b"busy"]
