"""Hostile requests get a short error response quickly."""

from __future__ import annotations

import gzip
import json
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import service.http.json_parsing as json_parsing
import service.resources.batches as batches

JSON = "application/json"
NANO = '{"model": "nano-gpt", "text": "A"'
CONFIG = '{"tokens": [1], "model": {"n_layer": 1, '
GENERATE = NANO + ', "generate": {"max_new_tokens": 1, '
SHORT = 60_000  # bytes: no response echoes a large request


@pytest.fixture
def service(app: Flask) -> FlaskClient:
    """A client without a worker, which refused requests do not need."""
    return app.test_client()


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


BODIES = {
    # ambiguous documents
    "a duplicate name": (NANO + ', "model": "gpt2"}', 400, "an object has the name 'model' more than once"),
    "a duplicate name, escaped": (NANO + r', "\u006dodel": "gpt2"}', 400, "the name 'model' more than once"),
    "a duplicate name within": (CONFIG + '"n_head": 1, "n_head": 2}}', 400, "the name 'n_head' more than once"),
    "a duplicate name, the same value": (NANO + ', "text": "A"}', 400, "the name 'text' more than once"),
    # numbers
    "a seed of 2^63": (GENERATE + '"seed": 9223372036854775808}}', 422, "from 0 to 9,223,372,036,854,775,807"),
    "a seed of 2^64": (GENERATE + '"seed": 18446744073709551616}}', 422, "generate.seed: Must be an integer"),
    "a seed of 5,000 digits": (GENERATE + f'"seed": {"9" * 5000}}}}}', 400, "number is infinity"),
    "a size of 300 digits": (CONFIG + f'"n_embd": {"9" * 300}}}}}', 422, "a whole number from 1 to 1,000,000"),
    "a size beyond 2^63": (CONFIG + f'"n_positions": {2**63}}}}}', 422, "a whole number from 1 to 1,000,000"),
    "NaN": (GENERATE + '"temperature": NaN}}', 400, "The body is not valid JSON"),
    "Infinity": (GENERATE + '"temperature": Infinity}}', 400, "The body is not valid JSON"),
    "-Infinity": (GENERATE + '"top_p": -Infinity}}', 400, "The body is not valid JSON"),
    "1e999": (GENERATE + '"temperature": 1e999}}', 400, "number is infinity"),
    "an integer as text": (NANO + ', "generate": {"max_new_tokens": "1"}}', 422, "Must be an integer from 1"),
    "digits of another script": ('{"model": "nano-gpt", "tokens": ["١"]}', 422, "tokens.0: Must be an integer from 0"),
    "a fraction with an exponent": (
        '{"model": "nano-gpt", "tokens": [15e-1]}',
        422,
        "tokens.0: Must be an integer from 0",
    ),
    # text
    "a lone surrogate": (r'{"model": "gpt2", "text": "\udfff"}', 400, "surrogate"),
    "a lone surrogate in a name": (r'{"model": "gpt2", "\ud800": "A"}', 400, "surrogate"),
    "a model id with ..": ('{"model": "../../etc", "text": "A"}', 404, "the models are nano-gpt"),
    "a model id with a null byte": (r'{"model": "nano-gpt\u0000", "text": "A"}', 404, "the models are nano-gpt"),
    "a model id as long as the body": (
        json.dumps({"model": "x" * 3_000_000, "text": "A"}),
        404,
        "the models are nano-gpt",
    ),
    "a value as long as the body": (CONFIG + f'"n_head": "{"9" * 3_000_000}"}}}}', 422, "a whole number from 1 to"),
    "a field as long as the body": (NANO + f', "{"k" * 3_000_000}": 1}}', 422, "Unknown field"),
    "a long text": (json.dumps({"model": "nano-gpt", "text": "A" * 100_000}), 422, "at most 11"),
    # shapes
    "an empty body": ("", 400, "The body is not valid JSON"),
    "only whitespace": (" \n", 400, "The body is not valid JSON"),
    "a list": ("[]", 422, "body: Invalid input type"),
    "null": ("null", 422, "body: Invalid input type"),
    "a number": ("1", 422, "body: Invalid input type"),
    "a text": ('""', 422, "body: Invalid input type"),
    "a deep list": ('{"model": ' + deep(100_000) + "}", 400, "depth limit exceeded"),
    "a list too deep for the second parser": ('{"model": ' + deep(1020) + "}", 400, "nested too deeply"),
    "a deep size": (CONFIG + f'"n_head": {deep(500)}}}}}', 422, "a whole number from 1 to"),
    "deep objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, 400, "depth limit exceeded"),
    "many names": (json.dumps({f"k{n}": 1 for n in range(200_000)}), 400, "at most 1,000 names, not 200,000"),
    "some names": (json.dumps({f"k{n}": 1 for n in range(900)}), 422, "more errors are not listed"),
    "many tokens": (json.dumps({"model": "gpt2", "tokens": [1] * 2_000_000}), 422, "maximum length 1000000"),
    "many bad tokens": (
        json.dumps({"model": "gpt2", "tokens": ["x"] * 900_000}),
        422,
        "tokens.0: Must be an integer from 0",
    ),
    "many patterns": (NANO + f', "capture": {json.dumps(["*"] * 101)}}}', 422, "between 1 and 100"),
    "a pattern of stars": (NANO + f', "capture": ["{"*a" * 90}"]}}', 422, "matches no tensor"),
    "an unclosed pattern": (NANO + ', "capture": ["[[]!z-a]*"]}', 422, "matches no tensor"),
}


@pytest.mark.parametrize(("body", "status", "message"), BODIES.values(), ids=BODIES)
def test_a_hostile_body_gets_a_short_problem(service: FlaskClient, body: str, status: int, message: str) -> None:
    response = service.post("/v1/traces", data=body.encode(), content_type=JSON)
    assert response.content_type == "application/problem+json"
    assert response.status_code == status
    assert message in response.get_json()["detail"].replace("\\", "")
    assert len(response.data) < SHORT


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """A few bytes that decompress to 100 MB."""
    return gzip.compress(gzip.compress(b" " * 100_000_000, 1))


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts", "/v1/batches"])
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "gzip, gzip", "x"])
def test_a_compressed_body_is_415(service: FlaskClient, bomb: bytes, path: str, coding: str) -> None:
    response = service.post(path, data=bomb, content_type=JSON, headers={"Content-Encoding": coding})
    assert response.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    assert response.headers["Accept-Encoding"] == "identity"
    assert response.get_json()["detail"] == (
        f"Content-Encoding {coding!r} is not supported: send the body uncompressed."
    )


def test_the_content_encoding_identity_is_accepted(service: FlaskClient) -> None:
    response = service.post("/v1/traces", data=b"{", content_type=JSON, headers={"Content-Encoding": "Identity"})
    assert response.status_code == HTTPStatus.BAD_REQUEST


def test_the_lines_of_a_batch_are_parsed_as_strictly(service: FlaskClient) -> None:
    lines = (NANO + "}", NANO + ', "model": "gpt2"}', '{"a":' * 2000, NANO + ', "text": "A"}')
    response = service.post("/v1/batches", data="\n".join(lines).encode(), content_type="application/x-ndjson")
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert list(response.get_json()["errors"]) == ["requests.1", "requests.2", "requests.3"]


def test_a_batch_that_takes_too_long_to_validate_is_refused(
    service: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_MAX_SECONDS", 0.0)
    response = service.post("/v1/batches", json={"requests": [json.loads(NANO + "}")] * 3})
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "send fewer in one batch" in response.get_json()["errors"]["requests"][0]


QUERIES = {
    "digits of another script": ("/v1/traces?limit=%D9%A1", "limit: Not a valid integer"),
    "an underscore": ("/v1/traces?limit=1_0", "limit: Not a valid integer"),
    "a plus": ("/v1/traces?limit=%2B1", "limit: Not a valid integer"),
    "a space": ("/v1/traces?limit=%201", "limit: Not a valid integer"),
    "5,000 digits": ("/v1/traces?cursor=" + "9" * 5000, "cursor: Not a valid integer"),
    "2^63": ("/v1/traces?cursor=9223372036854775808", "less than or equal to 9007199254740992"),
    "many names": ("/v1/traces?" + "&".join(f"k{n}=1" for n in range(1000)), "Unknown field"),
    "a step of 0": ("/v1/models/nano-gpt/tensors/wte.weight?slice=::0", "step must not be 0"),
    "a long slice": ("/v1/models/nano-gpt/tensors/wte.weight?slice=" + "0," * 3000, "Longer than maximum length 200"),
    "a number of 19 digits": ("/v1/models/nano-gpt/tensors/wte.weight?slice=1234567890123456789", "must be an integer"),
    "max_cells with an exponent": (
        "/v1/models/nano-gpt/tensors/wte.weight?max_cells=1e3",
        "max_cells: Not a valid integer",
    ),
    "max_cells of 0": ("/v1/models/nano-gpt/tensors/wte.weight?max_cells=0", "greater than or equal to 1"),
    "another type": ("/v1/models/nano-gpt/tensors/wte.weight?dtype=object", "float32, float16, uint8"),
}


@pytest.mark.parametrize(("path", "message"), QUERIES.values(), ids=QUERIES)
def test_a_hostile_query_is_422(service: FlaskClient, path: str, message: str) -> None:
    response = service.get(path)
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert message in response.get_json()["detail"]
    assert len(response.data) < SHORT


def test_a_slice_with_huge_steps_selects_what_numpy_selects(service: FlaskClient) -> None:
    for slice, cells in ((f"::{10**17}", 1), (f"-{10**17}:{10**17}:{10**17}", 1), (f"::-{10**17}", 1)):
        response = service.get(f"/v1/models/nano-gpt/tensors/wte.weight?slice={slice},0")
        assert (response.status_code, len(response.get_json()["data"])) == (HTTPStatus.OK, cells)


@pytest.mark.parametrize("count", [101, 4000])
def test_patterns_are_limited_both_repeated_and_comma_separated(
    client: FlaskClient, sorted_letters: dict[str, Any], count: int
) -> None:
    url = f"/v1/traces/{sorted_letters['id']}/safetensors?tensors="
    for query in (",".join(["*"] * count), "&tensors=".join(["*"] * count)):
        assert client.get(url + query).status_code == HTTPStatus.UNPROCESSABLE_ENTITY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Range", "bytes=" + ",".join(f"{n}-{n}" for n in range(1500))),
        ("Range", "bytes=" + "9" * 5000 + "-"),
        ("If-None-Match", ",".join(f'"{n:032x}"' for n in range(200))),
        ("Accept", ",".join(f"a/b{n};q=0.{n}" for n in range(500)) + ",*/*"),
        ("Accept-Encoding", "gzip;q=nan, br;q=1e400, " * 300),
        ("Prefer", "wait=10," * 1000),
        ("Prefer", "wait=" + "9" * 5000),
        ("Cookie", "a=b;" * 2000),
    ],
)
def test_a_header_of_the_maximum_length_is_harmless(
    client: FlaskClient, sorted_letters: dict[str, Any], name: str, value: str
) -> None:
    for path in ("", "/safetensors", "/tensors/probs", "/events"):
        response = client.get(f"/v1/traces/{sorted_letters['id']}{path}", headers={name: value})
        assert response.status_code == HTTPStatus.OK
        response.close()


def test_a_page_reads_a_limited_number_of_traces_and_the_next_continues(
    idle_client: FlaskClient, request_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.broker._MAX_SCANNED", 2)
    nano = json.loads(NANO + "}")
    for body in (nano, *(request_body | {"tokens": [n]} for n in range(4))):
        assert idle_client.post("/v1/traces", json=body).status_code == HTTPStatus.ACCEPTED
    traces: list[dict[str, Any]] = []
    cursor, pages = "", 0
    while cursor is not None:
        page = idle_client.get(f"/v1/traces?model=nano-gpt{cursor and f'&cursor={cursor}'}").get_json()
        traces, cursor, pages = traces + page["traces"], page["next_cursor"], pages + 1
    assert ([trace["model"] for trace in traces], pages) == (["nano-gpt"], 3)


def test_unknown_methods_share_one_metric(app: Flask) -> None:
    client = app.test_client()
    for n in range(3):
        client.open("/healthz", method=f"MADEUP{n}")
    metrics = client.get("/metrics").text
    assert "MADEUP" not in metrics
    assert 'method="other"' in metrics


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(VALUES)
def test_json_is_parsed_to_the_value_it_was_made_from(value: Any) -> None:
    assert json_parsing.loads(json.dumps(value).encode()) == value


@settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    body=st.binary(max_size=60)
    | st.text(alphabet='{}[]",:0123456789eE+-.truefalsn\\ud8\0 ', max_size=60).map(str.encode)
)
def test_no_body_causes_a_5xx(app: Flask, body: bytes) -> None:
    for path in ("/v1/traces", "/v1/layouts", "/v1/batches"):
        assert 400 <= app.test_client().post(path, data=body, content_type=JSON).status_code < 500
