/** The order in which a block's cells are computed, and their operands. */

import { item } from "../checked/item";
import type { Schemas } from "../api/client";
import { isPosition } from "../layout/description";
import type { Bar } from "../state/state";

export type Formula = Schemas["Formula"];
export type Cell = [number, number, number];

/** The n-th cell in order of computation, as in the shader: column by column if only x is a position, else row by row. */
export function nth(n: number, [width, height]: readonly [number, number, ...number[]], dims: readonly string[]): Cell {
  return isPosition(dims[0]) && !isPosition(dims[1]) ? [Math.floor(n / height), n % height, 0] : [n % width, Math.floor(n / width), 0];
}

/** The operands of a cell; those of a sum as one bar. `token`: the token at its position, if known. */
export function operands({ op, over, inputs }: Formula, cell: Cell, token: number | null): Bar[] {
  const known = inputs.filter(({ index }) => op !== "embed" || token !== null || index.every(([, , , e]) => e === 0));
  const [first, last] = op === "embed" ? [token ?? 0, token ?? 0] : [0, Math.max((over ?? 1) - 1, 0)];
  return known.map(({ block, index }) => {
    const along = (axis: 0 | 1 | 2, s: number): number => {
      const [a = 0, b = 0, c = 0, e = 0, d = 0] = item(index, axis);
      return a * cell[0] + b * cell[1] + c * cell[2] + e * s + d;
    };
    const place = (s: number): Cell => [along(0, s), along(1, s), along(2, s)];
    return { figure: 0, block, cell: place(first), to: place(last) };
  });
}
