/** Names of models, layers and blocks on the picture. */

import { blockName } from "../i18n/names";
import { number, t } from "../i18n/text";
import type { Box } from "../layout/box";
import { pick } from "./pick";
import { refText } from "../state/address";
import type { Highlight } from "../state/state";
import { boundsOf, nameSpot, textRect, type Rect, type Spot } from "./labels";
import type { Shown } from "./models";
import type { Sheet } from "./sheet";
import type { Point } from "../layout/box";

export const FONT = "system-ui, sans-serif";
export const INK = { name: "#c4cedd", layer: "#8b98ad", title: "#ffffff", outline: "#ffe9a8" };
const NAMED = 34; // the smallest named block, in pixels; half of that in the other direction
const HIGHLIGHTED = 8; // the same for highlighted blocks
const AROUND = 1.6; // camera distances: everything visible at the target's depth is within
const LARGE = 0.12; // share of the window above which a block's name is moved into the window

interface Name {
  text: string;
  more?: string; // after it, in a fainter colour
  ink: string;
  size: number;
  weight: number;
}

export function drawNames(sheet: Sheet): void {
  const { stage, store } = sheet;
  const { shown: models } = stage.models;
  models.forEach((shown, figure) => {
    const light = inLight(store.state.highlight, figure);
    if (models.length > 1) title(sheet, shown);
    if (light) blockNames(sheet, shown, light.map((id) => shown.figure.layout.row(id)).filter((row) => row !== null), true);
    for (const slab of shown.blocks.slabs) {
      const depth = shown.depths.get(slab);
      if (!depth?.inView) continue;
      if (slab.span.layer >= 0) layerName(sheet, shown, slab);
      const cell = shown.layoutCell * stage.pixelsAt(Math.max(depth.min, stage.camera.distance / 10));
      const { start, end } = slab.span;
      if (!store.state.highlight?.dim && cell > 0.8) blockNames(sheet, shown, Array.from({ length: end - start }, (_, n) => start + n), false);
    }
  });
}

/** The blocks of a figure that are not dimmed; null without dimming. */
export function inLight(highlight: Highlight | null, figure: number): string[] | null {
  return highlight?.dim && figure === (highlight.figure ?? 0) ? [...highlight.blocks, ...(highlight.lit ?? [])] : null;
}

/** A model's name above it; higher where the next model's name overlaps. */
function title(sheet: Sheet, { figure, pose }: Shown): void {
  const { min, max } = pose.box(figure.layout.bounds);
  const { x, y, depth } = sheet.stage.project([min[0], max[1], max[2]]);
  const name: Name = { text: figure.model?.name ?? refText(figure.ref), ink: INK.title, size: 15, weight: 600 };
  if (depth > 0) [0, 1, 2, 3].some((lift) => write(sheet, name, { x, y: y - lift * (name.size + 6) }));
}

function layerName(sheet: Sheet, { pose }: Shown, { span, box }: Shown["blocks"]["slabs"][number]): void {
  const at = sheet.stage.project(pose.point([box.max[0], box.min[1], box.max[2]]));
  const name: Name = { text: t("layer", { n: span.layer }), ink: INK.layer, size: 12, weight: 500 };
  if (at.depth > 0 && (box.max[1] - box.min[1]) * sheet.stage.pixelsAt(at.depth) >= 60) write(sheet, name, at);
}

/** Draws the names of blocks that are large enough; of highlighted ones (`light`) with their sizes. */
function blockNames(sheet: Sheet, shown: Shown, rows: readonly number[], light: boolean): void {
  const { layout } = shown.figure;
  for (const row of rows) {
    const kind = layout.kindAt(row);
    if (kind.minor || !kind.name) continue;
    const [x, y] = layout.cellsOf(row).map((cells) => number(cells));
    const more = !light ? "" : shown.pose.flow === "right" ? `${x} × ${y}` : `${y} × ${x}`; // rows × columns on the screen
    blockLabel(sheet, shown, row, { text: blockName(kind), more, ink: INK.name, size: 11, weight: 500 }, light ? HIGHLIGHTED : NAMED);
  }
}

/** Draws a name at its block's upper left corner; if that is outside the window, in the visible part of a large block. */
function blockLabel(sheet: Sheet, shown: Shown, row: number, name: Name, least: number): void {
  const { stage, store } = sheet;
  const { pose, layoutCell } = shown;
  const { min, max } = aroundView(sheet, shown, shown.figure.layout.box(row));
  const seenAt = (x: number, y: number): Spot & { depth: number } => stage.project(pose.point([x, y, max[2]]));
  const corner = seenAt(min[0], min[1]);
  const corners = [corner, seenAt(min[0], max[1]), seenAt(max[0], min[1]), seenAt(max[0], max[1])];
  if (corners.some(({ depth }) => depth <= 0)) return;
  const [unit, block] = [stage.pixelsAt(corner.depth), boundsOf(corners)];
  const [high, wide] = [(max[1] - min[1]) * unit, (max[0] - min[0]) * unit];
  if (Math.max(high, wide) < least) return; // most blocks end here
  const seen = nameSpot(corner, block, { width: measured(sheet, name), height: name.size }, store.state.viewport);
  if (!seen) return;
  const moved = seen.x > corner.x || seen.y > corner.y;
  const isLarge = name.more ? Math.min(high, wide) >= least / 2 : high >= least && wide >= least / 2; // highlighted blocks may be thin
  if (moved ? !name.more && !large(block, sheet) : !isLarge) return;
  const inside: Point = [min[0] + layoutCell / 2, min[1] + layoutCell / 2, max[2]];
  let known: boolean | null = null; // computed once
  const isUnobstructed = (): boolean => (known ??= unobstructed(sheet, shown, row, moved ? seen : stage.project(pose.point(inside))));
  const lifts = name.more && !moved ? [0, 1, 2] : [0]; // highlighted blocks may be close behind each other
  lifts.some((lift) => write(sheet, name, { x: seen.x, y: seen.y - lift * (name.size + 5) }, isUnobstructed));
}

/** The part of a box around the camera's target: the rest is outside the window or behind the camera. */
export function aroundView({ stage: { camera } }: Sheet, { pose }: Shown, { min, max }: Box): Box {
  const middle = pose.unpoint(camera.target);
  const clip = (x: number, axis: 0 | 1): number => Math.max(middle[axis] - AROUND * camera.distance, Math.min(x, middle[axis] + AROUND * camera.distance));
  return { min: [clip(min[0], 0), clip(min[1], 1), min[2]], max: [clip(max[0], 0), clip(max[1], 1), max[2]] };
}

function large({ x, y, w, h }: Rect, { store }: Sheet): boolean {
  const { width, height } = store.state.viewport;
  const clip = (from: number, size: number, most: number): number => Math.max(0, Math.min(from + size, most) - Math.max(from, 0));
  return clip(x, w, width) * clip(y, h, height) > LARGE * width * height;
}

/** Whether nothing is in front of a block at this place of the canvas. */
function unobstructed({ stage }: Sheet, { figure: { layout } }: Shown, row: number, { x, y }: Spot): boolean {
  const hit = pick(stage.models.shown, stage.ray(x, y));
  return !hit || hit.block === layout.id(row);
}

function measured({ pen }: Sheet, { text, more, size, weight }: Name): number {
  pen.font = `${weight} ${size}px ${FONT}`;
  return pen.measureText(more ? `${text}  ${more}` : text).width;
}

/** Draws a name if there is room for it, and returns whether there was. */
function write(sheet: Sheet, name: Name, foot: Spot, isUnobstructed = () => true): boolean {
  const { pen, room, store } = sheet;
  const { width, height } = store.state.viewport;
  if (foot.x < -80 || foot.y < 0 || foot.x > width || foot.y > height + 20) return false;
  const rect = textRect(foot, { width: measured(sheet, name), height: name.size });
  if (!room.free(rect) || !isUnobstructed()) return false;
  room.take(rect);
  inked(pen, name.text, foot, name.ink);
  if (name.more) inked(pen, name.more, { x: foot.x + pen.measureText(`${name.text}  `).width, y: foot.y }, INK.layer);
  return true;
}

/** Draws text with a dark outline, legible on any background. */
function inked(pen: CanvasRenderingContext2D, text: string, { x, y }: Spot, ink: string): void {
  pen.lineWidth = 3;
  pen.strokeStyle = "#0b0e14cc";
  pen.strokeText(text, x, y - 5);
  pen.fillStyle = ink;
  pen.fillText(text, x, y - 5);
}
