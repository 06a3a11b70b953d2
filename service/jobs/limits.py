"""What a trace may take here: bytes of its result, memory and time, all known before anything runs."""

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

LENS_TOP = 20  # tokens that a lens keeps of each prediction
_TIMES = 8  # a job may take so many times as long as on a slow machine that does nothing else

#: Narrower captures to suggest, the richest first.
_NARROWER: tuple[tuple[str, ...], ...] = (
    ("tokens", "*embed", "*resid*", "*ln*", "*.attn.[!sp]*", "*attn_out", "*mlp*", "log*", "probs"),  # no T x T
    ("{leaving}", "logits", "probs"),  # what leaves each layer
    ("{leaving}",),
    ("logits", "probs"),
    ("probs",),
    ("logits",),
)


@dataclass(frozen=True)
class _Trace:
    """What of a request decides what it takes."""

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
        kept, memory = self.size
        return kept <= settings.bound(kept).bytes and memory <= settings.max_work_bytes


@lru_cache(maxsize=256)  # the traces of a batch are mostly of a few sizes
def _size(trace: _Trace) -> Size:
    streamed = passes(trace.sampling) == 1
    return measure(trace.config, trace.length, capture=trace.capture, dtype=trace.dtype, streamed=streamed)


def seconds_allowed(request: TraceRequest, settings: Settings) -> int:
    """How many seconds the job of a request may take.

    Raises Invalid where the request would exceed a limit, saying what would fit.
    """
    config, sampling, prompt = request.config, request.sampling, len(request.tokens)
    trace = _Trace(config, prompt, sampling, request.positions, request.capture, request.dtype)
    kept, memory = trace.size
    most, variable = settings.bound(kept)
    if kept > most:
        told = f"This trace has {kept:,} bytes, and at most {most:,} are allowed here"
        raise Invalid({"capture": [f"{told} ({variable}). {_advice(trace, settings)}"]})
    if memory > settings.max_work_bytes:
        told = f"This takes {memory:,} bytes of memory, and at most {settings.max_work_bytes:,} are allowed here"
        raise Invalid({"tokens": [f"{told} (MAX_WORK_BYTES). {_advice(trace, settings)}"]})
    seconds = _seconds(config, prompt, sampling, settings)
    if seconds > settings.max_trace_seconds:
        told = f"This may take up to {seconds:,} seconds, and at most {settings.max_trace_seconds:,} are allowed here"
        least = _seconds(config, 1, Sampling(), settings)
        advice = "Fewer tokens" if least <= settings.max_trace_seconds else "Only a smaller model"
        raise Invalid({"tokens": [f"{told} (MAX_TRACE_SECONDS). {advice} would fit."]})
    return seconds


def lens_seconds(config: Config, length: int, settings: Settings) -> int:
    """How long the lens over so many positions may take. Raises Invalid, saying what would fit, where it may not take
    what it would.
    """

    def seconds(length: int) -> int:
        return settings.layout_timeout + int(_TIMES * lens_seconds_likely(config, length, settings))

    _allow_lens(length, partial(_lens_bytes, config), settings.max_work_bytes, "bytes of memory", "MAX_WORK_BYTES")
    _allow_lens(length, seconds, settings.max_trace_seconds, "seconds", "MAX_TRACE_SECONDS")
    return seconds(length)


def _allow_lens(length: int, takes: Callable[[int], int], allowed: int, unit: str, setting: str) -> None:
    if takes(length) > allowed:
        told = f"Its lens may take {takes(length):,} {unit}, and at most {allowed:,} are allowed here ({setting})"
        most = _longest(length, lambda length: takes(length) <= allowed)
        advice = f"One over {most:,} positions instead of {length:,}" if most else "Only that of a smaller model"
        raise Invalid({"trace_id": [f"{told}. {advice} would fit."]})


def lens_seconds_likely(config: Config, length: int, settings: Settings) -> float:
    """How long it takes on a slow machine: a pass over them, and its end once more for each layer."""
    work = Work(config, length, Sampling(), settings.held_weights_bytes)
    return work.seconds + describe(config).n_layer * work.ends(0)


def _lens_bytes(config: Config, length: int) -> int:
    """The memory of a pass that keeps nothing, and what the lens saw: of each layer the best tokens with their
    probabilities, and the rollout.
    """
    architecture = describe(config)
    best = (architecture.n_layer + 1) * length * min(LENS_TOP, architecture.fixed_sizes["V"])
    return measure(config, length, capture=(), streamed=True).memory + 8 * best + 4 * length**2


def seconds_likely(request: TraceRequest, settings: Settings) -> float:
    """How many seconds a request takes on a slow machine."""
    return _likely(request.config, len(request.tokens), request.sampling, settings.held_weights_bytes)


@lru_cache(maxsize=256)
def _likely(config: Config, prompt: int, sampling: Sampling, held_weights_bytes: int) -> float:
    return Work(config, prompt, sampling, held_weights_bytes).seconds


def _seconds(config: Config, prompt: int, sampling: Sampling, settings: Settings) -> int:
    """The picture of a trace is placed in its job, too."""
    likely = _likely(config, prompt, sampling, settings.held_weights_bytes)
    return settings.layout_timeout + int(_TIMES * likely)


def _advice(trace: _Trace, settings: Settings) -> str:
    ways = list(_ways(trace, settings))
    if not ways:
        return "Only a smaller model would fit."
    return f"It would fit {', or '.join(ways)}."


def _ways(trace: _Trace, settings: Settings) -> Iterator[str]:
    """What can be asked for instead, each by itself enough."""
    if replace(trace, dtype="float16").fits(settings):
        yield 'with "dtype": "float16"'
    names = [name for name, _ in describe(trace.config).all_values()]
    asked = set(captured(names, trace.capture))
    leaving = describe(trace.config).landmark("leaving").name.replace(LAYER, "*")
    for patterns in _NARROWER:
        capture = tuple(pattern.format(leaving=leaving) for pattern in patterns)
        if replace(trace, capture=capture).fits(settings) and asked > set(captured(names, capture)):
            yield f'with "capture": {json.dumps(capture)}'
            break
    if most := _longest(trace.length, lambda length: replace(trace, length=length).fits(settings)):
        yield f"over {most:,} positions instead of {trace.length:,}"


def _longest(length: int, fits: Callable[[int], bool]) -> int:
    """As many positions as fit, of more that do not; 0 where even one is too many."""
    least, most = 0, length
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least
