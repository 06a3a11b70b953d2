"""Batches over HTTP: each member a trace of its own, and its events."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import psutil
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import service.jobs.batching as batching
import worker.store.events as events
from service.app import create_app
from service.jobs.batch_events import BatchEvents
from service.jobs.status import UNFINISHED
from service.resources.batches import MOST
from tests.conftest import Servers, process_of, running_worker
from tests.service.http.test_event_stream import Event, parse
from worker.store.connection import connect
from worker.store.queues import NAMES

Body = dict[str, Any]
NDJSON = "application/x-ndjson"


def several(request_body: Body, count: int) -> list[Body]:
    """Small traces that nobody has asked for before."""
    return [request_body | {"tokens": [n % 20, n // 20]} for n in range(count)]


def ask(client: FlaskClient, requests: list[Any]) -> Body:
    answer = client.post("/v1/batches", json={"requests": requests})
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    body: Body = answer.get_json()
    assert answer.headers["Location"] == f"/v1/batches/{body['id']}"
    return body


def get(client: FlaskClient, id: str) -> Body:
    answer = client.get(f"/v1/batches/{id}")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (HTTPStatus.OK, "no-store")
    body: Body = answer.get_json()
    statuses = Counter(trace["status"] for trace in body["traces"])
    assert {name: body[name] for name in (*UNFINISHED, *events.ENDS)} == {
        name: statuses[name] for name in (*UNFINISHED, *events.ENDS)
    }
    assert body["total"] == len(body["traces"])
    return body


def watch(client: FlaskClient, id: str, after: str | None = None) -> TestResponse:
    headers = {"Last-Event-ID": after} if after else {}
    return client.get(f"/v1/batches/{id}/events", headers=headers, buffered=True)  # which closes the stream


def ended(client: FlaskClient, id: str) -> Body:
    """The batch, once all of it has ended."""
    assert parse(watch(client, id).text)[-1].name == "done"
    return get(client, id)


def statuses(batch: Body) -> list[str]:
    return [trace["status"] for trace in batch["traces"]]


def ends(told: list[Event]) -> list[tuple[int, str]]:
    return [(event.data["index"], event.data["status"]) for event in told if event.name == "trace"]


def times_started(servers: Servers, id: str) -> int:
    entries: Any = connect(servers.queue_url).xrange(f"events:{id}")
    return [fields[b"event"] for _, fields in entries].count(b"started")


def jobs(servers: Servers) -> int:
    """How many wait, in all queues."""
    return sum(int(connect(servers.queue_url).llen(f"rq:queue:{name}")) for name in NAMES)


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def refused(answer: TestResponse) -> Body:
    assert (answer.status_code, answer.content_type) == (HTTPStatus.UNPROCESSABLE_ENTITY, "application/problem+json")
    found: Body = answer.get_json()["errors"]
    return found


# -------------------------------------------------------------------------------------------------------- asking


@pytest.mark.parametrize("lines", [False, True], ids=["json", "ndjson"])
def test_each_trace_of_a_batch_is_the_trace_that_would_be_asked_for_alone(
    client: FlaskClient, request_body: Body, lines: bool
) -> None:
    wanted = several(request_body, 3)
    if lines:
        text = "\n".join(map(json.dumps, wanted)) + "\n\n"
        batch = client.post("/v1/batches", data=text, content_type=NDJSON).get_json()
    else:
        batch = ask(client, wanted)
    done = ended(client, batch["id"])
    assert (done["total"], done["done"]) == (3, 3)
    alone = [client.post("/v1/traces", json=body) for body in wanted]
    assert [trace["id"] for trace in done["traces"]] == [answer.get_json()["id"] for answer in alone]
    assert [answer.status_code for answer in alone] == [HTTPStatus.OK] * 3
    assert [trace["index"] for trace in done["traces"]] == [0, 1, 2]


def test_the_same_request_twice_is_one_trace_at_two_places(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    first, second = several(request_body, 2)
    done = ended(client, ask(client, [first, second, first])["id"])
    ids = [trace["id"] for trace in done["traces"]]
    assert (ids[0], len(set(ids)), done["done"]) == (ids[2], 2, 3)
    assert times_started(servers, ids[0]) == 1


def test_what_is_done_or_under_way_is_not_computed_again(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    done, under_way, new = several(request_body, 3)
    client.post("/v1/traces", json=done, headers={"Prefer": "wait=30"})
    client.post("/v1/traces", json=under_way)
    batch = ended(client, ask(client, [done, under_way, new])["id"])
    assert [times_started(servers, trace["id"]) for trace in batch["traces"]] == [1, 1, 1]


def test_the_answer_tells_how_each_stands_at_once(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    done, cancelled, under_way, new = several(request_body, 4)
    with running_worker(idle_servers):
        idle_client.post("/v1/traces", json=done, headers={"Prefer": "wait=30"})
    idle_client.delete(f"/v1/traces/{idle_client.post('/v1/traces', json=cancelled).get_json()['id']}")
    idle_client.post("/v1/traces", json=under_way)
    batch = ask(idle_client, [done, cancelled, under_way, new, done])
    assert statuses(batch) == ["done", "queued", "queued", "queued", "done"]
    assert batch == get(idle_client, batch["id"])


def test_the_same_batch_twice_is_two_batches_of_the_same_traces(idle_client: FlaskClient, request_body: Body) -> None:
    wanted = several(request_body, 3)
    first, second = ask(idle_client, wanted), ask(idle_client, wanted)
    assert first["id"] != second["id"]
    assert [trace["id"] for trace in first["traces"]] == [trace["id"] for trace in second["traces"]]


def test_small_traces_share_jobs_and_large_ones_have_their_own(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body, long_request_body: Body
) -> None:
    ask(idle_client, several(request_body, 2 * batching.SHARED_MOST))
    assert jobs(idle_servers) <= 4
    before = jobs(idle_servers)
    ask(idle_client, [long_request_body | {"tokens": [n]} for n in range(3)])
    assert jobs(idle_servers) == before + 3


def test_a_batch_of_as_many_as_may_be_is_asked_for_and_read(idle_client: FlaskClient, request_body: Body) -> None:
    wanted = [request_body | {"tokens": [n % 20, n // 20 % 20, n // 400]} for n in range(MOST // 5)]
    batch = ask(idle_client, wanted * 5)
    assert (batch["total"], batch["queued"]) == (MOST, MOST)
    began = time.monotonic()
    assert get(idle_client, batch["id"])["queued"] == MOST
    assert time.monotonic() - began < 3


# ------------------------------------------------------------------------------------------------------ members


def test_a_trace_in_a_shared_job_is_a_trace_of_its_own(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    wanted = several(request_body, 5)
    batch = ask(idle_client, wanted)
    ids = [trace["id"] for trace in batch["traces"]]
    asked = idle_client.post("/v1/traces", json=wanted[3]).get_json()
    assert (asked["id"], asked["status"], asked["queue_position"]) == (ids[3], "queued", 0)
    assert jobs(idle_servers) == 2  # who asks alone does not wait for the others
    assert idle_client.delete(f"/v1/traces/{ids[1]}").status_code == HTTPStatus.NO_CONTENT
    with running_worker(idle_servers):
        waited = idle_client.get(f"/v1/traces/{ids[4]}", headers={"Prefer": "wait=30"}).get_json()
        assert waited["status"] == "done"
        assert statuses(ended(idle_client, batch["id"])) == ["done", "cancelled", "done", "done", "done"]
        assert [times_started(idle_servers, id) for id in ids] == [1, 0, 1, 1, 1]
        again = idle_client.post("/v1/traces", json=wanted[1], headers={"Prefer": "wait=30"}).get_json()
        assert again["status"] == "done"
    told = parse(idle_client.get(f"/v1/traces/{ids[0]}/events").text)
    assert [event.name for event in told] == ["queued", "started", "done"]


def test_one_that_was_cancelled_and_asked_for_again_has_a_job_of_its_own(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    wanted = several(request_body, 3)
    ids = [trace["id"] for trace in ask(idle_client, wanted)["traces"]]
    idle_client.delete(f"/v1/traces/{ids[1]}")
    idle_client.post("/v1/traces", json=wanted[1])
    assert jobs(idle_servers) == 2
    with running_worker(idle_servers):
        assert idle_client.get(f"/v1/traces/{ids[1]}", headers={"Prefer": "wait=30"}).get_json()["status"] == "done"
    assert times_started(idle_servers, ids[1]) == 1


def test_a_trace_that_fails_fails_alone_with_its_reason(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    wide = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 8, "vocab_size": 4_000_000}
    wanted = several(request_body, 3)
    wanted.insert(1, {"model": wide, "tokens": [1, 2, 3, 4], "capture": ["logits"]})
    connect(idle_servers.cache_url).config_set("maxmemory", "20mb")  # and a trace of 64 MB
    batch = ask(idle_client, wanted)
    assert jobs(idle_servers) == 1
    with running_worker(idle_servers):
        found = ended(idle_client, batch["id"])
    assert statuses(found)[1] == "failed"
    failed = idle_client.get(f"/v1/traces/{found['traces'][1]['id']}").get_json()
    assert failed["error"]["detail"].startswith("the cache has no room for a result of ")
    assert failed["started_at"] >= failed["created_at"]
    assert statuses(found)[2:] == ["done", "done"]
    connect(idle_servers.cache_url).config_set("maxmemory", "256mb")
    with running_worker(idle_servers):  # and it can be asked for again
        again = idle_client.post("/v1/traces", json=wanted[1], headers={"Prefer": "wait=30"}).get_json()
    assert again["status"] == "done"


def test_when_the_process_is_killed_what_is_done_stays_done_and_the_rest_is_tried_again(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SHARED_SECONDS", 1000.0)
    wanted = [long_request_body | {"tokens": [n], "generate": {"max_new_tokens": 60}} for n in range(4)]
    with running_worker(idle_servers) as worker:
        batch = ask(idle_client, wanted)
        ids = [trace["id"] for trace in batch["traces"]]
        eventually(lambda: statuses(get(idle_client, batch["id"]))[:2] == ["done", "running"])
        for child in process_of(worker, "small").children():
            child.kill()
        assert statuses(ended(idle_client, batch["id"])) == ["done"] * 4
    assert [times_started(idle_servers, id) for id in ids][0::2] == [1, 1]
    assert times_started(idle_servers, ids[1]) == 2


def test_one_whose_process_is_killed_each_time_fails_and_the_others_are_done(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SHARED_SECONDS", 1000.0)
    wanted = [long_request_body | {"tokens": [n], "generate": {"max_new_tokens": 40}} for n in range(3)]
    with running_worker(idle_servers) as worker:
        batch = ask(idle_client, wanted)
        while statuses(get(idle_client, batch["id"]))[1] in UNFINISHED:
            if statuses(get(idle_client, batch["id"]))[1] == "running":
                for child in process_of(worker, "small").children():
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
        assert statuses(ended(idle_client, batch["id"])) == ["done", "failed", "done"]
    failed = idle_client.get(f"/v1/traces/{batch['traces'][1]['id']}").get_json()
    assert failed["error"]["detail"] == (
        "The process that ran the job was killed on every attempt, possibly because it ran out of memory."
    )


# ----------------------------------------------------------------------------------------------------- watching


def test_a_batch_tells_the_end_of_each_trace_and_of_all(client: FlaskClient, request_body: Body) -> None:
    wanted = several(request_body, 30)
    batch = ask(client, [*wanted, wanted[7]])
    told = parse(watch(client, batch["id"]).text)
    assert sorted(ends(told)) == [(n, "done") for n in range(31)]
    counts = {"total": 31, "queued": 0, "running": 0, "done": 31, "failed": 0, "cancelled": 0}
    assert (told[-1].name, told[-1].data) == ("done", counts)
    assert {event.name for event in told} == {"trace", "progress", "done"}
    assert all(event.data["total"] == 31 for event in told if event.name == "progress")


def test_after_any_event_of_a_batch_the_other_ends_are_told(client: FlaskClient, request_body: Body) -> None:
    batch = ask(client, several(request_body, 30))
    told = parse(watch(client, batch["id"]).text)
    places = [n for n, event in enumerate(told) if event.id][:-1]
    for n in places[::7] + places[-1:]:
        rest = parse(watch(client, batch["id"], after=told[n].id).text)
        assert ends(rest) == ends(told[n + 1 :])
        assert rest[-1].name == "done"
    assert watch(client, batch["id"], after=told[-1].id).status_code == HTTPStatus.NO_CONTENT


def test_who_comes_when_all_is_over_is_told_everything(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    batch = ended(client, ask(client, several(request_body, 4))["id"])
    last = parse(watch(client, batch["id"]).text)[-1].id
    connect(servers.queue_url).delete("events")  # the log has been cut
    assert ends(parse(watch(client, batch["id"], after=last).text)) == [(n, "done") for n in range(4)]
    told = parse(watch(client, batch["id"]).text)
    assert ends(told) == [(n, "done") for n in range(4)]
    assert told[-1].name == "done"


def test_who_watches_what_waits_hears_that_the_stream_lives_however_much_others_do(
    idle_servers: Servers, request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(idle_servers.settings)
    id = app.test_client().post("/v1/batches", json={"requests": [request_body]}).get_json()["id"]
    broker = app.extensions["broker"]
    batch = batching.get(broker, id)
    assert batch is not None
    told = BatchEvents(broker, batch).after(None)
    first = next(told)
    assert first is not None
    assert first.name == "progress"
    busy = iter([[(f"9999999999999-{n}", "another", "started")] for n in range(3)])
    monkeypatch.setattr(events, "log", lambda *_: next(busy))
    assert [next(told) for _ in range(3)] == [None] * 3
