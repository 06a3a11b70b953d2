"""Llama: parameters as published, what is refused, and what transformers computes from the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worker.models.lookup as models
from worker.describe.config import ConfigError
from worker.describe.counts import total
from worker.engine.compiled import engine
from worker.engine.numpy_engine import Engine
from worker.families.llama import LlamaConfig
from worker.families.registry import config_from_mapping, config_from_text, describe, family_of
from worker.trace.arena import Arena, plan

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 37,
}
TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [35, 8, 9, 7, 9, 3, 2, 3, 8]]


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [
        ({}, 6_738_415_616),  # Llama 2 7B
        (
            {"num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8,
             "intermediate_size": 28672},
            68_976_648_192,
        ),  # 70B
        (
            {"num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
             "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True},
            134_515_008,
        ),  # SmolLM2 135M
    ],
)  # fmt: skip
def test_parameters_are_exact(sizes: dict[str, Any], parameters: int) -> None:
    assert total(describe(LlamaConfig(**sizes))) == parameters


@pytest.mark.parametrize(
    ("field", "sizes"),
    [
        ("num_key_value_heads", {"num_attention_heads": 4, "num_key_value_heads": 3}),
        ("num_attention_heads", {"num_attention_heads": 3, "hidden_size": 32}),
        ("head_dim", {"head_dim": 7}),
        ("n_layer", {"n_layer": 3}),
        ("hidden_act", {"hidden_act": "tanh"}),
    ],
)
def test_what_is_not_allowed_is_refused_by_its_field(field: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        config_from_mapping({"model_type": "llama", **sizes})
    assert list(refused.value.errors) == [field]


def test_a_configuration_survives_its_mapping_and_its_line() -> None:
    config = LlamaConfig(**SMALL, attention_bias=True, rope_theta=5e5)
    assert config_from_mapping(config.to_mapping()) == config_from_text(config.to_text()) == config


@pytest.mark.parametrize("made_of", [Engine, engine])
@pytest.mark.parametrize("shared", [1, 2, 4])
@pytest.mark.parametrize("options", [(), ("attention_bias", "tie_word_embeddings"), ("mlp_bias",)], ids=" ".join)
def test_transformers_computes_the_same(tmp_path: Path, options: tuple[str, ...], shared: int, made_of: Any) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        **SMALL, num_key_value_heads=shared, head_dim=12, rope_theta=500.0, max_position_embeddings=64,
        initializer_range=0.2, attn_implementation="eager", **dict.fromkeys(options, True),
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path / "tiny")
    with torch.no_grad():
        wanted = theirs(torch.tensor(TOKENS), output_hidden_states=True, output_attentions=True)

    model = models.find("tiny", str(tmp_path))
    assert model.source == "checkpoint"
    found = Arena(plan(model.config, 9, 2))
    found["tokens"][...] = TOKENS
    family_of(model.config).forward(model.config, made_of(model.weights()), found, slice(0, 9), lambda: None)
    np.testing.assert_allclose(found["logits"], wanted.logits.numpy(), atol=1e-4)
    for layer in range(3):
        states, pattern = found[f"blocks.{layer}.resid_pre"], found[f"blocks.{layer}.attn.pattern"]
        np.testing.assert_allclose(states, wanted.hidden_states[layer].numpy(), atol=1e-4)
        np.testing.assert_allclose(pattern, wanted.attentions[layer].numpy(), atol=1e-4)
