"""The logit lens (nostalgebraist 2020): what each layer would predict if it were the last.

The final norm, the unembedding and the softmax are applied to the residual stream that enters each layer, and, as
the model itself does, to that which leaves the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.gpt.arena import Arena
from worker.gpt.config import Config
from worker.gpt.engine import Engine
from worker.gpt.forward import forward, predict

MOST = 20  # tokens that are kept of a prediction


class Seen(NamedTuple):
    """The most probable tokens of each layer and position: K of them, from the most probable on."""

    tokens: NDArray[np.int32]  # [L + 1, T, K]
    probabilities: NDArray[np.float32]  # [L + 1, T, K]


def look_through(
    config: Config, engine: Engine, head: Engine, arena: Arena, after_layer: Callable[[int], None]
) -> Seen:
    """Pass over the arena's tokens (batch 1), predicting from each layer; `after_layer` is told how many are done.

    `head` holds the same weights as `engine` and does the predicting, in the arena's places for the prediction.
    """
    length, kept = arena["tokens"].shape[1], min(MOST, config.vocab_size)
    shape = config.n_layer + 1, length, kept
    seen = Seen(np.empty(shape, np.int32), np.empty(shape, np.float32))
    done = 0

    def see() -> None:
        for position, (logits, probs) in enumerate(zip(arena["logits"][0], arena["probs"][0], strict=True)):
            best = most(logits, kept)
            seen.tokens[done, position], seen.probabilities[done, position] = best, probs[best]

    def through_layer() -> None:
        nonlocal done
        predict(config, head, arena[f"blocks.{done}.resid_pre"], arena)
        see()
        done += 1
        after_layer(done)

    forward(config, engine, arena, slice(0, length), through_layer)
    see()
    return seen


def most(logits: NDArray[Any], count: int) -> NDArray[np.intp]:
    """The places of the `count` largest of logits [V], the largest first, the first of equals first."""
    least = np.partition(logits, -count)[-count]
    best = np.flatnonzero(logits >= least)
    return best[np.argsort(-logits[best], kind="stable")][:count]
