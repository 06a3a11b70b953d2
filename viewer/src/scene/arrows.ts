/** Outlines of cells, and arrows from operands to the current cell. */

import type { Bar } from "../state/state";
import type { CellAt } from "../state/view";
import type { Spot } from "./labels";
import type { Sheet } from "./sheet";

const INK = "#ffd166";
const MOST = 48;

/** The four corners of a bar on the canvas; null if it is not visible. */
function corners({ stage }: Sheet, { figure, block, cell, to = cell }: Bar): [Spot, Spot, Spot, Spot] | null {
  const shown = stage.models.shown[figure];
  const row = shown?.figure.layout.row(block) ?? null;
  if (!shown || row === null) return null;
  const { min, max } = shown.figure.layout.box(row);
  const side = shown.layoutCell;
  const [i, j, a, b] = [Math.min(cell[0], to[0]), Math.min(cell[1], to[1]), Math.max(cell[0], to[0]) + 1, Math.max(cell[1], to[1]) + 1];
  const place = (x: number, y: number): Spot & { depth: number } => stage.project(shown.pose.point([min[0] + x * side, min[1] + y * side, max[2]]));
  const places = [place(i, j), place(a, j), place(a, b), place(i, b)] as const;
  return places.some(({ depth }) => depth <= 0) ? null : [...places];
}

export function outline(sheet: Sheet, at: Bar, ink: string, width: number): void {
  const places = corners(sheet, at);
  if (!places) return;
  const { pen } = sheet;
  pen.beginPath();
  for (const { x, y } of places) pen.lineTo(x, y);
  pen.closePath();
  pen.lineWidth = width;
  pen.strokeStyle = ink;
  pen.stroke();
}

/** Draws an arrow from each operand to the current cell: the larger the operand, the more opaque. */
export function drawOperands(sheet: Sheet): void {
  const { cellInfo } = sheet.store.state;
  const to = cellInfo?.explanation && centre(sheet, cellInfo.at);
  if (!cellInfo?.explanation || !to) return;
  const operands = cellInfo.explanation.operands.slice(0, MOST);
  const largest = Math.max(...operands.map(({ value }) => Math.abs(value ?? 0)), 1e-12);
  for (const { block, cell, value } of operands.reverse()) {
    const at = { figure: cellInfo.at.figure, block, cell: cell as CellAt["cell"] };
    const from = centre(sheet, at);
    if (!from) continue;
    sheet.pen.globalAlpha = 0.25 + 0.65 * Math.abs((value ?? 0) / largest);
    arrow(sheet.pen, from, to);
    outline(sheet, at, INK, 1.25);
  }
  sheet.pen.globalAlpha = 1;
}

function centre(sheet: Sheet, at: CellAt): Spot | null {
  const places = corners(sheet, at);
  if (!places) return null;
  const [from, , to] = places;
  return { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
}

function arrow(pen: CanvasRenderingContext2D, from: Spot, to: Spot): void {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const far = Math.hypot(dx, dy);
  if (far < 4) return;
  const bend = Math.min(0.18 * far, 60) / far;
  const middle = { x: (from.x + to.x) / 2 - dy * bend, y: (from.y + to.y) / 2 + dx * bend };
  const turn = Math.atan2(to.y - middle.y, to.x - middle.x);
  pen.strokeStyle = pen.fillStyle = INK;
  pen.lineWidth = 1.25;
  pen.beginPath();
  pen.moveTo(from.x, from.y);
  pen.quadraticCurveTo(middle.x, middle.y, to.x, to.y);
  pen.stroke();
  pen.beginPath();
  pen.moveTo(to.x, to.y);
  for (const side of [-0.4, 0.4]) pen.lineTo(to.x - 8 * Math.cos(turn + side), to.y - 8 * Math.sin(turn + side));
  pen.fill();
}
