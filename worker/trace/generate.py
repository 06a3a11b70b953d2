"""Generate tokens: the prompt in one pass, then one position per pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from worker.describe.config import Config
from worker.engine.numpy_engine import Engine
from worker.families.registry import family_of
from worker.trace.arena import Arena
from worker.trace.sampling import Sampling, choose


def generate(
    config: Config,
    engine: Engine,
    arena: Arena,
    prompt: Sequence[int],
    sampling: Sampling,
    after_layer: Callable[[], None] = lambda: None,
) -> list[int]:
    """Fill the arena (batch 1) for `prompt` and the generated tokens; return the new tokens.

    The arena must be planned for `positions(len(prompt), sampling)`. Each pass fills only new rows.
    Raises NonFiniteLogitsError.
    """
    tokens, family = arena["tokens"], family_of(config)
    tokens[0, : len(prompt)] = prompt
    random = np.random.Generator(np.random.Philox(sampling.seed))
    new: list[int] = []
    start, stop = 0, len(prompt)
    while True:
        family.forward(config, engine, arena, slice(start, stop), after_layer)
        if len(new) < sampling.max_new_tokens:
            new.append(choose(arena["logits"][0, stop - 1], sampling, random))
        if len(new) == sampling.max_new_tokens:
            return new
        tokens[0, stop] = new[-1]
        start, stop = stop, stop + 1
