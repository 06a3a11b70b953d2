"""A whole model: its sections in order of computation, each with weights, values and kinds of block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from worker.describe.blocks import GROUPS, LAYER, Group, Kind, Label, Landmark, Step, Tensor
from worker.describe.expression import Expression, Sizes
from worker.describe.formula import Input

RESIDUAL = "{residual}"  # stands for the block of the residual stream that enters a layer, or leaves the last
_NUMBER = re.compile(r"(?<=\.)(?:0|[1-9]\d{0,8})(?=\.)", re.ASCII)


@dataclass(frozen=True)
class Section:
    """A part of a model that is computed once, or once a layer. `shelves` are the heights at which its blocks stand:

    each an expression of `top`, where the section (or layer) begins, of the shelves before it, of a cell's side s and
    the margin m, of sizes, and of `deep`, 1 where layers stand in several columns and else 0. The last one, "end",
    is where the next begins.
    """

    name: str
    weights: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    kinds: tuple[Kind, ...]
    shelves: Mapping[str, str]
    layers: int | None = None
    enters: str = ""  # of layers: the block of the residual stream before the first,
    leaves: str = ""  # and the one after each

    heights: Mapping[str, Expression] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names, heights = ["top", "s", "m", "deep"], {}
        for name, text in self.shelves.items():
            heights[name] = Expression(text, frozenset(names), "+ - * / max")
            names.append(name)
        object.__setattr__(self, "heights", MappingProxyType(heights))
        homeless = [kind.id for kind in self.kinds if kind.shelf not in self.shelves]
        if homeless:
            raise ValueError(f"Section {self.name!r}: {', '.join(homeless)} stands on no shelf of it.")


class UnknownBlockError(LookupError):
    """No block of this id in the model; says which there are."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """Everything about a model but its numbers. `known` are the sizes that do not depend on what is asked of it."""

    fixed_sizes: Mapping[str, int]
    sections: tuple[Section, ...] = field(repr=False)
    labels: tuple[Label, ...] = field(default=(), repr=False)
    steps: tuple[Step, ...] = field(default=(), repr=False)

    def sizes(self, tokens: int | None = None, batch: int = 1) -> Sizes:
        """What each size is for `tokens` positions (all there can be, by default) of `batch` sequences."""
        return Sizes({"B": batch, "T": self.fixed_sizes["N"] if tokens is None else tokens, **self.fixed_sizes})

    @property
    def stack(self) -> Section:
        """The section of the layers."""
        return next(section for section in self.sections if section.layers is not None)

    @property
    def n_layer(self) -> int:
        return self.stack.layers or 0

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """Every kind of block, in the order of a model's blocks: those of a layer, and of a group in it, repeat."""
        return tuple(kind for section in self.sections for kind in section.kinds)

    @cached_property
    def kinds_by_id(self) -> Mapping[str, Kind]:
        return {kind.id: kind for kind in self.kinds}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups that its layers have, in the order of their first kinds."""
        return tuple(dict.fromkeys(kind.group for kind in self.kinds if kind.group))

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        return tuple(tensor for section in self.sections for tensor in section.weights)

    @cached_property
    def values(self) -> tuple[Tensor, ...]:
        return tuple(tensor for section in self.sections for tensor in section.values)

    def all_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight by its name, layer after layer."""
        for section in self.sections:
            yield from _expanded(section.weights, section.layers)

    def all_values(self) -> Iterator[tuple[str, Tensor]]:
        """Every value of a trace by its name, in order of computation."""
        for section in self.sections:
            yield from _expanded(section.values, section.layers)

    def landmark(self, landmark: Landmark) -> Tensor:
        """The value that a reader of any model looks for."""
        return next(tensor for tensor in self.values if tensor.landmark == landmark)

    def same_values(self, name: str) -> tuple[str, ...]:
        """The names of a value and of those that repeat it: what leaves a layer enters the next."""
        leaving, entering = self.landmark("leaving"), self.landmark("entering")
        before, _, after = leaving.name.partition(LAYER)
        number = name.removeprefix(before).removesuffix(after)
        if not number.isdecimal() or leaving.name_in(int(number)) != name or int(number) + 1 >= self.n_layer:
            return (name,)
        return name, entering.name_in(int(number) + 1)

    def block_id(self, pattern: str, layer: int | None = None, member: int | None = None) -> str:
        """The id of one block, of this layer and this member of its group.

        Without a layer, `{residual}` is what leaves the last layer.
        """
        if pattern == RESIDUAL:
            before = (self.n_layer if layer is None else layer) - 1
            return self.stack.leaves.replace(LAYER, str(before)) if before >= 0 else self.stack.enters
        return of_member(pattern, member).replace(LAYER, str(layer))

    def find(self, id: str) -> Block:
        """The block of an id. Raises UnknownBlockError."""
        kind = self._skeletons.get(_NUMBER.sub("#", id))
        if kind is None or "#" in id:
            known = {kind.part: self.block_id(kind.id, 0, 0) for kind in reversed(self.kinds)}
            some = ", ".join(known[part] for part in ("embedding", "norm", "query", "logits") if part in known)
            raise UnknownBlockError(f"There is no block {id!r}: the layout of this trace lists them, such as {some}.")
        numbers = [*map(int, _NUMBER.findall(id))]
        layer = numbers[0] if LAYER in kind.id else None
        member = numbers[-1] if kind.group else None
        counts = [("layer", layer, self.n_layer)]
        if kind.group:
            counts.append((kind.group.name.replace("_", " "), member, Sizes(self.fixed_sizes)[kind.group.count]))
        for what, number, count in counts:
            if number is not None and number >= count:
                raise UnknownBlockError(
                    f"There is no block {id!r}: the {what}s of this model go from 0 to {count - 1}."
                )
        return Block(self, kind, layer, member)

    @cached_property
    def _skeletons(self) -> Mapping[str, Kind]:
        return {re.sub(r"{\w+}", "#", kind.id): kind for kind in self.kinds}


def of_member(pattern: str, member: int | None) -> str:
    """A pattern of ids for one member of its group."""
    for group in GROUPS.values():
        if group.placeholder in pattern:
            return pattern.replace(group.placeholder, str(member))
    return pattern


def _expanded(tensors: tuple[Tensor, ...], layers: int | None) -> Iterator[tuple[str, Tensor]]:
    if layers is None:
        yield from ((tensor.name, tensor) for tensor in tensors)
    else:
        for layer in range(layers):
            yield from ((tensor.name_in(layer), tensor) for tensor in tensors)


@dataclass(frozen=True)
class Block:
    """A kind of block in a layer, and of a member of its group."""

    architecture: Architecture = field(repr=False)
    kind: Kind
    layer: int | None
    member: int | None

    @property
    def id(self) -> str:
        return self.architecture.block_id(self.kind.id, self.layer, self.member)

    @property
    def tensor(self) -> str:
        """The name of the tensor whose values fill it."""
        return (self.kind.tensor or "").replace(LAYER, str(self.layer))

    @property
    def members(self) -> dict[str, int]:
        """Its number in its group, by the letter that an index has for it."""
        return {} if self.kind.group is None or self.member is None else {self.kind.group.letter: self.member}

    def source(self, given: Input, member: int | None = None) -> Block:
        """The block that an input of its formula reads; of this member where it reads every one's."""
        if member is None:
            member = given.number(self.members, self.architecture.fixed_sizes, self.member)
        return self.architecture.find(self.architecture.block_id(given.block, self.layer, member))

    @property
    def values(self) -> list[str]:
        """The names of the values that its cells are and are made of: what a trace has to hold to explain them."""
        inputs = self.kind.formula.inputs if self.kind.formula else ()
        read = (self, *(self.source(given, 0 if given.each else None) for given in inputs))
        return list(dict.fromkeys(block.tensor for block in read if block.kind.role != "weight"))


def value_name(name: str) -> str:
    """A value's name from ours or from TransformerLens's (`hook_q` in a layer's attention), patterns included.

    Its `hook_normalized` is the whole output of a norm, and its `hook_attn_scores` are masked, as ours are.
    """
    for theirs, ours in {"hook_attn_scores": "scores", "hook_normalized": "out", "hook_": ""}.items():
        name = name.replace(theirs, ours)
    return name
