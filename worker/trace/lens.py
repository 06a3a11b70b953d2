"""The logit lens (nostalgebraist 2020), and attention rollout.

The logit lens shows what each layer would predict if it were the last: the final norm, unembedding and softmax are
applied to the residual stream before each layer, and, as in the model itself, after the last.
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

LENS_TOP = 20  # tokens per prediction


class LensResult(NamedTuple):
    """The K most probable tokens of each layer and position, in descending order, and the attention rollout."""

    tokens: NDArray[np.int32]  # [L + 1, T, K]
    probabilities: NDArray[np.float32]  # [L + 1, T, K]
    rollout: NDArray[np.float32]  # [T, T]: the share of each token in each position after all layers


def run_lens(
    config: Config, engine: Engine, head: Engine, arena: Arena, after_layer: Callable[[int], None]
) -> LensResult:
    """Run a pass over the arena's tokens (batch 1) with a prediction after each layer.

    `head` has the same weights as `engine`, and computes the predictions. `after_layer` is called with the number of
    completed layers.
    """
    family, architecture = family_of(config), describe(config)
    entering, pattern = architecture.landmark("entering"), architecture.landmark("pattern")
    length, top = arena["tokens"].shape[1], min(LENS_TOP, architecture.fixed_sizes["V"])
    shape = architecture.n_layer + 1, length, top
    result = LensResult(np.empty(shape, np.int32), np.empty(shape, np.float32), np.eye(length, dtype=np.float32))
    done = 0

    def record() -> None:
        for position, (logits, probs) in enumerate(zip(arena["logits"][0], arena["probs"][0], strict=True)):
            best = top_tokens(logits, top)
            result.tokens[done, position], result.probabilities[done, position] = best, probs[best]

    def through_layer() -> None:
        nonlocal done
        family.predict(config, head, arena[entering.name_in(done)], arena)
        record()
        update_rollout(arena[pattern.name_in(done)][0], result.rollout)
        done += 1
        after_layer(done)

    family.forward(config, engine, arena, slice(0, length), through_layer)
    record()
    return result


def update_rollout(pattern: NDArray[Any], rollout: NDArray[np.float32]) -> None:
    """Multiply the rollout by a layer's attention [H, T, T], in place: the mean of the heads averaged with the identity
    for the residual connection (Abnar and Zuidema 2020, arXiv:2005.00928).
    """
    rollout += pattern.mean(0) @ rollout
    rollout *= 0.5


def top_tokens(logits: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Return the indices of the `count` largest logits [V], in descending order; lower indices first among equals, and
    NaN, if the model overflowed, last.
    """
    lowered = -logits
    best = np.flatnonzero(~(lowered > np.partition(lowered, count - 1)[count - 1]))
    return best[np.argsort(lowered[best], kind="stable")][:count]
