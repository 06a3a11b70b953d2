"""Computation of results, without Redis or queues.

Each function takes a request, writes its arrays to a sink and returns the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import worker.models.lookup as models
from worker.engine.compiled import engine
from worker.engine.numpy_engine import Engine
from worker.layout.place import place
from worker.models.lookup import Model
from worker.requests import LayoutRequest, LensRequest, RequestKind, TraceRequest
from worker.settings import Settings
from worker.store.safetensors import Entries
from worker.trace.arena import Arena, plan
from worker.trace.capture import CaptureWriter, Sink, arrays
from worker.trace.generate import generate
from worker.trace.lens import run_lens
from worker.trace.sampling import Sampling, passes, probability
from worker.trace.work import Work

Manifest = dict[str, Any]
Open = Callable[[Entries], Sink]  # takes the dtypes and shapes of the arrays, in order; returns a sink for their bytes
Progress = Callable[[int, int, float], None]  # layers done, total layers, the fraction of the work that is done

_TOP = 5  # most probable tokens reported for each new token


def trace(request: TraceRequest, settings: Settings, open: Open, progress: Progress) -> Manifest:
    """Run a model over the tokens of a request.

    A single pass is written layer by layer and takes the memory of one layer. If there are several passes, each fills
    some rows of every layer, and the captured values are written at the end.
    """
    model = models.from_reference(request.model, settings.models_dir)
    config, sampling, prompt = model.config, request.sampling, list(request.tokens)
    layers = model.architecture.n_layer
    streamed = passes(sampling) == 1
    planned = plan(config, request.positions, capture=request.capture, dtype=request.dtype, streamed=streamed)
    sink = open(arrays(planned))
    arena = Arena(planned)
    writer, work = CaptureWriter(arena, sink), Work(config, len(prompt), sampling, settings.held_weights_bytes)
    total, seconds, done, spent = layers * work.passes, work.seconds, 0, 0.0

    def after_layer() -> None:
        nonlocal done, spent
        n, layer = divmod(done, layers)
        spent += work.layer(n) + (work.ends(n - 1) if n and not layer else 0)
        done += 1
        if arena.plan.streamed:
            writer.write_section()
        progress(done, total, spent / seconds)

    cached = work.caches_weights
    shared = cached and not model.checkpoint
    runner = _shared_engine(model) if shared else engine(model.weights(mapped=True), cache_weights=cached)
    new = generate(config, runner, arena, prompt, sampling, after_layer)
    model.check_unchanged()
    writer.write_rest()
    return {"tensors": writer.described, "generated": _generated(arena, len(prompt), sampling, new)}


@lru_cache(maxsize=1)  # traces that share a job often have the same model
def _shared_engine(model: Model) -> Engine:
    return engine(model.weights(), cache_weights=True)


def layout(request: LayoutRequest, settings: Settings, open: Open, progress: Progress) -> Manifest:
    """Compute the positions of a model's blocks, as the arrays of the geometry."""
    geometry = place(request.config, request.tokens, request.batch, request.style)
    return {"arrays": _write(geometry.to_arrays(), open)}


def lens(request: LensRequest, settings: Settings, open: Open, progress: Progress) -> Manifest:
    """Compute what the residual stream of each layer would predict, over all tokens of a request."""
    model, tokens = models.from_reference(request.model, settings.models_dir), request.tokens
    config, architecture, weights = model.config, model.architecture, model.weights(mapped=True)
    arena = Arena(plan(config, len(tokens), capture=(), streamed=True))
    arena["tokens"][0] = tokens
    sizes = architecture.fixed_sizes
    head = 4 * sizes["V"] * sizes["C"]  # bytes of the head, which is used L + 1 times
    cached = head <= settings.held_weights_bytes

    def after_layer(done: int) -> None:
        progress(done, architecture.n_layer, done / (architecture.n_layer + 1))

    predictions = run_lens(config, engine(weights), engine(weights, cache_weights=cached), arena, after_layer)
    model.check_unchanged()
    return {"arrays": _write(predictions._asdict(), open)}


def _write(values: Mapping[str, NDArray[Any]], open: Open) -> dict[str, Any]:
    """Write arrays, widest elements first so that all are aligned; return the shape, dtype and offset of each."""
    ordered = dict(sorted(values.items(), key=lambda item: -item[1].itemsize))
    sink = open({name: (array.dtype, array.shape) for name, array in ordered.items()})
    slots, end = {}, 0
    for name, array in ordered.items():
        sink(memoryview(array.tobytes()))
        slots[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "offset": end}
        end += array.nbytes
    return {name: slots[name] for name in values}


COMPUTE: dict[RequestKind, Callable[[Any, Settings, Open, Progress], Manifest]] = {
    "trace": trace,
    "layout": layout,
    "lens": lens,
}


def _generated(arena: Arena, prompt: int, sampling: Sampling, new: list[int]) -> list[dict[str, Any]]:
    """Return each new token with its probabilities and the most probable tokens at its position.

    `probability` is the model's, at temperature 1; the token was sampled with `sampling_probability`.
    """
    steps = []
    for position, token in enumerate(new, start=prompt - 1):
        probs = arena["probs"][0, position]
        top = np.argsort(-probs, kind="stable")[:_TOP].tolist()
        drawn, *best = ({"token": token, "probability": float(probs[token])} for token in (token, *top))
        sampled_with = probability(arena["logits"][0, position], sampling, token)
        steps.append({"position": position, **drawn, "sampling_probability": sampled_with, "top": best})
    return steps
