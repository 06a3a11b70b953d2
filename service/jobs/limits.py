"""Limits on the size, memory and time of requests.

All are estimated before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from service.errors import Invalid
from service.settings import Settings
from worker.describe.blocks import LAYER
from worker.describe.config import Config
from worker.families.registry import describe
from worker.requests import TraceRequest
from worker.trace.arena import Size, captured, measure
from worker.trace.sampling import Sampling, passes
from worker.trace.work import Work

LENS_TOP = 20  # the number of best tokens that a lens stores of each prediction
_SAFETY = 8  # a job may take so many times its estimate, which is for a slow machine that does nothing else

#: Narrower captures to suggest, the richest first.
_NARROWER: tuple[tuple[str, ...], ...] = (
    ("tokens", "*embed", "*resid*", "*ln*", "*.attn.[!sp]*", "*attn_out", "*mlp*", "log*", "probs"),  # no T x T
    ("{leaving}", "logits", "probs"),  # the output of each layer
    ("{leaving}",),
    ("logits", "probs"),
    ("probs",),
    ("logits",),
)


@dataclass(frozen=True)
class _Trace:
    """The properties of a request that decide its cost."""

    config: Config
    prompt: int
    sampling: Sampling
    length: int
    capture: tuple[str, ...]
    dtype: str

    @property
    def size(self) -> Size:
        return _size(self)

    def fits(self, settings: Settings) -> bool:
        result, memory = self.size
        return result <= settings.bound(result).bytes and memory <= settings.max_work_bytes


@lru_cache(maxsize=256)  # the traces of a batch have few different sizes
def _size(trace: _Trace) -> Size:
    streamed = passes(trace.sampling) == 1
    return measure(trace.config, trace.length, capture=trace.capture, dtype=trace.dtype, streamed=streamed)


def trace_timeout(request: TraceRequest, settings: Settings) -> int:
    """Return how many seconds the job of a trace may take.

    Raises Invalid, with advice on what would fit, if the trace would exceed a limit.
    """
    config, sampling, prompt = request.config, request.sampling, len(request.tokens)
    trace = _Trace(config, prompt, sampling, request.positions, request.capture, request.dtype)
    result, memory = trace.size
    most, setting = settings.bound(result)
    if result > most:
        excess = f"The trace would have {result:,} bytes, but at most {most:,} are allowed"
        raise Invalid({"capture": [f"{excess} ({setting}). {_advice(trace, settings)}"]})
    if memory > settings.max_work_bytes:
        excess = f"This needs {memory:,} bytes of memory, but at most {settings.max_work_bytes:,} are allowed"
        raise Invalid({"tokens": [f"{excess} (MAX_WORK_BYTES). {_advice(trace, settings)}"]})
    seconds = _timeout(config, prompt, sampling, settings)
    if seconds > settings.max_trace_seconds:
        excess = f"This may take up to {seconds:,} seconds, but at most {settings.max_trace_seconds:,} are allowed"
        least = _timeout(config, 1, Sampling(), settings)
        advice = "Fewer tokens" if least <= settings.max_trace_seconds else "Only a smaller model"
        raise Invalid({"tokens": [f"{excess} (MAX_TRACE_SECONDS). {advice} would fit."]})
    return seconds


def lens_timeout(config: Config, length: int, settings: Settings) -> int:
    """Return how many seconds the job of a lens over `length` positions may take.

    Raises Invalid, with advice on what would fit, if the lens would exceed a limit.
    """

    def seconds(length: int) -> int:
        return settings.layout_timeout + int(_SAFETY * lens_estimate(config, length, settings))

    _check_lens(length, partial(_lens_bytes, config), settings.max_work_bytes, "bytes of memory", "MAX_WORK_BYTES")
    _check_lens(length, seconds, settings.max_trace_seconds, "seconds", "MAX_TRACE_SECONDS")
    return seconds(length)


def _check_lens(length: int, cost: Callable[[int], int], allowed: int, unit: str, setting: str) -> None:
    if cost(length) > allowed:
        excess = f"The lens may take {cost(length):,} {unit}, but at most {allowed:,} are allowed ({setting})"
        most = _longest(length, lambda length: cost(length) <= allowed)
        advice = f"A lens over {most:,} positions instead of {length:,}" if most else "Only a lens of a smaller model"
        raise Invalid({"trace_id": [f"{excess}. {advice} would fit."]})


def lens_estimate(config: Config, length: int, settings: Settings) -> float:
    """Return the seconds that a lens takes on a slow machine: one pass, whose end is repeated for each layer."""
    work = Work(config, length, Sampling(), settings.held_weights_bytes)
    return work.seconds + describe(config).n_layer * work.ends(0)


def _lens_bytes(config: Config, length: int) -> int:
    """Return the memory of a pass that captures nothing and of the lens's result.

    The result holds each layer's best tokens with their probabilities, and the rollout.
    """
    architecture = describe(config)
    best = (architecture.n_layer + 1) * length * min(LENS_TOP, architecture.fixed_sizes["V"])
    return measure(config, length, capture=(), streamed=True).memory + 8 * best + 4 * length**2


def trace_estimate(request: TraceRequest, settings: Settings) -> float:
    """Return the seconds that a trace takes on a slow machine."""
    return _estimate(request.config, len(request.tokens), request.sampling, settings.held_weights_bytes)


@lru_cache(maxsize=256)
def _estimate(config: Config, prompt: int, sampling: Sampling, held_weights_bytes: int) -> float:
    return Work(config, prompt, sampling, held_weights_bytes).seconds


def _timeout(config: Config, prompt: int, sampling: Sampling, settings: Settings) -> int:
    estimate = _estimate(config, prompt, sampling, settings.held_weights_bytes)
    return settings.layout_timeout + int(_SAFETY * estimate)  # the job of a trace computes its layout, too


def _advice(trace: _Trace, settings: Settings) -> str:
    ways = list(_ways(trace, settings))
    if not ways:
        return "Only a smaller model would fit."
    return f"It would fit {', or '.join(ways)}."


def _ways(trace: _Trace, settings: Settings) -> Iterator[str]:
    """Yield changes to the request, each of which is enough by itself."""
    if replace(trace, dtype="float16").fits(settings):
        yield 'with "dtype": "float16"'
    names = [name for name, _ in describe(trace.config).all_values()]
    requested = set(captured(names, trace.capture))
    leaving = describe(trace.config).landmark("leaving").name.replace(LAYER, "*")
    for patterns in _NARROWER:
        capture = tuple(pattern.format(leaving=leaving) for pattern in patterns)
        if replace(trace, capture=capture).fits(settings) and requested > set(captured(names, capture)):
            yield f'with "capture": {json.dumps(capture)}'
            break
    if most := _longest(trace.length, lambda length: replace(trace, length=length).fits(settings)):
        yield f"over {most:,} positions instead of {trace.length:,}"


def _longest(length: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number of positions that fits, given that `length` does not; 0 if none does."""
    least, most = 0, length
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least
