"""Every error is a problem (RFC 9457) that says what is wrong and what is allowed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from http import HTTPStatus
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from service.settings import Settings
from tests.conftest import Servers
from worker.families.registry import PRESETS

JSON = "application/json"
NANO = {"model": "nano-gpt", "text": "CBABBC"}
MESSAGE = {"role": "user", "content": "CBABBC"}


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client without a worker, which refused requests do not need."""
    return app.test_client()


def problem(response: TestResponse, status: HTTPStatus) -> dict[str, Any]:
    """Check that a response is a problem with this status; return its body."""
    assert (response.status_code, response.content_type) == (status, "application/problem+json"), response.text
    body: dict[str, Any] = json.loads(response.data)
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "request_id"}
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert (body["type"], body["title"], body["status"]) == ("about:blank", status.phrase, status)
    assert body["detail"]
    assert "Traceback" not in response.text
    assert "<" not in body["detail"]
    return body


def post(client: FlaskClient, body: object, path: str = "/v1/traces") -> TestResponse:
    return client.post(path, data=json.dumps(body), content_type=JSON)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in NANO.items() if name != key}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        # the prompt
        (NANO | {"text": "CBADBC"}, "text", "'D' is not allowed: must be one of A, B, C."),
        (NANO | {"text": "cba"}, "text", "'c' is not allowed"),
        (NANO | {"text": ""}, "text", "Must have at least 1 token."),
        (without("text") | {"tokens": []}, "tokens", "Must have at least 1 token."),
        (without("text") | {"tokens": [0, 3]}, "tokens", "Token 3 is out of range: this model's tokens are 0 to 2."),
        (without("text") | {"tokens": [0, -1]}, "tokens.1", "Must be an integer from 0 to"),
        (without("text") | {"tokens": [0] * 12}, "tokens", "at most 11 tokens for this model, but has 12."),
        (without("text") | {"tokens": [0, True]}, "tokens.1", "Must be an integer from 0 to"),
        (without("text") | {"tokens": [0, 1.5]}, "tokens.1", "Must be an integer from 0 to"),
        (without("text") | {"tokens": ["0"]}, "tokens.0", "Must be an integer from 0 to"),
        (without("text") | {"tokens": [2**70]}, "tokens.0", "Must be an integer from 0 to"),
        (without("text") | {"tokens": [2**63]}, "tokens.0", "Must be an integer from 0 to"),
        (without("text") | {"tokens": [None]}, "tokens.0", "may not be null"),
        (without("text") | {"tokens": "012"}, "tokens", "Not a valid list"),
        (NANO | {"text": 7}, "text", "Not a valid string"),
        (NANO | {"text": None}, "text", "may not be null"),
        (NANO | {"tokens": [0]}, "text", 'Exactly one of "text", "tokens" and "messages" is required.'),
        (NANO | {"messages": [MESSAGE]}, "text", 'Exactly one of "text", "tokens" and "messages" is required.'),
        (without("text"), "text", 'Exactly one of "text", "tokens" and "messages" is required.'),
        (without("text") | {"messages": []}, "messages", "Length must be between 1 and 1000."),
        (without("text") | {"messages": [MESSAGE] * 1001}, "messages", "Length must be between 1 and 1000."),
        (without("text") | {"messages": "Hi"}, "messages", "Not a valid list"),
        (without("text") | {"messages": ["Hi"]}, "messages.0", "Invalid input type"),
        (without("text") | {"messages": [{"role": "user"}]}, "messages.0.content", "Missing data"),
        (without("text") | {"messages": [MESSAGE | {"content": 1}]}, "messages.0.content", "Not a valid string"),
        (without("text") | {"messages": [MESSAGE | {"name": "x"}]}, "messages.0.name", "Unknown field"),
        (without("text") | {"messages": [MESSAGE]}, "messages", "This model has no chat template: send"),
        (NANO | {"add_special_tokens": 1}, "add_special_tokens", "Not a valid boolean"),
        (
            without("text") | {"tokens": [0], "add_special_tokens": True},
            "add_special_tokens",
            "added to text and messages",
        ),
        ({"model": {"vocab_size": 100}, "text": "A"}, "text", 'This model has no text vocabulary: send "tokens"'),
        # the model
        (without("model"), "model", "Missing data"),
        (NANO | {"model": 7}, "model", "Must be the id of a model"),
        (NANO | {"model": None}, "model", "may not be null"),
        (NANO | {"model": ["gpt2"]}, "model", "Must be the id of a model"),
        (NANO | {"model": {"n_layer": 0}}, "model.n_layer", "a whole number from 1 to 10,000"),
        (NANO | {"model": {"n_layer": True}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_layer": 2.5}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_layer": "2"}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_layer": 2**70}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_layer": None}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_head": 5}}, "model.n_head", "5 is not allowed: must be a divisor of n_embd = 768"),
        (NANO | {"model": {"d_head": 0}}, "model.d_head", "0 is not allowed"),
        (NANO | {"model": {"activation_function": "tanh"}}, "model.activation_function", "one of gelu_new, gelu"),
        (NANO | {"model": {"activation_function": []}}, "model.activation_function", "one of gelu_new, gelu"),
        (NANO | {"model": {"layer_norm_epsilon": 0}}, "model.layer_norm_epsilon", "above 0 and below 1"),
        (NANO | {"model": {"layer_norm_epsilon": "1e-5"}}, "model.layer_norm_epsilon", "above 0 and below 1"),
        (NANO | {"model": {"tie_word_embeddings": 1}}, "model.tie_word_embeddings", "true or false"),
        (NANO | {"model": {"layers": 3}}, "model.layers", "Unknown field: must be one of n_layer"),
        # what is generated
        (NANO | {"generate": {}}, "generate.max_new_tokens", "Missing data"),
        (NANO | {"generate": {"max_new_tokens": 7}}, "generate.max_new_tokens", "Must be at most 6:"),
        (NANO | {"generate": {"max_new_tokens": 0}}, "generate.max_new_tokens", "Must be an integer from 1 to"),
        (NANO | {"generate": {"max_new_tokens": True}}, "generate.max_new_tokens", "Must be an integer from 1 to"),
        (NANO | {"generate": {"max_new_tokens": 1.5}}, "generate.max_new_tokens", "Must be an integer from 1 to"),
        (NANO | {"generate": {"max_new_tokens": 1, "temperature": -1}}, "generate.temperature", "greater than"),
        (NANO | {"generate": {"max_new_tokens": 1, "temperature": "0"}}, "generate.temperature", "Not a valid number"),
        (NANO | {"generate": {"max_new_tokens": 1, "temperature": True}}, "generate.temperature", "Not a valid number"),
        (NANO | {"generate": {"max_new_tokens": 1, "temperature": []}}, "generate.temperature", "Not a valid number"),
        (NANO | {"generate": {"max_new_tokens": 1, "top_k": 0}}, "generate.top_k", "Must be an integer from 1 to"),
        (NANO | {"generate": {"max_new_tokens": 1, "top_p": 0}}, "generate.top_p", "greater than 0"),
        (NANO | {"generate": {"max_new_tokens": 1, "top_p": 1.1}}, "generate.top_p", "less than or equal to 1"),
        (NANO | {"generate": {"max_new_tokens": 1, "seed": -1}}, "generate.seed", "Must be an integer from 0 to"),
        (NANO | {"generate": {"max_new_tokens": 1, "beams": 2}}, "generate.beams", "Unknown field"),
        (NANO | {"generate": 6}, "generate", "Invalid input type"),
        # what is captured
        (NANO | {"capture": []}, "capture", "Length must be between 1 and 100"),
        (NANO | {"capture": "*"}, "capture", "Not a valid list"),
        (NANO | {"capture": ["*", "nothing"]}, "capture", "'nothing' matches no tensor: the names are tokens, embed"),
        (NANO | {"dtype": "int8"}, "dtype", "Must be one of: float32, float16"),
        (NANO | {"weights": {"synthetic": -1}}, "weights.synthetic", "Must be an integer from 0 to"),
        (NANO | {"weights": {}}, "weights.synthetic", "Missing data"),
        (NANO | {"colour": "red"}, "colour", "Unknown field"),
        (NANO | {"my_schema": 1}, "my_schema", "Unknown field"),
        # not even an object
        ([NANO], "body", "Invalid input type"),
        (None, "body", "Invalid input type"),
        ("CBABBC", "body", "Invalid input type"),
        (7, "body", "Invalid input type"),
    ],
)
def test_an_invalid_value_is_422_with_its_field(client: FlaskClient, body: object, field: str, message: str) -> None:
    reported = problem(post(client, body), HTTPStatus.UNPROCESSABLE_ENTITY)
    assert list(reported["errors"]) == [field]
    assert message in " ".join(reported["errors"][field])
    assert f"{field}: " in reported["detail"]


def test_all_invalid_fields_are_reported_at_once(client: FlaskClient) -> None:
    body = {"text": 7, "dtype": "int8", "generate": {"max_new_tokens": 0, "seed": -1}}
    reported = problem(post(client, body), HTTPStatus.UNPROCESSABLE_ENTITY)
    assert set(reported["errors"]) == {"model", "text", "dtype", "generate.max_new_tokens", "generate.seed"}


HINT = ", and any configuration, as in n_layer=3,n_head=3,n_embd=48."


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts"])
def test_an_unknown_model_is_404_with_the_known_ones(client: FlaskClient, path: str) -> None:
    reported = problem(
        post(client, {"model": "gpt5"} | ({"text": "A"} if "traces" in path else {}), path), HTTPStatus(404)
    )
    assert reported["detail"] == f"There is no model 'gpt5': the models are {', '.join(PRESETS)}" + HINT


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": "nano-gpt", "text": "A",}',
        b"{'model': 'nano-gpt'}",
        b"NaN",
        b'{"model": "nano-gpt", "text": "A", "generate": {"max_new_tokens": 1, "temperature": NaN}}',
        b'{"model": "nano-gpt", "text": "A", "generate": {"max_new_tokens": 1, "temperature": 1e999}}',
        b'{"model": "nano-gpt", "text": "\xff"}',
        b'{"model": "nano-gpt", "text": "\\ud800"}',
        b'{"model": "nano-gpt"} and more',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
    ],
)
def test_invalid_json_is_400_with_the_position(client: FlaskClient, path: str, body: bytes) -> None:
    reported = problem(client.post(path, data=body, content_type=JSON), HTTPStatus.BAD_REQUEST)
    assert reported["detail"].startswith("The body is not valid JSON: ")


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts"])
@pytest.mark.parametrize(
    ("content_type", "named"),
    [
        ("text/plain", "text/plain"),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        ("application/jsonp", "application/jsonp"),
        (None, "absent"),
    ],
)
def test_another_content_type_is_415(client: FlaskClient, path: str, content_type: str | None, named: str) -> None:
    response = client.post(path, data=json.dumps(NANO), content_type=content_type)
    reported = problem(response, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    assert reported["detail"] == f"Content-Type must be application/json, not {named}."


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/problem+json"])
def test_json_content_types_are_accepted(client: FlaskClient, content_type: str) -> None:
    response = client.post("/v1/traces", data=b'{"model": "gpt5", "text": "A"}', content_type=content_type)
    assert response.status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts"])
def test_too_large_a_body_is_413_with_the_limit(client: FlaskClient, path: str) -> None:
    response = client.post(path, data=b'{"text": "' + b"A" * 10_000_000 + b'"}', content_type=JSON)
    reported = problem(response, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    assert reported["detail"] == "The body must have at most 8,388,608 bytes."


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("cursor=-1", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=99999999999999999999", "cursor"),
        ("status=over", "status"),
    ],
)
def test_an_invalid_query_is_422_with_its_parameter(client: FlaskClient, query: str, field: str) -> None:
    reported = problem(client.get(f"/v1/traces?{query}"), HTTPStatus.UNPROCESSABLE_ENTITY)
    assert list(reported["errors"]) == [field]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/traces", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("DELETE", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/v1/models/gpt2", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", f"/v1/traces/{'0' * 64}", {"GET", "HEAD", "OPTIONS", "DELETE"}),
        ("GET", "/v1/layouts", {"OPTIONS", "POST"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_405_with_the_allowed_ones(
    client: FlaskClient, method: str, path: str, allowed: set[str]
) -> None:
    response = client.open(path, method=method)
    reported = problem(response, HTTPStatus.METHOD_NOT_ALLOWED)
    assert {name.strip() for name in response.headers["Allow"].split(",")} == allowed
    assert reported["detail"] == f"{method} is not allowed: use {', '.join(sorted(allowed))}."


@pytest.mark.parametrize("path", ["/v1", "/v2/traces", "/v1/trace", "/v1/models/gpt2/weights", "/v1/%00/%ff"])
def test_an_unknown_path_is_404_with_a_link_to_the_routes(client: FlaskClient, path: str) -> None:
    reported = problem(client.get(path), HTTPStatus.NOT_FOUND)
    assert reported["detail"].endswith(": see /openapi.yaml.")


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/traces"),
        ("GET", "/v1/traces"),
        ("GET", f"/v1/traces/{'0' * 64}"),
        ("DELETE", f"/v1/traces/{'0' * 64}"),
        ("GET", f"/v1/traces/{'0' * 64}/tensors/probs"),
        ("GET", f"/v1/layouts/{'0' * 64}"),
    ],
)
def test_without_redis_it_is_503_with_retry_after(url: str, method: str, path: str) -> None:
    client = create_app(Settings(queue_url=url, cache_url=url)).test_client()
    began = time.monotonic()
    response = client.open(path, method=method, json=NANO if method == "POST" else None)
    assert time.monotonic() - began < 3
    reported = problem(response, HTTPStatus.SERVICE_UNAVAILABLE)
    assert response.headers["Retry-After"] == "2"
    assert url.partition("://")[2] not in reported["detail"]


def test_routes_that_need_no_redis_work_without_it() -> None:
    nowhere = "unix:///nowhere/redis.sock"
    client = create_app(Settings(queue_url=nowhere, cache_url=nowhere)).test_client()
    for path in ("/v1/models", "/v1/models/nano-gpt/tensors/wte.weight", "/openapi.yaml", "/healthz"):
        assert client.get(path).status_code == HTTPStatus.OK


def test_a_bug_is_500_and_reveals_nothing(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(id: str) -> None:
        raise ZeroDivisionError("a secret of /the/house")

    monkeypatch.setattr("worker.models.lookup.find", broken)
    reported = problem(client.get("/v1/models/gpt2"), HTTPStatus.INTERNAL_SERVER_ERROR)
    assert reported["detail"] == "Internal error: the request did not cause it."


@pytest.mark.parametrize("extra", [0, 1, 100_000])
@pytest.mark.parametrize(
    ("path", "content_type"), [("/v1/traces", "application/json"), ("/v1/batches", "application/x-ndjson")]
)
def test_a_chunked_body_above_the_limit_is_413_and_none_of_it_is_accepted(
    servers: Servers, path: str, content_type: str, extra: int
) -> None:
    limit = 2000
    line = b'{"model": "nano-gpt", "tokens": [0]}\n'
    body = line * 4 + b" " * (limit - 4 * len(line) + extra)
    client = create_app(replace(servers.settings, max_body_bytes=limit)).test_client()
    response = client.post(
        path, input_stream=BytesIO(body), content_type=content_type, environ_overrides={"wsgi.input_terminated": True}
    )
    assert (response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE) == (extra > 0)
    assert extra == 0 or response.get_json()["detail"] == "The body must have at most 2,000 bytes."
