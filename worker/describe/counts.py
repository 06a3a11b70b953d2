"""What a model or a trace amounts to before it is run: parameters by part, bytes, operations."""

from __future__ import annotations

from math import prod

import worker.describe.architecture as architecture
from worker.families.config import Config


def by_part(config: Config) -> dict[str, int]:
    """Exact numbers of parameters; the unembedding is among them even where it is tied to the embedding."""
    sizes = architecture.sizes(config)
    parts: dict[str, int] = {}
    for tensor in architecture.WEIGHTS:
        times = config.n_layer if tensor.scope == "layer" else 1
        for part in tensor.parts:
            parts[part] = parts.get(part, 0) + times * prod(tensor.shape(sizes)) // len(tensor.parts)
    return parts


def total(config: Config) -> int:
    """The number of parameters; a tied unembedding adds none."""
    parts = by_part(config)
    return sum(parts.values()) - (parts["unembedding"] if config.tie_word_embeddings else 0)


def parameters(config: Config) -> dict[str, int | dict[str, int]]:
    """{total, non_embedding, by_part}. `non_embedding` is the N of Kaplan et al. 2020 (arXiv:2001.08361):
    without token and position embeddings and the unembedding.
    """
    parts = by_part(config)
    outside = parts["embedding"] + parts["position"] + parts["unembedding"]
    return {"total": total(config), "non_embedding": sum(parts.values()) - outside, "by_part": parts}


def operations(config: Config, tokens: int, batch: int = 1) -> int:
    """Floating-point operations of the matrix products of a forward pass over `tokens` positions."""
    s = architecture.sizes(config, tokens, batch)
    of_a_token = s["C"] * s["3HA"] + s["HA"] * s["C"] + 2 * s["C"] * s["F"] + 2 * tokens * s["HA"]
    return 2 * batch * tokens * (config.n_layer * of_a_token + s["C"] * s["V"])
