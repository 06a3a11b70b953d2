"""Models by sizes: a configuration in place of a model's id."""

from __future__ import annotations

import io
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load

from tests.explanations import apply_index
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import config_from_text
from worker.models.sources import catalogue, synthetic

Body = dict[str, Any]
OWN = "n_layer=2,n_head=3,n_embd=24,vocab_size=17,n_positions=9"
CONFIG = Config(n_layer=2, n_head=3, n_embd=24, vocab_size=17, n_positions=9)
ID = "n_layer=2,n_head=3,n_embd=24,n_positions=9,vocab_size=17"
HUGE = "n_layer=10000,n_head=1000,n_embd=1000000,n_inner=10000000,vocab_size=10000000"
OCTETS = {"Accept": "application/octet-stream"}
WAIT = {"Prefer": "wait=30"}


@pytest.fixture
def models(app: Flask) -> FlaskClient:
    """A client without a worker, which models do not need."""
    return app.test_client()


@pytest.mark.parametrize("text", [OWN, ID, ",".join(OWN.split(",")[::-1]), quote(OWN), OWN + ",n_inner=null"])
def test_a_configuration_is_the_same_model_in_any_spelling(models: FlaskClient, text: str) -> None:
    model = models.get(f"/v1/models/{text}").get_json()
    assert (model["id"], model["config"]) == (ID, CONFIG.to_mapping())
    assert model["weights"]["source"] == "synthetic"
    assert model["weights"]["tensors"] == f"/v1/models/{ID}/tensors?synthetic=0"
    assert model["vocabulary"] == {"kind": "ids", "size": 17}


def test_the_sizes_of_a_preset_are_the_preset(models: FlaskClient) -> None:
    for id, text in (("gpt2", "n_layer=12"), ("nano-gpt", "tie_word_embeddings=false,vocab_size=3,n_positions=11,"
                     "n_embd=48,n_head=3,n_layer=3")):  # fmt: skip
        assert models.get(f"/v1/models/{text}").get_json() == models.get(f"/v1/models/{id}").get_json()


def test_weights_and_exports_are_available_by_sizes(models: FlaskClient) -> None:
    listed = models.get(f"/v1/models/{OWN}/tensors").get_json()["tensors"]
    assert {weight["name"]: tuple(weight["shape"]) for weight in listed} == dict(catalogue(CONFIG))
    exported = models.get(f"/v1/models/{OWN}/llm-viz").get_json()
    assert exported["config"]["n_embd"] == 24
    assert exported["transformer.wte.weight"]["shape"] == [17, 24]


@pytest.mark.parametrize("seed", [None, 0, 7, 2**63 - 1])
def test_every_representation_has_the_weights_of_the_seed(models: FlaskClient, seed: int | None) -> None:
    expected = synthetic(CONFIG, seed or 0)["h.1.attn.c_attn.weight"][5:, ::2]
    url = f"/v1/models/{OWN}/tensors/h.1.attn.c_attn.weight?slice=5:,::2"
    url += "" if seed is None else f"&synthetic={seed}"
    assert np.array(models.get(url).get_json()["data"], np.float32).tolist() == expected.tolist()
    assert models.get(url, headers=OCTETS).data == expected.tobytes()
    npy = models.get(url, headers={"Accept": "application/x-npy"})
    np.testing.assert_array_equal(np.load(io.BytesIO(npy.data)), expected)
    file = models.get(url, headers={"Accept": "application/x-safetensors"})
    np.testing.assert_array_equal(load(file.data)["h.1.attn.c_attn.weight"], expected)
    half = models.get(f"{url}&dtype=float16", headers=OCTETS)
    assert half.data == expected.astype("<f2").tobytes()
    smaller = models.get(f"{url}&max_cells=50").get_json()
    assert np.prod(smaller["shape"]) <= 50
    unchanged = models.get(url, headers={"If-None-Match": models.get(url).headers["ETag"]})
    assert unchanged.status_code == HTTPStatus.NOT_MODIFIED


def test_a_seed_selects_synthetic_weights_of_a_named_model(models: FlaskClient) -> None:
    url = "/v1/models/nano-gpt/tensors/wte.weight"
    trained, generated = (models.get(f"{url}{query}").get_json()["data"] for query in ("", "?synthetic=7"))
    assert trained != generated
    config = Config.from_mapping(models.get("/v1/models/nano-gpt").get_json()["config"])
    assert np.array(generated, np.float32).tolist() == synthetic(config, 7)["wte.weight"].tolist()
    assert models.get("/v1/models/nano-gpt?synthetic=7").get_json()["weights"]["source"] == "synthetic"


def test_of_the_largest_possible_model_only_the_slice_is_generated(models: FlaskClient) -> None:
    name, config = "h.9999.mlp.c_fc.weight", config_from_text(HUGE)
    answer = models.get(f"/v1/models/{HUGE}/tensors/{name}?slice=999999,-3:")
    expected = synthetic(config, 0).read(name, (999_999, slice(-3, None)))
    assert np.array(answer.get_json()["data"], np.float32).tolist() == expected.tolist()


def test_a_slice_with_too_many_values_is_422(models: FlaskClient) -> None:
    url = f"/v1/models/{HUGE}/tensors/h.0.mlp.c_fc.weight"
    for query in ("max_cells=16", "slice=::3", "dtype=uint8"):
        answer = models.get(f"{url}?{query}", headers=OCTETS)
        assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert "values; at most 1,073,741,824 are allowed" in answer.get_json()["errors"]["slice"][0]
    assert models.get(f"{url}?slice=::100000,::100000").get_json()["shape"] == [10, 100]


# ------------------------------------------------------------------------------------------------ traces, layouts


def values(client: FlaskClient, link: str, name: str) -> NDArray[np.float32]:
    """Return a whole tensor; `link` is the list that it is in."""
    path, _, query = link.partition("?")
    answer = client.get(f"{path}/{name}?{query}", headers=OCTETS)
    return np.frombuffer(answer.data, "<f4").reshape([int(n) for n in answer.headers["Tensor-Shape"].split(",")])


def test_a_trace_links_to_the_weights_that_it_was_computed_with(client: FlaskClient, request_body: Body) -> None:
    trace = client.post("/v1/traces", json=request_body, headers=WAIT).get_json()
    link, of_trace = trace["weights"]["tensors"], f"/v1/traces/{trace['id']}/tensors"
    assert link == f"/v1/models/{trace['model']}/tensors?synthetic={request_body['weights']['synthetic']}"
    weights = {
        weight["name"]: values(client, link, weight["name"]) for weight in client.get(link).get_json()["tensors"]
    }
    np.testing.assert_array_equal(values(client, of_trace, "embed")[0], weights["wte.weight"][trace["tokens"]])
    np.testing.assert_array_equal(values(client, of_trace, "pos_embed")[0], weights["wpe.weight"][:3])
    for layer in (0, 1):
        normed, pre = (values(client, of_trace, f"blocks.{layer}.{name}")[0] for name in ("ln2.out", "mlp.pre"))
        expected = normed @ weights[f"h.{layer}.mlp.c_fc.weight"] + weights[f"h.{layer}.mlp.c_fc.bias"]
        np.testing.assert_allclose(pre, expected, atol=1e-6)
    blocks = client.get(trace["layout"]).get_json()["blocks"]
    for block in (block for block in blocks if block["role"] == "weight"):
        cell = [n // 2 for n in block["cells"]]
        at = {"block": block["id"], "cell": ",".join(map(str, cell))}
        explained = client.get(f"/v1/traces/{trace['id']}/explain", query_string=at).get_json()["value"]
        found = weights[block["tensor"]["name"]][apply_index(block["tensor"]["index"], *cell)]
        assert np.float32(explained) == found, block["id"]


def test_traces_and_layouts_by_sizes_have_the_canonical_model_id(client: FlaskClient) -> None:
    traces = [
        client.post("/v1/traces", json={"model": model, "tokens": [1, 2]}, headers=WAIT).get_json()
        for model in (OWN, ID, CONFIG.to_mapping())
    ]
    assert len({trace["id"] for trace in traces}) == 1
    laid_out = client.post("/v1/layouts", json={"model": OWN}, headers=WAIT).get_json()
    assert laid_out["model"] == traces[0]["model"] == ID
    listed = client.get("/v1/traces", query_string={"model": OWN}).get_json()["traces"]
    assert [(trace["id"], trace["model"]) for trace in listed] == [(traces[0]["id"], ID)]


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("n_layer=0", "n_layer", "0 is not allowed: must be a whole number from 1 to 10,000."),
        ("n_layer=-3", "n_layer", "-3 is not allowed"),
        ("n_layer=3.0", "n_layer", "3.0 is not allowed"),
        ("n_layer=", "n_layer", "'' is not allowed"),
        ("n_layer=null", "n_layer", "None is not allowed"),
        ("n_layer=true", "n_layer", "True is not allowed"),
        ("n_layer=NaN", "n_layer", "'NaN' is not allowed"),
        ("n_layer=1e999", "n_layer", "'1e999' is not allowed"),
        ("n_layer=[[[]]]", "n_layer", "[[[]]] is not allowed"),
        ("n_layer=" + "[" * 2000, "n_layer", "is not allowed"),
        ("n_layer=" + "9" * 30, "n_layer", "1e+30 is not allowed"),
        ("n_layer=" + "9" * 5000, "n_layer", "is not allowed"),
        ("n_layer==3", "n_layer", "'=3' is not allowed"),
        ("n_layer=3,n_layer=3", "n_layer", "given more than once"),
        ("n_head=5", "n_head", "5 is not allowed: must be a divisor of n_embd = 768"),
        ("d_head=0", "d_head", "0 is not allowed"),
        ("activation_function=", "activation_function", "'' is not allowed: must be one of gelu_new, gelu,"),
        ("tie_word_embeddings=no", "tie_word_embeddings", "'no' is not allowed: must be true or false."),
        ("layer_norm_epsilon=1", "layer_norm_epsilon", "a number above 0 and below 1."),
        ("layers=3", "layers", "Unknown field: must be one of n_layer, n_head"),
        ("=3", "", "Unknown field: must be one of n_layer, n_head"),
        ("N_LAYER=3", "N_LAYER", "Unknown field"),
    ],
)  # fmt: skip
def test_invalid_sizes_are_422_with_what_is_allowed(models: FlaskClient, text: str, field: str, message: str) -> None:
    for path in ("", "/tensors", "/tensors/wte.weight", "/llm-viz"):
        answer = models.get(f"/v1/models/{quote(text)}{path}")
        assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
        errors = answer.get_json()["errors"]
        assert message in errors[f"model.{field}" if field else "model"][0]
        assert len(answer.data) < 6_000


@pytest.mark.parametrize("text", ["n_layer=3,", ",n_layer=3", "n_layer=3,n_head", "n_layer=3;n_head=3 ,x"])
def test_malformed_sizes_are_422_with_an_example(models: FlaskClient, text: str) -> None:
    answer = models.get(f"/v1/models/{text}")
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "is not name=value" in answer.get_json()["errors"]["model"][0]
    assert "n_layer=3,n_head=3,n_embd=48" in answer.get_json()["detail"]


@pytest.mark.parametrize("seed", ["-1", "", "x", "1.0", str(2**63), "9" * 5000, "٧"])
def test_an_invalid_seed_is_422(models: FlaskClient, seed: str) -> None:
    for path in ("", "/tensors", "/tensors/wte.weight", "/llm-viz"):
        answer = models.get(f"/v1/models/{OWN}{path}", query_string={"synthetic": seed})
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["synthetic"])


def test_an_unknown_name_is_404_with_an_example_of_sizes(models: FlaskClient) -> None:
    answer = models.get("/v1/models/my-gpt")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.get_json()["detail"].endswith("and any configuration, as in n_layer=3,n_head=3,n_embd=48.")


TEXTS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]))  # a slash would end the id


@given(st.lists(st.tuples(st.sampled_from([*CONFIG.to_mapping()]) | TEXTS, TEXTS), min_size=1, max_size=5))
def test_any_names_and_values_are_200_or_422(app: Flask, pairs: list[tuple[str, str]]) -> None:
    text = ",".join(f"{name}={value}" for name, value in pairs)
    answer = app.test_client().get(f"/v1/models/{quote(text, safe='')}/tensors/wpe.weight?slice=0,0")
    assert answer.status_code in (200, 422)
    assert answer.status_code == HTTPStatus.OK or answer.content_type == "application/problem+json"
