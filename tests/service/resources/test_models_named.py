"""Models whose folders have names beyond ASCII."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from safetensors.numpy import load
from werkzeug.http import parse_options_header

from service.app import create_app
from service.settings import Settings
from tests.checkpoints import write

NAMES = ["modèle", "漢字", "two words", 'a"quote', "50%", "ünïcode 漢 v1.0"]


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    for name in NAMES:
        write(tmp_path / name)
    return create_app(replace(Settings(), models_dir=str(tmp_path))).test_client()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_saved_under_the_name_of_its_model(client: FlaskClient, name: str) -> None:
    assert name in [model["id"] for model in client.get("/v1/models").get_json()["models"]]
    response = client.get(f"/v1/models/{quote(name)}/safetensors")
    assert set(load(response.data)) >= {"wte.weight"}
    header = response.headers["Content-Disposition"]
    assert header.isascii()
    assert parse_options_header(header) == ("attachment", {"filename": f"{name}.safetensors"})
