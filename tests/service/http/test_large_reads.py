"""The limit on large reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import service.tensors.weight_list as weight_list
from service.app import create_app
from service.http.large_reads import LargeReads
from tests.conftest import Servers
from worker.describe.architecture import Architecture

LARGE = "/v1/models/n_layer=9900,n_head=1,n_embd=4/tensors"
SMALL = "/v1/models/nano-gpt/tensors"


@pytest.fixture
def narrow_app(servers: Servers) -> Flask:
    """A service that serves one large read at a time."""
    app = create_app(servers.settings)
    app.extensions["large_reads"] = LargeReads(1)
    return app


@pytest.fixture
def narrow(narrow_app: Flask) -> FlaskClient:
    return narrow_app.test_client()


def read_all(response: TestResponse) -> None:
    assert len(response.get_data()) > 20_000


def read_one_piece(response: TestResponse) -> None:
    next(response.iter_encoded())
    response.close()


def read_nothing(response: TestResponse) -> None:
    response.close()


@pytest.mark.parametrize("read", [read_all, read_one_piece, read_nothing])
@pytest.mark.parametrize("coding", ["identity", "br"])
def test_one_too_many_is_429_until_another_ends(
    narrow: FlaskClient, read: Callable[[TestResponse], None], coding: str
) -> None:
    headers = {"Accept-Encoding": coding}
    first = narrow.get(LARGE, headers=headers)
    refused = narrow.get(LARGE)
    assert (refused.status_code, refused.content_type) == (HTTPStatus.TOO_MANY_REQUESTS, "application/problem+json")
    assert int(refused.headers["Retry-After"]) > 0
    assert "At most 1 large reads" in refused.get_json()["detail"]
    assert narrow.get(SMALL).status_code == HTTPStatus.OK
    read(first)
    last = narrow.get(LARGE)
    assert last.status_code == HTTPStatus.OK
    last.close()


def test_the_generator_of_a_list_is_closed_when_the_client_goes(
    narrow: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, ended = weight_list.pieces, []

    def watched(architecture: Architecture, stored: None) -> Iterator[bytes]:
        try:
            yield from pieces(architecture, stored)
        except GeneratorExit:
            ended.append("closed")
            raise

    monkeypatch.setattr(weight_list, "pieces", watched)
    response = narrow.get(LARGE)
    next(response.iter_encoded())
    assert ended == []
    response.close()
    del response
    assert ended == ["closed"]


def test_a_head_request_and_a_failed_one_free_their_places(narrow: FlaskClient, narrow_app: Flask) -> None:
    narrow.head(LARGE).close()
    large_reads = narrow_app.extensions["large_reads"]
    with pytest.raises(ZeroDivisionError):
        large_reads.respond(lambda: 1 / 0)
    large_reads.take().close()


def test_reducing_a_large_weight_is_a_large_read(narrow: FlaskClient, narrow_app: Flask) -> None:
    path = "/v1/models/gpt2-xl/tensors/h.0.mlp.c_fc.weight"
    with narrow_app.extensions["large_reads"].take():
        assert narrow.get(f"{path}?max_cells=16").status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert narrow.get(f"{path}?slice=:9&max_cells=16").status_code == HTTPStatus.OK
    assert narrow.get(f"{path}?max_cells=16").status_code == HTTPStatus.OK


def test_large_layouts_are_large_reads(narrow: FlaskClient, narrow_app: Flask, worker: object) -> None:
    created = narrow.post("/v1/layouts", json={"model": "gpt3-175b"}, headers={"Prefer": "wait=60"})
    path = created.headers["Location"]
    glb = {"Accept": "model/gltf-binary"}
    with narrow_app.extensions["large_reads"].take():
        for query, headers in (("", glb), ("?layers=0:9", {})):
            assert narrow.get(f"{path}{query}", headers=headers).status_code == HTTPStatus.TOO_MANY_REQUESTS
        for query, headers in (("?layers=0:1", glb), ("?layers=0:1&heads=0:4", {})):
            assert narrow.get(f"{path}{query}", headers=headers).status_code == HTTPStatus.OK
    assert narrow.get(path, headers=glb).status_code == HTTPStatus.OK


def test_costly_reads_of_a_trace_are_large_reads(
    narrow: FlaskClient, narrow_app: Flask, sorted_letters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.resources.traces._MAX_SMALL_READ", 100)
    monkeypatch.setattr("service.resources.lens._MAX_SMALL_READ", 30)
    trace = f"/v1/traces/{sorted_letters['id']}"
    assert narrow.get(f"{trace}/lens", headers={"Prefer": "wait=60"}).get_json()["status"] == "done"
    octets = {"Accept": "application/octet-stream"}
    large = [(f"{trace}/tensors/blocks.0.attn.q", octets), (f"{trace}/lens?top=2", {}), (f"{trace}/llm-viz", {})]
    large += [(f"{trace}/tensors/blocks.0.attn.q?max_cells=100", {}), ("/v1/models/nano-gpt/llm-viz", {})]
    with narrow_app.extensions["large_reads"].take():
        for path, headers in large:
            assert narrow.get(path, headers=headers).status_code == HTTPStatus.TOO_MANY_REQUESTS, path
        for path in ("tensors/blocks.0.attn.q?slice=0,0", "lens?positions=3:4&top=1"):
            assert narrow.get(f"{trace}/{path}").status_code == HTTPStatus.OK
    for path, headers in large * 2:
        with narrow.get(path, headers=headers) as response:
            assert response.status_code == HTTPStatus.OK, path
            etag = {"If-None-Match": response.headers["ETag"]}
        narrow.get(path, headers=headers | etag).close()
        assert narrow.get(path, headers=headers | {"If-Match": '"other"'}).status_code == HTTPStatus.PRECONDITION_FAILED
    narrow_app.extensions["large_reads"].take().close()
