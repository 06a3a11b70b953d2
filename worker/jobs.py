"""What a job does: take a request by its id, compute it, put the result in the cache. One function a kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis import Redis

import worker.gpt.counts as counts
import worker.gpt.models as models
import worker.gpt.tokens as tokens
import worker.store.events as events
import worker.store.pieces as pieces
import worker.store.requests as requests
from worker.gpt.arena import Arena, plan
from worker.gpt.config import Config
from worker.gpt.generate import Sampling, generate, positions
from worker.gpt.weights import HeldWeights
from worker.layout.place import place
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import request_id

_PROGRESS_EVERY = 0.1  # seconds between two progress events
_TOP = 5  # tokens of a distribution that are told


def now() -> str:
    """The time as RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run(id: str) -> None:
    """Compute the request `id` (the one entry point that jobs name). What is done or cancelled is left alone."""
    settings = Settings.from_environment()
    queue, cache = connect(settings.queue_url), connect(settings.cache_url)
    record = requests.get(queue, id)
    if record is None or record.cancelled or _is_done(cache, id):
        return
    started_at = now()
    events.publish(queue, id, "started")
    compute = {"trace": trace, "layout": layout}[record.kind]
    content, manifest = compute(queue, cache, id, record.request, settings)
    times = {"created_at": record.created_at, "started_at": started_at, "finished_at": now()}
    pieces.write(cache, id, content, manifest | {"kind": record.kind, "request": record.request} | times)
    events.publish(queue, id, "done")


def trace(
    queue: Redis, cache: Redis, id: str, request: dict[str, Any], settings: Settings
) -> tuple[memoryview, dict[str, Any]]:
    """Run a model over a request's tokens; the arena's bytes, and what the manifest says of them."""
    model = models.from_canonical(request)
    sampling = Sampling(**(request["generate"] or {}))
    length = positions(len(request["tokens"]), sampling)
    arena = Arena(plan(model.config, length, capture=request["capture"]))
    total, held = counts.parameters(model.config)["total"], model.weights()
    assert isinstance(total, int)
    weights = HeldWeights(held) if 4 * total <= settings.held_weights_bytes else held
    passes = max(sampling.max_new_tokens, 1)
    progress = _Progress(queue, id, model.config.n_layer * passes)
    new = generate(model.config, weights, arena, request["tokens"], sampling, progress)
    kept = arena.cast(request["dtype"])
    told = _generated(arena, model.vocabulary, len(request["tokens"]), new)
    output = b"".join(model.vocabulary.piece(token) for token in new).decode(errors="replace")
    return kept.kept, {
        "positions": length,
        "tensors": describe(kept),
        "output": output if model.vocabulary.kind != "ids" else None,
        "generated": told,
        "layout": _picture(queue, cache, model, length, settings),
    }


def layout(
    queue: Redis, cache: Redis, id: str, request: dict[str, Any], settings: Settings
) -> tuple[memoryview, dict[str, Any]]:
    """Place a model's blocks; the compact geometry's bytes, and where each of its arrays lies in them."""
    geometry = place(Config(**request["config"]), request["tokens"], request["batch"], request["style"])
    content, arrays = bytearray(), {}
    for name, array in geometry.to_arrays().items():
        arrays[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "offset": len(content)}
        content += array.tobytes()
    low, high = geometry.bounds
    return memoryview(content), {
        "arrays": arrays,
        "count": geometry.count,
        "margin": geometry.margin,
        "bounds": {"min": list(low), "max": list(high)},
    }


def _picture(queue: Redis, cache: Redis, model: models.Model, length: int, settings: Settings) -> str:
    """Where the layout of a trace is; it is made here, as placing blocks takes less than asking another job."""
    asked = {"config": model.config.to_mapping(), "tokens": length, "batch": 1, "style": "columns"}
    id = request_id("layout", asked)
    if not _is_done(cache, id):
        requests.put(queue, id, "layout", asked, now(), settings.layout_timeout, settings.result_ttl)
        run(id)
    return f"/v1/layouts/{id}"


def describe(arena: Arena) -> dict[str, dict[str, Any]]:
    """Shape, place and statistics of every captured tensor; masked cells (−inf) are left out of the statistics."""
    described = {}
    for name in arena.plan.captured:
        slot, values = arena.plan.slots[name], arena[name]
        finite = values[np.isfinite(values)] if name.endswith("attn.scores") else values
        low, high = float(finite.min()), float(finite.max())
        described[name] = {
            "shape": list(slot.shape), "dtype": slot.dtype, "offset": slot.offset, "bytes": slot.nbytes,
            "min": low, "max": high, "mean": float(finite.mean(dtype=np.float64)), "absmax": max(-low, high),
        }  # fmt: skip
    return described


def _generated(arena: Arena, vocabulary: tokens.Vocabulary, prompt: int, new: list[int]) -> list[dict[str, Any]]:
    """Each drawn token with the model's probability of it, and the most probable ones at its position."""

    def told(token: int, probs: NDArray[Any]) -> dict[str, Any]:
        text = vocabulary.piece(token).decode(errors="replace")
        return {"token": token, "text": text, "probability": float(probs[token])}

    steps = []
    for position, token in enumerate(new, start=prompt - 1):
        probs = arena["probs"][0, position]
        top = np.argsort(-probs, kind="stable")[:_TOP]
        steps.append({"position": position, **told(token, probs), "top": [told(int(t), probs) for t in top]})
    return steps


class _Progress:
    """Counts layers as they end and reports them, seldom enough to cost nothing."""

    def __init__(self, queue: Redis, id: str, total: int) -> None:
        self.report: Callable[[int], None] = lambda done: events.publish(
            queue, id, "progress", done=done, total=total, unit="layers"
        )
        self.done, self.reported = 0, time.monotonic()

    def __call__(self) -> None:
        self.done += 1
        if time.monotonic() - self.reported >= _PROGRESS_EVERY:
            self.report(self.done)
            self.reported = time.monotonic()


def _is_done(cache: Redis, id: str) -> bool:
    try:
        return pieces.whole(cache, id, pieces.manifest(cache, id)["size"])
    except pieces.Missing:
        return False
