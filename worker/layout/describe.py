"""A geometry in words, for JSON: blocks with their tensors and formulas, and the groups that people see in them.

What is the same in every layer is made once and shared between blocks: it is for reading, not for changing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache, partial
from itertools import groupby
from math import sqrt
from typing import Any

from worker.describe.architecture import HEAD, LAYER, Formula, Index, Input, Kind, block_id
from worker.layout.geometry import COLUMN, HEAD_ID, MERGED, Geometry

FIELDS = (
    "id", "name", "role", "layer", "head", "position", "size", "cells", "dims", "minor", "tensor", "formula",
)  # fmt: skip

Rows = list[list[int]]
Layer = int | None
Block = Callable[[Layer], dict[str, Any]]  # a block, in any layer
Part = Callable[[Layer], Any]  # a field of it

_MERGED_AT = {part: (merged, n) for merged, parts in MERGED.items() for n, part in enumerate(parts)}


def blocks(
    geometry: Geometry,
    layers: slice | range | None = None,
    heads: slice | range | None = None,
    fields: Collection[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The blocks of these layers and heads in block order, each with these of FIELDS, all by default.

    What is before the layers comes with the first, what is after them with the last. `tensor.index` has a row
    [a, b, c, d] an axis: the value of cell (i, j, k) is at a·i + b·j + c·k + d. The index of a formula's input has
    rows [a, b, c, e, d], for (i, j, k, s) with s the summed index, that give a cell of the input. Raises ValueError
    for layers, heads or fields that there are not.
    """
    unknown = sorted(set(fields or ()) - set(FIELDS))
    if unknown:
        raise ValueError(f"fields {', '.join(unknown)}: some of {', '.join(FIELDS)} are wanted.")
    wanted = FIELDS if fields is None else [field for field in FIELDS if field in fields]
    return _Describer(geometry, wanted).blocks(geometry.layers(layers), geometry.heads(heads))


class _Describer:
    """Makes the blocks of a geometry, each with `fields` in their order."""

    def __init__(self, geometry: Geometry, fields: Iterable[str]) -> None:
        self.geometry = geometry
        self.fields = tuple(fields)
        self.n_layer = geometry.config.n_layer
        self.rows_of = cache(partial(Index.rows, sizes=geometry.sizes))

    def blocks(self, layers: range, heads: range) -> Iterator[dict[str, Any]]:
        s = self.geometry.sections
        layered = [*self.section(s.before_heads), *self.section(s.heads, heads), *self.section(s.after_heads)]
        for layer in layers:
            if layer == 0:
                yield from (block(None) for block in self.section(s.embedding))
            yield from (block(layer) for block in layered)
            if layer == self.n_layer - 1:
                yield from (block(None) for block in self.section(s.unembedding))

    def section(self, kinds: slice, heads: range | None = None) -> Iterator[Block]:
        g = self.geometry
        shapes = list(zip(g.kinds[kinds], g.size[kinds].tolist(), g.cells[kinds].tolist(), strict=True))
        places = list(zip(g.x[kinds].tolist(), g.y[kinds].tolist(), strict=True))
        backs = g.back(kinds, slice(None) if heads is None else slice(heads.start, heads.stop)).T.tolist()
        for head, of_head in zip([None] if heads is None else heads, backs, strict=True):
            for (kind, size, cells), (x, y), back in zip(shapes, places, of_head, strict=True):
                same = {
                    "name": kind.name, "role": kind.role, "head": head, "size": size, "cells": cells,
                    "dims": list(kind.cells), "minor": kind.minor,
                }  # fmt: skip
                yield self.block(same, self.varying(kind, head, x, y, back))

    def block(self, same: dict[str, Any], varying: dict[str, Part]) -> Block:
        blank = {field: same.get(field) for field in self.fields}
        parts = [(field, varying[field]) for field in self.fields if field in varying]

        def block(layer: Layer) -> dict[str, Any]:
            made = blank.copy()
            for field, part in parts:
                made[field] = part(layer)
            return made

        return block

    def varying(self, kind: Kind, head: int | None, x: list[float], y: list[float], back: float) -> dict[str, Part]:
        id = kind.id.replace(HEAD, str(head))
        parts: dict[str, Part] = {
            "id": lambda layer: block_id(id, self.n_layer, layer),
            "layer": lambda layer: layer,
            "position": lambda layer: [x[(layer or 0) // COLUMN], y[(layer or 0) % COLUMN], back],
        }
        if kind.tensor is not None and "tensor" in self.fields:
            parts["tensor"] = self.tensor(kind.tensor, self.rows(kind.index, head))
        if kind.formula is not None and "formula" in self.fields:
            parts["formula"] = self.formula(kind.formula, head)
        return parts

    @staticmethod
    def tensor(name: str, rows: Rows) -> Part:
        return lambda layer: {"name": name.replace(LAYER, str(layer)), "index": rows}

    def formula(self, formula: Formula, head: int | None) -> Part:
        config, sizes = self.geometry.config, self.geometry.sizes
        same: dict[str, Any] = {"op": formula.op, "over": sizes[formula.over] if formula.over else None}
        if formula.causal:
            same |= {"scale": 1 / sqrt(config.d_head), "mask": "causal"}
        if formula.op == "norm_scale":
            same["epsilon"] = config.layer_norm_epsilon
        if formula.op == "activation":
            same["function"] = config.activation_function
        inputs = list(self.inputs(formula, head))

        def part(layer: Layer) -> dict[str, Any]:
            read = [{"block": block_id(id, self.n_layer, layer), "index": rows} for id, rows in inputs]
            return {**same, "inputs": read}

        return part

    def inputs(self, formula: Formula, head: int | None) -> Iterator[tuple[str, Rows]]:
        """What a formula reads, block by block: inputs of each head together, one head after another."""
        for each_head, group in groupby(formula.inputs, lambda given: given.each_head):
            together = list(group)
            for h in range(self.geometry.config.n_head) if each_head else (head,):
                yield from (self.input(given, h) for given in together)

    def input(self, given: Input, head: int | None) -> tuple[str, Rows]:
        id, rows = given.block, self.rows(given.index, head, summed=True)
        if self.geometry.merges and id in _MERGED_AT:
            id, part = _MERGED_AT[id]
            i, j, k = rows
            rows = [i, [*j[:-1], j[-1] + part * self.geometry.config.d_head], k]
        return id.replace(HEAD, str(head)), rows

    def rows(self, index: Index, head: int | None, *, summed: bool = False) -> Rows:
        of_head = head if head is not None and "h" in index.text else 0  # most are the same in every head
        return self.rows_of(index, head=of_head, summed=summed)


# ----------------------------------------------------------------------------------------------------- groups

#: The parts of a head: the end of the id, the name, and the kinds of block in it.
_OF_HEAD = (
    ("q", "Q", ("q_weight", "q_bias", "q")),
    ("k", "K", ("k_weight", "k_bias", "k")),
    ("v", "V", ("v_weight", "v_bias", "v")),
    ("bias", "Biases", ("q_bias", "k_bias", "v_bias")),
    ("matrix", "Attention Matrix", ("scores", "scores_sum", "scores_max", "pattern")),
    ("vector", "V Output", ("z",)),
)
_PROJECTION = 4  # kinds at the head of LAYER_REST that project the heads; the others are the MLP with its norm


def groups(
    geometry: Geometry, layers: slice | range | None = None, heads: slice | range | None = None
) -> list[dict[str, Any]]:
    """What belongs together, {id, name, blocks[ids]}, of the blocks of these layers and heads; groups may overlap.

    Raises ValueError for layers or heads that there are not.
    """
    g, s = geometry, geometry.sections
    n_layer, of_heads = g.config.n_layer, g.heads(heads)

    def ids(kinds: slice, layer: int | None = None, head: int | None = None) -> list[str]:
        return [block_id(kind.id, n_layer, layer, head) for kind in g.kinds[kinds]]

    drawn = {kind.id for kind in g.kinds}
    found: list[dict[str, Any]] = []

    def add(id: str, name: str, blocks: list[str]) -> None:
        found.append({"id": id, "name": name, "blocks": blocks})

    for layer in g.layers(layers):
        if layer == 0:
            add("embedding", "Embedding", ids(s.embedding))
        norm, after = ids(s.before_heads, layer), ids(s.after_heads, layer)
        by_head = {head: ids(s.heads, layer, head) for head in of_heads}
        attention = [id for of_head in by_head.values() for id in of_head]
        project, mlp = after[:_PROJECTION], after[_PROJECTION:]
        at = f"blocks.{layer}"
        add(at, f"Transformer {layer}", [*norm, *attention, *after])
        add(f"{at}.proj", "Projection", project)
        add(f"{at}.self_attention", "Self-attention", [*norm, *attention, *project])
        add(f"{at}.mlp", "MLP", mlp)
        for head, blocks in by_head.items():
            at = f"blocks.{layer}.attn.heads.{head}"
            for part, name, kinds in _OF_HEAD:
                add(f"{at}.{part}", name, [f"{at}.{kind}" for kind in kinds if HEAD_ID + kind in drawn])
            add(at, f"Head {head}", blocks)
        if layer == n_layer - 1:
            add("unembedding", "Unembedding", ids(s.unembedding))
    return found
