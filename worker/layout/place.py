"""Compute block positions from lanes, shelves and depths.

The style "llm-viz" is the block layout of LLM Visualization (bbycroft/llm-viz, MIT) for GPT-2, exact in float64: so
sums here are in its order, left to right. Above twelve layers that layout has defects: residual blocks stay in the
first column, and columns may overlap. The style "columns" is equal up to twelve layers, fixes these defects above, and
supports every family.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from worker.describe.architecture import Section
from worker.describe.blocks import Anchor, Kind
from worker.describe.config import Config
from worker.describe.expression import Expression
from worker.layout.geometry import CELL, COLUMN, Floats, Geometry, Plan, Style

_ANCHORS: Mapping[Anchor, float] = {"left": 0.0, "middle": 0.5, "right": 1.0}


def place(config: Config, tokens: int, batch: int = 1, style: Style = "columns") -> Geometry:
    """Return the geometry for `batch` sequences of `tokens` positions. Raises ConfigError, as Plan does."""
    plan = Plan(config, tokens, batch, style)
    return Geometry(config, tokens, batch, style, _place_x(plan), _place_y(plan), _place_z(plan))


# --------------------------------------------------------------------------------------------------------- x


def _place_x(plan: Plan) -> Floats:  # [K, G]
    n, m = plan.sizes, plan.margin
    middle = 0.0
    left = -n["T"] * CELL / 2 - m
    attention = left - (n["T"] + 2) * CELL - 3 * m
    pitch = n["C"] * 14 * CELL + m * 2
    first_layer = next(run.kinds.start for run in plan.runs if run.section.layers is not None)
    if plan.style == "columns":
        first = _x(plan, *np.array([[middle], [left], [attention]]))
        width = n["T"] * CELL / 2 - float(first[first_layer:].min())
        pitch = max(pitch, width + m)

    columns = -(-plan.architecture.n_layer // COLUMN)
    steps = np.full((3, columns), pitch)
    steps[:, 0] = middle, left, attention
    middles, lefts, attentions = np.add.accumulate(steps, 1)  # cumulative sums, as in the original
    if plan.style == "llm-viz":
        middles = np.zeros(columns)
    x = _x(plan, middles, lefts, attentions)
    for run in plan.runs:
        if run.section.layers is None:
            column = 0 if run.kinds.start < first_layer else columns - 1
            x[run.kinds] = x[run.kinds, column : column + 1]
    return x


def _x(plan: Plan, middle: Floats, left: Floats, attention: Floats) -> Floats:
    """Return the left edges [K, G] in columns whose stream, norm and attention lanes are at these x, [G] each."""
    n, m = plan.sizes, plan.margin
    lanes = {"stream": middle, "norm": left, "attention": attention, "aside": n["T"] * CELL / 2 + m}
    numbers = {kind.id: number for number, kind in enumerate(plan.kinds)}
    x = np.full((len(plan.kinds), len(left)), np.nan)

    def edge(kind: Kind) -> Floats:
        """Return the left edge of a kind, [G], after that of the kind it is beside."""
        number, spot = numbers[kind.id], kind.spot
        if np.isnan(x[number, 0]):
            if spot.beside is not None:
                at = edge(plan.architecture.kinds_by_id[spot.beside]) - spot.margins * m
            else:
                cells = Expression(spot.cells, operators="+ - * // max").evaluate(n)
                at = lanes[spot.lane] - cells * CELL - spot.margins * m
            x[number] = at - plan.size[number, 0] * _ANCHORS[spot.anchor]
        left: Floats = x[number]
        return left

    for kind in plan.kinds:
        edge(kind)
    return x


# --------------------------------------------------------------------------------------------------------- y


def _place_y(plan: Plan) -> Floats:  # [K, R]
    rows = min(plan.architecture.n_layer, COLUMN)  # all columns begin at the same y
    y, top, first = np.empty((len(plan.kinds), rows)), 0.0, 0
    for section in plan.architecture.sections:
        kinds = slice(first, first := first + len(section.kinds))
        if section.layers is None:
            shelves = _shelves(plan, section, top)
            y[kinds] = np.array([[shelves[kind.shelf]] for kind in section.kinds])
            top = shelves["end"]
            continue
        ends = []
        for row in range(rows):
            shelves = _shelves(plan, section, top)
            y[kinds, row] = [shelves[kind.shelf] for kind in section.kinds]
            top = shelves["end"]
            ends.append(top)
        top = ends[(section.layers - 1) % COLUMN]
    return y


def _shelves(plan: Plan, section: Section, top: float) -> dict[str, float]:
    """Return the y of each shelf of a section, or of one of its layers, that begins at `top`."""
    heights: dict[str, float] = {}
    fixed = {**plan.sizes, "s": CELL, "m": plan.margin, "deep": int(plan.deep), "top": top}
    for name, expression in section.heights.items():
        heights[name] = expression.evaluate({**fixed, **heights})
    return heights


# --------------------------------------------------------------------------------------------------------- z


def _place_z(plan: Plan) -> Floats:  # [3, H]
    n, m, share = plan.sizes, plan.margin, plan.sizes["C"] * CELL / 16
    gap = m + share
    depth = 3 * plan.batch * CELL + gap * 2 + (0 if plan.deep else 3 * m + share)
    middle = depth * np.arange(n["H"]) - (n["H"] - 1) * depth / 2
    return np.stack([middle + plan.batch * CELL + gap, middle, middle - plan.batch * CELL - gap])
