"""How a cell was computed, in words and in LaTeX: each formula with its symbols, and again with the numbers put in."""

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

_SHOWN = 3  # terms of a sum with their numbers


class Explanation(NamedTuple):
    text: str
    latex: str


def explain_cell(cell: Cell, given: str) -> Explanation:
    """How a cell was computed. `given` says where one comes from that was not: a weight, or a token."""
    sentence = given if cell.formula is None or cell.formula.op == "input" else _sentence(cell, cell.formula)
    return Explanation(f"{sentence}: {_equation(TEXT, cell)}", _equation(LATEX, cell))


# ------------------------------------------------------------------------------------------------------ formulas


def _equation(n: Notation, cell: Cell) -> str:
    """The cell = its formula in symbols = its formula in numbers = its value."""
    sides = [n.symbol(cell.block.kind.short_name, _places(cell.block, list(map(str, cell.at)), cell.sizes))]
    if cell.formula is None:
        sides = [n.symbol(cell.block.tensor, list(map(str, cell.element)))]
    elif cell.reads or (cell.formula.op != "input" and not cell.masked):
        sides += dict.fromkeys((_in_symbols(n, cell, cell.formula), _in_numbers(n, cell, cell.formula)))
    return " = ".join([*sides, n.number(cell.value)])


def _in_symbols(n: Notation, cell: Cell, formula: Formula) -> str:
    if formula.over is None or cell.picked is not None:
        return _whole(n, cell, formula, "", [symbol for given in formula.inputs for symbol in _symbols(n, cell, given)])
    symbols = [symbol for given in formula.inputs for symbol in _symbols(n, cell, given)]
    body = formula.operation.sum_in_symbols(n, cell.over, formula.operation.term(n, symbols))
    each = _repeated(formula)
    if each is not None:
        group = GROUPS[each]
        body = n.sum(group.letter, cell.sizes[group.count]) + body
    return _whole(n, cell, formula, body, symbols)


def _in_numbers(n: Notation, cell: Cell, formula: Formula) -> str:
    if formula.over is None or cell.picked is not None:
        numbers = [n.signed(value) for run in cell.reads for value in run.values]
        return _whole(n, cell, formula, "", numbers)
    numbers = [n.signed(run.values[0]) for run in cell.reads]
    apart = [terms for terms in cell.terms if not any(run.summed for run in terms.runs)]
    count = sum(len(terms.weight) for terms in cell.terms) - len(apart)
    first = islice((found for found in cell.weightiest() if found[0] not in apart), _SHOWN)
    terms = [formula.operation.term(n, _numbers(n, cell, *found)) for found in first]
    terms += [n.dots] if count > len(terms) else []
    return _whole(n, cell, formula, formula.operation.sum_in_numbers(n, terms), numbers)


def _numbers(n: Notation, cell: Cell, terms: Terms, place: int) -> list[str]:
    """The numbers of one term: those of its own, then those that all share."""
    own = [n.signed(run.values[place]) for run in terms.runs]
    return own + [n.signed(run.values[0]) for run in cell.reads if not run.summed]


def _whole(n: Notation, cell: Cell, formula: Formula, total: str, inputs: Sequence[str]) -> str:
    return formula.operation.formula(n, total, inputs, formula.parameters, cell.over, cell.at)


def _repeated(formula: Formula) -> str | None:
    """The group of which a formula reads every member."""
    return next((given.each for given in formula.inputs if given.each), None)


# ------------------------------------------------------------------------------------------------------- symbols


def _symbols(n: Notation, cell: Cell, given: Input) -> list[str]:
    """An input's block with its places: numbers, and s and h where they are summed over. One for each picked s."""
    group = GROUPS[given.each] if given.each else None
    members = [{group.letter: number} for number in (0, 1)] if group else [cell.block.members] * 2
    rows, of_next = (given.index.rows(cell.sizes, of, summed=True) for of in members)
    source, picked, summed = cell.block.source(given, 0 if group else None), cell.picked, any(row[3] for row in rows)
    name = _name(cell, source)
    if group and source.member is not None:
        several = source.kind.id.rpartition(".{")[0].rpartition(".")[2]  # heads
        name = f"{several}.{group.letter}.{source.kind.short_name}"
    found = []
    for s in picked if picked is not None and summed else [None]:
        places = []
        for (*factors, step, fixed), row in zip(rows, of_next, strict=True):
            start = fixed + sum(factor * at for factor, at in zip(factors, cell.at, strict=True))
            if s is not None:
                start, step = start + step * s, 0
            places.append(_affine(start, step, row[-1] - fixed if group else 0, group.letter if group else ""))
        found.append(n.symbol(name, _places(source, places, cell.sizes)))
    return found


def _name(cell: Cell, source: Block) -> str:
    """What a block is called beside the cell's own: the end of its id, the whole where it is of another layer."""
    return source.kind.short_name if source.layer in (None, cell.block.layer) else source.id


def _affine(start: int, step: int, of_member: int, letter: str) -> str:
    parts = [
        name if factor == 1 else f"{factor}{name}" for factor, name in ((step, "s"), (of_member, letter)) if factor
    ]
    return "+".join(parts + ([str(start)] if start or not parts else []))


def _places(block: Block, places: list[str], sizes: Sizes) -> list[str]:
    """The places along the axes that a block has: the others are always 0."""
    flat = ("1", "B") if sizes["B"] == 1 else ("1",)
    return [place for place, size in zip(places, block.kind.cells, strict=True) if size not in flat]


# ------------------------------------------------------------------------------------------------------ sentences


def _sentence(cell: Cell, formula: Formula) -> str:
    """A formula in words."""
    if cell.masked:
        key, query, _ = cell.at
        if key > query:
            return f"Masked, as position {key} comes after position {query} and attention only looks back"
        window = formula.parameters.window
        return f"Masked, as position {key} is {window} or more before position {query}, out of its window"
    each = _repeated(formula)
    names = [_name(cell, cell.block.source(given, 0 if given.each else None)) for given in formula.inputs]
    over = cell.over * (cell.sizes[GROUPS[each].count] if each else 1)
    values = [run.values[0] for run in cell.reads]
    return formula.operation.sentence(names, formula.parameters, over, cell.at, values)
