"""Generation: the prompt in one pass, then one new position a step, each token drawn from the last logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.gpt.arena import Arena
from worker.gpt.config import Config
from worker.gpt.forward import Tensors, forward


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


def choose(logits: NDArray[Any], sampling: Sampling, random: np.random.Generator) -> int:
    """Draw a token from logits [V]: temperature, then top-k, then the nucleus (arXiv:1904.09751) of top-p."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")[: sampling.top_k]
    p = np.exp(scaled[order] - scaled[order[0]])
    p /= p.sum()
    if sampling.top_p is not None:
        p = p[: int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1]
    cumulative = np.cumsum(p)
    drawn = np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")
    return int(order[min(int(drawn), len(p) - 1)])  # the product may round up to the whole sum


def generate(
    config: Config,
    weights: Tensors,
    arena: Arena,
    prompt: Sequence[int],
    sampling: Sampling,
    after_layer: Callable[[], None] = lambda: None,
) -> list[int]:
    """Fill the arena (batch 1) for `prompt` and what it generates; returns the new tokens.

    The arena is planned for `positions(len(prompt), sampling)`; each pass fills only rows not filled before.
    """
    tokens = arena["tokens"]
    tokens[0, : len(prompt)] = prompt
    random = np.random.Generator(np.random.Philox(sampling.seed))
    start, stop, new = 0, len(prompt), []
    while True:
        forward(config, weights, arena, slice(start, stop), after_layer)
        if len(new) < sampling.max_new_tokens:
            new.append(choose(arena["logits"][0, stop - 1], sampling, random))
        if len(new) == sampling.max_new_tokens:
            return new
        tokens[0, stop] = new[-1]
        start, stop = stop, stop + 1
