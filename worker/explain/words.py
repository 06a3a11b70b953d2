"""Explain a cell in text and LaTeX: its formula in symbols and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from worker.describe.architecture import Block
from worker.describe.blocks import GROUPS
from worker.describe.expression import Sizes
from worker.describe.formula import Formula, Input
from worker.describe.notation import LATEX, TEXT, Notation
from worker.explain.cell import Cell, Terms

_SHOWN = 3  # terms of a sum that are written in numbers


class Explanation(NamedTuple):
    """A sentence and equation in text, and the equation in LaTeX."""

    text: str
    latex: str


def explain_cell(cell: Cell, origin: str) -> Explanation:
    """Explain how a cell was computed; `origin` is the sentence for a cell that was not: a weight or a token."""
    sentence = origin if cell.formula is None or cell.formula.op == "input" else _sentence(cell, cell.formula)
    return Explanation(f"{sentence}: {_equation(TEXT, cell)}", _equation(LATEX, cell))


# ------------------------------------------------------------------------------------------------------ formulas


def _equation(n: Notation, cell: Cell) -> str:
    """Return cell = formula in symbols = formula in numbers = value."""
    sides = [n.symbol(cell.block.kind.short_name, _places(cell.block, list(map(str, cell.at)), cell.sizes))]
    if cell.formula is None:
        sides = [n.symbol(cell.block.tensor, list(map(str, cell.element)))]
    elif cell.reads or (cell.formula.op != "input" and not cell.masked):
        sides += dict.fromkeys((_in_symbols(n, cell, cell.formula), _in_numbers(n, cell, cell.formula)))
    return " = ".join([*sides, n.number(cell.value)])


def _in_symbols(n: Notation, cell: Cell, formula: Formula) -> str:
    symbols = [symbol for input in formula.inputs for symbol in _symbols(n, cell, input)]
    if formula.over is None or cell.selected is not None:
        return _formula(n, cell, formula, "", symbols)
    body = formula.operation.sum_in_symbols(n, cell.over, formula.operation.term(n, symbols))
    each = _repeated(formula)
    if each is not None:
        group = GROUPS[each]
        body = n.sum(group.letter, cell.sizes[group.count]) + body
    return _formula(n, cell, formula, body, symbols)


def _in_numbers(n: Notation, cell: Cell, formula: Formula) -> str:
    if formula.over is None or cell.selected is not None:
        numbers = [n.signed(value) for run in cell.reads for value in run.values]
        return _formula(n, cell, formula, "", numbers)
    numbers = [n.signed(run.values[0]) for run in cell.reads]
    shared = [terms for terms in cell.terms if not any(run.summed for run in terms.runs)]
    count = sum(len(terms.weight) for terms in cell.terms) - len(shared)
    first = islice((found for found in cell.by_weight() if found[0] not in shared), _SHOWN)
    terms = [formula.operation.term(n, _numbers(n, cell, *found)) for found in first]
    terms += [n.dots] if count > len(terms) else []
    return _formula(n, cell, formula, formula.operation.sum_in_numbers(n, terms), numbers)


def _numbers(n: Notation, cell: Cell, terms: Terms, place: int) -> list[str]:
    """Return the numbers of one term: its own, then those shared by all terms."""
    own = [n.signed(run.values[place]) for run in terms.runs]
    return own + [n.signed(run.values[0]) for run in cell.reads if not run.summed]


def _formula(n: Notation, cell: Cell, formula: Formula, total: str, inputs: Sequence[str]) -> str:
    return formula.operation.formula(n, total, inputs, formula.parameters, cell.over, cell.at)


def _repeated(formula: Formula) -> str | None:
    """Return the group of which a formula reads every member, if any."""
    return next((input.each for input in formula.inputs if input.each), None)


# ------------------------------------------------------------------------------------------------------- symbols


def _symbols(n: Notation, cell: Cell, input: Input) -> list[str]:
    """Return an input's block with indices, of which s and h are the summed ones; one symbol for each selected s."""
    group = GROUPS[input.each] if input.each else None
    members = [{group.letter: number} for number in (0, 1)] if group else [cell.block.members] * 2
    rows, of_next = (input.index.rows(cell.sizes, of, summed=True) for of in members)
    source = cell.block.source(input, 0 if group else None)
    selected, summed = cell.selected, any(row[3] for row in rows)
    name = _name(cell, source)
    if group and source.member is not None:
        several = source.kind.id.rpartition(".{")[0].rpartition(".")[2]  # heads
        name = f"{several}.{group.letter}.{source.kind.short_name}"
    found = []
    for s in selected if selected is not None and summed else [None]:
        places = []
        for (*factors, step, fixed), row in zip(rows, of_next, strict=True):
            start = fixed + sum(factor * at for factor, at in zip(factors, cell.at, strict=True))
            if s is not None:
                start, step = start + step * s, 0
            places.append(_affine(start, step, row[-1] - fixed if group else 0, group.letter if group else ""))
        found.append(n.symbol(name, _places(source, places, cell.sizes)))
    return found


def _name(cell: Cell, source: Block) -> str:
    """Return a block's short name, or its id if it is in another layer than the cell."""
    return source.kind.short_name if source.layer in (None, cell.block.layer) else source.id


def _affine(start: int, step: int, of_member: int, letter: str) -> str:
    parts = [
        name if factor == 1 else f"{factor}{name}" for factor, name in ((step, "s"), (of_member, letter)) if factor
    ]
    return "+".join(parts + ([str(start)] if start or not parts else []))


def _places(block: Block, places: list[str], sizes: Sizes) -> list[str]:
    """Return the indices of the axes whose size is not 1."""
    flat = ("1", "B") if sizes["B"] == 1 else ("1",)
    return [place for place, size in zip(places, block.kind.cells, strict=True) if size not in flat]


# ------------------------------------------------------------------------------------------------------ sentences


def _sentence(cell: Cell, formula: Formula) -> str:
    """Return the formula in words."""
    if cell.masked:
        key, query, _ = cell.at
        if key > query:
            return f"Masked, as position {key} comes after position {query} and attention only looks back"
        window = formula.parameters.window
        return f"Masked, as position {key} is {window} or more before position {query}, out of its window"
    each = _repeated(formula)
    names = [_name(cell, cell.block.source(input, 0 if input.each else None)) for input in formula.inputs]
    over = cell.over * (cell.sizes[GROUPS[each].count] if each else 1)
    values = [run.values[0] for run in cell.reads]
    return formula.operation.sentence(names, formula.parameters, over, cell.at, values)
