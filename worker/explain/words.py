"""How a cell was computed, in words and in LaTeX: each formula with its symbols, and again with the numbers put in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from worker.describe.architecture import Formula, Input, Sizes
from worker.explain.cell import Block, Cell, Terms
from worker.explain.notation import LATEX, TEXT, Notation

_SHOWN = 3  # terms of a sum with their numbers


class Words(NamedTuple):
    text: str
    latex: str


def words(cell: Cell, given: str) -> Words:
    """How a cell was computed. `given` says where one comes from that was not: a weight, or a token."""
    sentence = given if cell.formula is None or cell.formula.op == "input" else _sentence(cell, cell.formula)
    return Words(f"{sentence}: {_equation(TEXT, cell)}", _equation(LATEX, cell))


# ------------------------------------------------------------------------------------------------------ formulas


def _equation(n: Notation, cell: Cell) -> str:
    """The cell = its formula in symbols = its formula in numbers = its value."""
    sides = [n.symbol(cell.block.name, _places(cell.block, list(map(str, cell.at)), cell.sizes))]
    if cell.formula is None:
        sides = [n.symbol(cell.block.tensor, list(map(str, cell.element)))]
    elif cell.reads:
        sides += [_in_symbols(n, cell, cell.formula), _in_numbers(n, cell, cell.formula)]
    return " = ".join([*sides, n.number(cell.value)])


def _in_symbols(n: Notation, cell: Cell, formula: Formula) -> str:
    symbols = [_symbol(n, cell, formula, given) for given in formula.inputs]
    if formula.over is None:
        return _whole(n, cell, formula, "", symbols)
    body = _term(n, formula, symbols)
    if formula.op == "max":
        return n.largest("s", cell.over) + body
    heads = n.sum("h", cell.config.n_head) if any(given.each_head for given in formula.inputs) else ""
    return _whole(n, cell, formula, f"{heads}{n.sum('s', cell.over)}{body}", symbols)


def _in_numbers(n: Notation, cell: Cell, formula: Formula) -> str:
    numbers = [n.signed(run.values[0]) for run in cell.reads]
    if formula.over is None:
        return _whole(n, cell, formula, "", numbers)
    apart = [terms for terms in cell.terms if not any(run.summed for run in terms.runs)]
    count = sum(len(terms.weight) for terms in cell.terms) - len(apart)
    first = islice((found for found in cell.weightiest() if found[0] not in apart), _SHOWN)
    terms = [_term(n, formula, _numbers(n, cell, *found)) for found in first]
    terms += [n.dots] if count > len(terms) else []
    return _whole(n, cell, formula, (", " if formula.op == "max" else " + ").join(terms), numbers)


def _numbers(n: Notation, cell: Cell, terms: Terms, place: int) -> list[str]:
    """The numbers of one term: those of its own, then those that all share."""
    own = [n.signed(run.values[place]) for run in terms.runs]
    return own + [n.signed(run.values[0]) for run in cell.reads if not run.summed]


def _term(n: Notation, formula: Formula, inputs: Sequence[str]) -> str:
    """What is summed."""
    match formula.op:
        case "dot":
            return n.times(*inputs[:2])
        case "norm_scale":
            return n.power(n.grouped(n.less(*inputs[:2])), 2)
        case "sum_exp":
            return n.call("exp", n.less(*inputs[:2]))
        case _:
            return inputs[0]


def _whole(n: Notation, cell: Cell, formula: Formula, total: str, inputs: Sequence[str]) -> str:
    """A formula, given its sum and its inputs, in whatever notation."""
    config = cell.config
    match formula.op:
        case "embed":
            return f"{inputs[1]} + {inputs[2]}"
        case "mean":
            return n.fraction(total, str(cell.over))
        case "norm_scale":
            return n.root(f"{n.fraction(total, str(cell.over))} + {n.number(config.layer_norm_epsilon)}")
        case "layer_norm":
            x, mean, scale, weight, bias = inputs
            return f"{n.times(n.fraction(n.less(x, mean), scale), weight)} + {bias}"
        case "dot":
            total = n.fraction(total, n.root(str(config.d_head))) if formula.causal else total
            return f"{total} + {inputs[-1]}" if len(formula.inputs) % 2 else total
        case "max":
            return n.call("max", total)
        case "softmax":
            return n.fraction(n.call("exp", n.less(*inputs[:2])), inputs[2])
        case "add":
            return f"{inputs[0]} + {inputs[1]}"
        case "activation":
            return _activation(n, config.activation_function, inputs[0])
        case _:
            return total


def _activation(n: Notation, function: str, x: str) -> str:
    match function:
        case "gelu_new":
            cubic = f"{x} + {n.times('0.044715', n.power(x, 3))}"
            tanh = n.call("tanh", n.times(n.root(n.fraction("2", n.pi)), n.grouped(cubic)))
            return n.times(n.times("0.5", x), n.grouped(f"1 + {tanh}"))
        case "gelu":
            return n.times(x, n.call("Φ", x))
        case "relu":
            return n.call("max", f"{x}, 0")
        case "silu":
            return n.times(x, n.call("σ", x))
    raise ValueError(f"{function} is no activation function")


# ------------------------------------------------------------------------------------------------------- symbols


def _symbol(n: Notation, cell: Cell, formula: Formula, given: Input) -> str:
    """An input's block with its places: numbers, and s and h where they are summed over."""
    head = 0 if given.each_head else cell.block.head or 0
    rows, of_next = (given.index.rows(cell.sizes, of, summed=True) for of in (head, 1))
    source, places = cell.block.source(given, head), []
    for (*factors, step, fixed), row in zip(rows, of_next, strict=True):
        start = fixed + sum(factor * at for factor, at in zip(factors, cell.at, strict=True))
        if formula.op == "embed":  # s is the token
            start, step = start + step * int(cell.reads[0].values[0]), 0
        places.append(_affine(start, step, row[-1] - fixed if given.each_head else 0))
    name = f"heads.h.{source.name}" if given.each_head and source.head is not None else _name(cell, source)
    return n.symbol(name, _places(source, places, cell.sizes))


def _name(cell: Cell, source: Block) -> str:
    """What a block is called beside the cell's own: the end of its id, the whole where it is of another layer."""
    return source.name if source.layer in (None, cell.block.layer) else source.id


def _affine(start: int, step: int, of_head: int) -> str:
    parts = [name if factor == 1 else f"{factor}{name}" for factor, name in ((step, "s"), (of_head, "h")) if factor]
    return "+".join(parts + ([str(start)] if start or not parts else []))


def _places(block: Block, places: list[str], sizes: Sizes) -> list[str]:
    """The places along the axes that a block has: the others are always 0."""
    flat = ("1", "B") if sizes["B"] == 1 else ("1",)
    return [place for place, letter in zip(places, block.kind.cells, strict=True) if letter not in flat]


# ------------------------------------------------------------------------------------------------------ sentences


def _sentence(cell: Cell, formula: Formula) -> str:
    """A formula in words."""
    config, over = cell.config, cell.over
    if cell.masked:
        return f"Masked, as position {cell.at[0]} comes after position {cell.at[1]} and attention only looks back"
    x, *others = (_name(cell, cell.block.source(given, 0 if given.each_head else None)) for given in formula.inputs)
    match formula.op:
        case "embed":
            token, position = cell.reads[0].values[0], cell.at[0]
            return f"Row {token} of {others[0]}, as that is the token, plus row {position} of {others[1]}, its position"
        case "mean":
            return f"The mean of the {over:,} channels of {x}"
        case "norm_scale":
            return f"The standard deviation of the {over:,} channels of {x}, with ε = {config.layer_norm_epsilon:g}"
        case "layer_norm":
            return f"{x} less its mean, divided by its scale, times the gain γ, plus the bias β"
        case "dot":
            count = over * (config.n_head if formula.inputs[0].each_head else 1)
            scaled = f", divided by √{config.d_head}" if formula.causal else ""
            bias = f", plus {others[1]}" if len(others) == 2 else ""
            return f"The sum of {count:,} products of {x} and {others[0]}{scaled}{bias}"
        case "max":
            return f"The largest of {over:,} {x}"
        case "sum_exp":
            return f"The sum of the exponentials of {over:,} {x}, each less the largest"
        case "softmax":
            return f"Softmax: the exponential of {x}, less the largest, as a share of the sum of all"
        case "add":
            return f"The sum of {x} and {others[0]}"
        case "activation":
            return f"{config.activation_function} of {x}"
    raise ValueError(f"{formula.op} is no operation")
