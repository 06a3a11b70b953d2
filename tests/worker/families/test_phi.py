"""Phi: published parameter counts, validation, and agreement with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.worker.families import oracle
from worker.describe.config import ConfigError
from worker.describe.counts import total
from worker.families.phi import PhiConfig
from worker.families.registry import PRESETS, config_from_mapping, config_from_text, describe
from worker.models import checkpoints
from worker.models.checkpoints import CheckpointError

PARAMETERS = {"phi-1.5": 1_418_270_720, "phi-2": 2_779_683_840}
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 37,
    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "normed heads": {"qk_layernorm": True},
    "shared keys and values": {"num_key_value_heads": 2},
    "normed heads, shared keys and values, tied": {
        "qk_layernorm": True, "num_key_value_heads": 1, "tie_word_embeddings": True,
    },
    "all channels rotated": {"partial_rotary_factor": 1.0},
    "another base": {"rope_theta": 50.0},
    "scaled angles, linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "scaled angles, llama3": {
        "rope_scaling": {
            "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "scaled angles, yarn": {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "another activation and epsilon": {"hidden_act": "gelu", "layer_norm_eps": 0.03, "qk_layernorm": True},
}  # fmt: skip


@pytest.mark.parametrize(("id", "parameters"), PARAMETERS.items())
def test_parameters_are_exact(id: str, parameters: int) -> None:
    assert total(describe(PRESETS[id].config)) == parameters


@pytest.mark.parametrize("make_engine", oracle.ENGINES.values(), ids=oracle.ENGINES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_match_transformers(tmp_path: Path, options: dict[str, Any], make_engine: Any) -> None:
    model = oracle.random_model("Phi", SMALL | options)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_values(model, tmp_path / "tiny", make_engine)


@pytest.mark.parametrize("saved", oracle.SAVED.values(), ids=oracle.SAVED)
def test_every_kind_of_file_is_read(tmp_path: Path, saved: tuple[str, dict[str, Any]]) -> None:
    dtype, how = saved
    model = oracle.random_model("Phi", SMALL, dtype)
    oracle.save(model, tmp_path / "tiny", dtype, **how)
    oracle.check_values(model, tmp_path / "tiny")


def test_generation_matches_transformers(tmp_path: Path) -> None:
    model = oracle.random_model("Phi", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_generation(model, tmp_path / "tiny")


def test_names_need_no_prefix(tmp_path: Path) -> None:
    model = oracle.random_model("Phi", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.without_prefix(tmp_path / "tiny", "model.")
    oracle.check_values(model, tmp_path / "tiny")


@pytest.mark.parametrize(
    ("field", "sizes"),
    [
        ("num_attention_heads", {"num_attention_heads": 5}),
        ("num_key_value_heads", {"num_key_value_heads": 3}),
        ("partial_rotary_factor", {"partial_rotary_factor": 0.01}),
        ("partial_rotary_factor", {"partial_rotary_factor": 0}),
        ("qk_layernorm", {"qk_layernorm": 1}),
        ("head_dim", {"head_dim": 3}),
    ],
)
def test_an_invalid_field_is_reported_by_name(field: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_mapping({"model_type": "phi", **sizes})
    assert list(error.value.errors) == [field]


def test_a_configuration_round_trips_through_its_mapping_and_its_text() -> None:
    config = PhiConfig(num_hidden_layers=3, partial_rotary_factor=0.25, qk_layernorm=True, num_key_value_heads=8)
    assert config_from_mapping(config.to_mapping()) == config_from_text(config.to_text()) == config


PUBLISHED: dict[str, Any] = {  # of Phi 2
    "architectures": ["PhiForCausalLM"], "hidden_act": "gelu_new", "hidden_size": 2560, "intermediate_size": 10240,
    "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": False,
    "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 51200,
}  # fmt: skip


def test_the_published_config_json_is_the_preset(tmp_path: Path) -> None:
    oracle.write_config(tmp_path / "tiny", PUBLISHED)
    assert checkpoints.read_config("tiny", str(tmp_path)) == PRESETS["phi-2"].config


def test_nested_rotary_settings_take_precedence(tmp_path: Path) -> None:
    nested = {"rope_type": "default", "rope_theta": 77.0, "partial_rotary_factor": 0.5}
    oracle.write_config(tmp_path / "tiny", PUBLISHED | {"rope_parameters": nested})
    found = checkpoints.read_config("tiny", str(tmp_path))
    assert isinstance(found, PhiConfig)
    assert (found.rope_theta, found.partial_rotary_factor) == (77.0, 0.5)


def test_a_head_width_of_its_own_is_rejected(tmp_path: Path) -> None:
    oracle.write_config(tmp_path / "tiny", PUBLISHED | {"head_dim": 64})
    with pytest.raises(CheckpointError, match="has head_dim: 64, and only 80 is supported"):
        checkpoints.read_config("tiny", str(tmp_path))
