"""A geometry as JSON: blocks with tensors and formulas, and groups.

Blocks share the objects that are equal in every layer: they must not be modified.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from itertools import groupby
from typing import Any

from worker.describe.architecture import RESIDUAL, of_member
from worker.describe.blocks import GROUPS, LAYER, Kind, Label
from worker.describe.formula import Formula, Input
from worker.describe.index import Index
from worker.layout.geometry import COLUMN, Geometry, Run

FIELDS = (
    "id", "name", "role", "layer", "head", "position", "size", "cells", "dims", "minor", "tensor", "formula",
)  # fmt: skip

Rows = list[list[int]]
Layer = int | None
Block = Callable[[Layer], dict[str, Any]]  # returns a block in a layer
Part = Callable[[Layer], Any]  # returns a field of it


def blocks(
    geometry: Geometry,
    layers: slice | range | None = None,
    heads: slice | range | None = None,
    fields: Collection[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the blocks of these layers and heads in block order, each with these of FIELDS (default: all).

    Blocks before the layers come with the first layer, blocks after them with the last. `tensor.index` has a row
    [a, b, c, d] per axis: the value of cell (i, j, k) is at a·i + b·j + c·k + d. The index of a formula's input has
    rows [a, b, c, e, d]: cell a·i + b·j + c·k + e·s + d of the input, with s the summation index.

    Raises ValueError for layers, heads or fields that do not exist.
    """
    unknown = sorted(set(fields or ()) - set(FIELDS))
    if unknown:
        raise ValueError(f"fields {', '.join(unknown)}: must be among {', '.join(FIELDS)}.")
    chosen = FIELDS if fields is None else [field for field in FIELDS if field in fields]
    return _Describer(geometry, chosen).blocks(geometry.layers(layers), geometry.heads(heads))


class _Describer:
    """Builds the blocks of a geometry, each with `fields` in order."""

    def __init__(self, geometry: Geometry, fields: Iterable[str]) -> None:
        self.geometry = geometry
        self.fields = tuple(fields)
        self.rows_of = cache(self._rows_of)

    def blocks(self, layers: range, heads: range) -> Iterator[dict[str, Any]]:
        g = self.geometry
        by_section = [
            (section, [block for run in runs for block in self.run(run, g.chosen(run, heads))])
            for section, runs in groupby(g.runs, lambda run: run.section)
        ]
        stack = next(n for n, (section, _) in enumerate(by_section) if section.layers is not None)
        for layer in layers:
            if layer == 0:
                yield from (block(None) for _, found in by_section[:stack] for block in found)
            yield from (block(layer) for block in by_section[stack][1])
            if layer == g.architecture.n_layer - 1:
                yield from (block(None) for _, found in by_section[stack + 1 :] for block in found)

    def run(self, run: Run, members: range) -> Iterator[Block]:
        g, kinds = self.geometry, run.kinds
        shapes = list(zip(g.kinds[kinds], g.size[kinds].tolist(), g.cells[kinds].tolist(), strict=True))
        places = list(zip(g.x[kinds].tolist(), g.y[kinds].tolist(), strict=True))
        backs = g.back(run, slice(members.start, members.stop) if run.group else slice(None)).T.tolist()
        for member, own in zip(members if run.group else [None], backs, strict=True):
            for (kind, size, cells), (x, y), back in zip(shapes, places, own, strict=True):
                same = {
                    "name": kind.name, "role": kind.role, "head": member, "size": size, "cells": cells,
                    "dims": list(kind.cells), "minor": kind.minor,
                }  # fmt: skip
                yield self.block(same, self.varying(kind, member, x, y, back))

    def block(self, same: dict[str, Any], varying: dict[str, Part]) -> Block:
        blank = {field: same.get(field) for field in self.fields}
        parts = [(field, varying[field]) for field in self.fields if field in varying]

        def block(layer: Layer) -> dict[str, Any]:
            made = blank.copy()
            for field, part in parts:
                made[field] = part(layer)
            return made

        return block

    def varying(self, kind: Kind, member: int | None, x: list[float], y: list[float], back: float) -> dict[str, Part]:
        id = of_member(kind.id, member)
        parts: dict[str, Part] = {
            "id": lambda layer: id.replace(LAYER, str(layer)),
            "layer": lambda layer: layer,
            "position": lambda layer: [x[(layer or 0) // COLUMN], y[(layer or 0) % COLUMN], back],
        }
        if kind.tensor is not None and "tensor" in self.fields:
            parts["tensor"] = self.tensor(kind.tensor, self.rows(kind.index, self.letter(kind), member))
        if kind.formula is not None and "formula" in self.fields:
            formulas = {formula: self.formula(formula, self.letter(kind), member) for formula in {*kind.by_layer}}
            plain = self.formula(kind.formula, self.letter(kind), member)
            of_layer = [formulas[formula] for formula in kind.by_layer]
            parts["formula"] = (lambda layer: of_layer[layer or 0](layer)) if of_layer else plain
        return parts

    @staticmethod
    def letter(kind: Kind) -> str:
        return kind.group.letter if kind.group else ""

    @staticmethod
    def tensor(name: str, rows: Rows) -> Part:
        return lambda layer: {"name": name.replace(LAYER, str(layer)), "index": rows}

    def formula(self, formula: Formula, letter: str, member: int | None) -> Part:
        over = self.geometry.sizes[formula.over] if formula.over else None
        same: dict[str, Any] = {"op": formula.op, "over": over, **formula.parameters.given}
        inputs = list(self.inputs(formula, letter, member))
        id = self.geometry.architecture.block_id

        def part(layer: Layer) -> dict[str, Any]:
            read = [
                {"block": id(block, layer) if block == RESIDUAL else block.replace(LAYER, str(layer)), "index": rows}
                for block, rows in inputs
            ]
            return {**same, "inputs": read}

        return part

    def inputs(self, formula: Formula, letter: str, member: int | None) -> Iterator[tuple[str, Rows]]:
        """Yield the inputs of a formula: those repeated for each member of a group are together, member by member."""
        for each, some in groupby(formula.inputs, lambda given: given.each):
            together = list(some)
            if each is None:
                yield from (self.input(given, letter, member) for given in together)
                continue
            group = GROUPS[each]
            for number in range(self.geometry.sizes[group.count]):
                yield from (self.input(given, group.letter, number) for given in together)

    def input(self, given: Input, letter: str, member: int | None) -> tuple[str, Rows]:
        members = {letter: member} if member is not None else {}
        number = given.member_number(members, self.geometry.architecture.fixed_sizes, member)
        return of_member(given.block, number), self.rows(given.index, letter, member, summed=True)

    def rows(self, index: Index, letter: str, member: int | None, *, summed: bool = False) -> Rows:
        depends = member is not None and letter and index.depends_on(letter)  # most are equal for all members
        return self.rows_of(index, letter, member if depends else 0, summed)

    def _rows_of(self, index: Index, letter: str, member: int, summed: bool) -> Rows:
        return index.rows(self.geometry.sizes, {letter: member} if letter else {}, summed=summed)


# ----------------------------------------------------------------------------------------------------- groups


def groups(
    geometry: Geometry, layers: slice | range | None = None, heads: slice | range | None = None
) -> list[dict[str, Any]]:
    """Return the groups {id, name, blocks[ids]} of the blocks of these layers and heads; groups may overlap.

    Raises ValueError for layers or heads that do not exist.
    """
    lister = _Lister(geometry, geometry.heads(heads))
    labels, n_layer = geometry.architecture.labels, geometry.architecture.n_layer
    first = next(n for n, label in enumerate(labels) if LAYER in label.id)
    last = next(n for n, label in enumerate(labels[first:], first) if LAYER not in label.id)
    found: list[dict[str, Any]] = []
    for layer in geometry.layers(layers):
        if layer == 0:
            found += lister.listed(labels[:first], None)
        found += lister.listed(labels[first:last], layer)
        if layer == n_layer - 1:
            found += lister.listed(labels[last:], None)
    return found


class _Lister:
    """Builds groups from labels, with the blocks of these heads."""

    def __init__(self, geometry: Geometry, heads: range) -> None:
        self.architecture = geometry.architecture
        self.members = {run.group.name: geometry.chosen(run, heads) for run in geometry.runs if run.group is not None}

    def listed(self, labels: Iterable[Label], layer: int | None) -> Iterator[dict[str, Any]]:
        for group, some in groupby(labels, lambda label: _group(label.id)):
            together = list(some)
            for member in self.members[group] if group else [None]:
                yield from (self.label(label, layer, member) for label in together)

    def label(self, label: Label, layer: int | None, member: int | None) -> dict[str, Any]:
        id = self.architecture.block_id
        return {
            "id": id(label.id, layer, member),
            "name": id(label.name, layer, member),
            "blocks": [*self.blocks(label, layer, member)],
        }

    def blocks(self, label: Label, layer: int | None, member: int | None) -> Iterator[str]:
        """Yield the ids of a label's blocks, member by member."""
        for group, some in groupby(label.kinds, _group):
            together = list(some)
            for number in [member] if member is not None or not group else self.members[group]:
                yield from (self.architecture.block_id(id, layer, number) for id in together)


def _group(id: str) -> str | None:
    return next((group.name for group in GROUPS.values() if group.placeholder in id), None)
