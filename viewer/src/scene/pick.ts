/** Picking: the block and cell that a ray hits. */

import { AXES, pointOf, type Box, type Point } from "../layout/box";
import type { Cells, Layout, Span } from "../layout/layout";
import type { Shown } from "./models";
import type { Ray } from "./projection";
import type { CellAt } from "../state/view";

/** The distance at which a ray enters a box; null if it misses the box or the box is behind. */
export function enter({ min, max }: Box, origin: Point, direction: Point): number | null {
  let [from, to] = [0, Infinity];
  for (const axis of AXES) {
    const a = (min[axis] - origin[axis]) / direction[axis];
    const b = (max[axis] - origin[axis]) / direction[axis];
    if (Number.isNaN(a) || Number.isNaN(b)) continue; // parallel to a side and on it
    from = Math.max(from, Math.min(a, b));
    to = Math.min(to, Math.max(a, b));
  }
  return from <= to ? from : null;
}

/** The cell of a box where a ray enters it. */
export function cellAt({ min, max }: Box, cells: Cells, place: Point): Cells {
  return pointOf((axis) => {
    const share = (place[axis] - min[axis]) / (max[axis] - min[axis]);
    return Math.max(0, Math.min(cells[axis] - 1, Math.floor(share * cells[axis])));
  });
}

export function pick(models: readonly Shown[], ray: Ray): CellAt | null {
  let [best, at]: [number, CellAt | null] = [Infinity, null];
  models.forEach(({ figure: { layout }, blocks, pose }, figure) => {
    const [origin, direction] = [pose.unpoint(ray.origin), pose.unturn(ray.direction)];
    for (const { box, span } of blocks.slabs) {
      const reached = enter(box, origin, direction);
      if (reached === null || reached > best) continue;
      const { row, t } = nearest(layout, span, origin, direction);
      if (t >= best) continue;
      const hit = pointOf((axis) => origin[axis] + t * direction[axis]);
      best = t;
      at = { figure, block: layout.id(row), cell: cellAt(layout.box(row), layout.cellsOf(row), hit) };
    }
  });
  return at;
}

/** `enter` for each block of a layer, without allocating boxes: there may be thousands. */
function nearest({ position, size }: Layout, { start, end }: Span, origin: Point, direction: Point): { row: number; t: number } {
  let [found, best] = [-1, Infinity];
  for (let row = start; row < end; row++) {
    let [from, to] = [0, best];
    for (const axis of AXES) {
      if (from > to) break;
      const low = position[3 * row + axis] ?? NaN; // NaN compares false: never hit
      const a = (low - origin[axis]) / direction[axis];
      const b = (low + (size[3 * row + axis] ?? NaN) - origin[axis]) / direction[axis];
      if (a < b) {
        if (a > from) from = a;
        if (b < to) to = b;
      } else {
        if (b > from) from = b;
        if (a < to) to = a;
      }
    }
    if (from <= to && from < best) [found, best] = [row, from];
  }
  return { row: found, t: best };
}
