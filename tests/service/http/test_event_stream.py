"""Server-sent events: they come in order, resume anywhere, end with the request, and hold no more than their places."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient
from werkzeug import Response
from werkzeug.test import TestResponse

import service.http.event_stream
import worker.store.events as events
from service.app import create_app
from tests.conftest import Servers, running_worker
from worker.store.connection import connect

Body = dict[str, Any]


class Told(NamedTuple):
    id: str
    name: str
    data: Body


def parse(text: str) -> list[Told]:
    """What an EventSource would make of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith((":", "retry")) and line)
        if fields:
            found.append(Told(fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def watch(client: FlaskClient, id: str, after: str | None = None, kind: str = "traces") -> TestResponse:
    headers = {"Last-Event-ID": after} if after else {}
    return client.get(f"/v1/{kind}/{id}/events", headers=headers)


def told(client: FlaskClient, id: str, after: str | None = None) -> list[Told]:
    """Every event up to the end of the stream."""
    with watch(client, id, after) as answer:
        text = answer.get_data(as_text=True)
        assert answer.status_code == HTTPStatus.OK, text
        return parse(text)


def ask(client: FlaskClient, body: Body, **headers: str) -> str:
    return str(client.post("/v1/traces", json=body, headers=headers).get_json()["id"])


def names(found: list[Told]) -> list[str]:
    return [event.name for event in found]


def first_event(answer: Response) -> Told:
    """The first event of a stream that goes on."""
    text = ""
    for chunk in answer.iter_encoded():
        text += chunk.decode()
        if parse(text):
            return parse(text)[0]
    raise AssertionError("the stream ended")


def test_a_trace_is_told_from_its_beginning_to_its_end(client: FlaskClient, long_request_body: Body) -> None:
    answer = watch(client, ask(client, long_request_body | {"generate": {"max_new_tokens": 60}}))
    found = parse(answer.text)
    assert answer.content_type == "text/event-stream"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-store", "no")
    assert answer.text.startswith("retry: ")
    assert names(found)[:2] == ["queued", "started"]
    assert names(found)[-1] == "done"
    assert set(names(found)[2:-1]) == {"progress"}
    done = [event.data["done"] for event in found if event.name == "progress"]
    assert done == sorted(set(done))
    assert {event.data["total"] for event in found if event.name == "progress"} == {24 * 60}
    assert [event.id for event in found] == sorted({event.id for event in found}, key=lambda id: id.split("-"))


def test_after_any_event_the_rest_is_told_once(client: FlaskClient, long_request_body: Body) -> None:
    id = ask(client, long_request_body | {"generate": {"max_new_tokens": 60}})
    whole = told(client, id)
    for n, event in enumerate(whole[:-1]):
        assert told(client, id, after=event.id) == whole[n + 1 :]


def test_who_knows_the_end_is_told_not_to_come_back(client: FlaskClient, sorted_letters: Body) -> None:
    last = told(client, sorted_letters["id"])[-1]
    assert last.name == "done"
    answer = watch(client, sorted_letters["id"], after=last.id)
    assert (answer.status_code, answer.data) == (HTTPStatus.NO_CONTENT, b"")


def test_a_trace_whose_events_have_expired_is_still_told_to_have_ended(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    id = ask(client, request_body, Prefer="wait=30")
    before = told(client, id)
    events.forget(connect(servers.queue_url), id)
    [last] = told(client, id)
    assert last.name == "done"
    assert told(client, id, after=before[1].id) == [last]
    assert watch(client, id, after=last.id).status_code == HTTPStatus.NO_CONTENT


def test_a_cancelled_trace_is_told_to_be_and_what_is_asked_for_again_begins_anew(
    client: FlaskClient, long_request_body: Body
) -> None:
    id = ask(client, long_request_body)
    with watch(client, id) as answer:
        assert first_event(answer).name == "queued"
        client.delete(f"/v1/traces/{id}")
        rest = parse(b"".join(answer.iter_encoded()).decode())
    assert names(rest)[-1] == "cancelled"
    assert names(told(client, id))[-1] == "cancelled"
    ask(client, long_request_body)
    with watch(client, id) as again:
        assert first_event(again).name == "queued"
    resumed = watch(client, id, after=rest[-2].id if len(rest) > 1 else None)
    with resumed:
        assert first_event(resumed).name in ("cancelled", "progress", "queued")
    client.delete(f"/v1/traces/{id}")


def test_a_failed_trace_tells_its_reason(idle_client: FlaskClient, idle_servers: Servers, request_body: Body) -> None:
    connect(idle_servers.cache_url).config_set("maxmemory", "1")
    id = ask(idle_client, request_body)
    with running_worker(idle_servers):
        found = told(idle_client, id)
    assert names(found) == ["queued", "started", "failed"]
    assert found[-1].data["reason"].startswith("the cache has no room for a result of ")


def test_a_layout_is_told_too(client: FlaskClient, sorted_letters: Body) -> None:
    id = sorted_letters["layout"].rpartition("/")[2]
    assert names(parse(watch(client, id, kind="layouts").text))[-1] == "done"
    assert watch(client, id).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Last-Event-ID": "last"}, HTTPStatus.UNPROCESSABLE_ENTITY),
        ({"Last-Event-ID": "1-" + "9" * 30}, HTTPStatus.UNPROCESSABLE_ENTITY),
        ({"Accept": "application/json"}, HTTPStatus.NOT_ACCEPTABLE),
    ],
)
def test_what_cannot_be_told_is_refused(
    client: FlaskClient, sorted_letters: Body, headers: dict[str, str], status: HTTPStatus
) -> None:
    answer = client.get(f"/v1/traces/{sorted_letters['id']}/events", headers=headers)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")


def test_a_silent_stream_speaks_now_and_then(
    idle_client: FlaskClient, request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.http.event_stream, "_SILENCE", 0.01)
    monkeypatch.setattr(service.http.event_stream, "_LOOK_AGAIN", 0.02)
    with watch(idle_client, ask(idle_client, request_body)) as answer:
        chunks = answer.iter_encoded()
        assert [next(chunks) for _ in range(4)][2:] == [b":\n\n"] * 2


def test_no_more_streams_are_open_than_may_be_and_who_goes_away_makes_room(
    idle_servers: Servers, request_body: Body
) -> None:
    client = create_app(replace(idle_servers.settings, max_streams=2)).test_client()
    id = ask(client, request_body)
    client.head(f"/v1/traces/{id}/events")  # which opens none
    first, second = watch(client, id), watch(client, id)
    full = watch(client, id)
    assert (full.status_code, full.content_type) == (HTTPStatus.TOO_MANY_REQUESTS, "application/problem+json")
    assert int(full.headers["Retry-After"]) > 0
    first.close()
    third = watch(client, id)
    assert third.status_code == HTTPStatus.OK
    second.close()
    third.close()


# ---------------------------------------------------------------------------------------- under the server that runs


@contextmanager
def serving(servers: Servers, **variables: str) -> Iterator[Callable[[], HTTPConnection]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = servers.environment | {"PORT": str(port), **variables}
    process = subprocess.Popen([sys.executable, "-m", "service", "api"], env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                HTTPConnection("127.0.0.1", port).request("GET", "/healthz")
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield lambda: HTTPConnection("127.0.0.1", port, timeout=20)
    finally:
        began = time.monotonic()
        process.terminate()
        process.wait(30)
        assert time.monotonic() - began < 9, "open streams held the server back"


def test_open_streams_leave_the_threads_of_other_requests_alone_and_let_the_server_stop(
    idle_servers: Servers, idle_client: FlaskClient, request_body: Body
) -> None:
    id = ask(idle_client, request_body)
    with serving(idle_servers, THREADS="1", MAX_STREAMS="2") as connect_to:

        def asked(path: str) -> tuple[int, HTTPConnection]:
            connection = connect_to()
            connection.request("GET", path)
            return connection.getresponse().status, connection

        held = [asked(f"/v1/traces/{id}/events") for _ in range(2)]
        assert [status for status, _ in held] == [HTTPStatus.OK] * 2
        assert asked(f"/v1/traces/{id}/events")[0] == HTTPStatus.TOO_MANY_REQUESTS
        assert asked("/healthz")[0] == HTTPStatus.OK
