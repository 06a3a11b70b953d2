"""Invalid batches: errors are reported and nothing is queued."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from flask.testing import FlaskClient

from tests.conftest import Servers
from tests.service.resources.test_batches import NDJSON, Body, errors_of
from worker.store.connection import connect


def test_every_invalid_request_is_reported_and_nothing_is_queued(
    idle_client: FlaskClient, idle_servers: Servers, request_body: Body
) -> None:
    invalid = [
        request_body | {"tokens": [0, -1]},
        request_body | {"tokens": [20]},
        request_body | {"model": "gpt9"},
        request_body | {"model": {"n_head": 5, "n_embd": 8}},
        request_body | {"generate": {"max_new_tokens": 0}},
        7,
        {"tokens": [1]},
    ]
    errors = errors_of(idle_client.post("/v1/batches", json={"requests": [request_body, *invalid, request_body]}))
    assert sorted(errors) == [
        "requests.1.tokens.1",
        "requests.2.tokens",
        "requests.3.model",
        "requests.4.model.n_head",
        "requests.5.generate.max_new_tokens",
        "requests.6",
        "requests.7.model",
    ]
    assert errors["requests.2.tokens"] == ["Token 20 is out of range: this model's tokens are 0 to 19."]
    assert connect(idle_servers.queue_url).keys("request:*") == []


def test_of_many_errors_the_first_are_reported_and_the_others_counted(idle_client: FlaskClient) -> None:
    errors = errors_of(idle_client.post("/v1/batches", json={"requests": [{"model": "gpt9", "tokens": [1]}] * 5000}))
    assert len(errors) == 101
    assert errors["requests"] == ["4,900 more errors."]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": {}}, "requests"),
        ({"requests": [{}] * 10_001}, "requests"),
        ({"requests": [1], "more": 2}, "more"),
    ],
)
def test_an_invalid_body_names_its_field(idle_client: FlaskClient, body: Body, field: str) -> None:
    assert list(errors_of(idle_client.post("/v1/batches", json=body))) == [field]


def test_lines_that_are_not_json_are_reported(idle_client: FlaskClient, request_body: Body) -> None:
    text = "\n".join([json.dumps(request_body), "{", "", "nope"])
    errors = errors_of(idle_client.post("/v1/batches", data=text, content_type=NDJSON))
    assert list(errors) == ["requests.1", "requests.2"]
    assert list(errors_of(idle_client.post("/v1/batches", data="\n", content_type=NDJSON))) == ["requests"]


def test_415_lists_the_accepted_content_types(idle_client: FlaskClient) -> None:
    answer = idle_client.post("/v1/batches", data="{}", content_type="text/plain")
    assert answer.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    assert "application/x-ndjson" in answer.get_json()["detail"]


@pytest.mark.parametrize("path", ["", "/events"])
def test_an_unknown_batch_is_404(idle_client: FlaskClient, path: str) -> None:
    assert idle_client.get(f"/v1/batches/{'0' * 32}{path}").status_code == HTTPStatus.NOT_FOUND
    assert idle_client.delete(f"/v1/batches/{'0' * 32}").status_code == HTTPStatus.NOT_FOUND


def test_an_invalid_prompt_is_reported_although_the_rest_of_the_request_was_checked_before(
    idle_client: FlaskClient,
) -> None:
    prompts: list[Body] = [
        *({"text": "A"}, {"text": 7}, {"tokens": "A"}, {"tokens": [0]}, {"text": "Z"}, {}, {"text": "B"}),
        *({"text": "A", "tokens": [0]}, {"text": None}),
    ]
    requests = [{"model": "nano-gpt", "generate": {"max_new_tokens": 2}} | prompt for prompt in prompts]
    errors = errors_of(idle_client.post("/v1/batches", json={"requests": requests}))
    wrong = {1: "text", 2: "tokens", 4: "text", 5: "text", 7: "text", 8: "text"}
    assert sorted(errors) == [f"requests.{n}.{name}" for n, name in wrong.items()]
    assert errors["requests.4.text"] == ["'Z' is not allowed: must be one of A, B, C."]


def test_a_setting_of_more_than_64_bits_is_reported(idle_client: FlaskClient) -> None:
    request = {"model": "nano-gpt", "text": "A", "generate": {"max_new_tokens": 2, "seed": 2**70}}
    body = json.dumps({"requests": [request, request]})
    errors = errors_of(idle_client.post("/v1/batches", data=body, content_type="application/json"))
    assert sorted(errors) == ["requests.0.generate.seed", "requests.1.generate.seed"]
