/** The 2D overlay: names, tokens, arrows and outlines. */

import type { Store } from "../state/store";
import { current } from "../state/state";
import { drawOperands, outline } from "./arrows";
import { drawAxes } from "./axes";
import { Room } from "./labels";
import { drawNames, INK } from "./names";
import { penOf } from "./pen";
import type { Sheet } from "./sheet";
import type { Stage } from "./stage";

export class Overlay {
  #sheet: Sheet;

  constructor(
    readonly canvas: HTMLCanvasElement,
    stage: Stage,
    store: Store,
  ) {
    this.#sheet = { pen: penOf(canvas), room: new Room(), stage, store };
    stage.onFrame(() => this.draw());
    store.subscribe((state) => state.cellInfo, () => stage.invalidate());
    store.subscribe(current, () => stage.invalidate());
    store.subscribe(({ view }) => view.language, () => stage.invalidate());
  }

  draw(): void {
    const { pen, room, stage, store } = this.#sheet;
    const { width, height } = store.state.viewport;
    const { ratio } = stage;
    if (this.canvas.width !== width * ratio || this.canvas.height !== height * ratio)
      Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    room.clear();
    drawNames(this.#sheet);
    drawAxes(this.#sheet);
    drawOperands(this.#sheet);
    for (const at of store.state.highlight?.cells ?? []) outline(this.#sheet, at, INK.outline, 2);
    const at = current(store.state);
    if (at) outline(this.#sheet, at, INK.title, 2);
  }
}
