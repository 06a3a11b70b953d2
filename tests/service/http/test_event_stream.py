"""Server-sent events: order, resuming, ends and limits."""

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


class Event(NamedTuple):
    id: str
    name: str
    data: Body


def parse(text: str) -> list[Event]:
    """Parse a stream as an EventSource does."""
    parsed = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith((":", "retry")) and line)
        if fields:
            parsed.append(Event(fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return parsed


def watch(client: FlaskClient, id: str, after: str | None = None, kind: str = "traces") -> TestResponse:
    headers = {"Last-Event-ID": after} if after else {}
    return client.get(f"/v1/{kind}/{id}/events", headers=headers)


def read_events(client: FlaskClient, id: str, after: str | None = None) -> list[Event]:
    """Return every event until the stream ends."""
    with watch(client, id, after) as response:
        text = response.get_data(as_text=True)
        assert response.status_code == HTTPStatus.OK, text
        return parse(text)


def post_trace(client: FlaskClient, body: Body, **headers: str) -> str:
    return str(client.post("/v1/traces", json=body, headers=headers).get_json()["id"])


def names(received: list[Event]) -> list[str]:
    return [event.name for event in received]


def first_event(response: Response) -> Event:
    """Return the first event of a stream that has not ended."""
    text = ""
    for chunk in response.iter_encoded():
        text += chunk.decode()
        if parse(text):
            return parse(text)[0]
    raise AssertionError("the stream ended")


def test_a_trace_has_events_from_queued_to_done(client: FlaskClient, long_request_body: Body) -> None:
    response = watch(client, post_trace(client, long_request_body | {"generate": {"max_new_tokens": 60}}))
    received = parse(response.text)
    assert response.content_type == "text/event-stream"
    assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-store", "no")
    assert response.text.startswith("retry: ")
    assert names(received)[:2] == ["queued", "started"]
    assert names(received)[-1] == "done"
    assert set(names(received)[2:-1]) == {"progress"}
    done = [event.data["done"] for event in received if event.name == "progress"]
    assert done == sorted(set(done))
    assert {event.data["total"] for event in received if event.name == "progress"} == {24 * 60}
    assert [event.id for event in received] == sorted({event.id for event in received}, key=lambda id: id.split("-"))


def test_a_stream_resumes_after_any_event(client: FlaskClient, long_request_body: Body) -> None:
    id = post_trace(client, long_request_body | {"generate": {"max_new_tokens": 60}})
    whole = read_events(client, id)
    for n, event in enumerate(whole[:-1]):
        assert read_events(client, id, after=event.id) == whole[n + 1 :]


def test_after_the_last_event_it_is_204_to_stop_reconnects(client: FlaskClient, sorted_letters: Body) -> None:
    last = read_events(client, sorted_letters["id"])[-1]
    assert last.name == "done"
    response = watch(client, sorted_letters["id"], after=last.id)
    assert (response.status_code, response.data) == (HTTPStatus.NO_CONTENT, b"")


def test_a_finished_trace_whose_events_expired_still_has_a_last_event(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    id = post_trace(client, request_body, Prefer="wait=30")
    before = read_events(client, id)
    events.delete(connect(servers.queue_url), id)
    [last] = read_events(client, id)
    assert last.name == "done"
    assert read_events(client, id, after=before[1].id) == [last]
    assert watch(client, id, after=last.id).status_code == HTTPStatus.NO_CONTENT


def test_a_cancelled_trace_ends_its_stream_and_resubmitting_starts_a_new_one(
    client: FlaskClient, long_request_body: Body
) -> None:
    id = post_trace(client, long_request_body)
    with watch(client, id) as response:
        assert first_event(response).name == "queued"
        client.delete(f"/v1/traces/{id}")
        rest = parse(b"".join(response.iter_encoded()).decode())
    assert names(rest)[-1] == "cancelled"
    assert names(read_events(client, id))[-1] == "cancelled"
    post_trace(client, long_request_body)
    with watch(client, id) as again:
        assert first_event(again).name == "queued"
    resumed = watch(client, id, after=rest[-2].id if len(rest) > 1 else None)
    with resumed:
        assert first_event(resumed).name in ("cancelled", "progress", "queued")
    client.delete(f"/v1/traces/{id}")


def test_a_failed_trace_has_an_event_with_the_reason(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    connect(idle_servers.cache_url).config_set("maxmemory", "1")
    id = post_trace(idle_client, request_body)
    with running_worker(idle_servers):
        received = read_events(idle_client, id)
    assert names(received) == ["queued", "started", "failed"]
    assert received[-1].data["reason"].startswith("the cache has no room for a result of ")


def test_layouts_have_events_too(client: FlaskClient, sorted_letters: Body) -> None:
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
def test_an_invalid_event_id_or_media_type_is_refused(
    client: FlaskClient, sorted_letters: Body, headers: dict[str, str], status: HTTPStatus
) -> None:
    response = client.get(f"/v1/traces/{sorted_letters['id']}/events", headers=headers)
    assert (response.status_code, response.content_type) == (status, "application/problem+json")


def test_a_stream_without_events_sends_comments(
    idle_client: FlaskClient, request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.http.event_stream, "_KEEPALIVE_INTERVAL", 0.01)
    monkeypatch.setattr(service.http.event_stream, "_POLL_INTERVAL", 0.02)
    with watch(idle_client, post_trace(idle_client, request_body)) as response:
        chunks = response.iter_encoded()
        assert [next(chunks) for _ in range(4)][2:] == [b":\n\n"] * 2


def test_open_streams_are_limited_and_a_closed_one_makes_room(idle_servers: Servers, request_body: Body) -> None:
    client = create_app(replace(idle_servers.settings, max_streams=2)).test_client()
    id = post_trace(client, request_body)
    client.head(f"/v1/traces/{id}/events")  # opens no stream
    first, second = watch(client, id), watch(client, id)
    full = watch(client, id)
    assert (full.status_code, full.content_type) == (HTTPStatus.TOO_MANY_REQUESTS, "application/problem+json")
    assert int(full.headers["Retry-After"]) > 0
    first.close()
    third = watch(client, id)
    assert third.status_code == HTTPStatus.OK
    second.close()
    third.close()


# ------------------------------------------------------------------------------------------------ with a real server


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
        assert time.monotonic() - began < 9, "open streams delayed the stop"


def test_open_streams_block_neither_other_requests_nor_the_stop_of_the_server(
    idle_servers: Servers, idle_client: FlaskClient, request_body: Body
) -> None:
    id = post_trace(idle_client, request_body)
    with serving(idle_servers, THREADS="1", MAX_STREAMS="2") as connect_to:

        def get(path: str) -> tuple[int, HTTPConnection]:
            connection = connect_to()
            connection.request("GET", path)
            return connection.getresponse().status, connection

        streams = [get(f"/v1/traces/{id}/events") for _ in range(2)]
        assert [status for status, _ in streams] == [HTTPStatus.OK] * 2
        assert get(f"/v1/traces/{id}/events")[0] == HTTPStatus.TOO_MANY_REQUESTS
        assert get("/healthz")[0] == HTTPStatus.OK


def test_a_reader_with_a_later_event_id_changes_nothing_for_others(
    client: FlaskClient, sorted_letters: Body, servers: Servers
) -> None:
    id = sorted_letters["id"]
    queue = connect(servers.settings.queue_url)
    published = events.latest(queue, id)
    assert published is not None
    received = parse(watch(client, id, "9999999999999-0").text)
    assert [tuple(event) for event in received] == [tuple(published)]
    assert events.latest(queue, id) == published
