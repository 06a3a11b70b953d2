"""The results themselves: a request in, its arrays to a sink, its manifest out. Knows no Redis and no queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import worker.models.models as models
from worker.engine.compiled import engine
from worker.engine.numpy_engine import Engine
from worker.families.config import Config
from worker.layout.place import place
from worker.models.models import Model
from worker.settings import Settings
from worker.store.keys import RequestKind
from worker.store.safetensors import Entries
from worker.trace.arena import Arena, plan
from worker.trace.generate import generate
from worker.trace.keep import Keeper, Sink, arrays
from worker.trace.lens import look_through
from worker.trace.sampling import Sampling, passes, positions
from worker.trace.work import Work

Manifest = dict[str, Any]
Open = Callable[[Entries], Sink]  # told which arrays come, in which order, gives what takes their bytes
Progress = Callable[[int, int, float], None]  # layers done, layers in all, the part of the work that is done

_TOP = 5  # tokens of a distribution that are told


def trace(request: dict[str, Any], settings: Settings, open: Open, progress: Progress) -> Manifest:
    """Run a model over a request's tokens. One pass leaves for the sink layer by layer: it takes the memory of one.
    Of several, each fills some rows of every layer, and what is captured leaves at the end.
    """
    model = models.from_canonical(request, settings.models_dir)
    sampling, prompt = Sampling(**(request["generate"] or {})), request["tokens"]
    config, capture, length = model.config, tuple(request["capture"]), positions(len(prompt), sampling)
    once = passes(sampling) == 1
    planned = plan(config, length, capture=capture, dtype=request["dtype"], streamed=once)
    sink = open(arrays(planned))
    arena = Arena(planned)
    keeper, work = Keeper(arena, sink), Work(config, len(prompt), sampling, settings.held_weights_bytes)
    total, seconds, done, spent = config.n_layer * work.passes, work.seconds, 0, 0.0

    def after_layer() -> None:
        nonlocal done, spent
        n, layer = divmod(done, config.n_layer)
        spent += work.layer(n) + (work.ends(n - 1) if n and not layer else 0)
        done += 1
        if arena.plan.streamed:
            keeper.keep_section()
        progress(done, total, spent / seconds)

    runs = _held(model) if work.held and not model.checkpoint else engine(model.weights(), keep=work.held)
    new = generate(config, runs, arena, prompt, sampling, after_layer)
    model.confirm()
    keeper.keep_rest()
    return {"tensors": keeper.described, "generated": _generated(arena, len(prompt), new)}


@lru_cache(maxsize=1)  # small traces that share a job are often of one model
def _held(model: Model) -> Engine:
    return engine(model.weights(), keep=True)


def layout(request: dict[str, Any], settings: Settings, open: Open, progress: Progress) -> Manifest:
    """Place a model's blocks: the geometry's arrays, and where each of them lies."""
    geometry = place(Config(**request["config"]), request["tokens"], request["batch"], request["style"])
    return {"arrays": _keep(geometry.to_arrays(), open)}


def lens(request: dict[str, Any], settings: Settings, open: Open, progress: Progress) -> Manifest:
    """What each layer's residual stream would predict, over all tokens of a request."""
    model, tokens = models.from_canonical(request, settings.models_dir), request["tokens"]
    config, weights = model.config, model.weights()
    arena = Arena(plan(config, len(tokens), capture=(), streamed=True))
    arena["tokens"][0] = tokens
    held = 4 * config.vocab_size * config.n_embd <= settings.held_weights_bytes  # the head's, which is used L + 1 times

    def after_layer(done: int) -> None:
        progress(done, config.n_layer, done / (config.n_layer + 1))

    found = look_through(config, engine(weights), engine(weights, keep=held), arena, after_layer)
    model.confirm()
    return {"arrays": _keep(found._asdict(), open)}


def _keep(given: Mapping[str, NDArray[Any]], open: Open) -> dict[str, Any]:
    """Hand arrays on, those of wide elements first, so that all begin where theirs may: where each of them lies."""
    ordered = dict(sorted(given.items(), key=lambda item: -item[1].itemsize))
    sink = open({name: (array.dtype, array.shape) for name, array in ordered.items()})
    places, end = {}, 0
    for name, array in ordered.items():
        sink(memoryview(array.tobytes()))
        places[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "offset": end}
        end += array.nbytes
    return {name: places[name] for name in given}


COMPUTE: dict[RequestKind, Callable[[dict[str, Any], Settings, Open, Progress], Manifest]] = {
    "trace": trace,
    "layout": layout,
    "lens": lens,
}


def layout_request(trace_request: dict[str, Any]) -> dict[str, Any]:
    """The layout that a trace's values fill."""
    length = positions(len(trace_request["tokens"]), Sampling(**(trace_request["generate"] or {})))
    return {"config": trace_request["config"], "tokens": length, "batch": 1, "style": "columns"}


def _generated(arena: Arena, prompt: int, new: list[int]) -> list[dict[str, Any]]:
    """Each drawn token with the model's probability of it, and the most probable ones at its position."""
    steps = []
    for position, token in enumerate(new, start=prompt - 1):
        probs = arena["probs"][0, position]
        top = np.argsort(-probs, kind="stable")[:_TOP].tolist()
        told = [{"token": token, "probability": float(probs[token])} for token in (token, *top)]
        steps.append({"position": position, **told[0], "top": told[1:]})
    return steps
