"""Exports for the LLM Visualization page, against plain NumPy."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from numpy.typing import NDArray

import service.tensors.llm_viz as llm_viz
from service.app import create_app
from tests import checkpoints
from tests.conftest import Servers
from tests.gpt2 import CONFIGS
from tests.mingpt import forward
from tests.nano import nano
from worker.families.gpt2 import GPT2Config as Config
from worker.models.sources import synthetic

Body = dict[str, Any]
Tensors = dict[str, NDArray[Any]]

WAIT = {"Prefer": "wait=60"}
MODEL = "/v1/models/nano-gpt/llm-viz"
B, T, C, H, V, LAYERS = 1, 11, 48, 3, 3, 3
CONFIG = {
    "model_type": "gpt-nano", "n_layer": LAYERS, "n_head": H, "n_embd": C, "vocab_size": V, "block_size": T,
    "embd_pdrop": 0.1, "resid_pdrop": 0.1, "attn_pdrop": 0.1,
}  # fmt: skip
#: The sizes of the two files that are published with the page; the second holds three sequences.
PUBLISHED_MODEL, PUBLISHED_TRACE = 466_124, 222_352


def parse(content: bytes) -> tuple[Body, Tensors]:
    """Parse a file as the page does: return the configuration and the tensors, which must be float32 and have data."""
    config: Body = {}
    tensors: Tensors = {}
    for name, value in json.loads(content).items():
        if "shape" not in value:
            config = value
            assert name == "config"
            continue
        assert value["shape"]
        assert value["data"]
        assert value["dtype"] == "torch.float32"
        values = np.frombuffer(base64.b64decode(value["data"], validate=True), "<f4")
        tensors[name] = values.reshape(value["shape"])  # the page would accept too many values
    return config, tensors


@pytest.fixture(scope="module")
def page_model(app: Flask) -> tuple[Body, Tensors]:
    return parse(app.test_client().get(MODEL).data)


@pytest.fixture(scope="module")
def page_trace(client: FlaskClient, sorted_letters: Body) -> tuple[Body, Tensors]:
    return parse(client.get(f"/v1/traces/{sorted_letters['id']}/llm-viz").data)


# ------------------------------------------------------------------------------------------------------ models


def test_a_model_has_the_names_and_shapes_that_the_page_expects(
    page_model: tuple[Body, Tensors],
) -> None:
    config, tensors = page_model
    expected: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (V, C), "transformer.wpe.weight": (T, C)}
    for layer in range(LAYERS):
        of_layer = {
            "ln_1.weight": (C,), "ln_1.bias": (C,), "attn.bias": (1, 1, T, T),
            "attn.c_attn.weight": (3 * C, C), "attn.c_attn.bias": (3 * C,),
            "attn.c_proj.weight": (C, C), "attn.c_proj.bias": (C,), "ln_2.weight": (C,), "ln_2.bias": (C,),
            "mlp.c_fc.weight": (4 * C, C), "mlp.c_fc.bias": (4 * C,),
            "mlp.c_proj.weight": (C, 4 * C), "mlp.c_proj.bias": (C,),
        }  # fmt: skip
        expected |= {f"transformer.h.{layer}.{name}": shape for name, shape in of_layer.items()}
    expected |= {"transformer.ln_f.weight": (C,), "transformer.ln_f.bias": (C,), "lm_head.weight": (V, C)}
    assert config == CONFIG
    assert [(name, values.shape) for name, values in tensors.items()] == list(expected.items())


def test_a_model_has_the_format_and_size_of_the_published_file(app: Flask) -> None:
    answer = app.test_client().get(MODEL)
    assert (answer.status_code, answer.content_type) == (HTTPStatus.OK, "application/json")
    assert len(answer.data) == int(answer.headers["Content-Length"]) == PUBLISHED_MODEL
    assert answer.data == json.dumps(json.loads(answer.data), indent=4).encode()


def test_weights_are_the_models_own_with_linear_ones_transposed(page_model: tuple[Body, Tensors]) -> None:
    _, tensors = page_model
    for name, values in nano().items():
        own = tensors[name if name == "lm_head.weight" else f"transformer.{name}"]
        linear = ("attn.c_attn", "c_proj", "c_fc")
        transposed = values.T if name.endswith(tuple(f"{layer}.weight" for layer in linear)) else values
        np.testing.assert_array_equal(own, transposed)


def test_the_exported_weights_sort_letters(page_model: tuple[Body, Tensors]) -> None:
    tokens = ["ABC".index(letter) for letter in "CBABBC"]
    for _ in range(6):
        probs = forward(np.array([tokens]), page_model[1], LAYERS, H)["probs"]
        tokens.append(int(probs[0, -1].argmax()))
    assert "".join("ABC"[token] for token in tokens[6:]) == "ABBBCC"


def test_a_tied_unembedding_is_exported_too(app: Flask) -> None:
    config, tensors = parse(app.test_client().get("/v1/models/gpt-micro/llm-viz").data)
    source = synthetic(CONFIGS["gpt-micro"], 0)
    assert (config["model_type"], config["block_size"]) == ("gpt-micro", 1024)
    np.testing.assert_array_equal(tensors["lm_head.weight"], source["wte.weight"])
    np.testing.assert_array_equal(tensors["transformer.wte.weight"], source["wte.weight"])
    np.testing.assert_array_equal(tensors["transformer.h.3.mlp.c_fc.weight"], source["h.3.mlp.c_fc.weight"].T)
    np.testing.assert_array_equal(tensors["transformer.h.0.attn.bias"][0, 0], np.tri(1024, dtype=np.float32))


def test_a_checkpoint_is_exported_too(servers: Servers, tmp_path: Path) -> None:
    config = Config(n_layer=2, n_head=3, n_embd=24, n_positions=9, vocab_size=17)
    tensors = {name: checkpoints.bfloat16(array) for name, array in checkpoints.values(config).items()}
    checkpoints.write(tmp_path / "mine", tensors, config)
    app = create_app(replace(servers.settings, models_dir=str(tmp_path)))
    header, exported = parse(app.test_client().get("/v1/models/mine/llm-viz").data)
    assert header["model_type"] == "mine"
    expected = checkpoints.from_bfloat16(tensors["h.1.attn.c_attn.weight"]).T
    np.testing.assert_array_equal(exported["transformer.h.1.attn.c_attn.weight"], expected)
    np.testing.assert_array_equal(exported["lm_head.weight"], checkpoints.from_bfloat16(tensors["wte.weight"]))


@pytest.mark.parametrize("cells", [1, 7, 1000])
def test_the_chunk_size_does_not_change_the_file(app: Flask, monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    whole = app.test_client().get(MODEL).data
    monkeypatch.setattr(llm_viz, "CELLS", cells)
    assert app.test_client().get(MODEL).data == whole


def test_a_model_is_streamed_in_chunks(app: Flask) -> None:
    answer = app.test_client().get("/v1/models/gpt-micro/llm-viz")
    sizes = [len(chunk) for chunk in answer.response]
    assert sum(sizes) == int(answer.headers["Content-Length"])
    assert max(sizes) <= 4 * -(-4 * llm_viz.CELLS // 3) + 4


@pytest.mark.parametrize("encoding", ["identity", "br"])
def test_an_unchanged_model_is_304(app: Flask, encoding: str) -> None:
    headers = {"Accept-Encoding": encoding}
    with app.test_client().get(MODEL, headers=headers) as answer:
        assert answer.headers["Cache-Control"] == "public, no-cache"
        assert answer.headers.get("Content-Encoding", "identity") == encoding
        tag = answer.headers["ETag"]
    unchanged = app.test_client().get(MODEL, headers=headers | {"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.data) == (HTTPStatus.NOT_MODIFIED, b"")


def test_a_model_too_large_for_the_format_is_422_with_its_size_and_the_limit(app: Flask) -> None:
    answer = app.test_client().get("/v1/models/gpt3-175b/llm-viz")
    assert (answer.status_code, answer.content_type) == (HTTPStatus.UNPROCESSABLE_ENTITY, "application/problem+json")
    [message] = answer.get_json()["errors"]["model"]
    assert message == (
        "The export would take 936,664,041,238 bytes; at most 1,073,741,824 are allowed (MAX_EXPORT_BYTES)."
    )


def test_the_limit_is_a_setting(servers: Servers) -> None:
    for most, status in ((PUBLISHED_MODEL, HTTPStatus.OK), (PUBLISHED_MODEL - 1, HTTPStatus.UNPROCESSABLE_ENTITY)):
        limited = create_app(replace(servers.settings, max_export_bytes=most))
        assert limited.test_client().get(MODEL).status_code == status


def test_an_unknown_model_is_404(app: Flask) -> None:
    assert app.test_client().get("/v1/models/gpt5/llm-viz").status_code == HTTPStatus.NOT_FOUND


# ------------------------------------------------------------------------------------------------------ traces


def test_a_trace_has_the_published_names_in_their_order(page_trace: tuple[Body, Tensors]) -> None:
    config, tensors = page_trace
    assert config == CONFIG | {"B": B}
    assert list(tensors) == [
        "idx", "tok_emb", "pos_emb", "x", "ln1", "q", "k", "v", "att", "attSm", "y", "yProj", "attnResid", "ln2", "fc",
        "gelu", "mlp", "mlpResid", "block0", "block1", "block2", "ln_f", "lm_head", "probs",
    ]  # fmt: skip


def test_a_trace_has_the_format_and_size_of_the_published_file(client: FlaskClient, sorted_letters: Body) -> None:
    answer = client.get(f"/v1/traces/{sorted_letters['id']}/llm-viz")
    content = json.loads(answer.data)
    assert answer.data == json.dumps(content, indent=4).encode()
    for name, tensor in content.items():  # three sequences, as the published one has
        if name != "config":
            tensor["shape"][0] = 1 if name == "pos_emb" else 3
            tensor["data"] = base64.b64encode(bytes(4 * int(np.prod(tensor["shape"])))).decode()
    assert len(json.dumps(content, indent=4)) == PUBLISHED_TRACE


def test_the_values_of_a_trace_follow_from_the_exported_weights(
    page_model: tuple[Body, Tensors], page_trace: tuple[Body, Tensors], sorted_letters: Body
) -> None:
    tensors = page_trace[1]
    assert "".join("ABC"[int(token)] for token in tensors["idx"][0]) == "CBABBC" + "ABBBC"
    expected = forward(tensors["idx"], page_model[1], LAYERS, H)
    assert list(tensors) == list(expected)
    for name, values in expected.items():
        assert tensors[name].shape == values.shape, name
        np.testing.assert_allclose(tensors[name], values, rtol=1e-4, atol=2e-5, err_msg=name)


def test_a_half_precision_trace_is_exported_as_float32(client: FlaskClient, sorted_letters: Body) -> None:
    body = {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}, "dtype": "float16"}
    trace = client.post("/v1/traces", json=body, headers=WAIT).get_json()
    half, full = (parse(client.get(f"/v1/traces/{id}/llm-viz").data)[1] for id in (trace["id"], sorted_letters["id"]))
    for name, value in llm_viz.trace_values(LAYERS).items():  # some are stored in float32, as in the manifest
        np.testing.assert_array_equal(half[name], full[name].astype(trace["tensors"][value]["dtype"]))
    assert trace["tensors"]["blocks.0.attn.q"]["dtype"] == "float16"


def test_the_chunk_size_does_not_change_a_trace(
    client: FlaskClient, sorted_letters: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"/v1/traces/{sorted_letters['id']}/llm-viz"
    whole = client.get(url)
    assert int(whole.headers["Content-Length"]) == len(whole.data)
    monkeypatch.setattr(llm_viz, "CELLS", 5)
    assert client.get(url).data == whole.data


def test_a_trace_is_cached_forever(client: FlaskClient, sorted_letters: Body) -> None:
    url = f"/v1/traces/{sorted_letters['id']}/llm-viz"
    answer = client.get(url)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    unchanged = client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (unchanged.status_code, unchanged.data) == (HTTPStatus.NOT_MODIFIED, b"")
    assert client.get(f"/v1/traces/{sorted_letters['id']}").headers["ETag"] != answer.headers["ETag"]


def test_a_trace_without_the_needed_values_is_409_naming_them(client: FlaskClient, request_body: Body) -> None:
    body = request_body | {"capture": ["embed", "blocks.*", "ln_final.*", "logits"]}
    trace = client.post("/v1/traces", json=body, headers=WAIT).get_json()
    answer = client.get(f"/v1/traces/{trace['id']}/llm-viz")
    assert (answer.status_code, answer.content_type) == (HTTPStatus.CONFLICT, "application/problem+json")
    assert "did not capture tokens, pos_embed, probs," in answer.get_json()["detail"]


def test_a_trace_needs_only_the_values_of_the_file(client: FlaskClient, request_body: Body) -> None:
    body = request_body | {"capture": list(llm_viz.trace_values(2).values())}
    trace = client.post("/v1/traces", json=body, headers=WAIT).get_json()
    config, tensors = parse(client.get(f"/v1/traces/{trace['id']}/llm-viz").data)
    assert (config["model_type"], config["n_layer"], config["block_size"]) == ("gpt", 2, 64)
    assert {name: tensors[name].shape for name in ("idx", "q", "att", "y", "fc", "block1", "probs")} == {
        "idx": (1, 3), "q": (1, 2, 3, 4), "att": (1, 2, 3, 3), "y": (1, 3, 8), "fc": (1, 3, 32),
        "block1": (1, 3, 8), "probs": (1, 3, 20),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_head": 5}, "d_head must be n_embd / n_head"),
        ({"n_inner": 9}, "n_inner must be 4 · n_embd"),
        ({"activation_function": "relu", "layer_norm_epsilon": 0.1}, "layer_norm_epsilon must be 1e-5, activation_"),
    ],
)
def test_sizes_that_the_format_cannot_express_are_422(
    client: FlaskClient, request_body: Body, sizes: Body, message: str
) -> None:
    body = request_body | {"model": request_body["model"] | sizes}
    trace = client.post("/v1/traces", json=body, headers=WAIT).get_json()
    answer = client.get(f"/v1/traces/{trace['id']}/llm-viz")
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert message in answer.get_json()["errors"]["trace"][0]


def test_an_unfinished_trace_is_409_and_an_unknown_one_404(idle_client: FlaskClient, request_body: Body) -> None:
    trace = idle_client.post("/v1/traces", json=request_body).get_json()
    answer = idle_client.get(f"/v1/traces/{trace['id']}/llm-viz")
    assert (answer.status_code, "it is queued" in answer.get_json()["detail"]) == (HTTPStatus.CONFLICT, True)
    assert idle_client.get(f"/v1/traces/{'0' * 64}/llm-viz").status_code == HTTPStatus.NOT_FOUND
