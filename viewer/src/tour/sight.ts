/**
 * What of a step's blocks is looked at: all of them where they are small, else what is computed and what is near, of
 * cells with values so few that they can be told apart.
 */

import { unite, type Box, type Layout } from "../layout/layout";

const CELLS = 200; // a side, up to which all of a block is seen
const AROUND = 0.25; // of so many, which are seen around what is computed

/**
 * In the layout's coordinates; null where there is none of these blocks. The first block counts most: its beginning, or
 * what is around its cell `at`; all of it where there are no `values` to be seen in it.
 */
export function sight(layout: Layout, blocks: readonly string[], at: readonly number[] | null = null, values = true): Box | null {
  const [first, ...others] = blocks.map((id) => layout.row(id)).filter((row) => row !== null);
  if (first === undefined) return null;
  if ([first, ...others].every((row) => Math.max(...layout.cellsOf(row)) <= CELLS)) return layout.around(blocks);
  const { min, max } = layout.box(first);
  const reach = values ? CELLS * (layout.facts.cell ?? 1.5) : Math.max(...max.map((high, axis) => high - min[axis]));
  const from = min.map((low, axis) => low + ((max[axis] - low) * (at?.[axis] ?? 0)) / layout.cellsOf(first)[axis] - (at ? reach / 8 : 0));
  const main = common({ min, max }, { min: from as Box["min"], max: from.map((low) => low + (at ? reach / 4 : reach)) as Box["max"] })!;
  const around: Box = { min: main.min.map((low) => low - AROUND * reach) as Box["min"], max: main.max.map((high) => high + AROUND * reach) as Box["max"] };
  return unite([main, ...others.map((row) => common(layout.box(row), around)).filter((box) => box !== null)]);
}

/** What two boxes have in common. */
export function common(a: Box, b: Box): Box | null {
  const min = a.min.map((low, axis) => Math.max(low, b.min[axis])) as Box["min"];
  const max = a.max.map((high, axis) => Math.min(high, b.max[axis])) as Box["max"];
  return min.every((low, axis) => low < max[axis]) ? { min, max } : null;
}
