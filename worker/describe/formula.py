"""Formulas: how a block's cells are computed from other blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from worker.describe.expression import Expression
from worker.describe.functions import FUNCTIONS
from worker.describe.index import MEMBERS, Index
from worker.describe.operations import BIASES, MASKS, NONE, OPERATIONS, PAIRS, WAVES, Cell, Operation, Parameters

_MEMBERS = frozenset(MEMBERS)


@dataclass(frozen=True)
class Input:
    """The cell of another block that a formula reads for cell (i, j, k) and summation index s.

    `block` is its id pattern. `each` is a group ("head"): the input is read once for every member of it in the layer.
    `member` is the member to read, an expression of the reader's h, g or e; by default the reader's own.
    """

    block: str
    index: Index
    each: str | None = None
    member: str | None = None

    def __post_init__(self) -> None:
        if self.member is not None:
            self._expression()

    def _expression(self) -> Expression:
        return Expression(self.member or "", _MEMBERS)

    def member_number(self, members: Mapping[str, int], sizes: Mapping[str, int], own: int | None) -> int | None:
        """Return the member to read; `own` is the reader's."""
        if self.member is None:
            return own
        return int(self._expression().evaluate({**sizes, **members}))


@dataclass(frozen=True)
class Formula:
    """An operation (describe.operations) on cells of other blocks, with s from 0 to the size `over` minus 1.

    Raises ValueError if the operation is unknown, or its inputs, `over` or parameters are invalid.
    """

    op: str
    inputs: tuple[Input, ...] = ()
    over: str | None = None
    parameters: Parameters = NONE

    def __post_init__(self) -> None:
        operation = OPERATIONS.get(self.op)
        if operation is None:
            self._reject(f"the operation must be one of {', '.join(OPERATIONS)}")
        least, most = operation.arity
        if not least <= len(self.inputs) <= most:
            wanted = f"{least}" if least == most else f"{least} or more" if most > 99 else f"{least} to {most}"
            self._reject(f"it takes {wanted} inputs, not {len(self.inputs)}")
        if operation.sums != (self.over is not None):
            self._reject("`over` is missing" if operation.sums else "`over` is not allowed: it does not sum over s")
        if self.over is not None:
            Expression(self.over)
        self._check_parameters(operation)

    def _check_parameters(self, operation: Operation) -> None:
        p, given = self.parameters, self.parameters.given.keys()
        missing, unknown = sorted(operation.needs - given), sorted(given - operation.needs - operation.takes)
        if missing:
            self._reject(f"missing parameters: {', '.join(missing)}")
        if unknown:
            self._reject(f"unknown parameters: {', '.join(unknown)}")
        if p.mask is not None and (p.mask not in MASKS or (p.mask == "window") != (p.window is not None)):
            self._reject(f"the mask must be {' or '.join(MASKS)}, and only a window mask has a `window`")
        if p.function is not None and p.function not in (WAVES if self.op == "rotary" else FUNCTIONS):
            self._reject(f"the function must be one of {', '.join(WAVES if self.op == 'rotary' else FUNCTIONS)}")
        if p.pairs is not None and p.pairs not in PAIRS:
            self._reject(f"`pairs` must be {' or '.join(PAIRS)}")
        if p.bias is not None and (p.bias not in BIASES or len(self.inputs) % 2 == 0):
            self._reject(f"`bias` must be {' or '.join(BIASES)}, and there must be an input left over")

    def _reject(self, reason: str) -> NoReturn:
        raise ValueError(f"Formula {self.op!r}: {reason}.")

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.op]

    def masks(self, cell: Cell) -> bool:
        """Return whether a cell is masked, so that it reads nothing."""
        return self.parameters.masks(cell)
