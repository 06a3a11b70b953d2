"""Security headers are in every response, including errors."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.app import create_app
from service.http.security_headers import policy
from service.settings import Settings

NOTHING = "default-src 'none'; frame-ancestors 'none'"
REQUESTS = [
    ("GET", "/v1/models", {}, HTTPStatus.OK),
    ("HEAD", "/v1/models/nano-gpt", {}, HTTPStatus.OK),
    ("OPTIONS", "/v1/traces", {}, HTTPStatus.OK),
    ("GET", "/openapi.yaml", {}, HTTPStatus.OK),
    ("GET", "/healthz", {}, HTTPStatus.OK),
    ("GET", "/metrics", {}, HTTPStatus.OK),
    ("GET", "/", {}, HTTPStatus.OK),
    ("GET", "/docs", {}, HTTPStatus.OK),
    ("GET", "/docs/files/swagger-ui.css", {}, HTTPStatus.OK),
    ("GET", "/v1/models/nano-gpt/tensors/wte.weight", {"Accept": "application/octet-stream"}, HTTPStatus.OK),
    ("GET", "/v1/models/nano-gpt/tensors/wte.weight", {"If-None-Match": "*"}, HTTPStatus.NOT_MODIFIED),
    ("GET", "/nowhere", {}, HTTPStatus.NOT_FOUND),
    ("PUT", "/v1/traces", {}, HTTPStatus.METHOD_NOT_ALLOWED),
    ("POST", "/v1/traces", {"Content-Type": "text/plain"}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), REQUESTS)
def test_every_response_forbids_sniffing_and_framing(
    app: Flask, method: str, path: str, headers: dict[str, str], status: HTTPStatus
) -> None:
    response = app.test_client().open(path, method=method, headers=headers)
    assert response.status_code == status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert (response.headers["Content-Security-Policy"] == NOTHING) == (path not in ("/", "/docs"))


def test_a_500_has_the_headers_too(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("worker.models.lookup.find", broken)
    response = app.test_client().get("/v1/models/gpt2")
    assert (response.status_code, response.headers["X-Content-Type-Options"]) == (500, "nosniff")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_from_its_own_origin_only_and_cannot_use_the_device(app: Flask, path: str) -> None:
    response = app.test_client().get(path)
    directives = dict(directive.split(" ", 1) for directive in response.headers["Content-Security-Policy"].split("; "))
    assert directives["default-src"] == directives["base-uri"] == "'none'"
    assert directives["form-action"] == directives["frame-ancestors"] == "'none'"
    assert re.fullmatch(r"'self'( 'sha256-[\w+/]{43}=')?", directives["script-src"])
    assert not any(word in str(directives) for word in ("unsafe", "http", "*"))
    features = response.headers["Permissions-Policy"].split(", ")
    assert len(features) >= 10
    assert all(feature.endswith("=()") for feature in features)
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_a_policy_has_the_hashes_of_scripts_and_accepts_more_directives() -> None:
    text = policy(["alert(1)"], img_src="'self' data:", worker_src="'self'")
    # from `printf 'alert(1)' | openssl dgst -sha256 -binary | base64`
    assert "script-src 'self' 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='" in text
    assert "img-src 'self' data:" in text
    assert text.endswith("; worker-src 'self'")


@pytest.mark.parametrize(
    ("origins", "resource_policy"),
    [("", "cross-origin"), ("*", "cross-origin"), ("https://viewer.example", "same-origin")],
)
def test_only_an_api_that_all_origins_may_read_may_be_embedded(origins: str, resource_policy: str) -> None:
    response = (
        create_app(Settings(cors_origins=origins))
        .test_client()
        .get("/v1/models", headers={"Origin": "https://viewer.example"})
    )
    assert response.headers["Cross-Origin-Resource-Policy"] == resource_policy
    assert response.headers["Access-Control-Allow-Origin"] in ("*", "https://viewer.example")  # CORS is unaffected


HOSTILE = ['a"b', "a\\b", "a;b", "a%0d%0aSet-Cookie:%20x=1", "%0a", "%00", "☃", "../x", "a" * 4000]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("path", ["/v1/traces/{}", "/v1/traces/{}/safetensors", "/v1/models/{}", "/v1/batches/{}"])
def test_clients_cannot_inject_headers(app: Flask, path: str, text: str) -> None:
    response = app.test_client().get(path.format(text))
    is_config = "=" in text and path == "/v1/models/{}"  # as in n_layer=2
    assert response.status_code == (HTTPStatus.UNPROCESSABLE_ENTITY if is_config else HTTPStatus.NOT_FOUND)
    assert "Set-Cookie" not in response.headers
    assert not any(character in value for _, value in response.headers for character in "\r\n\0")


@pytest.mark.parametrize("header", ["Prefer", "Last-Event-ID", "Origin", "Accept", "If-None-Match", "Range"])
@pytest.mark.parametrize(
    "value", ["wait=\u00b2", "\u00ff" * 100, "wait=" + "9" * 5000, '"' * 999, "1-1\t", ",;=" * 999]
)
def test_no_malformed_header_causes_a_5xx(
    client: FlaskClient, sorted_letters: dict[str, Any], header: str, value: str
) -> None:
    for path in ("", "/events", "/tensors/probs", "/safetensors"):
        response = client.get(f"/v1/traces/{sorted_letters['id']}{path}", headers={header: value})
        assert response.status_code < 500
        response.close()
