"""The memory of a trace: one planned block that every tensor is a view of, filled in place.

A tensor has a place of its own in it, or shares one with those of its name in the other layers: in a window of one
layer's size. Where a trace takes one pass (`streamed`), all of a layer's tensors lie in the window, and the captured
ones have to leave before the next layer ends. Where it takes several, what is captured or read by later passes lies
alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.describe.architecture import Architecture
from worker.describe.blocks import Tensor
from worker.describe.config import Config
from worker.engine.memory import aligned
from worker.families.registry import describe


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies: `nbytes` from `offset`, little-endian, C order."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    is_masked: bool = False  # −∞ stands in it for what is not there

    @cached_property
    def nbytes(self) -> int:
        return _nbytes(self.shape, self.dtype)


class Size(NamedTuple):
    """What a trace takes, in bytes: the result, and the memory in which it is computed."""

    result: int
    memory: int


@dataclass(frozen=True)
class Plan:
    """Where each tensor lies: in memory (`slots`), and in the result if it is captured (`kept`), packed in order of
    computation. `sections` are the captured names by when they are complete: as each layer ends, and at the end.
    """

    slots: Mapping[str, Slot]
    stored: Mapping[str, Slot]
    sections: tuple[tuple[str, ...], ...]
    size: Size
    streamed: bool


def captured(names: Iterable[str], patterns: Iterable[str]) -> Iterator[str]:
    """The names that one of the shell-style patterns matches, in their order."""
    matches = re.compile("|".join(map(translate, patterns)) or "(?!)").match
    return (name for name in names if matches(name))


@lru_cache(maxsize=4)  # the same few plans are made again and again, and a deep model's is large
def plan(
    config: Config,
    tokens: int,
    batch: int = 1,
    capture: tuple[str, ...] = ("*",),
    precision: str = "float32",
    dtype: str | None = None,
    *,
    streamed: bool = False,
) -> Plan:
    """Lay out a trace over `tokens` positions before anything runs; allocates nothing.

    Values are computed in `precision`, and the captured ones stored in `dtype` (the same where it is None).
    """
    architecture = describe(config)
    sizes, tensors = architecture.sizes(tokens, batch), dict(architecture.all_values())
    chosen = dict.fromkeys(captured(tensors, capture))
    alone = [name for name, tensor in tensors.items() if _lies_alone(tensor, name in chosen, streamed)]
    slots: dict[str, Slot] = {}
    end = 0
    for name in sorted(alone, key=lambda name: name not in chosen):  # those captured lie together: they leave together
        slots[name] = _slot(tensors[name], sizes, _computed(tensors[name], precision), end)
        end += slots[name].nbytes
    window: dict[str, Slot] = {}
    for name, tensor in tensors.items():
        if name not in slots:
            if tensor.name not in window:
                window[tensor.name] = _slot(tensor, sizes, _computed(tensor, precision), end)
                end += window[tensor.name].nbytes
            slots[name] = window[tensor.name]
    kept: dict[str, Slot] = {}
    sections: list[list[str]] = [[] for _ in range(architecture.n_layer + 1)]
    kept_bytes = 0
    for section, name in _completed(architecture):
        if name in chosen:
            kept[name] = _slot(tensors[name], sizes, _stored(tensors[name], precision, dtype), kept_bytes)
            kept_bytes += kept[name].nbytes
            sections[section].append(name)
    return Plan(slots, kept, tuple(map(tuple, sections)), Size(kept_bytes, end), streamed)


def measure(
    config: Config,
    tokens: int,
    batch: int = 1,
    capture: tuple[str, ...] = ("*",),
    precision: str = "float32",
    dtype: str | None = None,
    *,
    streamed: bool = False,
) -> Size:
    """The size of the plan with these arguments, found without making it."""
    architecture = describe(config)
    sizes, times = architecture.sizes(tokens, batch), _times_captured(config, capture)
    kept = memory = 0
    for tensor in architecture.values:
        shape, count = tensor.shape(sizes), times[tensor.name]
        copies = architecture.n_layer if tensor.is_layered else 1
        alone = count * _lies_alone(tensor, True, streamed) + (copies - count) * _lies_alone(tensor, False, streamed)
        kept += count * _nbytes(shape, _stored(tensor, precision, dtype))
        memory += (alone + (alone < copies)) * _nbytes(shape, _computed(tensor, precision))
    return Size(kept, memory)


class Arena(dict[str, NDArray[Any]]):
    """A plan's memory: a mapping of tensor names to arrays, all views of `memory` (uint8 [plan.size.memory])."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.memory = aligned(plan.size.memory)
        views: dict[int, NDArray[Any]] = {}  # by offset: the layers of a window share theirs
        for name, slot in plan.slots.items():
            view = views.get(slot.offset)
            if view is None:
                view = self.memory[slot.offset : slot.offset + slot.nbytes].view(slot.dtype).reshape(slot.shape)
                views[slot.offset] = view
            self[name] = view


@lru_cache(maxsize=16)
def _times_captured(config: Config, capture: tuple[str, ...]) -> Counter[str]:
    """How many times a tensor of the description is captured, by its name there."""
    tensors = dict(describe(config).all_values())
    return Counter(tensors[name].name for name in captured(tensors, capture))


def _slot(tensor: Tensor, sizes: Mapping[str, int], dtype: str, offset: int) -> Slot:
    return Slot(tensor.shape(sizes), dtype, offset, tensor.is_masked)


def _lies_alone(tensor: Tensor, is_captured: bool, streamed: bool) -> bool:
    return not tensor.is_layered or (not streamed and (is_captured or tensor.read_later))


def _computed(tensor: Tensor, precision: str) -> str:
    return precision if tensor.dtype == "float32" else tensor.dtype


def _stored(tensor: Tensor, precision: str, dtype: str | None) -> str:
    computed = _computed(tensor, precision)
    return computed if dtype is None or tensor.dtype != "float32" or tensor.is_exact else dtype


def _completed(architecture: Architecture) -> Iterator[tuple[int, str]]:
    """The values by name, each with the number of layers that are done before it is complete."""
    done = 0
    for section in architecture.sections:
        for layer in range(section.layers or 1):
            for tensor in section.values:
                yield done + layer, tensor.name_in(layer)
        done += section.layers or 0


def _nbytes(shape: tuple[int, ...], dtype: str) -> int:
    return prod(shape) * np.dtype(dtype).itemsize
