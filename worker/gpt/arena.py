"""The memory of a trace: one planned block that every tensor is a view of, filled in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

import worker.gpt.architecture as architecture
from worker.gpt.config import Config


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies in the arena: `nbytes` from `offset`, little-endian, C order."""

    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Plan:
    """Every tensor's slot by name. The captured ones come first, packed in order of computation.

    `captured_bytes` is what a trace keeps; `nbytes` includes what the forward pass needs and nobody asked for.
    """

    slots: Mapping[str, Slot]
    captured: tuple[str, ...]
    captured_bytes: int
    nbytes: int


def captured(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that one of the shell-style patterns matches, in their order."""
    patterns = list(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


@lru_cache(maxsize=4)  # the same few plans are made again and again, and a deep model's is large
def plan(
    config: Config, tokens: int, batch: int = 1, capture: tuple[str, ...] = ("*",), precision: str = "float32"
) -> Plan:
    """Lay out the memory of a trace over `tokens` positions before anything runs; allocates nothing."""
    sizes = architecture.sizes(config, tokens, batch)
    tensors = dict(architecture.expand(architecture.VALUES, config.n_layer))
    wanted = captured(tensors, capture)
    chosen = set(wanted)
    slots: dict[str, Slot] = {}
    offset = 0
    for name in (*wanted, *(name for name in tensors if name not in chosen)):
        if len(slots) == len(wanted):
            kept = offset
        dtype = precision if tensors[name].dtype == "float32" else tensors[name].dtype
        slots[name] = Slot(tensors[name].shape(sizes), dtype, offset)
        offset += slots[name].nbytes
    return Plan(slots, tuple(wanted), kept if len(wanted) < len(slots) else offset, offset)


class Arena(Mapping[str, NDArray[Any]]):
    """A plan's memory: a mapping of tensor names to arrays, all views of `memory` (uint8 [nbytes])."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.memory = np.empty(plan.nbytes, dtype=np.uint8)
        self._views: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        view = self._views.get(name)
        if view is None:
            slot = self.plan.slots[name]
            view = self.memory[slot.offset : slot.offset + slot.nbytes].view(slot.dtype).reshape(slot.shape)
            self._views[name] = view
        return view

    def __iter__(self) -> Iterator[str]:
        return iter(self.plan.slots)

    def __len__(self) -> int:
        return len(self.plan.slots)

    @property
    def kept(self) -> memoryview:
        """The bytes of the captured tensors, one after the other."""
        return self.memory[: self.plan.captured_bytes].data

    def cast(self, dtype: str) -> Arena:
        """The captured tensors in another precision. The vocabulary's softmax stays as it is: float16 would leave
        nearly all of it subnormal."""
        slots: dict[str, Slot] = {}
        offset = 0
        for name in self.plan.captured:
            slot = self.plan.slots[name]
            keeps = slot.dtype != "float32" or name == "probs"
            slots[name] = Slot(slot.shape, slot.dtype if keeps else dtype, offset)
            offset += slots[name].nbytes
        if all(slots[name].dtype == self.plan.slots[name].dtype for name in slots):
            return self
        smaller = Arena(Plan(slots, self.plan.captured, offset, offset))
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite
            for name in slots:
                smaller[name][...] = self[name]
        return smaller
