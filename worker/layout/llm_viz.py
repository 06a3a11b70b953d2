"""The merged Q, K and V blocks of LLM Visualization's GPT-2 layout.

In models of more than twelve layers, LLM Visualization (bbycroft/llm-viz, MIT) draws a head's Q, K and V as one box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from worker.describe.architecture import Architecture
from worker.describe.blocks import Kind, Label, Spot
from worker.describe.formula import Input
from worker.describe.index import Index

FAMILY = "gpt2"  # its model_type
_HEAD = "blocks.{layer}.attn.heads.{head}."
_BOXES = {
    "qkv_weight": ("QKV Weights", ("q_weight", "k_weight", "v_weight")),
    "qkv": ("QKV vectors", ("q", "k", "v")),
}
#: The merged kinds' ids, with the ids of the kinds that each replaces, from top to bottom.
MERGED: Mapping[str, tuple[str, ...]] = {
    _HEAD + box: tuple(_HEAD + part for part in parts) for box, (_, parts) in _BOXES.items()
}
_PLACES = {part: (box, n) for box, parts in MERGED.items() for n, part in enumerate(parts)}


def merged(architecture: Architecture) -> Architecture:
    """Return the architecture with one box for a head's Q, K and V: their rows, stacked, so it has no tensor."""
    sections = tuple(
        replace(section, kinds=_kinds(section.kinds)) if section.layers else section
        for section in architecture.sections
    )
    labels = tuple(replace(label, kinds=_listed(label)) for label in architecture.labels)
    steps = tuple(replace(step, kinds=_drawn(step.kinds)) for step in architecture.steps)
    return replace(architecture, sections=sections, labels=labels, steps=steps)


def _kinds(kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    found: list[Kind] = []
    by_id = {kind.id: kind for kind in kinds}
    first = next(n for n, kind in enumerate(kinds) if kind.id in _PLACES)
    for kind in kinds[:first]:
        found.append(_reading_merged(kind))
    for box, parts in MERGED.items():
        like = by_id[parts[0]]
        width, height, depth = like.cells
        name = _BOXES[box.removeprefix(_HEAD)][0]
        found.append(
            replace(like, id=box, name=name, cells=(width, f"3{height}", depth), tensor=None, index=Index(""),
                    formula=None, merges=parts, spot=_spot(like))
        )  # fmt: skip
    found += [_reading_merged(kind) for kind in kinds[first:] if kind.id not in _PLACES]
    return tuple(found)


def _spot(kind: Kind) -> Spot:
    beside = kind.spot.beside
    return replace(kind.spot, beside=_PLACES[beside][0]) if beside in _PLACES else kind.spot


def _reading_merged(kind: Kind) -> Kind:
    formula = kind.formula
    if formula is not None:
        formula = replace(formula, inputs=tuple(map(_input, formula.inputs)))
    return replace(kind, formula=formula, spot=_spot(kind))


def _input(given: Input) -> Input:
    if given.block not in _PLACES:
        return given
    box, n = _PLACES[given.block]
    i, j, k = given.index.text.split()
    return replace(given, block=box, index=Index(f"{i} {j}+{n}*A {k}"))


def _drawn(ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids with merged kinds in place of their parts."""
    found: list[str] = []
    for id in ids:
        box = _PLACES[id][0] if id in _PLACES else id
        if box == id or ({*MERGED[box]} <= {*ids} and box not in found):
            found.append(box)
    return tuple(found)


def _listed(label: Label) -> tuple[str, ...]:
    drawn = _drawn(label.kinds)
    boxes = [id for id in drawn if id in MERGED]
    if not boxes:
        return drawn
    first = min(drawn.index(box) for box in boxes)
    return (*drawn[:first], *boxes, *(id for id in drawn[first:] if id not in MERGED))
