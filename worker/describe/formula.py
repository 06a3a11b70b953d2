"""How the cells of a block are computed from cells of other blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from worker.describe.expression import Expression
from worker.describe.functions import FUNCTIONS
from worker.describe.index import MEMBERS, Index
from worker.describe.operations import MASKS, NONE, OPERATIONS, PAIRS, WAVES, Cell, Operation, Parameters

_MEMBERS = frozenset(MEMBERS)


@dataclass(frozen=True)
class Input:
    """The cells of another block that a formula reads, for cell (i, j, k) and the summed index s.

    `block` is the pattern of its id. `each`: read once for every member of this group ("head") of the layer.
    `member` is which member of its own group is read, as an expression of the reader's h, g or e; by default the same.
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

    def number(self, members: Mapping[str, int], sizes: Mapping[str, int], own: int | None) -> int | None:
        """The member that is read, where the reader's number is `own`."""
        if self.member is None:
            return own
        return int(self._expression().value({**sizes, **members}))


@dataclass(frozen=True)
class Formula:
    """An operation of describe.operations on cells of other blocks, over as many s as the size `over` says.

    Raises ValueError where the operation is unknown, or the inputs, `over` or parameters are not what it takes.
    """

    op: str
    inputs: tuple[Input, ...] = ()
    over: str | None = None
    parameters: Parameters = NONE

    def __post_init__(self) -> None:
        operation = OPERATIONS.get(self.op)
        if operation is None:
            self._refuse(f"the operations are {', '.join(OPERATIONS)}")
        least, most = operation.arity
        if not least <= len(self.inputs) <= most:
            wanted = f"{least}" if least == most else f"{least} or more" if most > 99 else f"{least} to {most}"
            self._refuse(f"it takes {wanted} inputs, and here are {len(self.inputs)}")
        if operation.sums != (self.over is not None):
            self._refuse("it sums, and `over` is missing" if operation.sums else "it sums nothing, and `over` is there")
        if self.over is not None:
            Expression(self.over)
        self._check_parameters(operation)

    def _check_parameters(self, operation: Operation) -> None:
        p, given = self.parameters, self.parameters.given.keys()
        missing, unknown = sorted(operation.needs - given), sorted(given - operation.needs - operation.takes)
        if missing or unknown:
            self._refuse(f"{', '.join(missing) or 'nothing'} is missing, {', '.join(unknown) or 'nothing'} is too much")
        if p.mask is not None and (p.mask not in MASKS or (p.mask == "window") != (p.window is not None)):
            self._refuse(f"a mask is {' or '.join(MASKS)}, and a window has a size")
        if p.function is not None and p.function not in (WAVES if self.op == "rotary" else FUNCTIONS):
            self._refuse(f"the functions are {', '.join(WAVES if self.op == 'rotary' else FUNCTIONS)}")
        if p.pairs is not None and p.pairs not in PAIRS:
            self._refuse(f"pairs are {' or '.join(PAIRS)}")

    def _refuse(self, reason: str) -> NoReturn:
        raise ValueError(f"Formula {self.op!r}: {reason}.")

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.op]

    def masks(self, cell: Cell) -> bool:
        """Whether a cell is masked: nothing is read for it."""
        return self.parameters.masks(cell)
