/** The block and the cell under the pointer: a ray against boxes, layer by layer. */

import type { Box } from "../layout/layout";
import type { Shown } from "../scene/models";
import type { Ray } from "../scene/stage";
import type { CellAt } from "../state/view";

/** How far along the ray it enters a box; null where it misses, or the box is behind. */
export function enter({ min, max }: Box, origin: readonly number[], direction: readonly number[]): number | null {
  let [from, to] = [0, Infinity];
  for (let axis = 0; axis < 3; axis++) {
    const a = (min[axis] - origin[axis]) / direction[axis];
    const b = (max[axis] - origin[axis]) / direction[axis];
    if (Number.isNaN(a) || Number.isNaN(b)) continue; // parallel to a side and on it
    from = Math.max(from, Math.min(a, b));
    to = Math.min(to, Math.max(a, b));
  }
  return from <= to ? from : null;
}

/** The cell of a box where a ray enters it. */
export function cellAt({ min, max }: Box, cells: readonly number[], at: readonly number[]): [number, number, number] {
  const cell = (axis: number): number => {
    const share = (at[axis] - min[axis]) / (max[axis] - min[axis]);
    return Math.max(0, Math.min(cells[axis] - 1, Math.floor(share * cells[axis])));
  };
  return [cell(0), cell(1), cell(2)];
}

export function pick(models: readonly Shown[], ray: Ray): CellAt | null {
  let best: { t: number; at: CellAt } | null = null;
  models.forEach(({ figure: { layout }, blocks, pose }, figure) => {
    const [origin, direction] = [pose.unpoint(ray.origin), pose.unturn(ray.direction)];
    for (const { box, span } of blocks.slabs) {
      const reached = enter(box, origin, direction);
      if (reached === null || (best && reached > best.t)) continue;
      for (let row = span.start; row < span.end; row++) {
        const block = layout.box(row);
        const t = enter(block, origin, direction);
        if (t === null || (best && t >= best.t)) continue;
        const at = origin.map((o, axis) => o + t * direction[axis]);
        best = { t, at: { figure, block: layout.id(row), cell: cellAt(block, layout.cellsOf(row), at) } };
      }
    }
  });
  return (best as { at: CellAt } | null)?.at ?? null;
}
