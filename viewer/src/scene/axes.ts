/** Token labels along the axes of blocks. */

import { isPosition, isVocabulary, type Part } from "../layout/description";
import { inputTokens, visible } from "../reading/tokens";
import { lineSpot, overlap, type Area, type Spot } from "./labels";
import type { Shown } from "./models";
import { FONT, INK, aroundView, inLight } from "./names";
import type { Sheet } from "./sheet";
import type { Point } from "../layout/box";

const SIZE = 10; // font size in pixels
const LEAST = 9; // the smallest cell with a label, in pixels
const LONGEST = 10; // letters of a token
const ALWAYS = new Set<Part | null>(["tokens", "scores", "pattern", "logits", "probs"]);

/** Labels highlighted blocks; without a highlight, blocks of the kinds in ALWAYS. */
export function drawAxes(sheet: Sheet): void {
  const { stage, store } = sheet;
  stage.models.shown.forEach((shown, figure) => {
    const { layout } = shown.figure;
    const light = inLight(store.state.highlight, figure);
    if (light) return light.forEach((id) => label(sheet, shown, layout.row(id)));
    if (store.state.highlight?.dim) return;
    for (const { span } of shown.blocks.slabs.filter((slab) => shown.depths.get(slab)?.inView))
      for (let row = span.start; row < span.end; row++) if (ALWAYS.has(layout.kindAt(row).part)) label(sheet, shown, row);
  });
}

/** Labels both axes of a block's cells. */
function label(sheet: Sheet, shown: Shown, row: number | null): void {
  if (row === null) return;
  const { layout } = shown.figure;
  const { part, dims, role } = layout.kindAt(row);
  if (role === "statistic") return;
  const cells = layout.cellsOf(row);
  ([0, 1] as const).forEach((axis) => {
    const texts = textsOf(shown, dims[axis], part === "tokens");
    if (texts) along(sheet, shown, row, axis, cells[axis], texts);
  });
}

/** The label at each index of an axis; null for an axis without labels. */
function textsOf({ figure: { trace, model } }: Shown, dim: string | undefined, numbered: boolean): ((n: number) => string) | null {
  if (isPosition(dim) && trace) {
    const tokens = inputTokens(trace);
    return (n) => visible(tokens[n]?.text ?? "");
  }
  if (isPosition(dim)) return numbered ? String : null;
  const letters = isVocabulary(dim) ? model?.vocabulary.tokens : null;
  return letters ? (n) => visible(letters[n] ?? "") : null;
}

/** Draws labels left of the rows or below the columns, leaving out those that would overlap. */
function along(sheet: Sheet, shown: Shown, row: number, axis: 0 | 1, count: number, texts: (n: number) => string): void {
  const { pen, stage, store } = sheet;
  const { pose, layoutCell } = shown;
  const box = shown.figure.layout.box(row);
  if (layoutCell * stage.pixelsAt(stage.projection.nearest(pose.box(box))) < LEAST) return;
  const { min, max } = aroundView(sheet, shown, box);
  const lines = (pose.flow === "right") === (axis === 0); // whether this axis is vertical on the screen
  const [near, far] = lines ? [min, max] : [max, min];
  const other = axis === 0 ? 1 : 0;
  const end = (n: number, edge: Point, z: number): Spot & { depth: number } => {
    const place: Point = [0, 0, z];
    place[axis] = box.min[axis] + (n + 0.5) * layoutCell;
    place[other] = edge[other];
    return stage.project(pose.point(place));
  };
  pen.font = `500 ${SIZE}px ${FONT}`;
  let last = -Infinity;
  for (let n = 0; n < count; n++) {
    const from = end(n, near, max[2]);
    if (from.depth <= 0 || layoutCell * stage.pixelsAt(from.depth) < LEAST) continue;
    const text = cut(texts(n));
    const { width } = pen.measureText(text);
    const side = Math.min(from.x, end(n, near, min[2]).x); // the block's side may be visible
    const spot = lines ? lineSpot({ ...from, x: side }, end(n, far, max[2]), width) : { x: from.x - width / 2, y: from.y + SIZE + 4 };
    const place = lines ? from.y : from.x;
    if (!spot || Math.abs(place - last) < (lines ? SIZE : width + 4)) continue;
    last = place;
    write(sheet, text, lines ? { x: spot.x, y: spot.y + SIZE / 3 } : spot, width, store.state.viewport);
  }
}

function cut(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
}

function write({ pen, room }: Sheet, text: string, { x, y }: Spot, width: number, window: Area): void {
  const rect = { x, y: y - SIZE + 1, w: width, h: SIZE };
  if (!text || !overlap(rect, { x: 0, y: 0, w: window.width, h: window.height }) || !room.free(rect)) return;
  room.take(rect);
  pen.lineWidth = 3;
  pen.strokeStyle = "#0b0e14cc";
  pen.strokeText(text, x, y);
  pen.fillStyle = INK.outline;
  pen.fillText(text, x, y);
}
