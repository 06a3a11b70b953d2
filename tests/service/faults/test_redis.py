"""Redis killed, stopped or away: what was accepted is kept, everybody else hears 503, and all goes on by itself."""

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
from tests.processes import Answer, Api, Body, Stack, eventually
from worker.store.connection import connect

SOON = 2.0  # seconds in which a health check answers
CLIENTS = 60  # who go on asking: more than the server has threads


def new(body: Body, n: int) -> Body:
    """The same trace of other weights."""
    return body | {"weights": {"synthetic": body["weights"]["synthetic"] * 1000 + n}}


@contextmanager
def asking(api: Api, *paths: str) -> Iterator[list[Answer]]:
    """What clients hear who read something again and again, all at once."""
    heard: list[Answer] = []
    going_on = threading.Event()

    def go_on(path: str) -> None:
        while not going_on.is_set():
            heard.append(api.ask("GET", path))
            time.sleep(0.05)

    threads = [threading.Thread(target=go_on, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        going_on.set()
        for thread in threads:
            thread.join()


@contextmanager
def watching(api: Api, id: str) -> Iterator[list[bytes]]:
    """The events of a trace, as they come on one connection."""
    told: list[bytes] = []
    connection = HTTPConnection("127.0.0.1", api.port, timeout=60)
    connection.request("GET", f"/v1/traces/{id}/events")
    answer = connection.getresponse()

    def read() -> None:
        told.extend(line.strip() for line in answer if line.startswith(b"event:"))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield told
        thread.join()
    finally:
        connection.close()


@contextmanager
def gone(stack: Stack, *roles: Role) -> Iterator[None]:
    """Killed, and later started with what is on the disk."""
    for role in roles:
        stack.kill(role)
    yield
    stack.start(*roles)


@pytest.mark.parametrize(
    ("how", "roles", "away"),
    [
        pytest.param("gone", ("queue", "cache"), 10.0, id="both are gone"),
        pytest.param("silent", ("queue",), 10.0, id="the queue is silent"),
        pytest.param("silent", ("cache",), 3.0, id="the cache is silent"),
    ],
)
def test_while_redis_is_away_health_is_told_and_the_rest_is_503_and_then_all_goes_on(
    stack: Stack, how: str, roles: tuple[Role, ...], away: float, seconds: Body, request_body: Body
) -> None:
    with stack.api() as api, stack.workers(1):
        running = api.trace(seconds)
        waiting = [api.trace(new(request_body, n)) for n in range(3)]
        with watching(api, running) as told:
            api.progressed(running)
            paths = [f"/v1/traces/{running}"] * CLIENTS
            with gone(stack, *roles) if how == "gone" else stack.away(*roles), asking(api, *paths) as heard:
                until = time.monotonic() + away
                while time.monotonic() < until:
                    assert_told(api, request_body)
            states = [api.ended(id) for id in (running, *waiting)]
        assert {answer.status for answer in heard} == {503}
        assert [trace["status"] for trace in states] == ["done"] * 4
        assert (told[-1], told.count(b"event: done")) == (b"event: done", 1)
        eventually(lambda: api.ask("GET", "/readyz").status == 200)
        assert api.ended(api.trace(new(request_body, 4)))["status"] == "done"


def assert_told(api: Api, request_body: Body) -> None:
    alive, ready = api.ask("GET", "/healthz"), api.ask("GET", "/readyz")
    assert (alive.status, ready.status) == (200, 503)
    assert max(alive.took, ready.took) < SOON
    refused = api.ask("POST", "/v1/traces", new(request_body, 5))
    assert (refused.status, refused.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(refused.headers["Retry-After"]) > 0


def test_what_was_accepted_is_done_although_the_queue_and_the_api_are_killed_meanwhile(
    stack: Stack, request_body: Body
) -> None:
    accepted: list[str] = []
    stop = threading.Event()

    def go_on(api: Api, first: int) -> None:
        for n in range(first, first + 10_000, 4):
            answer = api.ask("POST", "/v1/traces", new(request_body, n))
            assert answer.status in (0, 202, 503), answer
            if answer.status == 202:
                accepted.append(answer.body["id"])
            if stop.is_set():
                return

    with stack.workers(1):
        with stack.api() as api:
            threads = [threading.Thread(target=go_on, args=(api, n)) for n in range(4)]
            for thread in threads:
                thread.start()
            for number in (signal.SIGTERM, signal.SIGKILL):
                many = len(accepted) + 15
                eventually(lambda many=many: len(accepted) > many)  # type: ignore[misc]
                stack.kill("queue", number)
                stack.start("queue")
            many = len(accepted) + 15
            eventually(lambda: len(accepted) > many)
            for process in api.process.children(recursive=True):
                process.kill()  # the one that answers; its parent starts another
            stop.set()
            for thread in threads:
                thread.join()
        with stack.api() as api:
            states = {id: api.ended(id)["status"] for id in accepted}
    assert {*states.values()} == {"done"}
    cache = connect(stack.servers.cache_url)
    assert pieces.which_done(cache, accepted) == {*accepted}
