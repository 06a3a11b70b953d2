"""Redis killed or unresponsive: accepted requests survive, others get 503, and the service recovers by itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

import worker.store.pieces as pieces
from service.up.redis_server import Role
from tests.processes import Api, Body, Response, Stack, eventually
from worker.store.connection import connect

HEALTH_SECONDS = 2.0  # within which a health check answers
CLIENTS = 60  # that poll: more than the server has threads


def variant(body: Body, n: int) -> Body:
    """The same trace with other weights."""
    return body | {"weights": {"synthetic": body["weights"]["synthetic"] * 1000 + n}}


@contextmanager
def polling(api: Api, *paths: str) -> Iterator[list[Response]]:
    """Collect the responses to clients that poll, one for each path."""
    responses: list[Response] = []
    stop = threading.Event()

    def poll(path: str) -> None:
        while not stop.is_set():
            responses.append(api.request("GET", path))
            time.sleep(0.05)

    threads = [threading.Thread(target=poll, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    try:
        yield responses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def watching(api: Api, id: str) -> Iterator[list[bytes]]:
    """Collect the event lines of a trace, received on one connection."""
    lines: list[bytes] = []
    connection = HTTPConnection("127.0.0.1", api.port, timeout=60)
    connection.request("GET", f"/v1/traces/{id}/events")
    response = connection.getresponse()

    def read() -> None:
        lines.extend(line.strip() for line in response if line.startswith(b"event:"))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield lines
        thread.join()
    finally:
        connection.close()


@contextmanager
def killed(stack: Stack, *roles: Role) -> Iterator[None]:
    """Kill Redis servers, and restart them at the end of the block with the data on their disk."""
    for role in roles:
        stack.kill(role)
    yield
    stack.start(*roles)


@pytest.mark.parametrize(
    ("fault", "roles", "duration"),
    [
        pytest.param("killed", ("queue", "cache"), 10.0, id="both are killed"),
        pytest.param("unresponsive", ("queue",), 10.0, id="the queue is unresponsive"),
        pytest.param("unresponsive", ("cache",), 3.0, id="the cache is unresponsive"),
    ],
)
def test_an_unavailable_redis_is_503_and_everything_continues_afterwards(
    stack: Stack, fault: str, roles: tuple[Role, ...], duration: float, slow_body: Body, request_body: Body
) -> None:
    with stack.api() as api, stack.workers(1):
        running = api.submit(slow_body)
        queued = [api.submit(variant(request_body, n)) for n in range(3)]
        with watching(api, running) as events:
            api.wait_for_progress(running)
            paths = [f"/v1/traces/{running}"] * CLIENTS
            outage = killed(stack, *roles) if fault == "killed" else stack.unresponsive(*roles)
            with outage, polling(api, *paths) as responses:
                until = time.monotonic() + duration
                while time.monotonic() < until:
                    assert_unavailable(api, request_body)
            ended = [api.wait(id) for id in (running, *queued)]
        assert {response.status for response in responses} == {503}
        assert [trace["status"] for trace in ended] == ["done"] * 4
        assert (events[-1], events.count(b"event: done")) == (b"event: done", 1)
        eventually(lambda: api.request("GET", "/readyz").status == 200)
        assert api.wait(api.submit(variant(request_body, 4)))["status"] == "done"


def assert_unavailable(api: Api, request_body: Body) -> None:
    alive, ready = api.request("GET", "/healthz"), api.request("GET", "/readyz")
    assert (alive.status, ready.status) == (200, 503)
    assert max(alive.seconds, ready.seconds) < HEALTH_SECONDS
    rejected = api.request("POST", "/v1/traces", variant(request_body, 5))
    assert (rejected.status, rejected.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(rejected.headers["Retry-After"]) > 0


def test_accepted_requests_survive_when_the_queue_and_the_api_are_killed(stack: Stack, request_body: Body) -> None:
    accepted: list[str] = []
    stop = threading.Event()

    def submit_many(api: Api, first: int) -> None:
        for n in range(first, first + 10_000, 4):
            response = api.request("POST", "/v1/traces", variant(request_body, n))
            assert response.status in (0, 202, 503), response
            if response.status == 202:
                accepted.append(response.body["id"])
            if stop.is_set():
                return

    with stack.workers(1):
        with stack.api() as api:
            threads = [threading.Thread(target=submit_many, args=(api, n)) for n in range(4)]
            for thread in threads:
                thread.start()
            for number in (signal.SIGTERM, signal.SIGKILL):
                target = len(accepted) + 15
                eventually(lambda target=target: len(accepted) > target)  # type: ignore[misc]
                stack.kill("queue", number)
                stack.start("queue")
            target = len(accepted) + 15
            eventually(lambda: len(accepted) > target)
            for process in api.process.children(recursive=True):
                process.kill()  # the server process, which its parent replaces
            stop.set()
            for thread in threads:
                thread.join()
        with stack.api() as api:
            statuses = {api.wait(id)["status"] for id in accepted}
    assert statuses == {"done"}
    cache = connect(stack.servers.cache_url)
    assert pieces.which_done(cache, accepted) == {*accepted}
