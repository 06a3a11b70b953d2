"""What most families share: how weights are initialised, and a vocabulary without text."""

from __future__ import annotations

from typing import Literal

from worker.describe.config import Config
from worker.weights.synthetic import Initial


def initial(config: Config, name: str) -> Initial:
    """Return the initialisation in transformers: deviation 0.02; biases 0, gains 1."""
    if name.endswith(".bias"):
        return Initial(0.0, 0.0)
    return Initial(1.0, 0.0) if "norm" in name or "ln_" in name else Initial(0.0, 0.02)


def vocabulary(config: Config) -> Literal["ids"]:
    """Return "ids": without a checkpoint's tokenizer, tokens have no text."""
    return "ids"
