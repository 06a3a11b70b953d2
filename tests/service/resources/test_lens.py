"""The logit lens over HTTP: computing, selecting, cancelling, errors."""

from __future__ import annotations

import time
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from tests.checkpoints import SMALL, prefixed, values, write
from tests.conftest import Servers, running_worker
from worker.store.connection import connect
from worker.trace.lens import LENS_TOP

Body = dict[str, Any]
WAIT = {"Prefer": "wait=60"}


def get(client: FlaskClient, trace: Body, **query: Any) -> TestResponse:
    return client.get(f"/v1/traces/{trace['id']}/lens", query_string=query, headers=WAIT)


def done(client: FlaskClient, trace: Body, **query: Any) -> Body:
    answer = get(client, trace, **query)
    assert (answer.status_code, answer.get_json()["status"]) == (HTTPStatus.OK, "done"), answer.text
    body: Body = answer.get_json()
    return body


def create(client: FlaskClient, body: Body) -> Body:
    trace: Body = client.post("/v1/traces", json=body, headers=WAIT).get_json()
    assert trace["status"] == "done"
    return trace


def test_the_last_layer_predicts_what_the_model_predicts(client: FlaskClient, sorted_letters: Body) -> None:
    lens = done(client, sorted_letters)
    probs = np.array(client.get(f"/v1/traces/{sorted_letters['id']}/tensors/probs").get_json()["data"])[0]
    assert [layer["tensor"] for layer in lens["layers"]] == [
        "blocks.0.resid_pre", "blocks.1.resid_pre", "blocks.2.resid_pre", "blocks.2.resid_post",
    ]  # fmt: skip
    assert [layer["layer"] for layer in lens["layers"]] == [0, 1, 2, 3]
    for layer in lens["layers"]:
        positions = [prediction["position"] for prediction in layer["predictions"]]
        assert positions == list(range(11))  # the last generated token was not fed
    for prediction in lens["layers"][-1]["predictions"]:
        top = prediction["top"]
        probabilities = {token["token"]: token["probability"] for token in top}
        expected = probs[prediction["position"]].tolist()
        assert [probabilities[token] for token in range(3)] == pytest.approx(expected, abs=1e-6)
        assert [token["text"] for token in top] == ["ABC"[token["token"]] for token in top]


def test_a_lens_does_not_depend_on_what_the_trace_captured(client: FlaskClient, request_body: Body) -> None:
    whole, little = (
        create(client, request_body),
        create(client, request_body | {"capture": ["probs"], "dtype": "float16"}),
    )
    assert whole["id"] != little["id"]
    assert done(client, whole) == done(client, little)


def test_layers_positions_and_top_select(client: FlaskClient, request_body: Body) -> None:
    trace = create(client, request_body | {"tokens": [3, 1, 4, 1, 5]})
    whole = done(client, trace, top=20)
    part = done(client, trace, top=2, layers="1:3", positions="2:4")
    assert part["id"] == whole["id"]
    assert part["layers"] == [
        layer | {"predictions": [one | {"top": one["top"][:2]} for one in layer["predictions"][2:4]]}
        for layer in whole["layers"][1:3]
    ]
    assert {len(one["top"]) for layer in whole["layers"] for one in layer["predictions"]} == {LENS_TOP}
    assert {len(one["top"]) for one in done(client, trace)["layers"][0]["predictions"]} == {5}


def test_the_rollout_is_included_on_request(client: FlaskClient, request_body: Body) -> None:
    trace = create(client, request_body)
    assert "rollout" not in done(client, trace)
    rollout = done(client, trace, attention="rollout", positions="1:3")["rollout"]
    assert [(one["position"], len(one["shares"])) for one in rollout] == [(1, 2), (2, 3)]
    rows = [
        np.mean(client.get(f"/v1/traces/{trace['id']}/tensors/blocks.{layer}.attn.pattern").get_json()["data"][0], 0)
        for layer in (0, 1)
    ]
    expected = (rows[1] + np.eye(3)) / 2 @ (rows[0] + np.eye(3)) / 2
    assert rollout[1]["shares"] == pytest.approx(expected[2].tolist(), abs=1e-6)


def test_a_finished_lens_is_cached_forever(client: FlaskClient, sorted_letters: Body) -> None:
    done(client, sorted_letters)
    answer = get(client, sorted_letters, top=1)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["ETag"] != get(client, sorted_letters, top=2).headers["ETag"]


def test_an_unfinished_lens_has_a_status_and_no_layers(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    with running_worker(idle_servers):
        trace = create(idle_client, request_body)
    at = f"/v1/traces/{trace['id']}/lens"
    first, again = idle_client.get(at), idle_client.get(at)
    assert first.status_code == HTTPStatus.OK
    assert [answer.get_json()["status"] for answer in (first, again)] == ["queued", "queued"]
    assert (again.get_json()["id"], again.get_json()["queue_position"]) == (first.get_json()["id"], 0)
    assert "layers" not in first.get_json()
    assert first.headers["Cache-Control"] == "no-store"


def test_a_failed_lens_stays_failed_with_its_reason(idle_servers: Servers, tmp_path: Path) -> None:
    write(tmp_path / "mine", prefixed(values(SMALL)))
    servers = replace(idle_servers, models_dir=str(tmp_path))
    client = create_app(servers.settings).test_client()
    with running_worker(servers):
        trace = create(client, {"model": "mine", "tokens": [3, 1, 4]})
        rmtree(tmp_path / "mine")
        failed = get(client, trace).get_json()
    assert failed["status"] == get(client, trace).get_json()["status"] == "failed"
    assert "no longer exist" in failed["error"]["detail"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", "0:4", "must be a non-empty range start:stop within 0:3"),
        ("layers", "2:2", "non-empty range"),
        ("positions", "1", "a non-empty range start:stop within 0:3"),
        ("positions", "-1:", "non-empty range"),
        ("top", "21", "20"),
        ("top", "0", "1"),
        ("attention", "flow", "rollout"),
    ],
)
def test_an_invalid_query_is_422_with_what_is_allowed(
    client: FlaskClient, request_body: Body, field: str, value: str, message: str
) -> None:
    trace = create(client, request_body)
    answer = get(client, trace, **{field: value})
    assert (answer.status_code, answer.content_type) == (HTTPStatus.UNPROCESSABLE_ENTITY, "application/problem+json")
    assert message in " ".join(answer.get_json()["errors"][field])


def test_the_size_of_a_response_is_limited(
    client: FlaskClient, request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = create(client, request_body)
    monkeypatch.setattr("service.resources.lens.MAX_NUMBERS", 3 * 3 * 5 - 1)
    answer = get(client, trace)
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "3 layers of 3 positions with 5 tokens each are 45" in answer.get_json()["detail"]
    assert done(client, trace, positions="0:2")["status"] == "done"
    more = get(client, trace, positions="0:2", top=5, attention="rollout")  # 2 * 3 * 5 + 2 * 3
    assert more.status_code == HTTPStatus.OK
    monkeypatch.setattr("service.resources.lens.MAX_NUMBERS", 35)
    assert "and the rollout over 3, are 36" in get(client, trace, positions="0:2", attention="rollout").text


def test_an_unfinished_trace_is_409_and_an_unknown_one_404(idle_client: FlaskClient, request_body: Body) -> None:
    trace = idle_client.post("/v1/traces", json=request_body).get_json()
    assert idle_client.get(f"/v1/traces/{trace['id']}/lens").status_code == HTTPStatus.CONFLICT
    assert idle_client.get(f"/v1/traces/{'0' * 64}/lens").status_code == HTTPStatus.NOT_FOUND


# ---------------------------------------------------------------------------------------------- limits, cancelling


def test_a_lens_that_needs_too_much_memory_is_422(client: FlaskClient, servers: Servers, request_body: Body) -> None:
    trace = create(client, request_body)
    bounded = create_app(replace(servers.settings, max_work_bytes=1000)).test_client()
    answer = get(bounded, trace)
    assert (answer.status_code, answer.content_type) == (HTTPStatus.UNPROCESSABLE_ENTITY, "application/problem+json")
    [(field, [message])] = answer.get_json()["errors"].items()
    assert (field, "at most 1,000 are allowed (MAX_WORK_BYTES)" in message) == ("trace_id", True)
    done(client, trace)
    assert done(bounded, trace)["status"] == "done"  # an existing result needs no memory


def test_a_cancelled_lens_stays_cancelled_until_it_is_deleted(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    with running_worker(idle_servers):
        trace = create(idle_client, request_body)
    at = f"/v1/traces/{trace['id']}/lens"
    assert idle_client.get(at).get_json()["status"] == "queued"
    assert idle_client.delete(at).status_code == HTTPStatus.NO_CONTENT
    assert [idle_client.get(at).get_json()["status"] for _ in range(2)] == ["cancelled"] * 2
    assert idle_client.delete(at).status_code == HTTPStatus.NO_CONTENT
    assert idle_client.get(at).get_json()["status"] == "queued"
    with running_worker(idle_servers):
        assert done(idle_client, trace)["layers"]
        assert idle_client.get(f"/v1/traces/{trace['id']}").get_json()["status"] == "done"


def test_a_running_lens_is_stopped_and_stores_nothing(
    client: FlaskClient, servers: Servers, request_body: Body
) -> None:
    # The trace multiplies by the large unembedding once, the lens 201 times.
    wide = {"n_layer": 200, "n_head": 2, "n_embd": 32, "n_positions": 16, "vocab_size": 200_000}
    trace = create(client, request_body | {"model": wide, "tokens": [7] * 16, "capture": ["ln_final.scale"]})
    at = f"/v1/traces/{trace['id']}/lens"
    lens = client.get(at).get_json()
    deadline = time.monotonic() + 30
    while (state := client.get(at).get_json())["status"] == "queued":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert state["status"] == "running"
    assert client.delete(at).status_code == HTTPStatus.NO_CONTENT
    assert client.get(at).get_json()["status"] == "cancelled"
    assert connect(servers.cache_url).keys(f"result:{lens['id']}*") == []
    assert create(client, request_body)["status"] == "done"  # the worker goes on


def test_a_finished_lens_is_deleted_and_its_trace_stays(client: FlaskClient, request_body: Body) -> None:
    trace = create(client, request_body)
    at = f"/v1/traces/{trace['id']}/lens"
    assert client.delete(at).status_code == HTTPStatus.NOT_FOUND
    done(client, trace)
    assert client.delete(at).status_code == HTTPStatus.NO_CONTENT
    assert client.delete(at).status_code == HTTPStatus.NOT_FOUND
    assert client.get(f"/v1/traces/{trace['id']}").get_json()["status"] == "done"
    assert done(client, trace)["layers"]


def test_deleting_the_lens_of_an_unfinished_trace_is_409_and_of_an_unknown_one_404(
    idle_client: FlaskClient, request_body: Body
) -> None:
    trace = idle_client.post("/v1/traces", json=request_body).get_json()
    assert idle_client.delete(f"/v1/traces/{trace['id']}/lens").status_code == HTTPStatus.CONFLICT
    assert idle_client.delete(f"/v1/traces/{'0' * 64}/lens").status_code == HTTPStatus.NOT_FOUND
