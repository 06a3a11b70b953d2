"""The memory of a trace: one block, of which every tensor is a view.

A tensor has its own memory, or shares it with the tensors of the same name in other layers: a window the size of one
layer. If a trace takes one pass (`streamed`), all layer tensors are in the window, and captured ones must be written
before the next layer ends. If it takes several, tensors that are captured or read by later passes have their own
memory.
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
    """The location of a tensor: `nbytes` from `offset`, little-endian, in C order."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    is_masked: bool = False  # contains −∞ where attention is masked

    @cached_property
    def nbytes(self) -> int:
        return _nbytes(self.shape, self.dtype)


class Size(NamedTuple):
    """The bytes that a trace takes: in its result, and in memory."""

    result: int
    memory: int


@dataclass(frozen=True)
class Plan:
    """The location of each tensor in memory (`slots`), and of the captured ones in the result (`stored`).

    The result is packed in order of computation. `sections` are the captured names that are complete after each
    layer, and at the end.
    """

    slots: Mapping[str, Slot]
    stored: Mapping[str, Slot]
    sections: tuple[tuple[str, ...], ...]
    size: Size
    streamed: bool


def captured(names: Iterable[str], patterns: Iterable[str]) -> Iterator[str]:
    """Yield the names that match a shell-style pattern, in order."""
    matches = re.compile("|".join(map(translate, patterns)) or "(?!)").match
    return (name for name in names if matches(name))


@lru_cache(maxsize=4)  # few plans are in use, and a deep model's is large
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
    """Plan the memory and result of a trace over `tokens` positions; allocates nothing.

    Values are computed in `precision`; captured ones are stored in `dtype` (default: the same).
    """
    architecture = describe(config)
    sizes, tensors = architecture.sizes(tokens, batch), dict(architecture.all_values())
    chosen = dict.fromkeys(captured(tensors, capture))
    own = [name for name, tensor in tensors.items() if _has_own_memory(tensor, name in chosen, streamed)]
    slots: dict[str, Slot] = {}
    end = 0
    for name in sorted(own, key=lambda name: name not in chosen):  # captured ones are adjacent, to be written together
        slots[name] = _slot(tensors[name], sizes, _computed(tensors[name], precision), end)
        end += slots[name].nbytes
    window: dict[str, Slot] = {}
    for name, tensor in tensors.items():
        if name not in slots:
            if tensor.name not in window:
                window[tensor.name] = _slot(tensor, sizes, _computed(tensor, precision), end)
                end += window[tensor.name].nbytes
            slots[name] = window[tensor.name]
    stored: dict[str, Slot] = {}
    sections: list[list[str]] = [[] for _ in range(architecture.n_layer + 1)]
    stored_bytes = 0
    for section, name in _completed(architecture):
        if name in chosen:
            stored[name] = _slot(tensors[name], sizes, _stored(tensors[name], precision, dtype), stored_bytes)
            stored_bytes += stored[name].nbytes
            sections[section].append(name)
    return Plan(slots, stored, tuple(map(tuple, sections)), Size(stored_bytes, end), streamed)


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
    """Return the size of `plan` with these arguments, without making the plan."""
    architecture = describe(config)
    sizes, times = architecture.sizes(tokens, batch), _times_captured(config, capture)
    result = memory = 0
    for tensor in architecture.values:
        shape, count = tensor.shape(sizes), times[tensor.name]
        copies = architecture.n_layer if tensor.is_layered else 1
        own = count * _has_own_memory(tensor, True, streamed)
        own += (copies - count) * _has_own_memory(tensor, False, streamed)
        result += count * _nbytes(shape, _stored(tensor, precision, dtype))
        memory += (own + (own < copies)) * _nbytes(shape, _computed(tensor, precision))
    return Size(result, memory)


class Arena(dict[str, NDArray[Any]]):
    """A plan's memory: arrays by tensor name, all views of `memory` (uint8 [plan.size.memory])."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.memory = aligned(plan.size.memory)
        views: dict[int, NDArray[Any]] = {}  # by offset: layers share the views of the window
        for name, slot in plan.slots.items():
            view = views.get(slot.offset)
            if view is None:
                view = self.memory[slot.offset : slot.offset + slot.nbytes].view(slot.dtype).reshape(slot.shape)
                views[slot.offset] = view
            self[name] = view


@lru_cache(maxsize=16)
def _times_captured(config: Config, capture: tuple[str, ...]) -> Counter[str]:
    """Count the captured layers of each tensor of the architecture."""
    tensors = dict(describe(config).all_values())
    return Counter(tensors[name].name for name in captured(tensors, capture))


def _slot(tensor: Tensor, sizes: Mapping[str, int], dtype: str, offset: int) -> Slot:
    return Slot(tensor.shape(sizes), dtype, offset, tensor.is_masked)


def _has_own_memory(tensor: Tensor, is_captured: bool, streamed: bool) -> bool:
    return not tensor.is_layered or (not streamed and (is_captured or tensor.read_later))


def _computed(tensor: Tensor, precision: str) -> str:
    return precision if tensor.dtype == "float32" else tensor.dtype


def _stored(tensor: Tensor, precision: str, dtype: str | None) -> str:
    computed = _computed(tensor, precision)
    return computed if dtype is None or tensor.dtype != "float32" or tensor.is_exact else dtype


def _completed(architecture: Architecture) -> Iterator[tuple[int, str]]:
    """Yield each value with the number of layers that are complete before it is."""
    done = 0
    for section in architecture.sections:
        for layer in range(section.layers or 1):
            for tensor in section.values:
                yield done + layer, tensor.name_in(layer)
        done += section.layers or 0


def _nbytes(shape: tuple[int, ...], dtype: str) -> int:
    return prod(shape) * np.dtype(dtype).itemsize
