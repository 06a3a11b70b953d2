/** The choice of which part of a block to fetch, at which resolution. */

import { whole, type Rect } from "../layout/place";

type Size = readonly [number, number, ...number[]];

/** A part of a block, with one value for `factor` × `factor` cells. */
export interface Choice {
  part: Rect;
  factor: number; // a power of two
  fine: boolean; // shown over a coarse version of the whole block
}

export const MOST = 1 << 16; // values of one read
const COARSE = 1 << 12; // values of the coarse version of such a block
const TILE = 64; // values: parts start and end at multiples of it, so that small camera moves fetch nothing

export function choose(cells: Size, visible: Rect, pixelsPerCell: number): Choice[] {
  const factor = 2 ** Math.max(0, Math.floor(Math.log2(1.6 / pixelsPerCell)));
  const all = whole(cells);
  if (count(all, factor) <= MOST) return [{ part: all, factor, fine: false }];
  const coarse = { part: all, factor: atMost(all, COARSE), fine: false };
  return [coarse, finePart(cells, visible, factor)];
}

function finePart([width, height]: Size, visible: Rect, wanted: number): Choice {
  for (let factor = wanted; ; factor *= 2) {
    const step = factor * TILE;
    const down = (n: number): number => Math.max(0, Math.floor(n / step) * step);
    const up = (n: number, most: number): number => Math.min(most, Math.ceil(n / step) * step);
    const part = { i0: down(visible.i0), j0: down(visible.j0), i1: up(visible.i1, width), j1: up(visible.j1, height) };
    if (count(part, factor) <= MOST) return { part, factor, fine: true };
  }
}

/** The smallest factor that leaves at most so many values. */
function atMost(part: Rect, most: number): number {
  let factor = 1;
  while (count(part, factor) > most) factor *= 2;
  return factor;
}

export function count({ i0, j0, i1, j1 }: Rect, factor: number): number {
  return Math.ceil((i1 - i0) / factor) * Math.ceil((j1 - j0) / factor);
}

/** Whether the values of one choice cover another. */
export function suffices(have: Choice, want: Choice): boolean {
  const { i0, j0, i1, j1 } = want.part;
  return have.part.i0 <= i0 && have.part.j0 <= j0 && have.part.i1 >= i1 && have.part.j1 >= j1 && have.factor <= want.factor;
}

/** The value of full brightness: the largest magnitude; for signed values at most twice the root mean square. */
export function scaleOf(values: Float32Array): number {
  let [largest, squares, n, negative] = [0, 0, 0, false];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    largest = Math.max(largest, Math.abs(value));
    squares += value * value;
    negative ||= value < 0;
    n++;
  }
  return negative ? Math.min(largest, 2 * Math.sqrt(squares / n)) : largest;
}
