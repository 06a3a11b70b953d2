"""GPT-NeoX and Pythia: published parameter counts, validation, and agreement with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.families import oracle
from worker.describe.config import ConfigError
from worker.describe.counts import total
from worker.families.gpt_neox import GPTNeoXConfig
from worker.families.registry import PRESETS, config_from_mapping, config_from_text, describe
from worker.models import checkpoints

#: Computed with transformers from the published configurations.
PARAMETERS = {
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "gpt-neox-20b": 20_554_567_680,
}
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 37,
    "max_position_embeddings": 64, "rotary_pct": 0.5, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "serial": {"use_parallel_residual": False},
    "tied": {"tie_word_embeddings": True},
    "no biases in attention": {"attention_bias": False},
    "serial, tied, no biases": {
        "use_parallel_residual": False, "tie_word_embeddings": True, "attention_bias": False,
    },
    "all channels rotated": {"rotary_pct": 1.0},
    "another base": {"rotary_emb_base": 50},
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
    "another activation and epsilon": {"hidden_act": "gelu_fast", "layer_norm_eps": 0.03},
}  # fmt: skip


@pytest.mark.parametrize(("id", "parameters"), PARAMETERS.items())
def test_parameters_are_exact(id: str, parameters: int) -> None:
    assert total(describe(PRESETS[id].config)) == parameters


@pytest.mark.parametrize("make_engine", oracle.ENGINES.values(), ids=oracle.ENGINES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_match_transformers(tmp_path: Path, options: dict[str, Any], make_engine: Any) -> None:
    model = oracle.random_model("GPTNeoX", SMALL | options)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_values(model, tmp_path / "tiny", make_engine)


def test_vectors_are_those_of_the_fused_layer(tmp_path: Path) -> None:
    model = oracle.random_model("GPTNeoX", SMALL)
    oracle.save(model, tmp_path / "tiny")
    seen: list[Any] = []
    fused = model.gpt_neox.layers[1].attention.query_key_value
    fused.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().numpy()))
    found = oracle.check_values(model, tmp_path / "tiny")
    heads = seen[0].reshape(2, 9, 4, 3, 8)
    for number, name in enumerate("qkv"):
        np.testing.assert_allclose(found[f"blocks.1.attn.{name}"], heads[:, :, :, number], rtol=0, atol=1e-4)


@pytest.mark.parametrize("saved", oracle.SAVED.values(), ids=oracle.SAVED)
def test_every_kind_of_file_is_read(tmp_path: Path, saved: tuple[str, dict[str, Any]]) -> None:
    dtype, how = saved
    model = oracle.random_model("GPTNeoX", SMALL, dtype)
    oracle.save(model, tmp_path / "tiny", dtype, **how)
    oracle.check_values(model, tmp_path / "tiny")


def test_generation_matches_transformers(tmp_path: Path) -> None:
    model = oracle.random_model("GPTNeoX", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_generation(model, tmp_path / "tiny")


def test_names_need_no_prefix(tmp_path: Path) -> None:
    model = oracle.random_model("GPTNeoX", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.without_prefix(tmp_path / "tiny", "gpt_neox.")
    oracle.check_values(model, tmp_path / "tiny")


@pytest.mark.parametrize(
    ("field", "sizes"),
    [
        ("num_attention_heads", {"num_attention_heads": 5}),
        ("rotary_pct", {"rotary_pct": 0.01}),
        ("rotary_pct", {"rotary_pct": 1.5}),
        ("rotary_pct", {"hidden_size": 64, "num_attention_heads": 8, "rotary_pct": 0.4}),
        ("hidden_act", {"hidden_act": "tanh"}),
        ("n_layer", {"n_layer": 3}),
    ],
)
def test_an_invalid_field_is_reported_by_name(field: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_mapping({"model_type": "gpt_neox", **sizes})
    assert list(error.value.errors) == [field]


def test_a_configuration_round_trips_through_its_mapping_and_its_text() -> None:
    config = GPTNeoXConfig(num_hidden_layers=3, rotary_pct=0.5, use_parallel_residual=False, rotary_emb_base=5e5)
    assert config_from_mapping(config.to_mapping()) == config_from_text(config.to_text()) == config


PUBLISHED: dict[str, Any] = {  # of Pythia 12B
    "architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "hidden_size": 5120, "initializer_range": 0.02,
    "intermediate_size": 20480, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox",
    "num_attention_heads": 40, "num_hidden_layers": 36, "rotary_emb_base": 10000, "rotary_pct": 0.25,
    "tie_word_embeddings": False, "use_parallel_residual": True, "vocab_size": 50688,
}  # fmt: skip


def test_the_published_config_json_is_the_preset(tmp_path: Path) -> None:
    oracle.write_config(tmp_path / "tiny", PUBLISHED)
    assert checkpoints.read_config("tiny", str(tmp_path)) == PRESETS["pythia-12b"].config


@pytest.mark.parametrize("where", ["rope_parameters", "rope_scaling"])
def test_nested_rotary_settings_take_precedence(tmp_path: Path, where: str) -> None:
    nested = {"rope_type": "default", "rope_theta": 77.0, "partial_rotary_factor": 0.5}
    oracle.write_config(tmp_path / "tiny", PUBLISHED | {where: nested})
    found = checkpoints.read_config("tiny", str(tmp_path))
    assert isinstance(found, GPTNeoXConfig)
    assert (found.rotary_emb_base, found.rotary_pct) == (77.0, 0.5)
