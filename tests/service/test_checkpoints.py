"""Checkpoints over HTTP: listed and traced like other models; broken ones are reported."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from safetensors.numpy import save_file
from werkzeug.test import TestResponse

from service.app import create_app
from service.settings import Settings
from tests.checkpoints import SMALL, bfloat16, from_bfloat16, prefixed, values, write, write_config
from tests.conftest import Servers, running_worker
from tests.gpt2 import CONFIGS
from tests.tokenizers import write_tokenizer
from worker.engine.numpy_engine import Engine
from worker.families.gpt2 import GPT2Config as Config
from worker.families.gpt2 import forward
from worker.families.registry import PRESETS
from worker.models.sources import synthetic
from worker.trace.arena import Arena, plan
from worker.weights.base import CachedWeights

Body = dict[str, Any]
WAIT = {"Prefer": "wait=60"}
OCTETS = {"Accept": "application/octet-stream"}
TOKENS = [3, 1, 4, 1, 5]
MICRO = CONFIGS["gpt-micro"]


def header(shape: list[int], **fields: Any) -> bytes:
    return json.dumps({"wte.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]} | fields}).encode()


#: Names of folders, each with a config.json or the header of a file.
HOSTILE: list[tuple[str, str, bytes]] = [
    ("nested", f'{{"n_layer": {"[" * 1000}{"]" * 1000}}}', b""),
    ("nested type", f'{{"model_type": {"[" * 1000}{"]" * 1000}}}', b""),
    ("long", json.dumps({"activation_function": "x" * 1_000_000}), b""),
    ("20 MB", json.dumps({"activation_function": "x" * 20_000_000}), b""),
    ("72 axes", "", header([1] * 72)),
    ("overflow", "", header([2**63 - 1, 2**63 - 1])),
    ("100,000 axes", "", header([2**63 - 1] * 100_000)),
]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder with a model and a broken one."""
    write(tmp_path / "models" / "mine", prefixed(values(SMALL)))
    write(tmp_path / "models" / "broken")
    (tmp_path / "models" / "broken" / "model.safetensors").write_bytes(b"\x08")
    return tmp_path / "models"


@pytest.fixture
def client(models_dir: Path) -> FlaskClient:
    """A client of a service with those models, without Redis and workers."""
    nowhere = "unix:///nowhere/redis.sock"
    return create_app(Settings(queue_url=nowhere, cache_url=nowhere, models_dir=str(models_dir))).test_client()


@pytest.fixture
def computing_client(idle_servers: Servers, models_dir: Path) -> Iterator[FlaskClient]:
    """A client of a service with those models and a worker."""
    servers = replace(idle_servers, models_dir=str(models_dir))
    with ExitStack() as stack:
        stack.enter_context(running_worker(servers))
        yield create_app(servers.settings).test_client()


def submit(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post("/v1/traces", json={"tokens": TOKENS} | body, headers=WAIT)


def done(response: TestResponse) -> Body:
    assert response.status_code == HTTPStatus.OK, response.text
    result: Body = response.get_json()
    assert result["status"] == "done", result
    return result


def source(client: FlaskClient, id: str) -> str:
    return str(client.get(f"/v1/models/{id}").get_json()["weights"]["source"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_traced_and_generate_nothing(
    computing_client: FlaskClient, models_dir: Path, value: float
) -> None:
    tensors = values(SMALL)
    tensors["ln_f.bias"][0] = value
    write(models_dir / "mine", tensors)
    trace = done(submit(computing_client, model="mine"))
    for query in ("dtype=uint8", "dtype=uint8&slice=0,0", "dtype=uint8&max_cells=20", "dtype=float16"):
        assert computing_client.get(f"/v1/traces/{trace['id']}/tensors/logits?{query}").status_code == HTTPStatus.OK
    failed = submit(computing_client, model="mine", generate={"max_new_tokens": 2}).get_json()
    assert failed["status"] == "failed"
    assert failed["error"]["detail"].startswith("The logits contain NaN or infinity, so no token can be generated")


# ----------------------------------------------------------------------------------------------------- the models


def test_checkpoints_are_listed_after_the_presets_and_broken_ones_as_problems(client: FlaskClient) -> None:
    listed = client.get("/v1/models").get_json()
    assert [model["id"] for model in listed["models"]] == [*PRESETS, "mine"]
    mine = listed["models"][-1]
    assert mine == client.get("/v1/models/mine").get_json()
    assert (mine["name"], mine["config"]) == ("mine", SMALL.to_mapping())
    assert (mine["weights"]["source"], len(mine["weights"]["digest"])) == ("checkpoint", 64)
    assert mine["vocabulary"] == {"kind": "ids", "size": 17}
    [problem] = listed["problems"]
    assert problem["id"] == "broken"
    assert "model.safetensors is truncated" in problem["detail"]


def test_hostile_folders_are_short_problems_and_harm_no_other(client: FlaskClient, models_dir: Path) -> None:
    for name, config, header in HOSTILE:
        write(models_dir / name)
        if config:
            (models_dir / name / "config.json").write_text(config)
        if header:
            content = len(header).to_bytes(8, "little") + header + bytes(4)
            (models_dir / name / "model.safetensors").write_bytes(content)
    write(models_dir / "wide")
    with (models_dir / "wide" / "model.safetensors").open("wb") as file:
        file.write((100_000_000).to_bytes(8, "little"))
        file.truncate(8 + 100_000_000)
    for file_name in ("config.json", "model.safetensors"):
        write(models_dir / f"fifo {file_name}")
        (models_dir / f"fifo {file_name}" / file_name).unlink()
        os.mkfifo(models_dir / f"fifo {file_name}" / file_name)
    began = time.monotonic()
    listed = client.get("/v1/models").get_json()
    assert time.monotonic() - began < 30  # 11 folders; on an idle machine less than a second
    assert [model["id"] for model in listed["models"]] == [*PRESETS, "mine"]
    assert {problem["id"] for problem in listed["problems"]} == {
        "broken", "wide", "fifo config.json", "fifo model.safetensors", *(name for name, _, _ in HOSTILE),
    }  # fmt: skip
    for problem in listed["problems"]:
        assert len(problem["detail"]) < 400
        assert "Error" not in problem["detail"]  # every one is foreseen


@pytest.mark.parametrize("path", ["", "/tensors", "/tensors/wte.weight"])
def test_reading_a_broken_checkpoint_reports_what_is_wrong(client: FlaskClient, path: str) -> None:
    response = client.get(f"/v1/models/broken{path}")
    assert (response.status_code, response.content_type) == (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "application/problem+json",
    )
    message = "The checkpoint in the folder 'broken' cannot be used: model.safetensors is truncated"
    assert response.get_json()["errors"]["model"][0].startswith(message)


def test_a_trace_of_a_broken_checkpoint_is_rejected_with_the_reason(client: FlaskClient) -> None:
    response = submit(client, model="broken")
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "model.safetensors is truncated" in response.get_json()["errors"]["model"][0]


@pytest.mark.parametrize("id", ["../mine", "mine/", ".", "..", "", "/etc", "mine\0", "a" * 5000, "openai/gpt2"])
def test_a_model_id_that_is_no_folder_name_is_unknown(client: FlaskClient, id: str) -> None:
    response = submit(client, model=id)
    assert response.status_code == HTTPStatus.NOT_FOUND
    assert response.get_json()["detail"].split(", and any")[0].endswith(f"{[*PRESETS][-1]}, broken, mine")


@pytest.mark.parametrize("id", ["..", "%2e%2e", "..%2fmine", "mine%00", "%ff", "a" * 5000])
def test_a_path_that_is_no_folder_name_is_not_found(client: FlaskClient, id: str) -> None:
    assert client.get(f"/v1/models/{id}").status_code == HTTPStatus.NOT_FOUND


def test_slices_of_weights_are_read_from_the_checkpoint(client: FlaskClient, models_dir: Path) -> None:
    stored = values(SMALL)
    for id, expected in {"mine": stored, "narrow": {n: from_bfloat16(bfloat16(a)) for n, a in stored.items()}}.items():
        if id == "narrow":
            write(models_dir / id, {name: bfloat16(array) for name, array in stored.items()})
        url = f"/v1/models/{id}/tensors/h.1.mlp.c_fc.weight"
        octets = client.get(f"{url}?slice=5:1:-2,::7", headers=OCTETS)
        assert octets.data == expected["h.1.mlp.c_fc.weight"][5:1:-2, ::7].tobytes()
        assert octets.headers["Tensor-Dtype"] == "float32"
        body = client.get(f"{url}?slice=23,3:").get_json()
        assert np.float32(body["data"]).tolist() == expected["h.1.mlp.c_fc.weight"][23, 3:].tolist()
    head = client.get("/v1/models/mine/tensors/lm_head.weight", headers=OCTETS)
    assert head.data == stored["wte.weight"].tobytes()


def test_the_etag_of_a_weight_changes_with_the_checkpoint(client: FlaskClient, models_dir: Path) -> None:
    url = "/v1/models/mine/tensors/ln_f.bias"
    before = client.get(url)
    assert client.get(url, headers={"If-None-Match": before.headers["ETag"]}).status_code == HTTPStatus.NOT_MODIFIED
    assert "no-cache" in before.headers["Cache-Control"]
    write(models_dir / "mine", values(SMALL, 1))
    after = client.get(url, headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == HTTPStatus.OK
    assert after.get_json()["data"] != before.get_json()["data"]


# ---------------------------------------------------------------------------------------------------- the presets


def test_a_preset_takes_its_weights_from_a_checkpoint_with_its_id_and_sizes(
    client: FlaskClient, models_dir: Path
) -> None:
    assert source(client, "gpt-micro") == "synthetic"
    zeros = {name: np.zeros_like(array) for name, array in values(MICRO).items()}
    write(models_dir / "gpt-micro", zeros, MICRO)
    model = client.get("/v1/models/gpt-micro").get_json()
    assert (model["weights"]["source"], model["name"], model["family"]) == ("checkpoint", "GPT micro", "minigpt")
    assert model["vocabulary"] == {"kind": "gpt2", "size": 50257}
    assert client.get("/v1/models/gpt-micro/tensors/wpe.weight?slice=5,5").get_json()["data"] == 0
    assert [model["id"] for model in client.get("/v1/models").get_json()["models"]] == [*PRESETS, "mine"]


def test_a_checkpoint_with_other_sizes_is_not_used_for_a_preset_and_a_note_says_so(
    client: FlaskClient, models_dir: Path
) -> None:
    write(models_dir / "gpt2")
    model = client.get("/v1/models/gpt2").get_json()
    assert (model["weights"]["source"], model["config"]) == ("synthetic", CONFIGS["gpt2"].to_mapping())
    assert (
        "The folder 'gpt2' is not read: its model has n_layer 2, not 12, n_head 3, not 12" in model["weights"]["note"]
    )


def test_no_checkpoint_replaces_the_trained_nano_gpt_and_a_note_says_so(client: FlaskClient, models_dir: Path) -> None:
    config = CONFIGS["nano-gpt"]
    write(models_dir / "nano-gpt", values(config), config)
    weights = client.get("/v1/models/nano-gpt").get_json()["weights"]
    assert weights["source"] == "trained"
    assert "The folder 'nano-gpt' is not read" in weights["note"]


def test_a_broken_checkpoint_of_a_preset_is_reported_and_not_ignored(client: FlaskClient, models_dir: Path) -> None:
    write_config(models_dir / "gpt2", CONFIGS["gpt2"])
    assert client.get("/v1/models/gpt2").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    specs: list[Any] = ["gpt2", {}]
    for spec in specs:
        response = submit(client, model=spec)
        assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert "it has neither model.safetensors nor" in response.get_json()["detail"]
    listed = client.get("/v1/models").get_json()
    assert "gpt2" not in [model["id"] for model in listed["models"]]
    assert sorted(problem["id"] for problem in listed["problems"]) == ["broken", "gpt2"]


# ----------------------------------------------------------------------------------------------------- the traces


def test_a_trace_of_a_checkpoint_is_computed_with_its_weights(computing_client: FlaskClient) -> None:
    trace = done(submit(computing_client, model="mine", generate={"max_new_tokens": 2}))
    assert (trace["model"], trace["weights"]["source"]) == ("mine", "checkpoint")
    assert trace["weights"] == computing_client.get("/v1/models/mine").get_json()["weights"]
    octets = computing_client.get(f"/v1/traces/{trace['id']}/tensors/logits?slice=0,:5", headers=OCTETS)
    stored = values(SMALL)
    arena = Arena(plan(SMALL, 5))
    arena["tokens"][...] = TOKENS
    forward(SMALL, Engine(CachedWeights(stored | {"lm_head.weight": stored["wte.weight"]})), arena, slice(0, 5))
    np.testing.assert_allclose(np.frombuffer(octets.data, np.float32).reshape(5, 17), arena["logits"][0], atol=1e-5)
    listed = computing_client.get("/v1/traces?model=mine").get_json()["traces"]
    assert [entry["id"] for entry in listed] == [trace["id"]]


def test_a_changed_checkpoint_gives_another_trace_and_the_old_one_stays_readable(
    computing_client: FlaskClient, models_dir: Path
) -> None:
    old = done(submit(computing_client, model="mine"))
    write(models_dir / "mine", values(SMALL, 1))
    new = done(submit(computing_client, model="mine"))
    assert new["id"] != old["id"]
    assert new["weights"]["digest"] != old["weights"]["digest"]
    read = done(computing_client.get(f"/v1/traces/{old['id']}"))
    kept = {name: old["weights"][name] for name in ("source", "digest")}  # what its files were is not known any more
    assert read["weights"] == kept | {"note": "These weights no longer exist.", "tensors": None}
    assert read["tensors"] == old["tensors"]
    listed = [entry["model"] for entry in computing_client.get("/v1/traces").get_json()["traces"]]
    assert listed == ["mine", SMALL.to_text()]  # only the sizes of lost weights are known


def test_a_trace_fails_if_its_checkpoint_changed_while_it_was_queued(idle_servers: Servers, models_dir: Path) -> None:
    servers = replace(idle_servers, models_dir=str(models_dir))
    client = create_app(servers.settings).test_client()
    id = client.post("/v1/traces", json={"model": "mine", "tokens": TOKENS}).get_json()["id"]
    save_file(values(SMALL, 1), models_dir / "mine" / "model.safetensors")
    with running_worker(servers):
        trace = client.get(f"/v1/traces/{id}", headers=WAIT).get_json()
    assert trace["status"] == "failed"
    assert "no longer exist: their checkpoint was changed or removed" in trace["error"]["detail"]


def test_a_seed_gives_synthetic_weights_with_a_checkpoints_sizes(computing_client: FlaskClient) -> None:
    for id in ("mine", "broken"):  # the weights of neither are read
        trace = done(submit(computing_client, model=id, weights={"synthetic": 3}))
        assert (trace["weights"]["source"], trace["config"]) == ("synthetic", SMALL.to_mapping())
    octets = computing_client.get(f"/v1/traces/{trace['id']}/tensors/embed?slice=0,0", headers=OCTETS)
    assert octets.data == synthetic(SMALL, 3).read("wte.weight", (3,)).tobytes()


def test_a_layout_uses_a_checkpoints_sizes(computing_client: FlaskClient) -> None:
    response = computing_client.post("/v1/layouts", json={"model": "mine"}, headers=WAIT)
    same = computing_client.post("/v1/layouts", json={"model": SMALL.to_mapping()}, headers=WAIT)
    assert done(response)["config"] == SMALL.to_mapping()
    assert response.get_json()["id"] == same.get_json()["id"]


def test_text_is_tokenized_if_the_vocabulary_has_the_size_of_gpt2s(
    computing_client: FlaskClient, models_dir: Path
) -> None:
    config = Config(n_layer=1, n_head=2, n_embd=8, n_positions=9)
    write(models_dir / "texts", values(config), config)
    response = computing_client.post("/v1/traces", json={"model": "texts", "text": "Hello world"}, headers=WAIT)
    assert [piece["text"] for piece in done(response)["pieces"]] == ["Hello", " world"]


def test_a_tokenizer_that_cannot_be_used_is_a_problem_of_a_model_that_takes_ids(
    client: FlaskClient, models_dir: Path
) -> None:
    (models_dir / "mine" / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"a": 0}}}')
    listed = client.get("/v1/models").get_json()
    [mine] = [model for model in listed["models"] if model["id"] == "mine"]
    assert mine["vocabulary"] == {"kind": "ids", "size": 17}
    [detail] = [problem["detail"] for problem in listed["problems"] if problem["id"] == "mine"]
    assert detail.startswith("Its tokenizer.json cannot be used: Exception: ")
    assert detail.endswith("The model takes tokens, and no text.")
    response = client.post("/v1/traces", json={"model": "mine", "text": "Hello world"}, headers=WAIT)
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "because its tokenizer.json cannot be used: Exc" in response.get_json()["errors"]["text"][0]


def test_a_checkpoint_is_traced_over_text_and_messages_with_its_own_tokens(
    computing_client: FlaskClient, models_dir: Path
) -> None:
    config = Config(n_layer=1, n_head=2, n_embd=8, n_positions=40, vocab_size=420)
    write(models_dir / "texts", values(config), config)
    template = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
    write_tokenizer(models_dir / "texts", "byte_level", chat_template=template)
    assert computing_client.get("/v1/models/texts").get_json()["vocabulary"] == {"kind": "tokenizer.json", "size": 420}
    prompts: list[tuple[Body, list[str]]] = [
        ({"text": "the cat"}, ["<|begin_of_text|>", "the", " cat"]),
        ({"text": "the cat", "add_special_tokens": False}, ["the", " cat"]),
        ({"messages": [{"role": "user", "content": "the cat"}]}, ["<|im_start|>", "the", " cat", "<|im_end|>"]),
    ]
    for prompt, texts in prompts:
        body = {"model": "texts", "generate": {"max_new_tokens": 2}} | prompt
        trace = done(computing_client.post("/v1/traces", json=body, headers=WAIT))
        assert [piece["text"] for piece in trace["pieces"]] == texts
        assert [piece["special"] for piece in trace["pieces"]] == [text.startswith("<|") for text in texts]
        assert trace["output"] == b"".join(bytes_of(computing_client, trace)).decode(errors="replace")
        same = done(submit(computing_client, model="texts", tokens=trace["tokens"], generate={"max_new_tokens": 2}))
        assert same["id"] == trace["id"]


def bytes_of(client: FlaskClient, trace: Body) -> list[bytes]:
    """Return the bytes of the tokens that a trace generated, which are those of a prompt with them."""
    tokens = [*trace["tokens"], *(step["token"] for step in trace["generated"])]
    pieces = client.post("/v1/traces", json={"model": trace["model"], "tokens": tokens}).get_json()["pieces"]
    return [bytes(piece["bytes"]) for piece in pieces[len(trace["tokens"]) :]]
