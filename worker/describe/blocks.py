"""Tensors, and the kinds of block that show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from worker.describe.expression import Expression, Sizes
from worker.describe.formula import Formula
from worker.describe.index import Index

Role = Literal["weight", "activation", "statistic"]
#: What a reader of any model looks for: "entering" and "leaving" are the residual stream before and after a layer.
Landmark = Literal["tokens", "entering", "leaving", "scores", "pattern", "logits", "probs"]
Depth = Literal["front", "middle", "back"]
Anchor = Literal["left", "middle", "right"]
Lane = Literal["stream", "norm", "attention", "aside"]

#: What a kind of block is in any transformer, for a front end that has to find it.
Part = Literal[
    "tokens", "embedding", "resid", "norm", "query", "key", "value", "scores", "pattern", "mixed", "attention_out",
    "mlp", "logits", "probs",
]  # fmt: skip

LAYER = "{layer}"


@dataclass(frozen=True)
class Tensor:
    """A weight, activation or statistic: its name (with `{layer}` where there is one a layer) and its axes."""

    name: str
    dims: tuple[str, ...]
    role: Role
    parts: tuple[str, ...] = ()  # of a weight: what it counts as, in equal shares
    dtype: str = "float32"
    landmark: Landmark | None = None
    is_table: bool = False  # of tokens or positions, which counts without embeddings leave out
    is_masked: bool = False  # −∞ stands in it for what is not there
    is_exact: bool = False  # always stored in the precision in which it was computed
    read_later: bool = False  # by the passes for the positions that follow
    alias_of: str | None = None  # a weight that has the values of another

    @property
    def is_layered(self) -> bool:
        return LAYER in self.name

    def name_in(self, layer: int) -> str:
        """Its name in a layer."""
        return self.name.replace(LAYER, str(layer))

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(sizes[dim] for dim in self.dims)


@dataclass(frozen=True)
class Group:
    """What a layer has several of, each with the same kinds of block: heads, heads of keys and values, experts.

    `lead` says beside which head member number h, g or e stands.
    """

    name: str  # as in the placeholder of its ids: {head}
    letter: str  # as in an index
    count: str  # a size
    lead: Expression

    @property
    def placeholder(self) -> str:
        return f"{{{self.name}}}"


HEADS = Group("head", "h", "H", Expression("h", frozenset("h")))
KV_HEADS = Group("kv_head", "g", "G", Expression("g*R+(R-1)//2", frozenset("g")))
GROUPS: Mapping[str, Group] = {group.name: group for group in (HEADS, KV_HEADS)}


@dataclass(frozen=True)
class Spot:
    """Where along x a kind stands: with its `anchor` at a lane, less so many cells and margins; or on the left of
    another kind, `beside`, with so many margins between them.
    """

    lane: Lane = "stream"
    anchor: Anchor = "middle"
    cells: str = "0"
    margins: int = 0
    beside: str | None = None  # the id pattern of another kind, which comes before or after


@dataclass(frozen=True)
class Kind:
    """A kind of block: one in the model, one a layer, or one for each member of a group, as its id pattern says.

    `cells` are the sizes along x, y and z. A block stands on a shelf of its section, and where it is one of a group
    at the front, in the middle or at the back of its member's place; `stacked` kinds are all in the middle where
    layers stand in several columns.
    """

    id: str
    name: str
    role: Role
    cells: tuple[str, str, str]
    tensor: str | None
    index: Index
    formula: Formula | None
    spot: Spot
    shelf: str
    minor: bool = False  # small enough to leave out of a picture of a large model
    depth: Depth = "middle"
    stacked: bool = False
    part: Part | None = None
    merges: tuple[str, ...] = ()  # the kinds that are drawn as this one

    @cached_property
    def group(self) -> Group | None:
        return next((group for group in GROUPS.values() if group.placeholder in self.id), None)

    @property
    def scope(self) -> str:
        """What there is one of it in: "model", "layer" or the name of a group."""
        return self.group.name if self.group else "layer" if LAYER in self.id else "model"

    @property
    def short(self) -> str:
        """The end of the id, which says what it is: `ln1.out`, `q_weight`, `mlp.pre`."""
        return self.id.rpartition("}.")[2]

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        return tuple(sizes[size] for size in self.cells)


@dataclass(frozen=True)
class Label:
    """What belongs together in a picture: a name, and the kinds in it, in the order in which they are listed."""

    id: str
    name: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A step of the computation, which a tour walks: what it is called, what happens in it, in a sentence and as a
    formula (`_` puts the next character below the line), and the kinds of block that are computed in it.
    """

    id: str
    name: str
    text: str
    formula: str
    kinds: tuple[str, ...]
