"""The positions of a model's blocks, in compact form.

A layout is separable: layers are drawn in columns of twelve; x depends only on the column, y only on the row within
it, z only on the head. So a billion blocks are a few small arrays, which readers broadcast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

import worker.layout.llm_viz as llm_viz
from worker.describe.architecture import Architecture, Section
from worker.describe.blocks import Depth, Group, Kind
from worker.describe.config import MAX_BATCH, Config, ConfigError
from worker.describe.expression import Sizes
from worker.families.registry import config_from_mapping, describe

Style = Literal["columns", "llm-viz"]
STYLES: tuple[Style, ...] = get_args(Style)

CELL = 1.5  # side of a cell, in model units
COLUMN = 12  # layers in a column
MAX_CELLS = 2**31 - 1  # along one axis: stored as int32
_DEPTHS: tuple[Depth, ...] = ("front", "middle", "back")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Run(NamedTuple):
    """Adjacent kinds of a section with the same group: one block each, or one per member."""

    section: Section
    kinds: slice  # of Plan.kinds
    group: Group | None

    @property
    def length(self) -> int:
        return int(self.kinds.stop - self.kinds.start)


class Box(NamedTuple):
    """Two opposite corners, [x, y, z] each."""

    min: list[float]
    max: list[float]


@dataclass(frozen=True)
class Plan:
    """The arguments of a layout, and the blocks that follow from them: their kinds and sizes, but not positions.

    K is the number of kinds of block. Raises ConfigError, with errors for `tokens`, `batch`, `style` or a field of the
    configuration.
    """

    config: Config
    tokens: int
    batch: int
    style: Style

    def __post_init__(self) -> None:
        errors, known = {}, describe(self.config).fixed_sizes
        for name, most in (("tokens", known["N"]), ("batch", MAX_BATCH)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                errors[name] = [f"{value!r} is not allowed: must be a whole number from 1 to {most:,}."]
        if self.style not in STYLES:
            errors["style"] = [f"{self.style!r} is not allowed: must be one of {', '.join(STYLES)}."]
        elif self.style == "llm-viz" and self.config.model_type != llm_viz.FAMILY:
            errors["style"] = [f"'llm-viz' is not allowed: must be 'columns' for any family but {llm_viz.FAMILY}."]
        heads, width = known["H"], known["A"]
        if heads * width > MAX_CELLS:
            field = "d_head" if "d_head" in type(self.config).rules() else "head_dim"
            errors[field] = [f"{width:,} is not allowed: must be at most {MAX_CELLS:,} divided by the {heads:,} heads."]
        if errors:
            raise ConfigError(errors)

    @property
    def cell(self) -> float:
        return CELL

    @property
    def margin(self) -> float:
        return max(12.0, self.architecture.fixed_sizes["C"] / 10)

    @property
    def deep(self) -> bool:
        """Whether layers are drawn in several columns."""
        return self.architecture.n_layer > COLUMN

    @cached_property
    def architecture(self) -> Architecture:
        """The architecture as it is drawn."""
        described = describe(self.config)
        merges = self.style == "llm-viz" and described.n_layer > COLUMN
        return llm_viz.merged(described) if merges else described

    @cached_property
    def sizes(self) -> Sizes:
        """The value of each size."""
        return self.architecture.sizes(self.tokens, self.batch)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return self.architecture.kinds

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All kinds in block order, as runs."""
        found: list[Run] = []
        start = 0
        for section in self.architecture.sections:
            for n, kind in enumerate(section.kinds, start):
                if found and found[-1].section is section and found[-1].group is kind.group:
                    found[-1] = found[-1]._replace(kinds=slice(found[-1].kinds.start, n + 1))
                else:
                    found.append(Run(section, slice(n, n + 1), kind.group))
            start += len(section.kinds)
        return tuple(found)

    def members(self, run: Run) -> int:
        """Return the number of blocks of each kind in a layer."""
        return self.sizes[run.group.count] if run.group else 1

    @cached_property
    def cells(self) -> Ints:
        """[K, 3]: number of cells along x, y and z of a block of each kind."""
        return np.array([kind.shape(self.sizes) for kind in self.kinds], np.int64)

    @cached_property
    def size(self) -> Floats:
        """[K, 3]: size of a block of each kind."""
        return self.cells.astype(np.float64) * CELL

    @property
    def count(self) -> int:
        """The number of blocks."""
        return self.count_in(range(self.architecture.n_layer))

    def repeats(self, section: Section, layers: range) -> int:
        """Return how often a section occurs with these layers: those before the layers with the first, those after
        them with the last.
        """
        if section.layers is not None:
            return len(layers)
        sections = self.architecture.sections
        before = sections.index(section) < sections.index(self.architecture.stack)
        return int((0 if before else self.architecture.n_layer - 1) in layers)

    def count_in(self, layers: range, heads: range | None = None) -> int:
        """Return the number of blocks of these layers and heads."""
        every = range(self.sizes["H"]) if heads is None else heads
        return sum(run.length * len(self.chosen(run, every)) * self.repeats(run.section, layers) for run in self.runs)

    def layers(self, which: slice | range | None = None) -> range:
        """Return a slice or range of layers as a range (default: all). Raises ValueError if it is out of range."""
        return _select(which, self.architecture.n_layer, "layers")

    def heads(self, which: slice | range | None = None) -> range:
        """Return a slice or range of heads as a range (default: all). Raises ValueError if it is out of range."""
        return _select(which, self.sizes["H"], "heads")

    def chosen(self, run: Run, heads: range) -> range:
        """Return the members of a run's group that are drawn beside these heads."""
        if run.group is None:
            return range(1)
        count, all_heads = self.members(run), self.sizes["H"]
        if len(heads) == all_heads or count == all_heads:
            return heads if count == all_heads else range(count)
        shared = all_heads // count
        return range(heads.start // shared, -(-heads.stop // shared)) if heads else range(0)


@dataclass(frozen=True)
class Geometry(Plan):
    """The positions of a plan's blocks, in model units: x right, y down, z toward the viewer.

    G is the number of columns of layers, R of layers in a column, H of heads. A kind outside the layers has the same x
    in every column and the same y in every row.
    """

    x: Floats  # [K, G] left edges
    y: Floats  # [K, R] tops
    z: Floats  # [3, H] centres of the blocks at the front, middle and back of each head

    def back(self, run: Run, members: slice = slice(None)) -> Floats:
        """Return the minimum z of the blocks of a run: [k, members], or [k, 1] if it has no group."""
        depth = self.size[run.kinds, 2, None]
        if run.group is None:
            return 0 - depth / 2
        places = self.z[:, self._leads[run.group.name][members]]
        return places[[self._depth(kind) for kind in self.kinds[run.kinds]]] - depth / 2

    def _depth(self, kind: Kind) -> int:
        return _DEPTHS.index("middle" if kind.stacked and self.deep else kind.depth)

    @cached_property
    def _leads(self) -> dict[str, Ints]:
        """The head beside which each member is drawn, [members], by group."""
        found = {}
        for group in self.architecture.groups:
            numbers = np.arange(self.sizes[group.count])
            names = {**self.architecture.fixed_sizes, group.letter: numbers}
            found[group.name] = group.lead.evaluate(names) + 0 * numbers
        return found

    @cached_property
    def bounds(self) -> Box:
        """The bounding box of all blocks."""
        backs = []
        for run in self.runs:
            ends = slice(None, None, max(1, self.members(run) - 1))  # the first and the last member
            backs.append(self.back(run, ends))
        least = np.stack([self.x.min(1), self.y.min(1), np.concatenate([back.min(1) for back in backs])])
        most = np.stack([self.x.max(1), self.y.max(1), np.concatenate([back.max(1) for back in backs])])
        return Box(least.min(1).tolist(), (most + self.size.T).max(1).tolist())

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the geometry as arrays, for storage."""
        request = {"config": self.config.to_mapping(), "tokens": self.tokens, "batch": self.batch, "style": self.style}
        return {"request": np.frombuffer(json.dumps(request).encode(), np.uint8), "x": self.x, "y": self.y, "z": self.z}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Geometry:
        """Return the geometry from the arrays of `to_arrays`."""
        request = json.loads(arrays["request"].tobytes())
        config = config_from_mapping(request.pop("config"))
        return cls(config, **request, x=arrays["x"], y=arrays["y"], z=arrays["z"])


def _select(which: slice | range | None, n: int, what: str) -> range:
    span = which if isinstance(which, range) else range(n)[which or slice(None)]
    if span.step != 1 or not 0 <= span.start <= span.stop <= n:
        raise ValueError(f"{what} {span.start}:{span.stop}:{span.step}: must be a range within 0:{n} with step 1.")
    return span
