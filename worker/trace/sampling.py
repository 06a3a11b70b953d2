"""Sample tokens from logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NonFiniteLogitsError(ValueError):
    """Logits from which no token can be sampled."""

    def __init__(self) -> None:
        super().__init__(
            "The logits contain NaN or infinity, so no token can be generated: "
            "the model's weights may contain NaN, infinity or very large values."
        )


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. Temperature 0 is greedy; `top_k` and `top_p` limit the candidates."""

    max_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0


def positions(prompt: int, sampling: Sampling) -> int:
    """Return the number of positions that are computed: the prompt and all new tokens but the last."""
    return prompt + max(sampling.max_new_tokens - 1, 0)


def passes(sampling: Sampling) -> int:
    """Return the number of forward passes: one per new token, but at least one."""
    return max(sampling.max_new_tokens, 1)


def choose(logits: NDArray[Any], sampling: Sampling, random: np.random.Generator) -> int:
    """Sample a token from logits [V]. Raises NonFiniteLogitsError."""
    tokens, weights = _candidates(logits, sampling)
    if sampling.temperature == 0:
        return int(tokens[0])
    cumulative = np.cumsum(weights)
    drawn = np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")  # nosec B311
    return int(tokens[min(int(drawn), len(tokens) - 1)])  # random() * total may round up to the total


def probability(logits: NDArray[Any], sampling: Sampling, token: int) -> float:
    """Return the probability with which `choose` samples a token; 1 at temperature 0 for the most probable one."""
    tokens, weights = _candidates(logits, sampling)
    return float(weights[tokens == token].sum() / weights.sum())


def _candidates(logits: NDArray[Any], sampling: Sampling) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the tokens that may be sampled, the most probable first, and the weight of each.

    Temperature, then top-k, then top-p (nucleus sampling, arXiv:1904.09751). Raises NonFiniteLogitsError.
    """
    largest = logits.max()  # NaN if any is NaN
    if not np.isfinite(largest):
        raise NonFiniteLogitsError
    if sampling.temperature == 0:
        return np.array([np.argmax(logits)]), np.ones(1)
    scaled = (logits - largest).astype(np.float64) / sampling.temperature  # at most 0, so exp cannot overflow
    order = np.argsort(-scaled, kind="stable")[: sampling.top_k]
    p = np.exp(scaled[order] - scaled[order[0]])
    p /= p.sum()
    if sampling.top_p is not None:
        p = p[: int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1]
    return order[: len(p)], p
