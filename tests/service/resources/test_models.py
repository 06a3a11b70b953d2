"""Models over HTTP: the list, configurations, weights."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from safetensors.numpy import load_file

from tests.gpt2 import CONFIGS
from tests.nano import NANO_PATH, nano_digest
from worker.families.registry import PRESETS, config_from_mapping
from worker.models.sources import catalogue, synthetic

OCTETS = {"Accept": "application/octet-stream"}


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client without a worker, which models do not need."""
    return app.test_client()


@pytest.fixture(scope="module")
def nano() -> dict[str, Any]:
    """The weights of nano-gpt, as read by the safetensors package."""
    return load_file(NANO_PATH)


def test_every_preset_is_listed_as_it_is_read_alone(client: FlaskClient) -> None:
    models = client.get("/v1/models").get_json()["models"]
    assert [model["id"] for model in models] == list(PRESETS)
    for model in models:
        assert client.get(f"/v1/models/{model['id']}").get_json() == model


@pytest.mark.parametrize("id", PRESETS)
def test_a_configuration_is_complete_and_describes_the_same_model(client: FlaskClient, id: str) -> None:
    model = client.get(f"/v1/models/{id}").get_json()
    assert config_from_mapping(model["config"]) == PRESETS[id].config
    assert set(model["config"]) == set(PRESETS[id].config.to_mapping())


@pytest.mark.parametrize("id", PRESETS)
def test_parameters_are_counted_from_the_weights(client: FlaskClient, id: str) -> None:
    model = client.get(f"/v1/models/{id}").get_json()
    sizes = {name: int(np.prod(shape)) for name, shape in catalogue(PRESETS[id].config).items()}
    if model["config"]["tie_word_embeddings"]:
        del sizes["lm_head.weight"]
    assert model["parameters"]["total"] == sum(sizes.values())
    parts = sum(model["parameters"]["by_part"].values())
    tied = model["parameters"]["by_part"]["unembedding"] if model["config"]["tie_word_embeddings"] else 0
    assert parts - tied == model["parameters"]["total"]


@pytest.mark.parametrize(("id", "total"), [("gpt2", 124_439_808), ("gpt2-xl", 1_557_611_200), ("nano-gpt", 85_728)])
def test_parameters_are_those_published(client: FlaskClient, id: str, total: int) -> None:
    assert client.get(f"/v1/models/{id}").get_json()["parameters"]["total"] == total


@pytest.mark.parametrize("id", PRESETS)
def test_synthetic_weights_are_declared_as_such(client: FlaskClient, id: str) -> None:
    weights = client.get(f"/v1/models/{id}").get_json()["weights"]
    assert weights["source"] == ("trained" if id == "nano-gpt" else "synthetic")
    if id == "nano-gpt":
        assert weights["digest"] == nano_digest()
    else:
        assert "the values and what they predict are not" in weights["note"]


@pytest.mark.parametrize(
    ("id", "vocabulary"),
    [
        ("nano-gpt", {"kind": "letters", "size": 3, "tokens": ["A", "B", "C"]}),
        ("gpt3-175b", {"kind": "gpt2", "size": 50257}),
    ],
)
def test_the_vocabulary_is_described(client: FlaskClient, id: str, vocabulary: dict[str, Any]) -> None:
    assert client.get(f"/v1/models/{id}").get_json()["vocabulary"] == vocabulary


# ----------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("id", PRESETS)
def test_every_weight_is_listed(client: FlaskClient, id: str) -> None:
    listed = client.get(f"/v1/models/{id}/tensors").get_json()["tensors"]
    assert {w["name"]: tuple(w["shape"]) for w in listed} == catalogue(PRESETS[id].config)
    assert all((w["dtype"], w["bytes"]) == ("float32", 4 * np.prod(w["shape"])) for w in listed)


def test_the_weights_of_nano_gpt_are_those_of_its_file(client: FlaskClient, nano: dict[str, Any]) -> None:
    assert set(nano) == set(catalogue(CONFIGS["nano-gpt"]))
    for name, expected in nano.items():
        octets = client.get(f"/v1/models/nano-gpt/tensors/{name}", headers=OCTETS)
        assert octets.headers["Tensor-Shape"] == ",".join(map(str, expected.shape))
        assert octets.data == expected.tobytes()
        listed = client.get(f"/v1/models/nano-gpt/tensors/{name}").get_json()
        np.testing.assert_array_equal(np.array(listed["data"], np.float32), expected)


@pytest.mark.parametrize("text", ["", "0", "-1,3", ":,5", "::-1", "5:1:-2,::7", "...,2", "3:3", ":,:0"])
def test_a_slice_of_a_weight_is_as_in_numpy(client: FlaskClient, nano: dict[str, Any], text: str) -> None:
    key = {"": (), "3:3": np.s_[3:3], "...,2": np.s_[..., 2], "5:1:-2,::7": np.s_[5:1:-2, ::7]}.get(text)
    keys = {"0": 0, "-1,3": (-1, 3), ":,5": np.s_[:, 5], "::-1": np.s_[::-1], ":,:0": np.s_[:, :0]}
    expected = nano["h.1.mlp.c_fc.weight"][keys[text] if key is None else key]
    url = "/v1/models/nano-gpt/tensors/h.1.mlp.c_fc.weight"
    octets = client.get(url, query_string={"slice": text}, headers=OCTETS)
    assert octets.data == np.ascontiguousarray(expected).tobytes()
    assert octets.headers["Content-Length"] == str(expected.nbytes)


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, -7), slice(40_000, 3, -1), slice(2, 9)])
def test_a_weight_read_in_many_parts_is_complete(client: FlaskClient, rows: slice) -> None:
    weights = synthetic(CONFIGS["gpt-micro"], 0)
    text = ":".join("" if part is None else str(part) for part in (rows.start, rows.stop, rows.step))
    octets = client.get(f"/v1/models/gpt-micro/tensors/wte.weight?slice={text},:60", headers=OCTETS)
    assert octets.data == weights["wte.weight"][rows, :60].tobytes()


def test_a_slice_of_the_largest_model_is_generated_alone(client: FlaskClient) -> None:
    url = "/v1/models/gpt3-175b/tensors/h.95.mlp.c_fc.weight?slice=12287,-3:"
    answer = client.get(url)
    assert (answer.status_code, answer.get_json()["shape"]) == (HTTPStatus.OK, [3])
    config = CONFIGS["gpt3-175b"]
    expected = synthetic(config, 0).read("h.95.mlp.c_fc.weight", (12287, slice(-3, None)))
    assert np.array(answer.get_json()["data"], np.float32).tolist() == expected.tolist()
    assert len(set(answer.get_json()["data"])) == 3
    assert answer.headers["Cache-Control"] == "public, no-cache"  # a checkpoint may replace it
    unchanged = client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert unchanged.status_code == HTTPStatus.NOT_MODIFIED


def test_a_smaller_version_reduces_the_whole_weight(client: FlaskClient, nano: dict[str, Any]) -> None:
    url = "/v1/models/nano-gpt/tensors/h.1.mlp.c_fc.weight?max_cells=800&reduce=max"
    smaller = client.get(url).get_json()
    assert (smaller["shape"], smaller["factors"]) == ([24, 24], [2, 8])
    expected = nano["h.1.mlp.c_fc.weight"].reshape(24, 2, 24, 8).max((1, 3))
    np.testing.assert_array_equal(np.array(smaller["data"], np.float32), expected)
    octets = client.get(f"{url}&dtype=uint8", headers=OCTETS)
    scale, zero = float(octets.headers["Tensor-Scale"]), float(octets.headers["Tensor-Zero"])
    np.testing.assert_allclose(
        scale * (np.frombuffer(octets.data, np.uint8) - zero), expected.ravel(), atol=0.51 * scale
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/models/gpt5", "There is no model 'gpt5': the models are nano-gpt, "),
        ("/v1/models/gpt5/tensors", "There is no model 'gpt5': the models are nano-gpt, "),
        ("/v1/models/gpt5/tensors/wte.weight", "There is no model 'gpt5': the models are nano-gpt, "),
        ("/v1/models/gpt2/tensors/h.12.ln_1.bias", "There is no tensor 'h.12.ln_1.bias' in gpt2: it has 149, such as "),
    ],
)
def test_an_unknown_model_or_weight_is_404_listing_the_known_ones(client: FlaskClient, path: str, message: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (HTTPStatus.NOT_FOUND, "application/problem+json")
    assert answer.get_json()["detail"].startswith(message)


def test_a_weight_too_large_for_json_is_406(client: FlaskClient) -> None:
    answer = client.get("/v1/models/gpt2/tensors/wte.weight")
    assert answer.status_code == HTTPStatus.NOT_ACCEPTABLE
    assert "application/octet-stream" in answer.get_json()["detail"]
