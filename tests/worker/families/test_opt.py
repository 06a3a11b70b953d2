"""OPT: published parameter counts, validation, and agreement with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.families import oracle
from worker.describe.config import ConfigError
from worker.describe.counts import total
from worker.families.opt import OPTConfig
from worker.families.registry import PRESETS, config_from_mapping, config_from_text, describe
from worker.models import checkpoints

#: Computed with transformers from the published configurations.
PARAMETERS = {
    "opt-125m": 125_239_296,
    "opt-350m": 331_196_416,
    "opt-1.3b": 1_315_758_080,
    "opt-2.7b": 2_651_596_800,
    "opt-6.7b": 6_658_473_984,
    "opt-13b": 12_853_473_280,
    "opt-30b": 29_974_540_288,
    "opt-66b": 65_719_701_504,
    "opt-175b": 174_604_468_224,
}
SMALL: dict[str, Any] = {
    "hidden_size": 32, "ffn_dim": 44, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 37,
    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "norms after the sums": {"do_layer_norm_before": False},
    "projected tokens": {"word_embed_proj_dim": 20},
    "norms after the sums, projected tokens": {"do_layer_norm_before": False, "word_embed_proj_dim": 20},
    "no final norm": {"_remove_final_layer_norm": True},
    "no final norm, projected tokens": {"_remove_final_layer_norm": True, "word_embed_proj_dim": 40},
    "no biases": {"enable_bias": False},
    "no gains": {"layer_norm_elementwise_affine": False},
    "nothing added": {
        "enable_bias": False, "layer_norm_elementwise_affine": False, "do_layer_norm_before": False,
        "tie_word_embeddings": False,
    },
    "untied": {"tie_word_embeddings": False, "word_embed_proj_dim": 20},
    "another activation": {"activation_function": "gelu"},
}  # fmt: skip


@pytest.mark.parametrize(("id", "parameters"), PARAMETERS.items())
def test_parameters_are_exact(id: str, parameters: int) -> None:
    assert total(describe(PRESETS[id].config)) == parameters


@pytest.mark.parametrize("make_engine", oracle.ENGINES.values(), ids=oracle.ENGINES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_match_transformers(tmp_path: Path, options: dict[str, Any], make_engine: Any) -> None:
    model = oracle.random_model("OPT", SMALL | options)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_values(model, tmp_path / "tiny", make_engine)


@pytest.mark.parametrize("saved", oracle.SAVED.values(), ids=oracle.SAVED)
def test_every_kind_of_file_is_read(tmp_path: Path, saved: tuple[str, dict[str, Any]]) -> None:
    dtype, how = saved
    model = oracle.random_model("OPT", SMALL, dtype)
    oracle.save(model, tmp_path / "tiny", dtype, **how)
    oracle.check_values(model, tmp_path / "tiny")


def test_generation_matches_transformers(tmp_path: Path) -> None:
    model = oracle.random_model("OPT", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_generation(model, tmp_path / "tiny")


def test_names_need_no_prefix(tmp_path: Path) -> None:
    model = oracle.random_model("OPT", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.without_prefix(tmp_path / "tiny", "model.")
    oracle.check_values(model, tmp_path / "tiny")


def test_positions_begin_at_the_third_row(tmp_path: Path) -> None:
    model = oracle.random_model("OPT", SMALL)
    oracle.save(model, tmp_path / "tiny")
    table = model.model.decoder.embed_positions.weight.detach().numpy()
    found = oracle.run(tmp_path / "tiny", oracle.TOKENS)
    np.testing.assert_array_equal(found["pos_embed"][0], table[2:11])


def test_with_norms_after_the_sums_a_layer_reads_the_norm_before_it(tmp_path: Path) -> None:
    model = oracle.random_model("OPT", SMALL | {"do_layer_norm_before": False})
    oracle.save(model, tmp_path / "tiny")
    found = oracle.run(tmp_path / "tiny", oracle.TOKENS)
    np.testing.assert_array_equal(found["blocks.1.resid_pre"], found["blocks.0.ln2.out"])
    architecture = describe(checkpoints.read_config("tiny", str(tmp_path)))
    assert architecture.same_values("blocks.0.ln2.out") == ("blocks.0.ln2.out", "blocks.1.resid_pre")


@pytest.mark.parametrize(
    ("field", "sizes"),
    [
        ("num_attention_heads", {"num_attention_heads": 5}),
        ("word_embed_proj_dim", {"word_embed_proj_dim": 0}),
        ("do_layer_norm_before", {"do_layer_norm_before": 1}),
        ("activation_function", {"activation_function": "tanh"}),
        ("n_layer", {"n_layer": 3}),
    ],
)
def test_an_invalid_field_is_reported_by_name(field: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_mapping({"model_type": "opt", **sizes})
    assert list(error.value.errors) == [field]


def test_a_configuration_round_trips_through_its_mapping_and_its_text() -> None:
    config = OPTConfig(
        num_hidden_layers=3, do_layer_norm_before=False, word_embed_proj_dim=5, _remove_final_layer_norm=True
    )
    assert config_from_mapping(config.to_mapping()) == config_from_text(config.to_text()) == config


PUBLISHED: dict[str, Any] = {  # of OPT 350M
    "_remove_final_layer_norm": False, "activation_dropout": 0.0, "activation_function": "relu",
    "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 2, "do_layer_norm_before": False,
    "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 4096, "hidden_size": 1024, "init_std": 0.02, "layerdrop": 0.0,
    "max_position_embeddings": 2048, "model_type": "opt", "num_attention_heads": 16, "num_hidden_layers": 24,
    "pad_token_id": 1, "prefix": "</s>", "torch_dtype": "float16", "vocab_size": 50272, "word_embed_proj_dim": 512,
}  # fmt: skip


def test_the_published_config_json_is_the_preset(tmp_path: Path) -> None:
    oracle.write_config(tmp_path / "tiny", PUBLISHED)
    assert checkpoints.read_config("tiny", str(tmp_path)) == PRESETS["opt-350m"].config
