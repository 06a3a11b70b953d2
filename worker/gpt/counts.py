"""What a model or a trace amounts to before it is run: parameters by part, bytes, operations."""

from __future__ import annotations

from math import prod

import worker.gpt.architecture as architecture
from worker.gpt.config import Config


def parameters(config: Config) -> dict[str, int | dict[str, int]]:
    """{total, non_embedding, by_part}: exact numbers of parameters.

    A tied unembedding is listed among the parts and not counted in the total. `non_embedding` is the N of
    Kaplan et al. 2020 (arXiv:2001.08361): without token and position embeddings and the unembedding.
    """
    sizes = architecture.sizes(config)
    by_part: dict[str, int] = {}
    for tensor in architecture.WEIGHTS:
        times = config.n_layer if tensor.scope == "layer" else 1
        for part in tensor.parts:
            by_part[part] = by_part.get(part, 0) + times * prod(tensor.shape(sizes)) // len(tensor.parts)
    outside = by_part["embedding"] + by_part["position"] + by_part["unembedding"]
    counted = sum(by_part.values())
    total = counted - by_part["unembedding"] if config.tie_word_embeddings else counted
    return {"total": total, "non_embedding": counted - outside, "by_part": by_part}


def operations(config: Config, tokens: int, batch: int = 1) -> int:
    """Floating-point operations of the matrix products of a forward pass over `tokens` positions."""
    s = architecture.sizes(config, tokens, batch)
    of_a_token = s["C"] * s["3HA"] + s["HA"] * s["C"] + 2 * s["C"] * s["F"] + 2 * tokens * s["HA"]
    return 2 * batch * tokens * (config.n_layer * of_a_token + s["C"] * s["V"])
