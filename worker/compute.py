"""The results themselves: a request in, its bytes and manifest out. Knows no Redis and no queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import worker.gpt.counts as counts
import worker.gpt.models as models
from worker.gpt.arena import Arena, plan
from worker.gpt.config import Config
from worker.gpt.generate import generate
from worker.gpt.sampling import Sampling, positions
from worker.gpt.tokens import Vocabulary
from worker.gpt.weights import HeldWeights
from worker.layout.place import place
from worker.settings import Settings
from worker.store.keys import Kind

Result = tuple[memoryview, dict[str, Any]]
Progress = Callable[[int, int], None]  # layers done, layers in all

_TOP = 5  # tokens of a distribution that are told


def trace(request: dict[str, Any], settings: Settings, progress: Progress) -> Result:
    """Run a model over a request's tokens: the arena's bytes, and what the manifest says of them."""
    model, sampling, prompt = models.from_canonical(request), Sampling(**(request["generate"] or {})), request["tokens"]
    arena = Arena(plan(model.config, positions(len(prompt), sampling), capture=tuple(request["capture"])))
    fits = 4 * counts.total(model.config) <= settings.held_weights_bytes
    weights = HeldWeights(model.weights()) if fits else model.weights()
    total, done = model.config.n_layer * max(sampling.max_new_tokens, 1), 0

    def after_layer() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    new = generate(model.config, weights, arena, prompt, sampling, after_layer)
    kept = arena.cast(request["dtype"])
    vocabulary = model.vocabulary
    return kept.kept, {
        "tensors": describe(kept),
        "output": None if vocabulary.kind == "ids" else _text(vocabulary, *new),
        "generated": _generated(arena, vocabulary, len(prompt), new),
    }


def layout(request: dict[str, Any], settings: Settings, progress: Progress) -> Result:
    """Place a model's blocks: the geometry's bytes, and where each of its arrays lies in them."""
    geometry = place(Config(**request["config"]), request["tokens"], request["batch"], request["style"])
    content, arrays = bytearray(), {}
    for name, array in geometry.to_arrays().items():
        content += bytes(-len(content) % array.itemsize)  # an array begins where its elements may
        arrays[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "offset": len(content)}
        content += array.tobytes()
    return memoryview(content), {"arrays": arrays}


COMPUTE: dict[Kind, Callable[[dict[str, Any], Settings, Progress], Result]] = {"trace": trace, "layout": layout}


def layout_request(trace_request: dict[str, Any]) -> dict[str, Any]:
    """The layout that a trace's values fill."""
    length = positions(len(trace_request["tokens"]), Sampling(**(trace_request["generate"] or {})))
    return {"config": trace_request["config"], "tokens": length, "batch": 1, "style": "columns"}


def describe(arena: Arena) -> dict[str, dict[str, Any]]:
    """Shape, place and statistics of every captured tensor; masked cells (−inf) are left out of the statistics."""
    described = {}
    for name in arena.plan.captured:
        slot, values = arena.plan.slots[name], arena[name]
        seen = values[np.isfinite(values)] if name.endswith("attn.scores") else values
        low, high = float(np.minimum.reduce(seen, axis=None)), float(np.maximum.reduce(seen, axis=None))
        described[name] = {
            "shape": slot.shape, "dtype": slot.dtype, "offset": slot.offset, "bytes": slot.nbytes,
            "min": low, "max": high, "absmax": max(-low, high),
            "mean": float(np.add.reduce(seen, axis=None, dtype=np.float64)) / seen.size,
        }  # fmt: skip
    return described


def _generated(arena: Arena, vocabulary: Vocabulary, prompt: int, new: list[int]) -> list[dict[str, Any]]:
    """Each drawn token with the model's probability of it, and the most probable ones at its position."""

    def told(token: int, probs: NDArray[Any]) -> dict[str, Any]:
        return {"token": token, "text": _text(vocabulary, token), "probability": float(probs[token])}

    steps = []
    for position, token in enumerate(new, start=prompt - 1):
        probs = arena["probs"][0, position]
        top = np.argsort(-probs, kind="stable")[:_TOP]
        steps.append({"position": position, **told(token, probs), "top": [told(int(t), probs) for t in top]})
    return steps


def _text(vocabulary: Vocabulary, *tokens: int) -> str:
    return b"".join(vocabulary.piece(token) for token in tokens).decode(errors="replace")
