"""Short forms for tensors, kinds of block and inputs of formulas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from worker.describe.blocks import Kind, Landmark, Role, Spot, Tensor
from worker.describe.formula import Formula, Input
from worker.describe.index import Index

LAYER = "blocks.{layer}"
HEAD = f"{LAYER}.attn.heads.{{head}}"
KV_HEAD = f"{LAYER}.attn.kv_heads.{{kv_head}}"

STREAM = Spot()
NORM = Spot("norm", "right")
ATTENTION = Spot("attention", "right")
ASIDE = Spot("aside", "left")

Inputs = tuple[Input, ...]


def weight(name: str, dims: str, *parts: str, table: bool = False, alias_of: str | None = None) -> Tensor:
    """Return a weight; `parts` are the parameter parts it is counted under, in equal shares."""
    return Tensor(name, tuple(dims.split()), "weight", parts, is_table=table, alias_of=alias_of)


def value(name: str, dims: str, role: Role = "activation", landmark: Landmark | None = None, **more: Any) -> Tensor:
    """Return a value of a trace."""
    return Tensor(name, tuple(dims.split()), role, landmark=landmark, **more)


def read(block: str, index: str, *, each: str | None = None, member: str | None = None) -> Input:
    """Return an input of a formula."""
    return Input(block, Index(index), each, member)


def read_if(exists: object, block: str, index: str) -> Inputs:
    """Return an input that only some configurations have, such as a bias, as a tuple of one or none."""
    return (read(block, index),) if exists else ()


def beside(kind: str, margins: int = 1) -> Spot:
    """Return the spot to the left of another kind."""
    return Spot(anchor="right", beside=kind, margins=margins)


def kind(
    id: str, name: str, role: Role, cells: str, at: str, spot: Spot, shelf: str, formula: Formula | None = None,
    **more: Any,
) -> Kind:  # fmt: skip
    """Return a kind of block; `at` is "tensor: index"."""
    tensor, _, index = at.partition(": ")
    i, j, k = cells.split()
    return Kind(id, name, role, (i, j, k), tensor, Index(index), formula, spot, shelf, **more)


def by_layer(variants: Sequence[Sequence[Kind]], choices: Sequence[int]) -> Iterator[Kind]:
    """Yield kinds whose formulas differ by layer; `variants` are the same kinds with other formulas, and `choices` the
    number of each layer's variant.
    """
    for same in zip(*variants, strict=True):
        formulas = tuple(same[choice].formula for choice in choices)
        of_layers = tuple(formula for formula in formulas if formula)
        varies = len(set(of_layers)) > 1
        yield replace(same[choices[0]], by_layer=of_layers if varies else ())


def ids(prefix: str, *names: str) -> tuple[str, ...]:
    """Return the ids of several kinds with the same prefix."""
    return tuple(f"{prefix}.{name}" for name in names)
