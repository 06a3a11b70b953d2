"""Tensors, kinds of block, labels and tour steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from worker.describe.expression import Expression, Sizes
from worker.describe.formula import Formula
from worker.describe.index import Index

Role = Literal["weight", "activation", "statistic"]
#: Values that every family has; "entering" and "leaving" are the residual stream before and after a layer.
Landmark = Literal["tokens", "entering", "leaving", "scores", "pattern", "logits", "probs"]
Depth = Literal["front", "middle", "back"]
Anchor = Literal["left", "middle", "right"]
Lane = Literal["stream", "norm", "attention", "aside"]

#: What a kind of block is in any transformer, so that a front end can find it.
Part = Literal[
    "tokens", "embedding", "resid", "norm", "query", "key", "value", "scores", "pattern", "mixed", "attention_out",
    "mlp", "logits", "probs",
]  # fmt: skip

LAYER = "{layer}"


@dataclass(frozen=True)
class Tensor:
    """A weight, activation or statistic: its name (with `{layer}` if each layer has one) and its axes."""

    name: str
    dims: tuple[str, ...]
    role: Role
    parts: tuple[str, ...] = ()  # of a weight: the parts it is counted under, in equal shares
    dtype: str = "float32"
    landmark: Landmark | None = None
    is_table: bool = False  # a token or position table, not counted as a non-embedding parameter
    is_masked: bool = False  # contains −∞ where attention is masked
    is_exact: bool = False  # always stored in the precision it was computed in
    read_later: bool = False  # read by the passes for later positions
    alias_of: str | None = None  # the weight that it is tied to

    @property
    def is_layered(self) -> bool:
        return LAYER in self.name

    def name_in(self, layer: int) -> str:
        """Return its name in a layer."""
        return self.name.replace(LAYER, str(layer))

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(sizes[dim] for dim in self.dims)


@dataclass(frozen=True)
class Group:
    """Repeated parts of a layer with the same kinds of block: attention heads, key/value heads, experts.

    `lead` is the head that member h, g or e is drawn beside.
    """

    name: str  # in the placeholder of ids: {head}
    letter: str  # in an index
    count: str  # the size that is the number of members
    lead: Expression

    @property
    def placeholder(self) -> str:
        return f"{{{self.name}}}"


HEADS = Group("head", "h", "H", Expression("h", frozenset("h")))
KV_HEADS = Group("kv_head", "g", "G", Expression("g*R+(R-1)//2", frozenset("g")))
GROUPS: Mapping[str, Group] = {group.name: group for group in (HEADS, KV_HEADS)}


@dataclass(frozen=True)
class Spot:
    """The x position of a kind: its `anchor` at a lane, minus `cells` and `margins`; or `margins` to the left of the
    kind `beside`.
    """

    lane: Lane = "stream"
    anchor: Anchor = "middle"
    cells: str = "0"
    margins: int = 0
    beside: str | None = None  # the id pattern of another kind, listed before or after this one


@dataclass(frozen=True)
class Kind:
    """A kind of block: its id pattern shows whether there is one per model, per layer or per group member.

    `cells` are the sizes along x, y and z. `shelf` is the y position. `depth` is the z position among the blocks of
    the same group member; `stacked` kinds are all in the middle if layers are drawn in several columns.
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
    minor: bool = False  # may be left out of a picture of a large model
    depth: Depth = "middle"
    stacked: bool = False
    part: Part | None = None
    merges: tuple[str, ...] = ()  # the kinds that this one is drawn instead of
    by_layer: tuple[Formula, ...] = ()  # the formula in each layer, if layers differ; `formula` is then the first

    @cached_property
    def group(self) -> Group | None:
        return next((group for group in GROUPS.values() if group.placeholder in self.id), None)

    @property
    def scope(self) -> str:
        """Where there is one of it: in each "model", "layer" or member of a group (its name)."""
        return self.group.name if self.group else "layer" if LAYER in self.id else "model"

    @property
    def short_name(self) -> str:
        """The end of the id pattern: `ln1.out`, `q_weight`, `mlp.pre`."""
        return self.id.rpartition("}.")[2]

    def formula_in(self, layer: int | None) -> Formula | None:
        """Return its formula in a layer."""
        return self.formula if layer is None or not self.by_layer else self.by_layer[layer]

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        return tuple(sizes[size] for size in self.cells)


@dataclass(frozen=True)
class Label:
    """A named group of blocks in a picture: the kinds in it, in listing order."""

    id: str
    name: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A step of the tour: a name, a sentence, a formula (`_` makes the next character a subscript) and the kinds of
    block that it computes.
    """

    id: str
    name: str
    text: str
    formula: str
    kinds: tuple[str, ...]
