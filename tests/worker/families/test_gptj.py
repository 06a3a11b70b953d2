"""GPT-J: published parameter counts, validation, and agreement with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.worker.families import oracle
from worker.describe.config import ConfigError
from worker.describe.counts import total
from worker.families.gptj import GPTJConfig, vocabulary
from worker.families.registry import PRESETS, config_from_mapping, config_from_text, describe
from worker.models import checkpoints

SMALL: dict[str, Any] = {
    "n_embd": 32, "n_inner": 44, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "vocab_size": 37, "n_positions": 64,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "tied": {"tie_word_embeddings": True},
    "all channels rotated": {"rotary_dim": 8},
    "a default inner width": {"n_inner": None},
    "another activation and epsilon": {"activation_function": "gelu", "layer_norm_epsilon": 0.03},
    "relu": {"activation_function": "relu"},
}


def test_parameters_are_exact() -> None:
    assert total(describe(PRESETS["gpt-j-6b"].config)) == 6_050_882_784


@pytest.mark.parametrize("make_engine", oracle.ENGINES.values(), ids=oracle.ENGINES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_match_transformers(tmp_path: Path, options: dict[str, Any], make_engine: Any) -> None:
    model = oracle.random_model("GPTJ", SMALL | options)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_values(model, tmp_path / "tiny", make_engine)


@pytest.mark.parametrize("saved", oracle.SAVED.values(), ids=oracle.SAVED)
def test_every_kind_of_file_is_read(tmp_path: Path, saved: tuple[str, dict[str, Any]]) -> None:
    dtype, how = saved
    model = oracle.random_model("GPTJ", SMALL, dtype)
    oracle.save(model, tmp_path / "tiny", dtype, **how)
    oracle.check_values(model, tmp_path / "tiny")


def test_generation_matches_transformers(tmp_path: Path) -> None:
    model = oracle.random_model("GPTJ", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_generation(model, tmp_path / "tiny")


def test_names_need_no_prefix(tmp_path: Path) -> None:
    model = oracle.random_model("GPTJ", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.without_prefix(tmp_path / "tiny", "transformer.")
    oracle.check_values(model, tmp_path / "tiny")


@pytest.mark.parametrize(
    ("field", "sizes"),
    [
        ("n_head", {"n_head": 3}),
        ("rotary_dim", {"rotary_dim": 5}),
        ("rotary_dim", {"rotary_dim": 258}),
        ("rotary_dim", {"rotary_dim": None}),
        ("activation_function", {"activation_function": "tanh"}),
        ("hidden_size", {"hidden_size": 3}),
    ],
)
def test_an_invalid_field_is_reported_by_name(field: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_mapping({"model_type": "gptj", **sizes})
    assert list(error.value.errors) == [field]


def test_a_configuration_round_trips_through_its_mapping_and_its_text() -> None:
    config = GPTJConfig(n_layer=3, n_head=4, n_embd=32, rotary_dim=4, tie_word_embeddings=True)
    assert config_from_mapping(config.to_mapping()) == config_from_text(config.to_text()) == config


def test_the_published_config_json_is_the_preset(tmp_path: Path) -> None:
    published = {
        "architectures": ["GPTJForCausalLM"], "model_type": "gptj", "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-05, "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 28, "n_positions": 2048,
        "rotary": True, "rotary_dim": 64, "scale_attn_weights": True, "tie_word_embeddings": False,
        "vocab_size": 50400,
    }  # fmt: skip
    oracle.write_config(tmp_path / "tiny", published)
    assert checkpoints.read_config("tiny", str(tmp_path)) == PRESETS["gpt-j-6b"].config


def test_text_is_read_with_the_published_vocabulary() -> None:
    assert [vocabulary(GPTJConfig(vocab_size=size)) for size in (50400, 37)] == ["gpt2", "ids"]
