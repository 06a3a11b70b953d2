/** The colour scales of weights and values, with the range of the current cell's block. */

import { cellValue, t } from "../i18n/text";
import { colourOf } from "../scene/palette";
import { penOf } from "../scene/pen";
import type { State } from "../state/state";
import type { Colour } from "../state/view";
import { el } from "./dom";
import type { App, Panel } from "./panel";

const STEPS = 96; // colours of a scale

export const legend: Panel = {
  id: "legend",
  place: "over",
  title: "legend",
  mount(root, app) {
    const { store, stage } = app;
    const show = (): void => {
      const { state } = store;
      root.hidden = !stage.frames || !state.figures.length; // there are no colours yet
      if (root.hidden) return;
      root.replaceChildren(...(["weight", "value"] as const).map((kind) => scale(kind, state, app)));
    };
    for (const select of [({ view }: State) => view.colour, (state: State) => state.cellInfo, ({ traffic }: State) => traffic.bytes, (state: State) => state.figures]) store.subscribe<unknown>(select, show);
    void stage.first.then(show);
  },
};

function scale(kind: "weight" | "value", state: State, { detail }: App): HTMLElement {
  const { colour } = state.view;
  const cellInfo = isOf(kind, state) ? state.cellInfo : null;
  const most = colour.range ?? (cellInfo ? detail.scale(cellInfo.at.block) : null);
  const [low, high] = most === null ? [t("legend.low"), t("legend.high")] : [cellValue(-most), cellValue(most)].map(short);
  const line = el("div", { class: "ramp-line" }, ramp(kind, colour));
  if (cellInfo && most && typeof cellInfo.value === "number") line.append(marker(cellInfo.value / most));
  return el("div", { class: "ramp" }, el("span", {}, t(`legend.${kind}`)), line, el("small", {}, el("span", {}, low), el("span", {}, "0"), el("span", {}, high)));
}

/** Whether the current cell is of this kind. */
function isOf(kind: "weight" | "value", { cellInfo, figures }: State): boolean {
  if (!cellInfo) return false;
  const layout = figures[cellInfo.at.figure]?.layout;
  const row = layout?.row(cellInfo.at.block) ?? null;
  return layout !== undefined && row !== null && (layout.kindAt(row).role === "weight") === (kind === "weight");
}

/** A colour ramp from −1 to 1 of full brightness. */
export function ramp(kind: "weight" | "value", colour: Colour): HTMLCanvasElement {
  const canvas = el("canvas", { width: STEPS, height: 1, class: "ramp-colours", "aria-hidden": "true" });
  const pen = penOf(canvas);
  for (let n = 0; n < STEPS; n++) {
    pen.fillStyle = colourOf((2 * n) / (STEPS - 1) - 1, kind, colour);
    pen.fillRect(n, 0, 1, 1);
  }
  return canvas;
}

function marker(share: number): HTMLElement {
  const made = el("i", { class: "ramp-marker" });
  made.style.left = `${50 + 50 * Math.max(-1, Math.min(1, share))}%`;
  return made;
}

function short(text: string): string {
  return text.replace(/(\.\d\d)\d+/, "$1");
}
