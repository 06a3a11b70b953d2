"""A model's architecture: sections, tensors and blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from worker.describe.blocks import GROUPS, LAYER, Group, Kind, Label, Landmark, Step, Tensor
from worker.describe.expression import Expression, Sizes
from worker.describe.formula import Formula, Input

RESIDUAL = "{residual}"  # placeholder: the residual stream before a layer, or after the last one
_NUMBER = re.compile(r"(?<=\.)(?:0|[1-9]\d{0,8})(?=\.)", re.ASCII)


@dataclass(frozen=True)
class Section:
    """A part of a model that is computed once, or once per layer, in order of computation.

    `shelves` are the y coordinates of its blocks. Each is an expression of `top` (the start of the section or layer),
    the shelves before it, the cell side `s`, the margin `m`, sizes, and `deep` (1 if layers are drawn in several
    columns, else 0). The last shelf, "end", is the `top` of the next section or layer.
    """

    name: str
    weights: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    kinds: tuple[Kind, ...]
    shelves: Mapping[str, str]
    layers: int | None = None  # None: computed once
    enters: str = ""  # for layers: the residual stream's block before the first layer
    leaves: str = ""  # for layers: the residual stream's block after each layer

    heights: Mapping[str, Expression] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names, heights = ["top", "s", "m", "deep"], {}
        for name, text in self.shelves.items():
            heights[name] = Expression(text, frozenset(names), "+ - * / max")
            names.append(name)
        object.__setattr__(self, "heights", MappingProxyType(heights))
        unplaced = [kind.id for kind in self.kinds if kind.shelf not in self.shelves]
        if unplaced:
            raise ValueError(f"Section {self.name!r} does not define the shelf of {', '.join(unplaced)}.")


class UnknownBlockError(LookupError):
    """The model has no block with this id."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """Everything about a model except its values. `fixed_sizes` are the sizes that no request changes."""

    fixed_sizes: Mapping[str, int]
    sections: tuple[Section, ...] = field(repr=False)
    labels: tuple[Label, ...] = field(default=(), repr=False)
    steps: tuple[Step, ...] = field(default=(), repr=False)

    def sizes(self, tokens: int | None = None, batch: int = 1) -> Sizes:
        """Return the value of each size for `batch` sequences of `tokens` positions (default: the whole context)."""
        return Sizes({"B": batch, "T": self.fixed_sizes["N"] if tokens is None else tokens, **self.fixed_sizes})

    @property
    def stack(self) -> Section:
        """The section that is repeated for each layer."""
        return next(section for section in self.sections if section.layers is not None)

    @property
    def n_layer(self) -> int:
        return self.stack.layers or 0

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """Every kind of block, in block order."""
        return tuple(kind for section in self.sections for kind in section.kinds)

    @cached_property
    def kinds_by_id(self) -> Mapping[str, Kind]:
        return {kind.id: kind for kind in self.kinds}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the layers, in the order of their first kinds."""
        return tuple(dict.fromkeys(kind.group for kind in self.kinds if kind.group))

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        return tuple(tensor for section in self.sections for tensor in section.weights)

    @cached_property
    def values(self) -> tuple[Tensor, ...]:
        return tuple(tensor for section in self.sections for tensor in section.values)

    def all_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and tensor of every weight, layer by layer."""
        for section in self.sections:
            yield from _expand(section.weights, section.layers)

    def all_values(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and tensor of every value of a trace, in order of computation."""
        for section in self.sections:
            yield from _expand(section.values, section.layers)

    def landmark(self, landmark: Landmark) -> Tensor:
        """Return the value that has this role in every family."""
        return next(tensor for tensor in self.values if tensor.landmark == landmark)

    def same_values(self, name: str) -> tuple[str, ...]:
        """Return `name` and the names of equal values: the output of a layer is the input of the next."""
        leaving, entering = self.landmark("leaving"), self.landmark("entering")
        before, _, after = leaving.name.partition(LAYER)
        number = name.removeprefix(before).removesuffix(after)
        if not number.isdecimal() or leaving.name_in(int(number)) != name or int(number) + 1 >= self.n_layer:
            return (name,)
        return name, entering.name_in(int(number) + 1)

    def block_id(self, pattern: str, layer: int | None = None, member: int | None = None) -> str:
        """Return a block's id from its pattern, layer and group member.

        Without a layer, `{residual}` is the output of the last layer.
        """
        if pattern == RESIDUAL:
            before = (self.n_layer if layer is None else layer) - 1
            return self.stack.leaves.replace(LAYER, str(before)) if before >= 0 else self.stack.enters
        return of_member(pattern, member).replace(LAYER, str(layer))

    def find(self, id: str) -> Block:
        """Return the block with this id. Raises UnknownBlockError."""
        kind = self._skeletons.get(_NUMBER.sub("#", id))
        if kind is None or "#" in id:
            known = {kind.part: self.block_id(kind.id, 0, 0) for kind in reversed(self.kinds)}
            some = ", ".join(known[part] for part in ("embedding", "norm", "query", "logits") if part in known)
            raise UnknownBlockError(f"There is no block {id!r}. The trace's layout lists the blocks, such as {some}.")
        numbers = [*map(int, _NUMBER.findall(id))]
        layer = numbers[0] if LAYER in kind.id else None
        member = numbers[-1] if kind.group else None
        counts = [("layer", layer, self.n_layer)]
        if kind.group:
            counts.append((kind.group.name.replace("_", " "), member, Sizes(self.fixed_sizes)[kind.group.count]))
        for what, number, count in counts:
            if number is not None and number >= count:
                raise UnknownBlockError(f"There is no block {id!r}: {what} must be from 0 to {count - 1}.")
        return Block(self, kind, layer, member)

    @cached_property
    def _skeletons(self) -> Mapping[str, Kind]:
        return {re.sub(r"{\w+}", "#", kind.id): kind for kind in self.kinds}


def of_member(pattern: str, member: int | None) -> str:
    """Replace the placeholder of a group in an id pattern by the number of a member."""
    for group in GROUPS.values():
        if group.placeholder in pattern:
            return pattern.replace(group.placeholder, str(member))
    return pattern


def _expand(tensors: tuple[Tensor, ...], layers: int | None) -> Iterator[tuple[str, Tensor]]:
    if layers is None:
        yield from ((tensor.name, tensor) for tensor in tensors)
    else:
        for layer in range(layers):
            yield from ((tensor.name_in(layer), tensor) for tensor in tensors)


@dataclass(frozen=True)
class Block:
    """One block: a kind, in a layer, of a group member."""

    architecture: Architecture = field(repr=False)
    kind: Kind
    layer: int | None
    member: int | None

    @property
    def id(self) -> str:
        return self.architecture.block_id(self.kind.id, self.layer, self.member)

    @property
    def formula(self) -> Formula | None:
        return self.kind.formula_in(self.layer)

    @property
    def tensor(self) -> str:
        """The name of the tensor that holds its values."""
        return (self.kind.tensor or "").replace(LAYER, str(self.layer))

    @property
    def members(self) -> dict[str, int]:
        """Its member number, by the letter of its group in an index."""
        return {} if self.kind.group is None or self.member is None else {self.kind.group.letter: self.member}

    def source(self, input: Input, member: int | None = None) -> Block:
        """Return the block that an input of its formula reads; `member` selects one if the input reads all members."""
        if member is None:
            member = input.member_number(self.members, self.architecture.fixed_sizes, self.member)
        return self.architecture.find(self.architecture.block_id(input.block, self.layer, member))

    @property
    def values(self) -> list[str]:
        """The names of its values and of those its formula reads: what a trace must contain to explain its cells."""
        inputs = self.formula.inputs if self.formula else ()
        read = (self, *(self.source(input, 0 if input.each else None) for input in inputs))
        return list(dict.fromkeys(block.tensor for block in read if block.kind.role != "weight"))
