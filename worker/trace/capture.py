"""Cast captured tensors, describe them, and write them to a sink."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.trace.arena import Arena, Plan, Slot
from worker.trace.detail import Level, Statistics, has_level

#: Takes the next bytes of a result, uint8 [n]; their memory is reused after it returns.
Sink = Callable[[memoryview], None]
Values = NDArray[Any]

_AT_ONCE = 1 << 20  # maximum number of values that are cast and described at a time, to bound memory


class CaptureWriter:
    """Writes an arena's captured tensors to a sink, in order of computation; `described` has an entry for each."""

    def __init__(self, arena: Arena, sink: Sink) -> None:
        self.arena, self.sink = arena, sink
        self.described: dict[str, dict[str, Any]] = {}
        self._sections = iter(arena.plan.sections)
        self._levels: dict[str, Level] = {}  # of large tensors, written after all tensors

    def write_section(self) -> None:
        """Write the tensors that are complete after the next layer; the first layer's include those before it."""
        self._write(next(self._sections))

    def write_rest(self) -> None:
        """Write the remaining tensors, and the smaller versions of large ones."""
        self._write(chain.from_iterable(self._sections))
        end = self.arena.plan.size.result
        for name, level in self._levels.items():
            content, gap = level.content(), -end % 4
            self.sink(memoryview(bytes(gap) + content))
            if level.is_finite():
                self.described[name]["smaller"] = {"by": level.by, "offset": end + gap}
            end += gap + len(content)

    def _write(self, names: Iterable[str]) -> None:
        for run in _runs(self.arena.plan, names):
            slots, stored = ([table[name] for name in run] for table in (self.arena.plan.slots, self.arena.plan.stored))
            stop = slots[-1].offset + slots[-1].nbytes
            flat = self.arena.memory[slots[0].offset : stop].view(slots[0].dtype)
            starts = [(slot.offset - slots[0].offset) // flat.itemsize for slot in slots]
            for n, found in enumerate(self._write_flat(flat, stored[0].dtype, starts, run)):
                self.described[run[n]] = _description(stored[n], *found)

    def _write_flat(self, flat: Values, dtype: str, starts: list[int], names: list[str]) -> list[Statistics]:
        """Cast and write `flat` [n], in which the tensors `names` begin at `starts`; return the statistics of each."""
        level = self._level(names[0])
        masked = [self.arena.plan.slots[name].is_masked for name in names]
        strips = level.strips(_AT_ONCE) if level else ((n, n + _AT_ONCE) for n in range(0, len(flat), _AT_ONCE))
        parts = []
        for start, stop in strips:  # there are several only for a single tensor
            with np.errstate(over="ignore"):  # values out of the range of float16 become infinite
                part = flat[start:stop].astype(dtype, copy=False)
            self.sink(part.view(np.uint8).data)
            parts.append([level.add(part)] if level else _statistics(part, starts, masked))
        if len(parts) == 1:
            return parts[0]
        lows, highs, sums, counts = zip(*(part[0] for part in parts), strict=True)
        return [(min(lows), max(highs), sum(sums), sum(counts))]

    def _level(self, name: str) -> Level | None:
        """Return the level of detail for a tensor; None if it is small, or masked, as sums would be infinite."""
        slot = self.arena.plan.slots[name]
        if _has_level(slot):
            self._levels[name] = Level(slot.shape)
        return self._levels.get(name)


def arrays(plan: Plan) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and shape of everything a CaptureWriter writes, in order: tensors, then levels of detail."""
    tensors = {name: (slot.dtype, slot.shape) for name, slot in plan.stored.items()}
    levels = {f"{name} smaller": Level(slot.shape).shape for name, slot in plan.stored.items() if _has_level(slot)}
    gap = {"gap": ("uint8", (-plan.size.result % 4,))} if levels and plan.size.result % 4 else {}
    return tensors | gap | {name: ("float32", shape) for name, shape in levels.items()}


def _has_level(slot: Slot) -> bool:
    return has_level(slot.shape) and not slot.is_masked


def _runs(plan: Plan, names: Iterable[str]) -> Iterator[list[str]]:
    """Group the names whose tensors are adjacent in memory, of one dtype, and small enough to be written together."""
    run: list[str] = []
    for name in names:
        if run:
            first, last, here = (plan.slots[other] for other in (run[0], run[-1], name))
            same = (first.dtype, plan.stored[run[0]].dtype) == (here.dtype, plan.stored[name].dtype)
            size = here.offset + here.nbytes - first.offset
            if not same or last.offset + last.nbytes != here.offset or size > _AT_ONCE * np.dtype(here.dtype).itemsize:
                yield run
                run = []
        run.append(name)
    if run:
        yield run


def _statistics(flat: Values, starts: list[int], masked: list[bool]) -> list[Statistics]:
    """Return the statistics of each tensor in `flat` [n], without masked cells (−inf)."""
    lows, highs = np.minimum.reduceat(flat, starts).tolist(), np.maximum.reduceat(flat, starts).tolist()
    sums, stops = np.add.reduceat(flat, starts, dtype=np.float64).tolist(), [*starts[1:], len(flat)]
    found: list[Statistics] = []
    for has_masked, low, high, total, start, stop in zip(masked, lows, highs, sums, starts, stops, strict=True):
        if has_masked:
            seen = flat[start:stop][np.isfinite(flat[start:stop])]
            found.append((seen.min(initial=inf).item(), high, seen.sum(dtype=np.float64).item(), seen.size))
        else:
            found.append((low, high, total, stop - start))
    return found


def _description(slot: Slot, low: float, high: float, total: float, count: int) -> dict[str, Any]:
    return {
        "shape": slot.shape, "dtype": slot.dtype, "offset": slot.offset, "bytes": slot.nbytes,
        "min": low, "max": high, "mean": total / count if count else nan, "absmax": max(high, -low),
    }  # fmt: skip
