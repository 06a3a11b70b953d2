/** The visible part of each block and its size on the screen. */

import { item } from "../checked/item";
import type { Layout } from "../layout/layout";
import { whole, type Rect } from "../layout/place";
import { pick } from "../scene/pick";
import type { Shown } from "../scene/models";
import type { Stage } from "../scene/stage";

export interface Visible {
  shown: Shown;
  row: number;
  visible: Rect; // in cells
  pixelsPerCell: number;
  area: number; // in pixels
}

const SMALL_FIGURE = 1 << 19; // cells: smaller models are filled whole, regardless of their size on the screen
const MOST = 250; // blocks of a model at once
const SMALLEST = { side: 2, area: 400 }; // pixels, below which a block's cells cannot be distinguished

const SAMPLES = [[0.5, 0.5], [0.1, 0.1], [0.9, 0.9], [0.9, 0.1], [0.1, 0.9]] as const; // shares of a part

/** The blocks in view that are large enough, the largest first. */
export function blocksInView(stage: Stage, viewport: { width: number; height: number }): Visible[] {
  const found: Visible[] = [];
  for (const shown of stage.models.shown) {
    if (cellsIn(shown.figure.layout) <= SMALL_FIGURE) found.push(...allBlocks(shown));
    else found.push(...inFront(stage, inWindow(stage, shown, viewport)));
  }
  return found.sort((a, b) => b.area - a.area);
}

/** The largest blocks that are not hidden by others: most heads are behind another. */
function inFront(stage: Stage, found: Visible[]): Visible[] {
  const front: Visible[] = [];
  for (const one of found.sort((a, b) => b.area - a.area).slice(0, 3 * MOST)) {
    if (front.length < MOST && isUnobstructed(stage, one)) front.push(one);
  }
  return front;
}

/** Whether a ray to any of a few sample points of the visible part hits this block first. */
function isUnobstructed(stage: Stage, { shown, row, visible }: Visible): boolean {
  const { layout } = shown.figure;
  const { min, max } = layout.box(row);
  const id = layout.id(row);
  return SAMPLES.some(([across, down]) => {
    const i = visible.i0 + across * (visible.i1 - visible.i0);
    const j = visible.j0 + down * (visible.j1 - visible.j0);
    const { x, y } = stage.project(shown.pose.point([min[0] + i * shown.layoutCell, min[1] + j * shown.layoutCell, max[2]]));
    return pick([shown], stage.ray(x, y))?.block === id;
  });
}

function allBlocks(shown: Shown): Visible[] {
  const { layout } = shown.figure;
  return Array.from({ length: layout.count }, (_, row) => {
    const cells = layout.cellsOf(row);
    return { shown, row, visible: whole(cells), pixelsPerCell: 1, area: cells[0] * cells[1] };
  });
}

function cellsIn({ count, cells }: Layout): number {
  let total = 0;
  for (let row = 0; row < count && total <= SMALL_FIGURE; row++) total += item(cells, 3 * row) * item(cells, 3 * row + 1);
  return total;
}

function inWindow(stage: Stage, shown: Shown, viewport: { width: number; height: number }): Visible[] {
  const found: Visible[] = [];
  const { size } = shown.figure.layout;
  for (const slab of shown.blocks.slabs) {
    const { span } = slab;
    const depth = shown.depths.get(slab);
    if (!depth?.inView) continue;
    const unit = stage.pixelsAt(Math.max(depth.min, stage.camera.distance * 0.01)); // at most
    for (let row = span.start; row < span.end; row++) {
      const [width, height] = [item(size, 3 * row) * unit, item(size, 3 * row + 1) * unit];
      if (width * height < SMALLEST.area || Math.min(width, height) < SMALLEST.side) continue;
      const one = measure(stage, shown, row, viewport);
      if (one) found.push(one);
    }
  }
  return found;
}

function measure(stage: Stage, shown: Shown, row: number, { width, height }: { width: number; height: number }): Visible | null {
  const { layout } = shown.figure;
  const { min, max } = layout.box(row);
  const corner = (x: number, y: number): ReturnType<Stage["project"]> => stage.project(shown.pose.point([x, y, max[2]]));
  const corners = [corner(min[0], min[1]), corner(max[0], min[1]), corner(min[0], max[1]), corner(max[0], max[1])];
  const nearest = Math.min(...corners.map(({ depth }) => depth));
  const behind = nearest <= 0;
  const [xs, ys] = [corners.map(({ x }) => x), corners.map(({ y }) => y)];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (!behind && (right < 0 || bottom < 0 || left > width || top > height)) return null;
  const visible = partInView(stage, shown, row, width, height);
  if (!visible) return null;
  const unit = stage.pixelsAt(Math.max(nearest, stage.camera.distance * 0.3));
  const pixelsPerCell = unit * shown.layoutCell;
  const [across, down] = [(visible.i1 - visible.i0) * pixelsPerCell, (visible.j1 - visible.j0) * pixelsPerCell];
  const area = across * down;
  if (Math.min(across, down) < SMALLEST.side || area < SMALLEST.area) return null;
  return { shown, row, visible, pixelsPerCell, area };
}

/** The cells of a block's front between the window's corners; all of them if a corner misses its plane. */
function partInView(stage: Stage, { figure: { layout }, pose, layoutCell }: Shown, row: number, width: number, height: number): Rect | null {
  const { min, max } = layout.box(row);
  const [cx, cy] = layout.cellsOf(row);
  const hit = (x: number, y: number): { i: number; j: number } | null => {
    const ray = stage.ray(x, y);
    const [origin, direction] = [pose.unpoint(ray.origin), pose.unturn(ray.direction)];
    const t = (max[2] - origin[2]) / direction[2];
    if (!(t > 0) || !Number.isFinite(t)) return null;
    return { i: (origin[0] + t * direction[0] - min[0]) / layoutCell, j: (origin[1] + t * direction[1] - min[1]) / layoutCell };
  };
  const hits = [hit(0, 0), hit(width, 0), hit(0, height), hit(width, height)].filter((one) => one !== null);
  if (hits.length < 4) return { i0: 0, j0: 0, i1: cx, j1: cy };
  const [is, js] = [hits.map(({ i }) => i), hits.map(({ j }) => j)];
  const clip = (n: number, most: number): number => Math.max(0, Math.min(most, n));
  const part = {
    i0: clip(Math.floor(Math.min(...is)), cx),
    j0: clip(Math.floor(Math.min(...js)), cy),
    i1: clip(Math.ceil(Math.max(...is)), cx),
    j1: clip(Math.ceil(Math.max(...js)), cy),
  };
  return part.i0 < part.i1 && part.j0 < part.j1 ? part : null;
}
