"""Pages of other origins may read; only those in CORS_ORIGINS may do more."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from service.settings import Settings

PAGE = "https://viewer.example"
ALLOW = "Access-Control-Allow-{}"


def preflight(client: FlaskClient, method: str, *headers: str, origin: str = PAGE) -> TestResponse:
    named = {"Access-Control-Request-Headers": ", ".join(headers)} if headers else {}
    return client.options("/v1/traces", headers={"Origin": origin, "Access-Control-Request-Method": method} | named)


def allows(response: TestResponse, method: str, *headers: str, origin: str = PAGE) -> bool:
    """Return whether a browser sends the request after this preflight response (fetch.spec.whatwg.org)."""
    allowed = {name: response.headers.get(ALLOW.format(name), "").split(", ") for name in ("Methods", "Headers")}
    return (
        response.status_code == HTTPStatus.OK
        and response.headers.get(ALLOW.format("Origin")) in ("*", origin)
        and (method in ("GET", "HEAD", "POST") or method in allowed["Methods"])
        and {name.lower() for name in headers} <= {name.lower() for name in allowed["Headers"]}
    )


@pytest.fixture
def reading() -> FlaskClient:
    """A client of an app with the default settings."""
    return create_app(Settings()).test_client()


def test_other_origins_may_read_responses_and_problems(reading: FlaskClient) -> None:
    for path in ("/v1/models", "/v1/models/none"):
        response = reading.get(path, headers={"Origin": PAGE})
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        exposed = {name.strip() for name in response.headers["Access-Control-Expose-Headers"].split(",")}
        assert exposed >= {"Location", "ETag", "Preference-Applied", "Retry-After", "Tensor-Shape", "Tensor-Dtype"}


@pytest.mark.parametrize("origin", [PAGE, "null", "http://localhost:9000", "http://127.0.0.1:8001"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_pages_may_send_the_headers_of_reading(reading: FlaskClient, method: str, origin: str) -> None:
    headers = ("prefer", "range", "if-none-match", "last-event-id", "x-request-id")
    assert allows(preflight(reading, method, origin=origin), method, origin=origin)
    assert allows(preflight(reading, method, *headers, origin=origin), method, *headers, origin=origin)


@pytest.mark.parametrize("origin", [PAGE, "null", "http://localhost:9000"])
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", ("content-type",)),
        ("DELETE", ()),
        ("PUT", ()),
        ("GET", ("authorization",)),
        ("GET", ("x-api-key", "prefer")),
        ("DELETE", ("x-api-key",)),
    ],
)
def test_pages_may_not_write_or_use_a_key_and_the_problem_says_what_is_allowed(
    reading: FlaskClient, method: str, headers: tuple[str, ...], origin: str
) -> None:
    response = preflight(reading, method, *headers, origin=origin)
    assert not allows(response, method, *headers, origin=origin)
    assert response.status_code == HTTPStatus.FORBIDDEN
    for word in ("GET, HEAD, OPTIONS", "Prefer", "CORS_ORIGINS"):
        assert word in response.get_json()["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
@pytest.mark.parametrize("path", ["/v1/traces", "/v1/layouts", "/v1/batches"])
def test_what_a_page_may_send_without_a_preflight_is_no_request(
    reading: FlaskClient, path: str, content_type: str
) -> None:
    body = b'{"model": "nano-gpt", "tokens": [0]}'
    response = reading.post(path, data=body, content_type=content_type, headers={"Origin": PAGE})
    assert response.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize("origins", [f"{PAGE}, https://other.example", "*"])
def test_pages_of_listed_origins_may_do_everything(origins: str) -> None:
    client = create_app(Settings(cors_origins=origins)).test_client()
    assert allows(preflight(client, "POST", "content-type", "prefer"), "POST", "content-type", "prefer")
    assert allows(preflight(client, "DELETE", "x-api-key", "authorization"), "DELETE", "x-api-key", "authorization")
    assert client.get("/v1/models", headers={"Origin": PAGE}).headers[ALLOW.format("Origin")] in ("*", PAGE)


def test_pages_of_other_origins_than_the_listed_may_not_even_read() -> None:
    client = create_app(Settings(cors_origins=f"{PAGE},https://other.example")).test_client()
    origins = [PAGE, "https://other.example", "https://evil.example", "null"]
    found = [
        client.get("/v1/models", headers={"Origin": origin}).headers.get(ALLOW.format("Origin")) for origin in origins
    ]
    assert found == [PAGE, "https://other.example", None, None]
    assert not allows(preflight(client, "POST", "content-type", origin="null"), "POST", "content-type", origin="null")


def test_requests_that_are_no_preflight_are_unaffected(reading: FlaskClient) -> None:
    assert reading.options("/v1/traces").status_code == HTTPStatus.OK
    assert reading.options("/v1/traces", headers={"Origin": PAGE}).status_code == HTTPStatus.OK
