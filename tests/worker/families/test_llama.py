"""Llama: published parameter counts, validation, and agreement with transformers."""

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
def test_an_invalid_field_is_reported_by_name(field: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_mapping({"model_type": "llama", **sizes})
    assert list(error.value.errors) == [field]


def test_a_configuration_round_trips_through_its_mapping_and_its_text() -> None:
    config = LlamaConfig(**SMALL, attention_bias=True, rope_theta=5e5)
    assert config_from_mapping(config.to_mapping()) == config_from_text(config.to_text()) == config


def record_attention_inputs(model: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Record q, k, v, rot_q and rot_k of each layer as transformers computes them, [B, T, heads, A] each."""
    import transformers.models.llama.modeling_llama as modeling

    found: dict[str, list[Any]] = {name: [] for name in ("q", "k", "v", "rot_q", "rot_k")}
    width, rotate = model.config.head_dim, modeling.apply_rotary_pos_emb

    def record_rotated(*args: Any, **options: Any) -> Any:
        rotated = rotate(*args, **options)  # [B, heads, T, A] each
        for name, values in zip(("rot_q", "rot_k"), rotated, strict=True):
            found[name].append(values.transpose(1, 2))
        return rotated

    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", record_rotated)
    for layer in model.model.layers:
        for name in "qkv":

            def record(module: Any, args: Any, output: Any, name: str = name) -> None:
                found[name].append(output.unflatten(-1, (-1, width)))

            layer.self_attn.get_submodule(f"{name}_proj").register_forward_hook(record)
    return found


@pytest.mark.parametrize("make_engine", [Engine, engine])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("options", [(), ("attention_bias", "tie_word_embeddings"), ("mlp_bias",)], ids=" ".join)
def test_values_match_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], kv_heads: int, make_engine: Any
) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        **SMALL, num_key_value_heads=kv_heads, head_dim=12, rope_theta=500.0, max_position_embeddings=64,
        initializer_range=0.2, attn_implementation="eager", **dict.fromkeys(options, True),
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path / "tiny")
    attention = record_attention_inputs(theirs, monkeypatch)
    with torch.no_grad():
        wanted = theirs(torch.tensor(TOKENS), output_hidden_states=True, output_attentions=True)

    model = models.find("tiny", str(tmp_path))
    assert model.source == "checkpoint"
    found = Arena(plan(model.config, 9, 2))
    found["tokens"][...] = TOKENS
    family_of(model.config).forward(model.config, make_engine(model.weights()), found, slice(0, 9), lambda: None)
    np.testing.assert_allclose(found["logits"], wanted.logits.numpy(), atol=1e-4)
    for layer in range(3):
        states, pattern = found[f"blocks.{layer}.resid_pre"], found[f"blocks.{layer}.attn.pattern"]
        np.testing.assert_allclose(states, wanted.hidden_states[layer].numpy(), atol=1e-4)
        np.testing.assert_allclose(pattern, wanted.attentions[layer].numpy(), atol=1e-4)
        for name in ("q", "k", "v", "rot_q", "rot_k"):
            values = attention[name][layer].numpy()
            np.testing.assert_allclose(found[f"blocks.{layer}.attn.{name}"], values, atol=1e-4, err_msg=name)
