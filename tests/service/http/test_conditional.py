"""Preconditions and ranges in the order of RFC 9110, 13.2.2."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from flask.testing import FlaskClient

TEXT = "/v1/models/nano-gpt/tensors/wte.weight?slice=0"
FILE = "/v1/models/nano-gpt/safetensors"
ASSET = "/docs/files/swagger-ui.css"
RESOURCES = [TEXT, FILE, ASSET, "/"]


def etag(client: FlaskClient, path: str, **headers: str) -> str:
    return client.get(path, headers=headers).headers["ETag"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", RESOURCES)
def test_if_match_with_another_etag_is_412(client: FlaskClient, path: str, method: str) -> None:
    response = client.open(path, method=method, headers={"If-Match": '"another"'})
    assert response.status_code == HTTPStatus.PRECONDITION_FAILED
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.parametrize("header", ["*", '"another", {}'])
def test_if_match_with_the_etag_or_a_star_is_met(client: FlaskClient, path: str, header: str) -> None:
    response = client.get(path, headers={"If-Match": header.format(etag(client, path))})
    assert response.status_code == HTTPStatus.OK


def test_if_match_knows_only_strong_etags(client: FlaskClient) -> None:
    assert client.get(TEXT, headers={"If-Match": f"W/{etag(client, TEXT)}"}).status_code == 412


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.parametrize("header", ["*", "W/{}", '"another", {}'])
def test_if_none_match_with_the_etag_is_304_without_a_body(client: FlaskClient, path: str, header: str) -> None:
    tag = etag(client, path)
    response = client.get(path, headers={"If-None-Match": header.format(tag)})
    assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", tag)


def test_if_match_goes_before_if_none_match(client: FlaskClient) -> None:
    headers = {"If-Match": '"another"', "If-None-Match": etag(client, TEXT)}
    assert client.get(TEXT, headers=headers).status_code == HTTPStatus.PRECONDITION_FAILED


@pytest.mark.parametrize(("name", "value", "status"), [("If-Match", '"x"', 412), ("If-None-Match", None, 304)])
def test_preconditions_go_before_the_range(client: FlaskClient, name: str, value: str | None, status: int) -> None:
    headers = {"Range": "bytes=0-7", name: value or etag(client, FILE)}
    assert client.get(FILE, headers=headers).status_code == status


def test_the_etag_of_a_compressed_response_is_known_again(client: FlaskClient) -> None:
    path = "/v1/models/nano-gpt/tensors/wte.weight"
    compressed = etag(client, path, **{"Accept-Encoding": "gzip"})
    assert compressed.endswith(':gzip"')
    for name, status in (("If-None-Match", 304), ("If-Match", 200)):
        response = client.get(path, headers={"Accept-Encoding": "gzip", name: compressed})
        assert (response.status_code, response.headers["ETag"]) == (status, compressed)


def test_a_cached_response_is_conditional_too(client: FlaskClient) -> None:
    post = client.post("/v1/layouts", json={"model": "nano-gpt"}, headers={"Prefer": "wait=60"})
    path = post.headers["Location"]
    tag = etag(client, path)
    for header, value, status in (("If-Match", '"x"', 412), ("If-Match", "*", 200), ("If-None-Match", tag, 304)):
        assert client.get(path, headers={header: value}).status_code == status
