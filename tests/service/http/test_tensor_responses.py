"""Tensors over HTTP: slices, types, levels of detail and media types."""

from __future__ import annotations

import io
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from numpy.typing import NDArray
from safetensors.numpy import load

from service.tensors.reduce import shrink
from service.tensors.slices import View
from tests.gpt2 import CONFIGS
from tests.service.tensors.test_slices import ArraySource, Index, texts
from worker.families.registry import describe

Body = dict[str, Any]
OCTETS = {"Accept": "application/octet-stream"}
QUERIES = settings(max_examples=60)


# -------------------------------------------------------------------------------------------------- over HTTP


@pytest.fixture(scope="session")
def scores_url(sorted_letters: Body) -> str:
    """The path of a tensor [B, H, T, T] = [1, 3, 11, 11] of which nearly half is −inf."""
    return f"/v1/traces/{sorted_letters['id']}/tensors/blocks.0.attn.scores"


@pytest.fixture(scope="session")
def scores(client: FlaskClient, scores_url: str) -> NDArray[np.float32]:
    response = client.get(scores_url, headers=OCTETS)
    assert response.headers["Tensor-Shape"] == "1,3,11,11"
    return np.frombuffer(response.data, "<f4").reshape(1, 3, 11, 11)


@QUERIES
@given(drawn=texts((1, 3, 11, 11)))
def test_any_slice_selects_what_numpy_selects(
    client: FlaskClient, scores: NDArray[np.float32], scores_url: str, drawn: tuple[tuple[Index, ...], str]
) -> None:
    key, text = drawn
    expected = scores[key]
    octets = client.get(scores_url, query_string={"slice": text}, headers=OCTETS)
    assert octets.status_code == HTTPStatus.OK
    assert octets.data == np.ascontiguousarray(expected).tobytes()
    assert octets.headers["Tensor-Shape"] == ",".join(map(str, expected.shape))
    assert octets.headers["Tensor-Dtype"] == "float32"
    assert octets.headers["Content-Length"] == str(expected.nbytes)
    assert octets.headers["Content-Type"] == "application/octet-stream"

    body = client.get(scores_url, query_string={"slice": text}).get_json()
    assert body["shape"] == list(expected.shape)
    values = np.array(body["data"], dtype=np.float64).reshape(expected.shape)  # null is read as NaN
    np.testing.assert_array_equal(np.where(np.isnan(values), -np.inf, values).astype(np.float32), expected)


def test_a_masked_cell_is_null(client: FlaskClient, scores_url: str, scores: NDArray[np.float32]) -> None:
    response = client.get(f"{scores_url}?slice=0,0,1").get_json()
    seen, masked = response.pop("data")[:2], client.get(f"{scores_url}?slice=0,0,1,2:").get_json()["data"]
    assert response == {"name": "blocks.0.attn.scores", "shape": [11], "dtype": "float32"}
    assert np.array(seen, "<f4").tolist() == scores[0, 0, 1, :2].tolist()
    assert masked == [None] * 9
    assert client.get(f"{scores_url}?slice=0,0,0,10").get_json()["data"] is None


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("hook_embed", "embed"),
        ("hook_pos_embed", "pos_embed"),
        ("blocks.0.hook_resid_pre", "blocks.0.resid_pre"),
        ("blocks.1.ln1.hook_scale", "blocks.1.ln1.scale"),
        ("blocks.0.attn.hook_q", "blocks.0.attn.q"),
        ("blocks.2.attn.hook_attn_scores", "blocks.2.attn.scores"),
        ("blocks.2.attn.hook_pattern", "blocks.2.attn.pattern"),
        ("blocks.0.hook_attn_out", "blocks.0.attn_out"),
        ("blocks.0.mlp.hook_post", "blocks.0.mlp.post"),
        ("blocks.0.hook_mlp_out", "blocks.0.mlp_out"),
        ("ln_final.hook_scale", "ln_final.scale"),
    ],
)
def test_the_names_of_transformer_lens_are_accepted(
    client: FlaskClient, sorted_letters: Body, name: str, ours: str
) -> None:
    url = f"/v1/traces/{sorted_letters['id']}/tensors"
    theirs = client.get(f"{url}/{name}")
    assert (theirs.status_code, theirs.get_json()["name"]) == (HTTPStatus.OK, ours)
    assert theirs.get_json() == client.get(f"{url}/{ours}").get_json()


def test_tokens_are_int32(client: FlaskClient, sorted_letters: Body) -> None:
    response = client.get(f"/v1/traces/{sorted_letters['id']}/tensors/tokens").get_json()
    inputs = [*sorted_letters["tokens"], *(step["token"] for step in sorted_letters["generated"][:-1])]
    assert (response["dtype"], response["data"]) == ("int32", [inputs])


def test_float16_is_float16_in_bytes_and_the_same_numbers_in_json(client: FlaskClient, request_body: Body) -> None:
    body = request_body | {"dtype": "float16", "capture": ["logits"]}
    id = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"}).get_json()["id"]
    octets = client.get(f"/v1/traces/{id}/tensors/logits?slice=0,::-2", headers=OCTETS)
    assert octets.headers["Tensor-Dtype"] == "float16"
    values = np.frombuffer(octets.data, "<f2").reshape(2, 20)
    data = client.get(f"/v1/traces/{id}/tensors/logits?slice=0,::-2").get_json()["data"]
    assert np.array(data, "<f2").tolist() == values.tolist()
    assert np.array(data, "<f4").tolist() == values.tolist()  # no digit is lost


def test_json_with_more_than_65536_cells_is_406_with_the_alternatives(client: FlaskClient, request_body: Body) -> None:
    config = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 2, "vocab_size": 65_537}
    body = request_body | {"model": config, "tokens": [65_536], "capture": ["probs"]}
    id = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"}).get_json()["id"]
    url = f"/v1/traces/{id}/tensors/probs"
    assert client.get(f"{url}?slice=0,0,1:").get_json()["shape"] == [65_536]
    for headers in ({}, {"Accept": "application/json"}):
        response = client.get(url, headers=headers)
        assert (response.status_code, response.content_type) == (HTTPStatus.NOT_ACCEPTABLE, "application/problem+json")
        assert response.get_json()["detail"] == (
            "JSON is limited to 65,536 cells, and these are 65,537: use slice or max_cells, or another media type: "
            "Accept must allow application/octet-stream or application/x-npy or application/x-safetensors."
        )
    assert client.get(url, headers=OCTETS).headers["Content-Length"] == str(4 * 65_537)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/*", "application/json"),
        ("text/html, application/octet-stream;q=0.1", "application/octet-stream"),
        ("application/json;q=0.5, application/octet-stream", "application/octet-stream"),
    ],
)
def test_the_media_type_is_the_one_that_the_client_prefers(
    client: FlaskClient, scores_url: str, accept: str, content_type: str
) -> None:
    assert client.get(scores_url, headers={"Accept": accept}).content_type == content_type


def test_an_unavailable_media_type_is_406_with_the_available_ones(client: FlaskClient, scores_url: str) -> None:
    response = client.get(scores_url, headers={"Accept": "text/html"})
    assert (response.status_code, response.content_type) == (HTTPStatus.NOT_ACCEPTABLE, "application/problem+json")
    offered = " or ".join(f"application/{name}" for name in ("json", "octet-stream", "x-npy", "x-safetensors"))
    assert f"Accept must allow {offered}." in response.get_json()["detail"]


@pytest.mark.parametrize("text", ["0,3", "x", "0,0,0,0,0", ":" * 4, "1" * 201])
def test_an_invalid_slice_is_422_with_its_parameter(client: FlaskClient, scores_url: str, text: str) -> None:
    response = client.get(scores_url, query_string={"slice": text})
    assert (response.status_code, list(response.get_json()["errors"])) == (HTTPStatus.UNPROCESSABLE_ENTITY, ["slice"])


def test_an_unknown_tensor_is_404_with_some_that_exist(client: FlaskClient, sorted_letters: Body) -> None:
    response = client.get(f"/v1/traces/{sorted_letters['id']}/tensors/blocks.3.attn.q")
    assert response.status_code == HTTPStatus.NOT_FOUND
    assert response.get_json()["detail"] == (
        f"There is no tensor 'blocks.3.attn.q' in this trace: it has {len(sorted_letters['tensors'])}, "
        "such as tokens, embed, pos_embed, blocks.0.resid_pre."
    )


@pytest.mark.parametrize("path", ["tensors", "tensors/probs"])
def test_an_unfinished_trace_has_no_tensors_yet(idle_client: FlaskClient, request_body: Body, path: str) -> None:
    id = idle_client.post("/v1/traces", json=request_body).get_json()["id"]
    response = idle_client.get(f"/v1/traces/{id}/{path}")
    assert (response.status_code, response.content_type) == (HTTPStatus.CONFLICT, "application/problem+json")
    assert response.get_json()["detail"] == "This trace has no tensors: it is queued. Wait for it with Prefer: wait."


# -------------------------------------------------------------------------------------------------- statistics


def test_the_statistics_of_every_tensor_match_its_values(client: FlaskClient, sorted_letters: Body) -> None:
    url = f"/v1/traces/{sorted_letters['id']}/tensors"
    listed = client.get(url).get_json()["tensors"]
    assert {entry.pop("name"): entry for entry in listed} == sorted_letters["tensors"]
    assert [*sorted_letters["tensors"]] == [name for name, _ in describe(CONFIGS["nano-gpt"]).all_values()]
    for name, entry in sorted_letters["tensors"].items():
        values = read(client, f"{url}/{name}")
        seen = values[~np.isneginf(values)].astype(np.float64)
        assert (entry["shape"], entry["dtype"], entry["bytes"]) == ([*values.shape], values.dtype.name, values.nbytes)
        assert np.array([entry["min"], entry["max"]], values.dtype).tolist() == [seen.min(), seen.max()]
        assert np.array(entry["absmax"], values.dtype) == np.abs(seen).max()
        assert entry["mean"] == pytest.approx(seen.mean(), rel=1e-6, abs=1e-7)


# ------------------------------------------------------------------------------- types, levels of detail, files

NPY, SAFETENSORS = {"Accept": "application/x-npy"}, {"Accept": "application/x-safetensors"}


def read(client: FlaskClient, url: str, **query: Any) -> NDArray[Any]:
    """Read a tensor from its raw bytes and its headers."""
    response = client.get(url, query_string=query or None, headers=OCTETS)
    assert response.status_code == HTTPStatus.OK, response.text
    shape = [int(size) for size in response.headers["Tensor-Shape"].split(",") if size]
    return np.frombuffer(response.data, response.headers["Tensor-Dtype"]).reshape(shape)


QUERY_STRINGS = ["", "slice=0,1,::-2", "slice=0,:,3:,2&dtype=float16", "dtype=uint8", "max_cells=40&reduce=absmax",
    "max_cells=90&dtype=uint8&slice=0,2", "slice=0,0,0,0", "slice=0,0,3:3", "max_cells=1000000"]  # fmt: skip


@pytest.mark.parametrize("query", QUERY_STRINGS)
def test_all_media_types_have_the_same_values(client: FlaskClient, scores_url: str, query: str) -> None:
    url = f"{scores_url}?{query}"
    expected, octets = read(client, url), client.get(url, headers=OCTETS)
    npy = client.get(url, headers=NPY)
    file = client.get(url, headers=SAFETENSORS)
    [(name, tensor)] = load(file.data).items()
    assert name == "blocks.0.attn.scores"
    for values_read in (np.load(io.BytesIO(npy.data)), tensor):
        assert values_read.dtype == expected.dtype
        np.testing.assert_array_equal(values_read, expected)
    body = client.get(url).get_json()
    values = np.array(body["data"], np.float64).reshape(body["shape"])
    np.testing.assert_array_equal(np.where(np.isnan(values), -np.inf, values).astype(expected.dtype), expected)
    for response in (octets, npy, file):
        assert response.headers["Content-Length"] == str(len(response.data))
        tensor_headers = {key: value for key, value in response.headers.items() if key.startswith("Tensor-")}
        assert tensor_headers == {key: value for key, value in octets.headers.items() if key.startswith("Tensor-")}
        assert tensor_headers["Tensor-Dtype"] == body["dtype"] == expected.dtype.name
        assert (float(tensor_headers.get("Tensor-Scale", 0)), float(tensor_headers.get("Tensor-Zero", 0))) == (
            body.get("scale", 0), body.get("zero", 0),
        )  # fmt: skip


@pytest.mark.parametrize("accept", ["application/json", *(kind["Accept"] for kind in (OCTETS, NPY, SAFETENSORS))])
@pytest.mark.parametrize("query", ["", "dtype=uint8", "max_cells=20"])
def test_head_and_304_responses_have_no_body(client: FlaskClient, scores_url: str, accept: str, query: str) -> None:
    url, headers = f"{scores_url}?{query}", {"Accept": accept, "Accept-Encoding": "identity"}
    whole, without = client.get(url, headers=headers), client.head(url, headers=headers)
    assert (without.status_code, without.data) == (HTTPStatus.OK, b"")
    varying = {"Date", "X-Request-ID"}
    assert {k: v for k, v in without.headers.items() if k not in varying} == {
        k: v for k, v in whole.headers.items() if k not in varying
    }
    same = client.get(url, headers=headers | {"If-None-Match": whole.headers["ETag"]})
    assert (same.status_code, same.data) == (HTTPStatus.NOT_MODIFIED, b"")
    assert same.headers["ETag"] == whole.headers["ETag"]
    assert same.headers["Cache-Control"] == "public, max-age=31536000, immutable"


def test_different_responses_have_different_etags(client: FlaskClient, scores_url: str) -> None:
    requests = [(query, accept) for query in QUERY_STRINGS for accept in ({}, OCTETS, NPY, SAFETENSORS)]
    tags = {client.head(f"{scores_url}?{query}", headers=accept).headers["ETag"] for query, accept in requests}
    assert len(tags) == len(requests)


def test_a_304_reads_no_values(client: FlaskClient, scores_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = client.get(scores_url, headers=OCTETS).headers["ETag"]
    monkeypatch.setattr("worker.store.pieces.receive", None)
    for method in (client.get, client.head):
        assert method(scores_url, headers=OCTETS | {"If-None-Match": tag}).status_code == HTTPStatus.NOT_MODIFIED


def test_scaled_uint8_values_are_the_values(client: FlaskClient, scores_url: str, scores: NDArray[Any]) -> None:
    for query in ({}, {"slice": "0,1"}):
        response = client.get(scores_url, query_string={"dtype": "uint8", **query}, headers=OCTETS)
        scale, zero = float(response.headers["Tensor-Scale"]), float(response.headers["Tensor-Zero"])
        expected = (scores[0, 1] if query else scores).ravel()
        masked, values = np.isneginf(expected), np.frombuffer(response.data, np.uint8)
        np.testing.assert_array_equal(values == 0, masked)
        np.testing.assert_allclose(scale * (values[~masked] - zero), expected[~masked], atol=0.51 * scale)
        assert (values[~masked].min(), values.max()) == (1, 255)


@pytest.mark.parametrize("name", ["tokens", "blocks.1.mlp.post", "blocks.0.attn.scores", "logits_sum"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_all_tensors_are_available_in_all_types(
    client: FlaskClient, sorted_letters: Body, name: str, dtype: str
) -> None:
    url = f"/v1/traces/{sorted_letters['id']}/tensors/{name}"
    plain, values_read = read(client, url), read(client, url, dtype=dtype)
    assert (values_read.dtype, values_read.shape) == (np.dtype(dtype), plain.shape)
    if dtype != "uint8":
        np.testing.assert_array_equal(values_read, plain.astype(dtype))


@pytest.mark.parametrize("how", ["mean", "max", "min", "absmax"])
def test_a_smaller_version_reduces_each_tile(
    client: FlaskClient, scores_url: str, scores: NDArray[Any], how: Any
) -> None:
    response = client.get(scores_url, query_string={"max_cells": 60, "reduce": how}).get_json()
    assert (response["shape"], response["factors"], response["dtype"]) == ([1, 3, 3, 6], [4, 2], "float32")
    expected = shrink(View(ArraySource(scores)), (4, 2), how).astype(np.float32)
    values_read = np.array(response["data"], np.float64)
    np.testing.assert_array_equal(np.where(np.isnan(values_read), -np.inf, values_read).astype(np.float32), expected)
    assert response["data"][0][0][0][5] is None
    headers = client.get(scores_url, query_string={"max_cells": 60, "reduce": how}, headers=OCTETS).headers
    assert headers["Tensor-Factors"] == "4,2"


def test_a_tensor_within_max_cells_is_not_shrunk(client: FlaskClient, scores_url: str, scores: NDArray[Any]) -> None:
    response = client.get(scores_url, query_string={"max_cells": 363}, headers=OCTETS)
    assert response.data == scores.tobytes()
    assert "Tensor-Factors" not in response.headers


def test_the_mean_of_integers_is_a_float(client: FlaskClient, sorted_letters: Body) -> None:
    url = f"/v1/traces/{sorted_letters['id']}/tensors/tokens"
    tokens = read(client, url)
    assert read(client, url, max_cells=1).tolist() == [[np.float32(tokens.mean())]]
    largest = read(client, url, max_cells=1, reduce="max")
    assert (largest.dtype.name, largest.tolist()) == ("int32", [[2]])


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("max_cells=2", "max_cells", "[1, 3, 11, 11] cannot be shrunk to 2 cells"),
        ("max_cells=0", "max_cells", "greater than or equal to 1"),
        ("max_cells=many", "max_cells", "valid integer"),
        ("reduce=median", "reduce", "mean, max, min, absmax"),
        ("dtype=int8", "dtype", "float32, float16, uint8"),
        ("size=3", "size", "Unknown field"),
    ],
)
def test_an_invalid_query_is_422_with_what_is_allowed(
    client: FlaskClient, scores_url: str, query: str, field: str, message: str
) -> None:
    response = client.get(f"{scores_url}?{query}")
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert message in response.get_json()["errors"][field][0]


def test_scripts_of_other_origins_may_read_the_headers(client: FlaskClient, scores_url: str) -> None:
    exposed = client.get(scores_url, headers={"Origin": "https://example.org"}).headers["Access-Control-Expose-Headers"]
    assert {"Tensor-Shape", "Tensor-Dtype", "Tensor-Scale", "Tensor-Zero", "Tensor-Factors"} <= {*exposed.split(", ")}
