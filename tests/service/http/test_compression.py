"""Layout files are compressed; files of values are not."""

from __future__ import annotations

import gzip
from http import HTTPStatus
from typing import Any

import brotli
import pytest
from flask.testing import FlaskClient

DECODED = {"gzip": gzip.decompress, "br": brotli.decompress}


@pytest.fixture(scope="session")
def gpt3_layout(client: FlaskClient) -> str:
    """The path of the largest preset's layout."""
    response = client.post("/v1/layouts", json={"model": "gpt3-175b"}, headers={"Prefer": "wait=60"})
    assert response.get_json()["status"] == "done"
    return str(response.headers["Location"])


@pytest.mark.parametrize("coding", ["gzip", "br"])
@pytest.mark.parametrize("accept", ["application/x-safetensors", "model/gltf-binary"])
def test_compressed_layout_files_have_less_than_a_megabyte(
    client: FlaskClient, gpt3_layout: str, accept: str, coding: str
) -> None:
    headers = {"Accept": accept, "Accept-Encoding": coding}
    plain, compressed = client.get(gpt3_layout, headers={"Accept": accept}), client.get(gpt3_layout, headers=headers)
    assert (compressed.headers["Content-Encoding"], len(compressed.data) < 1_000_000) == (coding, True)
    assert DECODED[coding](compressed.data) == plain.data
    assert "Content-Encoding" not in plain.headers
    assert compressed.headers["ETag"] != plain.headers["ETag"]
    again = client.get(gpt3_layout, headers=headers | {"If-None-Match": compressed.headers["ETag"]})
    assert again.status_code == HTTPStatus.NOT_MODIFIED


@pytest.mark.parametrize("range", [{}, {"Range": "bytes=0-999"}])
def test_files_of_values_are_not_compressed(
    client: FlaskClient, sorted_letters: dict[str, Any], range: dict[str, str]
) -> None:
    for path in (f"/v1/traces/{sorted_letters['id']}/safetensors", "/v1/models/nano-gpt/safetensors"):
        response = client.get(path, headers=range | {"Accept-Encoding": "br, gzip"})
        assert "Content-Encoding" not in response.headers
        assert int(response.headers["Content-Length"]) == len(response.data)
