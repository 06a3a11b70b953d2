/** An attention map with tokens on its axes, for pointer and keyboard. */

import { item } from "../checked/item";
import { t } from "../i18n/text";
import { isMasked, labelStep, shadesFor, type Map2D } from "../reading/attention";
import { channelsOf } from "../scene/palette";
import { penOf } from "../scene/pen";
import type { Colour } from "../state/view";
import { el } from "./dom";

const LETTER = 6.7; // pixels of a letter of a token
const ROOM = 12; // pixels: the line height of a token's text
const FONT = "11px ui-monospace, Menlo, Consolas, monospace";

const ARROWS: Record<string, readonly [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export interface At {
  query: number; // cells of the map
  key: number;
}

/** Callbacks for the cell under the pointer, and for a click. */
export interface Reader {
  over(at: At | null): void;
  pick(at: At): void;
}

export class Heatmap {
  readonly canvas = el("canvas", { class: "heatmap", tabindex: 0, role: "img", "aria-label": t("attention.map") });
  #map: Map2D | null = null;
  #colours: HTMLCanvasElement | null = null;
  #labels: string[] = [];
  #at: At | null = null;
  #axisRoom = 0; // pixels for the tokens

  constructor(private readonly reader: Reader) {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => this.#over(this.#cell(event)));
    canvas.addEventListener("pointerleave", () => this.#over(null));
    canvas.addEventListener("click", (event) => {
      const at = this.#cell(event);
      if (at) reader.pick(at);
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  /** `labels` are the tokens of all positions. */
  show(map: Map2D, labels: string[], colour: Colour): void {
    this.#map = map;
    this.#labels = labels;
    this.#axisRoom = 14 + LETTER * Math.max(...labels.map((text) => clipped(text).length));
    this.#colours = painted(map, colour);
    this.#draw();
  }

  #side(): number {
    return this.canvas.clientWidth - this.#axisRoom;
  }

  #cell({ offsetX, offsetY }: MouseEvent): At | null {
    if (!this.#map) return null;
    const { width, height } = this.#map;
    const [key, query] = [Math.floor(((offsetX - this.#axisRoom) / this.#side()) * width), Math.floor(((offsetY - this.#axisRoom) / this.#side()) * height)];
    return key >= 0 && query >= 0 && key < width && query < height ? { query, key } : null;
  }

  #over(at: At | null): void {
    if (at?.key === this.#at?.key && at?.query === this.#at?.query) return;
    this.#at = at;
    this.reader.over(at);
    this.#draw();
  }

  #key(event: KeyboardEvent): void {
    if (!this.#map) return;
    const { width, height } = this.#map;
    const [dk, dq] = ARROWS[event.key] ?? [0, 0];
    const at = this.#at ?? { query: height - 1, key: 0 };
    if (event.key === "Enter" || event.key === " ") this.reader.pick(at);
    else if (dk || dq) this.#over({ query: Math.max(0, Math.min(height - 1, at.query + dq)), key: Math.max(0, Math.min(width - 1, at.key + dk)) });
    else return;
    event.preventDefault();
  }

  #draw(): void {
    const { canvas } = this;
    const size = canvas.clientWidth;
    if (!this.#map || !this.#colours || !size) return;
    const ratio = Math.min(devicePixelRatio, 2);
    Object.assign(canvas, { width: size * ratio, height: size * ratio });
    const pen = penOf(canvas);
    pen.scale(ratio, ratio);
    pen.imageSmoothingEnabled = false;
    const side = this.#side();
    pen.drawImage(this.#colours, this.#axisRoom, this.#axisRoom, side, side);
    const ink = getComputedStyle(canvas);
    const [faint, strong, line] = [ink.getPropertyValue("--faint"), ink.getPropertyValue("--ink"), ink.getPropertyValue("--line")];
    this.#grid(pen, this.#map, side, line);
    this.#axis(pen, side, this.#map.height, this.#map.factors[1], this.#at?.query ?? null, [faint, strong], false);
    this.#axis(pen, side, this.#map.width, this.#map.factors[0], this.#at?.key ?? null, [faint, strong], true);
    if (this.#at) outline(pen, this.#at, this.#axisRoom, side / this.#map.width, side / this.#map.height);
  }

  #grid(pen: CanvasRenderingContext2D, { width, height }: Map2D, side: number, line: string): void {
    pen.strokeStyle = line;
    pen.lineWidth = 1;
    pen.strokeRect(this.#axisRoom - 0.5, this.#axisRoom - 0.5, side + 1, side + 1);
    if (side / width < 9) return;
    pen.globalAlpha = 0.5;
    for (let n = 1; n < Math.max(width, height); n++) {
      pen.strokeRect(this.#axisRoom, this.#axisRoom + (n * side) / height, side, 0);
      pen.strokeRect(this.#axisRoom + (n * side) / width, this.#axisRoom, 0, side);
    }
    pen.globalAlpha = 1;
  }

  /** Draws the tokens of an axis, those of columns upright; the selected cell's is always shown. */
  #axis(pen: CanvasRenderingContext2D, side: number, count: number, factor: number, at: number | null, [faint, strong]: readonly [string, string], across: boolean): void {
    const pixels = side / count;
    const step = labelStep(pixels, ROOM);
    pen.font = FONT;
    pen.textAlign = across ? "left" : "right";
    pen.textBaseline = "middle";
    for (let n = 0; n < count; n++) {
      const near = at !== null && n !== at && Math.abs(n - at) * pixels < ROOM;
      if (n !== at && (n % step || near)) continue;
      pen.fillStyle = n === at ? strong : faint;
      const text = clipped(this.#labels[n * factor] ?? "");
      const middle = this.#axisRoom + (n + 0.5) * pixels;
      pen.save();
      if (across) {
        pen.translate(middle, this.#axisRoom - 5);
        if (text.length > 1 || pixels < ROOM) pen.rotate(-Math.PI / 2);
        else pen.translate(-3.5, -4);
      } else pen.translate(this.#axisRoom - 6, middle);
      pen.fillText(text, 0, 0);
      pen.restore();
    }
  }
}

function clipped(text: string): string {
  return text.length > 6 ? `${text.slice(0, 5)}…` : text;
}

function outline(pen: CanvasRenderingContext2D, { query, key }: At, from: number, wide: number, high: number): void {
  pen.strokeStyle = "#ffffff";
  pen.lineWidth = 1.5;
  pen.strokeRect(from + key * wide, from + query * high, wide, high);
}

/** A map in the colours of values, one pixel per cell; masked cells are darker than 0. */
export function painted(map: Map2D, colour: Colour): HTMLCanvasElement {
  const { values, width, height, factors } = map;
  const canvas = el("canvas", { width, height });
  const image = new ImageData(width, height);
  const shades = shadesFor(colour, width * factors[0]);
  for (let n = 0; n < width * height; n++) {
    const [row, column] = [Math.floor(n / width), n % width];
    const shade = isMasked(map, row, column) ? 0.45 : 1;
    image.data.set(channelsOf(item(values, n), "value", shades).map((channel) => channel * shade), 4 * n);
    image.data[4 * n + 3] = 255;
  }
  penOf(canvas).putImageData(image, 0, 0);
  return canvas;
}
