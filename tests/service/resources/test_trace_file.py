"""Traces as safetensors files: whole, ranges, some tensors."""

from __future__ import annotations

import json
import tracemalloc
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

Body = dict[str, Any]
OCTETS = {"Accept": "application/octet-stream"}


@pytest.fixture(scope="session")
def url(sorted_letters: Body) -> str:
    return f"/v1/traces/{sorted_letters['id']}/safetensors"


@pytest.fixture(scope="session")
def file(client: FlaskClient, url: str) -> bytes:
    content: bytes = client.get(url).data
    return content


def names(client: FlaskClient, url: str, **query: Any) -> list[str]:
    """Return the names of the tensors in a file, in order."""
    answer = client.get(url, query_string=query)
    assert answer.status_code == HTTPStatus.OK, answer.text
    length = int.from_bytes(answer.data[:8], "little")
    return [name for name in json.loads(answer.data[8 : 8 + length]) if name != "__metadata__"]


# -------------------------------------------------------------------------------------------------------- whole


def test_the_file_has_every_tensor_as_it_is_read_alone(
    client: FlaskClient, sorted_letters: Body, url: str, file: bytes
) -> None:
    read = load(file)
    assert {*read} == {*sorted_letters["tensors"]}
    assert names(client, url) == [*sorted_letters["tensors"]]
    for name, values in read.items():
        alone = client.get(f"/v1/traces/{sorted_letters['id']}/tensors/{name}", headers=OCTETS)
        assert (list(values.shape), values.dtype.name) == (
            sorted_letters["tensors"][name]["shape"], alone.headers["Tensor-Dtype"],
        )  # fmt: skip
        assert values.tobytes() == alone.data


def test_the_response_headers_describe_the_file(
    client: FlaskClient, sorted_letters: Body, url: str, file: bytes
) -> None:
    headers = client.get(url).headers
    assert headers["Content-Type"] == "application/x-safetensors"
    assert headers["Content-Length"] == str(len(file))
    assert headers["Content-Disposition"] == f"attachment; filename=nano-gpt-{sorted_letters['id'][:12]}.safetensors"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"


def test_the_metadata_describe_the_trace(sorted_letters: Body, file: bytes) -> None:
    metadata = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])["__metadata__"]
    assert (metadata["id"], metadata["model"]) == (sorted_letters["id"], "nano-gpt")
    assert json.loads(metadata["tokens"]) == sorted_letters["tokens"]
    assert json.loads(metadata["config"]) == sorted_letters["config"]
    assert metadata["weights"] == sorted_letters["weights"]["digest"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_all_data_are_aligned(client: FlaskClient, request_body: Body, dtype: str) -> None:
    body = request_body | {"dtype": dtype}
    id = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"}).get_json()["id"]
    content = client.get(f"/v1/traces/{id}/safetensors").data
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    for name, values in load(content).items():
        assert (8 + length + header[name]["data_offsets"][0]) % values.itemsize == 0
        assert values.tobytes() == client.get(f"/v1/traces/{id}/tensors/{name}", headers=OCTETS).data


def test_the_file_is_never_whole_in_memory(client: FlaskClient, request_body: Body) -> None:
    config = {"n_layer": 12, "n_head": 1, "n_embd": 256, "n_positions": 200, "vocab_size": 9}
    body = request_body | {"model": config, "tokens": [1] * 200}
    trace = client.post("/v1/traces", json=body, headers={"Prefer": "wait=60"}).get_json()
    size = 0
    tracemalloc.start()
    try:
        answer = client.get(f"/v1/traces/{trace['id']}/safetensors", buffered=False)
        for chunk in answer.iter_encoded():
            size += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == int(answer.headers["Content-Length"]) > 35e6
    assert peak < 8e6


# ------------------------------------------------------------------------------------------------------- ranges


def test_a_client_reads_the_header_and_then_any_tensor(client: FlaskClient, sorted_letters: Body, url: str) -> None:
    def part(start: int, stop: int) -> bytes:
        answer = client.get(url, headers={"Range": f"bytes={start}-{stop - 1}"})
        assert answer.status_code == HTTPStatus.PARTIAL_CONTENT
        assert answer.headers["Content-Range"].startswith(f"bytes {start}-{stop - 1}/")
        content: bytes = answer.data
        return content

    data = 8 + int.from_bytes(part(0, 8), "little")
    header = json.loads(part(8, data))
    for name in ("tokens", "blocks.1.attn.q", "blocks.2.ln1.mean", "probs"):
        start, stop = header[name]["data_offsets"]
        alone = client.get(f"/v1/traces/{sorted_letters['id']}/tensors/{name}", headers=OCTETS)
        assert part(data + start, data + stop) == alone.data


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_range_is_that_part_of_the_file(client: FlaskClient, url: str, file: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(file) - 1))
    stop = data.draw(st.integers(start + 1, len(file) + 100))
    for text, expected in {
        f"{start}-{stop - 1}": file[start:stop],
        f"{start}-": file[start:],
        f"-{stop}": file[-stop:],
    }.items():
        answer = client.get(url, headers={"Range": f"bytes={text}"})
        assert (answer.status_code, answer.data) == (HTTPStatus.PARTIAL_CONTENT, expected)
        first = len(file) - len(expected) if text.startswith("-") else start
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(file)}"
        assert answer.headers["Content-Length"] == str(len(expected))


@pytest.mark.parametrize("text", ["{size}-", "{size}-{size}"])
def test_a_range_outside_the_file_is_416_with_the_size(client: FlaskClient, url: str, file: bytes, text: str) -> None:
    answer = client.get(url, headers={"Range": "bytes=" + text.format(size=len(file))})
    assert answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Content-Range"] == f"bytes */{len(file)}"


@pytest.mark.parametrize(
    "text", ["bytes=0-1,5-6", "lines=0-1", "bytes", "bytes=a-b", "bytes=-", "bytes=-0", "bytes=9-3", ""]
)
def test_an_invalid_or_multiple_range_returns_the_whole_file(
    client: FlaskClient, url: str, file: bytes, text: str
) -> None:
    answer = client.get(url, headers={"Range": text})
    assert (answer.status_code, answer.data) == (HTTPStatus.OK, file)


def test_if_range_of_another_file_returns_the_whole_file(client: FlaskClient, url: str, file: bytes) -> None:
    tag = client.head(url).headers["ETag"]
    headers = {"Range": "bytes=5-9"}
    same = client.get(url, headers=headers | {"If-Range": tag})
    assert (same.status_code, same.data) == (HTTPStatus.PARTIAL_CONTENT, file[5:10])
    for other in ('"another"', f"W/{tag}"):
        assert client.get(url, headers=headers | {"If-Range": other}).data == file


def test_head_returns_the_size_and_reads_nothing(
    client: FlaskClient, url: str, file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = client.get(url).headers["ETag"]
    monkeypatch.setattr("worker.store.pieces.receive", None)
    for headers in ({}, {"Range": "bytes=0-7"}):
        answer = client.head(url, headers=headers)
        assert (answer.status_code, answer.data) == (HTTPStatus.OK, b"")
        assert (answer.headers["Content-Length"], answer.headers["Accept-Ranges"]) == (str(len(file)), "bytes")
        assert answer.headers["ETag"] == tag
    for method in (client.get, client.head):
        assert method(url, headers={"If-None-Match": tag}).status_code == HTTPStatus.NOT_MODIFIED


# ------------------------------------------------------------------------------------------------- some tensors


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["logits"], ["logits"]),
        (["logits,tokens", " embed "], ["tokens", "embed", "logits"]),
        (["blocks.0.attn.hook_?"], [f"blocks.0.attn.{letter}" for letter in "qkvz"]),
        (["blocks.*.hook_resid_pre"], [f"blocks.{layer}.resid_pre" for layer in range(3)]),
        (["ln_final.hook_normalized", "ln_final.*"], ["ln_final.mean", "ln_final.scale", "ln_final.out"]),
        (["hook_embed", "hook_pos_embed"], ["embed", "pos_embed"]),
    ],
)
def test_patterns_select_tensors_in_order_of_computation(
    client: FlaskClient, url: str, patterns: list[str], expected: list[str]
) -> None:
    assert names(client, url, tensors=patterns) == expected


def test_files_of_different_tensors_have_different_etags(client: FlaskClient, url: str) -> None:
    tags = {client.head(url, query_string={"tensors": name}).headers["ETag"] for name in ("logits", "probs", "*")}
    assert len(tags) == 3


def test_selected_tensors_are_as_in_the_whole_file(client: FlaskClient, url: str, file: bytes) -> None:
    whole = load(file)
    some = load(client.get(url, query_string={"tensors": "blocks.1.*,tokens,probs"}).data)
    assert len(some) > 20
    for name, values in some.items():
        np.testing.assert_array_equal(values, whole[name])


@pytest.mark.parametrize("pattern", ["blocks.3.*", "", "logits,nothing", "logits,"])
def test_a_pattern_that_matches_nothing_is_422_with_the_names(client: FlaskClient, url: str, pattern: str) -> None:
    answer = client.get(url, query_string={"tensors": pattern})
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    [message] = answer.get_json()["errors"]["tensors"] if pattern else [""]
    assert not pattern or "matches no tensor of this trace; its" in message


def test_an_unfinished_trace_is_409(idle_client: FlaskClient, request_body: Body) -> None:
    id = idle_client.post("/v1/traces", json=request_body).get_json()["id"]
    assert idle_client.get(f"/v1/traces/{id}/safetensors").status_code == HTTPStatus.CONFLICT


def test_another_media_type_is_406(client: FlaskClient, url: str) -> None:
    answer = client.get(url, headers={"Accept": "application/json"})
    assert answer.status_code == HTTPStatus.NOT_ACCEPTABLE
    assert "Accept must allow application/x-safetensors." in answer.get_json()["detail"]
