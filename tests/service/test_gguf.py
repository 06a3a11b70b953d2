"""GGUF files over HTTP: listed, traced and read like other models; broken ones are reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from safetensors.numpy import load

import worker.models.lookup as models
from service.app import create_app
from tests.conftest import Servers, running_worker
from tests.worker.models.test_gguf import config_of, random, run, write
from worker.models.sources import catalogue

CONFIG = config_of("llama")
OCTETS = {"Accept": "application/octet-stream"}
MODEL = "/v1/models/mine.gguf"


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder with a quantized file and a broken one."""
    write(tmp_path / "models" / "mine.gguf", CONFIG, random(CONFIG), "Q8_0")
    (tmp_path / "models" / "broken.gguf").write_bytes(b"GGUF\3")
    return tmp_path / "models"


@pytest.fixture
def client(idle_servers: Servers, models_dir: Path) -> Iterator[FlaskClient]:
    servers = replace(idle_servers, models_dir=str(models_dir))
    with ExitStack() as stack:
        stack.enter_context(running_worker(servers))
        yield create_app(servers.settings).test_client()


def test_a_gguf_file_is_a_model_like_others(client: FlaskClient, models_dir: Path) -> None:
    listed = client.get("/v1/models").get_json()
    [mine] = [model for model in listed["models"] if model["id"] == "mine.gguf"]
    assert mine["config"] == CONFIG.to_mapping()
    assert (mine["weights"]["format"], mine["weights"]["dtypes"]) == ("gguf", ["Q8_0", "float32"])
    [broken] = listed["problems"]
    assert (broken["id"], "is truncated: its header" in broken["detail"]) == ("broken.gguf", True)

    weights, shapes = models.find("mine.gguf", str(models_dir)).weights(), catalogue(CONFIG)
    tensors = client.get(f"{MODEL}/tensors").get_json()["tensors"]
    assert [(one["name"], tuple(one["shape"]), one["dtype"]) for one in tensors] == [
        (name, shape, "float32") for name, shape in shapes.items()
    ]
    assert {one["name"]: one["stored"] for one in tensors} == {
        name: "Q8_0" if len(shape) == 2 else "float32" for name, shape in shapes.items()
    }
    for name in shapes:
        found = client.get(f"{MODEL}/tensors/{name}?slice=1::2", headers=OCTETS)
        assert found.data == weights[name][1::2].tobytes(), name
    exported = load(client.get(f"{MODEL}/safetensors").data)
    assert exported.keys() == dict(shapes).keys()
    for name, values in exported.items():
        np.testing.assert_array_equal(values, weights[name])

    trace = client.post(
        "/v1/traces", json={"model": "mine.gguf", "tokens": [3, 1, 4, 1, 5]}, headers={"Prefer": "wait=60"}
    )
    assert trace.status_code == HTTPStatus.OK, trace.get_json()
    url = f"/v1/traces/{trace.get_json()['id']}"
    logits = client.get(f"{url}/tensors/logits", headers=OCTETS)
    wanted = run(CONFIG, weights)["logits"]
    np.testing.assert_allclose(np.frombuffer(logits.data, "<f4").reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-4)
    query = {"block": "blocks.1.attn.heads.1.q", "cell": "3,2,0"}
    explained = client.get(f"{url}/explain", query_string=query)
    assert explained.status_code == HTTPStatus.OK, explained.get_json()
