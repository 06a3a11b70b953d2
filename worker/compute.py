"""The results themselves: a request in, its bytes and manifest out. Knows no Redis and no queue."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np

import worker.gpt.counts as counts
import worker.gpt.models as models
from worker.gpt.arena import Arena, plan
from worker.gpt.compiled import engine
from worker.gpt.config import Config
from worker.gpt.generate import generate
from worker.gpt.sampling import Sampling, positions
from worker.layout.place import place
from worker.settings import Settings
from worker.store.keys import Kind

Result = tuple[memoryview, dict[str, Any]]
Progress = Callable[[int, int], None]  # layers done, layers in all

_TOP = 5  # tokens of a distribution that are told


def trace(request: dict[str, Any], settings: Settings, progress: Progress) -> Result:
    """Run a model over a request's tokens: the arena's bytes, and what the manifest says of them."""
    model = models.from_canonical(request, settings.models_dir)
    sampling, prompt = Sampling(**(request["generate"] or {})), request["tokens"]
    arena = Arena(plan(model.config, positions(len(prompt), sampling), capture=tuple(request["capture"])))
    fits = 4 * counts.total(model.config) <= settings.held_weights_bytes
    total, done = model.config.n_layer * max(sampling.max_new_tokens, 1), 0

    def after_layer() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    fastest = engine(model.weights(), keep=fits and sampling.max_new_tokens > 1)
    new = generate(model.config, fastest, arena, prompt, sampling, after_layer)
    model.confirm()
    kept = arena.cast(request["dtype"])
    return kept.kept, {"tensors": describe(kept), "generated": _generated(arena, len(prompt), new)}


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
    slots = [(name, arena.plan.slots[name]) for name in arena.plan.captured]
    for dtype, run in groupby(slots, key=lambda item: item[1].dtype):  # neighbours in memory: all in three passes
        names, own = zip(*run, strict=True)
        width, stop = np.dtype(dtype).itemsize, own[-1].offset + own[-1].nbytes
        flat = arena.memory[own[0].offset : stop].view(dtype)
        starts = [(slot.offset - own[0].offset) // width for slot in own]
        lows, highs = np.minimum.reduceat(flat, starts).tolist(), np.maximum.reduceat(flat, starts).tolist()
        sums = np.add.reduceat(flat, starts, dtype=np.float64).tolist()
        for name, slot, low, high, total in zip(names, own, lows, highs, sums, strict=True):
            count = slot.nbytes // width
            if name.endswith("attn.scores"):
                seen = arena[name][np.isfinite(arena[name])]
                low, total, count = seen.min().item(), seen.sum(dtype=np.float64).item(), seen.size
            described[name] = {
                "shape": slot.shape, "dtype": slot.dtype, "offset": slot.offset, "bytes": slot.nbytes,
                "min": low, "max": high, "mean": total / count, "absmax": max(-low, high),
            }  # fmt: skip
    return described


def _generated(arena: Arena, prompt: int, new: list[int]) -> list[dict[str, Any]]:
    """Each drawn token with the model's probability of it, and the most probable ones at its position."""
    steps = []
    for position, token in enumerate(new, start=prompt - 1):
        probs = arena["probs"][0, position]
        top = np.argsort(-probs, kind="stable")[:_TOP].tolist()
        told = [{"token": token, "probability": float(probs[token])} for token in (token, *top)]
        steps.append({"position": position, **told[0], "top": told[1:]})
    return steps
