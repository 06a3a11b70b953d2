"""Weights as safetensors files: whole, ranges, some tensors."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

URL = "/v1/models/nano-gpt/safetensors"
OCTETS = {"Accept": "application/octet-stream"}


@pytest.fixture(scope="session")
def file(client: FlaskClient) -> bytes:
    content: bytes = client.get(URL).data
    return content


def test_the_file_has_every_weight_as_it_is_read_alone(client: FlaskClient, file: bytes) -> None:
    read = load(file)
    listed = client.get("/v1/models/nano-gpt/tensors").json
    assert listed is not None
    assert {name: list(values.shape) for name, values in read.items()} == {
        one["name"]: one["shape"] for one in listed["tensors"]
    }
    for name, values in read.items():
        assert values.tobytes() == client.get(f"/v1/models/nano-gpt/tensors/{name}", headers=OCTETS).data


@given(start=st.integers(0, 350_000), length=st.integers(1, 100_000))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_range_is_that_part_of_the_file(client: FlaskClient, file: bytes, start: int, length: int) -> None:
    answer = client.get(URL, headers={"Range": f"bytes={start}-{start + length - 1}"})
    if start < len(file):
        assert (answer.status_code, answer.data) == (HTTPStatus.PARTIAL_CONTENT, file[start : start + length])
    else:
        assert answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ("ln_f.*", ["ln_f.weight", "ln_f.bias"]),
        ("lm_head.weight, wte.weight", ["wte.weight", "lm_head.weight"]),
        ("h.2.ln_?.bias", ["h.2.ln_1.bias", "h.2.ln_2.bias"]),
    ],
)
def test_a_pattern_selects_weights(client: FlaskClient, patterns: str, names: list[str]) -> None:
    assert {*load(client.get(URL, query_string={"tensors": patterns}).data)} == {*names}


def test_some_weights_of_the_largest_model_are_as_they_are_read_alone(client: FlaskClient) -> None:
    url = "/v1/models/gpt3-175b"
    head = client.get(f"{url}/safetensors?tensors=h.95.mlp.c_fc.bias,ln_f.*")
    assert (
        load(head.data)["h.95.mlp.c_fc.bias"].tobytes()
        == client.get(f"{url}/tensors/h.95.mlp.c_fc.bias", headers=OCTETS).data
    )


@pytest.mark.parametrize(
    ("url", "status", "message"),
    [
        (f"{URL}?tensors=h.9.*", HTTPStatus.UNPROCESSABLE_ENTITY, "'h.9.*' matches no weight of nano-gpt"),
        (f"{URL}?tensors={',' * 100}", HTTPStatus.UNPROCESSABLE_ENTITY, "At most 100 patterns are allowed, not 101"),
        (
            "/v1/models/gpt3-175b/safetensors",
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "bytes; at most 1,073,741,824 are allowed (MAX_EXPORT_BYTES)",
        ),
        ("/v1/models/gpt9/safetensors", HTTPStatus.NOT_FOUND, "gpt9"),
    ],
)
def test_an_invalid_request_is_an_error_with_a_message(
    client: FlaskClient, url: str, status: HTTPStatus, message: str
) -> None:
    answer = client.get(url)
    assert answer.status_code == status
    assert message in answer.text


def test_a_file_with_the_same_etag_is_304(client: FlaskClient) -> None:
    tag = client.get(URL).headers["ETag"]
    assert client.get(URL, headers={"If-None-Match": tag}).status_code == HTTPStatus.NOT_MODIFIED
    assert client.get(f"{URL}?tensors=wte.*", headers={"If-None-Match": tag}).status_code == HTTPStatus.OK


def test_sizes_and_a_seed_select_weights_as_for_a_single_one(client: FlaskClient) -> None:
    own = "/v1/models/n_layer=1,n_head=2,n_embd=8,vocab_size=17,n_positions=9"
    read = load(client.get(f"{own}/safetensors?tensors=h.0.attn.*&synthetic=7").data)
    assert len(read) == 4
    for name, values in read.items():
        alone = client.get(f"{own}/tensors/{name}?synthetic=7", headers=OCTETS).data
        assert values.tobytes() == alone
        assert (alone == client.get(f"{own}/tensors/{name}", headers=OCTETS).data) == name.endswith("bias")
