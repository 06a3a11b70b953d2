"""Accept and Accept-Encoding as RFC 9110 defines them."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from service.http.negotiation import content_coding

MODEL = "/v1/models/nano-gpt"
TENSOR = f"{MODEL}/tensors/wte.weight?slice=0"


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, br", "br"),
        ("GZIP;q=0.5, br;q=0.4", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip; q=0", "identity"),
        ("gzip;q=0, br;q=0", "identity"),
        ("br;q=0, *", "gzip"),
        ("*;q=0", "identity"),
        ("*", "br"),
        ("identity", "identity"),
        ("identity;q=0.5, gzip;q=0.4", "identity"),
        ("identity;q=0, gzip;q=0.4", "gzip"),
        ("zstd", "identity"),
        (";;,=", "identity"),
    ],
)
def test_a_coding_of_quality_0_is_never_used(header: str, coding: str) -> None:
    assert content_coding(header) == coding


def test_a_refused_coding_is_not_used_for_json(client: FlaskClient) -> None:
    refused = client.get("/v1/models", headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in refused.headers
    assert client.get("/v1/models", headers={"Accept-Encoding": "gzip"}).headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json; charset=utf-8", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("application/*", "application/json"),
        ("*/*;q=0.1", "application/json"),
        ("application/octet-stream, application/json;q=0.9", "application/octet-stream"),
        ("application/octet-stream;q=0.5, application/json;charset=utf-8;q=0.9", "application/json"),
        ("application/json;q=0, */*", "application/octet-stream"),
    ],
)
def test_the_media_type_is_the_one_that_the_client_prefers(client: FlaskClient, accept: str, content_type: str) -> None:
    response = client.get(TENSOR, headers={"Accept": accept})
    assert (response.status_code, response.mimetype) == (200, content_type)


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/*", "*/*;q=0"])
def test_an_accept_that_allows_nothing_on_offer_is_406(client: FlaskClient, accept: str) -> None:
    response = client.get(TENSOR, headers={"Accept": accept})
    assert response.status_code == 406
    assert "application/json" in response.get_json()["detail"]
