"""Batches over HTTP: their traces, shared jobs and events."""

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
from service.resources.batches import MAX_REQUESTS
from tests.conftest import Servers, process_of, running_worker
from tests.service.http.test_event_stream import Event, parse
from worker.store.connection import connect
from worker.store.queues import NAMES

Body = dict[str, Any]
NDJSON = "application/x-ndjson"


def several(request_body: Body, count: int) -> list[Body]:
    """Return requests for small traces that do not exist yet."""
    return [request_body | {"tokens": [n % 20, n // 20]} for n in range(count)]


def create(client: FlaskClient, requests: list[Any]) -> Body:
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
    """Return a batch once all its traces have ended."""
    assert parse(watch(client, id).text)[-1].name == "done"
    return get(client, id)


def statuses(batch: Body) -> list[str]:
    return [trace["status"] for trace in batch["traces"]]


def ends(received: list[Event]) -> list[tuple[int, str]]:
    return [(event.data["index"], event.data["status"]) for event in received if event.name == "trace"]


def times_started(servers: Servers, id: str) -> int:
    entries: Any = connect(servers.queue_url).xrange(f"events:{id}")
    return [fields[b"event"] for _, fields in entries].count(b"started")


def jobs(servers: Servers) -> int:
    """Return how many jobs wait in all queues."""
    return sum(int(connect(servers.queue_url).llen(f"rq:queue:{name}")) for name in NAMES)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def errors_of(answer: TestResponse) -> Body:
    assert (answer.status_code, answer.content_type) == (HTTPStatus.UNPROCESSABLE_ENTITY, "application/problem+json")
    errors: Body = answer.get_json()["errors"]
    return errors


# ------------------------------------------------------------------------------------------------------ creating


@pytest.mark.parametrize("lines", [False, True], ids=["json", "ndjson"])
def test_traces_of_a_batch_are_the_same_as_single_traces(client: FlaskClient, request_body: Body, lines: bool) -> None:
    requests = several(request_body, 3)
    if lines:
        text = "\n".join(map(json.dumps, requests)) + "\n\n"
        batch = client.post("/v1/batches", data=text, content_type=NDJSON).get_json()
    else:
        batch = create(client, requests)
    done = ended(client, batch["id"])
    assert (done["total"], done["done"]) == (3, 3)
    alone = [client.post("/v1/traces", json=body) for body in requests]
    assert [trace["id"] for trace in done["traces"]] == [answer.get_json()["id"] for answer in alone]
    assert [answer.status_code for answer in alone] == [HTTPStatus.OK] * 3
    assert [trace["index"] for trace in done["traces"]] == [0, 1, 2]


def test_equal_requests_in_a_batch_are_one_trace(client: FlaskClient, servers: Servers, request_body: Body) -> None:
    first, second = several(request_body, 2)
    done = ended(client, create(client, [first, second, first])["id"])
    ids = [trace["id"] for trace in done["traces"]]
    assert (ids[0], len(set(ids)), done["done"]) == (ids[2], 2, 3)
    assert times_started(servers, ids[0]) == 1


def test_traces_that_are_done_or_in_progress_are_not_computed_again(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    done, in_progress, new = several(request_body, 3)
    client.post("/v1/traces", json=done, headers={"Prefer": "wait=30"})
    client.post("/v1/traces", json=in_progress)
    batch = ended(client, create(client, [done, in_progress, new])["id"])
    assert [times_started(servers, trace["id"]) for trace in batch["traces"]] == [1, 1, 1]


def test_the_response_has_the_status_of_every_trace(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    done, cancelled, in_progress, new = several(request_body, 4)
    with running_worker(idle_servers):
        idle_client.post("/v1/traces", json=done, headers={"Prefer": "wait=30"})
    idle_client.delete(f"/v1/traces/{idle_client.post('/v1/traces', json=cancelled).get_json()['id']}")
    idle_client.post("/v1/traces", json=in_progress)
    batch = create(idle_client, [done, cancelled, in_progress, new, done])
    assert statuses(batch) == ["done", "queued", "queued", "queued", "done"]
    assert batch == get(idle_client, batch["id"])


def test_equal_posts_are_two_batches_of_the_same_traces(idle_client: FlaskClient, request_body: Body) -> None:
    requests = several(request_body, 3)
    first, second = create(idle_client, requests), create(idle_client, requests)
    assert first["id"] != second["id"]
    assert [trace["id"] for trace in first["traces"]] == [trace["id"] for trace in second["traces"]]


def test_small_traces_share_jobs_and_large_ones_have_their_own(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body, long_request_body: Body
) -> None:
    create(idle_client, several(request_body, 2 * batching.SHARED_MOST))
    assert jobs(idle_servers) <= 4
    before = jobs(idle_servers)
    create(idle_client, [long_request_body | {"tokens": [n]} for n in range(3)])
    assert jobs(idle_servers) == before + 3


def test_a_batch_of_the_maximum_size_is_created_and_read(idle_client: FlaskClient, request_body: Body) -> None:
    requests = [request_body | {"tokens": [n % 20, n // 20 % 20, n // 400]} for n in range(MAX_REQUESTS // 5)]
    batch = create(idle_client, requests * 5)
    assert (batch["total"], batch["queued"]) == (MAX_REQUESTS, MAX_REQUESTS)
    assert get(idle_client, batch["id"])["queued"] == MAX_REQUESTS


# ------------------------------------------------------------------------------------------------------ traces


def test_a_trace_in_a_shared_job_can_be_read_cancelled_and_watched_alone(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    requests = several(request_body, 5)
    batch = create(idle_client, requests)
    ids = [trace["id"] for trace in batch["traces"]]
    single = idle_client.post("/v1/traces", json=requests[3]).get_json()
    assert (single["id"], single["status"], single["queue_position"]) == (ids[3], "queued", 0)
    assert jobs(idle_servers) == 2  # a single request does not wait for the batch
    assert idle_client.delete(f"/v1/traces/{ids[1]}").status_code == HTTPStatus.NO_CONTENT
    with running_worker(idle_servers):
        waited = idle_client.get(f"/v1/traces/{ids[4]}", headers={"Prefer": "wait=30"}).get_json()
        assert waited["status"] == "done"
        assert statuses(ended(idle_client, batch["id"])) == ["done", "cancelled", "done", "done", "done"]
        assert [times_started(idle_servers, id) for id in ids] == [1, 0, 1, 1, 1]
        again = idle_client.post("/v1/traces", json=requests[1], headers={"Prefer": "wait=30"}).get_json()
        assert again["status"] == "done"
    received = parse(idle_client.get(f"/v1/traces/{ids[0]}/events").text)
    assert [event.name for event in received] == ["queued", "started", "done"]


def test_a_cancelled_trace_that_is_requested_again_gets_its_own_job(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    requests = several(request_body, 3)
    ids = [trace["id"] for trace in create(idle_client, requests)["traces"]]
    idle_client.delete(f"/v1/traces/{ids[1]}")
    idle_client.post("/v1/traces", json=requests[1])
    assert jobs(idle_servers) == 2
    with running_worker(idle_servers):
        assert idle_client.get(f"/v1/traces/{ids[1]}", headers={"Prefer": "wait=30"}).get_json()["status"] == "done"
    assert times_started(idle_servers, ids[1]) == 1


def test_a_failed_trace_does_not_fail_the_others_of_its_job(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    wide = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 8, "vocab_size": 4_000_000}
    requests = several(request_body, 3)
    requests.insert(1, {"model": wide, "tokens": [1, 2, 3, 4], "capture": ["logits"]})
    connect(idle_servers.cache_url).config_set("maxmemory", "20mb")  # too little for a trace of 64 MB
    batch = create(idle_client, requests)
    assert jobs(idle_servers) == 1
    with running_worker(idle_servers):
        found = ended(idle_client, batch["id"])
    assert statuses(found)[1] == "failed"
    failed = idle_client.get(f"/v1/traces/{found['traces'][1]['id']}").get_json()
    assert failed["error"]["detail"].startswith("the cache has no room for a result of ")
    assert failed["started_at"] >= failed["created_at"]
    assert statuses(found)[2:] == ["done", "done"]
    connect(idle_servers.cache_url).config_set("maxmemory", "256mb")
    with running_worker(idle_servers):  # and it can be requested again
        again = idle_client.post("/v1/traces", json=requests[1], headers={"Prefer": "wait=30"}).get_json()
    assert again["status"] == "done"


def test_a_shared_job_whose_process_was_killed_resumes_with_the_unfinished_traces(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SHARED_SECONDS", 1000.0)
    requests = [long_request_body | {"tokens": [n], "generate": {"max_new_tokens": 60}} for n in range(4)]
    with running_worker(idle_servers) as worker:
        batch = create(idle_client, requests)
        ids = [trace["id"] for trace in batch["traces"]]
        eventually(lambda: statuses(get(idle_client, batch["id"]))[:2] == ["done", "running"])
        for child in process_of(worker, "small").children():
            child.kill()
        assert statuses(ended(idle_client, batch["id"])) == ["done"] * 4
    assert [times_started(idle_servers, id) for id in ids][0::2] == [1, 1]
    assert times_started(idle_servers, ids[1]) == 2


def test_a_trace_whose_process_is_killed_each_time_fails_and_the_others_are_done(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SHARED_SECONDS", 1000.0)
    requests = [long_request_body | {"tokens": [n], "generate": {"max_new_tokens": 40}} for n in range(3)]
    with running_worker(idle_servers) as worker:
        batch = create(idle_client, requests)
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


def test_events_report_the_end_of_each_trace_and_of_the_batch(client: FlaskClient, request_body: Body) -> None:
    requests = several(request_body, 30)
    batch = create(client, [*requests, requests[7]])
    received = parse(watch(client, batch["id"]).text)
    assert sorted(ends(received)) == [(n, "done") for n in range(31)]
    counts = {"total": 31, "queued": 0, "running": 0, "done": 31, "failed": 0, "cancelled": 0}
    assert (received[-1].name, received[-1].data) == ("done", counts)
    assert {event.name for event in received} == {"trace", "progress", "done"}
    assert all(event.data["total"] == 31 for event in received if event.name == "progress")


def test_a_client_resumes_after_any_event(client: FlaskClient, request_body: Body) -> None:
    batch = create(client, several(request_body, 30))
    received = parse(watch(client, batch["id"]).text)
    places = [n for n, event in enumerate(received) if event.id][:-1]
    for n in places[::7] + places[-1:]:
        rest = parse(watch(client, batch["id"], after=received[n].id).text)
        assert ends(rest) == ends(received[n + 1 :])
        assert rest[-1].name == "done"
    assert watch(client, batch["id"], after=received[-1].id).status_code == HTTPStatus.NO_CONTENT


def test_events_of_a_finished_batch_are_complete_without_the_log(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    batch = ended(client, create(client, several(request_body, 4))["id"])
    last = parse(watch(client, batch["id"]).text)[-1].id
    connect(servers.queue_url).delete("events")  # as if the log had been trimmed
    assert ends(parse(watch(client, batch["id"], after=last).text)) == [(n, "done") for n in range(4)]
    received = parse(watch(client, batch["id"]).text)
    assert ends(received) == [(n, "done") for n in range(4)]
    assert received[-1].name == "done"


def test_a_stream_sends_keepalives_while_other_requests_have_events(
    idle_servers: Servers, request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(idle_servers.settings)
    id = app.test_client().post("/v1/batches", json={"requests": [request_body]}).get_json()["id"]
    broker = app.extensions["broker"]
    batch = batching.get(broker, id)
    assert batch is not None
    stream = BatchEvents(broker, batch).after(None)
    first = next(stream)
    assert first is not None
    assert first.name == "progress"
    entries = iter([[(f"9999999999999-{n}", "another", "started")] for n in range(3)])
    monkeypatch.setattr(events, "log", lambda *_: next(entries))
    assert [next(stream) for _ in range(3)] == [None] * 3


def test_requests_that_differ_only_in_their_prompt_have_the_ids_of_single_ones(idle_client: FlaskClient) -> None:
    prompts: list[Body] = [{"text": "ABC"}, {"text": "CAB"}, {"tokens": [2, 1]}, {"text": "A"}, {"tokens": [0]}]
    rests: list[Body] = [{}, {"generate": {"max_new_tokens": 2}}, {"capture": ["probs"]}, {"weights": {"synthetic": 3}}]
    requests = [{"model": "nano-gpt"} | rest | prompt for prompt in prompts for rest in rests]
    batch = idle_client.post("/v1/batches", json={"requests": requests}).get_json()
    single = [idle_client.post("/v1/traces", json=request).get_json()["id"] for request in requests]
    assert [trace["id"] for trace in batch["traces"]] == single
    assert len({*single}) == len(rests) * 4  # "A" is the token 0
