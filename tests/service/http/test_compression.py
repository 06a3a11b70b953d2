"""What is compressed is the same, and smaller; what is read by ranges is as it is."""

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
    """Where the largest layout of the presets is."""
    answer = client.post("/v1/layouts", json={"model": "gpt3-175b"}, headers={"Prefer": "wait=60"})
    assert answer.get_json()["status"] == "done"
    return str(answer.headers["Location"])


@pytest.mark.parametrize("coding", ["gzip", "br"])
@pytest.mark.parametrize("accept", ["application/x-safetensors", "model/gltf-binary"])
def test_the_files_of_a_layout_take_less_than_a_megabyte(
    client: FlaskClient, gpt3_layout: str, accept: str, coding: str
) -> None:
    headers = {"Accept": accept, "Accept-Encoding": coding}
    plain, packed = client.get(gpt3_layout, headers={"Accept": accept}), client.get(gpt3_layout, headers=headers)
    assert (packed.headers["Content-Encoding"], len(packed.data) < 1_000_000) == (coding, True)
    assert DECODED[coding](packed.data) == plain.data
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["ETag"] != plain.headers["ETag"]
    again = client.get(gpt3_layout, headers=headers | {"If-None-Match": packed.headers["ETag"]})
    assert again.status_code == HTTPStatus.NOT_MODIFIED


@pytest.mark.parametrize("range", [{}, {"Range": "bytes=0-999"}])
def test_files_of_values_come_as_they_are(
    client: FlaskClient, sorted_letters: dict[str, Any], range: dict[str, str]
) -> None:
    for path in (f"/v1/traces/{sorted_letters['id']}/safetensors", "/v1/models/nano-gpt/safetensors"):
        answer = client.get(path, headers=range | {"Accept-Encoding": "br, gzip"})
        assert "Content-Encoding" not in answer.headers
        assert int(answer.headers["Content-Length"]) == len(answer.data)
