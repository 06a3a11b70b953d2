"""What every answer tells a browser, whatever is asked and however it ends."""

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
ANSWERS = [
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


@pytest.mark.parametrize(("method", "path", "headers", "status"), ANSWERS)
def test_every_answer_is_what_it_says_and_no_part_of_another_page(
    app: Flask, method: str, path: str, headers: dict[str, str], status: HTTPStatus
) -> None:
    answer = app.test_client().open(path, method=method, headers=headers)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert (answer.headers["Content-Security-Policy"] == NOTHING) == (path not in ("/", "/docs"))


def test_a_defect_of_ours_says_so_too(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("worker.models.lookup.find", broken)
    answer = app.test_client().get("/v1/models/gpt2")
    assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (500, "nosniff")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_gets_all_from_here_and_no_use_of_the_device(app: Flask, path: str) -> None:
    answer = app.test_client().get(path)
    told = dict(directive.split(" ", 1) for directive in answer.headers["Content-Security-Policy"].split("; "))
    assert told["default-src"] == told["base-uri"] == told["form-action"] == told["frame-ancestors"] == "'none'"
    assert re.fullmatch(r"'self'( 'sha256-[\w+/]{43}=')?", told["script-src"])
    assert not any(word in str(told) for word in ("unsafe", "http", "*"))
    features = answer.headers["Permissions-Policy"].split(", ")
    assert len(features) >= 10
    assert all(feature.endswith("=()") for feature in features)
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_a_policy_names_its_scripts_by_their_hashes_and_can_be_widened_by_name() -> None:
    told = policy(["alert(1)"], img_src="'self' data:", worker_src="'self'")
    # as `printf 'alert(1)' | openssl dgst -sha256 -binary | base64` has it
    assert "script-src 'self' 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='" in told
    assert "img-src 'self' data:" in told
    assert told.endswith("; worker-src 'self'")


@pytest.mark.parametrize(
    ("origins", "resource_policy"), [("*", "cross-origin"), ("https://viewer.example", "same-origin")]
)
def test_what_everybody_may_read_may_be_embedded_and_nothing_else(origins: str, resource_policy: str) -> None:
    answer = (
        create_app(Settings(cors_origins=origins))
        .test_client()
        .get("/v1/models", headers={"Origin": "https://viewer.example"})
    )
    assert answer.headers["Cross-Origin-Resource-Policy"] == resource_policy
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "https://viewer.example")  # CORS goes on as it did


HOSTILE = ['a"b', "a\\b", "a;b", "a%0d%0aSet-Cookie:%20x=1", "%0a", "%00", "☃", "../x", "a" * 4000]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("path", ["/v1/traces/{}", "/v1/traces/{}/safetensors", "/v1/models/{}", "/v1/batches/{}"])
def test_no_text_of_a_client_becomes_a_header_line(app: Flask, path: str, text: str) -> None:
    answer = app.test_client().get(path.format(text))
    sizes = "=" in text and path == "/v1/models/{}"  # as in n_layer=2
    assert answer.status_code == (HTTPStatus.UNPROCESSABLE_ENTITY if sizes else HTTPStatus.NOT_FOUND)
    assert "Set-Cookie" not in answer.headers
    assert not any(character in value for _, value in answer.headers for character in "\r\n\0")


@pytest.mark.parametrize("header", ["Prefer", "Last-Event-ID", "Origin", "Accept", "If-None-Match", "Range"])
@pytest.mark.parametrize(
    "value", ["wait=\u00b2", "\u00ff" * 100, "wait=" + "9" * 5000, '"' * 999, "1-1\t", ",;=" * 999]
)
def test_no_header_of_a_client_is_more_than_not_understood(
    client: FlaskClient, sorted_letters: dict[str, Any], header: str, value: str
) -> None:
    for path in ("", "/events", "/tensors/probs", "/safetensors"):
        answer = client.get(f"/v1/traces/{sorted_letters['id']}{path}", headers={header: value})
        assert answer.status_code < 500
        answer.close()
