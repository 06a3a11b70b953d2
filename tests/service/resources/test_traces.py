"""Traces over HTTP: creating, waiting, caching, status."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from tests.conftest import Servers, running_worker
from tests.gpt2 import CONFIGS
from worker.families.registry import describe
from worker.store.connection import connect

Body = dict[str, Any]
WAIT = {"Prefer": "wait=60"}
OCTETS = {"Accept": "application/octet-stream"}


def create(client: FlaskClient, body: Body, **headers: str) -> TestResponse:
    return client.post("/v1/traces", json=body, headers=headers)


def create_and_wait(client: FlaskClient, body: Body) -> Body:
    answer = create(client, body, **WAIT)
    assert answer.status_code == HTTPStatus.OK, answer.text
    trace: Body = answer.get_json()
    assert trace["status"] == "done"
    return trace


def get(client: FlaskClient, id: str, **headers: str) -> TestResponse:
    return client.get(f"/v1/traces/{id}", headers=headers)


def status(client: FlaskClient, id: str) -> str:
    return str(get(client, id).get_json()["status"])


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def times_started(servers: Servers, id: str) -> int:
    entries: Any = connect(servers.queue_url).xrange(f"events:{id}")
    return [fields[b"event"] for _, fields in entries].count(b"started")


def numbers(answer: TestResponse) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a whole tensor from its bytes and headers."""
    assert answer.status_code == HTTPStatus.OK, answer.text
    shape = [int(size) for size in answer.headers["Tensor-Shape"].split(",")]
    return np.frombuffer(answer.data, answer.headers["Tensor-Dtype"]).reshape(shape)


# -------------------------------------------------------------------------------------------------- computing


def test_nano_gpt_sorts_its_letters(sorted_letters: Body) -> None:
    assert sorted_letters["output"] == "ABBBCC"
    assert sorted_letters["tokens"] == [2, 1, 0, 1, 1, 2]
    assert [piece["text"] for piece in sorted_letters["pieces"]] == list("CBABBC")
    assert [bytes(piece["bytes"]) for piece in sorted_letters["pieces"]] == [b"C", b"B", b"A", b"B", b"B", b"C"]


def test_each_step_has_the_probabilities_it_was_drawn_from(client: FlaskClient, sorted_letters: Body) -> None:
    probs = numbers(client.get(f"/v1/traces/{sorted_letters['id']}/tensors/probs", headers=OCTETS))
    assert [step["position"] for step in sorted_letters["generated"]] == [5, 6, 7, 8, 9, 10]
    assert "".join(step["text"] for step in sorted_letters["generated"]) == "ABBBCC"
    for step in sorted_letters["generated"]:
        row = probs[0, step["position"]]
        assert step["token"] == row.argmax()
        assert step["probability"] == row[step["token"]]
        assert step["sampling_probability"] == 1  # at temperature 0
        assert step["top"][0] == {k: step[k] for k in ("token", "text", "probability")}
        assert [one["probability"] for one in step["top"]] == sorted(row.tolist(), reverse=True)


def test_a_sampled_token_has_the_models_probability_and_the_one_it_was_sampled_with(
    client: FlaskClient, request_body: Body
) -> None:
    generate = {"max_new_tokens": 4, "temperature": 0.5, "top_k": 3}
    trace = client.post("/v1/traces", json=request_body | {"generate": generate}, headers=WAIT).get_json()
    probs = numbers(client.get(f"/v1/traces/{trace['id']}/tensors/probs", headers=OCTETS))
    for step in trace["generated"]:
        row = probs[0, step["position"]].astype(np.float64)
        best = np.sort(row**2)[-3:]  # p at temperature 1/2 is proportional to p²
        assert step["probability"] == row[step["token"]]
        np.testing.assert_allclose(step["sampling_probability"], row[step["token"]] ** 2 / best.sum(), rtol=1e-4)


def test_a_trace_has_every_tensor_of_the_description_in_order(client: FlaskClient, sorted_letters: Body) -> None:
    config = CONFIGS["nano-gpt"]
    sizes = describe(config).sizes(6 + 6 - 1)  # the last generated token is not fed
    expected = {name: list(t.shape(sizes)) for name, t in describe(config).all_values()}
    listed = client.get(f"/v1/traces/{sorted_letters['id']}/tensors").get_json()["tensors"]
    assert {tensor["name"]: tensor["shape"] for tensor in listed} == expected
    assert [tensor["name"] for tensor in listed] == list(expected)
    assert {name: tensor["shape"] for name, tensor in sorted_letters["tensors"].items()} == expected


def test_the_statistics_are_those_of_the_values(client: FlaskClient, sorted_letters: Body) -> None:
    for name, tensor in sorted_letters["tensors"].items():
        values = numbers(client.get(f"/v1/traces/{sorted_letters['id']}/tensors/{name}", headers=OCTETS))
        unmasked = values[np.isfinite(values)].astype(np.float64)
        assert (tensor["bytes"], tensor["dtype"]) == (values.nbytes, str(values.dtype))
        assert (tensor["min"], tensor["max"], tensor["absmax"]) == (unmasked.min(), unmasked.max(), abs(unmasked).max())
        assert tensor["mean"] == pytest.approx(unmasked.mean(), rel=1e-6, abs=1e-9)


def test_only_captured_tensors_are_stored(client: FlaskClient, request_body: Body) -> None:
    captured = {"capture": ["blocks.1.attn.hook_*", "probs"], "dtype": "float16"}
    tensors = create_and_wait(client, request_body | captured)["tensors"]
    parts = ["q", "k", "v", "scores", "pattern", "z"]  # TransformerLens has no hooks of the softmax's statistics
    assert list(tensors) == [f"blocks.1.attn.{part}" for part in parts] + ["probs"]
    assert {tensor["dtype"] for name, tensor in tensors.items() if name != "probs"} == {"float16"}
    assert tensors["probs"]["dtype"] == "float32"  # float16 would make most of a vocabulary's subnormal


# -------------------------------------------------------------------------------------------------- creating


def test_a_trace_links_to_its_layout_from_new_and_old_manifests(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    trace, cache = create_and_wait(client, request_body), connect(servers.cache_url)
    key = f"result:{trace['id']}"
    manifest: Body = orjson.loads(cache.get(key) or b"")
    assert trace["layout"] == f"/v1/layouts/{manifest['layout']}"
    assert client.get(trace["layout"]).get_json()["status"] == "done"
    cache.set(key, orjson.dumps(manifest | {"layout": trace["layout"]}))  # as older workers wrote it
    other = create_app(servers.settings).test_client()
    assert get(other, trace["id"]).get_json()["layout"] == trace["layout"]


def test_post_without_waiting_returns_202_with_the_location(client: FlaskClient, request_body: Body) -> None:
    answer = create(client, request_body)
    assert (answer.status_code, answer.get_json()["status"]) == (HTTPStatus.ACCEPTED, "queued")
    assert answer.headers["Location"] == f"/v1/traces/{answer.get_json()['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Preference-Applied" not in answer.headers
    done = client.get(answer.headers["Location"], headers=WAIT)
    assert (done.status_code, done.get_json()["status"]) == (HTTPStatus.OK, "done")


def test_post_of_a_finished_trace_returns_200(client: FlaskClient, request_body: Body) -> None:
    done = create_and_wait(client, request_body)
    answer = create(client, request_body)
    assert (answer.status_code, answer.get_json()) == (HTTPStatus.OK, done)
    assert answer.headers["Location"] == f"/v1/traces/{done['id']}"


@pytest.mark.parametrize(
    "same",
    [
        {"model": "nano-gpt", "text": "CBABBC"},
        {"model": "nano-gpt", "tokens": [2, 1, 0, 1, 1, 2]},
        {"model": CONFIGS["nano-gpt"].to_mapping(), "text": "CBABBC"},
        {"model": CONFIGS["nano-gpt"].to_mapping() | {"d_head": None, "n_inner": None}, "text": "CBABBC"},
        {"capture": ["*"], "dtype": "float32", "text": "CBABBC", "model": "nano-gpt"},
    ],
)
@pytest.mark.parametrize("drawn", [{}, {"temperature": 0.0, "seed": 0}, {"temperature": -0.0, "top_k": None}])
def test_equal_requests_have_the_same_id_in_any_spelling(
    client: FlaskClient, sorted_letters: Body, same: Body, drawn: Body
) -> None:
    answer = create(client, same | {"generate": {"max_new_tokens": 6} | drawn})
    assert (answer.status_code, answer.get_json()["id"]) == (HTTPStatus.OK, sorted_letters["id"])


@pytest.mark.parametrize(
    "other",
    [
        {"tokens": [3, 1, 5]},
        {"weights": {"synthetic": 0}},
        {"generate": {"max_new_tokens": 1}},
        {"capture": ["probs"]},
        {"dtype": "float16"},
        {"model": {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 64, "vocab_size": 20}},
    ],
)
def test_different_requests_have_different_ids(idle_client: FlaskClient, request_body: Body, other: Body) -> None:
    assert (
        create(idle_client, request_body).get_json()["id"] != create(idle_client, request_body | other).get_json()["id"]
    )


def test_concurrent_equal_requests_are_computed_once(
    app: Flask, client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    with ThreadPoolExecutor(16) as pool:
        traces = list(pool.map(lambda _: create_and_wait(app.test_client(), request_body), range(16)))
    assert [trace["id"] for trace in traces] == [traces[0]["id"]] * 16
    assert times_started(servers, traces[0]["id"]) == 1


# ------------------------------------------------------------------------------------------ waiting and caching


def test_waiting_ends_after_the_preferred_time(idle_client: FlaskClient, request_body: Body) -> None:
    began = time.monotonic()
    answer = create(idle_client, request_body, Prefer="wait=1")
    assert 0.9 < time.monotonic() - began < 5
    assert (answer.status_code, answer.get_json()["status"]) == (HTTPStatus.ACCEPTED, "queued")
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize(
    ("preferred", "applied"),
    [
        ("wait=5", "wait=5"),
        ('respond-async, WAIT="7"; x=y', "wait=7"),
        ("wait=99999999999", "wait=60"),
        ("wait=0", None),
        ("wait=-1", None),
        ("wait=soon", None),
        ("return=minimal", None),
    ],
)
def test_the_applied_preference_is_returned(
    client: FlaskClient, sorted_letters: Body, preferred: str, applied: str | None
) -> None:
    assert get(client, sorted_letters["id"], Prefer=preferred).headers.get("Preference-Applied") == applied


@pytest.mark.parametrize("path", ["", "/tensors", "/tensors/probs"])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "br"])
def test_finished_results_are_cached_forever(
    client: FlaskClient, sorted_letters: Body, path: str, encoding: str
) -> None:
    url, accept = f"/v1/traces/{sorted_letters['id']}{path}", {"Accept-Encoding": encoding}
    answer = client.get(url, headers=accept)
    assert answer.status_code == HTTPStatus.OK
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers.get("Content-Encoding", "identity") in ("identity", encoding)
    assert not answer.headers["ETag"].startswith("W/")
    again = client.get(url, headers=accept | {"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (HTTPStatus.NOT_MODIFIED, b"")
    assert again.headers["ETag"] == answer.headers["ETag"]
    assert client.get(url, headers=accept | {"If-None-Match": '"another"'}).status_code == HTTPStatus.OK


def test_a_large_response_is_compressed_if_the_client_accepts_it(client: FlaskClient, sorted_letters: Body) -> None:
    plain, compressed = (get(client, sorted_letters["id"], **{"Accept-Encoding": e}) for e in ("identity", "gzip"))
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert len(compressed.data) < len(plain.data) / 2
    assert compressed.headers["ETag"] != plain.headers["ETag"]


def test_different_responses_have_different_etags(client: FlaskClient, sorted_letters: Body) -> None:
    tensors = f"/v1/traces/{sorted_letters['id']}/tensors"
    requests = [(tensors, {}), (f"{tensors}/probs", {}), (f"{tensors}/probs?slice=0", {}), (f"{tensors}/probs", OCTETS)]
    assert len({client.get(url, headers=headers).headers["ETag"] for url, headers in requests}) == len(requests)


def test_unfinished_traces_are_not_cached(idle_client: FlaskClient, request_body: Body) -> None:
    answer = get(idle_client, create(idle_client, request_body).get_json()["id"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


# ------------------------------------------------------------------------------------------------------ status


def test_a_queued_trace_has_its_position_in_the_queue(idle_client: FlaskClient, request_body: Body) -> None:
    ids = [create(idle_client, request_body | {"tokens": [n]}).get_json()["id"] for n in range(3)]
    assert [get(idle_client, id).get_json()["queue_position"] for id in ids] == [0, 1, 2]
    idle_client.delete(f"/v1/traces/{ids[0]}")
    assert [get(idle_client, id).get_json()["queue_position"] for id in ids] == [None, 0, 1]


def test_a_running_trace_has_its_progress(client: FlaskClient, long_request_body: Body) -> None:
    id = create(client, long_request_body).get_json()["id"]
    eventually(lambda: bool(get(client, id).get_json()["progress"]))
    running = get(client, id).get_json()
    assert running["status"] == "running"
    assert 0 < running["progress"]["done"] < running["progress"]["total"] == 24 * 300
    assert running["progress"]["unit"] == "layers"
    assert 0 < running["progress"]["seconds_left"] < 86400  # it depends on the speed of the machine
    assert running["created_at"] <= running["started_at"]
    client.delete(f"/v1/traces/{id}")


def test_the_times_of_a_trace_are_in_order_and_in_utc(sorted_letters: Body) -> None:
    times = [sorted_letters[f"{name}_at"] for name in ("created", "started", "finished")]
    assert times == sorted(times)
    assert all(time.endswith("Z") for time in times)


def test_a_failed_trace_has_its_reason(idle_client: FlaskClient, idle_servers: Servers, request_body: Body) -> None:
    connect(idle_servers.cache_url).config_set("maxmemory", "1")
    with running_worker(idle_servers):
        failed = create(idle_client, request_body, **WAIT)
    assert (failed.status_code, failed.get_json()["status"]) == (HTTPStatus.OK, "failed")
    assert failed.get_json()["error"]["detail"].startswith("the cache has no room for a result of ")
    assert failed.headers["Cache-Control"] == "no-store"


def test_an_unknown_id_is_404(client: FlaskClient, sorted_letters: Body) -> None:
    layout = sorted_letters["layout"].rpartition("/")[2]
    for id in ("0" * 64, "nano-gpt", layout, f"{sorted_letters['id']}:0", sorted_letters["id"].upper()):
        for path in (f"/v1/traces/{id}", f"/v1/traces/{id}/tensors", f"/v1/traces/{id}/tensors/probs"):
            answer = client.get(path)
            assert (answer.status_code, answer.get_json()["title"]) == (HTTPStatus.NOT_FOUND, "Not Found"), path
        assert client.delete(f"/v1/traces/{id}").status_code == HTTPStatus.NOT_FOUND
