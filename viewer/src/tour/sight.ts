/** The box that the camera shows in a step: all blocks if they are small, else a readable part of the computed block. */

import { AXES, pointOf, sizeOf, unite, type Box } from "../layout/box";
import type { Cells, Layout } from "../layout/layout";

const CELLS = 200; // the longest side of a block that is shown whole, in cells
const SPREAD = 450; // the largest extent of several blocks that are shown whole, in cells
const STRAY = 10; // the same, in sizes of the first block
const SLIM = { values: 6, none: 16 }; // the maximum length shown of a block, in widths, so that it fills the window
const LEAST = { values: 48, none: 24 }; // the minimum length shown, in cells
const NEAR = 3.5; // shown lengths within which other blocks are shown whole
const BESIDE = 1; // shown lengths within which parts of other blocks are shown
const AROUND = 25; // cells shown on each side of a chosen one

/**
 * The box in the layout's coordinates; null if no block exists. It contains the beginning of the first block, or the
 * surroundings of its `cell`. `values`: whether there are values, which need a closer view.
 */
export function sight(layout: Layout, blocks: readonly string[], cell: Cells | null = null, values = true): Box | null {
  const [first, ...others] = blocks.map((id) => layout.row(id)).filter((row) => row !== null);
  if (first === undefined) return null;
  const side = layout.cell;
  const all = unite([first, ...others].map((row) => layout.box(row)));
  const small = [first, ...others].every((row) => longest(layout.cellsOf(row)) <= CELLS);
  const spread = longest(sizeOf(all));
  if (small && spread <= SPREAD * side && spread <= STRAY * longest(sizeOf(layout.box(first)))) return all;
  const main = cell ? aroundCell(layout.box(first), cell, side) : beginning(layout.box(first), reachOf(layout.cellsOf(first), values) * side);
  const reach = Math.max(longest(sizeOf(main)), 12 * side);
  const beside = grown(main, BESIDE * reach);
  const near = grown(main, NEAR * reach);
  if (!values) [near.min[2], near.max[2]] = [beside.min[2], beside.max[2]]; // there may be a hundred heads one behind the other
  const seen = others.map((row) => layout.box(row)).map((box) => (within(box, near) ? box : common(box, beside)));
  return unite([main, ...seen.filter((box) => box !== null)]);
}

/** The number of cells of a block's length that are shown. */
function reachOf([width, height]: Cells, values: boolean): number {
  const kind = values ? "values" : "none";
  const slim = Math.max(SLIM[kind] * Math.min(width, height), LEAST[kind]);
  return values ? Math.min(slim, CELLS) : slim;
}

function beginning({ min, max }: Box, reach: number): Box {
  return { min, max: pointOf((axis) => Math.min(max[axis], min[axis] + reach)) };
}

function aroundCell(box: Box, cell: Cells, side: number): Box {
  const min = pointOf((axis) => box.min[axis] + cell[axis] * side);
  const max = pointOf((axis) => min[axis] + side);
  return common(box, grown({ min, max }, AROUND * side)) ?? box;
}

function grown({ min, max }: Box, by: number): Box {
  return { min: pointOf((axis) => min[axis] - by), max: pointOf((axis) => max[axis] + by) };
}

function within(inner: Box, outer: Box): boolean {
  return AXES.every((axis) => inner.min[axis] >= outer.min[axis] && inner.max[axis] <= outer.max[axis]);
}

const longest = (of: readonly number[]): number => Math.max(...of);

/** The intersection of two boxes; null if it is empty. */
export function common(a: Box, b: Box): Box | null {
  const min = pointOf((axis) => Math.max(a.min[axis], b.min[axis]));
  const max = pointOf((axis) => Math.min(a.max[axis], b.max[axis]));
  return AXES.every((axis) => min[axis] < max[axis]) ? { min, max } : null;
}
