"""Where the blocks of a model stand, from what its description says of lanes, shelves and depths.

It grew out of the block layout of LLM Visualization (bbycroft/llm-viz, MIT), which "llm-viz" is for GPT-2 to the last
bit of float64, so sums here are taken in its order, left to right. In models of more than twelve layers that has
defects: residual blocks stay in the first column, and columns may run into each other. "columns", the same up to twelve
layers, mends them, and places any family.
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
    """The geometry of every block, for `tokens` positions of `batch` sequences.

    Raises ConfigError for what a Plan refuses.
    """
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
    middles, lefts, attentions = np.add.accumulate(steps, 1)  # one step after the other, as the original does
    if plan.style == "llm-viz":
        middles = np.zeros(columns)
    x = _x(plan, middles, lefts, attentions)
    for run in plan.runs:
        if run.section.layers is None:
            column = 0 if run.kinds.start < first_layer else columns - 1
            x[run.kinds] = x[run.kinds, column : column + 1]
    return x


def _x(plan: Plan, middle: Floats, left: Floats, attention: Floats) -> Floats:
    """[K, G]: left edges in columns whose residual stream, layer norms and attention are there, [G] each."""
    n, m = plan.sizes, plan.margin
    lanes = {"stream": middle, "norm": left, "attention": attention, "aside": n["T"] * CELL / 2 + m}
    numbers = {kind.id: number for number, kind in enumerate(plan.kinds)}
    x = np.full((len(plan.kinds), len(left)), np.nan)

    def edge(kind: Kind) -> Floats:
        """The left edge of a kind, [G]; that of what it stands beside is found first."""
        number, spot = numbers[kind.id], kind.spot
        if np.isnan(x[number, 0]):
            if spot.beside is not None:
                at = edge(plan.architecture.kinds_by_id[spot.beside]) - spot.margins * m
            else:
                at = lanes[spot.lane] - Expression(spot.cells).evaluate(n) * CELL - spot.margins * m
            x[number] = at - plan.size[number, 0] * _ANCHORS[spot.anchor]
        left: Floats = x[number]
        return left

    for kind in plan.kinds:
        edge(kind)
    return x


# --------------------------------------------------------------------------------------------------------- y


def _place_y(plan: Plan) -> Floats:  # [K, R]
    rows = min(plan.architecture.n_layer, COLUMN)  # every column begins at the same height: one stands for all
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
    """The heights of the shelves of a section, or of one of its layers, that begins at `top`."""
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
