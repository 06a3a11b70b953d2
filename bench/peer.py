"""The peer: Hugging Face transformers in PyTorch.

They are too large for the lock files.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import worker.families.registry as registry
from worker.describe.config import Config
from worker.models.sources import catalogue
from worker.weights.base import Weights

INSTALL = "make peer"


def available() -> bool:
    """Return whether the peer is installed."""
    return all(find_spec(name) for name in ("torch", "transformers"))


class Peer:
    """A model in float32 on all cores that returns all it can: hidden states, attention and logits."""

    def __init__(self, config: Config, values: Weights | None = None) -> None:
        """Create the model with a copy of the weights `values`, or with random weights."""
        torch: Any = import_module("torch")
        transformers: Any = import_module("transformers")
        torch.set_num_threads(os.cpu_count() or 1)
        transformers.logging.set_verbosity_error()
        self._torch = torch
        fields = dataclasses.asdict(config) | dict.fromkeys(("eos_token_id", "bos_token_id"))
        hub_config = transformers.AutoConfig.for_model(config.model_type, **fields)
        self._model = transformers.AutoModelForCausalLM.from_config(hub_config, attn_implementation="eager")
        if values is not None:
            names = self._model.state_dict().keys()
            prefix = registry.family_of(config).prefix
            state = {
                name if name in names else prefix + name: torch.from_numpy(np.ascontiguousarray(values[name]))
                for name in catalogue(config)
            }
            self._model.load_state_dict(state)
        self._model.eval()

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Run one pass over all tokens; return the logits, [T, V]."""
        with self._torch.no_grad():
            out = self._model(
                self._torch.tensor([tokens]), use_cache=False, output_hidden_states=True, output_attentions=True
            )
        logits: NDArray[np.float32] = out.logits[0].numpy()
        return logits

    def generate(self, prompt: Sequence[int], new: int) -> list[int]:
        """Return new tokens, drawn greedily with a key-value cache; nothing is captured."""
        ids = self._torch.tensor([prompt])
        with self._torch.no_grad():
            out = self._model.generate(
                ids, attention_mask=self._torch.ones_like(ids), max_new_tokens=new, do_sample=False, use_cache=True
            )
        tokens: list[int] = out[0, len(prompt) :].tolist()
        return tokens
