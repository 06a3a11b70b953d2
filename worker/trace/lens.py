"""The logit lens (nostalgebraist 2020): what each layer would predict if it were the last.

The final norm, the unembedding and the softmax are applied to the residual stream that enters each layer, and, as
the model itself does, to that which leaves the last. Beside it stands what attention has mixed into each position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.describe.config import Config
from worker.engine.numpy_engine import Engine
from worker.families.registry import describe, family_of
from worker.trace.arena import Arena

LENS_TOP = 20  # tokens that are kept of a prediction


class LensResult(NamedTuple):
    """The most probable tokens of each layer and position: K of them, from the most probable on."""

    tokens: NDArray[np.int32]  # [L + 1, T, K]
    probabilities: NDArray[np.float32]  # [L + 1, T, K]
    rollout: NDArray[np.float32]  # [T, T]: how much of each position, after all layers, is of each token


def run_lens(
    config: Config, engine: Engine, head: Engine, arena: Arena, after_layer: Callable[[int], None]
) -> LensResult:
    """Pass over the arena's tokens (batch 1), predicting from each layer; `after_layer` is told how many are done.

    `head` holds the same weights as `engine` and does the predicting, in the arena's places for the prediction.
    """
    family, architecture = family_of(config), describe(config)
    entering, pattern = architecture.landmark("entering"), architecture.landmark("pattern")
    length, kept = arena["tokens"].shape[1], min(LENS_TOP, architecture.fixed_sizes["V"])
    shape = architecture.n_layer + 1, length, kept
    seen = LensResult(np.empty(shape, np.int32), np.empty(shape, np.float32), np.eye(length, dtype=np.float32))
    done = 0

    def see() -> None:
        for position, (logits, probs) in enumerate(zip(arena["logits"][0], arena["probs"][0], strict=True)):
            best = top_tokens(logits, kept)
            seen.tokens[done, position], seen.probabilities[done, position] = best, probs[best]

    def through_layer() -> None:
        nonlocal done
        family.predict(config, head, arena[entering.name_in(done)], arena)
        see()
        update_rollout(arena[pattern.name_in(done)][0], seen.rollout)
        done += 1
        after_layer(done)

    family.forward(config, engine, arena, slice(0, length), through_layer)
    see()
    return seen


def update_rollout(pattern: NDArray[Any], rollout: NDArray[np.float32]) -> None:
    """Follow attention [H, T, T] through one more layer, in place: half of a position is what its heads take from
    others, on average, and half what it was (attention rollout, Abnar and Zuidema 2020, arXiv:2005.00928).
    """
    rollout += pattern.mean(0) @ rollout
    rollout *= 0.5


def top_tokens(logits: NDArray[Any], count: int) -> NDArray[np.intp]:
    """The places of the `count` largest of logits [V], the largest first, the first of equals first, and what is not a
    number, where a model has overflowed, last.
    """
    lowered = -logits
    best = np.flatnonzero(~(lowered > np.partition(lowered, count - 1)[count - 1]))
    return best[np.argsort(lowered[best], kind="stable")][:count]
