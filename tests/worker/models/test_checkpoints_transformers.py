"""Checkpoints saved by Hugging Face's GPT-2, compared with its own values.

It takes `make peer`, which is too large for a lock: without it these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import worker.models.lookup as models
from worker.engine.compiled import engine
from worker.engine.numpy_engine import Engine
from worker.families.registry import family_of
from worker.trace.arena import Arena, plan
from worker.weights.base import CachedWeights, Weights

_WHY = "torch and transformers are not installed: make peer"
torch: Any = pytest.importorskip("torch", reason=_WHY)
transformers: Any = pytest.importorskip("transformers", reason=_WHY)

Arrays = dict[str, NDArray[np.float32]]
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 52, 0, 5, 3, 5]
SIZES = {"n_layer": 3, "n_head": 4, "n_embd": 48, "n_positions": 20, "vocab_size": 53}
UNTIED = {"tie_word_embeddings": False}
SHARDS = {"max_shard_size": "20KB"}

#: Configuration besides sizes, dtype of the file, and how it is saved.
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "tied": ({}, "float32", {}),
    "untied": (UNTIED, "float32", {}),
    "float16": ({}, "float16", {}),
    "float16, untied": (UNTIED, "float16", {}),
    "bfloat16": ({}, "bfloat16", {}),
    "bfloat16, untied": (UNTIED, "bfloat16", {}),
    "in shards": ({}, "float32", SHARDS),
    "bfloat16, untied, in shards": (UNTIED, "bfloat16", SHARDS),
    "an n_inner of its own": ({"n_inner": 70}, "float32", {}),
    "an odd epsilon": ({"layer_norm_epsilon": 0.037}, "float32", {}),
    "one head": ({"n_head": 1}, "float32", {}),
    **{
        name: ({"activation_function": name}, "float32", {})
        for name in (
            "gelu_new",
            "gelu",
            "relu",
            "silu",
            "swish",
            "gelu_pytorch_tanh",
            "gelu_python_tanh",
            "gelu_fast",
            "gelu_accurate",
            "gelu_python",
        )
    },
}


def made(folder: Path, said: dict[str, Any], dtype: str, how: dict[str, Any]) -> Any:
    """Save a GPT-2 with random values; return it with the saved values in float32."""
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(SIZES | said))).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.ndim == 1 else 1 / parameter.shape[0] ** 0.5
            parameter.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, spread)
    model.to(getattr(torch, dtype)).save_pretrained(folder, **how)
    return model.float()


def theirs(model: Any) -> Arrays:
    """The values that Hugging Face computes, by our names."""
    found: Arrays = {}
    heads, width = model.config.n_head, model.config.n_embd // model.config.n_head

    def keep(layer: int) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            for name, part in zip("qkv", output.split(heads * width, dim=-1), strict=True):
                found[f"blocks.{layer}.attn.{name}"] = part.reshape(1, -1, heads, width).numpy()

        return hook

    for layer, block in enumerate(model.transformer.h):
        block.attn.c_attn.register_forward_hook(keep(layer))
    with torch.no_grad():
        output = model(torch.tensor([TOKENS]), output_hidden_states=True, output_attentions=True)
    *residuals, last = output.hidden_states
    found |= {f"blocks.{layer}.resid_pre": values.numpy() for layer, values in enumerate(residuals)}
    found |= {f"blocks.{layer}.attn.pattern": values.numpy() for layer, values in enumerate(output.attentions)}
    return found | {"ln_final.out": last.numpy(), "logits": output.logits.numpy()}


#: Every engine.
ENGINES: dict[str, Callable[[Weights], Engine]] = {
    "NumPy": Engine,
    "NumPy, held": lambda weights: Engine(CachedWeights(weights)),
    "the fastest": engine,
    "the fastest, kept": partial(engine, cache_weights=True),
}


def ours(folder: Path, made_of: Callable[[Weights], Engine] = engine) -> Arena:
    """The values that we compute from the same folder."""
    model = models.find(folder.name, str(folder.parent))
    assert model.source == "checkpoint"
    arena = Arena(plan(model.config, len(TOKENS)))
    arena["tokens"][...] = TOKENS
    family_of(model.config).forward(model.config, made_of(model.weights()), arena, slice(0, len(TOKENS)), lambda: None)
    return arena


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Arrays]]:
    """A case's folder and Hugging Face's values, computed once for all engines."""

    @cache
    def save(case: str) -> tuple[Path, Arrays]:
        folder = tmp_path_factory.mktemp("models") / "tiny"
        return folder, theirs(made(folder, *CASES[case]))

    return save


@pytest.mark.parametrize("made_of", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_every_value_matches_hugging_face(
    saved: Callable[[str], tuple[Path, Arrays]], case: str, made_of: Callable[[Weights], Engine]
) -> None:
    folder, wanted = saved(case)
    assert len([*folder.glob("*.safetensors")]) > 1 or CASES[case][2] is not SHARDS
    found = ours(folder, made_of)
    assert len(wanted) == 5 * SIZES["n_layer"] + 2
    for name, values in wanted.items():
        assert np.abs(values).max() > 0.01, name
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4, err_msg=name)


def test_a_model_saved_without_its_head_has_the_same_values(tmp_path: Path) -> None:
    """GPT2Model's names have no prefix."""
    model = made(tmp_path / "tiny", {}, "float32", {})
    wanted = theirs(model)
    model.transformer.save_pretrained(tmp_path / "bare")
    found = ours(tmp_path / "bare")
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "said",
    [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}, {"reorder_and_upcast_attn": True}],
    ids=str,
)
def test_unsupported_settings_are_rejected(tmp_path: Path, said: dict[str, Any]) -> None:
    made(tmp_path / "tiny", said, "float32", {})
    with pytest.raises(ValueError, match=f"{next(iter(said))}: .*, and only .* is supported"):
        models.find("tiny", str(tmp_path))
