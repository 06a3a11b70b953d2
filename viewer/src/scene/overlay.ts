/** What is drawn over the picture in two dimensions: names, arrows to operands, outlines of cells. */

import type { Store } from "../state/store";
import { current, type Bar } from "../state/state";
import type { CellAt } from "../state/view";
import { blockName } from "../i18n/names";
import { t } from "../i18n/text";
import { pick } from "../picking/pick";
import { refText } from "../state/address";
import type { Shown } from "./models";
import type { Point } from "./pose";
import type { Stage } from "./stage";

const FONT = "system-ui, sans-serif";
const INK = { name: "#c4cedd", layer: "#8b98ad", title: "#ffffff", outline: "#ffe9a8", arrow: "#ffd166" };
const NAMED = 34; // pixels of a block that has its name beside it
const SPOKEN = 8; // and of one that is spoken of
const MOST_ARROWS = 48;

interface Rect {
  x: number;
  y: number;
  w: number;
  h: number;
}

export class Overlay {
  #pen: CanvasRenderingContext2D;
  #taken: Rect[] = [];

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly stage: Stage,
    private readonly store: Store,
  ) {
    this.#pen = canvas.getContext("2d")!;
    stage.onFrame(() => this.draw());
    store.subscribe((state) => state.told, () => stage.invalidate());
    store.subscribe(current, () => stage.invalidate());
    store.subscribe(({ view }) => view.language, () => stage.invalidate());
  }

  draw(): void {
    const { width, height } = this.store.state.viewport;
    const { ratio } = this.stage;
    if (this.canvas.width !== width * ratio || this.canvas.height !== height * ratio)
      Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
    this.#pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#pen.clearRect(0, 0, width, height);
    this.#taken = [];
    this.#names();
    this.#operands();
    for (const at of this.store.state.highlight?.cells ?? []) this.#outline(at, INK.outline, 2);
    const at = current(this.store.state);
    if (at) this.#outline(at, INK.title, 2);
  }

  // ------------------------------------------------------------------------------------------------ names

  #names(): void {
    const light = this.#light();
    for (const shown of this.stage.models.shown) {
      this.#title(shown);
      if (light) this.#blockNames(shown, light.map((id) => shown.figure.layout.row(id)), SPOKEN);
      for (const slab of shown.blocks.slabs) {
        const depth = shown.depths.get(slab);
        if (!depth?.inView) continue;
        const { span, box } = slab;
        if (span.layer >= 0) this.#at(shown, [box.max[0], box.min[1], box.max[2]], t("layer", { n: span.layer }), INK.layer, 12, 60, [box.max[1] - box.min[1]]);
        const cell = shown.layoutCell * this.stage.pixelsAt(Math.max(depth.min, this.stage.camera.distance / 10));
        if (!light && cell > 0.8) this.#blockNames(shown, Array.from({ length: span.end - span.start }, (_, n) => span.start + n), NAMED);
      }
    }
  }

  #title(shown: Shown): void {
    const { figure } = shown;
    if (this.stage.models.shown.length < 2) return;
    const { min, max } = shown.pose.box(figure.layout.bounds);
    const name = figure.model?.name ?? refText(figure.ref);
    const lifts = [0, 1, 2, 3]; // lines that it stands higher, where the name of the model beside it reaches over
    lifts.some((lift) => this.#text([min[0], max[1], max[2]], name, INK.title, 15, 600, undefined, lift));
  }

  /** Of blocks that are at least so many pixels high, and half as wide. */
  #blockNames(shown: Shown, rows: readonly (number | null)[], least: number): void {
    const { layout } = shown.figure;
    for (const row of rows) {
      if (row === null) continue;
      const kind = layout.kindAt(row);
      if (kind.minor || !kind.name) continue;
      const { min, max } = layout.box(row);
      const side = shown.layoutCell / 2;
      const across = shown.pose.flow === "right";
      const inside: Point = [across ? max[0] - side : min[0] + side, min[1] + side, max[2]];
      const at: Point = [across ? max[0] : min[0], min[1], max[2]];
      const name = blockName(kind);
      this.#at(shown, at, name, INK.name, 11, least, [max[1] - min[1], max[0] - min[0]], () => this.#open(shown, row, inside));
    }
  }

  /** The blocks that do not step back; null: none does. */
  #light(): string[] | null {
    const { highlight } = this.store.state;
    return highlight?.dim ? [...highlight.blocks, ...(highlight.lit ?? [])] : null;
  }

  /** Whether nothing is in front of this place of a block. */
  #open(shown: Shown, row: number, inside: Point): boolean {
    const { x, y } = this.stage.project(shown.pose.point(inside));
    const hit = pick(this.stage.models.shown, this.stage.ray(x, y));
    return !hit || hit.block === shown.figure.layout.id(row);
  }

  /** A text at a point of the layout, if what it names is so many pixels large, in both directions that are given. */
  #at(shown: Shown, point: Point, text: string, ink: string, size: number, least: number, extents: number[], open = () => true): void {
    const at = shown.pose.point(point);
    const unit = this.stage.pixelsAt(this.stage.project(at).depth);
    if (extents.some((extent, n) => extent * unit < (n ? least / 2 : least))) return;
    this.#text(at, text, ink, size, 500, open);
  }

  /** Tells whether there was room for it. */
  #text(point: Point, text: string, ink: string, size: number, weight: number, open = () => true, lift = 0): boolean {
    const { x, y: foot, depth } = this.stage.project(point);
    const { width, height } = this.store.state.viewport;
    const y = foot - lift * (size + 6);
    if (depth <= 0 || x < -80 || y < 0 || x > width || y > height + 20) return false;
    this.#pen.font = `${weight} ${size}px ${FONT}`;
    const rect = { x: x - 2, y: y - size - 6, w: this.#pen.measureText(text).width + 6, h: size + 5 };
    if (this.#taken.some((other) => overlap(rect, other)) || !open()) return false;
    this.#taken.push(rect);
    this.#pen.lineWidth = 3;
    this.#pen.strokeStyle = "#0b0e14cc";
    this.#pen.strokeText(text, x, y - 5);
    this.#pen.fillStyle = ink;
    this.#pen.fillText(text, x, y - 5);
    return true;
  }

  // -------------------------------------------------------------------------------------- cells and arrows

  /** The four corners of the front of a cell, or of several in a line, on the canvas; null where it cannot be seen. */
  #corners({ figure, block, cell, to = cell }: Bar): { x: number; y: number }[] | null {
    const shown = this.stage.models.shown[figure];
    const row = shown?.figure.layout.row(block) ?? null;
    if (row === null) return null;
    const { min, max } = shown.figure.layout.box(row);
    const side = shown.layoutCell;
    const [i, j, a, b] = [Math.min(cell[0], to[0]), Math.min(cell[1], to[1]), Math.max(cell[0], to[0]) + 1, Math.max(cell[1], to[1]) + 1];
    const corners = [[i, j], [a, j], [a, b], [i, b]].map(([x, y]) =>
      this.stage.project(shown.pose.point([min[0] + x * side, min[1] + y * side, max[2]])),
    );
    return corners.some(({ depth }) => depth <= 0) ? null : corners;
  }

  #outline(at: Bar, ink: string, width: number): void {
    const corners = this.#corners(at);
    if (!corners) return;
    this.#pen.beginPath();
    for (const { x, y } of corners) this.#pen.lineTo(x, y);
    this.#pen.closePath();
    this.#pen.lineWidth = width;
    this.#pen.strokeStyle = ink;
    this.#pen.stroke();
  }

  /** From each operand to the cell that is made of it: the larger the operand, the clearer. */
  #operands(): void {
    const { told } = this.store.state;
    const to = told?.explanation && this.#centre(told.at);
    if (!to) return;
    const operands = told.explanation!.operands.slice(0, MOST_ARROWS);
    const largest = Math.max(...operands.map(({ value }) => Math.abs(value ?? 0)), 1e-12);
    for (const { block, cell, value } of operands.reverse()) {
      const at = { figure: told.at.figure, block, cell: cell as CellAt["cell"] };
      const from = this.#centre(at);
      if (!from) continue;
      this.#pen.globalAlpha = 0.25 + 0.65 * Math.abs((value ?? 0) / largest);
      this.#arrow(from, to);
      this.#outline(at, INK.arrow, 1.25);
    }
    this.#pen.globalAlpha = 1;
  }

  #centre(at: CellAt): { x: number; y: number } | null {
    const corners = this.#corners(at);
    return corners && { x: (corners[0].x + corners[2].x) / 2, y: (corners[0].y + corners[2].y) / 2 };
  }

  #arrow(from: { x: number; y: number }, to: { x: number; y: number }): void {
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const far = Math.hypot(dx, dy);
    if (far < 4) return;
    const bend = Math.min(0.18 * far, 60) / far;
    const middle = { x: (from.x + to.x) / 2 - dy * bend, y: (from.y + to.y) / 2 + dx * bend };
    const turn = Math.atan2(to.y - middle.y, to.x - middle.x);
    this.#pen.strokeStyle = this.#pen.fillStyle = INK.arrow;
    this.#pen.lineWidth = 1.25;
    this.#pen.beginPath();
    this.#pen.moveTo(from.x, from.y);
    this.#pen.quadraticCurveTo(middle.x, middle.y, to.x, to.y);
    this.#pen.stroke();
    this.#pen.beginPath();
    this.#pen.moveTo(to.x, to.y);
    for (const side of [-0.4, 0.4]) this.#pen.lineTo(to.x - 8 * Math.cos(turn + side), to.y - 8 * Math.sin(turn + side));
    this.#pen.fill();
  }
}

function overlap(a: Rect, b: Rect): boolean {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}
