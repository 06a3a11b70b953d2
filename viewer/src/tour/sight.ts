/**
 * What of a step's blocks is looked at: all of them where they are small, else a part of what is computed that is large
 * enough to be seen in the window, with what is near.
 */

import { unite, type Box } from "../layout/box";
import type { Layout } from "../layout/layout";

const CELLS = 200; // a side, up to which all of a block is seen
const SPREAD = 450; // cells from end to end, up to which all of such blocks are
const STRAY = 10; // times as far apart as the first one is large, at most
const SLIM = { values: 6, none: 16 }; // times as long as it is wide may be what is seen of a block, so that it fills the window
const LEAST = { values: 48, none: 24 }; // cells that are seen of a block's length in any case
const NEAR = 3.5; // times as far as is seen of the block: what is all within that is seen, too
const BESIDE = 1; // of others, as much as is so far from it
const AROUND = 25; // cells that are seen on each side of one

/**
 * In the layout's coordinates; null where there is none of these blocks. The first block counts most: its beginning, or
 * what is around its cell `at`. `values`: whether there are any, which are looked at one by one.
 */
export function sight(layout: Layout, blocks: readonly string[], at: readonly number[] | null = null, values = true): Box | null {
  const [first, ...others] = blocks.map((id) => layout.row(id)).filter((row) => row !== null);
  if (first === undefined) return null;
  const { cell } = layout;
  const all = layout.around(blocks)!;
  const small = [first, ...others].every((row) => longest(layout.cellsOf(row)) <= CELLS);
  const spread = longest(sizes(all));
  if (small && spread <= SPREAD * cell && spread <= STRAY * longest(sizes(layout.box(first)))) return all;
  const main = at ? aroundCell(layout.box(first), at, cell) : beginning(layout.box(first), reachOf(layout.cellsOf(first), values) * cell);
  const reach = Math.max(longest(sizes(main)), 12 * cell);
  const beside = grown(main, BESIDE * reach);
  const near = grown(main, NEAR * reach);
  if (!values) [near.min[2], near.max[2]] = [beside.min[2], beside.max[2]]; // a hundred heads stand one behind the other
  const seen = others.map((row) => layout.box(row)).map((box) => (within(box, near) ? box : common(box, beside)));
  return unite([main, ...seen.filter((box) => box !== null)]);
}

/** How many cells of a block's length are seen. */
function reachOf([width, height]: readonly number[], values: boolean): number {
  const kind = values ? "values" : "none";
  const slim = Math.max(SLIM[kind] * Math.min(width, height), LEAST[kind]);
  return values ? Math.min(slim, CELLS) : slim;
}

function beginning(box: Box, reach: number): Box {
  return common(box, { min: box.min, max: box.min.map((low) => low + reach) as Box["max"] })!;
}

function aroundCell(box: Box, at: readonly number[], cell: number): Box {
  const from = box.min.map((low, axis) => low + at[axis] * cell) as Box["min"];
  return common(box, grown({ min: from, max: from.map((low) => low + cell) as Box["max"] }, AROUND * cell))!;
}

function grown({ min, max }: Box, by: number): Box {
  return { min: min.map((low) => low - by) as Box["min"], max: max.map((high) => high + by) as Box["max"] };
}

function within(inner: Box, outer: Box): boolean {
  return inner.min.every((low, axis) => low >= outer.min[axis] && inner.max[axis] <= outer.max[axis]);
}

const sizes = ({ min, max }: Box): number[] => max.map((high, axis) => high - min[axis]);
const longest = (of: readonly number[]): number => Math.max(...of);

/** What two boxes have in common. */
export function common(a: Box, b: Box): Box | null {
  const min = a.min.map((low, axis) => Math.max(low, b.min[axis])) as Box["min"];
  const max = a.max.map((high, axis) => Math.min(high, b.max[axis])) as Box["max"];
  return min.every((low, axis) => low < max[axis]) ? { min, max } : null;
}
