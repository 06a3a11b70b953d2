"""Drawing tokens from logits: what a request may say of it, and the draw itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 takes the most probable; `top_k` and `top_p` narrow the choice."""

    max_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0


def positions(prompt: int, sampling: Sampling) -> int:
    """How many positions are fed: the prompt and all new tokens but the last."""
    return prompt + max(sampling.max_new_tokens - 1, 0)


def passes(sampling: Sampling) -> int:
    """How many times the model is passed through: one for each new token, and one where there is none."""
    return max(sampling.max_new_tokens, 1)


def choose(logits: NDArray[Any], sampling: Sampling, random: np.random.Generator) -> int:
    """Draw a token from logits [V]: temperature, then top-k, then the nucleus (arXiv:1904.09751) of top-p."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    scaled = (logits - logits.max()).astype(np.float64) / sampling.temperature  # 0 at most: nothing overflows to +∞
    order = np.argsort(-scaled, kind="stable")[: sampling.top_k]
    p = np.exp(scaled[order] - scaled[order[0]])
    p /= p.sum()
    if sampling.top_p is not None:
        p = p[: int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1]
    cumulative = np.cumsum(p)
    drawn = np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")  # nosec B311
    return int(order[min(int(drawn), len(p) - 1)])  # the product may round up to the whole sum
