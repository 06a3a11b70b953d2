"""The geometry of a model's blocks in the compact form that is kept: any size of model fits in it.

A layout is separable. Layers stand in columns of twelve; x depends only on the column, y only on the place within
it, z only on the head. So a billion blocks are a few small arrays, from which every reading is broadcast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from worker.describe.architecture import EMBEDDING, HEADS, LAYER_NORM_1, LAYER_REST, UNEMBEDDING, Index, Kind, sizes
from worker.families.config import MAX_BATCH, Config, ConfigError

Style = Literal["columns", "llm-viz"]
STYLES: tuple[Style, ...] = get_args(Style)

CELL = 1.5  # side of a cell, in model units
COLUMN = 12  # layers that stand one above the other
MOST_CELLS = 2**31 - 1  # along one axis: they are told as int32

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HEAD_ID = "blocks.{layer}.attn.heads.{head}."


def _merged(id: str, name: str, *like: str) -> tuple[Kind, tuple[str, ...]]:
    """A box for three kinds of block of a head: it is their rows, Q's above K's above V's, so no one tensor's."""
    parts = tuple(f"{HEAD_ID}{part}" for part in like)
    first = next(kind for kind in HEADS if kind.id == parts[0])
    width, _, depth = first.cells
    return Kind(f"{HEAD_ID}{id}", name, first.role, (width, "3A", depth), None, Index("")), parts


_MERGED = (
    _merged("qkv_weight", "QKV Weights", "q_weight", "k_weight", "v_weight"),
    _merged("qkv", "QKV vectors", "q", "k", "v"),
)
#: The merged kinds' ids, with the ids of the kinds that each stands for, from the top down.
MERGED: Mapping[str, tuple[str, ...]] = {kind.id: parts for kind, parts in _MERGED}
_IN_MERGED = {part for parts in MERGED.values() for part in parts}
MERGED_HEADS = (*(kind for kind, _ in _MERGED), *(kind for kind in HEADS if kind.id not in _IN_MERGED))


class Sections(NamedTuple):
    """The kinds in block order: the model's first, those of a layer (before, in and after its heads), its last."""

    embedding: slice
    before_heads: slice
    heads: slice
    after_heads: slice
    unembedding: slice


class Box(NamedTuple):
    """Two opposite corners, [x, y, z] each."""

    min: list[float]
    max: list[float]


@dataclass(frozen=True)
class Plan:
    """What is asked, and all that follows from it but the places: which blocks there are, and how large.

    K are the kinds of block, in block order. Raises ConfigError, naming `tokens`, `batch`, `style` or the size of the
    configuration that cannot be.
    """

    config: Config
    tokens: int
    batch: int
    style: Style

    def __post_init__(self) -> None:
        errors = {}
        for name, most in (("tokens", self.config.n_positions), ("batch", MAX_BATCH)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                errors[name] = [f"{value!r} is not allowed: a whole number from 1 to {most:,}."]
        if self.style not in STYLES:
            errors["style"] = [f"{self.style!r} is not known: one of {', '.join(STYLES)}."]
        heads, width = self.config.n_head, self.config.d_head
        if heads * width > MOST_CELLS:
            errors["d_head"] = [f"{heads:,} heads of {width:,} are not allowed: at most {MOST_CELLS:,} in all."]
        if errors:
            raise ConfigError(errors)

    @property
    def cell(self) -> float:
        return CELL

    @property
    def margin(self) -> float:
        return max(12.0, self.config.n_embd / 10)

    @property
    def large(self) -> bool:
        """Whether a head's Q, K and V share one lane, to save depth."""
        return self.config.n_layer > COLUMN

    @property
    def merges(self) -> bool:
        """Whether they are drawn as one, in the kinds of MERGED."""
        return self.large and self.style == "llm-viz"

    @cached_property
    def sizes(self) -> dict[str, int]:
        """What each letter in the cells of a kind stands for."""
        return sizes(self.config, self.tokens, self.batch) | {"3A": 3 * self.config.d_head}

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for section in self._by_section for kind in section)

    @cached_property
    def sections(self) -> Sections:
        stops = list(accumulate(map(len, self._by_section)))
        return Sections(*map(slice, [0, *stops], stops))

    @property
    def _by_section(self) -> tuple[tuple[Kind, ...], ...]:
        heads = MERGED_HEADS if self.merges else HEADS
        return EMBEDDING, LAYER_NORM_1, heads, LAYER_REST, UNEMBEDDING

    @cached_property
    def cells(self) -> Ints:
        """[K, 3]: how many cells a block of each kind has along x, y and z."""
        return np.array([[self.sizes[dim] for dim in kind.cells] for kind in self.kinds], np.int64)

    @cached_property
    def size(self) -> Floats:
        """[K, 3]: the extent of a block of each kind."""
        return self.cells.astype(np.float64) * CELL

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return self.count_in(range(self.config.n_layer))

    def count_in(self, layers: range) -> int:
        """How many blocks come with these layers: the first brings what is before it, the last what is after it."""
        embedding, before, heads, after, unembedding = map(len, self._by_section)
        of_layer = before + heads * self.config.n_head + after
        last = self.config.n_layer - 1
        return (0 in layers) * embedding + len(layers) * of_layer + (last in layers) * unembedding

    def layers(self, which: slice | range | None = None) -> range:
        """The layers that a slice or range means; all by default. Raises ValueError where there are none such."""
        return _chosen(which, self.config.n_layer, "layers")

    def heads(self, which: slice | range | None = None) -> range:
        """The heads that a slice or range means; all by default. Raises ValueError where there are none such."""
        return _chosen(which, self.config.n_head, "heads")


@dataclass(frozen=True)
class Geometry(Plan):
    """Where the blocks of a plan stand: three arrays of float64, in model units.

    x right, y down, z toward the viewer. G are the columns of layers, R the layers in a column, H the heads. A kind
    that has one block in the model has the same x and y throughout.
    """

    x: Floats  # [K, G] left edges
    y: Floats  # [K, R] tops
    z: Floats  # [3, H] middles of each head's three lanes: Q; K, where also the rest of the head is; V

    def back(self, kinds: slice, heads: slice = slice(None)) -> Floats:
        """[k, H]: the z at which blocks of these kinds, all of one section, begin; [k, 1] if they are of no head."""
        depth = self.size[kinds, 2, None]
        if kinds != self.sections.heads:
            return 0 - depth / 2
        return self.z[:, heads][[self._lane(kind) for kind in self.kinds[kinds]]] - depth / 2

    def _lane(self, kind: Kind) -> int:
        name = kind.id.removeprefix(HEAD_ID)
        stacked = self.large and not name.endswith("_bias")
        return 1 if stacked else {"q": 0, "v": 2}.get(name.partition("_")[0], 1)

    @cached_property
    def bounds(self) -> Box:
        """The box that just holds every block."""
        ends = slice(None, None, max(1, self.config.n_head - 1))  # the first and the last head
        backs = [self.back(kinds, ends) for kinds in self.sections]
        least = np.stack([self.x.min(1), self.y.min(1), np.concatenate([back.min(1) for back in backs])])
        most = np.stack([self.x.max(1), self.y.max(1), np.concatenate([back.max(1) for back in backs])])
        return Box(least.min(1).tolist(), (most + self.size.T).max(1).tolist())

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays, for a store that holds only those."""
        request = {"config": self.config.to_mapping(), "tokens": self.tokens, "batch": self.batch, "style": self.style}
        return {"request": np.frombuffer(json.dumps(request).encode(), np.uint8), "x": self.x, "y": self.y, "z": self.z}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Geometry:
        """What `to_arrays` made arrays of."""
        request = json.loads(arrays["request"].tobytes())
        config = Config.from_mapping(request.pop("config"))
        return cls(config, **request, x=arrays["x"], y=arrays["y"], z=arrays["z"])


def _chosen(which: slice | range | None, n: int, what: str) -> range:
    span = which if isinstance(which, range) else range(n)[which or slice(None)]
    if span.step != 1 or not 0 <= span.start <= span.stop <= n:
        raise ValueError(f"{what} {span.start}:{span.stop}:{span.step}: a range of 0:{n} in steps of 1 is wanted.")
    return span
