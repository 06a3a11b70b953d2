"""Comparison of a family with Hugging Face's implementation, on checkpoints with random weights.

Tests that use it are skipped without torch and transformers: `make peer` installs them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worker.models.lookup as models
from worker.engine.compiled import engine
from worker.engine.numpy_engine import Engine
from worker.families.registry import family_of
from worker.trace.arena import Arena, plan
from worker.trace.generate import generate
from worker.trace.sampling import Sampling, positions
from worker.weights.base import Weights

TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [35, 8, 9, 7, 9, 3, 2, 3, 8]]
ENGINES: dict[str, Callable[[Weights], Engine]] = {
    "NumPy": Engine,
    "the fastest": engine,
    "the fastest, cached": lambda weights: engine(weights, cache_weights=True),
}
#: How checkpoints are saved: the dtype and the arguments of save_pretrained.
SAVED: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "float16": ("float16", {}),
    "bfloat16, in shards": ("bfloat16", {"max_shard_size": "8KB"}),
}


def random_model(name: str, config: dict[str, Any], dtype: str = "float32", *, configured: str = "") -> Any:
    """Return a model of transformers, `{name}ForCausalLM` of `{name}Config` (or `configured`), with random weights that
    `dtype` holds.
    """
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(1)
    described = getattr(transformers, configured or f"{name}Config")(**config, attn_implementation="eager")
    model = getattr(transformers, f"{name}ForCausalLM")(described).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and key.endswith("weight")
            parameter.normal_(float(gain), 0.3 if parameter.ndim == 1 else parameter.shape[1] ** -0.5)
            parameter.copy_(parameter.to(getattr(torch, dtype)))
    return model


def save(model: Any, folder: Path, dtype: str = "float32", **how: Any) -> None:
    """Save a model in a dtype; it stays in float32, with its tables of angles."""
    torch: Any = pytest.importorskip("torch")
    deepcopy(model).to(getattr(torch, dtype)).save_pretrained(folder, **how)


def check_values(model: Any, folder: Path, make_engine: Callable[[Weights], Engine] = engine) -> Arena:
    """Compare logits, hidden states and attention with those of transformers; return ours."""
    torch: Any = pytest.importorskip("torch")
    with torch.no_grad():
        wanted = model(torch.tensor(TOKENS), output_hidden_states=True, output_attentions=True)
    found = run(folder, TOKENS, make_engine)
    layers = model.config.num_hidden_layers
    assert len(wanted.attentions) == layers
    np.testing.assert_allclose(found["logits"], wanted.logits.numpy(), rtol=0, atol=1e-4)
    for layer in range(layers):
        states, pattern = found[f"blocks.{layer}.resid_pre"], found[f"blocks.{layer}.attn.pattern"]
        np.testing.assert_allclose(states, wanted.hidden_states[layer].numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(pattern, wanted.attentions[layer].numpy(), rtol=0, atol=1e-4)
    assert np.abs(found["logits"]).max() > 0.5
    return found


def run(folder: Path, tokens: Sequence[Sequence[int]], make_engine: Callable[[Weights], Engine] = engine) -> Arena:
    """Return the values of the checkpoint in a folder over some tokens."""
    model = models.find(folder.name, str(folder.parent))
    assert model.source == "checkpoint"
    found = Arena(plan(model.config, len(tokens[0]), len(tokens)))
    found["tokens"][...] = tokens
    rows = slice(0, len(tokens[0]))
    family_of(model.config).forward(model.config, make_engine(model.weights()), found, rows, lambda: None)
    return found


def check_generation(model: Any, folder: Path, count: int = 12) -> None:
    """Compare greedy generation with that of transformers."""
    torch: Any = pytest.importorskip("torch")
    prompt = TOKENS[0]
    ends = {"eos_token_id": None, "pad_token_id": 0, "bos_token_id": None}
    with torch.no_grad():
        wanted = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, **ends)[0].tolist()
    ours, sampling = models.find(folder.name, str(folder.parent)), Sampling(max_new_tokens=count)
    arena = Arena(plan(ours.config, positions(len(prompt), sampling)))
    assert [*prompt, *generate(ours.config, engine(ours.weights()), arena, prompt, sampling)] == wanted


def without_prefix(folder: Path, prefix: str) -> None:
    """Rename a checkpoint's tensors, as a model that was saved without its head has them."""
    numpy: Any = pytest.importorskip("safetensors.numpy")
    file = folder / "model.safetensors"
    tensors = numpy.load_file(file)
    assert any(name.startswith(prefix) for name in tensors)
    numpy.save_file({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, file)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write a folder with only a `config.json`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
