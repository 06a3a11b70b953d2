"""Every error is a problem (RFC 9457) that says what was wrong and what is allowed; none is our own fault."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from service.settings import Settings
from worker.families.registry import PRESETS

JSON = "application/json"
NANO = {"model": "nano-gpt", "text": "CBABBC"}


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """What is refused needs no worker."""
    return app.test_client()


def problem(answer: TestResponse, status: HTTPStatus) -> dict[str, Any]:
    """The body of an answer that is a problem of this status and nothing else."""
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = json.loads(answer.data)
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "request_id"}
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert (body["type"], body["title"], body["status"]) == ("about:blank", status.phrase, status)
    assert body["detail"]
    assert "Traceback" not in answer.text
    assert "<" not in body["detail"]
    return body


def post(client: FlaskClient, body: object, path: str = "/v1/traces") -> TestResponse:
    return client.post(path, data=json.dumps(body), content_type=JSON)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in NANO.items() if name != key}


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        # the prompt
        (NANO | {"text": "CBADBC"}, "text", "'D' is no letter of this model: only A, B, C are."),
        (NANO | {"text": "cba"}, "text", "'c' is no letter of this model"),
        (NANO | {"text": ""}, "text", "It is empty"),
        (without("text") | {"tokens": []}, "tokens", "It is empty"),
        (without("text") | {"tokens": [0, 3]}, "tokens", "3 is no token: this model's go from 0 to 2."),
        (without("text") | {"tokens": [0, -1]}, "tokens.1", "greater than or equal to 0"),
        (without("text") | {"tokens": [0] * 12}, "tokens", "12 tokens: this model reads at most 11."),
        (without("text") | {"tokens": [0, True]}, "tokens.1", "Not a valid integer"),
        (without("text") | {"tokens": [0, 1.0]}, "tokens.1", "Not a valid integer"),
        (without("text") | {"tokens": ["0"]}, "tokens.0", "Not a valid integer"),
        (without("text") | {"tokens": [2**70]}, "tokens.0", "Not a valid integer"),
        (without("text") | {"tokens": [2**63]}, "tokens.0", "less than or equal to"),
        (without("text") | {"tokens": [None]}, "tokens.0", "may not be null"),
        (without("text") | {"tokens": "012"}, "tokens", "Not a valid list"),
        (NANO | {"text": 7}, "text", "Not a valid string"),
        (NANO | {"text": None}, "text", "may not be null"),
        (NANO | {"tokens": [0]}, "text", 'Exactly one of "text" and "tokens" is needed.'),
        (without("text"), "text", 'Exactly one of "text" and "tokens" is needed.'),
        ({"model": {"vocab_size": 100}, "text": "A"}, "text", 'this model has no text: send "tokens"'),
        # the model
        (without("model"), "model", "Missing data"),
        (NANO | {"model": 7}, "model", "The id of a model"),
        (NANO | {"model": None}, "model", "may not be null"),
        (NANO | {"model": ["gpt2"]}, "model", "The id of a model"),
        (NANO | {"model": {"n_layer": 0}}, "model.n_layer", "a whole number from 1 to 10,000"),
        (NANO | {"model": {"n_layer": True}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_layer": 2.0}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_layer": "2"}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_layer": 2**70}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_layer": None}}, "model.n_layer", "a whole number"),
        (NANO | {"model": {"n_head": 5}}, "model.n_head", "5 heads do not divide the width n_embd = 768"),
        (NANO | {"model": {"d_head": 0}}, "model.d_head", "0 is not allowed"),
        (NANO | {"model": {"activation_function": "tanh"}}, "model.activation_function", "one of gelu_new, gelu"),
        (NANO | {"model": {"activation_function": []}}, "model.activation_function", "one of gelu_new, gelu"),
        (NANO | {"model": {"layer_norm_epsilon": 0}}, "model.layer_norm_epsilon", "above 0 and below 1"),
        (NANO | {"model": {"layer_norm_epsilon": "1e-5"}}, "model.layer_norm_epsilon", "above 0 and below 1"),
        (NANO | {"model": {"tie_word_embeddings": 1}}, "model.tie_word_embeddings", "true or false"),
        (NANO | {"model": {"layers": 3}}, "model.layers", "Unknown field: one of n_layer"),
        # what is generated
        (NANO | {"generate": {}}, "generate.max_new_tokens", "Missing data"),
        (NANO | {"generate": {"max_new_tokens": 7}}, "generate.max_new_tokens", "so at most 6 new ones"),
        (NANO | {"generate": {"max_new_tokens": 0}}, "generate.max_new_tokens", "greater than or equal to 1"),
        (NANO | {"generate": {"max_new_tokens": True}}, "generate.max_new_tokens", "Not a valid integer"),
        (NANO | {"generate": {"max_new_tokens": 1.5}}, "generate.max_new_tokens", "Not a valid integer"),
        (NANO | {"generate": {"max_new_tokens": 1, "temperature": -1}}, "generate.temperature", "greater than"),
        (NANO | {"generate": {"max_new_tokens": 1, "temperature": "0"}}, "generate.temperature", "Not a valid number"),
        (NANO | {"generate": {"max_new_tokens": 1, "temperature": True}}, "generate.temperature", "Not a valid number"),
        (NANO | {"generate": {"max_new_tokens": 1, "temperature": []}}, "generate.temperature", "Not a valid number"),
        (NANO | {"generate": {"max_new_tokens": 1, "top_k": 0}}, "generate.top_k", "greater than or equal to 1"),
        (NANO | {"generate": {"max_new_tokens": 1, "top_p": 0}}, "generate.top_p", "greater than 0"),
        (NANO | {"generate": {"max_new_tokens": 1, "top_p": 1.1}}, "generate.top_p", "less than or equal to 1"),
        (NANO | {"generate": {"max_new_tokens": 1, "seed": -1}}, "generate.seed", "greater than or equal to 0"),
        (NANO | {"generate": {"max_new_tokens": 1, "beams": 2}}, "generate.beams", "Unknown field"),
        (NANO | {"generate": 6}, "generate", "Invalid input type"),
        # what is kept
        (NANO | {"capture": []}, "capture", "Length must be between 1 and 100"),
        (NANO | {"capture": "*"}, "capture", "Not a valid list"),
        (NANO | {"capture": ["*", "nothing"]}, "capture", "'nothing' matches no tensor: the names are tokens, embed"),
        (NANO | {"dtype": "int8"}, "dtype", "Must be one of: float32, float16"),
        (NANO | {"weights": {"synthetic": -1}}, "weights.synthetic", "greater than or equal to 0"),
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
def test_a_value_that_cannot_be_is_422_naming_its_field(
    client: FlaskClient, body: object, field: str, said: str
) -> None:
    told = problem(post(client, body), HTTPStatus.UNPROCESSABLE_ENTITY)
    assert list(told["errors"]) == [field]
    assert said in " ".join(told["errors"][field])
    assert f"{field}: " in told["detail"]


def test_every_bad_field_is_named_at_once(client: FlaskClient) -> None:
    body = {"text": 7, "dtype": "int8", "generate": {"max_new_tokens": 0, "seed": -1}}
    told = problem(post(client, body), HTTPStatus.UNPROCESSABLE_ENTITY)
    assert set(told["errors"]) == {"model", "text", "dtype", "generate.max_new_tokens", "generate.seed"}


HINT = ", and any configuration, as in n_layer=3,n_head=3,n_embd=48."


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts"])
def test_an_unknown_model_is_404_telling_which_there_are(client: FlaskClient, path: str) -> None:
    told = problem(post(client, {"model": "gpt5"} | ({"text": "A"} if "traces" in path else {}), path), HTTPStatus(404))
    assert told["detail"] == f"There is no model 'gpt5': the models are {', '.join(PRESETS)}" + HINT


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
def test_what_is_not_json_is_400_saying_where(client: FlaskClient, path: str, body: bytes) -> None:
    told = problem(client.post(path, data=body, content_type=JSON), HTTPStatus.BAD_REQUEST)
    assert told["detail"].startswith("The body is not JSON: ")


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts"])
@pytest.mark.parametrize(
    ("content_type", "said"),
    [
        ("text/plain", "'text/plain'"),
        ("application/x-www-form-urlencoded", "'application/x-www-form-urlencoded'"),
        ("application/jsonp", "'application/jsonp'"),
        (None, "nothing"),
    ],
)
def test_what_is_not_said_to_be_json_is_415(
    client: FlaskClient, path: str, content_type: str | None, said: str
) -> None:
    answer = client.post(path, data=json.dumps(NANO), content_type=content_type)
    told = problem(answer, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    assert told["detail"] == f"Content-Type says {said}: application/json is read here."


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/problem+json"])
def test_what_is_said_to_be_json_is_read(client: FlaskClient, content_type: str) -> None:
    answer = client.post("/v1/traces", data=b'{"model": "gpt5", "text": "A"}', content_type=content_type)
    assert answer.status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts"])
def test_a_body_too_large_is_413_telling_the_limit(client: FlaskClient, path: str) -> None:
    answer = client.post(path, data=b'{"text": "' + b"A" * 10_000_000 + b'"}', content_type=JSON)
    told = problem(answer, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    assert told["detail"] == "The body is larger than the 8,388,608 bytes that are read here."


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
def test_a_query_that_cannot_be_is_422_naming_it(client: FlaskClient, query: str, field: str) -> None:
    told = problem(client.get(f"/v1/traces?{query}"), HTTPStatus.UNPROCESSABLE_ENTITY)
    assert list(told["errors"]) == [field]


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
def test_a_wrong_method_is_405_telling_the_right_ones(
    client: FlaskClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.open(path, method=method)
    told = problem(answer, HTTPStatus.METHOD_NOT_ALLOWED)
    assert {name.strip() for name in answer.headers["Allow"].split(",")} == allowed
    assert told["detail"] == f"{method} is not allowed here: {', '.join(sorted(allowed))} are."


@pytest.mark.parametrize("path", ["/v1", "/v2/traces", "/v1/trace", "/v1/models/gpt2/weights", "/v1/%00/%ff"])
def test_an_unknown_path_is_404_telling_where_to_look(client: FlaskClient, path: str) -> None:
    told = problem(client.get(path), HTTPStatus.NOT_FOUND)
    assert told["detail"].endswith("/openapi.yaml tells what there is.")


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
def test_without_redis_it_is_503_with_a_time_to_come_back(url: str, method: str, path: str) -> None:
    client = create_app(Settings(queue_url=url, cache_url=url)).test_client()
    began = time.monotonic()
    answer = client.open(path, method=method, json=NANO if method == "POST" else None)
    assert time.monotonic() - began < 3
    told = problem(answer, HTTPStatus.SERVICE_UNAVAILABLE)
    assert answer.headers["Retry-After"] == "2"
    assert url.partition("://")[2] not in told["detail"]


def test_what_needs_no_redis_is_answered_without() -> None:
    nowhere = "unix:///nowhere/redis.sock"
    client = create_app(Settings(queue_url=nowhere, cache_url=nowhere)).test_client()
    for path in ("/v1/models", "/v1/models/nano-gpt/tensors/wte.weight", "/openapi.yaml", "/healthz"):
        assert client.get(path).status_code == HTTPStatus.OK


def test_a_defect_of_ours_is_500_and_tells_nothing_of_itself(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(id: str) -> None:
        raise ZeroDivisionError("a secret of /the/house")

    monkeypatch.setattr("worker.models.lookup.find", broken)
    told = problem(client.get("/v1/models/gpt2"), HTTPStatus.INTERNAL_SERVER_ERROR)
    assert told["detail"] == "Something went wrong here; the request was not the reason."


def test_other_origins_may_read_answers_and_problems(client: FlaskClient) -> None:
    for path in ("/v1/models", "/v1/traces/none"):
        answer = client.get(path, headers={"Origin": "https://viewer.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
        assert exposed >= {"Location", "ETag", "Preference-Applied", "Retry-After", "Tensor-Shape", "Tensor-Dtype"}


def test_origins_can_be_narrowed(app: Flask) -> None:
    client = create_app(Settings(cors_origins="https://viewer.example,https://other.example")).test_client()
    allowed = [
        client.get("/v1/models", headers={"Origin": f"https://{host}.example"}).headers.get(
            "Access-Control-Allow-Origin"
        )
        for host in ("viewer", "other", "evil")
    ]
    assert allowed == ["https://viewer.example", "https://other.example", None]
